import { html, useEffect, useRef, useState } from '../html.js';
import { at } from '../base.js';
import { link, setQuery } from '../router.js';
import { may, post, segment, withQuery } from '../api.js';
import { useList } from '../live.js';
import { count, plural, sentence, shown } from '../format.js';
import { Button, Chip, Dialog, Empty, Field, Given, Loading, MoreRows, PageHead, Reason, Tabs, Time, Trouble, TypedNumber, Waiting, isTyped, oneAmount, openDialog, toast, useAction } from '../parts/basics.js';
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
  // All that match the filter, also those that are not shown.
  const [everything, setEverything] = useState(false);
  const anchor = useRef(null);
  const filterKey = JSON.stringify(filter);
  const select = ids => {
    setSelected(new Set(ids));
    setEverything(false);
  };
  useEffect(() => select([]), [filterKey]);

  const items = list.items ?? [];
  const total = list.total ?? (list.hasMore ? null : items.length);
  // Only letters that wait can be replayed or discarded.
  const acts = may('operate') && (status === 'parked' || status === 'all');
  const isSelected = item => everything || selected.has(item.id);
  const toggle = (id, range) => {
    const next = new Set(items.filter(isSelected).map(item => item.id));
    const ids = items.map(item => item.id);
    if (range && ids.includes(anchor.current)) {
      const [from, to] = [ids.indexOf(anchor.current), ids.indexOf(id)].sort((a, b) => a - b);
      ids.slice(from, to + 1).forEach(one => next.add(one));
    } else if (!next.delete(id)) {
      next.add(id);
    }
    anchor.current = id;
    select(next);
  };
  const all = items.length > 0 && items.every(isSelected);
  const chosen = items.filter(isSelected).map(item => item.id);
  const target = everything ? { filter: { ...filter, status: 'parked' }, what: `all ${plural(total ?? 0, 'letter')} that match` } : { ids: chosen, what: plural(chosen.length, 'selected letter') };
  const matching = { filter: { ...filter, status: 'parked' }, what: 'all waiting letters that match' };
  const done = () => {
    select([]);
    list.refresh();
  };
  const here = inIncident ? `/incidents/${segment(query.fingerprint)}` : '/dead-letters';
  const kept = inIncident ? { ...query, fingerprint: undefined } : query;
  const words = everything ? html`All <b>${count(total)}</b> that match are selected`
    : chosen.length > 0 ? html`<b>${count(chosen.length)}</b> selected`
    : !list.items ? '' : total === null ? `${count(items.length)} shown, there are more` : plural(total, 'letter');

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
      <span class="toolbar-count" role="status">${words}</span>
      ${acts && chosen.length > 0 && html`
        ${status === 'parked' && all && !everything && total > items.length && html`<${Button} tone="small" onClick=${() => setEverything(true)}>Select all ${count(total)} that match<//>`}
        <${Button} tone="primary small" icon="replays" keyName="r" onClick=${() => openReplay({ ...target, onDone: done })}>Replay selected<//>
        <${Button} tone="small" icon="discard" keyName="#" onClick=${() => openDiscard({ ...target, onDone: done })}>Discard selected<//>
        <${Button} tone="small ghost" onClick=${() => select([])}>Clear selection<//>`}
      ${acts && chosen.length === 0 && items.length > 0 && html`
        <${Button} tone="small phone-only" onClick=${() => select(items.map(item => item.id))}>Select all<//>
        <${Button} tone="small" icon="replays" onClick=${() => openReplay({ ...matching, onDone: done })}>Replay all that match<//>
        <${Button} tone="small" icon="discard" onClick=${() => openDiscard({ ...matching, onDone: done })}>Discard all that match<//>`}
      <span class="toolbar-end"><a class="button small ghost" href=${at(withQuery('/api/export/dead-letters', { ...filter, format: 'csv' }))} download>Export CSV</a><a class="button small ghost" href=${at(withQuery('/api/export/dead-letters', { ...filter, format: 'ndjson' }))} download>NDJSON</a></span>
    </div>
    <${Waiting} list=${list} one="letter" many="letters" />
    <${Trouble} error=${list.error} kept=${list.items !== null} />
    ${!list.items && !list.error && html`<${Loading} what="Loading letters" />`}
    ${list.items?.length === 0 && html`<${Empty} icon="letters" title=${query.q || query.reason || query.orderId ? 'No letter matches' : status === 'parked' ? 'No letter waits' : 'None here'}>${query.q || query.reason || query.orderId ? html`Take a filter away, or look at <a href=${link(here, { status: 'all' })}>all letters</a>.` : status === 'parked' ? html`Every message was processed. To see one here, publish something broken: <code>orderservice publish --sample 20 --poison 20%</code>` : 'Letters in this state appear here.'}<//>`}
    ${items.length > 0 && html`
      <table class="rows letters-table"><caption class="hidden">Dead letters, newest first</caption>
        <thead><tr>${acts && html`<th scope="col" class="check"><input type="checkbox" aria-label="Select all that are shown" checked=${all} onChange=${() => select(all ? [] : items.map(item => item.id))} /></th>`}
          <th scope="col">Letter</th><th scope="col">What is wrong</th><th scope="col">Order</th><th scope="col" class="number">Value</th><th scope="col" class="number">Replays</th><th scope="col">Parked</th>${status !== 'parked' && html`<th scope="col">State</th>`}</tr></thead>
        <tbody>${items.map(item => html`
          <tr key=${item.id} data-row class=${`${isSelected(item) ? 'selected' : ''} ${item.left ? 'left' : ''}`}>
            ${acts && html`<td class="check"><input type="checkbox" data-row-check aria-label=${`Select letter ${item.id}`} checked=${isSelected(item)} onClick=${event => toggle(item.id, event.shiftKey)} /></td>`}
            <th scope="row" data-label="Letter"><a data-row-link href=${link(`/dead-letters/${segment(item.id)}`)}>${item.id}</a></th>
            <td class="wide-cell" data-label="What is wrong"><${Reason} value=${item.reason} /> <span class="detail"><${Given} text=${item.detail} /></span></td>
            <td data-label="Order">${item.orderId ? html`<a class="mono" href=${link(`/orders/${segment(item.orderId)}`)}>${shown(item.orderId)}</a>` : html`<span class="quiet">not known</span>`}${item.customerId && html`<span class="under">${shown(item.customerId)}</span>`}</td>
            <td class="number" data-label="Value">${oneAmount(item.value)}</td>
            <td class=${`number ${item.replays || item.copies > 1 ? '' : 'is-zero'}`} data-label="Replays">${count(item.replays)}${item.copies > 1 && html`<span class="under">${count(item.copies)} copies</span>`}</td>
            <td data-label="Parked"><${Time} at=${item.openedAt ?? item.parkedAt} /></td>
            ${status !== 'parked' && html`<td data-label="State"><${Chip} state=${item.status}>${item.status === 'parked' ? 'waiting' : undefined}<//></td>`}
          </tr>`)}</tbody></table>`}
    <${MoreRows} list=${list} />`;
}

/** Asks for the reason and discards: letters by their numbers, or all that match a filter. */
export const openDiscard = options => openDialog(close => html`<${DiscardDialog} close=${close} ...${options} />`);

const usual = ['Test message', 'Duplicate of another order', 'Corrected at the source', 'Customer cancelled', 'Not an order'];

/** So many in one call: the progress is seen, and closing the dialog stops it. */
const inOneCall = 2000;

function DiscardDialog({ ids, filter, what, close, onDone }) {
  const [found, setFound] = useState(null);
  const [reason, setReason] = useState('');
  const [typed, setTyped] = useState('');
  const [progress, setProgress] = useState(null);
  const { busy, error, run } = useAction();
  const closed = useRef(false);
  const single = ids?.length === 1 ? ids[0] : null;
  const target = ids ? { ids } : { filter };

  useEffect(() => {
    if (single === null) {
      run(async () => setFound(await post('/api/dead-letters/discards', { ...target, dryRun: true })));
    }
    return () => { closed.current = true; };
  }, []);

  const wanted = single !== null ? 1 : found?.count ?? null;
  const ready = wanted > 0 && reason.trim() !== '' && isTyped(typed, wanted);

  const discard = async () => {
    if (single !== null) {
      await post(`/api/dead-letters/${segment(single)}/discard`, { reason: reason.trim() });
      return 1;
    }
    for (let done = 0; ;) {
      setProgress(done);
      const answer = await post('/api/dead-letters/discards', { ...target, upTo: found.upTo, limit: inOneCall, reason: reason.trim() });
      done += answer.discarded;
      if (answer.discarded === 0 || done >= wanted || closed.current) {
        return done;
      }
    }
  };
  const submit = async event => {
    event.preventDefault();
    if (!ready || busy) {
      return;
    }
    const done = await run(discard);
    if (done) {
      toast(`${plural(done, 'letter')} discarded${!closed.current && done < wanted ? `; ${count(wanted - done)} were settled by somebody else first` : ''}. They can be restored until they are cleaned up.`);
      close();
    }
    onDone?.();
  };
  return html`<${Dialog} title=${single !== null ? `Discard letter ${single}` : `Discard ${what}`} onClose=${close}>
    <form onSubmit=${submit}>
      <p>${found && html`<b>${plural(found.count, 'waiting letter')}</b> would be discarded. `}A discarded letter is not processed and no longer alerts. It stays readable and can be restored.</p>
      <div class="quick" role="group" aria-label="Usual reasons">${usual.map(text => html`<button type="button" key=${text} class="button small" onClick=${() => setReason(text)}>${text}</button>`)}</div>
      <${Field} label="Reason (required)" hint="The audit log and the letter keep it.">${(id, hint) => html`<input id=${id} aria-describedby=${hint} required value=${reason} onInput=${event => setReason(event.target.value)} maxlength="500" />`}<//>
      <${TypedNumber} number=${wanted} value=${typed} onInput=${setTyped} />
      ${progress !== null && busy && html`<div class="stack-tight"><progress max=${wanted} value=${progress} aria-label="Letters discarded"></progress><p role="status">${count(progress)} of ${count(wanted)} discarded. Closing this stops it.</p></div>`}
      <${Trouble} error=${error} />
      <div class="dialog-actions"><${Button} onClick=${close}>Cancel<//><button class="button danger" type="submit" disabled=${!ready} aria-disabled=${busy}>${wanted === 0 ? 'Nothing to discard' : wanted === null ? 'Discard' : `Discard ${plural(wanted, 'letter')}`}</button></div>
    </form><//>`;
}
