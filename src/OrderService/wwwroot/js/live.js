import { useState, useEffect, useRef, useCallback } from './html.js';
import { Shared, remember } from './store.js';
import { at, own } from './base.js';
import { get, session, withQuery } from './api.js';
import { route } from './router.js';

/** True while an operator has stopped updates with the pause button or the key '.'. */
export const paused = new Shared(remember.get('paused') === 'yes');
paused.readers.add(value => remember.set('paused', value ? 'yes' : null));

/** The state of the event stream: off, connecting, open. */
export const streamState = new Shared('off');

/** 'order-event' with the event as detail. */
export const orderEvents = new EventTarget();

/** What must not change under somebody's hands: a page that is not seen, a dialog, marked text. */
function frozen() {
  return paused.value || document.hidden || document.querySelector('dialog[open]') !== null || (getSelection()?.isCollapsed === false && getSelection().toString() !== '');
}

// One stream for the whole browser: it allows six connections to a host, and a stream in each tab would leave none for anything else. The tab that holds the lock has the
// stream and hands on what it hears; a tab that is not seen has no part in it. Where there are no locks (plain http by name), each tab that is seen has its own.

const channel = typeof BroadcastChannel === 'function' ? new BroadcastChannel(own('events')) : null;

/** Ends this tab's part in the stream; null while it has none. */
let part = null;
let leads = false;

function follow() {
  const wanted = session.value && !paused.value && !document.hidden;
  if (!wanted && part) {
    part.abort();
    part = null;
    streamState.set('off');
  }
  if (wanted && !part) {
    part = new AbortController();
    streamState.set('connecting');
    const { signal } = part;
    if (!navigator.locks || !channel) {
      lead(signal);
      return;
    }
    channel.postMessage({ ask: true });
    navigator.locks.request(own('events'), { signal }, () => !signal.aborted && new Promise(done => {
      signal.addEventListener('abort', done);
      lead(signal);
    })).catch(() => {
      // This tab was hidden, paused or signed out before its turn came.
    });
  }
}

function lead(signal) {
  let source = null;
  let timer = null;
  const tell = state => {
    streamState.set(state);
    channel?.postMessage({ state });
  };
  const connect = () => {
    tell('connecting');
    source = new EventSource(at('/api/events/stream'));
    source.onopen = () => tell('open');
    source.onerror = () => {
      tell('connecting');
      // The browser comes back by itself after a lost connection, but not after an answer that was no stream.
      if (source.readyState === EventSource.CLOSED) {
        timer = setTimeout(connect, 3000);
      }
    };
    source.onmessage = ({ data }) => {
      hear(data);
      channel?.postMessage({ data });
    };
  };
  leads = true;
  connect();
  signal.addEventListener('abort', () => {
    leads = false;
    clearTimeout(timer);
    source.onerror = null;
    source.close();
  });
}

function hear(data) {
  try {
    orderEvents.dispatchEvent(new CustomEvent('order-event', { detail: JSON.parse(data) }));
  } catch {
    // Not from us: other applications of this host can write to the channel.
  }
}

channel?.addEventListener('message', ({ data }) => {
  if (data?.ask) {
    if (leads) {
      channel.postMessage({ state: streamState.value });
    }
  } else if (part && !leads) {
    if (data?.state) {
      streamState.set(data.state === 'open' ? 'open' : 'connecting');
    } else {
      hear(data?.data);
    }
  }
});

session.readers.add(follow);
paused.readers.add(follow);
document.addEventListener('visibilitychange', follow);

// What is on the screen, how often it is to be renewed, and when that was done last. "Live" is said of nothing else.

const onScreen = new Set();

/** Since when something on the screen has not been renewed as it should have been, as a time; null when all of it is fresh. */
export const staleSince = new Shared(null);

function lookAtAge() {
  const now = performance.now();
  const late = [...onScreen].filter(one => now - one.drawnAt > one.every * 2 + 4000).map(one => one.drawnAt);
  staleSince.set(late.length ? Math.round((Date.now() - now + Math.min(...late)) / 1000) * 1000 : null);
}

setInterval(lookAtAge, 1000);
document.addEventListener('visibilitychange', lookAtAge);

/** Notes that what was read is on the screen, as long as the part of the page that shows it is. */
function useDrawn(answer, every) {
  const one = useRef();
  one.current ??= { every, drawnAt: 0 };
  useEffect(() => {
    if (answer === null || !every) {
      return undefined;
    }
    one.current.every = every;
    one.current.drawnAt = performance.now();
    onScreen.add(one.current);
    lookAtAge();
    return () => onScreen.delete(one.current);
  }, [answer, every]);
}

/** Calls `read` again and again until it is stopped, and at once when the page is seen again. */
function repeat(read, every, stop) {
  let timer = null;
  let busy = false;
  const turn = async () => {
    clearTimeout(timer);
    if (busy) {
      return;
    }
    busy = true;
    await read();
    busy = false;
    if (!stop.aborted && every) {
      timer = setTimeout(turn, every);
    }
  };
  const seen = () => !document.hidden && every && turn();
  document.addEventListener('visibilitychange', seen);
  stop.addEventListener('abort', () => {
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', seen);
  });
  turn();
}

/** Calls back at most once a second while events of orders (all, or those that match) come in. */
export function useOrderEvents(callback, matches = () => true) {
  const latest = useRef();
  latest.current = { callback, matches };
  useEffect(() => {
    let timer = null;
    const heard = event => {
      if (timer === null && latest.current.matches(event.detail)) {
        timer = setTimeout(() => {
          timer = null;
          latest.current.callback();
        }, 1000);
      }
    };
    orderEvents.addEventListener('order-event', heard);
    return () => {
      orderEvents.removeEventListener('order-event', heard);
      clearTimeout(timer);
    };
  }, []);
}

/**
 * Reads a path now and every so many milliseconds. Data that was read stays while a later read fails.
 * @returns {{data: any, error: Problem|null, refresh: () => void}}
 */
export function usePolled(path, every) {
  const [state, setState] = useState({ path: null, data: null, error: null });
  const [round, setRound] = useState(0);
  useDrawn(state.path === path ? state.data : null, every);
  useEffect(() => {
    if (!path) {
      return undefined;
    }
    const stop = new AbortController();
    let first = true;
    const read = async () => {
      if (first || !frozen()) {
        try {
          const data = await get(path, { signal: stop.signal });
          if (first || !frozen()) {
            setState({ path, data, error: null });
          }
          first = false;
        } catch (error) {
          if (stop.signal.aborted) {
            return;
          }
          setState(old => ({ path, data: old.path === path ? old.data : null, error }));
        }
      }
    };
    repeat(read, every, stop.signal);
    return () => stop.abort();
  }, [path, every, round]);
  const refresh = useCallback(() => setRound(value => value + 1), []);
  return state.path === path ? { ...state, refresh } : { data: null, error: null, refresh };
}

const pageSize = 50;

/** More rows than this help nobody and slow the browser down; a filter finds the others. */
export const mostRows = 1000;

/** Lists as they were left, so that going back finds the same rows at the same place. */
const leftLists = new Map();

/** The newest page put together with the rows that are shown: those are renewed in place and never move, and what came since waits. */
function merge(old, answer, keyOf) {
  const next = answer.next ?? null;
  const renewed = new Map(answer.items.map(item => [keyOf(item), item]));
  const known = new Set(old.items.map(keyOf));
  // A row above the last one that both readings have, or any row when there is one page, has left the list; it stays in its place, marked.
  const seen = next === null ? old.items.length : old.items.findLastIndex(item => renewed.has(keyOf(item)));
  const items = old.items.map((item, index) => renewed.get(keyOf(item)) ?? (index < seen ? { ...item, left: true } : item));
  return { ...old, items, waiting: answer.items.filter(item => !known.has(keyOf(item))), error: null, total: answer.total ?? null, answer };
}

/**
 * A list with cursor paging that is looked at again every so often.
 * @param keyOf names a row
 * @returns {{items, error, hasMore, isFull, more, waiting, show, refresh, total}}
 */
export function useList(path, query, keyOf, every = 5000) {
  const address = withQuery(path, { limit: pageSize, ...query });
  const [state, setState] = useState(() => (route.value.back && leftLists.get(address)) || { address: null, items: null, next: null, error: null, waiting: [], total: null });
  const [round, setRound] = useState(0);
  const [busy, setBusy] = useState(false);
  const current = useRef(state);
  current.current = state;
  const renewAll = useRef(false);
  useDrawn(state.address === address ? state.answer ?? null : null, every);

  useEffect(() => {
    const stop = new AbortController();
    let first = true;
    const read = async () => {
      if (first || !frozen()) {
        try {
          const answer = await get(address, { signal: stop.signal });
          if (first || !frozen()) {
            const anew = renewAll.current;
            renewAll.current = false;
            setState(old => (anew || old.address !== address || !old.items?.length
              ? { address, items: answer.items, next: answer.next ?? null, error: null, waiting: [], total: answer.total ?? null, answer }
              : merge(old, answer, keyOf)));
          }
          first = false;
        } catch (error) {
          if (stop.signal.aborted) {
            return;
          }
          setState(old => (old.address === address ? { ...old, error } : { address, items: null, next: null, error, waiting: [], total: null }));
        }
      }
    };
    repeat(read, every, stop.signal);
    return () => {
      stop.abort();
      if (current.current.address === address) {
        leftLists.delete(address);
        leftLists.set(address, current.current);
        if (leftLists.size > 10) {
          leftLists.delete(leftLists.keys().next().value);
        }
      }
    };
  }, [address, every, round]);

  const more = useCallback(async () => {
    const before = current.current;
    if (!before.next || busy) {
      return;
    }
    setBusy(true);
    try {
      const answer = await get(withQuery(path, { limit: pageSize, ...query, after: before.next }));
      setState(old => {
        if (old.address !== before.address || old.next !== before.next) {
          return old;
        }
        const known = new Set(old.items.map(keyOf));
        return { ...old, items: [...old.items, ...answer.items.filter(item => !known.has(keyOf(item)))], next: answer.next ?? null };
      });
    } catch (error) {
      setState(old => ({ ...old, error }));
    } finally {
      setBusy(false);
    }
  }, [address, busy]);

  /** Reads everything anew: after an action of this page the operator expects its effect, also rows that leave. */
  const refresh = useCallback(() => {
    renewAll.current = true;
    setRound(value => value + 1);
  }, []);

  const show = useCallback(() => {
    if (current.current.waiting.length >= pageSize) {
      // A whole page of new rows: between them and those that are shown there may be others.
      refresh();
    } else {
      setState(old => ({ ...old, items: [...old.waiting, ...old.items], waiting: [] }));
    }
  }, []);

  const mine = state.address === address;
  const isFull = mine && state.items?.length >= mostRows;
  return {
    items: mine ? state.items : null,
    error: mine ? state.error : null,
    hasMore: mine && state.next !== null && !isFull,
    isFull: isFull && state.next !== null,
    busy,
    more,
    waiting: mine ? state.waiting.length : 0,
    show,
    refresh,
    total: mine ? state.total : null,
  };
}

/** Redraws relative times every few seconds. */
const now = new Shared(Date.now());
setInterval(() => {
  if (!document.hidden) {
    now.set(Date.now());
  }
}, 5000);
export const useNow = () => now.use();
