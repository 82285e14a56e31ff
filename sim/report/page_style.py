"""Style sheet and script of the HTML report: no network, light and dark, readable on a telephone."""

from __future__ import annotations

from typing import Final

CSS: Final = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b6168; --line: #d9dce0; --page: #ffffff; --card: #f6f7f9;
  --strong: #0b5cad; --note: #fff6dd; --note-line: #d9a400; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #a2a9b1; --line: #3a3f45; --page: #16181b;
  --card: #1f2226; --strong: #7db8f5; --note: #2e2811; --note-line: #b58900; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 40px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 20px 0 4px; }
p { margin: 6px 0; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.note { background: var(--note); border-left: 4px solid var(--note-line); padding: 8px 12px; margin: 10px 0;
  overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px; margin: 18px 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.card b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { display: block; color: var(--soft); font-size: .86rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { white-space: nowrap; color: var(--soft); font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name { overflow-wrap: anywhere; min-width: 9rem; }
th button { all: unset; cursor: pointer; font: inherit; color: inherit; }
th button:focus-visible { outline: 2px solid var(--strong); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td.source { color: var(--soft); min-width: 14rem; overflow-wrap: anywhere; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .88rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px;
  overflow-x: auto; }
.track { display: inline-block; width: 100%; min-width: 60px; height: .7rem; background: var(--card);
  border: 1px solid var(--line); vertical-align: middle; }
.track i { display: block; height: 100%; background: var(--strong); }
.figure { width: 100%; min-width: 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 4px 16px; }
.figures > div { min-width: 0; }
@media (max-width: 560px) { main { padding: 16px 12px 48px; } h1 { font-size: 1.3rem; }
  .cards { grid-template-columns: 1fr; gap: 8px; } td.source { min-width: 11rem; }
  .modebar { display: none; } }
@media print { .figure { break-inside: avoid; } }
""".strip()

SCRIPT: Final = """
(function () {
  'use strict';
  var dark = window.matchMedia('(prefers-color-scheme: dark)');
  var narrow = window.matchMedia('(max-width: 560px)');
  function paint() {
    var style = getComputedStyle(document.documentElement);
    document.querySelectorAll('.js-plotly-plot').forEach(function (plot) {
      var size = narrow.matches ? 11 : 13;
      var change = {'font.color': style.getPropertyValue('--ink').trim(), 'font.size': size};
      Plotly.relayout(plot, change);
    });
  }
  function key(cell) {
    var raw = cell.getAttribute('data-v');
    return raw === null ? cell.textContent.trim() : parseFloat(raw);
  }
  document.querySelectorAll('table.sortable th button').forEach(function (button) {
    button.addEventListener('click', function () {
      var head = button.parentNode, body = head.closest('table').tBodies[0];
      var index = Array.prototype.indexOf.call(head.parentNode.children, head);
      var down = head.getAttribute('aria-sort') !== 'descending';
      head.parentNode.querySelectorAll('th').forEach(function (other) { other.removeAttribute('aria-sort'); });
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      Array.from(body.rows).sort(function (a, b) {
        var x = key(a.cells[index]), y = key(b.cells[index]);
        var order = typeof x === 'number' ? x - y : x.localeCompare(y);
        return down ? -order : order;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
  dark.addEventListener('change', paint);
  narrow.addEventListener('change', paint);
  window.addEventListener('load', paint);
})();
""".strip()
