// What the page has seen of the node since it was opened, for the charts: at most one
// sample a second and fifteen minutes of them. Where the node keeps a history itself,
// the charts begin with that.
import { store } from './lib.js';
import { tell } from './api.js';

const most = 900;

/** Samples, oldest first. */
export const samples = store(/** @type {{t: number, height: number, blocks: number, bytes: number, inFlight: number, state: string}[]} */ ([]));

let tip = '';

/** Takes note of a status, and tells of a new tip. */
export function watch(status) {
	if (!status) return;
	const t = Date.now() / 1000;
	const list = samples.get();
	const last = list.at(-1);
	if (!last || t - last.t >= 0.8) {
		const next = list.length >= most ? list.slice(list.length - most + 1) : list.slice();
		// A gap (a tab that slept, a node that was away) is drawn as one.
		if (last && t - last.t > 15) next.push({ t: last.t + 1, height: last.height, blocks: null, bytes: null, inFlight: null, state: '' });
		next.push({ t, height: status.height, blocks: status.sync.blocks_per_s, bytes: status.sync.bytes_per_s, inFlight: status.sync.in_flight, state: status.sync.state });
		samples.set(next);
	}
	if (status.tip_hash !== tip) {
		tip = status.tip_hash;
		tell('tip', status);
	}
}
