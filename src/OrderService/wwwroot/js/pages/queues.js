import { html, useState } from '../html.js';
import { link } from '../router.js';
import { may, post, segment } from '../api.js';
import { usePolled } from '../live.js';
import { count, duration, plural, shown } from '../format.js';
import { Button, Card, Chip, Dialog, Empty, Field, Loading, Note, PageHead, Time, Trouble, openDialog, toast, useAction } from '../parts/basics.js';
import { Chart } from '../parts/chart.js';

const purposes = { orders: 'commands in', 'orders.dlq': 'dead letters, read by the dead-letter consumer', 'orders.unreadable': 'dead letters with headers that no client can read, kept for you', 'order-events.unrouted': 'events that no other queue was bound for' };

/** Nobody consumes these; what is in them is kept. */
const kept = { 'orders.unreadable': ['degraded', 'look at them'], 'order-events.unrouted': ['off', 'kept, nobody subscribed'] };

export function Queues() {
  const queues = usePolled('/api/queues', 3000);
  const stats = usePolled('/api/stats?samples=900', 5000);
  const series = stats.data?.series;
  const paused = name => stats.data?.intake?.some(item => item.state === 'paused' && (name === item.queue || (item.queue === 'orders' && /^orders\.\d+$/.test(name))));
  return html`
    <${PageHead} title="Queues" sub="What waits at the broker, and who takes it." />
    <${Trouble} error=${queues.error} kept=${queues.data !== null} />
    ${!queues.data && !queues.error && html`<${Loading} what="Loading queues" />`}
    ${queues.data?.lastError && html`<${Note} tone="bad"><strong>The broker could not be asked.</strong> ${shown(queues.data.lastError)}<//>`}
    ${queues.data?.managementError && html`<${Note} tone="warn"><strong>Unacknowledged messages and policies are not known.</strong> ${shown(queues.data.managementError)}<//>`}
    ${[...(queues.data?.unsafePolicies ?? []), ...(queues.data?.unconsumed ?? [])].map(text => html`<${Note} tone="warn" key=${text}>${shown(text)}<//>`)}
    <${Intake} onDone=${() => { queues.refresh(); stats.refresh(); }} />
    <${Relay} />
    ${queues.data?.items.length === 0 && html`<${Empty} icon="queues" title="No queue was read yet">The service reads its queues every few seconds once the broker answers. <code>orderservice topology --check</code> says what is missing.<//>`}
    ${queues.data?.items.length > 0 && html`<table class="rows"><caption class="hidden">Queues</caption><thead><tr><th scope="col">Queue</th><th scope="col" class="number">Ready</th><th scope="col" class="number">Being processed</th><th scope="col" class="number">Consumers</th><th scope="col" class="number">Oldest waits</th><th scope="col">State</th></tr></thead>
      <tbody>${queues.data.items.map(queue => {
        const state = !queue.exists ? ['down', 'missing'] : kept[queue.name] ? (queue.ready > 0 ? kept[queue.name] : ['ok', 'fine']) : paused(queue.name) ? ['paused', 'paused'] : queue.consumers === 0 ? ['degraded', 'nobody consumes'] : ['ok', 'fine'];
        return html`<tr key=${queue.name} data-row><th scope="row" data-label="Queue"><span class="mono">${shown(queue.name)}</span><span class="under">${shown(purposes[queue.name] ?? queue.purpose ?? '')}</span></th>
          <td class="number" data-label="Ready">${count(queue.ready)}</td><td class="number" data-label="Being processed">${queue.unacknowledged == null ? html`<span class="quiet" title="Known with the management API only">not known</span>` : count(queue.unacknowledged)}</td>
          <td class="number" data-label="Consumers">${count(queue.consumers)}</td><td class="number" data-label="Oldest waits" title="At least so long: worked out from readings of the depth">${queue.oldestAgeSeconds == null ? '–' : `≥ ${duration(queue.oldestAgeSeconds)}`}</td><td data-label="State"><${Chip} state=${state[0]}>${state[1]}<//></td></tr>`;
      })}</tbody></table>`}
    ${series?.at?.length > 0 && html`<${Card}><${Chart} title="Depth" unit="messages" at=${series.at} summary=${`Now ${count(series.ready.at(-1))} ready in orders, its partitions included, and ${count(series.deadLetterDepth.at(-1))} in orders.dlq.`}
      series=${[{ label: 'orders', tone: 'series-1', values: series.ready, fill: true, format: count }, { label: 'orders.dlq', tone: 'series-3', values: series.deadLetterDepth, format: count }]} /><//>`}`;
}

const taken = { orders: 'Orders', 'orders.dlq': 'Dead letters' };

/** Whether messages are taken in, and what is left in hand of what somebody paused. */
function Intake({ onDone }) {
  const intake = usePolled('/api/intake', 2000);
  const acts = may('operate');
  const done = () => { intake.refresh(); onDone(); };
  return html`<${Trouble} error=${intake.error} kept=${intake.data !== null} />
    ${intake.data?.items.length > 0 && html`<${Card} title="Intake">
      <table class="rows"><caption class="hidden">Intake by queue</caption><thead><tr><th scope="col">Queue</th><th scope="col">State</th><th scope="col" class="number">In hand</th><th scope="col">Why</th><th scope="col">Since</th>${acts && html`<th scope="col"><span class="hidden">Action</span></th>`}</tr></thead>
        <tbody>${intake.data.items.map(item => {
          const stands = item.state === 'paused';
          const verb = stands ? 'Resume' : 'Pause';
          return html`<tr key=${item.queue} data-row><th scope="row" data-label="Queue">${taken[item.queue] ?? item.queue}<span class="under mono">${item.queue}</span></th>
            <td data-label="State"><${Chip} state=${stands ? 'paused' : 'ok'}>${stands ? (item.drained ? 'paused, drained' : 'paused') : 'taken in'}<//></td>
            <td class="number" data-label="In hand">${count(item.inHand)}</td>
            <td class="wide-cell" data-label="Why">${stands ? html`${shown(item.reason)}<span class="under">by ${shown(item.by)}</span>` : html`<span class="quiet">–</span>`}</td>
            <td data-label="Since">${stands ? html`<${Time} at=${item.since} />` : html`<span class="quiet">–</span>`}</td>
            ${acts && html`<td><${Button} icon=${stands ? 'send' : 'pause'} tone="small" label=${`${verb} ${item.queue}`} onClick=${() => openDialog(close => html`<${IntakeDialog} item=${item} verb=${verb} close=${close} onDone=${done} />`)}>${verb}<//></td>`}</tr>`;
        })}</tbody></table><//>`}`;
}

function IntakeDialog({ item, verb, close, onDone }) {
  const [reason, setReason] = useState('');
  const { busy, error, run } = useAction();
  const ready = reason.trim() !== '';
  const submit = async event => {
    event.preventDefault();
    if (!ready || busy) {
      return;
    }
    const answer = await run(() => post(`/api/intake/${verb.toLowerCase()}`, { reason: reason.trim(), queues: [item.queue] }));
    if (answer) {
      toast(verb === 'Pause' ? `Intake of ${item.queue} is paused.` : `Intake of ${item.queue} goes on.`);
      close();
    }
    onDone();
  };
  return html`<${Dialog} title=${`${verb} intake of ${item.queue}`} onClose=${close}>
    <form onSubmit=${submit}>
      <p>${verb === 'Pause' ? 'Nothing more is taken out of the queue, in every instance and over restarts, until somebody resumes it. What is in hand is finished, events go out, and what comes waits in the queue.' : 'Messages are taken in again, in every instance.'}</p>
      <${Field} label="Reason (required)" hint="The audit log keeps it.">${(id, hint) => html`<input id=${id} aria-describedby=${hint} required value=${reason} onInput=${event => setReason(event.target.value)} maxlength="500" />`}<//>
      <${Trouble} error=${error} />
      <div class="dialog-actions"><${Button} onClick=${close}>Cancel<//><button class="button primary" type="submit" disabled=${!ready} aria-disabled=${busy}>${verb}</button></div>
    </form><//>`;
}

/** The routing keys that a subscriber's queue refuses, with what waits for them and an attempt by hand; nothing when none is. */
function Relay() {
  const relay = usePolled('/api/relay', 5000);
  const acts = may('operate');
  return html`<${Trouble} error=${relay.error} kept=${relay.data !== null} />
    ${relay.data?.items.length > 0 && html`<${Card} title="Events that wait for a queue">
      <table class="rows"><caption class="hidden">Routing keys that wait, the longest first</caption><thead><tr><th scope="col">Routing key</th><th scope="col" class="number">Events</th><th scope="col">Why</th><th scope="col">Since</th><th scope="col">Oldest order</th>${acts && html`<th scope="col"><span class="hidden">Action</span></th>`}</tr></thead>
        <tbody>${relay.data.items.map(item => html`<tr key=${item.routingKey} data-row><th scope="row" data-label="Routing key"><span class="mono">${shown(item.routingKey)}</span></th>
          <td class="number" data-label="Events">${count(item.events)}</td>
          <td class="wide-cell" data-label="Why">${shown(item.reason)}${item.queues?.map(text => html`<span class="under" key=${text}>${shown(text)}</span>`)}</td>
          <td data-label="Since"><${Time} at=${item.since} /></td>
          <td data-label="Oldest order">${item.orderId ? html`<a class="mono" href=${link(`/orders/${segment(item.orderId)}`)}>${shown(item.orderId)}</a>` : html`<span class="quiet">–</span>`}</td>
          ${acts && html`<td><${Button} icon="send" tone="small" label=${`Release ${item.routingKey}`} onClick=${() => openDialog(close => html`<${ReleaseDialog} item=${item} close=${close} onDone=${relay.refresh} />`)}>Release<//></td>`}</tr>`)}</tbody></table><//>`}`;
}

function ReleaseDialog({ item, close, onDone }) {
  const [reason, setReason] = useState('');
  const { busy, error, run } = useAction();
  const ready = reason.trim() !== '';
  const submit = async event => {
    event.preventDefault();
    if (!ready || busy) {
      return;
    }
    const answer = await run(() => post(`/api/relay/${segment(item.routingKey)}/release`, { reason: reason.trim() }));
    if (answer) {
      toast(`${item.routingKey} is tried now. ${plural(answer.events, 'event')} wait${answer.events === 1 ? 's' : ''} for it.`);
      close();
    }
    onDone();
  };
  return html`<${Dialog} title=${`Release ${item.routingKey}`} onClose=${close}>
    <form onSubmit=${submit}>
      <p><b>${plural(item.events, 'event')}</b> wait${item.events === 1 ? 's' : ''}. The first one is sent now; when the queue takes it, the rest follows in order. If the queue still refuses, the other subscribers get one copy, and everything waits as before.</p>
      <${Field} label="Reason (required)" hint="The audit log keeps it.">${(id, hint) => html`<input id=${id} aria-describedby=${hint} required value=${reason} onInput=${event => setReason(event.target.value)} maxlength="500" />`}<//>
      <${Trouble} error=${error} />
      <div class="dialog-actions"><${Button} onClick=${close}>Cancel<//><button class="button primary" type="submit" disabled=${!ready} aria-disabled=${busy}>Release</button></div>
    </form><//>`;
}
