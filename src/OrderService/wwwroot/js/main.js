import { html, render, useEffect, useLayoutEffect, useRef, useState } from './html.js';
import { loadSession, outOfReach, session, signIn, signOut } from './api.js';
import { at } from './base.js';
import { link, route, takeFocus } from './router.js';
import { paused, staleSince, streamState, usePolled } from './live.js';
import { showHelp } from './keyboard.js';
import './focus.js';
import { build, clockTime, count, shown } from './format.js';
import { DialogPlace, Empty, PageHead, Toasts, toast } from './parts/basics.js';
import { Icon } from './parts/icons.js';
import { ThemeSwitch } from './parts/theme-switch.js';
import { Overview } from './pages/overview.js';
import { Incident, Incidents } from './pages/incidents.js';
import { Letters } from './pages/letters.js';
import { Letter } from './pages/letter.js';
import { Edit } from './pages/edit.js';
import { Replay, Replays } from './pages/replays.js';
import { Order, Orders } from './pages/orders.js';
import { Queues } from './pages/queues.js';
import { Alerts } from './pages/alerts.js';
import { Audit } from './pages/audit.js';
import { Sessions } from './pages/sessions.js';
import { SignIn } from './pages/sign-in.js';

const places = [
  { path: '', text: 'Overview', icon: 'overview' },
  { path: 'incidents', text: 'Incidents', icon: 'incidents', badge: stats => stats?.incidents?.open },
  { path: 'dead-letters', text: 'Dead letters', icon: 'letters', badge: stats => stats?.deadLetters?.parked },
  { path: 'replays', text: 'Replays', icon: 'replays' },
  { path: 'orders', text: 'Orders', icon: 'orders' },
  { path: 'queues', text: 'Queues', icon: 'queues' },
  { path: 'alerts', text: 'Alerts', icon: 'alerts' },
  { path: 'audit', text: 'Audit log', icon: 'audit' },
];

function page({ parts, query }) {
  const [place, id, verb] = parts;
  switch (place) {
    case undefined: return ['Overview', html`<${Overview} />`];
    case 'incidents': return id ? ['Incident', html`<${Incident} key=${id} fingerprint=${id} query=${query} />`] : ['Incidents', html`<${Incidents} query=${query} />`];
    case 'dead-letters':
      return id ? (verb === 'edit' ? [`Edit letter ${id}`, html`<${Edit} key=${id} id=${id} />`] : [`Letter ${id}`, html`<${Letter} key=${id} id=${id} query=${query} />`]) : ['Dead letters', html`<${Letters} query=${query} />`];
    case 'replays': return id ? [`Replay ${id}`, html`<${Replay} key=${id} id=${id} />`] : ['Replays', html`<${Replays} />`];
    case 'orders': return id ? [`Order ${id}`, html`<${Order} key=${id} id=${id} query=${query} />`] : ['Orders', html`<${Orders} query=${query} />`];
    case 'queues': return ['Queues', html`<${Queues} />`];
    case 'alerts': return ['Alerts', html`<${Alerts} />`];
    case 'audit': return ['Audit log', html`<${Audit} query=${query} />`];
    case 'sessions': return ['Signed-in browsers', html`<${Sessions} />`];
    default: return ['Not found', html`<${PageHead} title="Not found" /><${Empty} icon="search" title="There is no such page"><a href=${link('/')}>Go to the overview</a><//>`];
  }
}

function App() {
  const who = session.use();
  const [failure, setFailure] = useState(null);
  useEffect(() => {
    start().catch(setFailure);
  }, []);
  if (who === undefined) {
    return failure && failure.status !== 401
      ? html`<main class="sign-in" id="main"><div class="sign-in-card"><h1>The service does not answer</h1><p>${shown(failure.message)}</p><button class="button primary" type="button" onClick=${() => location.reload()}>Try again</button></div></main>`
      : html`<p class="boot" role="status">Signing in…</p>`;
  }
  return html`${who === null ? html`<${SignIn} failure=${failure} />` : html`<${Shell} who=${who} />`}<${Toasts} />`;

  async function start() {
    const given = /^#key=(.+)$/.exec(location.hash);
    if (given) {
      // The key leaves the address, and with it the browser's history, before anything else happens.
      history.replaceState(null, '', '#/');
      try {
        await signIn(decodeURIComponent(given[1]));
      } catch (problem) {
        session.set(null);
        throw problem;
      }
    } else {
      await loadSession();
    }
  }
}

function Shell({ who }) {
  const where = route.use();
  const [title, content] = page(where);
  const main = useRef();
  const first = useRef(true);
  const { data: stats } = usePolled('/api/stats?samples=1', 5000);
  const address = where.parts.join('/');
  const open = stats?.incidents?.open;

  useEffect(() => {
    document.title = `${open ? `(${open}) ` : ''}${title} – OrderService`;
  }, [title, open]);

  // Before the next key or click, which already means the new page.
  useLayoutEffect(() => {
    if (first.current) {
      first.current = false;
      return;
    }
    const wanted = takeFocus();
    // Who goes back finds the row that was opened, where it was.
    const opened = where.back && [...main.current.querySelectorAll('a[data-row-link]')].find(one => one.getAttribute('href') === where.back.left);
    (opened || main.current.querySelector(wanted) || main.current).focus({ preventScroll: true });
    scrollTo(0, where.back?.y ?? 0);
  }, [address]);

  const items = places.map(place => ({ ...place, current: (where.parts[0] ?? '') === place.path, count: place.badge?.(stats) }));
  const skip = event => {
    event.preventDefault();
    main.current.focus();
  };
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <div class="shell">
      <nav class="side" aria-label="Pages">
        <a class="brand" href=${link('/')}><img src="icon.svg" alt="" width="28" height="28" /><span>OrderService</span></a>
        <ul>${items.map(item => html`<li key=${item.path}><a class="nav-link" href=${link(`/${item.path}`)} aria-current=${item.current ? 'page' : undefined}><${Icon} name=${item.icon} /><span>${item.text}</span>${item.count > 0 && html`<span class="badge">${item.count > 9999 ? '9999+' : count(item.count)}</span>`}</a></li>`)}</ul>
        <div class="side-foot"><span class="quiet">version ${build(stats?.service?.version ?? '–')}</span><a class="quiet" href=${at('/openapi/v1.json')} target="_blank" rel="noreferrer">API</a></div>
      </nav>
      <div class="body">
        <header class="top">
          <a class="brand top-brand" href=${link('/')}><img src="icon.svg" alt="" width="26" height="26" /><span>OrderService</span></a>
          <div class="top-tools">
            <${LiveSwitch} />
            <${ThemeSwitch} />
            <button type="button" class="icon-button" aria-label="Keyboard help" title="Keyboard (?)" onClick=${showHelp}><${Icon} name="help" /></button>
            <button type="button" class="who" popovertarget="account" aria-label=${`Signed in as ${who.name}`}><${Icon} name="person" /><span>${shown(who.name)}</span></button>
            <div id="account" class="popover" popover><p><strong>${shown(who.name)}</strong></p><p class="quiet">may ${who.scopes.join(', ') || 'nothing'}</p><p><a href=${link('/sessions')} onClick=${event => event.currentTarget.closest('[popover]').hidePopover()}>Signed-in browsers</a></p><button type="button" class="button wide-button" onClick=${() => signOut().catch(error => toast(error.message, 'bad'))}>Sign out</button></div>
          </div>
        </header>
        <${OutOfReach} />
        <main id="main" ref=${main} tabindex="-1">${content}</main>
      </div>
      <nav class="tabbar" aria-label="Pages (phone)">
        ${items.filter(item => ['', 'incidents', 'dead-letters', 'orders'].includes(item.path)).map(item => html`<a key=${item.path} href=${link(`/${item.path}`)} aria-current=${item.current ? 'page' : undefined}><${Icon} name=${item.icon} /><span>${item.path === 'dead-letters' ? 'Letters' : item.text}</span>${item.count > 0 && html`<span class="badge">${item.count > 99 ? '99+' : item.count}</span>`}</a>`)}
        <button type="button" popovertarget="more-pages"><${Icon} name="more" /><span>More</span></button>
        <div id="more-pages" class="popover sheet" popover>${items.filter(item => ['replays', 'queues', 'alerts', 'audit'].includes(item.path)).map(item => html`<a key=${item.path} class="nav-link" href=${link(`/${item.path}`)} onClick=${event => event.currentTarget.closest('[popover]').hidePopover()}><${Icon} name=${item.icon} /><span>${item.text}</span></a>`)}</div>
      </nav>
    </div>
    <${DialogPlace} />`;
}

/** Lies over the page, so that nothing moves while the service is away. */
function OutOfReach() {
  const since = outOfReach.use();
  return html`<div class="out-of-reach" role="status">${since && html`<p><${Icon} name="incidents" /><span><b>The service can’t be reached since ${clockTime(since)}.</b> What you see is the last that was read; the page keeps trying.</span></p>`}</div>`;
}

function LiveSwitch() {
  const stopped = paused.use();
  const stream = streamState.use();
  const away = outOfReach.use() !== null;
  const stale = staleSince.use();
  const state = stopped ? 'paused' : away || stream === 'connecting' ? 'connecting' : stale ? 'stale' : 'live';
  const [words, more] = {
    paused: ['Paused', 'Updates are paused. Resume'],
    connecting: ['Connecting', 'Updates come again when the service answers. Pause'],
    stale: [`As of ${clockTime(stale)}`, 'Not all that you see was renewed since; a dialog or marked text holds updates back. Pause'],
    live: ['Live', 'Updates come by themselves. Pause'],
  }[state];
  return html`<button type="button" class=${`live ${state}`} aria-pressed=${stopped ? 'true' : 'false'} aria-label=${`${words}: ${more}`} title="Pause or resume updates (.)" onClick=${() => paused.set(!stopped)}><i class="live-dot" aria-hidden="true"></i><span>${words}</span><${Icon} name=${stopped ? 'play' : 'pause'} /></button>`;
}

const place = document.getElementById('app');
place.textContent = '';
render(html`<${App} />`, place);
