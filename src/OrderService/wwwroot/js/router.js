// Addresses live after the '#': they never reach a server's or a proxy's log, and any static file server can serve the page.
import { Shared } from './store.js';
import { withQuery } from './api.js';

function read() {
  const text = location.hash.startsWith('#/') ? location.hash.slice(1) : '/';
  const [path, query = ''] = text.split(/\?(.*)/s);
  return { path, parts: path.split('/').filter(Boolean).map(decode), query: Object.fromEntries(new URLSearchParams(query)), text };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = new Shared(read());
addEventListener('hashchange', () => route.set(read()));

/** An address of this page; always begins with '#/', whatever the values are. */
export const link = (path, query = {}) => `#${withQuery(path, query)}`;

export function go(address) {
  location.hash = address.slice(1);
}

/** Changes the filters of the current address without a step in the browser's history. */
export function setQuery(changes) {
  const { path, query } = route.value;
  history.replaceState(null, '', link(path, { ...query, ...changes }));
  route.set(read());
}
