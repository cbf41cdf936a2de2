import { html, useState } from '../html.js';
import { signIn } from '../api.js';
import { shown } from '../format.js';
import { ThemeSwitch } from '../parts/theme-switch.js';
import { useAction } from '../parts/basics.js';

export function SignIn({ failure }) {
  const [key, setKey] = useState('');
  const { busy, error, run } = useAction();
  const problem = error ?? failure;
  const submit = event => {
    event.preventDefault();
    run(() => signIn(key.trim()));
  };
  return html`<main class="sign-in" id="main">
    <div class="sign-in-card">
      <div class="brand"><img src="icon.svg" alt="" width="36" height="36" /><span>OrderService</span></div>
      <h1>Sign in</h1>
      <p class="quiet">with an API key that may <code>read</code>; <code>operate</code> lets you replay and discard.</p>
      <form onSubmit=${submit}>
        <input class="hidden" type="text" name="username" autocomplete="username" value="api-key" tabindex="-1" aria-hidden="true" readonly />
        <div class="field"><label for="key">API key</label><input id="key" type="password" autocomplete="current-password" spellcheck="false" required autofocus value=${key} onInput=${event => setKey(event.target.value)} aria-describedby="key-hint" aria-invalid=${problem ? 'true' : undefined} />
          ${problem ? html`<p class="field-error" role="alert">${problem.status === 401 ? 'The service does not know this key.' : shown(problem.message)}</p>` : null}
          <p class="hint" id="key-hint">Where no keys are configured, <code>orderservice key show</code> prints a link that signs you in.</p></div>
        <button class="button primary wide-button" type="submit" aria-disabled=${busy}>${busy ? 'Signing in…' : 'Sign in'}</button>
      </form>
      <div class="sign-in-foot"><${ThemeSwitch} /></div>
    </div></main>`;
}
