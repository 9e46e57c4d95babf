// The node's wallet: what it has, what comes in, what goes out. All of it wants the token.
import { html, useState, useMemo, useStore, num, span, coins, satoshi, feeRate, plural, stranger, when } from '../lib.js';
import { useApi, usePages, get, send, has, access } from '../api.js';
import { Section, Facts, Empty, Answer, Id, WholeId, Coins, Table, Tag, Dialog, Field, Guarded, Missing, More, Progress, Icon, Copy, FaultNote, attempt, txLink, blockLink, addr, txId, money, since, dim } from '../ui.js';
import { encode } from '../qr.js';
import { Depth } from './explorer.js';

const tabs = [['', 'Payments'], ['receive', 'Receive'], ['send', 'Send'], ['coins', 'Coins']];

export function Wallet({ rest }) {
	useStore(access);
	return has('/wallet') ? html`<${Guarded} what="the wallet"><${Open} tab=${rest[0] || ''} /><//>` : html`<${Missing} what="a wallet" route="/api/v1/wallet" />`;
}

function Open({ tab }) {
	const info = useApi('/wallet', { every: 3000, on: ['tip', 'wallet'] });
	const balance = useApi(info.data?.exists ? '/wallet/balance' : null, { every: 5000, on: ['tip', 'mempool', 'wallet'] });
	const [ask, setAsk] = useState(false);
	return html`<${Answer} of=${info} rows=${5}>${(w) => (!w.exists
		? html`<${Empty} title="This node has no wallet yet."><p>Its words are shown once, on paper’s way, so they are made where nobody else looks:</p><p class="command"><code>dunlin wallet create</code><${Copy} text="dunlin wallet create" label="Copy" /></p><p><code>dunlin wallet restore</code> brings one back from its words.</p><//>`
		: html`<${Balance} b=${balance.data} w=${w} lock=${() => (w.locked ? setAsk(true) : attempt('Locked.', () => send('POST', '/wallet/lock')).then(info.refresh))} />
			${w.warnings?.map((t) => html`<div class="fault" key=${t}><${Icon} name="warn" /><p>${stranger(t, 400)}</p></div>`)}
			${w.scan && (w.scan.state === 'rescanning' || w.behind > 0) && html`<p class="quiet">Reading the chain: ${num(w.height)} of ${num(w.tip_height)}${w.scan.eta_s != null ? `, about ${span(w.scan.eta_s)} left` : ''}. Until then the balance is not complete.</p><${Progress} value=${w.scan.percent || (100 * w.height) / Math.max(1, w.tip_height)} label="Chain read by the wallet" />`}
			<nav class="tabs" aria-label="Wallet">${tabs.map(([id, name]) => html`<a key=${id} href=${'#/wallet' + (id && '/' + id)} aria-current=${id === tab ? 'page' : undefined}>${name}</a>`)}</nav>
			${tab === 'receive' ? html`<${Receive} />` : tab === 'send' ? html`<${Send} w=${w} b=${balance.data} />` : tab === 'coins' ? html`<${Outputs} />` : html`<${Payments} />`}
			${ask && html`<${Unlock} close=${() => { setAsk(false); info.refresh(); }} />`}`)}<//>`;
}

const Balance = ({ b, w, lock }) => html`<div class="stats">
	<div class="stat main"><div class="label">Spendable</div><div class="value" id="spendable">${money(b?.spendable)}</div></div>
	${b && [['Coming in', b.untrusted, 'From others, in no block yet'], ['Ripening', b.immature, 'Mined here; spendable after 100 blocks'], ['Set aside', b.locked, 'Coins locked by hand']].map(([name, sat, why]) => sat > 0 && html`<div class="stat" key=${name} title=${why}><div class="label">${name}</div><div class="value">${money(sat)}</div></div>`)}
	${b?.watch_only?.total > 0 && html`<div class="stat"><div class="label">Watched only</div><div class="value">${money(b.watch_only.total)}</div></div>`}
	<div class="stat last">${w.watch_only ? html`<${Tag}>watch only<//>` : html`<button type="button" onClick=${lock}><${Icon} name=${w.locked ? 'lock' : 'unlock'} />${w.locked ? 'Unlock' : 'Lock'}</button>`}</div></div>`;

function Unlock({ close }) {
	const [pass, setPass] = useState('');
	const [length, setLength] = useState('300');
	const submit = async (e) => {
		e.preventDefault();
		if (await attempt('Unlocked.', () => send('POST', '/wallet/unlock', { passphrase: pass, for_s: Number(length) }))) close();
	};
	return html`<${Dialog} title="Unlock the wallet" close=${close} cls="narrow"><form onSubmit=${submit}>
		<${Field} label="Passphrase">${(a) => html`<input ...${a} type="password" autocomplete="off" autofocus value=${pass} onInput=${(e) => setPass(e.target.value)} />`}<//>
		<${Field} label="For">${(a) => html`<select ...${a} value=${length} onChange=${(e) => setLength(e.target.value)}><option value="60">1 minute</option><option value="300">5 minutes</option><option value="3600">1 hour</option></select>`}<//>
		<div class="buttons"><button type="button" onClick=${close}>Cancel</button><button type="submit" class="primary">Unlock</button></div></form><//>`;
}

const states = { unconfirmed: ['waiting', 'warn'], conflicted: ['conflicted', 'bad'], abandoned: ['abandoned', ''] };
/** Waiting, n of 6, settled, or why it never will be. */
const State = ({ p }) => (states[p.state] ? html`<${Tag} kind=${states[p.state][1]} title=${p.explain}>${states[p.state][0]}<//>` : html`<${Depth} n=${p.confirmations} of=${p.of || 6} />`);

function Payments() {
	const pages = usePages('/wallet/history?limit=50', 'payments', { on: ['tip', 'mempool', 'wallet'], cursor: 'after' });
	const [open, setOpen] = useState('');
	const list = useMemo(() => [...new Map(pages.items.map((p) => [p.txid, p])).values()], [pages.items]);
	return html`<${Answer} of=${pages} rows=${5}>${() => (list.length ? html`<${Table} label="Payments, newest first" rows=${list} id=${(p) => p.txid} cols=${[
		{ key: 'time', name: 'When', show: (p) => html`<button type="button" class="link" onClick=${() => setOpen(p.txid)} aria-label=${'Payment ' + p.txid}>${since(p.time)}</button>` },
		{ key: 'kind', name: 'What', show: (p) => html`${{ received: 'Received', sent: 'Sent', self: 'To yourself', mined: 'Mined' }[p.kind] || p.kind}${p.watch_only ? ' (watched)' : ''}` },
		{ key: 'label', name: 'Label, address', show: (p) => (p.label ? stranger(p.label, 60) : html`<span class="mono dim">${(p.addresses?.[0] || '').slice(0, 22)}${p.addresses?.length ? '…' : ''}</span>`), cls: 'grow p1' },
		{ key: 'state', name: 'State', show: (p) => html`<${State} p=${p} />` },
		{ key: 'fee', name: 'Fee', show: (p) => (p.fee ? num(p.fee) + ' sat' : '—'), cls: 'n p2' },
		{ key: 'amount', name: 'Amount', show: (p) => html`<${Coins} sat=${p.amount} sign />`, cls: 'n' }]} /><${More} pages=${pages} />`
		: html`<${Empty} title="No payment yet."><a href="#/wallet/receive">Make an address</a> and have somebody pay to it.<//>`)}<//>
	${open && html`<${Payment} id=${open} close=${() => { setOpen(''); pages.refresh(); }} />`}`;
}

function Payment({ id, close }) {
	const tx = useApi('/wallet/tx/' + id, { on: ['tip', 'mempool'] });
	const [rate, setRate] = useState('');
	const bump = async (e) => {
		e.preventDefault();
		const body = { txid: id };
		if (rate) body.fee_rate = Math.round(Number(rate.replace(',', '.')) * 1000);
		if (await attempt('Replaced by one that pays more.', () => send('POST', '/wallet/bump', body))) close();
	};
	return html`<${Dialog} title="Payment" close=${close}><${Answer} of=${tx} rows=${4}>${(p) => html`
		<${Facts} cls="wide" rows=${[
			['Amount', html`<${Coins} sat=${p.amount} sign />`], ['State', html`<${State} p=${p} /> ${dim(stranger(p.explain, 300))}`], ['Time', when(p.time)],
			['Id', html`<${WholeId} id=${p.txid} to=${txLink(p.txid)} what="transaction id" />`],
			p.height >= 0 && ['Block', html`<a href=${blockLink(p.block_hash)}>${num(p.height)}</a>`],
			p.fee != null && ['Fee', html`${money(p.fee)} <span class="dim">${feeRate(p.fee_rate)} sat/vB</span>`],
			p.label && ['Label', stranger(p.label)],
			p.conflicting_txid && ['Conflicts with', txId(p.conflicting_txid)],
			p.replaced_by && ['Replaced by', txId(p.replaced_by)],
		]} />
		<ul class="rows">${p.outputs?.map((o) => html`<li key=${o.n}><div>${addr(o.address, 14)} ${o.change ? html`<${Tag}>change<//>` : o.own ? html`<${Tag} kind="good">yours<//>` : ''}</div>${money(o.amount)}</li>`)}</ul>
		<div class="buttons">${p.can_abandon && html`<button type="button" onClick=${() => attempt('Abandoned: its coins are free again.', () => send('POST', '/wallet/abandon', { txid: id })).then(close)}>Abandon</button>`}</div>
		${p.can_bump && html`<form class="inset" onSubmit=${bump}><${Field} label="Pay more, so that it is mined sooner: sat/vB" hint="Empty: as much as it takes.">${(a) => html`<input ...${a} inputmode="decimal" value=${rate} onInput=${(e) => setRate(e.target.value)} />`}<//><div class="buttons"><button type="submit">Replace</button></div></form>`}`}<//><//>`;
}

/** A code that a phone can read. It is dark on light in both themes, as cameras expect. */
function Code({ text }) {
	const m = useMemo(() => encode(text), [text]);
	if (!m) return null;
	const d = m.map((row, y) => row.map((on, x) => (on ? `M${x + 4} ${y + 4}h1v1h-1z` : '')).join('')).join('');
	return html`<svg class="qr" viewBox=${`0 0 ${m.length + 8} ${m.length + 8}`} role="img" aria-label="QR code of the address" shape-rendering="crispEdges"><rect class="light" width="100%" height="100%" /><path d=${d} /></svg>`;
}

function Receive() {
	const list = useApi('/wallet/addresses?limit=25', { on: ['tip', 'mempool'] });
	const [kind, setKind] = useState('p2wpkh');
	const [label, setLabel] = useState('');
	const [made, setMade] = useState(null);
	const make = async (e) => {
		e.preventDefault();
		const body = { kind };
		if (label.trim()) body.label = label.trim();
		const a = await attempt('', () => send('POST', '/wallet/addresses', body));
		if (a) {
			setMade(a);
			setLabel('');
			list.refresh();
		}
	};
	const shown = made || list.data?.addresses?.find((a) => !a.used && !a.change);
	return html`<div class="cols-2 even"><div><form onSubmit=${make}><div class="fields">
			<${Field} label="Kind">${(a) => html`<select ...${a} value=${kind} onChange=${(e) => setKind(e.target.value)}><option value="p2wpkh">SegWit</option><option value="p2tr">Taproot</option><option value="p2sh-p2wpkh">SegWit in P2SH</option><option value="p2pkh">Legacy</option></select>`}<//>
			<${Field} label="Label (optional)">${(a) => html`<input ...${a} maxlength="100" value=${label} onInput=${(e) => setLabel(e.target.value)} />`}<//></div>
			<div class="buttons start"><button type="submit" class="primary">New address</button></div></form>
		${shown && html`<div class="receive"><${Code} text=${shown.address} /><div><p class="label">${shown.label ? stranger(shown.label, 60) : 'Not used yet'}</p><p id="address"><${WholeId} id=${shown.address} what="address" /></p>${shown.warning && html`<p class="quiet">${stranger(shown.warning)}</p>`}<p class="quiet">Use each address for one payment: nobody can then tell which are yours.</p></div></div>`}</div>
		<${Section} title="Addresses"><${Answer} of=${list} rows=${4}>${(v) => (v.addresses.length ? html`<ul class="rows">${v.addresses.map((a) => html`<li key=${a.address}><div>${addr(a.address, 14)}<p class="quiet">${a.label ? stranger(a.label, 60) + ', ' : ''}${a.used ? 'used' : 'not used'}</p></div>${a.received > 0 && money(a.received)}</li>`)}</ul>` : html`<${Empty} title="None yet." />`)}<//><//></div>`;
}

const speeds = [['1', 'Next block'], ['6', 'Within an hour of 10-minute blocks'], ['24', 'No hurry']];

function Send({ w, b }) {
	const [form, setForm] = useState({ address: '', amount: '', all: false, target: '6', rate: '', subtract: false, label: '' });
	const [review, setReview] = useState(null);
	const [error, setError] = useState(null);
	const [pass, setPass] = useState('');
	const [busy, setBusy] = useState(false);
	const [sent, setSent] = useState(null);
	const put = (k) => (e) => {
		setForm({ ...form, [k]: e.target.type === 'checkbox' ? e.target.checked : e.target.value });
		setError(null);
	};
	const sat = satoshi(form.amount);
	const body = () => {
		const o = { outputs: [form.all ? { address: form.address.trim() } : { address: form.address.trim(), amount: sat }], target: Number(form.target) };
		if (form.all) o.all = true;
		if (form.subtract) o.subtract_fee = true;
		if (form.rate) o.fee_rate = Math.round(Number(form.rate.replace(',', '.')) * 1000);
		if (form.label.trim()) o.label = form.label.trim();
		return o;
	};
	const go = async (e, last) => {
		e.preventDefault();
		setBusy(true);
		setError(null);
		try {
			const v = await send('POST', '/wallet/send', last ? { ...body(), ...(pass ? { passphrase: pass } : {}) } : { ...body(), dry_run: true });
			if (!last) setReview(v);
			else {
				setSent(v);
				setReview(null);
				setPass('');
				setForm({ ...form, address: '', amount: '', all: false, label: '' });
			}
		} catch (x) {
			setError(x);
		}
		setBusy(false);
	};
	if (sent) return html`<div class="done"><p class="lead">Sent ${money(sent.amount)}.</p><p id="sent"><${WholeId} id=${sent.txid} to=${txLink(sent.txid)} what="transaction id" /></p><div class="buttons start"><button type="button" onClick=${() => setSent(null)}>Send another</button></div></div>`;
	if (review) return html`<form class="review" onSubmit=${(e) => go(e, true)}><h2>Is this right?</h2><${Facts} cls="wide" rows=${[
		['To', html`<span class="mono">${form.address.trim()}</span>`], ['Amount', money(review.amount)], ['Fee', html`${money(review.fee)} <span class="dim">${feeRate(review.fee_rate)} sat/vB, ${num(review.vsize)} vB</span>`],
		['In all', html`<b>${money(review.amount + review.fee)}</b>`], review.change > 0 && ['Change back to you', money(review.change)], ['Spends', plural(review.inputs?.length || 0, 'coin')]]} />
		${w.locked && html`<${Field} label="Passphrase">${(a) => html`<input ...${a} type="password" autocomplete="off" autofocus value=${pass} onInput=${(e) => setPass(e.target.value)} />`}<//>`}
		<${FaultNote} error=${error} />
		<div class="buttons"><button type="button" onClick=${() => { setReview(null); setPass(''); }}>Back</button><button type="submit" class="primary" disabled=${busy || (w.locked && !pass)}>${busy ? 'Sending…' : 'Send now'}</button></div></form>`;
	return html`<form class="review" onSubmit=${go}>
		<${Field} label="Address">${(a) => html`<input ...${a} class="mono" maxlength="128" spellcheck=${false} autocomplete="off" required value=${form.address} onInput=${put('address')} />`}<//>
		<div class="fields"><${Field} label="Amount" error=${form.amount && sat === null ? 'Up to eight decimals.' : ''} hint=${b ? `${coins(b.spendable)} can be spent` : ''}>${(a) => html`<input ...${a} inputmode="decimal" autocomplete="off" disabled=${form.all} value=${form.all ? '' : form.amount} onInput=${put('amount')} />`}<//>
		<${Field} label="Fee">${(a) => html`<select ...${a} value=${form.target} onChange=${put('target')}>${speeds.map(([v, n]) => html`<option key=${v} value=${v}>${n}</option>`)}</select>`}<//>
		<${Field} label="or sat/vB">${(a) => html`<input ...${a} inputmode="decimal" value=${form.rate} onInput=${put('rate')} />`}<//></div>
		<p class="checks"><label><input type="checkbox" checked=${form.all} onChange=${put('all')} /> Everything there is</label><label><input type="checkbox" checked=${form.subtract} onChange=${put('subtract')} /> The receiver pays the fee</label></p>
		<${Field} label="Label, for you alone (optional)">${(a) => html`<input ...${a} maxlength="100" value=${form.label} onInput=${put('label')} />`}<//>
		<${FaultNote} error=${error} />
		<div class="buttons start"><button type="submit" class="primary" disabled=${busy || !form.address.trim() || (!form.all && !sat)}>${busy ? 'Asking…' : 'Review'}</button></div></form>`;
}

function Outputs() {
	const u = useApi('/wallet/utxos', { every: 5000, on: ['tip', 'mempool'] });
	const lock = (c) => attempt('', () => send('POST', c.locked ? '/wallet/coins/unlock' : '/wallet/coins/lock', { coins: [c.coin] })).then(u.refresh);
	return html`<${Answer} of=${u} rows=${4}>${(v) => (v.utxos.length ? html`<${Table} label="Coins" sort="-amount" rows=${v.utxos} id=${(c) => c.coin} cols=${[
		{ key: 'amount', name: 'Amount', get: (c) => c.amount, show: (c) => money(c.amount), cls: 'n' },
		{ key: 'coin', name: 'Output', show: (c) => html`${txId(c.txid)}<span class="mono dim">:${c.vout}</span>`, cls: 'p1' },
		{ key: 'address', name: 'Address', show: (c) => (c.label ? stranger(c.label, 40) : addr(c.address)), cls: 'p2' },
		{ key: 'conf', name: 'Confirmations', get: (c) => c.confirmations, show: (c) => (c.mature_in > 0 ? html`<span class="dim">ripe in ${plural(c.mature_in, 'block')}</span>` : html`<${Depth} n=${c.confirmations} />`) },
		{ key: 'lock', name: '', show: (c) => html`<button type="button" onClick=${() => lock(c)}>${c.locked ? 'Free' : 'Set aside'}</button>` }]} />` : html`<${Empty} title="No coins." />`)}<//>`;
}
