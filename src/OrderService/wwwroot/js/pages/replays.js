import { html } from '../html.js';
import { link } from '../router.js';
import { may, post, segment } from '../api.js';
import { useList, usePolled } from '../live.js';
import { count, duration, plural, rate, shown } from '../format.js';
import { Button, Card, Chip, Empty, Fact, Facts, Loading, MoreRows, Note, PageHead, Reason, Time, Trouble, Waiting, toast } from '../parts/basics.js';
import { openReplay } from './replay-dialog.js';

export function Replays() {
  const list = useList('/api/replays', {}, item => item.id, 3000);
  return html`
    <${PageHead} title="Replays" sub="Jobs that send dead letters through the queue again, each with its own record." />
    <${Waiting} list=${list} one="replay" many="replays" />
    <${Trouble} error=${list.error} kept=${list.items !== null} />
    ${!list.items && !list.error && html`<${Loading} what="Loading replays" />`}
    ${list.items?.length === 0 && html`<${Empty} icon="replays" title="No replay yet">Open an incident or select letters, then choose <b>Replay</b>. What would happen is shown before anything is sent.<//>`}
    ${list.items?.length > 0 && html`<table class="rows"><caption class="hidden">Replay jobs, newest first</caption><thead><tr><th scope="col">Replay</th><th scope="col">Why</th><th scope="col">How</th><th scope="col">Progress</th><th scope="col">Started</th><th scope="col">State</th></tr></thead>
      <tbody>${list.items.map(job => html`<tr key=${job.id} data-row>
        <th scope="row" data-label="Replay"><a data-row-link href=${link(`/replays/${segment(job.id)}`)}>${job.id}</a></th>
        <td class="wide-cell" data-label="Why">${shown(job.reason)}<span class="under">by ${shown(job.requestedBy)}</span></td>
        <td data-label="How">${job.mode}</td>
        <td data-label="Progress"><progress max=${Math.max(1, job.total)} value=${job.succeeded + job.failed + job.skipped} aria-label=${`Replay ${job.id}`}></progress><span class="under">${count(job.succeeded)} of ${count(job.total)} succeeded${job.failed ? `, ${count(job.failed)} failed` : ''}</span></td>
        <td data-label="Started"><${Time} at=${job.requestedAt} /></td>
        <td data-label="State"><${Chip} state=${job.state} /></td></tr>`)}</tbody></table>`}
    <${MoreRows} list=${list} />`;
}

const withoutReason = one => (one.detail?.startsWith(`${one.reason}: `) ? one.detail.slice(one.reason.length + 2) : one.detail ?? '');

const over = state => state === 'done' || state === 'cancelled' || state === 'stopped';

export function Replay({ id }) {
  const path = `/api/replays/${segment(id)}`;
  const { data: job, error, refresh } = usePolled(path, 1000);
  const change = async (verb, done) => {
    try {
      await post(`${path}/${verb}`, {});
      toast(done);
    } catch (problem) {
      toast(problem.message, 'bad');
    }
    refresh();
  };
  const known = job ? job.succeeded + job.failed : 0;
  const waiting = job ? Math.max(0, job.sent - known - (job.skippedSent ?? 0)) : 0;
  const untouched = job ? job.untouched ?? Math.max(0, job.total - job.sent - job.skipped) : 0;
  return html`
    <${PageHead} title=${`Replay ${id}`} back=${{ href: link('/replays'), text: 'Replays' }} sub=${job && html`<${Chip} state=${job.state} /> <span>${shown(job.reason)}</span>`}>
      ${job && may('operate') && !over(job.state) && html`
        ${job.state === 'paused' ? html`<${Button} tone="primary" icon="play" onClick=${() => change('resume', 'Going on.')}>Resume<//>` : html`<${Button} icon="pause" onClick=${() => change('pause', 'Paused. What was sent is still being processed.')}>Pause<//>`}
        <${Button} tone="danger" icon="stop" onClick=${() => change('cancel', 'Cancelled. Letters that were not sent wait as before.')}>Cancel<//>`}
      ${job && may('operate') && over(job.state) && job.failures?.length > 0 && html`<${Button} icon="replays" keyName="r" onClick=${() => openReplay({ ids: job.failures.map(one => one.letterId), what: plural(job.failures.length, 'failed letter') })}>Retry the failures<//>`}
    <//>
    <${Trouble} error=${error} kept=${job !== null} />
    ${!job && !error && html`<${Loading} what="Loading the replay" />`}
    ${job && html`
      ${job.state === 'stopped' && html`<${Note} tone="bad"><strong>The canary stopped by itself.</strong> ${job.stopReason ? shown(job.stopReason) : `Letters failed again; ${plural(untouched, 'letter')} ${untouched === 1 ? 'was' : 'were'} not touched.`} Letters that were not touched wait as before; mend the cause, then replay them anew.<//>`}
      ${job.state === 'paused' && job.stopReason && html`<${Note} tone="warn"><strong>The service paused it.</strong> ${shown(job.stopReason)}<//>`}
      ${job.state === 'done' && html`<${Note} tone=${job.failed ? 'warn' : 'good'}><strong>Finished.</strong> ${plural(job.succeeded, 'letter')} succeeded${job.failed ? `, ${count(job.failed)} failed again` : ''}.<//>`}
      ${job.waiting && !over(job.state) && html`<${Note} tone="busy">${shown(job.waiting)}<//>`}
      <${Card}>
        <div class="job-progress" role="group" aria-label="Progress">
          <progress class="big" max=${Math.max(1, job.total)} value=${known + job.skipped} aria-label="Letters with a known outcome"></progress>
          <p class="job-words" role="status"><b>${count(known + job.skipped)}</b> of ${count(job.total)} have an outcome${job.etaSeconds != null && !over(job.state) ? `, about ${duration(job.etaSeconds)} left` : ''}</p>
        </div>
        <div class="tiles small">
          <div class="tile tone-good"><span class="tile-name">Succeeded</span><span class="tile-value">${count(job.succeeded)}</span></div>
          <div class=${`tile ${job.failed ? 'tone-bad' : ''}`}><span class="tile-name">Failed again</span><span class="tile-value">${count(job.failed)}</span></div>
          <div class="tile"><span class="tile-name">Sent, waiting</span><span class="tile-value">${count(waiting)}</span></div>
          <div class="tile"><span class="tile-name">Skipped</span><span class="tile-value">${count(job.skipped)}</span><span class="tile-more">settled by somebody else</span></div>
          <div class="tile"><span class="tile-name">Not touched</span><span class="tile-value">${count(untouched)}</span></div>
        </div>
        <${Facts}>
          <${Fact} name="How">${job.mode === 'canary' ? 'canary: 1, then 5, then 5 %' : 'all, one after the other'}${job.stage ? html`<span class="under">${shown(job.stage)}</span>` : ''}<//>
          <${Fact} name="Rate">at most ${count(job.ratePerSecond)}/s${job.currentRate != null && !over(job.state) ? `, now ${rate(job.currentRate)}/s` : ''}<//>
          <${Fact} name="Asked for by">${shown(job.requestedBy)} <${Time} at=${job.requestedAt} /><//>
          <${Fact} name="Finished"><${Time} at=${job.finishedAt} empty="not yet" /><//>
        <//>
      <//>
      ${job.patch && html`<details class="patch"><summary>Each letter is changed before it goes out</summary><pre class="raw" translate="no">${shown(JSON.stringify(job.patch, null, 2))}</pre></details>`}
      ${job.failures?.length > 0 && html`<${Card} title="Failed again"><table class="rows"><caption class="hidden">Letters that failed again</caption><thead><tr><th scope="col">Letter</th><th scope="col">Order</th><th scope="col">Why</th></tr></thead><tbody>${job.failures.map(one => html`<tr key=${one.letterId} data-row><th scope="row" data-label="Letter"><a data-row-link href=${link(`/dead-letters/${segment(one.letterId)}`)}>${one.letterId}</a></th><td data-label="Order">${one.orderId ? html`<a class="mono" href=${link(`/orders/${segment(one.orderId)}`)}>${shown(one.orderId)}</a>` : '–'}</td><td class="wide-cell" data-label="Why"><${Reason} value=${one.reason} /> ${shown(withoutReason(one))}</td></tr>`)}</tbody></table><//>`}
      ${job.skips?.length > 0 && html`<${Card} title="Not sent"><table class="rows"><caption class="hidden">Letters that were not sent</caption><thead><tr><th scope="col">Letter</th><th scope="col">Order</th><th scope="col">Why</th></tr></thead><tbody>${job.skips.map(one => html`<tr key=${one.letterId} data-row><th scope="row" data-label="Letter"><a data-row-link href=${link(`/dead-letters/${segment(one.letterId)}`)}>${one.letterId}</a></th><td data-label="Order">${one.orderId ? html`<a class="mono" href=${link(`/orders/${segment(one.orderId)}`)}>${shown(one.orderId)}</a>` : '–'}</td><td class="wide-cell" data-label="Why"><${Reason} value=${one.reason} /> ${shown(withoutReason(one))}</td></tr>`)}</tbody></table><//>`}`}`;
}
