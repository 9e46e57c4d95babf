// The chain as it grows: its forks, its blocks, how fast they reach the node.
import { html, store, useStore, useMemo, useState, useEffect, useRef, useLayoutEffect, num, span, bytes, plural, feeRate, clipId, when } from '../lib.js';
import { useApi, usePages, listen } from '../api.js';
import { layOut, steps } from './tree.js';
import { Section, Facts, Table, Empty, Answer, Id, Stranger, Columns, More, blockLink, Choice, Icon, addr, blockNo, fig, money, since, dim } from '../ui.js';
import { share } from './staking.js';

const cell = 26;
const box = 12;

function Tree() {
	const tree = useApi('/chain/tree?depth=100', { on: ['tip', 'block', 'reorg'], every: 30_000 });
	const frame = useRef(null);
	const [width, setWidth] = useState(800);
	useLayoutEffect(() => {
		const o = new ResizeObserver(() => frame.current && setWidth(frame.current.clientWidth));
		o.observe(frame.current);
		return () => o.disconnect();
	}, []);
	const v = tree.data;
	const fit = Math.max(6, Math.floor((width - 30) / cell));
	const drawn = useMemo(() => {
		if (!v) return null;
		const to = Math.max(v.to_height, ...v.nodes.map((n) => n.height));
		const from = Math.max(v.from_height, to - fit + 1);
		return { from, to, ...layOut(v.nodes.filter((n) => n.height >= from)) };
	}, [v, fit]);
	const x = (h) => 18 + (h - drawn.from) * cell;
	const y = (row) => 18 + row * 24;
	return html`<div class="tree" ref=${frame}>${!drawn ? html`<${Answer} of=${tree} rows=${2}>${() => null}<//>`
			: html`<svg width=${width} height=${y(Math.min(drawn.rows, 8) - 1) + 34} role="group" aria-label=${`Branches of the chain from height ${drawn.from} to ${drawn.to}: ${plural(v.nodes.filter((n) => n.tip).length, 'tip')}`}>
				${drawn.nodes.map((n) => {
					const p = drawn.byHash.get(n.previous_hash);
					if (n.row > 7) return null;
					const px = p ? x(p.height) : x(n.height) - cell / 2;
					const py = p ? y(p.row) : y(n.row);
					return html`<path key=${'e' + n.hash} class=${'edge ' + n.status} d=${p && p.row !== n.row ? `M${px} ${py}C${px + cell * 0.6} ${py} ${x(n.height) - cell * 0.6} ${y(n.row)} ${x(n.height)} ${y(n.row)}` : `M${px} ${py}H${x(n.height)}`} />`;
				})}
				${drawn.nodes.map((n) => n.row <= 7 && html`<a key=${n.hash} href=${blockLink(n.hash)} aria-label=${`Block ${n.height}, ${n.status}, ${clipId(n.hash)}`}><title>${`${num(n.height)} · ${n.status}\n${n.hash}\n${when(n.time)}`}</title>
					<rect class=${'node ' + n.status + (n.hash === v.tip ? ' tip' : '') + (n.have_block ? '' : ' hollow')} x=${x(n.height) - box / 2} y=${y(n.row) - box / 2} width=${box} height=${box} rx="2.5" /></a>`)}
				${drawn.nodes.filter((n) => n.row === 0 && n.height % (fit > 24 ? 10 : 5) === 0).map((n) => html`<text key=${'t' + n.height} class="axis" x=${x(n.height)} y=${y(Math.min(drawn.rows, 8) - 1) + 26} text-anchor="middle">${num(n.height)}</text>`)}
			</svg>
			<p class="legend"><span><i class="swatch node-active"></i>active</span><span><i class="swatch node-fork"></i>fork</span><span><i class="swatch node-headers"></i>headers only</span><span><i class="swatch node-invalid"></i>invalid</span>${v.truncated && dim('not all are drawn')}</p>`}</div>`;
}

function Delays() {
	const g = useApi('/gossip', { every: 10_000, on: ['block'] });
	const [from, setFrom] = useState('header');
	return html`<${Answer} of=${g} rows=${3}>${(v) => {
		const h = v.delays[from];
		return html`<div class="cols-2"><div><${Choice} label="Measured from" value=${from} change=${setFrom} of=${[['header', 'Since the header’s time'], ['first_message', 'Since the first message']]} />
			${h.count ? html`<${Columns} rows=${steps(h)} label=${`Delays of ${h.count} blocks`} height=${90} /><p class="quiet">${plural(h.count, 'block')} by gossip since the start, ${span(h.sum_s / h.count)} on average.</p>`
				: html`<${Empty} title="No block has come by gossip yet.">Blocks that sync fetches are not counted.<//>`}</div>
			<${Facts} rows=${[
				['Put together from compact ones', fig(num(v.compact))],
				['Of them without a question', fig(num(v.not_pulled))],
				['Came whole', fig(num(v.whole))],
				['Refused', fig(num(v.rejected))],
			]} /></div>`;
	}}<//>`;
}

/** The latest reorganisations since the page was opened, whatever it showed then. */
const reorgs = store([]);
listen('reorg', (e) => reorgs.set([{ ...e, at: Date.now() }, ...reorgs.get()].slice(0, 3)));

export function Blocks() {
	const pages = usePages('/chain/recent?limit=25', 'blocks', { on: ['tip', 'block', 'reorg'] });
	const lost = useStore(reorgs);
	const seen = useRef(null);
	const blocks = useMemo(() => [...new Map(pages.items.map((b) => [b.hash, b])).values()].sort((a, b) => b.height - a.height), [pages.items]);
	// What came while the page was open slides in; what was there does not.
	const fresh = (b) => seen.current !== null && b.height > seen.current;
	useEffect(() => {
		if (blocks.length && seen.current === null) seen.current = blocks[0].height;
	}, [blocks]);
	const cols = [
		{ key: 'height', name: 'Height', show: blockNo },
		{ key: 'hash', name: 'Hash', show: (b) => html`<${Id} id=${b.hash} to=${blockLink(b.hash)} head=${0} tail=${8} what="hash" />`, cls: 'p2' },
		{ key: 'time', name: 'Time', show: (b) => since(b.time) },
		blocks[0]?.slot !== undefined && { key: 'won', name: 'Won by', show: (b) => b.stake && html`${addr(b.validator)} ${dim(share(b.share))}`, title: 'And the share of its stake in what takes part' },
		{ key: 'miner', name: 'Miner', show: (b) => html`<${Stranger} text=${b.data || b.miner} most=${60} />`, cls: 'grow' },
		{ key: 'txs', name: 'Transactions', show: (b) => num(b.txs), cls: 'n' },
		{ key: 'stripped', name: 'Stripped', show: (b) => bytes(b.stripped_size), cls: 'n p3', title: 'Size without witnesses' },
		{ key: 'size', name: 'Size', show: (b) => bytes(b.size), cls: 'n p1' },
		{ key: 'weight', name: 'Weight', show: (b) => num(b.weight), cls: 'n p2' },
		{ key: 'fee', name: 'Average fee', show: (b) => (b.avg_fee == null ? dim('—') : html`<span title=${`${feeRate(b.avg_fee_rate)} sat/vB`}>${num(b.avg_fee)} sat</span>`), cls: 'n p2' },
		{ key: 'reward', name: 'Reward', show: (b) => money(b.reward), cls: 'n p1' },
	].filter(Boolean);
	return html`
		<${Section} title="Branches" note="The latest headers of every branch that the node knows. Each square is a block."><${Tree} /><//>
		${lost.map((e) => html`<p class="reorg" key=${e.at} role="status"><${Icon} name="warn" />Reorganised ${since(e.at)}: ${plural(e.depth, 'block')} above ${num(e.fork_height)} gave way. <${Id} id=${e.old_hash} to=${blockLink(e.old_hash)} what="hash" /> is no longer the tip, <${Id} id=${e.new_hash} to=${blockLink(e.new_hash)} what="hash" /> is.</p>`)}
		<${Section} title="Blocks"><${Answer} of=${{ ...pages, data: pages.items.length || pages.data ? pages.items : undefined }} rows=${6}>${() => (blocks.length
			? html`<${Table} label="Blocks, newest first" cols=${cols} rows=${blocks} id=${(b) => b.hash} rowClass=${(b) => (fresh(b) ? 'fresh' : '')} /><${More} pages=${pages} />`
			: html`<${Empty} title="No block yet." />`)}<//><//>
		<${Section} title="How long blocks take to get here"><${Delays} /><//>`;
}
