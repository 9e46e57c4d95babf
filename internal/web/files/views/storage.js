// What the node keeps on disk.
import { html, num, bytes, plural, stranger } from '../lib.js';
import { useApi, has } from '../api.js';
import { Section, Answer, Tag, Icon, Progress, fig, dim } from '../ui.js';

export function Storage() {
	const st = useApi('/storage', { every: 5000 });
	const indexes = useApi(has('/indexes') ? '/indexes' : null, { every: 5000 });
	return html`<${Answer} of=${st} rows=${5}>${(v) => {
		const parts = [
			['Blocks', v.blocks_bytes, 's1', `in ${plural(v.block_files, 'file')}`], ['Undo', v.undo_bytes, 's2', 'what takes a block back'], ['Coins and headers', v.index_bytes, 's3', 'unspent outputs and the header tree'],
			['Transaction index', v.tx_index_bytes, 's4', ''], ['Address index', v.address_index_bytes, 's5', ''], ['Mempool', v.mempool_file_bytes, 's6', 'as of the last stop'],
		].filter(([, n]) => n > 0);
		const all = Math.max(1, v.total_bytes);
		let x = 0;
		return html`
			${v.low_disk && html`<div class="fault" role="alert"><${Icon} name="warn" /><p>The disk is almost full: no block is accepted until there is room.</p></div>`}
			<div class="stats"><div class="stat main"><div class="label">On disk</div><div class="value">${bytes(v.total_bytes)}</div></div>
				<div class="stat"><div class="label">Free</div><div class="value">${bytes(v.free_bytes)}</div></div>
				<div class="stat"><div class="label">Pruning</div><div class="value">${v.pruned || v.prune_target_bytes ? (v.prune_target_bytes ? `to ${bytes(v.prune_target_bytes)}` : 'done by hand') : 'off'}</div></div></div>
			<${Section} title="What takes the room"><svg class="stack" viewBox="0 0 100 5" preserveAspectRatio="none" role="img" aria-label=${parts.map(([n, b]) => `${n} ${bytes(b)}`).join(', ')}>${parts.map(([name, n, cls]) => {
				const w = (100 * n) / all;
				const r = html`<rect key=${name} class=${cls} x=${x} width=${Math.max(0, w - 0.25)} height="5" />`;
				x += w;
				return r;
			})}</svg>
			<ul class="rows">${parts.map(([name, n, cls, what]) => html`<li key=${name}><div><i class=${'swatch ' + cls}></i>${name} ${dim(what)}</div>${fig(bytes(n))}</li>`)}</ul><//>
			<div class="cols-2 even"><${Section} title="Pruning"><p>${v.pruned ? html`Blocks below height ${fig(num(v.pruned_below))} are deleted. They were checked; what is left is enough to go on.` : 'Every block is kept.'}</p>
				${v.prune_target_bytes ? html`<p class="quiet">Old blocks go when blocks and undo exceed ${bytes(v.prune_target_bytes)}.</p>` : html`<p class="quiet"><code>dunlin chain prune</code> shortens a stopped node’s chain.</p>`}<//>
			<${Section} title="Indexes">${indexes.data ? html`<ul class="rows">${indexes.data.indexes.map((i) => html`<li key=${i.name}><div><code>${i.name}</code><p class="quiet">${i.error ? stranger(i.error) : !i.enabled ? html`<code>storage.${i.name} = true</code> switches it on` : i.synced ? `complete, ${bytes(i.bytes)}` : `building, height ${num(i.height)}`}</p>${i.enabled && !i.synced && html`<${Progress} value=${i.percent} label=${'Building ' + i.name} />`}</div><${Tag} kind=${i.error ? 'bad' : i.enabled ? (i.synced ? 'good' : 'warn') : ''}>${i.error ? 'error' : i.enabled ? (i.synced ? 'on' : 'building') : 'off'}<//></li>`)}</ul>` : html`<p class="quiet">None.</p>`}<//></div>
			<${Section} title="Home"><p><code>${v.home}</code></p><//>`;
	}}<//>`;
}
