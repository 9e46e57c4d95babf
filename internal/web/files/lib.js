// What every part of the dashboard uses: markup, stores, numbers as text.
import { h, render, Fragment } from './vendor/preact.js';
import { useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback, useId } from './vendor/hooks.js';
import htm from './vendor/htm.js';

export { h, render, Fragment, useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback, useId };

/** Markup as a tagged template. Values become text nodes or attributes, never markup. */
export const html = htm.bind(h);

/**
 * A value that parts of the page follow.
 * @template T
 * @param {T} value
 */
export function store(value) {
	const followers = new Set();
	return {
		get: () => value,
		/** @param {T} next */
		set(next) {
			if (Object.is(next, value)) return;
			value = next;
			for (const f of [...followers]) f(next);
		},
		/** @param {(v: T) => void} f */
		follow(f) {
			followers.add(f);
			return () => followers.delete(f);
		},
	};
}

/** Follows a store for as long as the component lives. */
export function useStore(s) {
	const [, redraw] = useState(0);
	useEffect(() => {
		redraw((n) => n + 1); // it may have moved between drawing and this
		return s.follow(() => redraw((n) => n + 1));
	}, [s]);
	return s.get();
}

/** The time, each second while somebody looks. */
export const clock = store(Date.now());
setInterval(() => document.hidden || clock.set(Date.now()), 1000);

// ---- numbers as text ----

const grouped = new Intl.NumberFormat('en-GB');
/** 1234567 → 1,234,567; — where nothing is known. */
export const num = (n) => (n == null || Number.isNaN(n) ? '—' : grouped.format(n));

/** A number with three significant digits at most. */
export function short(n) {
	if (!Number.isFinite(n)) return '—';
	const a = Math.abs(n);
	if (a >= 100 || Number.isInteger(n)) return grouped.format(Math.round(n));
	return a >= 10 ? n.toFixed(1) : a >= 0.01 || a === 0 ? String(+n.toFixed(2)) : n.toExponential(1);
}

function scaled(n, units, step) {
	if (!Number.isFinite(n)) return '—';
	let i = 0;
	while (Math.abs(n) >= step && i < units.length - 1) {
		n /= step;
		i++;
	}
	return `${i === 0 ? grouped.format(Math.round(n)) : n.toFixed(n >= 100 ? 0 : n >= 10 ? 1 : 2)}\u00a0${units[i]}`;
}
/** 1234567 → 1.23 MB. */
export const bytes = (n) => scaled(n, ['B', 'kB', 'MB', 'GB', 'TB', 'PB'], 1000);
/** Hashes a second. */
export const hashrate = (n) => scaled(n, ['H/s', 'kH/s', 'MH/s', 'GH/s', 'TH/s', 'PH/s', 'EH/s'], 1000);
export const percent = (n) => (n >= 99.95 && n < 100 ? '99.9' : n.toFixed(n < 10 ? 2 : 1)) + '\u00a0%';

/** Seconds as a length of time: two units at most. */
export function span(s) {
	if (!Number.isFinite(s)) return '—';
	s = Math.max(0, s);
	if (s < 1) return `${Math.round(s * 1000)}\u00a0ms`;
	if (s < 10 && !Number.isInteger(s)) return `${s.toFixed(1)}\u00a0s`;
	s = Math.round(s);
	const units = [[365 * 86400, 'y'], [86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
	const at = Math.max(0, units.findIndex(([u]) => s >= u));
	const [u, name] = units[at];
	const [u2, name2] = units[at + 1] || [0, ''];
	const rest = u2 ? Math.floor((s % u) / u2) : 0;
	return `${Math.floor(s / u) || 0}\u00a0${name}${rest && at ? ` ${rest}\u00a0${name2}` : ''}`;
}
/** How long ago, in one unit. */
export function ago(time, now = Date.now()) {
	const s = (now - new Date(time)) / 1000;
	if (s < -5) return `in ${span(-s).split(' ')[0]}`;
	if (s < 1.5) return 'now';
	return `${span(Math.floor(s)).split(' ')[0]} ago`;
}
const stamp = new Intl.DateTimeFormat('en-GB', {
	year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false,
});
/** Local time in full. */
export function when(time) {
	const d = new Date(time);
	if (Number.isNaN(+d) || d.getFullYear() < 2) return '—';
	const p = Object.fromEntries(stamp.formatToParts(d).map((x) => [x.type, x.value]));
	return `${p.year}-${p.month}-${p.day} ${p.hour}:${p.minute}:${p.second}`;
}
export const hour = (time) => when(time).slice(11);

/** Satoshi as coins with eight decimals: exact, as text. */
export function coins(sat) {
	if (sat == null) return '—';
	const neg = sat < 0;
	const s = String(Math.abs(sat)).padStart(9, '0');
	return `${neg ? '−' : ''}${grouped.format(BigInt(s.slice(0, -8)))}.${s.slice(-8)}`;
}
/** Coins as somebody types them to satoshi; null if it is no amount. */
export function satoshi(text) {
	const m = /^(\d{0,8})(?:[.,](\d{0,8}))?$/.exec(text.trim().replaceAll(' ', ''));
	if (!m || (!m[1] && !m[2])) return null;
	return Number(m[1] || '0') * 1e8 + Number((m[2] || '').padEnd(8, '0'));
}
/** A fee rate of the API (satoshi for 1000 virtual bytes) as satoshi for one. */
export const feeRate = (perK) => (perK == null ? '—' : short(perK / 1000));

/**
 * Text that a stranger chose (a miner, a peer, a log line): what moves the cursor,
 * turns the direction of writing or cannot be seen is shown as a dot, and it ends somewhere.
 */
export function stranger(text, most = 200) {
	// eslint-disable-next-line no-control-regex
	const s = String(text ?? '').replace(/[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]/gu, '·');
	const points = [...s];
	return points.length > most ? points.slice(0, most).join('') + '…' : s;
}

/** The first and last digits of a long id. */
export const clipId = (id, head = 8, tail = 6) => (id && id.length > head + tail + 1 ? `${id.slice(0, head)}…${id.slice(-tail)}` : id || '');

/** Words that match nothing special: plural of a count. */
export const plural = (n, one, many = one + 's') => `${num(n)} ${n === 1 ? one : many}`;
