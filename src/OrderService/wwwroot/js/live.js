import { useState, useEffect, useRef, useCallback } from './html.js';
import { Shared, remember } from './store.js';
import { get, session, withQuery } from './api.js';

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
    source.onerror = () => streamState.set('connecting');
    const hand = message => {
      try {
        orderEvents.dispatchEvent(new CustomEvent('order-event', { detail: JSON.parse(message.data) }));
      } catch {
        // A comment or a heartbeat.
      }
    };
    source.onmessage = hand;
    for (const type of ['ORDER_PLACED', 'ORDER_PAID', 'ORDER_SHIPPED', 'ORDER_DELIVERED', 'ORDER_CANCELLED']) {
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
        first = false;
        try {
          const data = await get(path, { signal: stop.signal });
          setState({ path, data, error: null });
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

/**
 * A list with cursor paging that is looked at again every so often. Rows that are shown are renewed in place and never move; rows that came since wait to be asked for.
 * @param keyOf names a row
 * @returns {{items, error, loading, hasMore, more, waiting, show, refresh, total}}
 */
export function useList(path, query, keyOf, every = 5000) {
  const address = withQuery(path, { limit: 50, ...query });
  const [state, setState] = useState({ address: null, items: null, next: null, error: null, waiting: [], total: null });
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
        first = false;
        try {
          const answer = await get(address, { signal: stop.signal });
          const old = current.current;
          const total = answer.total ?? null;
          const next = answer.next ?? null;
          if (renewAll.current || old.address !== address || !old.items?.length) {
            renewAll.current = false;
            setState({ address, items: answer.items, next, error: null, waiting: [], total });
          } else {
            const renewed = new Map(answer.items.map(item => [keyOf(item), item]));
            const known = new Set(old.items.map(keyOf));
            // A row above the last one that both readings have, or any row when there is one page, has left the list; it stays in its place, marked.
            const seen = next === null ? old.items.length : old.items.findLastIndex(item => renewed.has(keyOf(item)));
            const items = old.items.map((item, index) => renewed.get(keyOf(item)) ?? (index < seen ? { ...item, left: true } : item));
            setState({ ...old, items, waiting: answer.items.filter(item => !known.has(keyOf(item))), error: null, total });
          }
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
    };
  }, [address, every, round]);

  const more = useCallback(async () => {
    const before = current.current;
    if (!before.next) {
      return;
    }
    setBusy(true);
    try {
      const answer = await get(withQuery(path, { limit: 50, ...query, after: before.next }));
      setState(old => {
        if (old.address !== before.address) {
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
  }, [address]);

  const show = useCallback(() => setState(old => ({ ...old, items: [...old.waiting, ...old.items], waiting: [] })), []);

  /** Reads everything anew: after an action of this page the operator expects its effect, also rows that leave. */
  const refresh = useCallback(() => {
    renewAll.current = true;
    setRound(value => value + 1);
  }, []);

  const mine = state.address === address;
  return {
    items: mine ? state.items : null,
    error: mine ? state.error : null,
    hasMore: mine && state.next !== null,
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
