import { html } from '../html.js';
import { link } from '../router.js';
import { segment } from '../api.js';
import { useList } from '../live.js';
import { shown } from '../format.js';
import { Empty, Given, Loading, MoreRows, PageHead, Time, Trouble, Waiting } from '../parts/basics.js';

const subjects = [[/^dead letter (\d+)$/, '/dead-letters/'], [/^replay (\d+)$/, '/replays/'], [/^incident ([0-9a-f]+)$/, '/incidents/'], [/^order ([A-Za-z0-9._-]+)$/, '/orders/']];

/** What was acted on, as a link where the page shows it. */
function Subject({ text }) {
  for (const [pattern, place] of subjects) {
    const match = pattern.exec(text ?? '');
    if (match) {
      return html`<a href=${link(place + segment(match[1]))}>${shown(text)}</a>`;
    }
  }
  return html`<${Given} text=${text} />`;
}

export function Audit({ query }) {
  const list = useList('/api/audit', { who: query.who, action: query.action }, item => item.id);
  return html`
    <${PageHead} title="Audit log" sub="Who did what, and what was refused. Entries are only ever added." />
    ${(query.who || query.action) && html`<p class="active-filters">Only
      ${query.who && html`<a class="filter-chip" href=${link('/audit', { action: query.action })} title="Remove this filter">by ${shown(query.who)} ✕</a>`}
      ${query.action && html`<a class="filter-chip" href=${link('/audit', { who: query.who })} title="Remove this filter">${shown(query.action)} ✕</a>`}</p>`}
    <${Waiting} list=${list} one="entry" many="entries" />
    <${Trouble} error=${list.error} kept=${list.items !== null} />
    ${!list.items && !list.error && html`<${Loading} what="Loading the audit log" />`}
    ${list.items?.length === 0 && html`<${Empty} icon="audit" title=${query.who || query.action ? 'Nothing matches' : 'Nothing was done yet'}>Replays, edits, discards, sign-ins and refusals are written here.<//>`}
    ${list.items?.length > 0 && html`<table class="rows"><caption class="hidden">Audit log, newest first</caption><thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">Did</th><th scope="col">To</th><th scope="col">Reason or detail</th><th scope="col">From</th></tr></thead>
      <tbody>${list.items.map(entry => html`<tr key=${entry.id} data-row><td data-label="When"><${Time} at=${entry.at} /></td>
        <th scope="row" data-label="Who"><a class="plain-link" href=${link('/audit', { ...query, who: entry.who })} title="Only by them">${shown(entry.who)}</a></th>
        <td data-label="Did"><a class=${`kind plain-link ${entry.action === 'refused' ? 'bad-text' : ''}`} href=${link('/audit', { ...query, action: entry.action })} title="Only these">${shown(entry.action)}</a></td>
        <td data-label="To"><${Subject} text=${entry.subject} /></td><td class="wide-cell" data-label="Detail"><${Given} text=${entry.detail} /></td>
        <td data-label="From">${entry.address ? html`<code title=${[entry.right, entry.request && `request ${entry.request}`].filter(Boolean).join(', ') || undefined}>${shown(entry.address)}</code>` : html`<span class="quiet">–</span>`}</td></tr>`)}</tbody></table>`}
    <${MoreRows} list=${list} />`;
}
