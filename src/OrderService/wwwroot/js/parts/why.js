import { html, useEffect, useState } from '../html.js';
import { get, segment } from '../api.js';
import { shown } from '../format.js';
import { Card, Told } from './basics.js';

/** In plain words: what happened, what happens next, what can be done. Read anew when version changes. */
export function Why({ id, version }) {
  const [answer, setAnswer] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    get(`/api/why/${segment(id)}`, { signal: stop.signal }).then(setAnswer, () => setAnswer(null));
    return () => stop.abort();
  }, [id, version]);
  if (!answer) {
    return null;
  }
  const list = (title, items) => items?.length > 0 && html`${title && html`<h3>${title}</h3>`}<ul>${items.map(item => html`<li key=${item}><${Told} text=${typeof item === 'string' ? item : item.text ?? ''} /></li>`)}</ul>`;
  return html`<${Card} title="Why" kind="why">${answer.state && html`<p class="why-state">${shown(answer.state)}</p>`}${list('What happens next', answer.next)}${list('What you can do', answer.actions)}${answer.happened?.length > 0 && html`<details><summary>What happened</summary>${list(null, answer.happened)}</details>`}<//>`;
}
