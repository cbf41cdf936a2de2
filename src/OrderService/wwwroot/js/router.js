// Addresses live after the '#': they never reach a server's or a proxy's log, and any static file server can serve the page.
import { Shared } from './store.js';
import { withQuery } from './api.js';

/** @param back what the browser's history kept of this step, when somebody went back or forth to it; else null */
function read(back = null) {
  const text = location.hash.startsWith('#/') ? location.hash.slice(1) : '/';
  const [path, query = ''] = text.split(/\?(.*)/s);
  return { path, parts: path.split('/').filter(Boolean).map(decode), query: Object.fromEntries(new URLSearchParams(query)), text, back };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = new Shared(read());

history.scrollRestoration = 'manual';
addEventListener('popstate', event => {
  const left = `#${route.value.text}`;
  route.set(read(event.state && { ...event.state, left }));
});

/** An address of this page; always begins with '#/', whatever the values are. */
export const link = (path, query = {}) => `#${withQuery(path, query)}`;

let toFocus = null;

/** What the page that was gone to focuses first: its heading, unless it was asked for something else. */
export function takeFocus() {
  const wanted = toFocus ?? 'h1';
  toFocus = null;
  return wanted;
}

/** Goes to an address. The page stands there when this returns: the next key or click already means the new page. */
export function go(address, focus = null) {
  toFocus = focus;
  if (address !== `#${route.value.text}`) {
    history.replaceState({ y: scrollY }, '');
    history.pushState(null, '', address);
    route.set(read());
  }
}

addEventListener('click', event => {
  const anchor = event.target.closest?.('a[href^="#/"]');
  if (anchor && event.button === 0 && !event.defaultPrevented && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey) {
    event.preventDefault();
    go(anchor.getAttribute('href'));
  }
});

/** Changes the filters of the current address without a step in the browser's history. */
export function setQuery(changes) {
  const { path, query } = route.value;
  history.replaceState(history.state, '', link(path, { ...query, ...changes }));
  route.set(read());
}
