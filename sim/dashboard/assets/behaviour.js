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

  /* The clipboard of a page that is not this machine's own needs the old way. */
  function copy(text) {
    if (navigator.clipboard) { return navigator.clipboard.writeText(text); }
    var area = document.createElement('textarea');
    area.value = text;
    area.style.position = 'fixed';
    area.style.opacity = '0';
    document.body.appendChild(area);
    area.select();
    var done = document.execCommand('copy');
    area.remove();
    return done ? Promise.resolve() : Promise.reject(new Error('copy'));
  }

  function tell(text) {
    window.dash_clientside.set_props('share', {children: text});
    setTimeout(function () { window.dash_clientside.set_props('share', {children: 'Copy link'}); }, 1500);
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
        return [none(), null];  // a new answer: what went wrong before is over
      },
      menu: function (path, data) {
        var query = new URLSearchParams(data && data.path === path ? data.query : window.location.search);
        var kept = new URLSearchParams();
        SHARED.forEach(function (key) { query.getAll(key).forEach(function (v) { kept.append(key, v); }); });
        var tail = kept.toString();
        document.querySelectorAll('header nav a').forEach(function (anchor) {
          var here = anchor.pathname;
          var target = tail && PAGES_WITH_SHARED.indexOf(here) >= 0 && PAGES_WITH_SHARED.indexOf(path) >= 0;
          anchor.setAttribute('href', here + (target ? '?' + tail : ''));  // also for a new tab
          if (here === path) { anchor.setAttribute('aria-current', 'page'); } else { anchor.removeAttribute('aria-current'); }
        });
        return none();
      },
      theme: function (clicks) {
        var now = document.documentElement.dataset.theme || 'auto';
        return setTheme(clicks ? THEMES[(THEMES.indexOf(now) + 1) % THEMES.length] : now);
      },
      share: function () {
        copy(window.location.href).then(function () { tell('Copied'); }, function () {
          tell('Copy it from the address bar');
        });
        return none();
      },
      sent: function (contents, name) {
        if (!contents) { return [none(), none(), none()]; }
        var limit = /\.(parquet|pq|csv)$/i.test(name || '') ? TABLE_LIMIT : LIMIT;
        if (size(contents) > limit) {
          var mib = (size(contents) / 1048576).toFixed(1);
          return [none(), (name || 'the file') + ': ' + mib + ' MiB; at most ' + limit / 1048576 + ' MiB', null];
        }
        /* What was sent is forgotten, and has a time: the same file can be sent again. */
        return [{name: name, contents: contents, at: Date.now()}, 'checking…', null];
      },
      /* Figures are asked for once the form stands: their library keeps a slow machine busy for seconds. */
      later: function (value) {
        return new Promise(function (resolve) {
          var left = 80;
          (function wait() {
            if (document.querySelector('main .form .dash-dropdown') || left-- <= 0) { setTimeout(resolve, 0, value); } else { setTimeout(wait, 25); }
          })();
        });
      }
    }
  });

  /* Menu links take hardware, workload and changes along. */
  document.addEventListener('click', function (event) {
    var anchor = event.target.closest && event.target.closest('header nav a');
    if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey || event.button) { return; }
    event.preventDefault();
    event.stopPropagation();
    window.history.pushState({}, '', anchor.pathname + anchor.search);
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
