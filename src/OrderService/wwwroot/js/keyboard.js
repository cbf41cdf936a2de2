import { go, link } from './router.js';
import { paused } from './live.js';
import { Shared, remember } from './store.js';
import { rows } from './focus.js';
import { openDialog, Dialog } from './parts/basics.js';
import { html } from './html.js';

/** Single keys can be switched off (WCAG 2.1.4). */
export const shortcuts = new Shared(remember.get('shortcuts') !== 'off');
shortcuts.readers.add(on => remember.set('shortcuts', on ? null : 'off'));

const places = { o: ['/', 'Overview'], d: ['/dead-letters', 'Dead letters'], i: ['/incidents', 'Incidents'], r: ['/orders', 'Orders'], j: ['/replays', 'Replay jobs'], q: ['/queues', 'Queues'], n: ['/alerts', 'Alerts (notifications)'], a: ['/audit', 'Audit log'] };

/** When 'g' was pressed; a place may follow for a while. */
let afterG = -Infinity;

addEventListener('keydown', event => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !shortcuts.value) {
    return;
  }
  const target = event.target;
  if (target instanceof HTMLElement && (target.isContentEditable || target.matches('input:not([type=checkbox]):not([type=radio]), textarea, select'))) {
    if (event.key === 'Escape' && target.matches('[data-search]')) {
      // The browser would empty the field, though the list still shows what it was searched for.
      event.preventDefault();
      target.blur();
    }
    return;
  }
  if (document.querySelector('dialog[open]')) {
    return;
  }
  const key = event.key;
  if (afterG > event.timeStamp - 1500 && places[key]) {
    afterG = -Infinity;
    event.preventDefault();
    go(link(places[key][0]));
    return;
  }
  afterG = key === 'g' ? event.timeStamp : -Infinity;
  const act = { '?': showHelp, '.': () => paused.set(!paused.value), '/': focusSearch, j: () => move(1), k: () => move(-1), x: () => row()?.querySelector('[data-row-check]')?.click(), X: () => rangeClick(), r: () => press('r'), '#': () => press('#') }[key];
  if (act) {
    event.preventDefault();
    act();
  }
});

const row = () => document.activeElement?.closest('[data-row]');

function move(step) {
  const all = rows();
  const now = all.indexOf(row());
  const next = all[now === -1 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, now + step))];
  const focus = next?.querySelector('[data-row-link]');
  focus?.focus();
  next?.scrollIntoView({ block: 'nearest' });
}

function rangeClick() {
  row()?.querySelector('[data-row-check]')?.dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true, shiftKey: true }));
}

/** The action of the row that has the focus, else the page's. */
function press(name) {
  const find = place => [...place.querySelectorAll(`button[data-key="${name}"]`)].find(button => !button.disabled);
  const button = (row() && find(row())) ?? find(document.querySelector('main') ?? document);
  button?.click();
}

function focusSearch() {
  const search = document.querySelector('[data-search]');
  if (search) {
    search.focus();
    search.select();
  } else {
    go(link('/orders'), '[data-search]');
  }
}

export const showHelp = () => openDialog(close => html`<${Help} close=${close} />`);

const others = [['?', 'This help'], ['/', 'Search'], ['j', 'Next row'], ['k', 'Row before'], ['x', 'Select the row'], ['shift x', 'Select up to the row'], ['enter', 'Open the row'], ['r', 'Replay what is selected or open'], ['#', 'Discard what is selected or open'], ['.', 'Pause and resume updates'], ['esc', 'Close a dialog, leave the search']];

function Help({ close }) {
  const on = shortcuts.use();
  return html`<${Dialog} title="Keyboard" onClose=${close} wide>
    <div class="help-columns">
      <section><h3>Go to</h3><dl class="keys">${Object.entries(places).map(([key, [, text]]) => html`<div key=${key}><dt><kbd>g</kbd> <kbd>${key}</kbd></dt><dd>${text}</dd></div>`)}</dl></section>
      <section><h3>Do</h3><dl class="keys">${others.map(([key, text]) => html`<div key=${key}><dt>${key.split(' ').map(part => html`<kbd>${part}</kbd> `)}</dt><dd>${text}</dd></div>`)}</dl></section>
    </div>
    <label class="choice"><input type="checkbox" checked=${on} onChange=${event => shortcuts.set(event.target.checked)} /> Single keys do something outside of fields</label>
  <//>`;
}
