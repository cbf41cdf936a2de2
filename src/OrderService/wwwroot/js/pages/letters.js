import { html, useEffect, useRef, useState } from '../html.js';
import { link, setQuery } from '../router.js';
import { may, post, segment, withQuery } from '../api.js';
import { useList } from '../live.js';
import { count, plural, sentence, shown } from '../format.js';
import { Button, Chip, Dialog, Empty, Field, Given, Loading, MoreRows, PageHead, Reason, Tabs, Time, Trouble, Waiting, oneAmount, openDialog, toast } from '../parts/basics.js';
import { SearchBox } from './incidents.js';
import { openReplay } from './replay-dialog.js';

const statuses = { parked: 'Waiting', replayed: 'Replayed', resolved: 'Resolved', discarded: 'Discarded', superseded: 'Superseded', all: 'All' };

const reasons = ['malformed_json', 'body_empty', 'body_too_large', 'unsupported_content_type', 'unsupported_content_encoding', 'invalid_encoding', 'depth_exceeded', 'duplicate_field', 'unknown_field', 'missing_field', 'wrong_type',
  'unknown_command', 'key_invalid', 'key_conflict', 'id_invalid', 'text_invalid', 'amount_out_of_range', 'amount_precision', 'currency_unknown', 'quantity_out_of_range', 'too_many_lines', 'time_invalid', 'property_invalid',
  'order_unknown', 'delivery_limit', 'expired', 'crash_suspect', 'foreign_dead_letter', 'replay_exhausted', 'internal_error'];

export function Letters({ query }) {
  return html`
    <${PageHead} title="Dead letters" sub="Messages that could not be processed, kept byte for byte until somebody decides." />
    <${LetterTable} query=${{ ...query, status: query.status ?? 'parked' }} />`;
}

/** The letters that match, with filters, selection and what can be done with those selected. */
export function LetterTable({ query, inIncident }) {
  const status = statuses[query.status] ? query.status : 'all';
  const filter = { status: status === 'all' ? undefined : status, reason: query.reason, fingerprint: query.fingerprint, orderId: query.orderId, q: query.q };
  const list = useList('/api/dead-letters', filter, item => item.id);
  const [selected, setSelected] = useState(new Set());
  const anchor = useRef(null);
  const filterKey = JSON.stringify(filter);
  useEffect(() => setSelected(new Set()), [filterKey]);

  const items = list.items ?? [];
  const total = list.total ?? (list.hasMore ? null : items.length);
  const toggle = (id, range) => {
    const next = new Set(selected);
    const ids = items.map(item => item.id);
    if (range && anchor.current !== null && ids.includes(anchor.current)) {
      const [from, to] = [ids.indexOf(anchor.current), ids.indexOf(id)].sort((a, b) => a - b);
      ids.slice(from, to + 1).forEach(one => next.add(one));
    } else if (next.has(id)) {
      next.delete(id);
    } else {
      next.add(id);
    }
    anchor.current = id;
    setSelected(next);
  };
  const all = items.length > 0 && items.every(item => selected.has(item.id));
  const chosen = items.filter(item => selected.has(item.id)).map(item => item.id);
  const done = () => {
    setSelected(new Set());
    list.refresh();
  };
  const here = inIncident ? `/incidents/${segment(query.fingerprint)}` : '/dead-letters';
  const kept = inIncident ? { ...query, fingerprint: undefined } : query;

  return html`
    <div class="filters">
      <${Tabs} label="States of letters" items=${Object.entries(statuses).map(([name, text]) => ({ text, href: link(here, { ...kept, status: name }), current: name === status }))} />
      <div class="filter-fields">
        ${!inIncident && html`<div class="select"><select aria-label="Reason" value=${query.reason ?? ''} onChange=${event => setQuery({ reason: event.target.value })}><option value="">Every reason</option>${reasons.map(reason => html`<option value=${reason} key=${reason}>${sentence(reason)}</option>`)}</select></div>`}
        <${SearchBox} value=${query.q} label="Order, customer, message id or text" />
      </div>
    </div>
    ${(query.fingerprint && !inIncident || query.orderId) && html`<p class="active-filters">Only
      ${query.fingerprint && html`<a class="filter-chip" href=${link('/dead-letters', { ...query, fingerprint: undefined })} title="Remove this filter">incident ${shown(query.fingerprint)} ✕</a>`}
      ${query.orderId && html`<a class="filter-chip" href=${link('/dead-letters', { ...query, orderId: undefined })} title="Remove this filter">order ${shown(query.orderId)} ✕</a>`}</p>`}
    <div class="toolbar" role="toolbar" aria-label="What to do with the letters">
      <span class="toolbar-count">${chosen.length > 0 ? html`<b>${count(chosen.length)}</b> selected` : list.items ? (total === null ? `${count(items.length)} shown, there are more` : plural(total, 'letter')) : ''}</span>
      ${may('operate') && html`
        ${chosen.length > 0 ? html`
          <${Button} tone="primary small" icon="replays" keyName="r" onClick=${() => openReplay({ ids: chosen, what: plural(chosen.length, 'selected letter'), onDone: done })}>Replay selected<//>
          <${Button} tone="small" icon="discard" keyName="#" onClick=${() => openDiscard({ ids: chosen, onDone: done })}>Discard selected<//>
          <${Button} tone="small ghost" onClick=${() => setSelected(new Set())}>Clear selection<//>`
        : items.length > 0 && (status === 'parked' || status === 'all') && html`
          <${Button} tone="small" icon="replays" onClick=${() => openReplay({ filter: { ...filter, status: 'parked' }, what: 'all waiting letters that match', onDone: done })}>Replay all that match<//>`}`}
      <span class="toolbar-end"><a class="button small ghost" href=${withQuery('/api/export/dead-letters', { ...filter, format: 'csv' })} download>Export CSV</a><a class="button small ghost" href=${withQuery('/api/export/dead-letters', { ...filter, format: 'ndjson' })} download>NDJSON</a></span>
    </div>
    <${Waiting} list=${list} one="letter" many="letters" />
    <${Trouble} error=${list.error} kept=${list.items !== null} />
    ${!list.items && !list.error && html`<${Loading} what="Loading letters" />`}
    ${list.items?.length === 0 && html`<${Empty} icon="letters" title=${query.q || query.reason || query.orderId ? 'No letter matches' : status === 'parked' ? 'No letter waits' : 'None here'}>${query.q || query.reason || query.orderId ? html`Take a filter away, or look at <a href=${link(here, { status: 'all' })}>all letters</a>.` : status === 'parked' ? html`Every message was processed. To see one here, publish something broken: <code>orderservice publish --sample 20 --poison 0.2</code>` : 'Letters in this state appear here.'}<//>`}
    ${items.length > 0 && html`
      <table class="rows letters-table"><caption class="hidden">Dead letters, newest first</caption>
        <thead><tr>${may('operate') && html`<th scope="col" class="check"><input type="checkbox" aria-label="Select all that are shown" checked=${all} onChange=${() => setSelected(all ? new Set() : new Set(items.map(item => item.id)))} /></th>`}
          <th scope="col">Letter</th><th scope="col">What is wrong</th><th scope="col">Order</th><th scope="col" class="number">Value</th><th scope="col" class="number">Replays</th><th scope="col">Parked</th><th scope="col">State</th></tr></thead>
        <tbody>${items.map(item => html`
          <tr key=${item.id} data-row class=${`${selected.has(item.id) ? 'selected' : ''} ${item.left ? 'left' : ''}`}>
            ${may('operate') && html`<td class="check"><input type="checkbox" data-row-check aria-label=${`Select letter ${item.id}`} checked=${selected.has(item.id)} onClick=${event => toggle(item.id, event.shiftKey)} /></td>`}
            <th scope="row" data-label="Letter"><a data-row-link href=${link(`/dead-letters/${segment(item.id)}`)}>${item.id}</a></th>
            <td class="wide-cell" data-label="What is wrong"><${Reason} value=${item.reason} /> <span class="detail"><${Given} text=${item.detail} /></span></td>
            <td data-label="Order">${item.orderId ? html`<a class="mono" href=${link(`/orders/${segment(item.orderId)}`)}>${shown(item.orderId)}</a>` : html`<span class="quiet">not known</span>`}${item.customerId && html`<span class="under">${shown(item.customerId)}</span>`}</td>
            <td class="number" data-label="Value">${oneAmount(item.value)}</td>
            <td class="number" data-label="Replays">${count(item.replays)}${item.copies > 1 && html`<span class="under">${count(item.copies)} copies</span>`}</td>
            <td data-label="Parked"><${Time} at=${item.openedAt ?? item.parkedAt} /></td>
            <td data-label="State"><${Chip} state=${item.status}>${item.status === 'parked' ? 'waiting' : undefined}<//></td>
          </tr>`)}</tbody></table>`}
    <${MoreRows} list=${list} />`;
}

export const openDiscard = options => openDialog(close => html`<${DiscardDialog} close=${close} ...${options} />`);

const usual = ['Test message', 'Duplicate of another order', 'Corrected at the source', 'Customer cancelled', 'Not an order'];

function DiscardDialog({ ids, close, onDone }) {
  const [reason, setReason] = useState('');
  const [progress, setProgress] = useState(null);
  const stopped = useRef(false);
  useEffect(() => () => { stopped.current = true; }, []);
  const busy = progress !== null && progress.tried < ids.length;
  const submit = async event => {
    event.preventDefault();
    if (busy) {
      return;
    }
    let state = { tried: 0, done: 0, failures: [] };
    setProgress(state);
    for (const id of ids) {
      if (stopped.current) {
        break;
      }
      try {
        await post(`/api/dead-letters/${segment(id)}/discard`, { reason: reason.trim() });
        state = { ...state, done: state.done + 1 };
      } catch (error) {
        state = { ...state, failures: [...state.failures, { id, text: error.message }] };
      }
      state = { ...state, tried: state.tried + 1 };
      setProgress(state);
    }
    if (state.failures.length === 0) {
      toast(`${plural(state.done, 'letter')} discarded. They can be restored until they are cleaned up.`);
      close();
    }
    onDone?.();
  };
  return html`<${Dialog} title=${ids.length === 1 ? `Discard letter ${ids[0]}` : `Discard ${count(ids.length)} letters`} onClose=${close}>
    <form onSubmit=${submit}>
      <p>A discarded letter is not processed and no longer alerts. It stays readable and can be restored.</p>
      <div class="quick" role="group" aria-label="Usual reasons">${usual.map(text => html`<button type="button" key=${text} class="button small" onClick=${() => setReason(text)}>${text}</button>`)}</div>
      <${Field} label="Reason (required)" hint="The audit log and the letter keep it.">${(id, hint) => html`<input id=${id} aria-describedby=${hint} required value=${reason} onInput=${event => setReason(event.target.value)} maxlength="500" />`}<//>
      ${progress && html`<div class="stack-tight"><progress max=${ids.length} value=${progress.tried} aria-label="Letters discarded"></progress><p>${count(progress.done)} discarded${progress.failures.length > 0 ? `, ${count(progress.failures.length)} not` : ''}.</p>
        ${progress.failures.length > 0 && html`<ul class="failures">${progress.failures.slice(0, 20).map(one => html`<li key=${one.id}>Letter ${one.id}: ${shown(one.text)}</li>`)}</ul>`}</div>`}
      <div class="dialog-actions"><${Button} onClick=${close}>${progress && !busy ? 'Close' : 'Cancel'}<//><button class="button danger" type="submit" disabled=${busy || !reason.trim() || progress !== null}>Discard ${plural(ids.length, 'letter')}</button></div>
    </form><//>`;
}
