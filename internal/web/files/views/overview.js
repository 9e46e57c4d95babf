// How the node is doing: what it does now, how fast, with whom, and why not faster.
import { html, useMemo, num, span, percent, bytes, short, plural, stranger } from '../lib.js';
import { useApi } from '../api.js';
import { Section, Facts, Chart, Bars, Progress, Empty, Answer, Copy, Id, Stranger, Tag, Icon, Waiting, blockLink, blockNo, fig, since } from '../ui.js';

const words = {
	starting: 'The node is starting.',
	connecting: 'Looking for peers.',
	headers: 'Fetching headers.',
	blocks: 'Downloading blocks.',
	synced: 'Synced.',
	stalled: 'The download has stalled.',
};

/** What the node says of itself in one sentence, and the reason if it gives one. */
function Now({ s, sync }) {
	const behind = Math.max(s.target_height, s.header_height) - s.height;
	return html`<div class=${'now ' + s.sync.state}>
		<p class="sentence">${words[s.sync.state]} ${s.sync.state === 'synced'
			? html`Block <a href=${blockLink(s.tip_hash)} class="figure">${num(s.height)}</a> was made ${since(s.tip_time)}.`
			: behind > 0 ? html`${fig(plural(behind, 'block'))} to go${s.sync.eta_s !== null ? html`, about ${fig(span(s.sync.eta_s))}` : ''}.` : ''}</p>
		${s.sync.state !== 'synced' && html`<${Progress} value=${s.sync.percent} label="Blocks validated" kind=${s.sync.state} />
			<p class="under">${fig(percent(s.sync.percent))}${s.sync.behind_s > 0 ? html`<span>${span(s.sync.behind_s)} of the chain’s time behind</span>` : null}<span class="figure">${short(s.sync.blocks_per_s)} blocks/s</span><span class="figure">${bytes(s.sync.bytes_per_s)}/s</span></p>`}
		${s.sync.reason && html`<p class="reason"><${Icon} name=${s.sync.state === 'stalled' ? 'warn' : 'help'} />${stranger(s.sync.reason, 300)}</p>`}
		${sync?.last_stall && html`<p class="reason quiet">Last hold-up ${since(sync.last_stall.at)}: block ${num(sync.last_stall.height)} waited ${span(sync.last_stall.waited_s)} for peer <${Id} id=${sync.last_stall.holder} head=${4} copy=${false} />${sync.last_stall.asked ? html`, then <${Id} id=${sync.last_stall.asked} head=${4} copy=${false} /> was asked` : ', and nobody else had it'}. ${plural(sync.stalls, 'hold-up')} in this sync.</p>`}
	</div>`;
}

function Speed() {
	const kept = useApi('/sync/history', { every: 3000 });
	const [times, blocks, rate] = useMemo(() => {
		const all = kept.data?.samples || [];
		return [all.map((x) => +new Date(x.time) / 1000), [{ name: 'blocks/s', colour: 'line1', values: all.map((x) => x.blocks_per_s) }], [{ name: 'received', colour: 'line2', values: all.map((x) => x.bytes_per_s) }]];
	}, [kept.data]);
	if (times.length < 2) return html`<${Waiting} rows=${2} />`;
	return html`<${Chart} label="Blocks validated" times=${times} series=${blocks} show=${short} sync="sync" height=${108} />
		<${Chart} label="Download" times=${times} series=${rate} show=${(n) => bytes(n) + '/s'} sync="sync" height=${108} least=${1000} />`;
}

function InFlight({ s, sync, peers }) {
	const busy = (peers || []).filter((p) => p.in_flight > 0).sort((a, b) => b.in_flight - a.in_flight);
	const rows = busy.slice(0, 12).map((p) => ({ key: p.id, name: html`<${Id} id=${p.id} head=${6} tail=${4} copy=${false} />`, value: p.in_flight, text: `${num(p.in_flight)}` }));
	return html`${sync && html`<${Facts} rows=${[
		['Requests', html`<span class="figure">${num(sync.in_flight)} of ${num(sync.in_flight_limit)}</span>`],
		['Promised', fig(bytes(sync.in_flight_bytes))],
		['Waiting to be checked', fig(bytes(sync.buffered_bytes))],
		['Limit of both', fig(bytes(sync.byte_limit))],
	]} />`}
	${rows.length ? html`<${Bars} rows=${rows} most=${Math.max(16, ...busy.map((p) => p.in_flight))} label="Requests in flight per peer" />`
		: html`<p class="quiet">Nothing is asked for: ${s.sync.state === 'synced' ? 'the node has every block that its peers have.' : stranger(s.sync.reason) || 'no peer has what is missing.'}</p>`}
	${busy.length > 12 && html`<p class="quiet">and ${plural(busy.length - 12, 'more peer')}</p>`}`;
}

function Latest() {
	const recent = useApi('/chain/recent?limit=8', { on: ['tip', 'block'] });
	return html`<${Answer} of=${recent} rows=${4}>${(v) => {
		const blocks = [...v.blocks].sort((a, b) => b.height - a.height);
		if (!blocks.length) return html`<${Empty} title="No block yet." />`;
		return html`<ol class="latest">${blocks.map((b) => html`<li key=${b.hash}>${blockNo(b)}<span class="who"><${Stranger} text=${b.data || b.validator || b.miner} most=${40} empty="" /></span><span class="figure dim">${plural(b.txs, 'tx', 'txs')}</span><span class="figure dim p1">${bytes(b.size)}</span><span class="age">${since(b.time)}</span></li>`)}</ol>`;
	}}<//>`;
}

const verdicts = {
	local: ['Local network', 'This node serves a private network: nobody is asked whether it can be reached.'],
	announced: ['Announced', 'Its addresses are announced as they are set, and were not checked.'],
	checking: ['Checking', 'Peers are being asked whether they can connect.'],
	reachable: ['Reachable', 'Others can connect to this node.'],
	unreachable: ['Not reachable', 'Others cannot connect to this node.'],
};
function Reach() {
	const reach = useApi('/reachability', { every: 15_000 });
	const join = useApi('/join', { every: 60_000 });
	return html`<${Answer} of=${reach} rows=${2}>${(r) => {
		const [title, text] = verdicts[r.verdict] || [r.verdict, ''];
		const addrs = r.confirmed.length ? r.confirmed : r.announced.length ? r.announced : r.listen;
		return html`<p><${Tag} kind=${r.verdict === 'unreachable' ? 'bad' : r.verdict === 'reachable' ? 'good' : ''}>${title}<//> ${text}</p>
			${r.reason && html`<p>${stranger(r.reason)}</p>`}${r.do && html`<p class="quiet">${stranger(r.do)}</p>`}
			<ul class="addrs">${addrs.slice(0, 4).map((a) => html`<li key=${a}><code>${a}</code><${Copy} text=${a} label="Copy address" /></li>`)}</ul>
			${join.data?.command && html`<p class="label">On another machine</p><p class="command"><code>${join.data.command}</code><${Copy} text=${join.data.command} label="Copy the command that joins this network" /></p>`}`;
	}}<//>`;
}

export function Overview({ status: s }) {
	const sync = useApi('/sync', { every: 1000, on: ['sync'] });
	const peers = useApi('/peers', { every: 1500, on: ['peer'] });
	if (!s) return html`<${Waiting} rows=${6} />`;
	const g = s.gossip;
	return html`<${Now} s=${s} sync=${sync.data} />
	<div class="cols-2">
		<div>
			<${Section} title="Speed"><${Speed} /><//>
			<${Section} title="Latest blocks" actions=${html`<a href="#/blocks">All blocks</a>`}><${Latest} /><//>
		</div>
		<div>
			<${Section} title="In flight"><${InFlight} s=${s} sync=${sync.data} peers=${peers.data?.peers} /><//>
			<${Section} title="Gossip"><${Facts} rows=${[
				['Block neighbours', html`<span class="figure">${num(g.block_mesh)} of ${num(g.block_peers)}</span>`, 'Peers that send whole messages, of those on the topic'],
				['Transaction neighbours', html`<span class="figure">${num(g.tx_mesh)} of ${num(g.tx_peers)}</span>`],
				['Last block, since its header', fig(g.delay_s ? span(g.delay_s) : '—'), 'From the time in its header until it was complete here'],
				['Last block, since its first message', fig(g.completion_s ? span(g.completion_s) : '—')],
				['Transactions that were here already', fig(g.compact ? percent(g.hit_percent) : '—'), 'Of compact blocks'],
			]} /><//>
			<${Section} title="Reachability"><${Reach} /><//>
		</div>
	</div>`;
}
