// Who the node is connected to, whom it keeps away, and where it looked for others.
import { html, useState, useMemo, useRef, num, span, bytes, short, plural, stranger, when } from '../lib.js';
import { useApi, send } from '../api.js';
import { Section, Facts, Table, Empty, Answer, Id, WholeId, Stranger, Tag, Dialog, Field, Choice, Bars, attempt, Icon, fig, since, dim } from '../ui.js';

/** Bytes a second, from what two answers differ by. */
function useRates(peers, at) {
	const before = useRef(new Map());
	return useMemo(() => {
		const next = new Map();
		for (const p of peers || []) {
			const was = before.current.get(p.id);
			const dt = was ? (at - was.at) / 1000 : 0;
			if (was && dt < 0.5) next.set(p.id, was);
			else next.set(p.id, {
				at, in: p.bytes_in, out: p.bytes_out,
				inRate: dt > 0 && p.bytes_in >= was.in ? (p.bytes_in - was.in) / dt : null,
				outRate: dt > 0 && p.bytes_out >= was.out ? (p.bytes_out - was.out) / dt : null,
			});
		}
		before.current = next;
		return next;
	}, [peers, at]);
}

const standings = { good: 'good', pruned: 'warn', 'no gossip': 'warn', 'no publish': 'bad', graylisted: 'bad' };

export function Peers({ status }) {
	const peers = useApi('/peers', { every: 2000, on: ['peer'] });
	const [filter, setFilter] = useState('');
	const [way, setWay] = useState('all');
	const [open, setOpen] = useState('');
	const [adding, setAdding] = useState(false);
	const rates = useRates(peers.data?.peers, peers.at);
	const list = peers.data?.peers || [];
	const words = filter.toLowerCase().trim();
	const shown = list.filter((p) => (way === 'all' || (way === 'in') === p.inbound)
		&& (!words || [p.id, p.addr, p.agent, p.group || ''].some((x) => x.toLowerCase().includes(words))));
	const picked = list.find((p) => p.id === open);
	const cols = [
		{ key: 'id', name: 'Peer', get: (p) => p.id, show: (p) => html`<button type="button" class="link mono" onClick=${() => setOpen(p.id)} aria-label=${'Peer ' + p.id}>${p.id.slice(-10)}</button>` },
		{ key: 'addr', name: 'Address', get: (p) => p.endpoint, show: (p) => html`<span class="mono">${p.endpoint || '—'}</span>`, cls: 'p2' },
		{ key: 'group', name: 'Group', get: (p) => p.group || '', show: (p) => html`<span class="mono dim">${p.group || '—'}</span>`, cls: 'p3', title: 'Addresses of one operator tend to share it' },
		{ key: 'way', name: 'Direction', get: (p) => (p.inbound ? 1 : 0), show: (p) => html`<span class="way">${html`<${Icon} name=${p.inbound ? 'into' : 'out'} />`}${p.inbound ? 'in' : 'out'}</span>` },
		{ key: 'rtt', name: 'Latency', get: (p) => p.rtt_ms || 1e9, show: (p) => (p.rtt_ms ? span(p.rtt_ms / 1000) : '—'), cls: 'n' },
		{ key: 'height', name: 'Height', get: (p) => p.height, show: (p) => (p.height < 0 ? dim(p.ready ? '—' : 'greeting') : num(p.height)), cls: 'n' },
		{ key: 'flight', name: 'In flight', get: (p) => p.in_flight, show: (p) => num(p.in_flight), cls: 'n p2' },
		{ key: 'in', name: 'In', get: (p) => rates.get(p.id)?.inRate ?? 0, show: (p) => (rates.get(p.id)?.inRate == null ? '—' : bytes(rates.get(p.id).inRate) + '/s'), cls: 'n p1', title: 'Received each second' },
		{ key: 'out', name: 'Out', get: (p) => rates.get(p.id)?.outRate ?? 0, show: (p) => (rates.get(p.id)?.outRate == null ? '—' : bytes(rates.get(p.id).outRate) + '/s'), cls: 'n p1', title: 'Sent each second' },
		{ key: 'score', name: 'Score', get: (p) => p.score, show: (p) => html`<span class=${'standing ' + (standings[p.standing] || '')} title=${p.standing}>${short(p.score)}</span>`, cls: 'n p2', title: 'Gossip score: 10 is that of a newcomer' },
		{ key: 'since', name: 'Connected', get: (p) => +new Date(p.since), show: (p) => since(p.since), cls: 'n p3' },
		{ key: 'agent', name: 'Agent', get: (p) => p.agent, show: (p) => html`<${Stranger} text=${p.agent} most=${28} />`, cls: 'p2' },
	];
	return html`
		<${Section} title=${status ? `${plural(list.length, 'peer')} connected` : 'Connected'} actions=${html`<button type="button" class="primary" onClick=${() => setAdding(true)}>Add a peer</button>`}>
			<${Answer} of=${peers} rows=${5}>${() => (list.length
				? html`<div class="filters"><input type="search" aria-label="Filter peers" placeholder="Filter by id, address, agent" value=${filter} onInput=${(e) => setFilter(e.target.value)} />
						<${Choice} label="Direction" value=${way} change=${setWay} of=${[['all', 'All'], ['in', 'Inbound'], ['out', 'Outbound']]} /></div>
					${shown.length ? html`<${Table} label="Connected peers" cols=${cols} rows=${shown} id=${(p) => p.id} sort="-height" />` : html`<${Empty} title="No peer matches.">Clear the filter to see all ${num(list.length)}.<//>`}`
				: html`<${Empty} title="No peers.">${status?.sync.reason ? stranger(status.sync.reason) + '. ' : ''}Give this node one address of the network with “Add a peer”, or look below where it has searched.<//>`)}<//>
		<//>
		<div class="cols-2 even">
			<${Funnel} />
			<div><${Bans} /><${Added} /></div>
		</div>
		${picked && html`<${One} peer=${picked} rate=${rates.get(picked.id)} close=${() => setOpen('')} />`}
		${open && !picked && html`<${Dialog} title="Peer" close=${() => setOpen('')} cls="narrow"><p>It has disconnected.</p><//>`}
		${adding && html`<${Add} close=${() => setAdding(false)} />`}`;
}

const lengths = [[3600, '1 hour'], [86400, '1 day'], [7 * 86400, '1 week'], [30 * 86400, '30 days'], [365 * 86400, '1 year']];

function One({ peer: p, rate, close }) {
	const [ban, setBan] = useState(false);
	const [target, setTarget] = useState('peer');
	const [length, setLength] = useState('86400');
	const [reason, setReason] = useState('');
	const host = /^\[?([^\]]+?)\]?:\d+$/.exec(p.endpoint)?.[1] || '';
	const disconnect = () => attempt('Disconnected.', () => send('POST', '/peers/disconnect', { id: p.id })).then((ok) => ok && close());
	const doBan = async (e) => {
		e.preventDefault();
		const body = { target: target === 'ip' ? host : p.id, for_s: Number(length) };
		if (reason.trim()) body.reason = reason.trim();
		if (await attempt('Banned.', () => send('POST', '/bans', body))) close();
	};
	return html`<${Dialog} title="Peer" close=${close}>
		<${Facts} cls="wide" rows=${[
			['Id', html`<${WholeId} id=${p.id} what="peer id" />`],
			['Address', html`<${WholeId} id=${p.addr} what="address" />`],
			p.group && ['Group', html`<span class="mono">${p.group}</span>`],
			['Direction', p.inbound ? 'inbound: it connected to us' : 'outbound: we connected to it'],
			['Agent', html`<${Stranger} text=${p.agent} most=${120} />`],
			['Connected', html`${since(p.since)} <span class="dim">(${when(p.since)})</span>`],
			['Latency', p.rtt_ms ? `${span(p.rtt_ms / 1000)} at best` : 'not known'],
			['Best header shown', p.height < 0 ? 'none yet' : html`${num(p.height)} <${Id} id=${p.tip_hash} what="hash" />`],
			['Claims', p.claimed.height < 0 ? 'nothing' : html`${num(p.claimed.height)} <${Id} id=${p.claimed.tip_hash} what="hash" /> <span class="dim">unchecked</span>`],
			['In flight', plural(p.in_flight, 'request')],
			['Received', `${bytes(p.bytes_in)}${rate?.inRate != null ? ` (${bytes(rate.inRate)}/s)` : ''}`],
			['Sent', `${bytes(p.bytes_out)}${rate?.outRate != null ? ` (${bytes(rate.outRate)}/s)` : ''}`],
			['Gossip score', html`${short(p.score)} ${p.standing && html`<${Tag} kind=${standings[p.standing] || ''}>${p.standing}<//>`}`],
			p.reasons?.length && ['Lowered by', p.reasons.map((r) => stranger(r)).join('; ')],
		]} />
		${ban
			? html`<form class="inset" onSubmit=${doBan}>
					<div class="fields"><${Field} label="Ban">${(a) => html`<select ...${a} value=${target} onChange=${(e) => setTarget(e.target.value)}><option value="peer">this peer</option>${host && html`<option value="ip">its address ${host}</option>`}</select>`}<//>
					<${Field} label="For">${(a) => html`<select ...${a} value=${length} onChange=${(e) => setLength(e.target.value)}>${lengths.map(([s, name]) => html`<option key=${s} value=${String(s)}>${name}</option>`)}</select>`}<//></div>
					<${Field} label="Reason (optional)">${(a) => html`<input ...${a} maxlength="200" value=${reason} onInput=${(e) => setReason(e.target.value)} />`}<//>
					<div class="buttons"><button type="button" onClick=${() => setBan(false)}>Back</button><button type="submit" class="danger">Ban and disconnect</button></div></form>`
			: html`<div class="buttons"><button type="button" onClick=${disconnect}>Disconnect</button><button type="button" class="danger" onClick=${() => setBan(true)}>Ban…</button></div>`}
	<//>`;
}

function Add({ close }) {
	const [addr, setAddr] = useState('');
	const [wrong, setWrong] = useState('');
	const submit = async (e) => {
		e.preventDefault();
		const a = addr.trim();
		if (!/^\/.+\/p2p\/[A-Za-z0-9]+$/.test(a)) {
			setWrong('An address looks like /ip4/203.0.113.7/tcp/9333/p2p/12D3KooW… and ends in the id of the peer.');
			return;
		}
		if (await attempt('Kept. The node is dialling it.', () => send('POST', '/peers', { addr: a }))) close();
	};
	return html`<${Dialog} title="Add a peer" close=${close} cls="narrow"><form onSubmit=${submit}>
		<${Field} label="Address" error=${wrong} hint="With the peer’s id at its end. It is kept over restarts.">${(a) => html`<textarea ...${a} rows="3" class="mono" spellcheck=${false} autofocus value=${addr} onInput=${(e) => { setAddr(e.target.value); setWrong(''); }}></textarea>`}<//>
		<div class="buttons"><button type="button" onClick=${close}>Cancel</button><button type="submit" class="primary" disabled=${!addr.trim()}>Add</button></div></form><//>`;
}

function Bans() {
	const bans = useApi('/bans', { every: 10_000, on: ['peer'] });
	const [adding, setAdding] = useState(false);
	const lift = (b) => attempt('Unbanned.', () => send('DELETE', '/bans?target=' + encodeURIComponent(b.target))).then(() => bans.refresh());
	return html`<${Section} title="Bans" actions=${html`<button type="button" onClick=${() => setAdding(true)}>Ban an address</button>`}>
		<${Answer} of=${bans} rows=${2}>${(v) => (v.bans.length
			? html`<ul class="rows" id="bans">${v.bans.map((b) => html`<li key=${b.target}><div><${Id} id=${b.target} head=${14} tail=${8} what="target" />${b.auto && html` <${Tag} title="By the node itself; forgotten when it stops">automatic<//>`}<p class="quiet">${b.reason ? stranger(b.reason) + ', ' : ''}until ${when(b.until)}</p></div><button type="button" onClick=${() => lift(b)}>Unban</button></li>`)}</ul>`
			: html`<p class="quiet">Nobody is kept away.</p>`)}<//>
		${adding && html`<${BanAddress} close=${() => { setAdding(false); bans.refresh(); }} />`}<//>`;
}

function BanAddress({ close }) {
	const [target, setTarget] = useState('');
	const [length, setLength] = useState('86400');
	const submit = async (e) => {
		e.preventDefault();
		if (await attempt('Banned.', () => send('POST', '/bans', { target: target.trim(), for_s: Number(length) }))) close();
	};
	return html`<${Dialog} title="Ban an address" close=${close} cls="narrow"><form onSubmit=${submit}>
		<${Field} label="Peer id, IP address or network" hint="Such as 203.0.113.7 or 203.0.113.0/24.">${(a) => html`<input ...${a} class="mono" maxlength="128" spellcheck=${false} autofocus value=${target} onInput=${(e) => setTarget(e.target.value)} />`}<//>
		<${Field} label="For">${(a) => html`<select ...${a} value=${length} onChange=${(e) => setLength(e.target.value)}>${lengths.map(([s, name]) => html`<option key=${s} value=${String(s)}>${name}</option>`)}</select>`}<//>
		<div class="buttons"><button type="button" onClick=${close}>Cancel</button><button type="submit" class="danger" disabled=${!target.trim()}>Ban</button></div></form><//>`;
}

function Added() {
	const added = useApi('/peers/added', { every: 20_000 });
	const forget = (a) => attempt('Forgotten. It stays connected if it is.', () => send('DELETE', '/peers?id=' + encodeURIComponent(a.split('/p2p/').pop()))).then(() => added.refresh());
	return html`<${Section} title="Added by hand"><${Answer} of=${added} rows=${1}>${(v) => (v.addrs.length
		? html`<ul class="rows">${v.addrs.map((a) => html`<li key=${a}><code>${a}</code><button type="button" onClick=${() => forget(a)}>Forget</button></li>`)}</ul>`
		: html`<p class="quiet">None.</p>`)}<//><//>`;
}

const sourceWords = {
	anchor: 'Anchors of the last run', book: 'Address book, met before', book_new: 'Address book, only heard of', bootstrap: 'Bootstrap addresses', persistent: 'Persistent peers', added: 'Added by hand',
	dns: 'DNS seeds', dht: 'DHT rendezvous', peers: 'Peer exchange', mdns: 'Local network', inbound: 'They connected to us', import: 'Imported list',
};
/** Why a source has given nothing, as far as its name tells. */
const whyNothing = {
	anchor: 'no peers were kept from an earlier run', book: 'nobody was met before', book_new: 'nobody was heard of', bootstrap: 'none is configured, or none answers', persistent: 'none is configured', added: 'none was added',
	dns: 'no seed is configured, or none answers', dht: 'nobody else advertises this network yet', peers: 'no peer has told of another', mdns: 'nobody in the local network answers', inbound: 'nobody has connected', import: 'nothing was imported',
};

/** Where peers come from: how many each source gave, and how far they got. */
function Funnel() {
	const d = useApi('/discovery', { every: 4000, on: ['peer'] });
	return html`<${Section} title="Discovery" note="Where peers come from, and how far they get.">
		<${Answer} of=${d} rows=${5}>${(v) => {
			const gave = v.sources.filter((s) => s.found || s.dialed || s.connected || s.failed).sort((a, b) => b.found - a.found);
			const none = v.sources.filter((s) => !gave.includes(s));
			const top = Math.max(1, ...gave.map((s) => s.found));
			return html`
			<div class="funnel" role="table" aria-label="Sources of peers">
				<div role="row" class="head"><span role="columnheader">Source</span><span role="columnheader">Found</span><span role="columnheader">Dialled</span><span role="columnheader">Connected</span><span role="columnheader">Failed</span></div>
				${gave.map((s) => html`<div role="row" key=${s.source}><span role="cell">${sourceWords[s.source] || s.source}</span><span role="cell">${num(s.found)}</span><span role="cell">${num(s.dialed)}</span><span role="cell">${num(s.connected)}</span><span role="cell" class=${s.failed ? 'some' : ''}>${num(s.failed)}</span>
					<svg viewBox="0 0 100 3" preserveAspectRatio="none" aria-hidden="true"><rect class="all" width=${(100 * s.found) / top} height="3" /><rect class="mid" width=${(100 * Math.min(s.dialed, s.found)) / top} height="3" /><rect class="part" width=${(100 * Math.min(s.connected, s.found)) / top} height="3" /></svg></div>`)}
				${!gave.length && html`<p class="quiet">No source has given anything yet.</p>`}
			</div>
			${none.length > 0 && html`<details class="nothing" open=${!gave.length}><summary>${plural(none.length, 'source')} gave nothing</summary><dl>${none.map((s) => html`<div key=${s.source}><dt>${sourceWords[s.source] || s.source}</dt><dd>${v.names.find((n) => n.source === s.source && n.error) ? stranger(v.names.find((n) => n.source === s.source && n.error).error, 160) : whyNothing[s.source] || 'nothing yet'}</dd></div>`)}</dl></details>`}
			${v.names.length > 0 && html`<h3>Names asked</h3><ul class="rows">${v.names.map((n) => html`<li key=${n.source + n.name}><div><span class="mono">${stranger(n.name, 80)}</span> ${dim(n.source)}<p class="quiet">${!n.asked ? 'not asked yet' : n.error ? stranger(n.error, 160) : n.peers ? `gave ${plural(n.peers, 'peer')}` : 'answered without a peer'}</p></div><${Tag} kind=${n.answered ? 'good' : n.asked ? 'bad' : ''}>${n.answered ? 'answered' : n.asked ? 'nothing' : 'waiting'}<//></li>`)}</ul>`}
			${v.failures.length > 0 && html`<h3>Why dials failed</h3><${Bars} label="Failed dials by reason" rows=${v.failures.map((f) => ({ name: f.reason, value: f.count, kind: 'bad' }))} />`}
			<${Facts} rows=${[
				['Outbound', html`<span class="figure">${num(v.outbound)} of ${num(v.max_outbound)}</span>`],
				['Inbound', fig(num(v.inbound))],
				['Address book', html`${fig(num(v.book))} <span class="dim">${num(v.tried)} answered once</span>`],
				['Routing table', fig(num(v.routing_table))],
				['Avoided', fig(num(v.avoided))],
				['Advertised', v.advert?.at ? html`${since(v.advert.at)} <span class="dim">${num(v.advert.held)} of ${num(v.advert.sent)} keep it</span>` : v.advert?.error ? stranger(v.advert.error, 120) : 'not yet'],
			]} />`;
		}}<//><//>`;
}
