import { html, useState } from '../html.js';
import { del, segment, session, signIn } from '../api.js';
import { usePolled } from '../live.js';
import { plural, shown } from '../format.js';
import { Button, Dialog, Empty, Field, Loading, PageHead, Time, Trouble, openDialog, toast, useAction } from '../parts/basics.js';

/** Who is signed in, and the way to end it. */
export function Sessions() {
  const sessions = usePolled('/api/sessions', 5000);
  const items = sessions.data?.items;
  const keys = [...new Set(items?.map(item => item.key) ?? [])].filter(key => items.filter(item => item.key === key).length > 1);
  return html`
    <${PageHead} title="Signed-in browsers" sub="A session ends by itself when nobody uses it. End one that you do not know, and replace its key." />
    <${Trouble} error=${sessions.error} kept=${sessions.data !== null} />
    ${!sessions.data && !sessions.error && html`<${Loading} what="Loading sessions" />`}
    ${items?.length === 0 && html`<${Empty} icon="person" title="No browser is signed in">You are here with a token.<//>`}
    ${items?.length > 0 && html`<table class="rows"><caption class="hidden">Signed-in browsers, the newest first</caption>
      <thead><tr><th scope="col">Key</th><th scope="col">Signed in</th><th scope="col">Last used</th><th scope="col">Ends at the latest</th><th scope="col">From</th><th scope="col"><span class="hidden">Action</span></th></tr></thead>
      <tbody>${items.map(item => html`<tr key=${item.id} data-row>
        <th scope="row" data-label="Key">${shown(item.key)}${item.current && html` <span class="kind">this browser</span>`}</th>
        <td data-label="Signed in"><${Time} at=${item.startedAt} /></td>
        <td data-label="Last used"><${Time} at=${item.usedAt} /></td>
        <td data-label="Ends"><${Time} at=${item.endsAt} /></td>
        <td data-label="From"><code>${shown(item.address)}</code></td>
        <td><${End} path=${`/api/sessions/${segment(item.id)}`} current=${item.current} text=${item.current ? 'Sign out' : 'End'}
          label=${item.current ? 'Sign out of this browser' : `End the session of ${item.key} from ${item.address}`} onEnded=${sessions.refresh} /></td></tr>`)}</tbody></table>`}
    ${keys.map(key => html`<p key=${key}><${End} path=${`/api/sessions?key=${segment(key)}`} current=${items.some(item => item.current && item.key === key)}
      text=${`End all sessions of ${key}`} onEnded=${sessions.refresh} /></p>`)}`;
}

function End({ path, current, text, label, onEnded }) {
  const { busy, error, run } = useAction();
  const end = async () => {
    const done = await run(async () => {
      try {
        return (await del(path)) ?? { ended: 1 };
      } catch (problem) {
        if (problem.code !== 'sign_in_again') {
          throw problem;
        }
        openDialog(close => html`<${SignInAgain} close=${close} onSignedIn=${end} />`);
        return { ended: 0 };
      }
    });
    if (done?.ended && current) {
      session.set(null);
    } else if (done?.ended) {
      toast(`${plural(done.ended, 'session')} ended.`);
      onEnded();
    }
  };
  return html`<${Button} tone="small" busy=${busy} onClick=${end} label=${label}>${text}<//><${Trouble} error=${error} />`;
}

/** Whoever finds a browser open must not end the sessions of others. */
function SignInAgain({ close, onSignedIn }) {
  const [key, setKey] = useState('');
  const { busy, error, run } = useAction();
  const submit = async event => {
    event.preventDefault();
    if (await run(() => signIn(key.trim()))) {
      close();
      onSignedIn();
    }
  };
  return html`<${Dialog} title="Sign in again" onClose=${close}>
    <form onSubmit=${submit}>
      <p>This browser signed in a while ago. Ending other sessions takes the key once more.</p>
      <${Field} label="API key" error=${error && (error.status === 401 ? 'The service does not know this key.' : shown(error.message))}>${(id, hint) => html`<input id=${id} aria-describedby=${hint} type="password" autocomplete="current-password" spellcheck="false" required value=${key} onInput=${event => setKey(event.target.value)} />`}<//>
      <footer class="dialog-foot"><button class="button primary" type="submit" aria-disabled=${busy}>${busy ? 'Signing in…' : 'Sign in and end'}</button></footer>
    </form><//>`;
}
