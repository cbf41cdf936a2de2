import { html } from '../html.js';
import { link } from '../router.js';
import { segment } from '../api.js';
import { duration, sentence, shown } from '../format.js';
import { Icon } from './icons.js';
import { Time, Given, Tabs } from './basics.js';
import { JsonView } from './json-view.js';

const looks = {
  event: ['busy', 'orders'], duplicate: ['calm', 'copy'], refused: ['warn', 'cross'], deferred: ['busy', 'clock'], rejected: ['bad', 'cross'], dead_letter: ['bad', 'letters'],
  replay: ['violet', 'replays'], edit: ['violet', 'edit'], discard: ['calm', 'discard'], restore: ['busy', 'restore'], alert: ['warn', 'alerts'], published: ['good', 'send'],
};

const views = { timeline: 'Timeline', compact: 'Compact', json: 'JSON' };

/** Everything that happened to an order in one ordered view. */
export function Timeline({ items, view, hrefOf }) {
  const now = views[view] ? view : 'timeline';
  return html`
    <${Tabs} label="Views of the timeline" items=${Object.entries(views).map(([name, text]) => ({ text, href: hrefOf(name), current: name === now }))} />
    ${now === 'json' ? html`<${JsonView} text=${JSON.stringify(items)} label="Timeline as JSON" />` : html`
      <ol class=${`timeline ${now}`}>${items.map((item, index) => html`<${Moment} key=${index} item=${item} before=${items[index - 1]} compact=${now === 'compact'} />`)}</ol>`}`;
}

/** One thing that happened. */
export function Moment({ item, before, compact }) {
  const [tone, icon] = looks[item.kind] ?? ['calm', 'clock'];
  const gap = before ? (Date.parse(item.at) - Date.parse(before.at)) / 1000 : null;
  const data = item.data && Object.keys(item.data).length ? JSON.stringify(item.data) : null;
  return html`
    <li class="moment">
      <span class=${`moment-mark tone-${tone}`}><${Icon} name=${icon} /></span>
      <div class="moment-body">
        <p class="moment-head"><strong>${shown(item.title ?? sentence(item.kind))}</strong>${item.version !== null && item.version !== undefined && html`<span class="version">v${item.version}</span>`}<span class="moment-time"><${Time} at=${item.at} />${gap !== null && gap >= 1 && html`<span class="quiet"> +${duration(gap)}</span>`}</span></p>
        ${item.detail && html`<p class="moment-detail"><${Given} text=${item.detail} />${item.who && html`<span class="quiet"> by ${shown(item.who)}</span>`}</p>`}
        ${!compact && html`<p class="moment-links">
          ${item.letterId && html`<a href=${link(`/dead-letters/${segment(item.letterId)}`)}>Letter ${item.letterId}</a>`}
          ${item.alertId && html`<a href=${link('/alerts')}>Alert ${item.alertId}</a>`}
          ${item.key && html`<span class="quiet">key <code>${shown(item.key)}</code></span>`}
          ${item.correlationId && item.correlationId !== item.key && html`<span class="quiet">correlation <code>${shown(item.correlationId)}</code></span>`}</p>
          ${data && html`<details class="moment-data"><summary>Data</summary><${JsonView} text=${data} label=${`Data of ${item.title ?? item.kind}`} /></details>`}`}
      </div>
    </li>`;
}
