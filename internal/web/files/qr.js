// QR codes for addresses: bytes, correction level M, versions 1 to 10 (up to 213 bytes), after ISO/IEC 18004.

const correction = [10, 16, 26, 18, 24, 16, 18, 22, 22, 26]; // bytes of a block, by version
const parts = [1, 1, 1, 2, 2, 4, 4, 4, 5, 5]; // blocks

function rawBytes(v) {
	let bits = (16 * v + 128) * v + 64;
	if (v > 1) {
		const n = Math.floor(v / 7) + 2;
		bits -= (25 * n - 10) * n - 55;
		if (v > 6) bits -= 36;
	}
	return bits >> 3;
}

/** Multiplies in GF(256). */
function times(a, b) {
	let z = 0;
	for (let i = 7; i >= 0; i--) {
		z = (z << 1) ^ ((z >> 7) * 0x11d);
		z ^= ((b >> i) & 1) * a;
	}
	return z;
}

function reedSolomon(data, n) {
	const divisor = Array(n).fill(0);
	divisor[n - 1] = 1;
	for (let i = 0, root = 1; i < n; i++, root = times(root, 2)) {
		for (let j = 0; j < n; j++) divisor[j] = times(divisor[j], root) ^ (divisor[j + 1] || 0);
	}
	const rest = Array(n).fill(0);
	for (const b of data) {
		const f = b ^ rest.shift();
		rest.push(0);
		divisor.forEach((d, i) => { rest[i] ^= times(d, f); });
	}
	return rest;
}

const masks = [
	(x, y) => (x + y) % 2, (x, y) => y % 2, (x) => x % 3, (x, y) => (x + y) % 3,
	(x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2, (x, y) => ((x * y) % 2) + ((x * y) % 3),
	(x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2, (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2,
];

/** How hard a pattern is to read. */
function penalty(m) {
	const n = m.length;
	let sum = 0;
	let dark = 0;
	for (const lines of [m, m.map((_, x) => m.map((row) => row[x]))]) {
		for (const line of lines) {
			const s = line.join('');
			for (const run of s.match(/0{5,}|1{5,}/g) || []) sum += run.length - 2;
			for (let i = 0; i + 11 <= n; i++) if (['10111010000', '00001011101'].includes(s.slice(i, i + 11))) sum += 40;
		}
	}
	for (let y = 0; y < n; y++) {
		for (let x = 0; x < n; x++) {
			dark += m[y][x];
			if (x && y && m[y][x] === m[y - 1][x] && m[y][x] === m[y][x - 1] && m[y][x] === m[y - 1][x - 1]) sum += 3;
		}
	}
	return sum + Math.floor(Math.abs((dark * 20) / (n * n) - 10)) * 10;
}

/**
 * @param {string} text
 * @returns {number[][]|null} rows of 0 (light) and 1 (dark), without the margin; null if it is too long
 */
export function encode(text) {
	const data = new TextEncoder().encode(text);
	let v = 1;
	const room = () => rawBytes(v) - correction[v - 1] * parts[v - 1];
	while (v < 11 && room() < data.length + (v < 10 ? 2 : 3)) v++;
	if (v > 10) return null;
	// The bits: mode, length, bytes, end, filling.
	let bits = '0100' + data.length.toString(2).padStart(v < 10 ? 8 : 16, '0');
	for (const b of data) bits += b.toString(2).padStart(8, '0');
	bits = (bits + '0000').slice(0, room() * 8);
	bits = bits.padEnd(Math.ceil(bits.length / 8) * 8, '0');
	const bytes = bits.match(/.{8}/g).map((b) => parseInt(b, 2));
	for (let fill = 0xec; bytes.length < room(); fill ^= 0xec ^ 0x11) bytes.push(fill);
	// Blocks with their correction, a byte of each in turn.
	const count = parts[v - 1];
	const shorter = count - (rawBytes(v) % count);
	const size = Math.floor(rawBytes(v) / count) - correction[v - 1];
	const blocks = [];
	for (let i = 0, at = 0; i < count; i++) {
		const part = bytes.slice(at, (at += size + (i < shorter ? 0 : 1)));
		blocks.push([part, reedSolomon(part, correction[v - 1])]);
	}
	const words = [];
	for (let i = 0; i <= size; i++) for (const [d] of blocks) if (i < d.length) words.push(d[i]);
	for (let i = 0; i < correction[v - 1]; i++) for (const [, c] of blocks) words.push(c[i]);

	const n = 17 + 4 * v;
	const m = Array.from({ length: n }, () => Array(n).fill(0));
	const fixed = m.map((r) => r.map(() => false));
	const set = (x, y, on) => {
		if (x < 0 || y < 0 || x >= n || y >= n) return;
		m[y][x] = on ? 1 : 0;
		fixed[y][x] = true;
	};
	for (let i = 0; i < n; i++) {
		set(6, i, i % 2 === 0);
		set(i, 6, i % 2 === 0);
	}
	const square = (cx, cy, r, on) => {
		for (let dy = -r; dy <= r; dy++) for (let dx = -r; dx <= r; dx++) set(cx + dx, cy + dy, on(Math.max(Math.abs(dx), Math.abs(dy))));
	};
	for (const [x, y] of [[3, 3], [n - 4, 3], [3, n - 4]]) square(x, y, 4, (d) => d !== 2 && d !== 4);
	if (v > 1) {
		const each = Math.floor(v / 7) + 2;
		const step = Math.ceil((n - 13) / (2 * each - 2)) * 2;
		const at = [6, ...Array.from({ length: each - 1 }, (_, i) => n - 7 - step * (each - 2 - i))];
		for (const x of at) for (const y of at) if (!(x === 6 && y === 6) && !(x === 6 && y === n - 7) && !(x === n - 7 && y === 6)) square(x, y, 2, (d) => d !== 1);
	}
	const format = (mask) => {
		let rem = mask; // level M is 00
		for (let i = 0; i < 10; i++) rem = (rem << 1) ^ ((rem >> 9) * 0x537);
		const f = ((mask << 10) | rem) ^ 0x5412;
		for (let i = 0; i < 15; i++) {
			const on = (f >> i) & 1;
			if (i < 6) set(8, i, on);
			else if (i < 8) set(8, i + 1, on);
			else if (i === 8) set(7, 8, on);
			else set(14 - i, 8, on);
			if (i < 8) set(n - 1 - i, 8, on);
			else set(8, n - 15 + i, on);
		}
		set(8, n - 8, 1);
	};
	format(0);
	if (v > 6) {
		let rem = v;
		for (let i = 0; i < 12; i++) rem = (rem << 1) ^ ((rem >> 11) * 0x1f25);
		for (let i = 0; i < 18; i++) {
			const on = (((v << 12) | rem) >> i) & 1;
			set(n - 11 + (i % 3), Math.floor(i / 3), on);
			set(Math.floor(i / 3), n - 11 + (i % 3), on);
		}
	}
	let at = 0;
	for (let right = n - 1; right >= 1; right -= 2) {
		if (right === 6) right = 5;
		for (let i = 0; i < n; i++) {
			for (const x of [right, right - 1]) {
				const y = (right + 1) & 2 ? i : n - 1 - i;
				if (!fixed[y][x] && at < words.length * 8) {
					m[y][x] = (words[at >> 3] >> (7 - (at & 7))) & 1;
					at++;
				}
			}
		}
	}
	const flip = (mask) => m.forEach((row, y) => row.forEach((_, x) => { if (!fixed[y][x] && masks[mask](x, y) === 0) row[x] ^= 1; }));
	let best = 0;
	let least = Infinity;
	for (let mask = 0; mask < 8; mask++) {
		flip(mask);
		format(mask);
		const p = penalty(m);
		if (p < least) [best, least] = [mask, p];
		flip(mask);
	}
	flip(best);
	format(best);
	return m;
}
