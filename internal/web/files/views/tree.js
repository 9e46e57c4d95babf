// Where the squares of the branches go, and what a histogram counts: no page is needed for these.
import { plural } from '../lib.js';

/**
 * Puts the headers of all branches into rows and columns: a column a height, the active
 * chain in row 0, each branch in the first row that is free where it runs.
 */
export function layOut(nodes) {
	const byHash = new Map(nodes.map((n) => [n.hash, { ...n, children: [] }]));
	const roots = [];
	for (const n of byHash.values()) (byHash.get(n.previous_hash)?.children || roots).push(n);
	const taken = []; // per row: the heights in use
	const place = (row, from, to) => {
		for (let r = row; ; r++) {
			taken[r] ||= [];
			if (taken[r].every(([a, b]) => to < a || from > b)) {
				taken[r].push([from, to]);
				return r;
			}
		}
	};
	const active = [...byHash.values()].filter((n) => n.status === 'active');
	if (active.length) taken[0] = [[-1, Infinity]];
	for (const n of active) n.row = 0;
	// Branches: each starts at a node that is not active and whose parent is placed, or missing.
	const later = [...byHash.values()].filter((n) => n.status !== 'active').sort((a, b) => a.height - b.height);
	for (const start of later) {
		if (start.row !== undefined) continue;
		const run = [start];
		for (let n = start; ;) {
			const next = n.children.find((c) => c.row === undefined && c.status !== 'active');
			if (!next) break;
			run.push(next);
			n = next;
		}
		const parent = byHash.get(start.previous_hash);
		const row = place((parent?.row || 0) + 1, start.height - 1, run.at(-1).height);
		for (const n of run) n.row = row;
	}
	return { nodes: [...byHash.values()], rows: Math.max(1, taken.length), byHash };
}

const le = (s) => (s === null ? 'more' : s < 1 ? `${Math.round(s * 1000)}ms` : `${s}s`);

/** Counts of a Prometheus histogram for each step, rather than up to it. */
export function steps(h) {
	let before = 0;
	const rows = h.buckets.map((b) => {
		const value = b.count - before;
		before = b.count;
		return { name: le(b.le_s), value, title: `${plural(value, 'block')} within ${le(b.le_s)}` };
	});
	rows.push({ name: 'more', value: h.count - before, title: `${plural(h.count - before, 'block')} later` });
	return rows;
}
