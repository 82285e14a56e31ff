/* Sliders of the what-if page: a name for each handle, and its value as a multiple of the file's. */
(function () {
  'use strict';
  function factor(doublings) {
    var value = Math.pow(2, doublings);
    return '×' + Number(value.toPrecision(3));
  }
  window.dccFunctions = window.dccFunctions || {};
  window.dccFunctions.effsimFactor = factor;

  function name(handle) {
    var around = handle.closest('.what-range[data-label]');
    if (!around) { return; }
    var label = around.getAttribute('data-label');
    if (handle.getAttribute('aria-label') !== label) { handle.setAttribute('aria-label', label); }
    var now = parseFloat(handle.getAttribute('aria-valuenow'));
    var said = around.hasAttribute('data-log') ? factor(now) + ' of the file' : String(Number(now.toPrecision(3)));
    if (handle.getAttribute('aria-valuetext') !== said) { handle.setAttribute('aria-valuetext', said); }
  }
  var asked = false;
  function all() {
    asked = false;
    document.querySelectorAll('.what-range [role="slider"]').forEach(name);
  }
  new MutationObserver(function () {
    if (!asked) { asked = true; window.requestAnimationFrame(all); }
  }).observe(document.documentElement, {
    childList: true, subtree: true, attributes: true, attributeFilter: ['aria-valuenow', 'aria-label']
  });
})();
