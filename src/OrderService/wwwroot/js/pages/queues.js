import { html } from '../html.js';
import { usePolled } from '../live.js';
import { count, duration, shown } from '../format.js';
import { Card, Chip, Empty, Loading, Note, PageHead, Trouble } from '../parts/basics.js';
import { Chart } from '../parts/chart.js';

const purposes = { orders: 'commands in', 'orders.dlq': 'dead letters, read by the dead-letter consumer', 'orders.unreadable': 'dead letters with headers that no client can read, kept for you', 'order-events.unrouted': 'events that no other queue was bound for' };

/** Nobody consumes these; what is in them is kept. */
const kept = { 'orders.unreadable': ['degraded', 'look at them'], 'order-events.unrouted': ['off', 'kept, nobody subscribed'] };

export function Queues() {
  const queues = usePolled('/api/queues', 3000);
  const stats = usePolled('/api/stats?samples=900', 5000);
  const series = stats.data?.series;
  return html`
    <${PageHead} title="Queues" sub="What waits at the broker, and who takes it." />
    <${Trouble} error=${queues.error} kept=${queues.data !== null} />
    ${!queues.data && !queues.error && html`<${Loading} what="Loading queues" />`}
    ${queues.data?.lastError && html`<${Note} tone="bad"><strong>The broker could not be asked.</strong> ${shown(queues.data.lastError)}<//>`}
    ${queues.data?.managementError && html`<${Note} tone="warn"><strong>Unacknowledged messages and policies are not known.</strong> ${shown(queues.data.managementError)}<//>`}
    ${[...(queues.data?.unsafePolicies ?? []), ...(queues.data?.unconsumed ?? [])].map(text => html`<${Note} tone="warn" key=${text}>${shown(text)}<//>`)}
    ${queues.data?.items.length === 0 && html`<${Empty} icon="queues" title="No queue was read yet">The service reads its queues every few seconds once the broker answers. <code>orderservice topology --check</code> says what is missing.<//>`}
    ${queues.data?.items.length > 0 && html`<table class="rows"><caption class="hidden">Queues</caption><thead><tr><th scope="col">Queue</th><th scope="col" class="number">Ready</th><th scope="col" class="number">Being processed</th><th scope="col" class="number">Consumers</th><th scope="col" class="number">Oldest waits</th><th scope="col">State</th></tr></thead>
      <tbody>${queues.data.items.map(queue => {
        const state = !queue.exists ? ['down', 'missing'] : kept[queue.name] ? (queue.ready > 0 ? kept[queue.name] : ['ok', 'fine']) : queue.consumers === 0 ? ['degraded', 'nobody consumes'] : ['ok', 'fine'];
        return html`<tr key=${queue.name} data-row><th scope="row" data-label="Queue"><span class="mono">${shown(queue.name)}</span><span class="under">${shown(purposes[queue.name] ?? queue.purpose ?? '')}</span></th>
          <td class="number" data-label="Ready">${count(queue.ready)}</td><td class="number" data-label="Being processed">${queue.unacknowledged == null ? html`<span class="quiet" title="Known with the management API only">not known</span>` : count(queue.unacknowledged)}</td>
          <td class="number" data-label="Consumers">${count(queue.consumers)}</td><td class="number" data-label="Oldest waits" title="At least so long: worked out from readings of the depth">${queue.oldestAgeSeconds == null ? '–' : `≥ ${duration(queue.oldestAgeSeconds)}`}</td><td data-label="State"><${Chip} state=${state[0]}>${state[1]}<//></td></tr>`;
      })}</tbody></table>`}
    ${series?.at?.length > 0 && html`<${Card}><${Chart} title="Depth" unit="messages" at=${series.at} summary=${`Now ${count(series.ready.at(-1))} ready in orders, its partitions included, and ${count(series.deadLetterDepth.at(-1))} in orders.dlq.`}
      series=${[{ label: 'orders', tone: 'series-1', values: series.ready, fill: true, format: count }, { label: 'orders.dlq', tone: 'series-3', values: series.deadLetterDepth, format: count }]} /><//>`}`;
}
