// The one place that talks to the node: requests, the token, events, and whether the
// node is there at all.
import { store, useState, useEffect, useRef } from './lib.js';

/** A refusal by the node, in its words. */
export class Fault extends Error {
	/** @param {number} status 0 if the node did not answer @param {string} text */
	constructor(status, text) {
		super(text);
		this.status = status;
	}
}

const tokenKey = 'dunlin.token';
const kept = (() => {
	try {
		return sessionStorage.getItem(tokenKey) || '';
	} catch {
		return '';
	}
})();

/** The token, in this tab only: it is in no URL, no cookie and nothing that outlives the tab. */
export const token = store(kept);
/** What the server lets us do: null until it has said so. */
export const access = store(/** @type {null|{open: boolean, authorised: boolean, reads: boolean}} */ (null));
/** Whether the node answers. since: when it last did. retry: when it is asked next. */
export const link = store({ up: true, starting: false, since: Date.now(), retry: 0 });
/** Paths that the node has, from its OpenAPI document; null until it is read. */
export const paths = store(/** @type {null|Set<string>} */ (null));

export const mayWrite = () => !!access.get() && (access.get().open || access.get().authorised);

export function keepToken(value) {
	token.set(value);
	try {
		if (value) sessionStorage.setItem(tokenKey, value);
		else sessionStorage.removeItem(tokenKey);
	} catch {
		// Without storage the token lives as long as the page.
	}
}

let instance = '';
let restarted = () => {};
/** f is called when another process of the node answers than before. */
export const onRestart = (f) => (restarted = f);

/** @returns {Promise<any>} the answer; a Fault otherwise */
async function call(method, path, body, signal) {
	const headers = {};
	if (body !== undefined) headers['Content-Type'] = 'application/json';
	if (token.get()) headers.Authorization = 'Bearer ' + token.get();
	const slow = AbortSignal.timeout(method === 'GET' ? 20_000 : 90_000);
	let r;
	let text;
	try {
		r = await fetch(path, {
			method, headers, body: body === undefined ? undefined : JSON.stringify(body),
			signal: signal ? AbortSignal.any([signal, slow]) : slow, cache: 'no-store', credentials: 'omit', redirect: 'error',
		});
		text = await r.text();
	} catch (e) {
		if (signal?.aborted) throw e;
		lost();
		throw new Fault(0, 'the node does not answer');
	}
	const other = r.headers.get('Dunlin-Instance') || '';
	found();
	if (instance && other && other !== instance) queueMicrotask(restarted);
	instance = other || instance;
	let v = null;
	try {
		v = text ? JSON.parse(text) : null;
	} catch {
		v = null;
	}
	if (!r.ok) {
		if (r.status === 401 && token.get()) access.set({ ...access.get(), authorised: false });
		const more = (v?.errors || []).map((e) => [e.location, e.message].filter(Boolean).join(': ')).join('; ');
		const text = v?.detail || v?.message || `${r.status} ${r.statusText}`;
		throw new Fault(r.status, more ? `${text}: ${more}` : text);
	}
	return v;
}

export const get = (path, signal) => call('GET', '/api/v1' + path, undefined, signal);
export const send = (method, path, body) => call(method, '/api/v1' + path, body);

/** Asks what a token is good for. It is not kept. */
export async function probe(value) {
	const was = token.get();
	token.set(value);
	try {
		return await get('/access');
	} finally {
		token.set(was);
	}
}

export async function loadAccess() {
	const a = await get('/access');
	access.set(a);
	if (!a.authorised && token.get()) keepToken('');
	return a;
}

/** Reads which routes the node has. */
export async function loadPaths() {
	const doc = await call('GET', '/api/v1/openapi.json');
	paths.set(new Set(Object.keys(doc.paths || {}).map((p) => p.replace(/^\/api\/v1/, ''))));
}
/** Whether the node has a route, as its OpenAPI document writes it. */
export const has = (path) => !!paths.get()?.has(path);

// ---- is the node there ----

let wait = 0;
let timer = 0;

function lost() {
	const l = link.get();
	if (l.up) {
		wait = 500;
		link.set({ ...l, up: false, retry: Date.now() + wait });
		timer = setTimeout(retry, wait);
	}
}

function found() {
	const l = link.get();
	clearTimeout(timer);
	link.set({ up: true, starting: false, since: Date.now(), retry: 0 });
	if (!l.up) for (const r of cache.values()) if (r.users.size) r.refresh();
}

/** Asks whether the node is back. */
export async function retry() {
	clearTimeout(timer);
	link.set({ ...link.get(), retry: 0 });
	try {
		const r = await fetch('/livez', { cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(4000) });
		if (r.ok) {
			found();
			return;
		}
	} catch {
		// Still gone.
	}
	wait = Math.min(wait * 2 || 500, 8000);
	link.set({ ...link.get(), up: false, retry: Date.now() + wait });
	timer = setTimeout(retry, wait);
}

// ---- what is shown: answers that are asked for again ----

const maxCached = 80;
/** @type {Map<string, Resource>} */
const cache = new Map();

class Resource {
	constructor(path) {
		this.path = path;
		this.state = store({ data: undefined, error: null, loading: true, at: 0 });
		this.users = new Set();
		this.busy = null;
		this.timer = 0;
		this.nudged = 0;
	}

	get every() {
		let least = Infinity;
		for (const u of this.users) least = Math.min(least, u.every || Infinity);
		return least;
	}

	use(user) {
		this.users.add(user);
		if (!this.busy && Date.now() - this.state.get().at > 300) this.refresh();
		else this.plan();
		return () => {
			this.users.delete(user);
			if (this.users.size === 0) clearTimeout(this.timer);
		};
	}

	plan() {
		clearTimeout(this.timer);
		if (this.every === Infinity || this.users.size === 0) return;
		this.timer = setTimeout(() => {
			if (document.hidden || !link.get().up) this.plan();
			else this.refresh();
		}, document.hidden ? 5000 : this.every);
	}

	/** Something happened that this answer may show. */
	nudge() {
		clearTimeout(this.nudged);
		this.nudged = setTimeout(() => this.users.size && this.refresh(), 60);
	}

	async refresh() {
		if (this.busy) {
			this.again = true;
			return this.busy;
		}
		this.busy = this.ask();
		await this.busy;
		this.busy = null;
		if (this.again) {
			this.again = false;
			this.nudge();
		}
		this.plan();
	}

	async ask() {
		const was = this.state.get();
		try {
			const data = await get(this.path);
			this.state.set({ data, error: null, loading: false, at: Date.now() });
		} catch (error) {
			// What was there stays, marked as old; a refusal takes its place.
			const gone = error.status === 0 || error.status === 503;
			this.state.set({ data: gone ? was.data : undefined, error, loading: false, at: was.at });
		}
	}
}

function resource(path) {
	let r = cache.get(path);
	if (r) cache.delete(path);
	else r = new Resource(path);
	cache.set(path, r); // the last used is last
	if (cache.size > maxCached) {
		for (const [key, old] of cache) {
			if (old.users.size === 0) {
				cache.delete(key);
				break;
			}
		}
	}
	return r;
}

const nothing = { data: undefined, error: null, loading: false, at: 0, refresh: async () => {} };

/**
 * The answer of a route, kept current.
 * @param {string|null} path below /api/v1; null: nothing is asked
 * @param {{every?: number, on?: string[]}} [o] milliseconds between requests; events after which to ask at once
 */
export function useApi(path, { every = 0, on = [] } = {}) {
	const [, redraw] = useState(0);
	const topics = on.join();
	useEffect(() => {
		if (!path) return undefined;
		const r = resource(path);
		const stops = [r.state.follow(() => redraw((n) => n + 1)), r.use({ every }), ...on.map((t) => listen(t, () => r.nudge()))];
		redraw((n) => n + 1);
		return () => stops.forEach((f) => f());
	}, [path, every, topics]);
	if (!path) return nothing;
	const r = cache.get(path);
	if (!r) return { ...nothing, loading: true };
	return { ...r.state.get(), refresh: () => r.refresh() };
}

/** All that is shown is asked for again. */
export const refreshAll = () => cache.forEach((r) => (r.users.size ? r.nudge() : cache.delete(r.path)));

/** Pages of a list, the next on demand. A change of path starts anew. */
export function usePages(path, key, { on = [], cursor = 'cursor' } = {}) {
	const first = useApi(path, { on });
	const [more, setMore] = useState({ path: '', items: [], next: '', error: null, busy: false });
	const mine = more.path === path;
	const next = mine && more.items.length ? more.next : first.data?.next;
	const running = useRef(false);
	const load = async () => {
		if (running.current || !next) return;
		running.current = true;
		const before = mine ? more.items : [];
		setMore({ path, items: before, next, error: null, busy: true });
		try {
			const page = await get(path + (path.includes('?') ? '&' : '?') + cursor + '=' + encodeURIComponent(next));
			setMore({ path, items: [...before, ...page[key]], next: page.next || '', error: null, busy: false });
		} catch (error) {
			setMore({ path, items: before, next, error, busy: false });
		}
		running.current = false;
	};
	return { ...first, items: [...(first.data?.[key] || []), ...(mine ? more.items : [])], next, load, busy: mine && more.busy, fault: mine && more.error };
}

// ---- events ----

const listeners = new Map();
/** Calls f with what an event brings; returns what ends that. */
export function listen(topic, f) {
	if (!listeners.has(topic)) listeners.set(topic, new Set());
	listeners.get(topic).add(f);
	return () => listeners.get(topic).delete(f);
}
export function tell(topic, data) {
	for (const f of listeners.get(topic) || []) f(data);
}

/** Whether events flow; without them the page asks by the clock alone. */
export const streaming = store(false);
let stream = null;
let lastId = '';

/**
 * Opens the stream of events anew, with what the token lets us hear. It is read with
 * fetch, as EventSource cannot send the token in a header.
 */
export function openEvents() {
	stream?.abort();
	if (!has('/events')) return;
	const mine = new AbortController();
	stream = mine;
	readEvents(mine);
}

async function readEvents(mine) {
	let pause = 500;
	for (let again = false; !mine.signal.aborted; again = true) {
		try {
			// Another process may have taken the node's place: it does not know the token that the one before did.
			if (again && token.get()) await loadAccess();
			if (mine.signal.aborted) return;
			const types = 'block,reorg,sync,peer,mempool,wallet,double' + (mayWrite() ? ',log' : '');
			const headers = { Accept: 'text/event-stream' };
			if (token.get()) headers.Authorization = 'Bearer ' + token.get();
			if (lastId) headers['Last-Event-ID'] = lastId;
			const r = await fetch('/api/v1/events?types=' + encodeURIComponent(types), {
				headers, cache: 'no-store', credentials: 'omit', signal: mine.signal,
			});
			if (!r.ok || !r.body) throw new Error(`events: ${r.status}`);
			streaming.set(true);
			pause = 500;
			const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
			let rest = '';
			for (;;) {
				const { value, done } = await reader.read();
				if (done) break;
				rest += value;
				if (rest.length > 8 << 20) throw new Error('events: too long');
				const parts = rest.split('\n\n');
				rest = parts.pop();
				parts.forEach(takeEvent);
			}
		} catch {
			// The loop comes again; that the node is gone is noticed by whoever asks it.
		}
		streaming.set(false);
		if (mine.signal.aborted) return;
		await new Promise((done) => setTimeout(done, pause));
		pause = Math.min(pause * 2, 10_000);
		while (!link.get().up && !mine.signal.aborted) await new Promise((done) => setTimeout(done, 500));
	}
}

function takeEvent(block) {
	let type = 'message';
	const data = [];
	for (const line of block.split('\n')) {
		if (line.startsWith('id:')) lastId = line.slice(3).trim();
		else if (line.startsWith('event:')) type = line.slice(6).trim();
		else if (line.startsWith('data:')) data.push(line.slice(5));
	}
	if (!data.length) return;
	let v;
	try {
		v = JSON.parse(data.join('\n'));
	} catch {
		return;
	}
	if (type === 'reset') refreshAll();
	tell(type, v);
}
