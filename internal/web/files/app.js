// The frame around the views: header, navigation, keys, what is said when the node is away.
import {
	html, render, store, useStore, useState, useEffect, useLayoutEffect, useRef, clock, num, span, plural, bytes, stranger,
} from './lib.js';
import {
	tell, access, link, paths, loadAccess, loadPaths, openEvents, onRestart, refreshAll, retry, useApi, listen, mayWrite, keepToken, token,
} from './api.js';
import {
	Icon, Bird, Copy, Dialog, Toasts, SignIn, signIn, signOut, toast, themeChanged, Ago, 
} from './ui.js';
import { Overview } from './views/overview.js';
import { Peers } from './views/peers.js';
import { Blocks } from './views/blocks.js';
import { Explorer, look } from './views/explorer.js';
import { MempoolView } from './views/mempool.js';
import { Miner } from './views/miner.js';
import { Staking } from './views/staking.js';
import { Wallet } from './views/wallet.js';
import { Storage } from './views/storage.js';
import { Log } from './views/log.js';

/** name in the address, name on the page, key after g, view. */
const views = [
	['overview', 'Overview', 'o', Overview],
	['peers', 'Peers', 'p', Peers],
	['blocks', 'Blocks', 'b', Blocks],
	['explorer', 'Explorer', 'e', Explorer],
	['mempool', 'Mempool', 'm', MempoolView],
	['miner', 'Miner', 'i', Miner],
	['wallet', 'Wallet', 'w', Wallet],
	['storage', 'Storage', 's', Storage],
	['log', 'Log', 'l', Log],
];
const work = views[5];
const staking = ['miner', 'Staking', 'i', Staking];

// ---- where we are ----

const route = store(parse());
function parse() {
	const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
	const parts = path.split('/').map((p) => {
		try {
			return decodeURIComponent(p);
		} catch {
			return p;
		}
	});
	const known = views.some(([id]) => id === parts[0]);
	return { view: known ? parts[0] : 'overview', rest: known ? parts.slice(1) : [], query: new URLSearchParams(query) };
}
addEventListener('hashchange', () => route.set(parse()));

// ---- colours ----

const theme = store(document.documentElement.dataset.theme || 'auto');
function setTheme(t) {
	theme.set(t);
	if (t === 'auto') delete document.documentElement.dataset.theme;
	else document.documentElement.dataset.theme = t;
	try {
		localStorage.setItem('dunlin.theme', t);
	} catch {
		// Then it holds until the page is loaded again.
	}
	themeChanged.set(themeChanged.get() + 1);
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => themeChanged.set(themeChanged.get() + 1));
const nextTheme = { auto: 'light', light: 'dark', dark: 'auto' };
const themeIcon = { auto: 'auto', light: 'sun', dark: 'moon' };

function ThemeButton() {
	const t = useStore(theme);
	const label = { auto: 'Colours follow the system', light: 'Light colours', dark: 'Dark colours' }[t];
	return html`<button type="button" class="plain" aria-label=${label + ': change'} title=${label} onClick=${() => setTheme(nextTheme[t])}><${Icon} name=${themeIcon[t]} /></button>`;
}

// ---- header ----

const stateWords = { starting: 'Starting', connecting: 'Looking for peers', headers: 'Fetching headers', blocks: 'Downloading blocks', synced: 'Synced', stalled: 'Stalled' };
const stateKind = { starting: 'wait', connecting: 'wait', headers: 'busy', blocks: 'busy', synced: 'good', stalled: 'bad' };

function Search() {
	const [text, setText] = useState('');
	const [busy, setBusy] = useState(false);
	const submit = async (e) => {
		e.preventDefault();
		if (!text.trim() || busy) return;
		setBusy(true);
		if (await look(text)) setText('');
		setBusy(false);
	};
	return html`<form class="search" role="search" onSubmit=${submit}><${Icon} name="explorer" />
		<input id="search" type="search" aria-label="Search by height, hash, transaction or address" placeholder="Height, hash, transaction, address" autocomplete="off" spellcheck=${false}
			maxlength="128" value=${text} aria-busy=${busy ? 'true' : undefined} onInput=${(e) => setText(e.target.value)} onKeyDown=${(e) => e.key === 'Escape' && e.target.blur()} /><kbd aria-hidden="true">/</kbd></form>`;
}

/** The last blocks by the time in their headers; the right edge is now. */
function Tideline({ status }) {
	const recent = useApi('/chain/recent?limit=60', { on: ['tip'] });
	const now = useStore(clock);
	const blocks = recent.data?.blocks;
	if (!blocks?.length) return html`<div class="tide" aria-hidden="true"></div>`;
	const newest = [...blocks].sort((a, b) => b.height - a.height).filter((b) => b.height > 0);
	if (!newest.length) return html`<div class="tide" aria-hidden="true"></div>`;
	const times = newest.map((b) => +new Date(b.time));
	// The span holds some forty blocks, so that every network fills the line.
	const edge = Math.max(now, times[0]);
	const gaps = times.slice(0, 20).map((t, i) => t - (times[i + 1] ?? t)).sort((a, b) => a - b);
	const far = Math.max(30_000, gaps[gaps.length >> 1] * 40, (edge - times[0]) * 1.3);
	const most = Math.max(...newest.map((b) => b.weight), 4000);
	// The newest is drawn last, over those of the same second.
	return html`<svg class="tide" viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true">${newest.map((b, i) => {
		const x = 1000 - (1000 * (edge - times[i])) / far;
		if (x < -4) return null;
		const hgt = 4 + 15 * Math.sqrt(b.weight / most);
		return html`<rect key=${b.hash} class=${i === 0 ? 'newest' : ''} x=${x - 1.5} y=${20 - hgt} width="3" height=${hgt}></rect>`;
	}).reverse()}</svg>`;
}

function Join() {
	const join = useApi('/join', { every: 60_000 });
	if (!join.data?.command) return null;
	return html`<${Copy} text=${join.data.command} label=${'Copy the command that joins this network: ' + join.data.command}>Join command<//>`;
}

function Header({ status, menu }) {
	const l = useStore(link);
	const s = status.data;
	useStore(access);
	const state = !l.up ? 'away' : s?.sync.state || 'starting';
	const target = s ? Math.max(s.target_height, s.header_height) : 0;
	const behind = s && s.sync.state !== 'synced' && target > s.height;
	return html`<header class="top">
		<a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); document.getElementById('main').focus(); }}>Skip to the page</a>
		<div class="row">
			<button type="button" class="plain menu" aria-label="Views" aria-expanded=${menu.open ? 'true' : 'false'} onClick=${() => menu.set(!menu.open)}><${Icon} name="menu" /></button>
			<p class=${'state ' + (l.up ? stateKind[state] || 'wait' : 'bad')} id="state"><i aria-hidden="true"></i><b>${l.up ? stateWords[state] || state : 'Connection lost'}</b></p>
			<dl class="figures">
				<div><dt>Height</dt><dd class="figure" id="height">${num(s?.height)}${behind ? html`<span class="dim"> / ${num(target)}</span>` : null}</dd></div>
				${behind && html`<div><dt>Time left</dt><dd class="figure">${s.sync.eta_s === null ? 'not known yet' : span(s.sync.eta_s)}</dd></div>`}
				${!behind && s && html`<div class="p2"><dt>Last block</dt><dd class="figure"><${Ago} time=${s.tip_time} /></dd></div>`}
				<div><dt>Peers</dt><dd class="figure">${s ? num(s.peers.inbound + s.peers.outbound) : '—'}${s && html`<span class="dim p2"> ${s.peers.inbound} in, ${s.peers.outbound} out</span>`}</dd></div>
				<div><dt>Mempool</dt><dd class="figure">${num(s?.mempool.count)}${s && s.mempool.bytes > 0 && html`<span class="dim p2"> ${bytes(s.mempool.bytes)}</span>`}</dd></div>
				<div class="p2"><dt>Network</dt><dd class="chain" title=${s?.chain_id}>${s?.network || '—'}</dd></div>
			</dl>
			<${Search} />
			<div class="tools"><${Join} /><${ThemeButton} />
				<button type="button" class="plain p1" aria-label="Keys" title="Keys (?)" onClick=${() => help.set(true)}><${Icon} name="help" /></button>
				${mayWrite()
					? html`<button type="button" class="plain" disabled=${access.get()?.open} aria-label=${access.get()?.open ? 'This node takes changes without a token' : 'Sign out'} title=${access.get()?.open ? 'This node takes changes without a token' : 'Sign out'} onClick=${signOut}><${Icon} name="unlock" /></button>`
					: html`<button type="button" class="plain" aria-label="Sign in" title="Sign in" onClick=${() => signIn()}><${Icon} name="lock" /></button>`}
			</div>
		</div>
		<${Tideline} status=${s} />
		${behind && html`<div class="far" role="progressbar" aria-label="Blocks" aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.floor(s.sync.percent)}><svg viewBox="0 0 100 2" preserveAspectRatio="none" aria-hidden="true"><rect width=${s.sync.percent} height="2" /></svg></div>`}
		${!l.up && html`<${Away} link=${l} />`}
	</header>`;
}

function Away({ link: l }) {
	const now = useStore(clock);
	const in_ = Math.max(0, Math.ceil((l.retry - now) / 1000));
	return html`<div class="away" role="alert"><p><b>The node does not answer.</b> It was last heard ${span(Math.round((now - l.since) / 1000))} ago; what you see is from then. ${l.retry ? `Trying again in ${in_}\u00a0s.` : 'Trying now…'}</p>
		<button type="button" onClick=${retry}>Try now</button></div>`;
}

// ---- keys ----

const help = store(false);
function Help() {
	if (!useStore(help)) return null;
	return html`<${Dialog} title="Keys" close=${() => help.set(false)} cls="narrow"><dl class="keys">
		${views.map(([id, name, key]) => html`<div key=${id}><dt><kbd>g</kbd> <kbd>${key}</kbd></dt><dd>${name}</dd></div>`)}
		<div><dt><kbd>/</kbd></dt><dd>Search</dd></div><div><dt><kbd>t</kbd></dt><dd>Light, dark, as the system has it</dd></div>
		<div><dt><kbd>?</kbd></dt><dd>This list</dd></div><div><dt><kbd>Esc</kbd></dt><dd>Close, or leave a field</dd></div></dl><//>`;
}

let gone = 0; // when g was pressed
addEventListener('keydown', (e) => {
	if (e.ctrlKey || e.metaKey || e.altKey || e.isComposing) return;
	if (e.target.closest?.('input, textarea, select, [contenteditable]') || document.querySelector('dialog[open]')) return;
	if (e.key === '/') {
		e.preventDefault();
		document.getElementById('search')?.focus();
	} else if (e.key === '?') help.set(true);
	else if (e.key === 't') setTheme(nextTheme[theme.get()]);
	else if (e.key === 'g') gone = Date.now();
	else if (Date.now() - gone < 1500) {
		const v = views.find(([, , key]) => key === e.key);
		gone = 0;
		if (v) {
			e.preventDefault();
			location.hash = '#/' + v[0];
		}
	}
});

// ---- the page ----

function Nav({ view, menu }) {
	return html`<nav class=${'side' + (menu.open ? ' open' : '')} aria-label="Views">
		<a class="brand" href="#/overview"><${Bird} /><span>dunlin</span></a>
		<ul>${views.map(([id, name, key]) => html`<li key=${id}><a href=${'#/' + id} aria-current=${id === view ? 'page' : undefined} onClick=${() => menu.set(false)}><${Icon} name=${id} /><span>${name}</span><kbd aria-hidden="true">g ${key}</kbd></a></li>`)}</ul>
	</nav>`;
}

function App() {
	const r = useStore(route);
	const l = useStore(link);
	useStore(paths);
	const a = useStore(access);
	const [open, set] = useState(false);
	const menu = { open, set };
	const status = useApi(a && (a.reads || a.open || a.authorised) ? '/status' : null, { every: 1000, on: ['block', 'reorg', 'peer'] });
	if (status.data) views[5] = status.data.slots ? staking : work;
	const main = useRef(null);
	useEffect(() => tell('tip'), [status.data?.tip_hash]);
	const [, name, , View] = views.find(([id]) => id === r.view);
	useEffect(() => {
		document.title = `${name} · dunlin`;
		scrollTo(0, 0);
	}, [name]);
	// Who reads with a screen reader is taken to the new view.
	const before = useRef(r.view);
	useLayoutEffect(() => {
		if (before.current !== r.view) main.current?.focus({ preventScroll: true });
		before.current = r.view;
	}, [r.view]);
	const shut = a && !a.open && !a.reads && !a.authorised;
	return html`<${Header} status=${status} menu=${menu} /><${Nav} view=${r.view} menu=${menu} />
		<main id="main" tabindex="-1" ref=${main} class=${l.up ? '' : 'old'}>
			${shut
				? html`<div class="view"><h1>dunlin</h1><p class="lead">From elsewhere than its own machine, this node shows itself to those with its token only.</p><p><button type="button" class="primary" onClick=${() => signIn()}>Sign in</button></p></div>`
				: !a || !paths.get()
					? html`<p class="boot">${l.up ? 'Asking the node…' : ''}</p>`
					: html`<div class="view" key=${r.view}><h1>${name}</h1><${View} status=${status.data} rest=${r.rest} query=${r.query} /></div>`}
		</main>
		<footer class="foot"><p class="dim">${status.data ? html`<span class="agent">${stranger(status.data.agent)}</span> up ${span(status.data.uptime_s)}` : null}</p></footer>
		<${Toasts} /><${Help} /><${SignIn} />`;
}

/** What has to be known before anything is shown; asked until it is there. */
let opening = false;
async function open() {
	opening = true;
	for (let pause = 300; ; pause = Math.min(pause * 2, 4000)) {
		try {
			const a = await loadAccess();
			if (a.open || a.reads || a.authorised) await loadPaths();
			openEvents();
			opening = false;
			return;
		} catch (e) {
			if (e.status !== 0 && e.status !== 503) toast(e.message, 'bad');
			await new Promise((done) => setTimeout(done, pause));
		}
	}
}

// A node that was started anew has a new token, and may be another version.
let knownAgent = '';
onRestart(() => {
	if (token.get()) {
		keepToken('');
		toast('The node has been started anew and has a new token: sign in again to change things.');
	}
	paths.set(null);
	open().then(refreshAll);
});
// Who signs in from elsewhere is shown the rest then.
access.follow((a) => a && (a.open || a.reads || a.authorised) && !opening && !paths.get() && loadPaths().then(openEvents).catch(() => {}));
listen('reorg', (e) => toast(`The chain was reorganised: ${plural(e.depth, 'block')} left, new height ${num(e.new_height)}.`));

const root = document.getElementById('app');
root.replaceChildren();
render(html`<${App} />`, root);
open();
