/* What pages do by themselves: links that restore a view, light and dark, sorting of tables, sizes of uploads. */
(function () {
  'use strict';
  var SHARED = ['hardware', 'workload', 'set'];
  var PAGES_WITH_SHARED = ['/', '/what-if', '/compare', '/serve'];
  var LIMIT = 1048576, TABLE_LIMIT = 25165824;
  var THEMES = ['auto', 'light', 'dark'];
  var none = function () { return window.dash_clientside.no_update; };

  function setTheme(name) {
    var root = document.documentElement;
    if (name === 'auto') { delete root.dataset.theme; } else { root.dataset.theme = name; }
    try {
      if (name === 'auto') { localStorage.removeItem('effsim-theme'); } else { localStorage.setItem('effsim-theme', name); }
    } catch (error) { /* private windows keep nothing */ }
    return 'Theme: ' + name;
  }

  function size(contents) {
    var comma = contents.indexOf(',');
    return Math.floor((contents.length - comma - 1) * 3 / 4);
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    effsim: {
      link: function (data) {
        if (data && data.path === window.location.pathname) {
          window.history.replaceState(window.history.state, '', data.path + data.query);
        }
        return none();
      },
      menu: function (path, data) {
        var query = new URLSearchParams(data && data.path === path ? data.query : window.location.search);
        var kept = new URLSearchParams();
        SHARED.forEach(function (key) { query.getAll(key).forEach(function (v) { kept.append(key, v); }); });
        var tail = kept.toString();
        document.querySelectorAll('header nav a').forEach(function (anchor) {
          var here = anchor.pathname;
          if (here === path) { anchor.setAttribute('aria-current', 'page'); } else { anchor.removeAttribute('aria-current'); }
        });
        window.effsimShared = tail;
        return none();
      },
      theme: function (clicks) {
        var now = document.documentElement.dataset.theme || 'auto';
        return setTheme(clicks ? THEMES[(THEMES.indexOf(now) + 1) % THEMES.length] : now);
      },
      share: function () {
        var text = window.location.href;
        if (navigator.clipboard) { navigator.clipboard.writeText(text).catch(function () {}); }
        setTimeout(function () {
          var button = document.getElementById('share');
          if (button) { button.textContent = 'Copy link'; }
        }, 1500);
        return 'Copied';
      },
      sent: function (contents, name) {
        if (!contents) { return [none(), none()]; }
        var limit = /\.(parquet|pq|csv)$/i.test(name || '') ? TABLE_LIMIT : LIMIT;
        if (size(contents) > limit) {
          var mib = (size(contents) / 1048576).toFixed(1);
          return [none(), (name || 'the file') + ': ' + mib + ' MiB; at most ' + limit / 1048576 + ' MiB'];
        }
        return [{name: name, contents: contents}, 'checking…'];
      },
      same: function (value) { return value; }
    }
  });

  /* Menu links take hardware, workload and changes along. */
  document.addEventListener('click', function (event) {
    var anchor = event.target.closest && event.target.closest('header nav a');
    if (!anchor || !window.effsimShared) { return; }
    if (PAGES_WITH_SHARED.indexOf(anchor.pathname) < 0 || event.ctrlKey || event.metaKey || event.shiftKey) { return; }
    if (PAGES_WITH_SHARED.indexOf(window.location.pathname) < 0) { return; }
    event.preventDefault();
    event.stopPropagation();
    window.history.pushState({}, '', anchor.pathname + '?' + window.effsimShared);
    window.dispatchEvent(new CustomEvent('_dashprivate_pushstate'));
    window.scrollTo(0, 0);
  }, true);

  /* Heads of tables sort their rows. */
  function key(cell) {
    var raw = cell && cell.getAttribute('data-v');
    return raw === null || raw === undefined ? (cell ? cell.textContent.trim() : '') : parseFloat(raw);
  }
  document.addEventListener('click', function (event) {
    var button = event.target.closest && event.target.closest('table.sortable th button');
    if (!button) { return; }
    var head = button.parentNode, body = head.closest('table').tBodies[0];
    var index = Array.prototype.indexOf.call(head.parentNode.children, head);
    var down = head.getAttribute('aria-sort') !== 'descending';
    head.parentNode.querySelectorAll('th').forEach(function (other) { other.removeAttribute('aria-sort'); });
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    Array.from(body.rows).sort(function (a, b) {
      var x = key(a.cells[index]), y = key(b.cells[index]);
      var order = typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y));
      return down ? -order : order;
    }).forEach(function (row) { body.appendChild(row); });
  });
})();
