// Transactions that wait to be mined.
import { html, useState, num, bytes, feeRate, plural } from '../lib.js';
import { useApi, usePages } from '../api.js';
import { Section, Facts, Table, Empty, Answer, Columns, Choice, More, Progress, Tag, txId, fig, since } from '../ui.js';

const rate = (r) => (r === null ? '' : r >= 1000 ? String(+(r / 1000).toFixed(1)) : String(r / 1000));

export function MempoolView() {
	const pool = useApi('/mempool', { every: 3000, on: ['mempool', 'tip'] });
	const fees = useApi('/mempool/histogram', { every: 5000, on: ['mempool', 'tip'] });
	const guess = useApi('/fees/estimate', { every: 15_000, on: ['tip'] });
	const [sort, setSort] = useState('time');
	const pages = usePages(`/mempool/txs?limit=50&sort=${sort}`, 'txs', { on: ['mempool', 'tip'] });
	return html`<${Answer} of=${pool} rows=${5}>${(m) => html`
		<div class="stats"><div class="stat main"><div class="label">Waiting</div><div class="value">${num(m.count)}</div></div>
			<div class="stat"><div class="label">Virtual size</div><div class="value">${num(m.vbytes)}<small> vB</small></div></div>
			<div class="stat"><div class="label">Lowest rate let in</div><div class="value">${feeRate(m.min_fee_rate)}<small> sat/vB</small></div></div>
			<div class="stat"><div class="label">Orphans</div><div class="value">${num(m.orphans)}</div></div></div>
		<div class="cols-2"><div>
			<${Section} title="By fee rate" note="Virtual bytes that wait, by satoshi for each.">${html`<${Answer} of=${fees} rows=${3}>${(h) => (h.txs ? html`<${Columns} label=${`${h.txs} transactions by fee rate`} rows=${h.buckets.map((b) => ({ name: rate(b.from), value: b.vbytes, title: `${rate(b.from)}${b.to === null ? ' and more' : '–' + rate(b.to)} sat/vB: ${plural(b.txs, 'transaction')}, ${num(b.vbytes)} vB` }))} />`
					: html`<${Empty} title="Nothing waits.">Each transaction that comes is shown here until a block has it.<//>`)}<//>`}<//>
			<${Section} title="Transactions" actions=${html`<${Choice} label="Order" value=${sort} change=${setSort} of=${[['time', 'Newest'], ['fee_rate', 'Best paying']]} />`}>${html`<${Answer} of=${pages} rows=${5}>${() => (pages.items.length ? html`<${Table} label="Waiting transactions" rows=${[...new Map(pages.items.map((t) => [t.txid, t])).values()]} id=${(t) => t.txid} cols=${[
					{ key: 'tx', name: 'Transaction', show: (t) => html`${txId(t.txid)} ${t.local && html`<${Tag} title="Handed in at this node">local<//>`}` },
					{ key: 'time', name: 'Came', show: (t) => since(t.time) },
					{ key: 'fee', name: 'Fee', show: (t) => html`${num(t.fee)} sat`, cls: 'n p1' },
					{ key: 'rate', name: 'sat/vB', show: (t) => feeRate(t.fee_rate), cls: 'n' },
					{ key: 'size', name: 'vB', show: (t) => num(t.vsize), cls: 'n' },
					{ key: 'parents', name: 'Parents', show: (t) => num(t.parents.length), cls: 'n p2', title: 'Waiting transactions that it spends from' }]} /><${More} pages=${pages} />` : html`<${Empty} title="The mempool is empty." />`)}<//>`}<//>
		</div><div>
			<${Section} title="Room"><${Progress} value=${(100 * m.bytes) / m.max_bytes} label="Memory in use" /><p class="quiet">${bytes(m.bytes)} of ${bytes(m.max_bytes)} memory. When it is full, what pays worst goes first.</p><//>
			${guess.data && html`<${Section} title="What to pay" note="Estimated from what waits now."><${Facts} rows=${guess.data.estimates.map((e) => [`Within ${plural(e.blocks, 'block')}`, html`${fig(feeRate(e.fee_rate))} sat/vB`])} /><//>`}
			<${Section} title="Gossip"><${Facts} rows=${[
				['Neighbours', `${num(m.gossip.mesh)} of ${num(m.gossip.peers)}`], ['Accepted', num(m.gossip.accepted)], ['Duplicates', num(m.gossip.duplicates)], ['Published', num(m.gossip.published)], ['Still to be told', num(m.unsent)],
				['Fetched from peers’ lists', num(m.pulled)], ['Lost to a block or reorganisation', num(m.lost)],
				...Object.entries(m.gossip.rejected || {}).map(([k, v]) => [`Refused: ${k}`, num(v)])]} /><//>
		</div></div>`}<//>`;
}
