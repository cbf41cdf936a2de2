import { html, useEffect, useState } from '../html.js';
import { at } from '../base.js';
import { link } from '../router.js';
import { getBytes, may, post, segment } from '../api.js';
import { usePolled } from '../live.js';
import { bytes, count, plural, sentence, shown } from '../format.js';
import { pretty } from '../json.js';
import { Button, Card, Chip, Copy, Empty, Fact, Facts, Given, Loading, Note, PageHead, Reason, Tabs, Time, Trouble, oneAmount, toast } from '../parts/basics.js';
import { DiffView, HexView, JsonView, RawView } from '../parts/json-view.js';
import { Moment, Timeline } from '../parts/timeline.js';
import { Why } from '../parts/why.js';
import { Icon } from '../parts/icons.js';
import { openDiscard } from './letters.js';
import { openReplay } from './replay-dialog.js';

/** The exact bytes of a letter, and their text where they are UTF-8. */
export function useBody(id) {
  const [body, setBody] = useState({ id: null, data: null, text: null, error: null });
  useEffect(() => {
    const stop = new AbortController();
    getBytes(`/api/dead-letters/${segment(id)}/body`, { signal: stop.signal }).then(buffer => {
      const data = new Uint8Array(buffer);
      let text = null;
      try {
        text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
      } catch {
        // Not text: shown as bytes.
      }
      setBody({ id, data, text, error: null });
    }, error => !stop.signal.aborted && setBody({ id, data: null, text: null, error }));
    return () => stop.abort();
  }, [id]);
  return body.id === id ? body : { data: null, text: null, error: null };
}

const parts = { body: 'Body', error: 'Error', headers: 'Headers', history: 'History', order: 'Order' };

export function Letter({ id, query }) {
  const { data: letter, error, refresh } = usePolled(`/api/dead-letters/${segment(id)}`, 3000);
  const body = useBody(id);
  const part = parts[query.tab] ? query.tab : 'body';
  const here = changes => link(`/dead-letters/${segment(id)}`, { ...query, ...changes });
  const waits = letter?.status === 'parked';
  const history = Math.max(letter?.history?.length ?? 0, (letter?.deaths?.length ?? 0) + (letter?.attempts?.length ?? 0));
  return html`
    <${PageHead} title=${`Letter ${id}`} back=${{ href: letter ? link(`/incidents/${segment(letter.fingerprint)}`) : link('/dead-letters'), text: letter ? 'Its incident' : 'Dead letters' }}
      sub=${letter && html`<${Reason} value=${letter.reason} /> <${Chip} state=${letter.status}>${waits ? 'waiting' : undefined}<//> ${letter.replays > 0 && html`<span class="quiet">replayed ${plural(letter.replays, 'time')} before</span>`}`}>
      ${letter && may('operate') && html`
        ${waits && html`
          <${Button} tone="primary" icon="replays" keyName="r" onClick=${() => openReplay({ ids: [letter.id], what: `letter ${id}`, onDone: refresh })}>Replay<//>
          <a class="button" href=${link(`/dead-letters/${segment(id)}/edit`)}><${Icon} name="edit" /><span>Edit and replay</span></a>
          <${Button} icon="discard" keyName="#" onClick=${() => openDiscard({ ids: [letter.id], onDone: refresh })}>Discard<//>`}
        ${letter.status === 'discarded' && html`<${Button} icon="restore" tone="primary" onClick=${() => restore(letter, refresh)}>Restore<//>`}`}
    <//>
    <${Trouble} error=${error} kept=${letter !== null} />
    ${!letter && !error && html`<${Loading} what="Loading the letter" />`}
    ${letter && html`
      <${Outcome} letter=${letter} />
      <div class="split">
        <div class="split-main">
          <section class="problem-line"><p><${Given} text=${letter.detail} /></p>${letter.field && html`<p class="quiet">at <code>${shown(letter.field)}</code></p>`}</section>
          <${Tabs} label="Parts of the letter" items=${Object.entries(parts).map(([name, text]) => ({ text, href: here({ tab: name, view: undefined }), current: name === part, count: name === 'history' ? history || null : null }))} />
          ${part === 'body' && html`<${Body} letter=${letter} body=${body} view=${query.view} here=${here} />`}
          ${part === 'error' && html`<${ErrorPart} letter=${letter} />`}
          ${part === 'headers' && html`<${Headers} letter=${letter} />`}
          ${part === 'history' && html`<${History} letter=${letter} text=${body.text} />`}
          ${part === 'order' && html`<${OrderPart} letter=${letter} view=${query.view} hrefOf=${view => here({ view })} />`}
        </div>
        <aside class="split-side" aria-label="About this letter">
          <${Card} title="Facts"><${Facts}>
            <${Fact} name="Order">${letter.orderId ? html`<a class="mono" href=${link(`/orders/${segment(letter.orderId)}`)}>${shown(letter.orderId)}</a>` : html`<span class="quiet">not known</span>`}<//>
            <${Fact} name="Customer"><${Given} text=${letter.customerId} empty="not known" /><//>
            <${Fact} name="Value">${oneAmount(letter.value)}<//>
            <${Fact} name="Command"><${Given} text=${letter.type} empty="order.place (none given)" /><//>
            <${Fact} name="Parked"><${Time} at=${letter.parkedAt} />${letter.openedAt && letter.openedAt !== letter.parkedAt && html`<span class="under">again <${Time} at=${letter.openedAt} /></span>`}<//>
            <${Fact} name="Size">${bytes(letter.size ?? body.data?.length)}<//>
            <${Fact} name="Copies">${count(letter.copies)}<//>
            <${Fact} name="Key"><span class="mono small"><${Given} text=${letter.key} /></span><//>
            <${Fact} name="Message id"><span class="mono small"><${Given} text=${letter.messageId} /></span><//>
            ${letter.correlationId && html`<${Fact} name="Correlation id"><span class="mono small"><${Given} text=${letter.correlationId} /></span><//>`}
          <//>
          ${(letter.previousId || letter.nextId) && html`<nav class="neighbours" aria-label="Letters of the same incident">${letter.previousId ? html`<a href=${link(`/dead-letters/${segment(letter.previousId)}`, { tab: query.tab })}>← Letter ${letter.previousId}</a>` : html`<span></span>`}${letter.nextId ? html`<a href=${link(`/dead-letters/${segment(letter.nextId)}`, { tab: query.tab })}>Letter ${letter.nextId} →</a>` : null}</nav>`}<//>
          <${Why} id=${String(letter.id)} kind="letter" version=${`${letter.status}${letter.replays}`} />
        </aside>
      </div>`}`;
}

/** The truth about what was done last: "sent" is not "succeeded". */
function Outcome({ letter }) {
  const last = letter.attempts?.at(-1);
  if (letter.status === 'replayed') {
    return html`<${Note} tone="busy"><strong>Sent, waiting for the outcome.</strong> ${last ? html`Replayed by ${shown(last.requestedBy)} <${Time} at=${last.requestedAt} />${last.edited ? ', edited' : ''}.` : ''}<//>`;
  }
  if (letter.status === 'resolved') {
    return html`<${Note} tone="good"><strong>Resolved.</strong> ${last ? html`The replay by ${shown(last.requestedBy)} was processed${last.finishedAt ? html` <${Time} at=${last.finishedAt} />` : ''}.` : ''} ${letter.settleReason ? shown(letter.settleReason) : ''}<//>`;
  }
  if (letter.status === 'discarded') {
    return html`<${Note}><strong>Discarded</strong>${letter.settledBy ? html` by ${shown(letter.settledBy)}` : ''}${letter.settledAt ? html` <${Time} at=${letter.settledAt} />` : ''}${letter.settleReason ? html`: ${shown(letter.settleReason)}` : '.'}<//>`;
  }
  if (letter.status === 'superseded') {
    return html`<${Note}><strong>Superseded.</strong> The order was accepted through another copy of this message; there is nothing to do.<//>`;
  }
  if (last?.outcome && last.outcome !== 'resolved') {
    return html`<${Note} tone="bad"><strong>The last replay did not succeed</strong> (${sentence(last.outcome)}${last.detail ? html`: ${shown(last.detail)}` : ''}).<//>`;
  }
  return null;
}

async function restore(letter, refresh) {
  try {
    await post(`/api/dead-letters/${segment(letter.id)}/restore`, {});
    toast(`Letter ${letter.id} waits again.`);
  } catch (error) {
    toast(error.message, 'bad');
  }
  refresh();
}

const bodyViews = { pretty: 'Laid out', raw: 'As it came', hex: 'Bytes' };

function Body({ letter, body, view, here }) {
  if (body.error) {
    return html`<${Trouble} error=${body.error} />`;
  }
  if (!body.data) {
    return html`<${Loading} what="Loading the body" />`;
  }
  const now = bodyViews[view] ? view : body.text === null ? 'hex' : 'pretty';
  return html`
    <div class="code-head"><${Tabs} label="Views of the body" items=${Object.entries(bodyViews).map(([name, text]) => ({ text, href: here({ view: name }), current: name === now }))} />
      <span class="code-tools"><span class="quiet">${shown(letter.contentType ?? letter.properties?.content_type ?? 'no content type')} · ${bytes(body.data.length)}</span>${body.text !== null && html`<${Copy} text=${body.text} />`}<a class="button small ghost" href=${at(`/api/dead-letters/${segment(letter.id)}/body`)} download=${`letter-${letter.id}.bin`}><${Icon} name="download" /><span>Download</span></a></span></div>
    ${body.data.length === 0 ? html`<${Empty} icon="letters" title="The body is empty" />`
      : now === 'hex' ? html`<${HexView} data=${body.data} />`
      : body.text === null ? html`<${Note} tone="warn">These bytes are not UTF-8; look at them as bytes.<//>`
      : now === 'pretty' ? html`<${JsonView} text=${body.text} pointer=${letter.field} />` : html`<${RawView} text=${body.text} />`}`;
}

function ErrorPart({ letter }) {
  const lines = String(letter.exception ?? '').split('\n');
  const own = lines.filter(line => !/^\s+at (System|Microsoft|RabbitMQ|Npgsql|Dapper|Polly)\./.test(line));
  return html`
    <${Card}><${Facts}><${Fact} name="Reason"><${Reason} value=${letter.reason} /><//><${Fact} name="What is wrong"><${Given} text=${letter.detail} /><//>${letter.field && html`<${Fact} name="Field"><code>${shown(letter.field)}</code><//>`}<//>
      ${!letter.exception && html`<p class="quiet">No exception was thrown: the message was refused by a rule.</p>`}<//>
    ${letter.exception && html`
      <div class="code-head"><h2 class="part-title">Exception</h2><${Copy} text=${letter.exception} /></div>
      <div class="code-box" tabindex="0" role="region" aria-label="Stack of the exception"><pre class="raw">${shown(own.join('\n'))}</pre></div>
      ${own.length < lines.length && html`<details class="as-table"><summary>Whole stack with ${lines.length - own.length} framework frames</summary><div class="code-box" tabindex="0" role="region" aria-label="Whole stack"><pre class="raw">${shown(letter.exception)}</pre></div></details>`}`}`;
}

const groups = [
  ['Identity', /^(message_?id|correlation_?id|idempotency-key|type|timestamp|app_?id|user_?id|cluster_?id)$/i],
  ['Content', /^(content_?type|content_?encoding|delivery_?mode|persistent|priority|expiration|reply_?to)$/i],
  ['Trace', /^(traceparent|tracestate|baggage)$/i],
  ['CloudEvents', /^cloudEvents[:_]|^ce-/i],
  ['Broker', /^x-/i],
  ['Other', /./],
];

function Headers({ letter }) {
  const [filter, setFilter] = useState('');
  const { headers, ...properties } = letter.properties ?? {};
  const entries = [...Object.entries(properties).map(([name, value]) => ({ name, value, header: false })), ...Object.entries(headers ?? {}).map(([name, value]) => ({ name, value, header: true }))]
    // The broker's record of deaths is laid out under History.
    .filter(entry => entry.value !== null && entry.value !== undefined && !(entry.header && entry.name === 'x-death'))
    .map(entry => ({ ...entry, text: typeof entry.value === 'string' ? entry.value : JSON.stringify(entry.value) }))
    .filter(entry => filter === '' || `${entry.name} ${entry.text}`.toLowerCase().includes(filter.toLowerCase()));
  const groupOf = entry => groups.find(([, pattern]) => pattern.test(entry.name))[0];
  return html`
    <div class="code-head"><label class="inline-field"><span class="hidden">Filter properties and headers</span><input type="search" placeholder="Filter properties and headers" value=${filter} onInput=${event => setFilter(event.target.value)} /></label><${Copy} text=${JSON.stringify(letter.properties ?? {}, null, 2)} label="Copy as JSON" /></div>
    ${entries.length === 0 && html`<${Empty} icon="letters" title=${filter ? 'Nothing matches' : 'No properties, no headers'}>${filter ? '' : 'The message came with a body only.'}<//>`}
    ${groups.map(([title]) => {
      const mine = entries.filter(entry => groupOf(entry) === title);
      return mine.length > 0 && html`<section key=${title}><h2 class="part-title">${title}</h2><table class="plain pairs"><caption class="hidden">${title}</caption><tbody>${mine.map(entry => html`<tr key=${`${entry.header}${entry.name}`}><th scope="row">${shown(entry.name)}${entry.header && html` <span class="quiet">header</span>`}</th><td class="mono"><${Given} text=${entry.text} empty="(empty)" /></td></tr>`)}</tbody></table></section>`;
    })}`;
}

const storyKinds = { parked: 'dead_letter', replayed: 'replay', edited: 'edit', discarded: 'discard', restored: 'restore', resolved: 'published', replay_failed: 'rejected' };

const capital = text => text.charAt(0).toUpperCase() + text.slice(1);

function History({ letter, text }) {
  const attempts = letter.attempts ?? [];
  const deaths = letter.deaths ?? [];
  const alerts = letter.alerts ?? (letter.alertId ? [{ id: letter.alertId }] : []);
  const story = (letter.history ?? []).map(one => ({ at: one.at, kind: storyKinds[one.kind] ?? one.kind, title: one.title ?? capital(sentence(one.kind)), detail: one.detail, who: one.who }));
  return html`
    ${story.length > 0 && html`<section><h2 class="part-title">What happened to it</h2><ol class="timeline compact">${story.map((item, index) => html`<${Moment} key=${index} item=${item} before=${story[index - 1]} compact />`)}</ol></section>`}
    <section><h2 class="part-title">Replays and edits</h2>
      ${attempts.length === 0 ? html`<p class="quiet">It was never replayed.</p>` : html`<ol class="attempts">${attempts.map(attempt => html`<li key=${attempt.id} class="attempt">
        <p><${Chip} state=${attempt.outcome ?? 'running'}>${attempt.outcome ? undefined : 'waiting for the outcome'}<//> <strong>${shown(attempt.requestedBy)}</strong> <${Time} at=${attempt.requestedAt} />${attempt.jobId && html` in <a href=${link(`/replays/${segment(attempt.jobId)}`)}>replay ${attempt.jobId}</a>`}</p>
        ${attempt.reason && html`<p>${shown(attempt.reason)}</p>`}${attempt.detail && html`<p class="quiet">${shown(attempt.detail)}</p>`}
        ${Object.entries(attempt.change ?? {}).map(([name, one]) => html`<p key=${name}>${sentence(name)}: <code>${shown(one.before ?? '(none)')}</code> → <code>${shown(one.after ?? '(none)')}</code></p>`)}
        ${attempt.edited && attempt.body && html`<details><summary>What the edit changed</summary><${DiffView} before=${pretty(text ?? '')} after=${pretty(attempt.body)} /></details>`}
        ${attempt.edited && !attempt.body && html`<p><a href=${at(`/api/dead-letters/${segment(letter.id)}/attempts/${segment(attempt.id)}/body`)} download>Download what was sent</a> <span class="quiet">${bytes(attempt.bodyBytes)}</span></p>`}</li>`)}</ol>`}</section>
    <section><h2 class="part-title">What the broker recorded</h2>
      ${deaths.length === 0 ? html`<p class="quiet">The broker recorded no death of this message.</p>` : html`<table class="plain"><caption class="hidden">Deaths</caption><thead><tr><th scope="col">Queue</th><th scope="col">Reason</th><th scope="col" class="number">Times</th><th scope="col">Exchange and key</th><th scope="col">First</th></tr></thead>
        <tbody>${deaths.map((death, index) => html`<tr key=${index}><td class="mono">${shown(death.queue)}</td><td>${shown(death.reason)}</td><td class="number">${count(death.count)}</td><td class="mono">${shown(death.exchange || '(default)')} / ${shown((death['routing-keys'] ?? death.routingKeys ?? []).join(', '))}</td><td><${Time} at=${death.time} /></td></tr>`)}</tbody></table>`}</section>
    <section><h2 class="part-title">Alerts that told of it</h2>
      ${alerts.length === 0 ? html`<p class="quiet">None yet: repeats are gathered for the next digest.</p>` : html`<ul class="plain-list">${alerts.map(alert => html`<li key=${alert.id}><a href=${link('/alerts', { alert: alert.id })}>Alert ${alert.id}</a> ${alert.kind && html` <span class="quiet">${alert.kind}</span>`} ${shown(alert.subject ?? '')} ${alert.createdAt && html`<${Time} at=${alert.createdAt} />`}</li>`)}</ul>`}</section>`;
}

function OrderPart({ letter, view, hrefOf }) {
  const { data, error } = usePolled(letter.orderId ? `/api/orders/${segment(letter.orderId)}/timeline` : null, 5000);
  if (!letter.orderId) {
    return html`<${Empty} icon="orders" title="The order is not known">The body names no order that can be read.<//>`;
  }
  return html`<p>Everything about order <a class="mono" href=${link(`/orders/${segment(letter.orderId)}`)}>${shown(letter.orderId)}</a>.</p>
    <${Trouble} error=${error} kept=${data !== null} />${!data && !error && html`<${Loading} />`}${data && html`<${Timeline} items=${data.items} view=${view} hrefOf=${hrefOf} />`}`;
}
