import { html, useLayoutEffect, useRef, useState } from '../html.js';
import { Shared } from '../store.js';
import { mostRows, useNow } from '../live.js';
import { relative, absoluteTime, count, shown, sentence, money, amount } from '../format.js';
import { Icon } from './icons.js';

/** "3 min ago", with the exact time when it is pointed at. */
export function Time({ at, empty = '–' }) {
  const now = useNow();
  return at ? html`<time datetime=${at} title=${absoluteTime(at)}>${relative(at, now)}</time>` : html`<span class="quiet">${empty}</span>`;
}

const momentIn = /(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z)/;

/** A sentence of the service: its times as everywhere on the page, a command of the command line as something to copy. */
export function Told({ text }) {
  if (/^orderservice /.test(text)) {
    const [command, remark] = text.split(/ (\(.*)/s);
    return html`<code class="command">${shown(command.trimEnd())}</code>${remark && html` <span class="quiet">${shown(remark)}</span>`}`;
  }
  return String(text).split(momentIn).map((part, index) => (index % 2 ? html`<${Time} key=${index} at=${part.replace(' ', 'T')} />` : shown(part)));
}

const tones = {
  parked: 'bad', replayed: 'busy', resolved: 'good', discarded: 'calm', superseded: 'calm',
  new: 'bad', regressed: 'bad', acknowledged: 'warn', muted: 'calm',
  placed: 'busy', paid: 'violet', shipped: 'warn', delivered: 'good', cancelled: 'calm',
  held: 'warn', authorized: 'busy', partly_paid: 'warn', overpaid: 'bad', partly_refunded: 'calm', refunded: 'calm',
  partly_fulfilled: 'warn', partly_returned: 'calm', returned: 'calm',
  running: 'busy', paused: 'warn', stopped: 'bad', done: 'good',
  pending: 'warn', sent: 'good', failed: 'bad',
  ok: 'good', degraded: 'warn', down: 'bad', off: 'calm',
  succeeds: 'good', already_applied: 'calm', still_fails: 'bad', conflicts: 'warn', waits: 'busy', refused: 'warn', deferred: 'busy',
};

/** A state in a word; the tone repeats what the word says and is never the only sign. */
export const Chip = ({ state, children }) => html`<span class=${`chip tone-${tones[state] ?? 'calm'}`}><i class="dot" aria-hidden="true"></i>${children ?? sentence(state)}</span>`;

/** A reason as other programs know it. */
export const Reason = ({ value }) => html`<code class="reason">${shown(value)}</code>`;

/** What tells an incident from another of the same title: the exception's type and the fingerprint. */
export const Twin = ({ item, among }) => among.some(other => other !== item && other.title === item.title)
  && html`<span class="twin">${item.exception && html`<code>${shown(item.exception)}</code> `}<code title=${`fingerprint ${item.fingerprint}`}>${shown(item.fingerprint.slice(0, 8))}</code> · </span>`;

/** Text that came with a message: shown as text, with what can't be seen made visible. */
export const Given = ({ text, empty = '–' }) => (text === null || text === undefined || text === '' ? html`<span class="quiet">${empty}</span>` : html`<span class="given">${shown(text)}</span>`);

export function Money({ values, most = 3 }) {
  if (!values?.length) {
    return html`<span class="quiet">–</span>`;
  }
  const sorted = [...values].sort((a, b) => Number(b.amount) - Number(a.amount));
  return html`<span class="money" title=${sorted.map(money).join(', ')}>${sorted.slice(0, most).map(value => html`<span class="amount" key=${value.currency}>${amount(value.amount, value.currency)} <abbr>${shown(value.currency)}</abbr></span>`)}${sorted.length > most && html`<span class="quiet small">and ${sorted.length - most} more</span>`}</span>`;
}

export const oneAmount = value => (value ? money(value) : '–');

export const Facts = ({ children }) => html`<dl class="facts">${children}</dl>`;
export const Fact = ({ name, children }) => html`<div class="fact"><dt>${name}</dt><dd>${children}</dd></div>`;

/** What would be here, and how to make it appear. */
export const Empty = ({ icon = 'check', title, children }) => html`
  <div class="empty"><span class="empty-icon"><${Icon} name=${icon} /></span><p class="empty-title">${title}</p>${children && html`<div class="empty-text">${children}</div>`}</div>`;

export const Loading = ({ what = 'Loading' }) => html`<div class="loading" aria-busy="true"><span class="skeleton w60"></span><span class="skeleton w90"></span><span class="skeleton w75"></span><span class="hidden">${what}…</span></div>`;

export function Trouble({ error, kept }) {
  // What is shown stays where it is; that the service can't be reached is said once for the whole page.
  if (!error || (kept && error.status === 0)) {
    return null;
  }
  return html`<div class="note tone-bad" role="alert"><strong>${kept ? 'Could not be renewed.' : error.status === 403 ? 'Not allowed.' : error.status === 404 ? 'Not found.' : 'That did not work.'}</strong> ${shown(error.message)}${kept ? ' What you see is the last that was read.' : ''}</div>`;
}

export const Note = ({ tone = 'calm', children }) => html`<div class=${`note tone-${tone}`}>${children}</div>`;

/** A busy button keeps the focus, which a disabled one would lose. */
export function Button({ icon, tone = '', busy, keyName, children, label, onClick, ...rest }) {
  return html`<button type="button" class=${`button ${tone}`} data-key=${keyName} aria-label=${label} aria-keyshortcuts=${keyName} aria-disabled=${busy ? 'true' : undefined} onClick=${busy ? undefined : onClick} ...${rest}>
    ${icon && html`<${Icon} name=${icon} />`}${children && html`<span>${children}</span>`}</button>`;
}

export function Copy({ text, label = 'Copy' }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone(true);
      setTimeout(() => setDone(false), 1500);
    } catch {
      toast('The browser did not allow copying.', 'bad');
    }
  };
  return html`<${Button} icon=${done ? 'check' : 'copy'} tone="small ghost" onClick=${copy} label=${label}>${done ? 'Copied' : label}<//>`;
}

// Toasts

const toasts = new Shared([]);
let toastNumber = 0;

/** One sentence that stays for some seconds; bad news stays until it is dismissed. */
export function toast(text, tone = 'good') {
  const id = ++toastNumber;
  toasts.set([...toasts.value, { id, text, tone }].slice(-4));
  if (tone !== 'bad') {
    setTimeout(() => dismiss(id), 7000);
  }
}

const dismiss = id => toasts.set(toasts.value.filter(item => item.id !== id));

export function Toasts() {
  const items = toasts.use();
  return html`<div class="toasts" role="status" aria-live="polite">${items.map(item => html`
    <div class=${`toast tone-${item.tone}`} key=${item.id}><${Icon} name=${item.tone === 'bad' ? 'incidents' : 'check'} /><span>${shown(item.text)}</span>
      <button type="button" class="icon-button" aria-label="Dismiss" onClick=${() => dismiss(item.id)}><${Icon} name="cross" /></button></div>`)}</div>`;
}

// Dialogs

/** A modal dialog; the browser keeps the focus in it and gives it back. */
export function Dialog({ title, onClose, wide, children }) {
  const ref = useRef();
  // Before the next key, which already means the dialog; and back before the next one again.
  useLayoutEffect(() => {
    const before = document.activeElement;
    const dialog = ref.current;
    dialog.showModal();
    return () => {
      // Escape closed it a moment ago: by now the focus may be where the next key put it.
      const mine = document.activeElement === document.body || dialog.contains(document.activeElement);
      dialog.close();
      if (mine && before?.isConnected && before !== document.body) {
        before.focus();
      }
    };
  }, []);
  return html`
    <dialog ref=${ref} class=${wide ? 'wide' : ''} aria-labelledby="dialog-title" onClose=${onClose} onClick=${event => event.target === ref.current && ref.current.close()}>
      <div class="dialog-inner">
        <header class="dialog-head"><h2 id="dialog-title" tabindex="-1" autofocus>${title}</h2>
          <button type="button" class="icon-button" aria-label="Close" onClick=${() => ref.current.close()}><${Icon} name="cross" /></button></header>
        ${children}
      </div>
    </dialog>`;
}

const opened = new Shared(null);

/** Shows a dialog: a function of `close` that gives its content. One at a time. */
export const openDialog = content => opened.set(content);

export function DialogPlace() {
  const content = opened.use();
  // A dialog says that it was closed a little later; by then another one may be open.
  return content ? content(() => opened.value === content && opened.set(null)) : null;
}

/** What an action needs while it runs: busy, the problem, and a guard against a second click. */
export function useAction() {
  const [state, setState] = useState({ busy: false, error: null });
  const running = useRef(false);
  const run = async action => {
    if (running.current) {
      return undefined;
    }
    running.current = true;
    setState({ busy: true, error: null });
    try {
      const answer = await action();
      setState({ busy: false, error: null });
      return answer ?? true;
    } catch (error) {
      setState({ busy: false, error });
      return undefined;
    } finally {
      running.current = false;
    }
  };
  return { ...state, run };
}

/** Above this many, the number has to be typed. */
const typedAbove = 100;

export const isTyped = (text, number) => number <= typedAbove || text.replaceAll(/[,. ]/g, '') === String(number);

export const TypedNumber = ({ number, value, onInput }) => (number > typedAbove ? html`<${Field} label=${`Type ${number} to confirm`}>${id => html`<input id=${id} inputmode="numeric" autocomplete="off" value=${value} onInput=${event => onInput(event.target.value)} />`}<//>` : null);

let fieldNumber = 0;

export function Field({ label, hint, error, children }) {
  const id = useRef(`field-${++fieldNumber}`).current;
  return html`<div class="field"><label for=${id}>${label}</label>${children(id, hint || error ? `${id}-hint` : undefined)}${(error || hint) && html`<p class=${error ? 'field-error' : 'hint'} id=${`${id}-hint`}>${error || hint}</p>`}</div>`;
}

export const PageHead = ({ title, sub, back, children }) => html`
  <header class="page-head">
    <div class="page-title">${back && html`<a class="back" href=${back.href}><${Icon} name="back" />${back.text}</a>`}<h1 tabindex="-1">${title}</h1>${sub && html`<p class="page-sub">${sub}</p>`}</div>
    ${children && html`<div class="page-actions">${children}</div>`}
  </header>`;

export const Card = ({ title, action, children, kind = '' }) => html`
  <section class=${`card ${kind}`}>${title && html`<header class="card-head"><h2>${title}</h2>${action}</header>`}${children}</section>`;

/** Parts of a page as links, so that each has its address. */
export const Tabs = ({ items, label }) => html`<nav class="tabs" aria-label=${label}>${items.map(item => html`<a key=${item.text} href=${item.href} aria-current=${item.current ? 'page' : undefined}>${item.text}${item.count !== undefined && item.count !== null && html`<span class="tab-count">${item.count}</span>`}</a>`)}</nav>`;

export function MoreRows({ list }) {
  if (list.isFull) {
    return html`<p class="more-rows quiet">The first ${count(mostRows)} are shown. Filter for fewer.</p>`;
  }
  return list.hasMore ? html`<div class="more-rows"><${Button} onClick=${list.more} busy=${list.busy}>${list.busy ? 'Loading…' : 'Show more'}<//></div>` : null;
}

/** Rows that came while the list was on the screen wait here, so that nothing moves under a pointer. */
export function Waiting({ list, one, many }) {
  return html`<div class="waiting" role="status">${list.waiting > 0 && html`<button type="button" onClick=${list.show}>${list.waiting >= 50 ? '50 or more' : list.waiting} new ${list.waiting === 1 ? one : many} – show</button>`}</div>`;
}
