import { useState, useEffect, useRef, useCallback } from './html.js';
import { Shared, remember } from './store.js';
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

let source = null;

function follow() {
  const wanted = session.value && !paused.value;
  if (!wanted && source) {
    source.close();
    source = null;
    streamState.set('off');
  }
  if (wanted && !source) {
    streamState.set('connecting');
    source = new EventSource('/api/events/stream');
    source.onopen = () => streamState.set('open');
    source.onerror = () => {
      streamState.set('connecting');
      // The browser comes back by itself after a lost connection, but not after an answer that was no stream.
      if (source?.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(follow, 3000);
      }
    };
    const hand = message => {
      try {
        orderEvents.dispatchEvent(new CustomEvent('order-event', { detail: JSON.parse(message.data) }));
      } catch {
        // A comment or a heartbeat.
      }
    };
    source.onmessage = hand;
    for (const type of ['ORDER_PLACED', 'ORDER_PAYMENT_RECEIVED', 'ORDER_PAID', 'ORDER_SHIPPED', 'ORDER_DELIVERED', 'ORDER_CANCELLED']) {
      source.addEventListener(type, hand);
    }
  }
}

session.readers.add(follow);
paused.readers.add(follow);

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
  useEffect(() => {
    if (!path) {
      return undefined;
    }
    const stop = new AbortController();
    let timer = null;
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
      if (!stop.signal.aborted && every) {
        timer = setTimeout(read, every);
      }
    };
    read();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
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
  return { ...old, items, waiting: answer.items.filter(item => !known.has(keyOf(item))), error: null, total: answer.total ?? null };
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

  useEffect(() => {
    const stop = new AbortController();
    let timer = null;
    let first = true;
    const read = async () => {
      if (first || !frozen()) {
        try {
          const answer = await get(address, { signal: stop.signal });
          if (first || !frozen()) {
            const anew = renewAll.current;
            renewAll.current = false;
            setState(old => (anew || old.address !== address || !old.items?.length
              ? { address, items: answer.items, next: answer.next ?? null, error: null, waiting: [], total: answer.total ?? null }
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
      if (!stop.signal.aborted && every) {
        timer = setTimeout(read, every);
      }
    };
    read();
    return () => {
      stop.abort();
      clearTimeout(timer);
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
