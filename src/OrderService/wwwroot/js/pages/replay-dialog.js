import { html, useEffect, useState } from '../html.js';
import { go, link } from '../router.js';
import { post, segment } from '../api.js';
import { count, plural, sentence, shown } from '../format.js';
import { Button, Chip, Dialog, Field, Loading, Note, Trouble, TypedNumber, isTyped, openDialog, toast, useAction } from '../parts/basics.js';

const outcomes = {
  succeeds: ['good', 'would succeed'], already_applied: ['calm', 'already applied'], waits: ['busy', 'would wait for its order'], conflicts: ['warn', 'would conflict'], refused: ['warn', 'would be refused'], still_fails: ['bad', 'would fail again'],
};

/** Shows what a replay would do, then asks how, then starts it. Either ids or a filter; a patch is applied to each letter. */
export const openReplay = options => openDialog(close => html`<${ReplayDialog} close=${close} ...${options} />`);

function ReplayDialog({ ids, filter, what, patch, close, onDone }) {
  const [forecast, setForecast] = useState(null);
  const [forecastError, setForecastError] = useState(null);
  const [mode, setMode] = useState('canary');
  const [perSecond, setPerSecond] = useState('10');
  const [limit, setLimit] = useState('');
  const [reason, setReason] = useState('');
  const [typed, setTyped] = useState('');
  const { busy, error, run } = useAction();
  // Letters that another program put among the dead letters are sent only when somebody looked at them.
  const [confirmed, setConfirmed] = useState(false);
  const isForeign = confirmed || (forecast?.items ?? []).some(item => item.reason === 'confirmation_needed');
  const target = { ...(ids ? { ids } : { filter }), ...(patch && { patch }), ...(confirmed && { confirmed }) };

  useEffect(() => {
    post('/api/dead-letters/what-if', target).then(setForecast, setForecastError);
  }, [confirmed]);

  const matching = forecast?.count ?? ids?.length ?? null;
  const wanted = limit === '' ? matching : Math.min(Number(limit), matching ?? Number(limit));
  const single = ids?.length === 1 && !patch;
  const ready = matching > 0 && wanted > 0 && reason.trim() !== '' && isTyped(typed, wanted) && (single || Number(perSecond) > 0);

  const submit = async event => {
    event.preventDefault();
    if (!ready || busy) {
      return;
    }
    const started = await run(() => (single
      ? post(`/api/dead-letters/${segment(ids[0])}/replay`, { reason: reason.trim(), ...(confirmed && { confirmed }) })
      : post('/api/dead-letters/replays', { ...target, mode, ratePerSecond: Number(perSecond), limit: limit === '' ? null : Number(limit), reason: reason.trim(), upTo: forecast?.upTo ?? null })));
    if (!started) {
      return;
    }
    close();
    onDone?.();
    if (single) {
      toast(`Letter ${ids[0]} is on its way through the queue. Its outcome shows here when it is known.`);
    } else {
      go(link(`/replays/${segment(started.id)}`));
    }
  };

  return html`<${Dialog} title=${single ? `Replay letter ${ids[0]}` : `Replay ${what}`} onClose=${close} wide>
    <form onSubmit=${submit}>
      ${patch && html`<details class="patch"><summary>Each letter is changed first; what does not fit a letter is not sent</summary><pre class="raw" translate="no">${shown(JSON.stringify(patch, null, 2))}</pre></details>`}
      <section class="forecast" aria-label="What would happen">
        ${!forecast && !forecastError && html`<${Loading} what="Trying the letters against the orders as they are now" />`}
        ${forecastError && html`<${Note} tone="warn">What would happen can’t be told: ${shown(forecastError.message)}<//>`}
        ${forecast && html`<${Forecast} forecast=${forecast} />`}
      </section>
      ${isForeign && html`<label class="choice"><input type="checkbox" checked=${confirmed} onChange=${event => setConfirmed(event.target.checked)} /> Send also what another program put among the dead letters; I looked at it</label>`}
      ${!single && matching !== 0 && html`
        <fieldset class="choices two"><legend>How</legend>
          <label class="choice card-choice"><input type="radio" name="mode" value="canary" checked=${mode === 'canary'} onChange=${() => setMode('canary')} /><span><strong>Canary</strong><span class="quiet">1, then 5, then 5 % at a time. Stops by itself when failures return and leaves the rest untouched.</span></span></label>
          <label class="choice card-choice"><input type="radio" name="mode" value="all" checked=${mode === 'all'} onChange=${() => setMode('all')} /><span><strong>All</strong><span class="quiet">One after the other at the rate below, whatever becomes of them.</span></span></label>
        </fieldset>
        <div class="field-row">
          <${Field} label="At most per second" hint="Slower by itself while the queue is deep.">${(id, hint) => html`<input id=${id} aria-describedby=${hint} type="number" min="1" max="10000" inputmode="numeric" required value=${perSecond} onInput=${event => setPerSecond(event.target.value)} />`}<//>
          <${Field} label="How many" hint="Empty for all; the oldest go first.">${(id, hint) => html`<input id=${id} aria-describedby=${hint} type="number" min="1" max=${matching ?? undefined} inputmode="numeric" placeholder=${matching === null ? '' : `all ${count(matching)}`} value=${limit} onInput=${event => setLimit(event.target.value)} />`}<//>
        </div>`}
      ${matching !== 0 && html`<${Field} label="Reason (required)" hint="What was mended. The audit log keeps it.">${(id, hint) => html`<input id=${id} aria-describedby=${hint} required value=${reason} onInput=${event => setReason(event.target.value)} maxlength="500" />`}<//>`}
      <${TypedNumber} number=${wanted} value=${typed} onInput=${setTyped} />
      <${Trouble} error=${error} />
      <div class="dialog-actions"><${Button} onClick=${close}>Cancel<//><button class="button primary" type="submit" disabled=${!ready} aria-disabled=${busy}>${matching === 0 ? 'Nothing to replay' : `Replay ${wanted === null ? 'letters' : plural(wanted, 'letter')}`}</button></div>
    </form><//>`;
}

export function Forecast({ forecast }) {
  const entries = Object.entries(forecast.outcomes ?? {}).filter(([, value]) => value > 0);
  const whole = Math.max(1, entries.reduce((sum, [, value]) => sum + value, 0));
  const noted = (forecast.items ?? []).filter(item => item.outcome !== 'succeeds' && item.outcome !== 'already_applied').slice(0, 20);
  if (forecast.count === 0) {
    return html`<${Note}>No letter matches any more: somebody may have been faster.<//>`;
  }
  return html`
    <h3 class="forecast-title">What would happen now <span class="quiet">nothing is changed yet${forecast.checked < forecast.count ? `; ${count(forecast.checked)} of ${count(forecast.count)} tried` : ''}</span></h3>
    <svg class="forecast-bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">${entries.reduce(([shapes, x], [name, value]) => {
      const width = (value / whole) * 100;
      return [[...shapes, html`<rect key=${name} class=${`tone-${outcomes[name]?.[0] ?? 'calm'}`} x=${x} y="0" width=${Math.max(0, x + width > 99.9 ? width : width - 0.4)} height="6" />`], x + width];
    }, [[], 0])[0]}</svg>
    <ul class="forecast-legend">${entries.map(([name, value]) => html`<li key=${name}><span class=${`key tone-${outcomes[name]?.[0] ?? 'calm'}`}></span><b>${count(value)}</b> ${outcomes[name]?.[1] ?? sentence(name)}</li>`)}</ul>
    ${noted.length > 0 && html`<details class="forecast-list"><summary>Which would not, and why</summary><ul>${noted.map(item => html`<li key=${item.id}><a href=${link(`/dead-letters/${segment(item.id)}`)} onClick=${event => event.currentTarget.closest('dialog').close()}>Letter ${item.id}</a> <${Chip} state=${item.outcome}>${outcomes[item.outcome]?.[1] ?? sentence(item.outcome)}<//> <span>${shown(item.detail ?? item.reason ?? '')}</span></li>`)}</ul></details>`}`;
}
