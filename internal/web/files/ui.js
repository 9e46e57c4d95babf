// The parts that the views are made of.
import {
	html, store, useStore, useState, useEffect, useLayoutEffect, useRef, useId, useMemo,
	clock, ago, when, coins, clipId, stranger, num,
} from './lib.js';
import { access, token, keepToken, probe, loadAccess, openEvents, mayWrite, Fault } from './api.js';
import uPlot from './vendor/uplot.js';

// ---- icons, 16 by 16, drawn with one stroke ----

const shapes = {
	overview: 'M2 9.5h2.5l2-5.5 3 9 2-5.5H14',
	peers: 'M8 5.5a1.7 1.7 0 1 0 0-3.4 1.7 1.7 0 0 0 0 3.4ZM3.4 13.9a1.7 1.7 0 1 0 0-3.4 1.7 1.7 0 0 0 0 3.4ZM12.6 13.9a1.7 1.7 0 1 0 0-3.4 1.7 1.7 0 0 0 0 3.4ZM7.2 5.4 4.2 10.5M8.8 5.4l3 5.1M5.2 12.2h5.6',
	blocks: 'M2 5.5h4v5H2zM10 5.5h4v5h-4zM6 8h4',
	explorer: 'M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9ZM10.3 10.3 14 14',
	mempool: 'M2.5 13.5V9M6.2 13.5V4M9.8 13.5V7M13.5 13.5V11',
	miner: 'M3 13 9 7M6 3.5c3-1.5 6 .2 7 5M9.5 2.8 13.2 6.5',
	wallet: 'M2.5 4.5h10a1 1 0 0 1 1 1v7h-11zM2.5 4.5l8-2v2M10.5 8.5h3',
	storage: 'M8 6c3 0 5-.8 5-1.9S11 2.2 8 2.2 3 3 3 4.1 5 6 8 6ZM3 4.1v7.8c0 1.1 2 1.9 5 1.9s5-.8 5-1.9V4.1M3 8c0 1.1 2 1.9 5 1.9S13 9.1 13 8',
	log: 'M2.5 4h11M2.5 8h8M2.5 12h9.5',
	copy: 'M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z',
	check: 'M3 8.5l3.2 3.2L13 4.8',
	sun: 'M8 10.8a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.6ZM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M3.4 12.6l.9-.9M11.7 4.3l.9-.9',
	moon: 'M13.2 9.7A5.7 5.7 0 0 1 6.3 2.8a5.7 5.7 0 1 0 6.9 6.9Z',
	auto: 'M8 13.7A5.7 5.7 0 1 0 8 2.3a5.7 5.7 0 0 0 0 11.4ZM8 2.3v11.4M8 5h3.7M8 8h5.5M8 11h3.7',
	lock: 'M3.5 7.5h9v6h-9zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5',
	unlock: 'M3.5 7.5h9v6h-9zM5.5 7.5V5a2.5 2.5 0 0 1 4.8-1',
	close: 'M4 4l8 8M12 4l-8 8',
	more: 'M3 8h.01M8 8h.01M13 8h.01',
	right: 'M6 3.5 10.5 8 6 12.5',
	left: 'M10 3.5 5.5 8 10 12.5',
	pause: 'M5.5 3.5v9M10.5 3.5v9',
	play: 'M5 3.2v9.6L12.5 8z',
	into: 'M8 2.5v8M4.5 7.5 8 11l3.5-3.5M3 13.5h10',
	out: 'M8 11V3M4.5 6.5 8 3l3.5 3.5M3 13.5h10',
	warn: 'M8 2.5 14 13H2zM8 6.5v3M8 11.3h.01',
	help: 'M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12ZM6.3 6.3a1.8 1.8 0 1 1 2.4 1.9c-.5.2-.7.5-.7 1.1M8 11.5h.01',
	menu: 'M2.5 4.5h11M2.5 8h11M2.5 11.5h11',
};
export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${shapes[name]} /></svg>`;

export const Bird = () => html`<svg class="bird" viewBox="3 9 26 19" aria-hidden="true">
	<path class="back" d="M3.5 15.8c3.6-.2 6.2-.9 8-2.6 1.3-2.3 3.6-3.4 5.8-2.8 1.7.5 2.7 1.7 3.4 3.1l7.8 4.7c-2.6.5-4.7 2.7-7.9 4-3.4 1.3-7.3.9-9.5-1.6-1.2-1.3-1.6-2.8-1.5-4.1-2 .1-4.2-.1-6.1-.7z" />
	<path class="belly" d="M13.2 19.2c2.4 1.3 5.3 1.1 7.5-.3-.6 2.2-2.5 3.3-4.5 3.1-1.6-.2-2.7-1.3-3-2.8z" />
	<path class="legs" d="M16 22.5v4.5M18.8 22v5" /></svg>`;

// ---- text ----

export async function copyText(text) {
	try {
		await navigator.clipboard.writeText(text);
		return true;
	} catch {
		// Off loopback without TLS there is no clipboard interface: the old way.
		const t = document.createElement('textarea');
		t.value = text;
		t.className = 'unseen';
		(document.querySelector('dialog[open]') || document.body).append(t);
		t.select();
		const ok = document.execCommand('copy');
		t.remove();
		return ok;
	}
}

/** A button that copies text and says so. */
export function Copy({ text, label = 'Copy', children }) {
	const [done, setDone] = useState(false);
	useEffect(() => {
		if (!done) return undefined;
		const t = setTimeout(() => setDone(false), 1400);
		return () => clearTimeout(t);
	}, [done]);
	const click = async (e) => {
		e.preventDefault();
		e.stopPropagation();
		if (await copyText(text)) setDone(true);
		else toast('Copying is not allowed here. Select the text instead.', 'bad');
	};
	return html`<button type="button" class=${'copy' + (children ? ' wide' : '') + (done ? ' done' : '')} onClick=${click}
		aria-label=${done ? 'Copied' : label} title=${label}><${Icon} name=${done ? 'check' : 'copy'} />${children ? html`<span>${done ? 'Copied' : children}</span>` : null}</button>`;
}

/** A long id, cut in the middle, with its copy button and where it leads. */
export function Id({ id, to, what = 'id', head = 8, tail = 6, copy = true }) {
	if (!id) return none();
	const text = clipId(id, head, tail);
	return html`<span class="id">${to ? html`<a class="mono" href=${to} title=${id}>${text}</a>` : html`<span class="mono" title=${id}>${text}</span>`}${
		copy && html`<${Copy} text=${id} label=${'Copy ' + what} />`}</span>`;
}
/** A whole id that may be broken over lines. */
export const WholeId = ({ id, what = 'id', to }) => (id
	? html`<span class="id whole">${to ? html`<a class="mono" href=${to}>${id}</a>` : html`<span class="mono">${id}</span>`}<${Copy} text=${id} label=${'Copy ' + what} /></span>`
	: none());

export const blockLink = (id) => '#/explorer/block/' + encodeURIComponent(id);
export const txLink = (id) => '#/explorer/tx/' + encodeURIComponent(id);
export const addressLink = (a) => '#/explorer/address/' + encodeURIComponent(a);
/** An amount, how long ago, what matters less, a figure, the number of a block, an address, a transaction: each as a link where there is something to see. */
export const money = (sat) => html`<${Coins} sat=${sat} />`;
export const since = (time) => html`<${Ago} time=${time} />`;
export const dim = (x) => html`<span class="dim">${x}</span>`;
const none = () => dim('—');
export const fig = (x) => html`<span class="figure">${x}</span>`;
export const blockNo = (b) => html`<a class="figure" href=${blockLink(b.hash)}>${num(b.height)}</a>`;
export const addr = (a, head = 10, tail = 8) => html`<${Id} id=${a} to=${addressLink(a)} head=${head} tail=${tail} what="address" />`;
export const txId = (id) => html`<${Id} id=${id} to=${txLink(id)} what="transaction id" />`;

export function Ago({ time }) {
	const now = useStore(clock);
	const d = new Date(time);
	if (Number.isNaN(+d) || d.getFullYear() < 2) return none();
	return html`<time dateTime=${d.toISOString()} title=${when(d)}>${ago(d, now)}</time>`;
}

/** An amount of satoshi in coins. Zeros at its end keep their room in columns only, so that points stand under points. */
export function Coins({ sat, sign = false }) {
	if (sat == null) return none();
	const text = coins(sat);
	const m = /^(.*?\.\d\d(?:\d*[1-9])?)(0*)$/.exec(text);
	const plus = sign && sat > 0 ? '+' : '';
	return html`<span class=${'coins' + (sign ? (sat > 0 ? ' plus' : sat < 0 ? ' minus' : '') : '')}>${plus}${m ? m[1] : text}<span class="zeros">${m ? m[2] : ''}</span></span>`;
}

/** What a stranger wrote, as text and apart from ours. */
export const Stranger = ({ text, most = 80, empty = '—' }) => (text
	? html`<bdi class="stranger" title=${stranger(text, 400)}>${stranger(text, most)}</bdi>`
	: dim(empty));

export const Tag = ({ kind = '', children, title }) => html`<span class=${'tag ' + kind} title=${title}>${children}</span>`;

// ---- areas ----

export function Section({ title, note, actions, children, cls = '', id }) {
	const own = useId();
	return html`<section class=${'section ' + cls} aria-labelledby=${id || own}>
		<header><h2 id=${id || own}>${title}</h2>${note && html`<p class="note">${note}</p>`}${actions && html`<div class="actions">${actions}</div>`}</header>
		${children}</section>`;
}

export const Facts = ({ rows, cls = '' }) => html`<dl class=${'facts ' + cls}>${rows.filter(Boolean).map(([k, v, title]) => html`<div key=${k}><dt title=${title}>${k}</dt><dd>${v}</dd></div>`)}</dl>`;

export const Empty = ({ title, children }) => html`<div class="empty"><p class="lead">${title}</p>${children && html`<div class="why">${children}</div>`}</div>`;
export const Waiting = ({ rows = 3 }) => html`<div class="waiting" role="status" aria-label="Loading">${Array.from({ length: rows }, (_, i) => html`<div key=${i} class=${'bone b' + (i % 4)}></div>`)}</div>`;

/** What went wrong, and what to do about it. */
export function FaultNote({ error, retry }) {
	if (!error) return null;
	const text = error.status === 401 ? 'This needs the token of the node.' : error.message;
	return html`<div class="fault" role="alert"><${Icon} name="warn" /><p>${stranger(text, 600)}</p>
		${error.status === 401 ? html`<button type="button" onClick=${() => signIn()}>Sign in</button>` : retry && html`<button type="button" onClick=${retry}>Try again</button>`}</div>`;
}

/** The usual order: what is there; otherwise why not; otherwise that it is on its way. */
export function Answer({ of, rows, children }) {
	if (of.data !== undefined) return children(of.data);
	if (of.error && of.error.status !== 0) return html`<${FaultNote} error=${of.error} retry=${of.refresh} />`;
	return html`<${Waiting} rows=${rows} />`;
}

/** Said where this node's version has no such route. */
export const Missing = ({ what, route }) => html`<${Empty} title=${`This node does not tell about ${what}.`}>It has no route <code>${route}</code>: a later version of dunlin does.<//>`;

// ---- tables ----

/**
 * @param {{cols: {key: string, name: any, get?: (row: any) => any, show: (row: any) => any, cls?: string, title?: string}[], rows: any[],
 *   id: (row: any) => string, label: string, sort?: string, open?: (row: any) => void}} p
 *   A column with get can be sorted by; sort is "key" or "-key" (descending).
 */
export function Table({ cols, rows, id, label, sort: initial = '', rowClass }) {
	const [sort, setSort] = useState(initial);
	const key = sort.replace('-', '');
	const col = cols.find((c) => c.key === key);
	const sorted = useMemo(() => {
		if (!col?.get) return rows;
		const dir = sort.startsWith('-') ? -1 : 1;
		return [...rows].sort((a, b) => {
			const x = col.get(a);
			const y = col.get(b);
			const order = typeof x === 'string' || typeof y === 'string' ? String(x).localeCompare(String(y)) : (x ?? -Infinity) - (y ?? -Infinity);
			return (order || (id(a) < id(b) ? -1 : 1)) * dir;
		});
	}, [rows, sort, col]);
	const flip = (c) => setSort(key === c.key && !sort.startsWith('-') ? '-' + c.key : c.key);
	return html`<div class="tablebox" role="region" aria-label=${label} tabindex="0"><table>
		<thead><tr>${cols.map((c) => html`<th key=${c.key} scope="col" class=${c.cls || ''} title=${c.title}
			aria-sort=${!c.get ? undefined : key === c.key ? (sort.startsWith('-') ? 'descending' : 'ascending') : 'none'}>${
			c.get ? html`<button type="button" onClick=${() => flip(c)}>${c.name}<span class="arrow" aria-hidden="true">${key === c.key ? (sort.startsWith('-') ? '↓' : '↑') : ''}</span></button>` : c.name}</th>`)}</tr></thead>
		<tbody>${sorted.map((r) => html`<tr key=${id(r)} class=${rowClass?.(r) || ''}>${cols.map((c) => html`<td key=${c.key} class=${c.cls || ''} data-name=${typeof c.name === 'string' ? c.name : ''}>${c.show(r)}</td>`)}</tr>`)}</tbody>
	</table></div>`;
}

export const More = ({ pages }) => html`${pages.fault && html`<${FaultNote} error=${pages.fault} retry=${pages.load} />`}${pages.next && html`<p class="more"><button type="button" disabled=${pages.busy} onClick=${pages.load}>${pages.busy ? 'Loading…' : 'Show more'}</button></p>`}`;

// ---- messages ----

const toasts = store([]);
let toastId = 0;
/** Says something for a few seconds. kind: "", "good", "bad". */
export function toast(text, kind = '') {
	const t = { id: ++toastId, text: stranger(text, 400), kind };
	toasts.set([...toasts.get().slice(-3), t]);
	setTimeout(() => toasts.set(toasts.get().filter((x) => x !== t)), kind === 'bad' ? 9000 : 4500);
}
export const Toasts = () => html`<div class="toasts" role="status" aria-live="polite">${useStore(toasts).map((t) => html`<div key=${t.id} class=${'toast ' + t.kind}>
	<span>${t.text}</span><button type="button" class="plain" aria-label="Dismiss" onClick=${() => toasts.set(toasts.get().filter((x) => x !== t))}><${Icon} name="close" /></button></div>`)}</div>`;

/** Does something that may be refused and says how it went. */
export async function attempt(what, f) {
	try {
		if (!(await signedIn())) return null;
		const v = await f();
		if (what) toast(what, 'good');
		return v ?? true;
	} catch (e) {
		if (e.status === 401) {
			toast('The node does not take this token any more. Sign in again.', 'bad');
			keepToken('');
			signIn();
		} else toast(e instanceof Fault ? e.message : String(e), 'bad');
		return null;
	}
}

// ---- dialogs ----

/** A modal dialog: the browser keeps the focus in it and gives it back. */
export function Dialog({ title, close, children, cls = '' }) {
	const box = useRef(null);
	const id = useId();
	useLayoutEffect(() => {
		const d = box.current;
		d.showModal();
		return () => d.open && d.close();
	}, []);
	return html`<dialog ref=${box} class=${cls} aria-labelledby=${id} onCancel=${(e) => { e.preventDefault(); close(); }}
		onClick=${(e) => e.target === box.current && close()}>
		<div class="sheet"><header><h2 id=${id}>${title}</h2><button type="button" class="plain" aria-label="Close" onClick=${close}><${Icon} name="close" /></button></header>${children}</div></dialog>`;
}

/** A labelled field of a form. */
export function Field({ label, hint, error, children, cls = '' }) {
	const id = useId();
	return html`<div class=${'field ' + cls}><label for=${id}>${label}</label>${children({ id, 'aria-describedby': hint || error ? id + 'h' : undefined, 'aria-invalid': error ? 'true' : undefined })}${
		(hint || error) && html`<p id=${id + 'h'} class=${error ? 'wrong' : 'hint'}>${error || hint}</p>`}</div>`;
}

const asking = store(null);
/** Asks for the token. Resolves to whether it was given. */
export function signIn() {
	return asking.get()?.promise || (() => {
		let done;
		const promise = new Promise((f) => { done = f; });
		asking.set({ promise, done });
		return promise;
	})();
}
/** Makes sure that the node lets us write, asking for the token if it must. */
export const signedIn = async () => mayWrite() || signIn();

export function signOut() {
	keepToken('');
	loadAccess().catch(() => {});
	openEvents();
	toast('Signed out. The token is forgotten.');
}

export function SignIn() {
	const a = useStore(asking);
	const [value, setValue] = useState('');
	const [wrong, setWrong] = useState('');
	const [busy, setBusy] = useState(false);
	if (!a) return null;
	const end = (ok) => {
		setValue('');
		setWrong('');
		asking.set(null);
		a.done(ok);
	};
	const submit = async (e) => {
		e.preventDefault();
		const t = value.trim();
		if (!t || busy) return;
		// A header cannot carry anything else, and a token never does.
		if (!/^[\x21-\x7e]{1,512}$/.test(t)) {
			setWrong('This is not the content of api.cookie.');
			return;
		}
		setBusy(true);
		try {
			const v = await probe(t);
			if (!v.authorised) setWrong('The node does not know this token. It makes a new one at each start.');
			else {
				keepToken(t);
				access.set(v);
				openEvents();
				end(true);
			}
		} catch (err) {
			setWrong(err.status === 401 ? 'The node does not know this token. It makes a new one at each start.' : err.message);
		}
		setBusy(false);
	};
	return html`<${Dialog} title="Sign in" close=${() => end(false)} cls="narrow">
		<form onSubmit=${submit}>
			<p>Changing the node and reading its wallet need its token. It is in the file <code>api.cookie</code> of the node’s home; this prints it:</p>
			<p class="command"><code>cat ~/.local/share/dunlin/*/api.cookie</code></p>
			<${Field} label="Token" error=${wrong} hint="Kept in this tab until it is closed, and sent to this node only.">${(p) => html`<input ...${p} type="password" autocomplete="off" spellcheck=${false} autofocus value=${value} onInput=${(e) => { setValue(e.target.value); setWrong(''); }} />`}<//>
			<div class="buttons"><button type="button" onClick=${() => end(false)}>Cancel</button><button type="submit" class="primary" disabled=${busy || !value.trim()}>${busy ? 'Asking…' : 'Sign in'}</button></div>
		</form><//>`;
}

/** What only somebody with the token may see. */
export function Guarded({ what, children }) {
	useStore(access);
	useStore(token);
	if (mayWrite()) return children;
	return html`<${Empty} title=${`Sign in to see ${what}.`}><p>It needs the node’s token, from the file <code>api.cookie</code> in its home.</p>
		<p><button type="button" class="primary" onClick=${() => signIn()}>Sign in</button></p><//>`;
}

// ---- charts ----

export const themeChanged = store(0);
/** A colour of the style sheet as the present theme has it, for what is drawn on a canvas. */
function colour(name, box) {
	box.className = 'plot ' + name + 'ink';
	const c = getComputedStyle(box).color;
	box.className = 'plot';
	return c;
}
const faint = (rgb) => rgb.replace('rgb(', 'rgba(').replace(')', ', 0.12)');

/**
 * Lines over time.
 * @param {{label: string, times: number[], series: {name: string, colour: string, values: (number|null)[], fill?: boolean, steps?: boolean}[], show: (n: number) => string, height?: number, sync?: string}} p
 *   times in Unix seconds; a null is a gap.
 */
export function Chart({ label, times, series, show, height = 120, sync, least = 1 }) {
	const box = useRef(null);
	const plot = useRef(null);
	const theme = useStore(themeChanged);
	const shape = series.map((s) => s.name + s.colour).join();
	const range = useRef(least);
	useLayoutEffect(() => {
		const muted = colour('muted', box.current);
		const line = colour('line', box.current);
		const axis = { stroke: muted, font: '11px "Atkinson Next", system-ui, sans-serif', ticks: { show: false }, grid: { stroke: line, width: 1 } };
		const u = new uPlot({
			width: box.current.clientWidth || 300, height,
			padding: [8, 18, 0, 0],
			legend: { show: false },
			cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false }, sync: sync ? { key: sync } : undefined },
			scales: { x: { time: true }, y: { range: (_, __, max) => [0, Math.max(range.current, (max || 0) * 1.12)] } },
			axes: [
				{ ...axis, grid: { show: false }, size: 22, space: 80, values: (_, ts) => ts.map((t) => when(t * 1000).slice(11, ts.at(-1) - ts[0] < 240 ? 19 : 16)) },
				{ ...axis, size: 62, space: 34, values: (_, vs) => vs.map(show) },
			],
			series: [{}, ...series.map((s) => ({
				label: s.name, stroke: colour(s.colour, box.current), width: 1.5, points: { show: false }, spanGaps: false,
				fill: s.fill === false ? undefined : faint(colour(s.colour, box.current)),
				paths: s.steps ? uPlot.paths.stepped({ align: 1 }) : undefined,
			}))],
		}, [times, ...series.map((s) => s.values)], box.current);
		plot.current = u;
		const size = new ResizeObserver(() => box.current && u.setSize({ width: box.current.clientWidth, height }));
		size.observe(box.current);
		return () => {
			size.disconnect();
			u.destroy();
			plot.current = null;
		};
	}, [theme, shape, height]);
	useLayoutEffect(() => plot.current?.setData([times, ...series.map((s) => s.values)]), [times, series]);
	const last = series.map((s) => [s, s.values.findLast((v) => v !== null)]);
	return html`<figure class="chart"><figcaption><span>${label}</span>${last.map(([s, v]) => html`<span key=${s.name} class="key"><i class=${'swatch ' + s.colour}></i>${s.name} <b>${v === undefined ? '—' : show(v)}</b></span>`)}</figcaption>
		<div ref=${box} class="plot" role="img" aria-label=${`${label}: ${last.map(([s, v]) => `${s.name} ${v === undefined ? 'unknown' : show(v)}`).join(', ')}`}></div></figure>`;
}

export const Track = ({ value, top, kind = '' }) => html`<svg class="track" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="all" width="100" height="6" /><rect class=${'part ' + kind} width=${Math.min(100, (100 * value) / top)} height="6" /></svg>`;

/** Bars with names: each a row that says its number too. */
export function Bars({ rows, most, label }) {
	const top = most || Math.max(1, ...rows.map((r) => r.value));
	return html`<ul class="bars" aria-label=${label}>${rows.map((r) => html`<li key=${r.key || r.name}><span class="name">${r.name}</span>
		<${Track} value=${r.value} top=${top} kind=${r.kind} />
		<span class="count">${r.text ?? num(r.value)}</span></li>`)}</ul>`;
}

/** Upright bars: a histogram. */
export function Columns({ rows, label, height = 120 }) {
	const top = Math.max(1, ...rows.map((r) => r.value));
	const w = 100 / Math.max(rows.length, 1);
	return html`<div class="columns"><svg viewBox=${`0 0 100 ${height}`} preserveAspectRatio="none" class="cols" role="img" aria-label=${label}>
		<line x1="0" x2="100" y1=${height - 0.5} y2=${height - 0.5} class="base" />
		${rows.map((r, i) => html`<rect key=${i} class=${'part ' + (r.kind || '')} x=${i * w + w * 0.1} width=${w * 0.8} y=${height - Math.max(r.value ? 2 : 0, (height - 4) * (r.value / top))} height=${Math.max(r.value ? 2 : 0, (height - 4) * (r.value / top))}><title>${r.title}</title></rect>`)}
	</svg><div class="under" aria-hidden="true">${rows.map((r, i) => html`<span key=${i}>${r.name}</span>`)}</div></div>`;
}

/** How much of a whole is done, as a line. */
export const Progress = ({ value, label, kind = '' }) => html`<div class=${'progress ' + kind} role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(value)}>
	<svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect class="all" width="100" height="4" /><rect class="part" width=${Math.max(0, Math.min(100, value))} height="4" /></svg></div>`;

export const Toggle = ({ on, label, change, disabled }) => html`<button type="button" role="switch" class="toggle" aria-checked=${on ? 'true' : 'false'} disabled=${disabled} onClick=${() => change(!on)}><i></i><span>${label}</span></button>`;

/** One of a few. */
export const Choice = ({ label, value, of, change }) => html`<div class="choice" role="group" aria-label=${label}>${of.map(([v, name]) => html`<button type="button" key=${v} aria-pressed=${v === value ? 'true' : 'false'} onClick=${() => change(v)}>${name}</button>`)}</div>`;
