// Run by TestScripts beside the dashboard's files: what needs no page.
import assert from 'node:assert/strict';
import { coins, satoshi, span, bytes, short, ago, clipId, stranger, feeRate, plural, num } from './lib.js';

globalThis.document = { hidden: true }; // for the clock of lib.js, which a slow machine reaches

assert.equal(coins(0), '0.00000000');
assert.equal(coins(1), '0.00000001');
assert.equal(coins(5000012345), '50.00012345');
assert.equal(coins(-150000000), '−1.50000000');
assert.equal(coins(2100000000000000), '21,000,000.00000000');
assert.equal(coins(null), '—');

assert.equal(satoshi('1'), 100000000);
assert.equal(satoshi('0.00000001'), 1);
assert.equal(satoshi('.5'), 50000000);
assert.equal(satoshi('20999999.99999999'), 2099999999999999);
assert.equal(satoshi(' 1,5 '), 150000000);
for (const bad of ['', '.', '-1', '1e3', '0.000000001', '0x10', '123456789', 'NaN', '1.2.3']) assert.equal(satoshi(bad), null, bad);

assert.equal(span(0.25), '250\u00a0ms');
assert.equal(span(3.21), '3.2\u00a0s');
assert.equal(span(61), '1\u00a0min 1\u00a0s');
assert.equal(span(3600), '1\u00a0h');
assert.equal(span(86400 * 3 + 7200), '3\u00a0d 2\u00a0h');
assert.equal(span(null), '—');
assert.equal(bytes(999), '999\u00a0B');
assert.equal(bytes(1234567), '1.23\u00a0MB');
assert.equal(short(1240.5), '1,241');
assert.equal(short(0.123), '0.12');
assert.equal(feeRate(1210), '1.21');
assert.equal(plural(1, 'peer'), '1 peer');
assert.equal(plural(1200, 'peer'), '1,200 peers');
assert.equal(num(undefined), '—');
assert.equal(ago(new Date(0), 65_000), '1\u00a0min ago');
assert.equal(clipId('a'.repeat(64)), 'aaaaaaaa…aaaaaa');

// What strangers write neither turns the line nor hides in it, and ends.
assert.equal(stranger('a\u202eb\u0000c\nd\u200be'), 'a·b·c·d·e');
assert.equal([...stranger('x'.repeat(1000), 10)].length, 11);
assert.equal(stranger('<b>&amp;'), '<b>&amp;');
assert.equal(stranger(null), '');

// The tree of headers: the active chain in the first row, each branch in the next that is free where it runs.
const n = (hash, previous_hash, height, status) => ({ hash, previous_hash, height, status });
const { layOut, steps } = await import('./views/tree.js');
const tree = layOut([
  n('a1', 'a0', 1, 'active'), n('a2', 'a1', 2, 'active'), n('a3', 'a2', 3, 'active'), n('a4', 'a3', 4, 'active'),
  n('b2', 'a1', 2, 'valid-fork'), n('b3', 'b2', 3, 'valid-fork'), n('c3', 'b2', 3, 'headers-only'), n('d4', 'a3', 4, 'invalid'), n('e9', 'unknown', 9, 'headers-only'),
]);
const row = (h) => tree.byHash.get(h).row;
assert.deepEqual(['a1', 'a4', 'b2', 'b3', 'c3', 'd4', 'e9'].map(row), [0, 0, 1, 1, 2, 3, 1]);
assert.equal(tree.rows, 4);
assert.deepEqual(layOut([]).nodes, []);

assert.deepEqual(steps({ count: 10, buckets: [{ le_s: 0.01, count: 2 }, { le_s: 1, count: 7 }] }).map((x) => [x.name, x.value]), [['10ms', 2], ['1s', 5], ['more', 3]]);

// QR codes: the digests are those of the codes that the npm package qrcode 1.5 makes, and jsqr reads.
const { encode } = await import('./qr.js');
const { createHash } = await import('node:crypto');
const digest = (t) => createHash('sha256').update(encode(t).map((r) => r.join('')).join('\n')).digest('hex').slice(0, 16);
assert.equal(digest('a'), 'e8ab680854e4019c');
assert.equal(digest('bcrt1q55a34q25s58z3mr5z5feemm9c37yrl3te7w37v'), '68a00b1b083b2dd8');
assert.equal(digest('bcrt1p' + 'q'.repeat(58)), '5932daeb549a8dc5');
assert.equal(digest('y'.repeat(122)), 'fa3ce7e280571d5e'); // the first version with its number in it
assert.equal(digest('w'.repeat(213)), '9018344b2b099d5a'); // as long as it gets
assert.equal(encode('q'.repeat(214)), null);

process.exit(0); // the clock would go on
