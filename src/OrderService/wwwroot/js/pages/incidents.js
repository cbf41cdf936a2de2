import { html } from '../html.js';
import { link, setQuery } from '../router.js';
import { get, post, may, segment } from '../api.js';
import { useList, usePolled } from '../live.js';
import { build, count, plural, shown } from '../format.js';
import { Button, Card, Chip, Dialog, Empty, Fact, Facts, Field, Given, Loading, Money, MoreRows, PageHead, Reason, Tabs, Time, Trouble, Twin, Waiting, openDialog, toast, useAction } from '../parts/basics.js';
import { Hourly } from '../parts/chart.js';
import { Icon } from '../parts/icons.js';
import { useState } from '../html.js';
import { LetterTable } from './letters.js';
import { openReplay } from './replay-dialog.js';

const states = { open: 'Open', new: 'New', acknowledged: 'Acknowledged', regressed: 'Came back', muted: 'Muted', resolved: 'Resolved', all: 'All' };

const isMuted = item => item.mutedUntil && Date.parse(item.mutedUntil) > Date.now();

export function Incidents({ query }) {
  const state = states[query.state] ? query.state : 'open';
  const list = useList('/api/incidents', { state, q: query.q }, item => item.fingerprint);
  return html`
    <${PageHead} title="Incidents" sub="Dead letters grouped by their cause: same reason, same field, same place in the code." />
    <div class="filters">
      <${Tabs} label="States of incidents" items=${Object.entries(states).map(([name, text]) => ({ text, href: link('/incidents', { ...query, state: name === 'open' ? undefined : name }), current: name === state }))} />
      <${SearchBox} value=${query.q} label="Search incidents by title, reason or field" />
    </div>
    <${Waiting} list=${list} one="incident" many="incidents" />
    <${Trouble} error=${list.error} kept=${list.items !== null} />
    ${!list.items && !list.error && html`<${Loading} what="Loading incidents" />`}
    ${list.items?.length === 0 && html`<${Empty} title=${query.q ? 'No incident matches' : state === 'open' ? 'No open incident' : 'None here'}>${query.q ? 'Search for less, or look at all states.' : state === 'open' ? html`When a message can’t be processed, its cause appears here. Try it: <code>orderservice publish --sample 20 --poison 20%</code>` : 'Incidents in this state appear here.'}<//>`}
    ${list.items?.length > 0 && html`<ul class="incidents">${list.items.map(item => html`<${IncidentRow} key=${item.fingerprint} item=${item} among=${list.items} onChanged=${list.refresh} />`)}</ul>`}
    <${MoreRows} list=${list} />`;
}

export function SearchBox({ value, label, name = 'q' }) {
  const [text, setText] = useState(null);
  const submit = event => {
    event.preventDefault();
    setQuery({ [name]: (text ?? value ?? '').trim() });
    setText(null);
  };
  return html`<form class="search" role="search" onSubmit=${submit}><${Icon} name="search" />
    <input type="search" data-search aria-label=${label} placeholder=${label} value=${text ?? value ?? ''} onInput=${event => setText(event.target.value)} maxlength="256" />
    ${value && html`<button type="button" class="icon-button" aria-label="Clear the search" onClick=${() => { setText(null); setQuery({ [name]: '' }); }}><${Icon} name="cross" /></button>`}</form>`;
}

function IncidentRow({ item, among, onChanged }) {
  const muted = isMuted(item);
  return html`<li class=${`incident ${item.left ? 'left' : ''}`} data-row>
    <div class="incident-main">
      <a class="incident-title" data-row-link href=${link(`/incidents/${segment(item.fingerprint)}`)}>${shown(item.title)}</a>
      <p class="incident-more"><${Twin} item=${item} among=${among} /><${Reason} value=${item.reason} />${item.field && html`<span>at <code>${shown(item.field)}</code></span>`}<span>last <${Time} at=${item.lastSeen} /></span><span>first <${Time} at=${item.firstSeen} /></span>
        ${item.regressedBuild && html`<span class="bad-text">came back in build ${build(item.regressedBuild)}</span>`}</p>
    </div>
    <div class="incident-bars">${item.hourly?.length ? html`<${Hourly} values=${item.hourly} /><span class="quiet">last 24 h</span>` : null}</div>
    <div class="incident-numbers"><span><b>${count(item.parked)}</b> waiting</span><span class="quiet">${count(item.letters)} in all</span></div>
    <div class="incident-held"><${Money} values=${item.held} /><span class="quiet">${plural(item.orders ?? 0, 'order')}</span></div>
    <div class="incident-state">${muted ? html`<${Chip} state="muted">muted<//>` : html`<${Chip} state=${item.state}>${item.state === 'regressed' ? 'came back' : item.state}<//>`}</div>
    <div class="incident-actions">${may('operate') && html`
      ${item.state !== 'acknowledged' && item.state !== 'resolved' && html`<${Button} tone="small" icon="check" onClick=${() => changeState(item, 'acknowledge', onChanged)} label=${`Acknowledge ${item.title}`}>Acknowledge<//>`}
      ${item.parked > 0 && html`<${Button} tone="small" icon="replays" keyName="r" onClick=${() => openReplay({ filter: { status: 'parked', fingerprint: item.fingerprint }, what: `the incident “${item.title}”` })} label=${`Replay the letters of ${item.title}`}>Replay<//>`}`}</div>
  </li>`;
}

async function changeState(item, verb, onChanged, body = {}) {
  try {
    await post(`/api/incidents/${segment(item.fingerprint)}/${verb}`, body);
    toast({ acknowledge: 'Acknowledged. Reminders stop; it alerts again when it comes back after it was resolved.', mute: body.until ? 'Muted.' : 'No longer muted.', resolve: 'Resolved. If it comes back, it alerts at once.' }[verb]);
  } catch (error) {
    toast(error.message, 'bad');
  }
  onChanged();
}

export function Incident({ fingerprint, query }) {
  const path = `/api/incidents/${segment(fingerprint)}`;
  const { data: item, error, refresh } = usePolled(path, 5000);
  const muted = item && isMuted(item);
  return html`
    <${PageHead} title=${item ? shown(item.title) : 'Incident'} back=${{ href: link('/incidents'), text: 'Incidents' }}
      sub=${item && html`<${Reason} value=${item.reason} /> ${muted ? html`<${Chip} state="muted">muted<//>` : html`<${Chip} state=${item.state}>${item.state === 'regressed' ? 'came back' : item.state}<//>`} <span class="quiet">fingerprint <code>${shown(item.fingerprint)}</code></span>`}>
      ${item && may('operate') && html`
        ${item.parked > 0 && html`<${Button} tone="primary" icon="replays" keyName="r" onClick=${() => openReplay({ filter: { status: 'parked', fingerprint }, what: `the incident “${item.title}”` })}>Replay ${plural(item.parked, 'letter')}<//>`}
        ${item.state !== 'acknowledged' && item.state !== 'resolved' && html`<${Button} icon="check" onClick=${() => changeState(item, 'acknowledge', refresh)}>Acknowledge<//>`}
        ${muted ? html`<${Button} icon="bell" onClick=${() => changeState(item, 'mute', refresh, { until: null })}>Unmute<//>` : html`<${Button} icon="mute" onClick=${() => openDialog(close => html`<${MuteDialog} item=${item} close=${close} onChanged=${refresh} />`)}>Mute<//>`}
        ${item.state !== 'resolved' && html`<${Button} icon="shield" onClick=${() => changeState(item, 'resolve', refresh)}>Resolve<//>`}`}
    <//>
    <${Trouble} error=${error} kept=${item !== null} />
    ${!item && !error && html`<${Loading} what="Loading the incident" />`}
    ${item && html`
      <${Card}><${Facts}>
        <${Fact} name="Waiting">${plural(item.parked, 'letter')}<span class="under">of ${count(item.letters)} that ever came</span><//>
        <${Fact} name="Holds">${plural(item.orders ?? 0, 'order')}<span class="under">of ${plural(item.customers ?? 0, 'customer')}</span><//>
        <${Fact} name="Money held"><${Money} values=${item.held} /><//>
        <${Fact} name="First seen"><${Time} at=${item.firstSeen} /><span class="under">build ${build(item.firstBuild)}</span><//>
        <${Fact} name="Last seen"><${Time} at=${item.lastSeen} /><span class="under">build ${build(item.lastBuild)}</span><//>
        ${item.regressedBuild && html`<${Fact} name="Came back in build">${build(item.regressedBuild)}<//>`}
        ${item.field && html`<${Fact} name="Field"><code>${shown(item.field)}</code><//>`}
        ${item.exception && html`<${Fact} name="Exception"><${Given} text=${item.exception} /><//>`}
        ${item.stateBy && html`<${Fact} name="State set by">${shown(item.stateBy)} <${Time} at=${item.stateAt} /><//>`}
        ${muted && html`<${Fact} name="Muted until"><${Time} at=${item.mutedUntil} /><//>`}
      <//>
      ${item.hourly?.length > 0 && html`<div class="hourly"><${Hourly} values=${item.hourly} /><span class="quiet">letters in each of the last ${item.hourly.length} hours</span></div>`}<//>
      <${LetterTable} query=${{ ...query, fingerprint, status: query.status ?? 'all' }} inIncident />`}`;
}

const spans = [[60, '1 hour'], [240, '4 hours'], [1440, '1 day'], [10080, '1 week']];

function MuteDialog({ item, close, onChanged }) {
  const [minutes, setMinutes] = useState(60);
  const [reason, setReason] = useState('');
  const { busy, error, run } = useAction();
  const submit = async event => {
    event.preventDefault();
    const done = await run(() => post(`/api/incidents/${segment(item.fingerprint)}/mute`, { until: new Date(Date.now() + minutes * 60_000).toISOString(), reason }));
    if (done) {
      toast('Muted. Letters are still parked and counted; only alerts are silent.');
      close();
      onChanged();
    }
  };
  return html`<${Dialog} title="Mute alerts of this incident" onClose=${close}>
    <form onSubmit=${submit}>
      <p>Letters are still parked and counted. Alerts start again by themselves.</p>
      <fieldset class="choices"><legend>For how long</legend>${spans.map(([value, text]) => html`<label class="choice" key=${value}><input type="radio" name="span" checked=${minutes === value} onChange=${() => setMinutes(value)} /> ${text}</label>`)}</fieldset>
      <${Field} label="Reason" hint="The audit log keeps it.">${(id, hint) => html`<input id=${id} aria-describedby=${hint} value=${reason} onInput=${event => setReason(event.target.value)} maxlength="500" />`}<//>
      <${Trouble} error=${error} />
      <div class="dialog-actions"><${Button} onClick=${close}>Cancel<//><button class="button primary" type="submit" aria-disabled=${busy}>Mute</button></div>
    </form><//>`;
}
