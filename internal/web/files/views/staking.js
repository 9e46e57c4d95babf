// Making blocks with stake, and who else could.
import { html, useState, num, span, plural, stranger } from '../lib.js';
import { useApi, usePages, send } from '../api.js';
import { Section, Facts, Empty, Answer, Table, Tag, Toggle, More, attempt, addr, blockNo, blockLink, fig, Id, money, since, Track } from '../ui.js';

export const share = (x) => (100 * x).toFixed(x < 0.001 ? 3 : 1) + '\u00a0%';
const stake = (sat, coins) => html`${money(sat)} <span class="dim">in ${plural(coins, 'coin')}</span>`;
const bar = (part, of, text) => html`<${Track} value=${part} top=${of || 1} />${text}`;

function Holders() {
	const h = usePages('/staking/holders?limit=25', 'holders', { on: ['tip'] });
	const most = Math.max(...h.items.map((x) => Math.max(x.share, x.win_share)));
	return html`<${Answer} of=${h} rows=${4}>${(v) => html`<p class="quiet">${v.truncated ? 'More than ' : ''}${plural(v.total, 'holder')} of ${money(v.mature_value)} that may win the next slot, at height ${num(v.height)}.</p>
		<${Table} label="Holders" id=${(x) => x.address} rows=${h.items} cols=${[
			{ key: 'address', name: 'Address', show: (x) => addr(x.address) },
			{ key: 'share', name: 'Share', cls: 'n', show: (x) => bar(x.share, most, share(x.share)) },
			{ key: 'wins', name: `Of the last ${v.window_blocks}`, cls: 'n', show: (x) => bar(x.win_share, most, num(x.wins)) },
			{ key: 'value', name: 'Stake', cls: 'n', show: (x) => html`${money(x.value)}${x.mature_in !== null && html`<br /><span class="dim">more matures in ${plural(x.mature_in, 'block')}</span>`}` },
			{ key: 'chance', name: 'A slot', cls: 'n p1', title: 'Chance to win a slot', show: (x) => share(x.chance) },
			{ key: 'last', name: 'Last win', cls: 'p1', show: (x) => x.last_win && html`${blockNo(x.last_win)} ${since(x.last_win.time)}` },
		]} /><${More} pages=${h} />`}<//>`;
}

function Doubles() {
	const d = useApi('/staking/doubles?limit=12', { on: ['tip', 'double'] });
	return html`<${Answer} of=${d} rows=${2}>${(v) => (v.total ? html`<p class="quiet">Its owner runs two nodes with one key, or signs on two branches. Both blocks are valid, and nothing is taken: see docs/pos.md. ${v.total > v.doubles.length && `The latest of ${num(v.total)}.`}</p>
		<${Table} label="Double stakes" id=${(x) => x.outpoint + x.slot} rows=${v.doubles} cols=${[
			{ key: 'seen', name: 'Seen', show: (x) => since(x.seen) },
			{ key: 'slot', name: 'Slot', show: (x) => fig(num(x.slot)) },
			{ key: 'address', name: 'By', show: (x) => addr(x.address) },
			{ key: 'blocks', name: 'Blocks', show: (x) => [x.first, x.second].map((id) => html`<${Id} id=${id} to=${blockLink(id)} what="hash" copy=${false} /> `) },
		]} />` : html`<${Empty} title="None is known." />`)}<//>`;
}

export function Staking({ status }) {
	const m = useApi('/staking?history=12', { every: 2000, on: ['tip'] });
	const [busy, setBusy] = useState(false);
	const flip = async (on) => {
		setBusy(true);
		await attempt(on ? 'Staking is on.' : 'Staking is off.', () => send('POST', on ? '/staking/start' : '/staking/stop'));
		await m.refresh();
		setBusy(false);
	};
	const s = status?.slots;
	return html`<${Answer} of=${m} rows=${4}>${(v) => html`
		<div class="minerline"><${Toggle} on=${v.enabled} label=${{ off: 'Not staking', waiting: 'Staking waits', staking: 'Staking' }[v.state]} change=${flip} disabled=${busy} />
			${v.reason && html`<p class="quiet">${stranger(v.reason)}</p>`}</div>
		<div class="cols-2"><${Section} title="This node"><${Facts} rows=${[
			['Stake', stake(v.weight, v.coins)],
			v.immature_coins > 0 && ['Not mature yet', stake(v.immature_weight, v.immature_coins)],
			['Share', fig(share(v.share)), 'Of the stake that takes part'],
			['Expected time to win', fig(v.expected_s === null ? 'never' : span(v.expected_s)), `A slot is won with ${share(v.slot_chance)}`],
			['Blocks made since the start', fig(num(v.blocks))],
			['Rewards go to', v.address ? addr(v.address, 14) : 'the stake’s own address'],
		]} /><//><${Section} title="The network">${s && html`<${Facts} rows=${[
			['Stake that takes part', fig('about ' + num(Math.round(s.online / 1e8))), 'Coins, estimated from the target'],
			['All money there is, at most', money(s.supply)],
			['Slot', fig(num(s.now)), `Each has ${span(s.length_s)}`],
			['Slots since the last block', fig(num(s.since_block))],
		]} />`}<//></div>
		<${Section} title="Slots that this node won">${v.history.length ? html`<${Table} label="Won slots" id=${(x) => x.slot + x.coin} rows=${v.history} cols=${[
			{ key: 'slot', name: 'Slot', show: (x) => fig(num(x.slot)) },
			{ key: 'time', name: 'Time', show: (x) => since(x.time) },
			{ key: 'block', name: 'Block', show: (x) => (x.height < 0 ? '—' : blockNo(x)) },
			{ key: 'state', name: 'State', show: (x) => html`<${Tag} kind=${x.state === 'active' ? 'good' : ''}>${x.state}<//>` },
			{ key: 'reward', name: 'Reward', cls: 'n', show: (x) => money(x.reward) },
		]} />` : html`<${Empty} title="None yet." />`}<//>
		<${Section} title="Holders"><${Holders} /><//>
		<${Section} title="Stakes that signed two blocks for one slot"><${Doubles} /><//>`}<//>`;
}
