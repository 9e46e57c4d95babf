// Blocks, transactions and addresses, each on a page of its own, and the search for them.
import { html, useState, useEffect, num, bytes, coins, short, feeRate, plural, stranger, when, span } from '../lib.js';
import { useApi, usePages, get, has } from '../api.js';
import { Section, Facts, Empty, Answer, Id, WholeId, Stranger, Coins, More, Missing, Tag, FaultNote, Icon, Copy, Table, Waiting, blockLink, txLink, addressLink, toast, addr, fig, txId, money, since, dim } from '../ui.js';
import { share } from './staking.js';

const isHash = (s) => /^[0-9a-fA-F]{64}$/.test(s);

/** Goes to what the text names. @returns {Promise<boolean>} whether there was such a thing */
export async function look(text) {
	const q = text.trim().replaceAll(',', '');
	try {
		const { results } = await get('/search?q=' + encodeURIComponent(q.slice(0, 128)));
		if (results.length === 1) {
			const r = results[0];
			location.hash = { block: blockLink, tx: txLink, address: addressLink, peer: () => '#/peers' }[r.kind]?.(r.id) || '#/explorer';
			return true;
		}
		location.hash = '#/explorer/search/' + encodeURIComponent(q.slice(0, 128));
		return results.length > 0;
	} catch (e) {
		toast(e.message, 'bad');
		return false;
	}
}

export function Explorer({ rest, status }) {
	const [kind, id] = rest;
	if (kind === 'block' && id) return html`<${BlockPage} id=${id} key=${id} tip=${status?.height} />`;
	if (kind === 'tx' && id) return html`<${TxPage} id=${id} key=${id} />`;
	if (kind === 'address' && id) return html`<${AddressPage} id=${id} key=${id} />`;
	return html`<${Start} q=${kind === 'search' ? id || '' : ''} status=${status} />`;
}

function Start({ q, status }) {
	const [text, setText] = useState(q);
	const found = useApi(q ? '/search?q=' + encodeURIComponent(q) : null);
	const indexes = useApi(has('/indexes') ? '/indexes' : null, { every: 10_000 });
	useEffect(() => setText(q), [q]);
	return html`
		<form class="big" role="search" onSubmit=${(e) => { e.preventDefault(); if (text.trim()) look(text); }}>
			<input type="search" aria-label="Height, block hash, transaction id or address" placeholder="Height, block hash, transaction id or address" maxlength="128" spellcheck=${false} autocomplete="off" value=${text} onInput=${(e) => setText(e.target.value)} />
			<button type="submit" class="primary">Search</button></form>
		${q && found.data && (found.data.results.length
			? html`<${Section} title=${plural(found.data.results.length, 'result')}><ul class="rows">${found.data.results.map((r) => html`<li key=${r.kind + r.id}><div><${Tag}>${r.kind}<//> <${Id} id=${r.id} head=${16} tail=${12} to=${({ block: blockLink, tx: txLink, address: addressLink, peer: () => '#/peers' }[r.kind] || (() => '#/explorer'))(r.id)} /><p class="quiet">${stranger(r.detail)}</p></div></li>`)}</ul><//>`
			: html`<${Empty} title=${`Nothing is known as “${stranger(q, 70)}”.`}><p>Blocks are found by height or hash. A transaction is found while it waits, while an output of it is unspent, and always with <code>storage.tx_index = true</code>. Addresses want <code>storage.address_index = true</code>.</p><//>`)}
		${q && found.error && html`<${FaultNote} error=${found.error} retry=${found.refresh} />`}
		${!q && html`<div class="cols-2 even"><${Section} title="Start here"><ul class="rows">
				<li><div><a href=${blockLink('0')}>The first block</a><p class="quiet">and the text that its maker left in it</p></div></li>
				${status && html`<li><div><a href=${blockLink(status.tip_hash)}>The newest block</a><p class="quiet">height ${num(status.height)}</p></div></li>`}
				<li><div><a href="#/mempool">Waiting transactions</a><p class="quiet">${status ? plural(status.mempool.count, 'transaction') : ''}</p></div></li></ul><//>
			<${Section} title="Indexes" note="What the explorer can find depends on them.">${indexes.data
				? html`<ul class="rows">${indexes.data.indexes.map((x) => html`<li key=${x.name}><div><code>${x.name}</code><p class="quiet">${x.error ? stranger(x.error) : !x.enabled ? html`off; <code>storage.${x.name} = true</code> in the configuration switches it on` : x.synced ? `complete, ${bytes(x.bytes)}` : `building: ${x.percent.toFixed(1)} %, height ${num(x.height)}`}</p></div><${Tag} kind=${x.error ? 'bad' : x.enabled ? (x.synced ? 'good' : 'warn') : ''}>${x.error ? 'error' : x.enabled ? (x.synced ? 'on' : 'building') : 'off'}<//></li>`)}</ul>`
				: html`<p class="quiet">This node has no index.</p>`}<//></div>`}`;
}

const statusTag = (s) => html`<${Tag} kind=${{ active: 'good', confirmed: 'good', invalid: 'bad', stale: 'warn', 'valid-fork': 'warn', mempool: 'warn' }[s] || ''}>${{ active: 'active chain', 'valid-fork': 'fork', 'valid-headers': 'header valid', 'headers-only': 'header only', mempool: 'waiting' }[s] || s}<//>`;

function BlockPage({ id, tip }) {
	const block = useApi(`/chain/blocks/${encodeURIComponent(id)}/details`, { on: ['tip'] });
	const b = block.data;
	const pages = usePages(b && b.have_block !== false && !b.pruned ? `/chain/blocks/${b.hash}/txs?limit=25` : null, 'txs');
	const step = (by) => (b ? blockLink(by < 0 ? b.previous_hash : b.next_hash || String(b.height + 1)) : '#');
	return html`<${Answer} of=${block} rows=${6}>${() => html`
		<div class="crumb"><h2>Block ${b.height >= 0 ? fig(num(b.height)) : ''} ${statusTag(b.status || (b.active ? 'active' : 'valid-fork'))}</h2>
			<nav aria-label="Neighbouring blocks">${b.height > 0 && html`<a class="button" href=${step(-1)}><${Icon} name="left" />Previous</a>`}${b.active && b.height < (tip ?? b.height) && html`<a class="button" href=${step(1)}>Next<${Icon} name="right" /></a>`}</nav></div>
		<p class="hashline"><${WholeId} id=${b.hash} what="block hash" /></p>
		<div class="cols-2 even"><${Facts} cls="wide" rows=${[
			['Time', html`${when(b.time)} <span class="dim">(${since(b.time)})</span>`],
			b.median_time && ['Median time', when(b.median_time)],
			['Confirmations', b.active ? num(b.confirmations ?? (tip ?? b.height) - b.height + 1) : 'none: not on the active chain'],
			b.slot !== undefined && ['Slot', num(b.slot)],
			b.stake && ['Won by', addr(b.validator, 14)],
			b.stake && ['With', html`${money(b.stake.value)} <span class="dim">${share(b.share)} of what took part</span> <a href=${txLink(b.stake.txid)}>${b.stake.txid.slice(0, 8)}…:${b.stake.vout}</a>`],
			['Miner', html`<${Stranger} text=${b.miner} most=${120} />`],
			b.data && ['Data', html`<${Stranger} text=${b.data} most=${400} />`],
			b.miner_address && ['Pays', addr(b.miner_address, 14)],
			b.reward !== undefined && ['Reward', money(b.reward)],
			b.fees !== undefined && ['Fees', b.fees === null ? 'not known: pruned' : html`${money(b.fees)}${b.avg_fee_rate ? html` <span class="dim">${feeRate(b.avg_fee_rate)} sat/vB</span>` : ''}`],
		]} /><${Facts} cls="wide" rows=${[
			['Transactions', num(b.txs)],
			['Size', html`${bytes(b.size)}${b.stripped_size ? html` <span class="dim">${bytes(b.stripped_size)} without witnesses</span>` : ''}`],
			['Weight', num(b.weight)],
			['Previous', html`<${Id} id=${b.previous_hash} to=${b.height > 0 ? blockLink(b.previous_hash) : undefined} what="hash" />`],
			['Merkle root', html`<${Id} id=${b.merkle_root} what="merkle root" />`],
			['Version, bits, nonce', html`<span class="mono">${(b.version >>> 0).toString(16).padStart(8, '0')} ${b.bits} ${num(b.nonce)}</span>`],
			b.slot === undefined && ['Difficulty', short(b.difficulty)],
			b.work && ['Work up to here', html`<span class="mono">${b.work.replace(/^0+/, '') || '0'}</span>`],
		]} /></div>
		<${Section} title="Transactions">${b.pruned ? html`<${Empty} title="This block is pruned.">Its header is kept; its transactions are gone from this node.<//>`
			: b.have_block === false ? html`<${Empty} title="Only the header is here.">The node has not fetched this block.<//>`
					: html`<${Answer} of=${pages} rows=${4}>${() => html`<ol class="txs">${pages.items.map((t) => html`<li key=${t.txid}><${Flow} t=${t} /></li>`)}</ol><${More} pages=${pages} />`}<//>`}<//>`}<//>`;
}

const typeWords = {
	pubkey: 'P2PK', pubkeyhash: 'P2PKH', scripthash: 'P2SH', witness_v0_keyhash: 'P2WPKH', witness_v0_scripthash: 'P2WSH', witness_v1_taproot: 'P2TR', multisig: 'multisig', nulldata: 'data', nonstandard: 'other',
};

/** The inputs of a transaction on the left, its outputs on the right. */
function Flow({ t, whole = false }) {
	const ins = whole ? t.inputs : t.inputs.slice(0, 6);
	const outs = whole ? t.outputs : t.outputs.slice(0, 6);
	const moreIn = (t.inputs_total ?? t.inputs.length) - ins.length;
	const moreOut = (t.outputs_total ?? t.outputs.length) - outs.length;
	return html`<article class="flow">
		${!whole && html`<header><${Id} id=${t.txid} to=${txLink(t.txid)} head=${16} tail=${12} what="transaction id" />${t.coinbase && html`<${Tag}>coinbase<//>`}<span class="dim figure">${num(t.vsize)} vB${t.fee != null && !t.coinbase ? `, ${num(t.fee)} sat, ${feeRate(t.fee_rate)} sat/vB` : ''}</span></header>`}
		<div class="sides"><ul aria-label="Inputs">${ins.map((i, n) => html`<li key=${n}>${i.coinbase !== undefined && i.coinbase !== '' || t.coinbase
			? html`<span class="what">new coins</span>`
			: html`<span class="what">${i.prevout?.address ? addr(i.prevout.address, whole ? 18 : 10) : txId(i.txid)}${whole && html`<a class="from" href=${txLink(i.txid)} title="The output that it spends">${i.txid.slice(0, 8)}…:${i.vout}</a>`}</span>${fig(i.prevout ? money(i.prevout.value) : dim('not known'))}`}
			${whole && html`<${Script} parts=${[['Script', i.script_sig], ['Coinbase', i.coinbase], ...(i.witness || []).map((w, k) => [`Witness ${k}`, w, true]), ['Spends script', i.prevout?.script], ['Sequence', (i.sequence >>> 0).toString(16).padStart(8, '0')]]} />`}</li>`)}
			${moreIn > 0 && html`<li class="rest"><a href=${txLink(t.txid)}>${plural(moreIn, 'more input')}</a></li>`}</ul>
		<span class="arrow" aria-hidden="true"><${Icon} name="right" /></span>
		<ul aria-label="Outputs">${outs.map((o) => html`<li key=${o.n}><span class="what">${o.address ? addr(o.address, whole ? 18 : 10) : dim(typeWords[o.type] || o.type)}${whole && html`<span class="from">${typeWords[o.type] || o.type}${o.spent === true ? ', spent' : o.spent === false ? ', unspent' : ''}${o.spent_by ? html` by <a href=${txLink(o.spent_by)}>${o.spent_by.slice(0, 8)}…</a>` : ''}</span>`}</span>${fig(money(o.value))}
			${whole && html`<${Script} parts=${[['Script', o.script]]} />`}</li>`)}
			${moreOut > 0 && html`<li class="rest"><a href=${txLink(t.txid)}>${plural(moreOut, 'more output')}</a></li>`}</ul></div></article>`;
}

const Script = ({ parts }) => {
	const there = parts.filter(([, hex, always]) => hex || always);
	return html`<details class="script"><summary>Script and witness</summary><dl>${there.map(([name, hex]) => html`<div key=${name}><dt>${name}</dt><dd class="mono">${hex || dim('empty')}</dd></div>`)}</dl></details>`;
};

/** How settled a transaction is: six blocks are taken for settled. */
export const Depth = ({ n, of = 6 }) => html`<span class=${'depth' + (n >= of ? ' full' : '')} title=${plural(n, 'confirmation')}><svg viewBox="0 0 ${of * 5} 8" aria-hidden="true">${Array.from({ length: of }, (_, i) => html`<rect key=${i} x=${i * 5} width="4" height="8" rx="1" class=${i < n ? 'part' : 'all'} />`)}</svg>${n >= of ? num(n) : `${n} of ${of}`}</span>`;

function TxPage({ id }) {
	const tx = useApi(isHash(id) ? `/tx/${id}/details` : null, { on: ['tip', 'mempool'] });
	const t = tx.data;
	if (!isHash(id)) return html`<${Empty} title="This is no transaction id.">It has 64 hexadecimal digits.<//>`;
	const title = html`<div class="crumb"><h2>Transaction ${t && statusTag(t.status)}</h2></div><p class="hashline"><${WholeId} id=${id} what="transaction id" /></p>`;
	return html`${title}<${Answer} of=${tx} rows=${6}>${() => html`
		<div class="cols-2 even"><${Facts} cls="wide" rows=${[
			['Confirmations', t.confirmations > 0 ? html`<${Depth} n=${t.confirmations} />` : t.status === 'mempool' ? 'waits in the mempool' : 'none'],
			t.block_hash && ['Block', html`<a href=${blockLink(t.block_hash)} class="figure">${num(t.height)}</a> <${Id} id=${t.block_hash} what="block hash" />`],
			t.time && ['Time', html`${when(t.time)} <span class="dim">(${since(t.time)})</span>`],
			['Fee', t.coinbase ? 'none: it makes new coins' : t.fee == null ? 'not known: an input is not here' : html`${money(t.fee)}${t.fee_rate != null ? html` <span class="dim">${feeRate(t.fee_rate)} sat/vB</span>` : ''}`],
			t.spent_by && ['Conflicts with', txId(t.spent_by)],
		]} /><${Facts} cls="wide" rows=${[
			t.vsize && ['Size', html`${num(t.vsize)} vB${t.size ? html` <span class="dim">${num(t.size)} B, weight ${num(t.weight)}</span>` : ''}`],
			t.version !== undefined && ['Version, lock time', html`<span class="mono">${num(t.version)}, ${num(t.lock_time)}</span>`],
			t.wtxid && t.wtxid !== t.txid && ['Witness id', html`<${Id} id=${t.wtxid} what="witness transaction id" />`],
			t.parents?.length && ['Waits for', html`${t.parents.map((p) => html`<${Id} key=${p} id=${p} to=${txLink(p)} what="transaction id" /> `)}`],
			t.hex && ['Bytes', html`<${Copy} text=${t.hex} label="Copy the transaction as hex">Copy as hex<//>`],
		]} /></div>
		${html`<${Section} title=${`${plural(t.inputs.length, 'input')}, ${plural(t.outputs.length, 'output')}`} note=${t.coinbase ? '' : `${coins(t.outputs.reduce((a, o) => a + o.value, 0))} in all`}><${Flow} t=${t} whole /><//>`}`}<//>`;
}

function AddressPage({ id }) {
	const there = has('/address/{address}');
	const path = `/address/${encodeURIComponent(id)}`;
	const a = useApi(there ? path : null, { on: ['tip', 'mempool'] });
	const txs = usePages(a.data ? path + '/txs?limit=25' : null, 'txs', { on: ['tip', 'mempool'] });
	const utxos = usePages(a.data ? path + '/utxos?limit=25' : null, 'utxos', { on: ['tip'] });
	const head = html`<div class="crumb"><h2>Address</h2></div><p class="hashline"><${WholeId} id=${stranger(id, 128)} what="address" /></p>`;
	if (!there) return html`${head}<${Missing} what="addresses" route="/api/v1/address/{address}" />`;
	return html`${head}<${Answer} of=${a} rows=${4}>${(v) => html`
		<div class="stats"><div class="stat main"><div class="label">Balance</div><div class="value">${money(v.balance)}</div></div>
			<div class="stat"><div class="label">Received</div><div class="value">${money(v.received)}</div></div><div class="stat"><div class="label">Sent</div><div class="value">${money(v.sent)}</div></div>
			<div class="stat"><div class="label">Transactions</div><div class="value">${num(v.txs)}</div></div></div>
		${v.unconfirmed?.txs > 0 && html`<p class="quiet">${plural(v.unconfirmed.txs, 'transaction')} waits: <${Coins} sat=${v.unconfirmed.received - v.unconfirmed.sent} sign /></p>`}
		<${Section} title="History"><${Answer} of=${txs} rows=${4}>${() => (txs.items.length ? html`<${Table} label="Transactions of the address" rows=${txs.items} id=${(t) => t.txid} cols=${[
			{ key: 'tx', name: 'Transaction', show: (t) => txId(t.txid) },
			{ key: 'height', name: 'Block', show: (t) => (t.height < 0 ? 'waiting' : html`<a class="figure" href=${blockLink(t.block_hash || String(t.height))}>${num(t.height)}</a>`), cls: 'n' },
			{ key: 'time', name: 'Time', show: (t) => since(t.time), cls: 'p1' },
			{ key: 'net', name: 'Amount', show: (t) => html`<${Coins} sat=${t.net} sign />`, cls: 'n' },
			{ key: 'conf', name: 'Confirmations', show: (t) => html`<${Depth} n=${t.confirmations} />`, cls: 'n p1' }]} /><${More} pages=${txs} />` : html`<${Empty} title="No transaction." />`)}<//><//>
		<${Section} title="Unspent outputs"><${Answer} of=${utxos} rows=${3}>${() => (utxos.items.length ? html`<${Table} label="Unspent outputs" rows=${utxos.items} id=${(u) => u.txid + u.vout} cols=${[
			{ key: 'out', name: 'Output', show: (u) => html`${txId(u.txid)}<span class="mono dim">:${u.vout}</span>` },
			{ key: 'height', name: 'Block', show: (u) => (u.height < 0 ? 'waiting' : num(u.height)), cls: 'n' },
			{ key: 'value', name: 'Amount', show: (u) => money(u.value), cls: 'n' }]} /><${More} pages=${utxos} />` : html`<${Empty} title="None." />`)}<//><//>`}<//>`;
}
