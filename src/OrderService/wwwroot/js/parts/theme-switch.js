import { html, useState } from '../html.js';
import { Shared, remember } from '../store.js';
import { Icon } from './icons.js';

/** Changes with the theme in force, so that what is drawn on a canvas is drawn anew. */
export const themeChanged = new Shared(0);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => themeChanged.set(themeChanged.value + 1));

const names = { system: 'as the system has it', light: 'light', dark: 'dark' };
const icons = { system: 'system', light: 'sun', dark: 'moon' };
const following = { system: 'light', light: 'dark', dark: 'system' };

export function ThemeSwitch() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? 'system');
  const change = () => {
    const next = following[theme];
    if (next === 'system') {
      delete document.documentElement.dataset.theme;
      remember.set('theme', null);
    } else {
      document.documentElement.dataset.theme = next;
      remember.set('theme', next);
    }
    setTheme(next);
    themeChanged.set(themeChanged.value + 1);
  };
  return html`<button type="button" class="icon-button" title=${`Colours: ${names[theme]}`} aria-label=${`Colours: ${names[theme]}. Change to ${names[following[theme]]}`} onClick=${change}><${Icon} name=${icons[theme]} /></button>`;
}
