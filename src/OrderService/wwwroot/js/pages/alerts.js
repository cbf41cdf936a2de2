import { html, useState } from '../html.js';
import { link } from '../router.js';
import { may, post, segment } from '../api.js';
import { useList, usePolled } from '../live.js';
import { count, plural, shown } from '../format.js';
import { Button, Card, Chip, Empty, Loading, MoreRows, Note, PageHead, Time, Trouble, Waiting, useAction } from '../parts/basics.js';

const kinds = { first: 'first of its kind', digest: 'digest', reminder: 'reminder', escalation: 'escalation', recovery: 'recovered', test: 'test', service: 'service', seal: 'seal of the day' };

export function Alerts() {
  const channels = usePolled('/api/alerts/channels', 5000);
  const list = useList('/api/alerts', {}, item => item.id);
  return html`
    <${PageHead} title="Alerts" sub="Who is told, how it went, and what was said." />
    <${Card} title="Channels">
      <${Trouble} error=${channels.error} kept=${channels.data !== null} />
      ${!channels.data && !channels.error && html`<${Loading} what="Loading channels" />`}
      ${channels.data && html`<ul class="channels">${channels.data.items.filter(channel => channel.enabled).map(channel => html`<${Channel} key=${channel.name} channel=${channel} onTested=${() => { channels.refresh(); list.refresh(); }} />`)}</ul>
        ${channels.data.items.some(channel => !channel.enabled) && html`<p class="quiet">Off: ${channels.data.items.filter(channel => !channel.enabled).map(channel => shown(channel.name)).join(', ')}. They are switched on in the settings under <code>Alerts</code>.</p>`}
        ${!channels.data.items.some(channel => channel.enabled && channel.name !== 'log') && html`<${Note} tone="warn">Only the log is told. Set <code>Alerts:Email</code> or <code>Alerts:Webhook</code>, so that somebody hears of it.<//>`}`}
    <//>
    <h2 class="section-title">What was sent</h2>
    <${Waiting} list=${list} one="alert" many="alerts" />
    <${Trouble} error=${list.error} kept=${list.items !== null} />
    ${!list.items && !list.error && html`<${Loading} what="Loading alerts" />`}
    ${list.items?.length === 0 && html`<${Empty} icon="alerts" title="No alert yet">The first dead letter of a kind alerts at once, repeats come in digests. Use <b>Send test</b> to try a channel.<//>`}
    ${list.items?.length > 0 && html`<ol class="alerts">${list.items.map(alert => html`<li key=${alert.id} class="alert" data-row><details>
      <summary data-row-link><span class="alert-subject">${shown(alert.subject)}</span><span class="alert-more"><span class="kind">${kinds[alert.kind] ?? shown(alert.kind)}</span>${alert.letters > 0 && html`<span>${plural(alert.letters, 'letter')}</span>`}<${Time} at=${alert.createdAt} /></span>
        <span class="alert-deliveries">${alert.deliveries.map(one => html`<${Chip} key=${one.channel} state=${one.status}>${one.channel} ${one.status}<//>`)}${alert.deliveries.length === 0 && html`<${Chip} state="pending">waiting<//>`}</span></summary>
      <pre class="raw alert-text">${shown(alert.text)}</pre>
      <ul class="plain-list">${alert.deliveries.map(one => html`<li key=${one.channel}><b>${shown(one.channel)}</b>: ${one.status}${one.sentAt ? html` <${Time} at=${one.sentAt} />` : ''}, ${plural(one.attempts, 'attempt')}${one.nextAttemptAt ? html`, next <${Time} at=${one.nextAttemptAt} />` : ''}${one.lastError ? html`<span class="bad-text"> ${shown(one.lastError)}</span>` : ''}</li>`)}</ul>
      ${alert.incident && html`<p><a href=${link(`/incidents/${segment(alert.incident)}`)}>Open the incident</a></p>`}</details></li>`)}</ol>`}
    <${MoreRows} list=${list} />`;
}

function Channel({ channel, onTested }) {
  const [answer, setAnswer] = useState(null);
  const { busy, error, run } = useAction();
  const test = async () => {
    setAnswer(null);
    const got = await run(() => post('/api/alerts/test', { channel: channel.name }));
    if (got) {
      setAnswer(got);
      onTested();
    }
  };
  return html`<li class="channel">
    <div class="channel-head"><strong>${shown(channel.name)}</strong><${Chip} state=${channel.state !== 'ok' || channel.failed > 0 || (channel.lastError && channel.pending > 0) ? 'degraded' : 'ok'}>${channel.state === 'off' ? 'off' : channel.state === 'failing' || (channel.lastError && channel.pending > 0) ? 'failing' : 'on'}<//></div>
    <p class="channel-target">${shown(channel.target ?? '')}</p>
    <p class="quiet">last sent <${Time} at=${channel.lastSentAt} empty="never" /> · ${count(channel.pending)} waiting${channel.failed ? ` · ${count(channel.failed)} given up` : ''}</p>
    ${channel.state !== 'ok' && channel.reason && html`<p class="bad-text">${channel.state} since <${Time} at=${channel.since} />: ${shown(channel.reason)}</p>`}
    ${channel.state === 'ok' && channel.lastError && html`<p class="bad-text">last error ${channel.lastErrorAt && html`<${Time} at=${channel.lastErrorAt} />`}: ${shown(channel.lastError)}</p>`}
    ${may('operate') && html`<${Button} tone="small" icon="send" busy=${busy} onClick=${test} label=${`Send test through ${channel.name}`}>${busy ? 'Sending…' : 'Send test'}<//>`}
    <div role="status">${answer && html`<${Note} tone=${answer.ok ? 'good' : 'bad'}><strong>${answer.ok ? 'Delivered' : 'Not delivered'}</strong>${answer.milliseconds != null ? ` in ${count(answer.milliseconds)} ms` : ''}${answer.answer ? html`: ${shown(answer.answer)}` : '.'}<//>`}</div>
    <${Trouble} error=${error} /></li>`;
}
