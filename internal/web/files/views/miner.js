// Making blocks.
import { html, useState, useMemo, useStore, num, hashrate, plural, stranger } from '../lib.js';
import { useApi, send, access } from '../api.js';
import { Section, Facts, Empty, Answer, Id, WholeId, Chart, Field, Toggle, attempt, blockLink, addressLink, toast, blockNo, fig, since, dim } from '../ui.js';

function Rate() {
	const h = useApi('/miner/history', { every: 2000 });
	const v = useMemo(() => {
		const s = h.data?.samples || [];
		return { times: s.map((x) => +new Date(x.time) / 1000), series: [{ name: 'this node', colour: 'line1', values: s.map((x) => x.hashes_per_s) }] };
	}, [h.data]);
	return html`<${Answer} of=${h} rows=${3}>${(d) => (d.samples.length > 1
		? html`<${Chart} label="Hashes" times=${v.times} series=${v.series} show=${hashrate} height=${140} />${d.network_hashes_per_s ? html`<p class="quiet">The network as a whole: about ${hashrate(d.network_hashes_per_s)}, from its latest blocks.</p>` : ''}`
		: html`<${Empty} title="No hash rate yet.">It is measured every two seconds while the miner runs.<//>`)}<//>`;
}

export function Miner({ status }) {
	const m = useApi('/miner', { every: 2000, on: ['tip'] });
	const [busy, setBusy] = useState(false);
	const [data, setData] = useState('');
	const [made, setMade] = useState(null);
	useStore(access);
	const flip = async (on) => {
		setBusy(true);
		await attempt(on ? 'The miner runs.' : 'The miner has stopped.', () => send('POST', on ? '/miner/start' : '/miner/stop'));
		await m.refresh();
		setBusy(false);
	};
	const mine = async (e) => {
		e.preventDefault();
		setBusy(true);
		const b = await attempt('', () => send('POST', '/miner/block', { data }));
		setBusy(false);
		if (b) {
			setMade(b);
			setData('');
			toast(`Block ${num(b.height)} is made.`, 'good');
		}
	};
	const size = new TextEncoder().encode(data).length;
	return html`<${Answer} of=${m} rows=${4}>${(v) => html`
		<div class="minerline"><${Toggle} on=${v.running} label=${v.running ? 'Mining' : 'Not mining'} change=${flip} disabled=${busy} />
			${v.reason && html`<p class="quiet">${stranger(v.reason)}</p>`}</div>
		<div class="cols-2"><div>
			<${Section} title="Hash rate"><${Rate} /><//>
			<${Section} title="Make one block" note="With text of yours in it, for everybody to read, for ever.">
				<form onSubmit=${mine}><${Field} label="Text (optional)" hint=${size ? `${plural(size, 'byte')} of UTF-8` : 'It becomes an output that nobody can spend.'}>${(a) => html`<textarea ...${a} rows="3" maxlength="4000" value=${data} onInput=${(e) => setData(e.target.value)}></textarea>`}<//>
					<div class="buttons start"><button type="submit" class="primary" disabled=${busy}>${busy ? 'Working…' : 'Make a block'}</button></div></form>
				${made && html`<p class="made">Block ${blockNo(made)} <${Id} id=${made.hash} to=${blockLink(made.hash)} what="hash" /> ${since(made.time)}</p>`}<//>
		</div><div>
			<${Section} title="What it does"><${Facts} rows=${[['Blocks made since the start', fig(num(v.blocks))], ['Height', fig(num(status?.height))], ['Engine', 'proof of work']]} />
				<p class="label after">Rewards go to</p><p>${v.address ? html`<${WholeId} id=${v.address} to=${addressLink(v.address)} what="address" />` : dim('no address set')}</p><//>
		</div></div>`}<//>`;
}
