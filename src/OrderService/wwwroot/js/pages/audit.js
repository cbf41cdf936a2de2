import { html } from '../html.js';
import { useList } from '../live.js';
import { shown } from '../format.js';
import { Empty, Given, Loading, MoreRows, PageHead, Time, Trouble, Waiting } from '../parts/basics.js';

export function Audit() {
  const list = useList('/api/audit', {}, item => item.id);
  return html`
    <${PageHead} title="Audit log" sub="Who did what, and what was refused. Entries are only ever added." />
    <${Waiting} list=${list} one="entry" many="entries" />
    <${Trouble} error=${list.error} kept=${list.items !== null} />
    ${!list.items && !list.error && html`<${Loading} what="Loading the audit log" />`}
    ${list.items?.length === 0 && html`<${Empty} icon="audit" title="Nothing was done yet">Replays, edits, discards, sign-ins and refusals are written here.<//>`}
    ${list.items?.length > 0 && html`<table class="rows"><caption class="hidden">Audit log, newest first</caption><thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">Did</th><th scope="col">To</th><th scope="col">Reason or detail</th></tr></thead>
      <tbody>${list.items.map(entry => html`<tr key=${entry.id} data-row><td data-label="When"><${Time} at=${entry.at} /></td><th scope="row" data-label="Who">${shown(entry.who)}</th><td data-label="Did"><span class=${`kind ${entry.action === 'refused' ? 'bad-text' : ''}`}>${shown(entry.action)}</span></td><td data-label="To"><${Given} text=${entry.subject} /></td><td class="wide-cell" data-label="Detail"><${Given} text=${entry.detail} /></td></tr>`)}</tbody></table>`}
    <${MoreRows} list=${list} />`;
}
