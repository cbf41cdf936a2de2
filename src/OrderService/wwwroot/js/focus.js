// Whatever is drawn anew, the keyboard stays where it was: when the element that had the focus is gone, what took its place gets it.

/** The element that has the focus, those around it, whether it is in a row, and how many rows stand before it. */
let held = null;

export const rows = () => [...document.querySelectorAll('[data-row]')].filter(row => row.querySelector('[data-row-link]'));

addEventListener('focusin', ({ target }) => {
  const around = [];
  for (let one = target.parentElement; one; one = one.parentElement) {
    around.push(one);
  }
  held = { target, around, inRow: target.closest('[data-row]') !== null, before: rows().filter(row => row.compareDocumentPosition(target) === Node.DOCUMENT_POSITION_FOLLOWING).length };
});

// A click beside everything gives the focus up, and that is meant.
addEventListener('pointerdown', () => { held = null; }, true);

function replacement({ around, inRow, before }) {
  const near = around.find(one => one.isConnected);
  const row = near.closest('[data-row]') ?? rows()[Math.min(before, rows().length - 1)];
  const beside = near.closest('main, dialog') && !near.matches('main, dialog') ? near.querySelector('button:not(:disabled), a[href], input, select, textarea') : null;
  return (inRow ? row?.querySelector('[data-row-link]') : beside ?? (near.closest('main') && row?.querySelector('[data-row-link]'))) ?? near.closest('dialog')?.querySelector('h2') ?? document.querySelector('main h1');
}

new MutationObserver(() => {
  if (held && !held.target.isConnected && document.activeElement === document.body) {
    replacement(held)?.focus({ preventScroll: true });
  }
}).observe(document.getElementById('app'), { childList: true, subtree: true });
