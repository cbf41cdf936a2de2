import { html, useEffect, useState } from '../html.js';
import { go, link } from '../router.js';
import { may, post, segment } from '../api.js';
import { usePolled } from '../live.js';
import { pretty } from '../json.js';
import { shown } from '../format.js';
import { Button, Card, Field, Loading, Note, PageHead, Reason, Trouble, toast, useAction } from '../parts/basics.js';
import { DiffView } from '../parts/json-view.js';
import { openReplay } from './replay-dialog.js';
import { useBody } from './letter.js';

/** The JSON within an AMQP 1.0 value, whose first bytes say what it is: what the sender should have sent alone. */
function withinAmqpValue(data) {
  const start = data?.[0] === 0 ? data.indexOf(0x7b) : -1;
  return start < 0 ? null : new TextDecoder().decode(data.subarray(start));
}

const isJson = contentType => !contentType || /^application\/json *(;|$)/i.test(contentType);

/** Edits a letter's body, command and content type, checks it with the service's own decoder while it is typed, shows the difference, and replays it. */
export function Edit({ id }) {
  const { data: letter, error: letterError } = usePolled(`/api/dead-letters/${segment(id)}`, 3000);
  const body = useBody(id);
  const [text, setText] = useState(null);
  const [check, setCheck] = useState({ text: null, answer: null, error: null });
  const [reason, setReason] = useState('');
  const [confirmed, setConfirmed] = useState(false);
  const { busy, error, run } = useAction();
  const { data: commands } = usePolled('/api/commands', 600000);
  const [command, setCommand] = useState('');
  const inside = body.text === null ? withinAmqpValue(body.data) : null;
  const original = body.text === null ? inside : pretty(body.text);
  const edited = text ?? original;
  // The text within an AMQP 1.0 value is another body than the one that came.
  const isOtherText = edited !== null && (edited !== original || inside !== null);
  const asJson = letter && !isJson(letter.contentType);
  const change = { ...(isOtherText && { body: edited }), ...(command !== '' && { type: command }), ...(asJson && { contentType: 'application/json' }) };
  const changed = Object.keys(change).length > 0;
  const asked = JSON.stringify(changed ? change : { body: edited });

  useEffect(() => {
    if (edited === null) {
      return undefined;
    }
    let gone = false;
    const timer = setTimeout(async () => {
      try {
        const answer = await post(`/api/dead-letters/${segment(id)}/check`, JSON.parse(asked));
        if (!gone) {
          setCheck({ text: asked, answer, error: null });
        }
      } catch (problem) {
        if (!gone) {
          setCheck({ text: asked, answer: null, error: problem });
        }
      }
    }, 300);
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [id, asked, edited === null]);

  const back = link(`/dead-letters/${segment(id)}`);
  if (!may('operate')) {
    return html`<${PageHead} title="Edit and replay" back=${{ href: back, text: `Letter ${id}` }} /><${Note} tone="warn">Your key may read, not operate.<//>`;
  }
  const checked = check.text === asked;
  const patch = checked && changed ? check.answer?.patch : null;
  const settled = letter && letter.status !== 'parked';
  const ready = changed && !settled && reason.trim() !== '' && checked && (check.answer?.valid || check.error?.status === 404);
  const submit = async event => {
    event.preventDefault();
    if (!ready || busy) {
      return;
    }
    if (await run(() => post(`/api/dead-letters/${segment(id)}/replay`, { ...change, reason: reason.trim(), ...(confirmed && { confirmed }) }))) {
      toast(`The edited letter ${id} is on its way. Its outcome shows here when it is known.`);
      go(back);
    }
  };
  return html`
    <${PageHead} title=${`Edit letter ${id}`} back=${{ href: back, text: `Letter ${id}` }} sub=${letter && html`<${Reason} value=${letter.reason} /> <span>${shown(letter.detail)}</span>`} />
    <${Trouble} error=${letterError ?? body.error} />
    ${settled && html`<${Note} tone="warn">This letter is ${letter.status} since you opened it${letter.settledBy ? ` (by ${shown(letter.settledBy)})` : ''}; it can’t be replayed edited.<//>`}
    ${!body.data && !body.error && html`<${Loading} what="Loading the body" />`}
    ${body.data && body.text === null && (inside === null
      ? html`<${Note} tone="warn">The body is not text; it can only be replayed as it is, or discarded.<//>`
      : html`<${Note}>It came as an AMQP 1.0 value. What goes out is the text within it, as below.<//>`)}
    ${edited !== null && html`
      <form class="edit-columns" onSubmit=${submit}>
        <div>
          <${Card} title="Body">
            <label class="hidden" for="edited">Edited body</label>
            <${Field} label="Command" hint=${asJson ? `It came as ${shown(letter.contentType)} and goes out as application/json.` : 'The property type of the message.'}>${(fieldId, hint) => html`
              <select id=${fieldId} aria-describedby=${hint} value=${command} onChange=${event => setCommand(event.target.value)}>
                <option value="">As it came: ${letter?.type ? shown(letter.type) : 'order.place (none given)'}</option>
                ${(commands?.items ?? []).map(one => html`<option key=${one.type} value=${one.type}>${one.type}</option>`)}
              </select>`}<//>
            <textarea id="edited" class="editor" spellcheck="false" autocomplete="off" autocapitalize="off" rows=${Math.min(32, Math.max(12, edited.split('\n').length + 1))} value=${edited} onInput=${event => setText(event.target.value)} aria-describedby="check" aria-invalid=${checked && check.answer?.valid === false ? 'true' : undefined}></textarea>
            <div id="check" role="status" class="check-line">
              ${!checked && html`<span class="quiet">Checking…</span>`}
              ${checked && check.error && html`<span class="bad-text">${shown(check.error.message)}</span>`}
              ${checked && check.answer?.valid && html`<span class="good-text">It passes the service’s checks.</span> ${check.answer.detail && html`<span class="quiet">${shown(check.answer.detail)}</span>`}`}
              ${checked && check.answer?.valid === false && html`<span class="bad-text">It would be refused:</span><ul class="failures">${(check.answer.errors ?? []).map((one, index) => html`<li key=${index}>${one.pointer && html`<code>${shown(one.pointer)}</code> `}${shown(one.detail ?? one.code)}</li>`)}</ul>`}
            </div>
            <div class="editor-tools"><${Button} tone="small" disabled=${!isOtherText} onClick=${() => setText(original)}>Back to the original<//><${Button} tone="small" onClick=${() => setText(pretty(edited))}>Lay out<//></div>
          <//>
        </div>
        <div>
          <${Card} title="What the edit changes"><${DiffView} before=${original} after=${edited} /><//>
          <${Card} title="Send">
            <p class="quiet">The original stays as it is and is linked. The message keeps its idempotency key: an order is never applied twice.</p>
            <${Field} label="Reason (required)" hint="The audit log keeps it with the edit.">${(fieldId, hint) => html`<input id=${fieldId} aria-describedby=${hint} required value=${reason} onInput=${event => setReason(event.target.value)} maxlength="500" />`}<//>
            <${Trouble} error=${error} />
            ${(confirmed || error?.code === 'confirmation_needed') && html`<label class="choice"><input type="checkbox" checked=${confirmed} onChange=${event => setConfirmed(event.target.checked)} /> I looked at it; send it</label>`}
            ${error?.errors?.length > 0 && html`<ul class="failures">${error.errors.map((one, index) => html`<li key=${index}>${one.pointer && html`<code>${shown(one.pointer)}</code> `}${shown(one.detail ?? one.code)}</li>`)}</ul>`}
            ${patch && letter && !settled && html`<p><${Button} icon="replays" onClick=${() => openReplay({ filter: { fingerprint: letter.fingerprint }, patch, what: 'the whole incident with this change' })}>Apply it to the whole incident<//> <span class="quiet">Shows first what it would do to each letter.</span></p>`}
            <div class="dialog-actions"><a class="button" href=${back}>Cancel</a><button class="button primary" type="submit" disabled=${!ready} aria-disabled=${busy}>Replay the edited letter</button></div>
          <//>
        </div>
      </form>`}`;
}
