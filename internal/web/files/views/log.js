// The node's log as it is written. Lines may hold what strangers sent: text only.
import { html, useState, useEffect, useMemo, useRef, useStore, num, hour, when, stranger, plural } from '../lib.js';
import { useApi, get, send, has, listen, access, streaming } from '../api.js';
import { Section, Empty, Guarded, Choice, Field, FaultNote, Missing, attempt, Icon, Waiting } from '../ui.js';

const keep = 2000; // lines
const ranks = { debug: 0, info: 1, warn: 2, error: 3 };
const colours = ['chain', 'sync', 'gossip', 'discovery', 'host', 'mempool', 'miner', 'api', 'wallet'];

function useRecords(paused) {
	const [lines, setLines] = useState(null);
	const [error, setError] = useState(null);
	const last = useRef(0);
	const held = useRef([]);
	const early = useRef([]); // lines that came before the last ones were asked for; then null
	const stop = useRef(paused);
	stop.current = paused;
	const flows = useStore(streaming);
	const take = (records) => {
		const fresh = records.filter((r) => r.seq > last.current);
		if (!fresh.length) return;
		last.current = fresh.at(-1).seq;
		if (stop.current) held.current = [...held.current, ...fresh].slice(-keep);
		else setLines((l) => [...(l || []), ...fresh].slice(-keep));
	};
	useEffect(() => {
		let live = true;
		const ask = async () => {
			try {
				const v = await get(`/log/records?after=${last.current}&limit=${last.current ? 1000 : 400}&level=debug`);
				if (!live) return;
				if (last.current > v.last) last.current = 0; // the node was started anew
				setError(null);
				setLines((l) => l || []);
				take(v.records);
				if (early.current) take(early.current.splice(0));
				early.current = null;
			} catch (e) {
				if (live) setError(e);
			}
		};
		ask();
		const timer = setInterval(() => !document.hidden && ask(), flows ? 15_000 : 1500);
		const end = listen('log', (r) => (early.current ? (early.current = [...early.current, r].slice(-keep)) : take([r])));
		return () => {
			live = false;
			clearInterval(timer);
			end();
		};
	}, [flows]);
	useEffect(() => {
		if (paused || !held.current.length) return;
		const more = held.current;
		held.current = [];
		setLines((l) => [...(l || []), ...more].slice(-keep));
	}, [paused]);
	return { lines, error, waiting: held };
}

function Lines() {
	const [paused, setPaused] = useState(false);
	const [level, setLevel] = useState('debug');
	const [subsystem, setSubsystem] = useState('');
	const [filter, setFilter] = useState('');
	const { lines, error } = useRecords(paused);
	const box = useRef(null);
	const stick = useRef(true);
	const names = useMemo(() => [...new Set((lines || []).map((r) => r.subsystem).filter(Boolean))].sort(), [lines]);
	const words = filter.toLowerCase();
	const shown = useMemo(() => (lines || []).filter((r) => ranks[r.level] >= ranks[level] && (!subsystem || r.subsystem === subsystem)
		&& (!words || r.message.toLowerCase().includes(words) || r.text.toLowerCase().includes(words))).slice(-600), [lines, level, subsystem, words]);
	useEffect(() => {
		if (stick.current && box.current) box.current.scrollTop = box.current.scrollHeight;
	}, [shown]);
	return html`<div class="filters">
			<input type="search" aria-label="Filter lines" placeholder="Filter" value=${filter} onInput=${(e) => setFilter(e.target.value)} />
			<select aria-label="Subsystem" value=${subsystem} onChange=${(e) => setSubsystem(e.target.value)}><option value="">All subsystems</option>${names.map((n) => html`<option key=${n} value=${n}>${n}</option>`)}</select>
			<${Choice} label="Least level shown" value=${level} change=${setLevel} of=${[['debug', 'All'], ['info', 'Info'], ['warn', 'Warn'], ['error', 'Error']]} />
			<button type="button" aria-pressed=${paused ? 'true' : 'false'} onClick=${() => setPaused(!paused)}><${Icon} name=${paused ? 'play' : 'pause'} />${paused ? 'Go on' : 'Pause'}</button>
		</div>
		<${FaultNote} error=${error?.status ? error : null} />
		${lines === null ? !error && html`<${Waiting} rows=${8} />` : html`<div class="log" ref=${box} role="log" aria-label="Log" aria-live="off" tabindex="0" onScroll=${(e) => { stick.current = e.target.scrollHeight - e.target.scrollTop - e.target.clientHeight < 24; }}>
			${shown.length ? shown.map((r) => html`<p key=${r.seq} class=${r.level}><time title=${when(r.time)}>${hour(r.time)}</time><span class="lvl">${r.level}</span><span class="sub">${r.subsystem}</span><bdi>${stranger(r.text || r.message, 2000)}</bdi></p>`)
				: html`<${Empty} title=${lines.length ? 'No line matches.' : 'Nothing has been logged yet.'} />`}</div>
			<p class="quiet">${plural(shown.length, 'line')} of ${num(lines.length)}${paused ? '; paused' : ''}</p>`}`;
}

function Levels() {
	const v = useApi('/log/level', { every: 10_000 });
	if (!v.data) return html`<${Waiting} rows=${1} />`;
	const set = (body) => attempt('', () => send('PUT', '/log/level', body)).then(() => v.refresh());
	const own = new Map((v.data.levels || []).map((l) => [l.subsystem, l.level]));
	const all = ['debug', 'info', 'warn', 'error'];
	return html`<div class="levels"><${Field} label="Everything">${(a) => html`<select ...${a} value=${v.data.level} onChange=${(e) => set({ level: e.target.value })}>${all.map((l) => html`<option key=${l}>${l}</option>`)}</select>`}<//>
		${(v.data.subsystems || []).map((s) => html`<${Field} key=${s} label=${s}>${(a) => html`<select ...${a} class=${own.has(s) ? 'set' : ''} value=${own.get(s) || 'default'} onChange=${(e) => set({ subsystem: s, level: e.target.value })}><option value="default">as everything</option>${all.map((l) => html`<option key=${l}>${l}</option>`)}</select>`}<//>`)}</div>`;
}

export function Log() {
	useStore(access);
	return html`${has('/log/records')
		? html`<${Guarded} what="the log"><${Lines} /><//>`
		: html`<${Missing} what="its log" route="/api/v1/log/records" />`}
		<${Section} title="What is written" note="From the least level upwards; until the node stops."><${Levels} /><//>`;
}
