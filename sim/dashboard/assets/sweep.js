/* The sweep page: what was selected in one figure, as ranges that the server applies to the others. */
(function () {
  'use strict';
  var none = function () { return window.dash_clientside.no_update; };

  function corners(path) {
    var xs = [], ys = [];
    path.replace(/[MLZ]/g, ' ').trim().split(/\s+/).forEach(function (pair) {
      var parts = pair.split(',').map(Number);
      if (parts.length === 2) { xs.push(parts[0]); ys.push(parts[1]); }
    });
    return [xs, ys];
  }

  function areas(picked) {
    var boxes = [], lassos = [];
    (picked.selections || []).forEach(function (one) {
      if (one.type === 'path' && one.path) { lassos.push(corners(one.path)); } else if (one.x0 !== undefined) {
        boxes.push([one.x0, one.x1, one.y0, one.y1]);
      }
    });
    if (!boxes.length && !lassos.length && picked.range && picked.range.x) {
      boxes.push([picked.range.x[0], picked.range.x[1], picked.range.y[0], picked.range.y[1]]);
    }
    if (!boxes.length && !lassos.length && picked.lassoPoints && picked.lassoPoints.x) {
      lassos.push([picked.lassoPoints.x, picked.lassoPoints.y]);
    }
    return {boxes: boxes, lassos: lassos};
  }

  function brushed() {
    var plot = document.querySelector('#sweep-parallel .js-plotly-plot'), out = {};
    ((plot && plot.data && plot.data[0].dimensions) || []).forEach(function (dimension) {
      var range = dimension.constraintrange;
      if (range && range.length) { out[dimension.name] = Array.isArray(range[0]) ? range : [range]; }
    });
    return out;
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    effsim_sweep: {
      /* Data of the store of what is selected; the figure where something was selected last decides alone. */
      chosen: function (picked, restyled, cleared, x, y, log, now) {
        var from = window.dash_clientside.callback_context.triggered_id, source = now && now.source;
        if (from === 'sweep-clear') { return cleared && source ? {} : none(); }
        if (from === 'sweep-scatter') {
          var found = picked ? areas(picked) : {boxes: [], lassos: []};
          if (!found.boxes.length && !found.lassos.length) { return source === 'scatter' ? {} : none(); }
          return Object.assign({source: 'scatter', x: x, y: y, log: log || []}, found);
        }
        if (from === 'sweep-parallel') {
          var told = restyled && restyled[0] ? Object.keys(restyled[0]) : [];
          if (!told.some(function (key) { return key.indexOf('constraintrange') >= 0; })) { return none(); }
          var ranges = brushed();
          if (!Object.keys(ranges).length) { return source === 'parallel' ? {} : none(); }
          return {source: 'parallel', ranges: ranges};
        }
        return none();
      },
      /* The number of the point that was clicked. */
      clicked: function (click) {
        var point = click && click.points && click.points[0];
        return point && point.customdata !== undefined && point.customdata !== null ? Number(point.customdata) : none();
      }
    }
  });
})();
