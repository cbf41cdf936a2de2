import { html } from '../html.js';
import { link } from '../router.js';
import { usePolled, useOrderEvents } from '../live.js';
import { build, count, rate, duration, took, plural, relative, shown, sums, money } from '../format.js';
import { Card, Chip, Empty, Loading, Money, PageHead, Time, Told, Trouble, Twin } from '../parts/basics.js';
import { Chart } from '../parts/chart.js';
import { Icon } from '../parts/icons.js';

const stores = { Sqlite: 'SQLite', Postgres: 'PostgreSQL' };

export function Overview() {
  const stats = usePolled('/api/stats?samples=900', 2000);
  const incidents = usePolled('/api/incidents?state=open&limit=5', 5000);
  const orders = usePolled('/api/orders?limit=6', 10000);
  useOrderEvents(orders.refresh);
  const { data } = stats;
  return html`
    <${PageHead} title="Overview" sub=${data && `${shown(data.service?.instance ?? '')} · version ${build(data.service?.version ?? '–')} · ${stores[data.service?.store] ?? data.service?.store ?? ''} · up ${data.service?.startedAt ? relative(data.service.startedAt, Date.now()).replace(' ago', '') : '–'}`} />
    <${Trouble} error=${stats.error} kept=${data !== null} />
    ${!data && !stats.error && html`<${Loading} what="Loading the overview" />`}
    ${data && html`
      <${StatusLine} data=${data} />
      <${Troubles} items=${data.troubles} />
      <${Tiles} data=${data} />
      <${Charts} series=${data.series} />
    `}
    <div class="columns">
      <${Card} title="Needs attention" action=${html`<a class="more-link" href=${link('/incidents')}>All incidents</a>`}>
        <${Trouble} error=${incidents.error} kept=${incidents.data !== null} />
        ${incidents.data && (incidents.data.items.length === 0
          ? html`<${Empty} title="No open incident">A message that can’t be processed opens one. Try it: <code>orderservice publish --sample 20 --poison 20%</code><//>`
          : html`<ul class="stack">${incidents.data.items.map((item, _, all) => html`<li key=${item.fingerprint}><a class="stack-row" href=${link(`/incidents/${encodeURIComponent(item.fingerprint)}`)}>
              <span class="stack-main"><strong class="whole">${shown(item.title)}</strong><span class="quiet"><${Twin} item=${item} among=${all} />${plural(item.parked, 'letter')} waiting · last <${Time} at=${item.lastSeen} /></span></span>
              <span class="stack-side"><${Chip} state=${item.state} /><${Money} values=${item.held} /></span></a></li>`)}</ul>`)}
        ${!incidents.data && !incidents.error && html`<${Loading} />`}
      <//>
      ${data && html`<${Components} items=${data.components ?? []} />`}
      <${Card} title="Latest orders" action=${html`<a class="more-link" href=${link('/orders')}>All orders</a>`}>
        <${Trouble} error=${orders.error} kept=${orders.data !== null} />
        ${orders.data && (orders.data.items.length === 0
          ? html`<${Empty} icon="orders" title="No order yet">Publish some: <code>orderservice publish --sample 100</code><//>`
          : html`<ul class="stack">${orders.data.items.map(order => html`<li key=${order.orderId}><a class="stack-row" href=${link(`/orders/${encodeURIComponent(order.orderId)}`)}>
              <span class="stack-main"><strong class="clip mono">${shown(order.orderId)}</strong><span class="quiet">${shown(order.customerId)} · <${Time} at=${order.updatedAt} /></span></span>
              <span class="stack-side"><${Chip} state=${order.status} /><span class="amount">${money({ amount: order.total, currency: order.currency })}</span></span></a></li>`)}</ul>`)}
        ${!orders.data && !orders.error && html`<${Loading} />`}
      <//>
    </div>`;
}

function StatusLine({ data }) {
  const open = data.incidents?.open ?? 0;
  const down = data.ready === false;
  const troubles = data.troubles ?? [];
  const stands = !down && data.degraded === true;
  const halted = !down && !stands && data.paused === true;
  const tone = down ? 'bad' : stands || halted || open > 0 ? 'warn' : 'good';
  const held = data.held?.value?.length ? ` worth ${sums(data.held.value)}` : '';
  const running = `${plural(data.queue?.consumers ?? 0, 'consumer')}, ${rate(data.rates?.accepted)} orders/s, ${data.outbox?.pending ? `${plural(data.outbox.pending, 'event')} to publish` : 'outbox empty'}`;
  const words = down
    ? 'The service can’t do its work.'
    : stands
      ? 'Orders are processed, and something else stands still.'
    : halted
      ? 'Somebody paused a part of the service.'
    : open > 0
      ? `Processing, and ${plural(open, 'incident')} ${open === 1 ? 'needs' : 'need'} somebody.`
      : 'Everything is processed.';
  // What stands as a trouble is told below, with its beginning and what to do.
  const causes = (data.causes ?? []).filter(cause => !troubles.some(trouble => cause.startsWith(`${trouble.key}: `)));
  return html`
    <section class=${`status-line tone-${tone}`} aria-label="State of the service">
      <span class="status-mark"><${Icon} name=${down ? 'cross' : halted ? 'pause' : stands || open > 0 ? 'incidents' : 'check'} /></span>
      <div><p class="status-words">${words}</p>
        <p class="status-more">${running}.${data.deadLetters?.parked ? ` ${plural(data.deadLetters.parked, 'dead letter')} ${data.deadLetters.parked === 1 ? 'holds' : 'hold'} ${plural(data.held?.orders ?? 0, 'order')}${held}.` : ' No dead letter waits.'}</p>
        ${causes.length > 0 && html`<ul class="causes">${causes.map(cause => html`<li key=${cause}>${shown(cause)}</li>`)}</ul>`}</div>
    </section>`;
}

const levels = { 'not ready': ['bad', 'not ready'], degraded: ['warn', 'stands still'], paused: ['warn', 'paused'], notice: ['calm', 'notice'] };

/** What stands still or went wrong in this process, with its reason and since when. */
function Troubles({ items }) {
  return items?.length > 0 && html`<${Card} title="Troubles" kind="troubles">
    <ul class="plain-list">${items.map(item => {
      const [tone, word] = levels[item.level] ?? ['warn', item.level];
      return html`<li key=${item.key} class=${`trouble tone-${tone}`}>
        <p><strong>${shown(item.subject)}</strong> <span class=${`chip tone-${tone}`}><i class="dot" aria-hidden="true"></i>${word}</span> <span class="quiet">since <${Time} at=${item.since} /></span></p>
        <p><${Told} text=${item.detail} /></p>
        ${item.advice && html`<p class="quiet">${shown(item.advice)}</p>`}
        ${item.key.startsWith('relay:') && html`<p><a class="more-link" href=${link('/queues')}>What waits, and a release by hand</a></p>`}</li>`;
    })}</ul><//>`;
}

function Tiles({ data }) {
  const oldest = data.queue?.oldestAgeSeconds;
  const incidents = data.incidents ?? {};
  const held = data.held ?? {};
  const { critical, relay } = data.times ?? {};
  return html`<div class="tiles">
    <${Tile} name="Orders per second" value=${rate(data.rates?.accepted)} more=${`${rate(data.rates?.received)} in/s · ${rate(data.rates?.duplicates)} duplicates/s`} />
    <${Tile} name="Queue depth" value=${count(data.queue?.ready)} more=${data.queue?.unacknowledged == null ? 'ready in orders' : `${count(data.queue.unacknowledged)} being processed`} tone=${data.queue?.ready > 10000 ? 'warn' : ''} href=${link('/queues')} />
    <${Tile} name="Oldest message" value=${oldest == null ? '–' : duration(oldest)} more=${oldest != null ? 'at least, in the queue orders' : data.queue?.ready > 0 ? 'not known yet' : 'nothing waits'} tone=${oldest > 60 ? 'bad' : oldest > 10 ? 'warn' : ''} />
    <${Tile} name="Consumers" value=${count(data.queue?.consumers)} more="on the queue orders" tone=${data.queue?.consumers === 0 ? 'bad' : ''} href=${link('/queues')} />
    <${Tile} name="Outbox backlog" value=${count(data.outbox?.pending)} more=${data.outbox?.oldestAgeSeconds ? `oldest ${duration(data.outbox.oldestAgeSeconds)}` : 'events to publish'} tone=${data.outbox?.oldestAgeSeconds > 60 ? 'bad' : ''} />
    <${Tile} name="Sent to decided" value=${critical ? took(critical.p95) : '–'} more=${critical ? `p95 · p50 ${took(critical.p50)} · p99 ${took(critical.p99)}` : 'no message with a timestamp'} tone=${critical?.p95 > 60 ? 'warn' : ''} />
    <${Tile} name="Decided to published" value=${relay ? took(relay.p95) : '–'} more=${relay ? `p95 · p50 ${took(relay.p50)} · p99 ${took(relay.p99)}` : 'nothing in five minutes'} tone=${relay?.p95 > 60 ? 'warn' : ''} />
    <${Tile} name="Open incidents" value=${count(incidents.open)} more=${`${count(incidents.new ?? 0)} new · ${count(incidents.regressed ?? 0)} came back`} tone=${incidents.new || incidents.regressed ? 'bad' : incidents.open ? 'warn' : 'good'} href=${link('/incidents')} />
    <${Tile} name="Dead letters" value=${count(data.deadLetters?.parked)} more=${data.deadLetters?.newestAt ? html`newest <${Time} at=${data.deadLetters.newestAt} />` : 'none waits'} tone=${data.deadLetters?.parked ? 'warn' : 'good'} href=${link('/dead-letters', { status: 'parked' })} />
    <${Tile} name="Money held" value=${held.value?.length ? html`<${Money} values=${held.value} most=${2} />` : '0'} more=${held.orders ? `${plural(held.orders, 'order')} of ${plural(held.customers ?? 0, 'customer')}` : 'no order is stuck'} tone=${held.orders ? 'warn' : 'good'} kind=${held.value?.length ? 'is-money' : ''} />
  </div>`;
}

function Tile({ name, value, more, tone = '', href, kind = '' }) {
  const inner = html`<span class="tile-name">${name}</span><span class="tile-value">${value}</span><span class="tile-more">${more}</span>`;
  return href ? html`<a class=${`tile ${kind} ${tone && `tone-${tone}`}`} href=${href}>${inner}</a>` : html`<div class=${`tile ${kind} ${tone && `tone-${tone}`}`}>${inner}</div>`;
}

function Charts({ series }) {
  if (!series?.at?.length) {
    return null;
  }
  const last = series.at.length - 1;
  return html`<div class="charts">
    <section class="card"><${Chart} title="Throughput" unit="messages per second" at=${series.at}
      summary=${`Now ${rate(series.received[last])} received, ${rate(series.accepted[last])} accepted, ${rate(series.deadLettered[last])} dead-lettered per second.`}
      series=${[{ label: 'received', tone: 'series-1', values: series.received, fill: true }, { label: 'accepted', tone: 'series-2', values: series.accepted }, { label: 'dead-lettered', tone: 'series-3', values: series.deadLettered }]} /></section>
    <section class="card"><${Chart} title="Queue depth" unit="messages in orders" at=${series.at}
      summary=${`Now ${count(series.ready[last])} ready in orders, ${count(series.deadLetterDepth[last])} in orders.dlq.`}
      series=${[{ label: 'ready', tone: 'series-1', values: series.ready, fill: true, format: count }, { label: 'in progress', tone: 'series-2', values: series.unacknowledged, format: count }, { label: 'orders.dlq', tone: 'series-3', values: series.deadLetterDepth, format: count }]} /></section>
  </div>`;
}

function Components({ items }) {
  return html`<${Card} title="Components">
    <table class="plain components"><caption class="hidden">Components with their state</caption><thead class="hidden"><tr><th scope="col">Component</th><th scope="col">State</th></tr></thead>
      <tbody>${items.map(item => html`<tr key=${item.name}><th scope="row">${shown(item.name)}<span class="component-detail"><${Told} text=${item.detail ?? ''} />${item.since && html` · since <${Time} at=${item.since} />`}</span>${item.lastError && html`<span class="component-detail bad-text">last error: ${shown(item.lastError)}</span>`}</th><td><${Chip} state=${item.state} /></td></tr>`)}</tbody></table>
  <//>`;
}
