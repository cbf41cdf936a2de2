import { at } from './base.js';
import { Shared } from './store.js';

/** Who is signed in: undefined until known, null when nobody is, else {name, scopes, csrfToken}. */
export const session = new Shared(undefined);

/** An answer that is not a success, with what the problem document says. Status 0: no answer at all. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || body?.title || `The service answered ${status}.`);
    this.status = status;
    this.code = body?.code ?? '';
    this.errors = Array.isArray(body?.errors) ? body.errors : [];
    this.retryAfter = body?.retryAfter ?? null;
  }
}

/** Since when the service can't be reached, as a time; null while it answers. */
export const outOfReach = new Shared(null);

const patience = 30_000;

/** A page that nobody touched for so long reads by itself; the session does not take that for use. */
const untouched = 60_000;
let touchedAt = performance.now();
for (const touch of ['pointerdown', 'keydown', 'wheel', 'touchstart']) {
  addEventListener(touch, () => { touchedAt = performance.now(); }, { capture: true, passive: true });
}

async function send(method, path, { body, signal, raw } = {}) {
  const headers = { Accept: raw ? '*/*' : 'application/json' };
  if (performance.now() - touchedAt > untouched) {
    headers['X-Background'] = '1';
  }
  if (method !== 'GET') {
    headers['X-CSRF-Token'] = session.value?.csrfToken ?? '';
    if (body !== undefined) {
      headers['Content-Type'] = 'application/json';
    }
  }
  const given = [AbortSignal.timeout(patience), ...(signal ? [signal] : [])];
  let response;
  try {
    response = await fetch(at(path), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'error',
      signal: AbortSignal.any(given),
    });
  } catch (error) {
    if (signal?.aborted) {
      throw error;
    }
    outOfReach.set(outOfReach.value ?? Date.now());
    throw new Problem(0, { detail: error.name === 'TimeoutError' ? 'The service did not answer within 30 s.' : 'The service can’t be reached. Nothing was changed by this page; it keeps trying.' });
  }
  outOfReach.set(null);
  if (!response.ok) {
    let problem = null;
    try {
      problem = await response.json();
    } catch {
      // A proxy in between may answer with something else.
    }
    if (response.status === 401 && path !== '/api/session') {
      session.set(null);
    }
    throw new Problem(response.status, { ...problem, retryAfter: response.headers.get('Retry-After') });
  }
  if (raw) {
    return response.arrayBuffer();
  }
  return response.status === 204 || response.headers.get('Content-Length') === '0' ? null : readJson(response);
}

async function readJson(response) {
  const text = await response.text();
  return text === '' ? null : JSON.parse(text);
}

export const get = (path, options) => send('GET', path, options);
export const post = (path, body = {}) => send('POST', path, { body });
export const del = path => send('DELETE', path);
export const getBytes = (path, options) => send('GET', path, { ...options, raw: true });

export async function loadSession() {
  try {
    session.set(await get('/api/session'));
  } catch (problem) {
    // Who is not signed in and shares an address with many may be told to wait; a right key gets in all the same.
    if (problem.status === 401 || problem.status === 429) {
      session.set(null);
    } else {
      throw problem;
    }
  }
}

export async function signIn(key) {
  session.set(await post('/api/session', { key }));
}

export async function signOut() {
  try {
    await send('DELETE', '/api/session');
  } finally {
    session.set(null);
  }
}

export const may = scope => session.value?.scopes?.includes(scope) ?? false;

/** A path with a query string of the values that are set. */
export function withQuery(path, values) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined && value !== null && value !== '') {
      query.set(name, value);
    }
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

export const segment = encodeURIComponent;
