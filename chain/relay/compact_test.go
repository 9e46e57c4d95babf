package relay_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/aead/siphash"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/relay"
)

// TestSipHash holds the library against Bitcoin Core's vectors.
func TestSipHash(t *testing.T) {
	t.Parallel()
	var rows []struct {
		Key      [2]string
		Input    []string
		Expected map[string]string
	}
	if err := json.Unmarshal(enginetest.Data(t, "core/siphash.json"), &rows); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for i, row := range rows {
		want, ok := row.Expected["siphash24"]
		if !ok {
			continue
		}
		var key [siphash.KeySize]byte
		for half, text := range row.Key {
			k := unhex(t, text)
			slices.Reverse(k) // an integer
			copy(key[8*half:], k)
		}
		got := fmt.Sprintf("%016x", siphash.Sum64(unhex(t, strings.Join(row.Input, "")), &key))
		if got != want {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
		seen++
	}
	if seen < 64 {
		t.Errorf("%d vectors", seen)
	}
}

func unhex(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestCompactVector is the vector of docs/protocol-relay.md, which was made by
// another program: a real block.
func TestCompactVector(t *testing.T) {
	t.Parallel()
	raw := enginetest.Data(t, "blocks/mainnet-574200.raw")
	msg, err := relay.MakeCompact(consensus.Bitcoin(), raw, 0x0123456789abcdef, func(i int, _ chainhash.Hash) bool { return i == 2 || i == 700 })
	if err != nil {
		t.Fatal(err)
	}
	const want = "0dab15bb3ca7c1df35d38e764a98add48ffa12112aa28e014f1bba7da2c305a6"
	if sum := sha256.Sum256(msg); hex.EncodeToString(sum[:]) != want {
		t.Errorf("%d bytes, SHA-256 %x, want %s", len(msg), sum, want)
	}
}

// many makes n transactions of about size bytes in all, with witnesses, of which
// no two are alike.
func many(r *rand.Rand, n, size int) []*wire.MsgTx {
	txs := make([]*wire.MsgTx, n)
	for i := range txs {
		tx := wire.NewMsgTx(2)
		var op wire.OutPoint
		for at := 0; at < len(op.Hash); at += 8 {
			binary.LittleEndian.PutUint64(op.Hash[at:], r.Uint64())
		}
		sig := make([]byte, max(0, size/n-51-34-14))
		for j := range sig {
			sig[j] = byte(r.Uint32())
		}
		tx.AddTxIn(wire.NewTxIn(&op, nil, wire.TxWitness{sig}))
		tx.AddTxOut(wire.NewTxOut(r.Int64N(1e8), append([]byte{0, 32}, op.Hash[:]...)))
		txs[i] = tx
	}
	return txs
}

// large is a block of n transactions and about size bytes.
func (w *world) large(parent *consensus.Block, seed uint64, n, size int) *consensus.Block {
	return w.b.Mine(parent, many(rand.New(rand.NewPCG(seed, 7)), n-1, size)...)
}

// compact is the message of a block without guesses.
func compact(tb testing.TB, p *consensus.Params, raw []byte, nonce uint64) []byte {
	tb.Helper()
	msg, err := relay.MakeCompact(p, raw, nonce, nil)
	if err != nil || relay.Encoding(msg[0]) != relay.CompactEncoding {
		tb.Fatalf("encoding %d, %v", msg[0], err)
	}
	return msg
}

// TestMakeCompact: what is sent compact, and what is in it.
func TestMakeCompact(t *testing.T) {
	t.Parallel()
	w := newWorld()
	b := w.large(w.b.Genesis(), 1, 400, 100_000)
	msg, err := relay.MakeCompact(w.b.Params, b.Raw, 7, func(i int, wtxid chainhash.Hash) bool {
		if wtxid != *b.Txs[i].WitnessHash() {
			t.Errorf("asked for %v at %d", wtxid, i)
		}
		return i == 5 || i == 6 || i == 399
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := relay.DecodeCompact(w.b.Params, msg[1:])
	if err != nil {
		t.Fatal(err)
	}
	if c.Hash != b.Hash || c.Nonce != 7 || c.Txs() != 400 || c.Header.MerkleRoot != b.Header.MerkleRoot || len(msg) > 396*6+1500 {
		t.Fatalf("%d bytes: %+v", len(msg), c)
	}
	var at []int
	for _, pre := range c.Prefilled {
		at = append(at, pre.Index)
		if !bytes.Equal(pre.Raw, encode(t, b.Txs[pre.Index].MsgTx())) {
			t.Errorf("prefilled %d is another transaction", pre.Index)
		}
	}
	if !slices.Equal(at, []int{0, 5, 6, 399}) {
		t.Errorf("prefilled %v", at)
	}

	whole := func(name string, b *consensus.Block, missing func(int, chainhash.Hash) bool) {
		t.Helper()
		msg, err := relay.MakeCompact(w.b.Params, b.Raw, 7, missing)
		if err != nil || !bytes.Equal(msg, relay.Encode(b.Raw)) {
			t.Errorf("%s: encoding %d, %d of %d bytes, %v", name, msg[0], len(msg), len(b.Raw), err)
		}
	}
	all := func(int, chainhash.Hash) bool { return true }
	small := w.large(w.b.Genesis(), 2, 100, relay.WholeBelow-2000)
	whole("small", small, nil)
	whole("all missing", w.large(w.b.Genesis(), 3, 100, 80_000), all)
	big := make([]byte, relay.MaxPrefilledBytes)
	whole("a large coinbase", w.b.MineTemplate(w.b.Genesis(), enginetest.Template{Script: big, Txs: many(rand.New(rand.NewPCG(4, 4)), 10, 2000)}), nil)
	whole("no transactions", w.b.MineTemplate(w.b.Genesis(), enginetest.Template{Script: big[:80_000]}), nil)

	// What does not fit is not prefilled.
	b = w.large(w.b.Genesis(), 5, 400, 200_000)
	if msg, err = relay.MakeCompact(w.b.Params, b.Raw, 7, all); err != nil {
		t.Fatal(err)
	}
	if c, err = relay.DecodeCompact(w.b.Params, msg[1:]); err != nil || len(c.Prefilled) < 150 || len(c.Prefilled) > 200 {
		t.Errorf("%d prefilled, %v", len(c.Prefilled), err)
	}

	// Transactions with equal short ids: here, twice the same.
	txs := many(rand.New(rand.NewPCG(6, 6)), 300, 90_000)
	b = w.b.Mine(w.b.Genesis(), append(txs, txs[9])...)
	if c, err = relay.DecodeCompact(w.b.Params, compact(t, w.b.Params, b.Raw, 1)[1:]); err != nil || len(c.Prefilled) != 3 || c.Prefilled[1].Index != 10 || c.Prefilled[2].Index != 301 {
		t.Errorf("%+v, %v", c.Prefilled, err)
	}

	for name, raw := range map[string][]byte{
		"cut":      b.Raw[:len(b.Raw)-1],
		"trailing": append(slices.Clone(b.Raw), 0),
		"a count":  append(slices.Clone(b.Raw[:80]), bytes.Repeat([]byte{0xfe}, 70_000)...),
	} {
		if msg, err := relay.MakeCompact(w.b.Params, raw, 1, nil); err == nil && relay.Encoding(msg[0]) == relay.CompactEncoding {
			t.Errorf("%s: made", name)
		}
	}
}

// TestMakeCompactRealBlocks: real blocks survive the way there and back.
func TestMakeCompactRealBlocks(t *testing.T) {
	t.Parallel()
	p := consensus.Bitcoin()
	for _, name := range []string{"mainnet-300025", "mainnet-413567", "mainnet-481829", "mainnet-540107", "mainnet-702861"} {
		raw := enginetest.Data(t, "blocks/"+name+".raw")
		b, err := consensus.DecodeBlock(p, raw)
		if err != nil {
			t.Fatal(err)
		}
		msg := compact(t, p, raw, 99)
		c, err := relay.DecodeCompact(p, msg[1:])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.Hash != b.Hash || c.Txs() != len(b.Txs) || len(msg) > len(raw)/20+6*len(b.Txs) {
			t.Errorf("%s: %d bytes of %d, %d transactions of %d", name, len(msg), len(raw), c.Txs(), len(b.Txs))
		}
		key := sha256.Sum256(binary.LittleEndian.AppendUint64(slices.Clone(raw[:80]), 99))
		for i, tx := range b.Txs[1:] {
			want := siphash.Sum64(tx.WitnessHash()[:], (*[16]byte)(key[:16])) & 0xffffffffffff
			if got := relay.ShortID(c, i); got != want {
				t.Fatalf("%s: short id %d is %x, want %x", name, i, got, want)
			}
		}
	}
}

// A parts is a compact block to spoil.
type parts struct {
	head           []byte // header, seal, nonce
	ids, prefilled []byte // with their counts
}

func (p parts) message() []byte {
	return slices.Concat([]byte{byte(relay.CompactEncoding)}, p.head, p.ids, p.prefilled)
}

// TestCompactFaults: each malformed form and its rule. That the sender is blamed is
// in TestBlockVerdicts.
func TestCompactFaults(t *testing.T) {
	t.Parallel()
	w := newWorld()
	b := w.large(w.b.Genesis(), 1, 3, 400)
	tx := func(i int) []byte { return encode(t, b.Txs[i].MsgTx()) }
	ids := func(n int) []byte { return append(consensus.AppendCount(nil, n), make([]byte, 6*n)...) }
	good := func() parts {
		return parts{
			head:      append(slices.Clone(b.Raw[:80]), 1, 2, 3, 4, 5, 6, 7, 8),
			ids:       ids(2),
			prefilled: slices.Concat([]byte{1, 0}, tx(0)),
		}
	}
	most := w.b.Params.MaxBlockWeight / 240
	for _, row := range []struct {
		name  string
		spoil func(p *parts)
		rule  string
	}{
		{"good", func(*parts) {}, ""},
		{"no nonce", func(p *parts) { p.head, p.ids, p.prefilled = p.head[:87], nil, nil }, "compact-truncated"},
		{"nothing after the nonce", func(p *parts) { p.ids, p.prefilled = nil, nil }, "compact-count"},
		{"no short ids", func(p *parts) { p.ids = ids(0) }, "compact-count"},
		{"more ids than bytes", func(p *parts) { p.ids[0] = 200 }, "compact-count"},
		{"billions of ids", func(p *parts) { p.ids = bytes.Repeat([]byte{0xff}, 9) }, "compact-count"},
		{"a count in a longer form", func(p *parts) { p.ids = slices.Concat([]byte{0xfd, 2, 0}, p.ids[1:]) }, "compact-count"},
		{"nothing after the ids", func(p *parts) { p.prefilled = nil }, "compact-count"},
		{"nothing prefilled", func(p *parts) { p.prefilled = []byte{0} }, "compact-count"},
		{"more prefilled than bytes", func(p *parts) { p.prefilled[0] = 9 }, "compact-count"},
		{"billions prefilled", func(p *parts) { p.prefilled = bytes.Repeat([]byte{0xff}, 300) }, "compact-count"},
		{"as many as a block can have", func(p *parts) { p.ids = ids(most - 1) }, ""},
		{"one more", func(p *parts) { p.ids = ids(most) }, "compact-count"},
		{"an index in a longer form", func(p *parts) { p.prefilled = slices.Concat([]byte{1, 0xfd, 0, 0}, tx(0)) }, "compact-index"},
		{"an index past the end", func(p *parts) { p.prefilled = slices.Concat([]byte{2, 0}, tx(0), []byte{3}, tx(1)) }, "compact-index"},
		{"the last index", func(p *parts) { p.prefilled = slices.Concat([]byte{2, 0}, tx(0), []byte{2}, tx(1)) }, ""},
		{"one after the last index", func(p *parts) {
			p.prefilled = slices.Concat([]byte{3, 0}, tx(0), []byte{3}, tx(1), []byte{0}, tx(1))
		}, "compact-index"},
		{"an index that goes round", func(p *parts) {
			p.prefilled = slices.Concat([]byte{2, 0}, tx(0), []byte{0xff}, bytes.Repeat([]byte{0xff}, 8), tx(1))
		}, "compact-index"},
		{"a cut transaction", func(p *parts) { p.prefilled = p.prefilled[:len(p.prefilled)-1] }, "compact-prefilled"},
		{"no transaction", func(p *parts) { p.prefilled = append([]byte{1, 0}, bytes.Repeat([]byte{0xff}, 200)...) }, "compact-prefilled"},
		{"as much as may be prefilled", func(p *parts) { p.prefilled = prefilled(t, b, relay.MaxPrefilledBytes) }, ""},
		{"a byte more", func(p *parts) { p.prefilled = prefilled(t, b, relay.MaxPrefilledBytes+1) }, "compact-prefilled"},
		{"longer than any", func(p *parts) { p.prefilled = make([]byte, relay.MaxCompactBytes(w.b.Params)) }, "compact-oversize"},
		{"trailing bytes", func(p *parts) { p.prefilled = append(p.prefilled, 0) }, "compact-trailing"},
		{"no coinbase", func(p *parts) { p.prefilled = slices.Concat([]byte{1, 0}, tx(1)) }, "compact-coinbase"},
		{"a coinbase elsewhere", func(p *parts) { p.prefilled = slices.Concat([]byte{1, 1}, tx(0)) }, "compact-coinbase"},
	} {
		p := good()
		row.spoil(&p)
		_, err := relay.DecodeCompact(w.b.Params, p.message()[1:])
		rule, ok := errors.AsType[*consensus.RuleError](err)
		if row.rule == "" {
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
			continue
		}
		if !ok || rule.Rule != row.rule || rule.Blame != consensus.BlameSender || rule.Detail == "" {
			t.Errorf("%s: %v, want %s", row.name, err, row.rule)
		}
		v := w.judge().Check("peer", p.message())
		if reason := strings.Replace(row.rule, "compact-oversize", "oversize", 1); v.Result != relay.Reject || v.Reason != reason || v.Compact != nil {
			t.Errorf("%s: %+v", row.name, v)
		}
	}
}

// prefilled is a prefilled part of so many bytes, without its count: a coinbase
// with a long script.
func prefilled(tb testing.TB, b *consensus.Block, size int) []byte {
	tb.Helper()
	tx := b.Txs[0].MsgTx().Copy()
	tx.TxIn[0].Witness = nil
	tx.TxOut[0].PkScript = make([]byte, size)
	tx.TxOut[0].PkScript = make([]byte, 2*size-tx.SerializeSize()-1)
	return slices.Concat([]byte{1, 0}, encode(tb, tx))
}

// TestCompactCoinbase: every encoding of a coinbase is one, and nothing else.
func TestCompactCoinbase(t *testing.T) {
	t.Parallel()
	null := wire.OutPoint{Index: math.MaxUint32}
	for _, row := range []struct {
		name    string
		ins     []wire.OutPoint
		witness bool
		want    bool
	}{
		{"plain", []wire.OutPoint{null}, false, true},
		{"with witness", []wire.OutPoint{null}, true, true},
		{"two inputs", []wire.OutPoint{null, null}, true, false},
		{"an index", []wire.OutPoint{{Index: 1}}, true, false},
		{"a hash", []wire.OutPoint{{Hash: chainhash.Hash{31: 1}, Index: math.MaxUint32}}, false, false},
	} {
		tx := wire.NewMsgTx(1)
		for _, op := range row.ins {
			in := wire.NewTxIn(&op, []byte{1, 2}, nil)
			if row.witness {
				in.Witness = wire.TxWitness{{1}}
			}
			tx.AddTxIn(in)
		}
		tx.AddTxOut(wire.NewTxOut(1, []byte{1}))
		if got := relay.IsCoinbase(encode(t, tx)); got != row.want {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}

// FuzzCompactBlock: nothing crashes or takes much memory, and what is decoded is
// within bounds.
func FuzzCompactBlock(f *testing.F) {
	w := newWorld()
	for i, b := range []*consensus.Block{w.large(w.b.Genesis(), 1, 300, 70_000), w.large(w.b.Genesis(), 2, 700, 70_000)} {
		msg, err := relay.MakeCompact(w.b.Params, b.Raw, uint64(i), func(at int, _ chainhash.Hash) bool { return at%100 == 3 })
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg[1:])
	}
	b := w.large(w.b.Genesis(), 1, 3, 400)
	f.Add(slices.Concat(b.Raw[:80], make([]byte, 8), []byte{1, 1, 2, 3, 4, 5, 6, 1, 0}, encode(f, b.Txs[0].MsgTx())))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var c *relay.CompactBlock
		var err error
		inBounds(t, len(raw), func() { c, err = relay.DecodeCompact(w.b.Params, raw) })
		if err != nil {
			if rule, ok := errors.AsType[*consensus.RuleError](err); !ok || rule.Blame != consensus.BlameSender || c != nil {
				t.Fatal(err)
			}
			return
		}
		last := -1
		for _, pre := range c.Prefilled {
			if size, err := consensus.TxSize(pre.Raw); err != nil || size != len(pre.Raw) || pre.Index <= last || pre.Index >= c.Txs() {
				t.Fatalf("prefilled %d after %d of %d: %v", pre.Index, last, c.Txs(), err)
			}
			last = pre.Index
		}
		if c.Prefilled[0].Index != 0 || c.Txs() <= len(c.Prefilled) {
			t.Fatalf("%+v", c)
		}
	})
}

// plain is a compact block with only the coinbase prefilled, whatever its short ids.
func plain(tb testing.TB, blk *consensus.Block, txs []*wire.MsgTx, nonce uint64) []byte {
	tb.Helper()
	msg := append([]byte{byte(relay.CompactEncoding)}, blk.Raw[:consensus.HeaderBytes]...)
	msg = binary.LittleEndian.AppendUint64(msg, nonce)
	key := sha256.Sum256(msg[1:])
	msg = consensus.AppendCount(msg, len(txs)-1)
	for _, tx := range txs[1:] {
		id := tx.WitnessHash()
		msg = append(msg, binary.LittleEndian.AppendUint64(nil, siphash.Sum64(id[:], (*[16]byte)(key[:16])))[:6]...)
	}
	return append(append(msg, 1, 0), encode(tb, txs[0])...)
}
