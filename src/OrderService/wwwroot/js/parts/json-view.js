import { html, useMemo, useState } from '../html.js';
import { layOut, diff } from '../json.js';
import { shown } from '../format.js';
import { Button } from './basics.js';

const most = 200_000;

/** JSON laid out with its numbers as they came; the line a problem is about is marked. */
export function JsonView({ text, pointer, label = 'Body as JSON' }) {
  const cut = text.length > most ? text.slice(0, most) : text;
  const { lines, rest } = useMemo(() => layOut(cut), [cut]);
  return html`<div class="code-box" tabindex="0" role="region" aria-label=${label}>
    <ol class="code">${lines.map((line, index) => {
      const marked = pointer && line.pointer === pointer && !/^[}\]],?$/.test(line.parts.map(part => part.text).join(''));
      return html`<li key=${index} class=${marked ? 'marked' : ''}><span class=${`indent-${Math.min(line.indent, 12)}`}>${line.parts.map(part => html`<span class=${`json-${part.kind}`}>${shown(part.text)}</span>`)}${marked && html`<em class="mark-note">the problem is here</em>`}</span></li>`;
    })}</ol>
    ${rest.trim() !== '' && html`<pre class="code-rest">${lines.length > 0 && html`<em class="mark-note">no JSON from here on</em>\n`}${shown(rest.slice(0, most))}</pre>`}
    ${text.length > most && html`<p class="quiet">The first ${most / 1000} kB are shown; the download has all.</p>`}
  </div>`;
}

export const RawView = ({ text, label = 'Body as it came' }) => html`<div class="code-box" tabindex="0" role="region" aria-label=${label}><pre class="raw">${shown(text.slice(0, most))}</pre>${text.length > most && html`<p class="quiet">The first ${most / 1000} kB are shown; the download has all.</p>`}</div>`;

const row = 16;

export function HexView({ data }) {
  const [rows, setRows] = useState(64);
  const all = Math.ceil(data.length / row);
  const text = useMemo(() => {
    const lines = [];
    for (let line = 0; line < Math.min(rows, all); line++) {
      const part = data.subarray(line * row, (line + 1) * row);
      const hex = Array.from(part, value => value.toString(16).padStart(2, '0'));
      const ascii = Array.from(part, value => (value >= 32 && value < 127 ? String.fromCharCode(value) : '·')).join('');
      lines.push(`${(line * row).toString(16).padStart(6, '0')}  ${hex.slice(0, 8).join(' ').padEnd(23)}  ${hex.slice(8).join(' ').padEnd(23)}  ${ascii}`);
    }
    return lines.join('\n');
  }, [data, rows]);
  return html`<div class="code-box" tabindex="0" role="region" aria-label="Body as bytes"><pre class="hex">${text || 'no bytes'}</pre></div>
    ${rows < all && html`<${Button} tone="small" onClick=${() => setRows(rows * 4)}>Show more bytes<//>`}`;
}

export function DiffView({ before, after, label = 'What the edit changes' }) {
  const lines = useMemo(() => diff(before, after), [before, after]);
  const changed = lines.some(line => line.kind !== 'same');
  if (!changed) {
    return html`<p class="quiet">Nothing is changed.</p>`;
  }
  const near = lines.map((line, index) => lines.slice(Math.max(0, index - 3), index + 4).some(other => other.kind !== 'same'));
  const signs = { same: ' ', removed: '−', added: '+' };
  return html`<div class="code-box" tabindex="0" role="region" aria-label=${label}><ul class="diff">${lines.map((line, index) => (near[index]
    ? html`<li key=${index} class=${line.kind}><span class="sign" aria-hidden="true">${signs[line.kind]}</span>${line.kind !== 'same' && html`<span class="hidden">${line.kind}: </span>`}<span>${shown(line.text)}</span></li>`
    : near[index - 1] ? html`<li key=${index} class="gap">⋯</li>` : null))}</ul></div>`;
}
