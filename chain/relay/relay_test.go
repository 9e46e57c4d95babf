package relay_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/relay"
)

// A world is what a judge knows of the chain: the headers of a builder's blocks
// that were told.
type world struct {
	b       *enginetest.Builder
	engine  consensus.Engine
	now     time.Time
	heights map[chainhash.Hash]int32 // known headers
	have    map[chainhash.Hash]bool
	invalid map[chainhash.Hash]bool
	err     error
}

func newWorld() *world {
	p := consensus.Regtest()
	return &world{
		b: enginetest.NewBuilder(p), engine: pow.New(p), now: time.Unix(2_000_000_000, 0),
		heights: map[chainhash.Hash]int32{p.GenesisHash: 0},
		have:    make(map[chainhash.Hash]bool),
		invalid: make(map[chainhash.Hash]bool),
	}
}

// CheckHeader implements relay.Headers as chain.Chain does.
func (w *world) CheckHeader(h *consensus.Header) (height int32, known bool, err error) {
	if w.err != nil {
		return -1, false, w.err
	}
	if at, ok := w.heights[consensus.HeaderHash(h)]; ok {
		return at, true, nil
	}
	parent, ok := w.heights[h.PrevBlock]
	if !ok {
		return -1, false, &consensus.RuleError{Rule: "unknown-parent", Blame: consensus.BlameNobody}
	}
	if w.invalid[h.PrevBlock] {
		return parent + 1, false, &consensus.RuleError{Rule: "bad-prevblk", Blame: consensus.BlameBlock}
	}
	return parent + 1, false, w.engine.CheckHeader(w.b.Past(h.PrevBlock), h, w.now)
}

// HaveBlock implements relay.Headers.
func (w *world) HaveBlock(hash chainhash.Hash) (have, invalid bool) {
	return w.have[hash], w.invalid[hash]
}

// CheckSeal implements relay.Headers.
func (w *world) CheckSeal(b *consensus.Block) error { return w.engine.CheckBody(b) }

// Claim implements relay.Headers.
func (w *world) Claim(h *consensus.Header) (consensus.Claim, bool) {
	if c, ok := w.engine.(interface {
		Claim(*consensus.Header) (consensus.Claim, bool)
	}); ok {
		return c.Claim(h)
	}
	return consensus.Claim{}, false
}

// Past implements relay.Headers.
func (w *world) Past(hash chainhash.Hash) (consensus.Past, bool) {
	if _, ok := w.heights[hash]; !ok {
		return nil, false
	}
	return w.b.Past(hash), true
}

// learn makes headers known.
func (w *world) learn(blocks ...*consensus.Block) {
	for _, b := range blocks {
		w.heights[b.Hash] = w.b.Height(b.Hash)
	}
}

func (w *world) judge() *relay.Blocks { return relay.NewBlocks(w.b.Params, w) }

// withTx is a block that has a witness and a commitment to it.
func (w *world) withTx(parent *consensus.Block) *consensus.Block {
	key := enginetest.NewKey(1)
	tx := enginetest.Spend(w.b.Genesis(), 0, 100, key.Script())
	key.Sign(tx, []consensus.Coin{{Value: 50e8, Script: key.Script()}})
	return w.b.Mine(parent, tx)
}

// TestBlockVerdicts is the table of the package's documentation, for whole blocks
// and what both encodings share.
func TestBlockVerdicts(t *testing.T) {
	t.Parallel()
	edit := func(change func(w *world, b *consensus.Block, msg []byte) []byte) func(*world) []byte {
		return func(w *world) []byte {
			b := w.withTx(w.b.Genesis())
			return change(w, b, relay.Encode(b.Raw))
		}
	}
	for _, row := range []struct {
		name   string
		msg    func(w *world) []byte
		result relay.Result
		reason string
		raw    bool // handed to the chain
		orphan bool
	}{
		{"good", edit(func(_ *world, _ *consensus.Block, m []byte) []byte { return m }), relay.Accept, "", true, false},
		{"empty", func(*world) []byte { return nil }, relay.Reject, "empty", false, false},
		{"unknown encoding", edit(func(_ *world, _ *consensus.Block, m []byte) []byte {
			m[0] = 2
			return m
		}), relay.Ignore, "unknown-encoding", false, false},
		{"nothing but an encoding", func(*world) []byte { return []byte{0} }, relay.Reject, "short-header", false, false},
		{"a cut header", edit(func(_ *world, _ *consensus.Block, m []byte) []byte { return m[:80] }), relay.Reject, "short-header", false, false},
		{"a header alone", edit(func(_ *world, _ *consensus.Block, m []byte) []byte { return m[:81] }), relay.Reject, "bad-encoding", false, false},
		{"a cut body", edit(func(_ *world, _ *consensus.Block, m []byte) []byte { return m[:len(m)-1] }), relay.Reject, "bad-encoding", false, false},
		{"a byte too many", edit(func(_ *world, _ *consensus.Block, m []byte) []byte { return append(m, 0) }), relay.Reject, "bad-encoding", false, false},
		{"the largest message, garbage", edit(func(w *world, _ *consensus.Block, m []byte) []byte {
			return append(m, make([]byte, relay.MaxMessageBytes(w.b.Params)-len(m))...)
		}), relay.Reject, "bad-encoding", false, false},
		{"a byte more", func(w *world) []byte { return make([]byte, relay.MaxMessageBytes(w.b.Params)+1) }, relay.Reject, "oversize", false, false},
		{"our own trouble", edit(func(w *world, _ *consensus.Block, m []byte) []byte {
			w.err = errors.New("disk")
			return m
		}), relay.Ignore, "our-trouble", false, false},
		{"unknown parent", func(w *world) []byte {
			return relay.Encode(w.b.Mine(w.b.Mine(w.b.Genesis())).Raw)
		}, relay.Ignore, "unknown-parent", false, true},
		{"from the future", edit(func(w *world, b *consensus.Block, m []byte) []byte {
			w.now = b.Header.Timestamp.Add(-3 * time.Hour)
			return m
		}), relay.Ignore, "time-too-new", false, false},
		{"no work", edit(func(w *world, _ *consensus.Block, m []byte) []byte {
			for { // half of all hashes are low enough on regtest
				binary.LittleEndian.PutUint32(m[77:], binary.LittleEndian.Uint32(m[77:])+1)
				h, err := consensus.DecodeHeader(w.b.Params, m[1:81])
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := w.CheckHeader(&h); err != nil {
					return m
				}
			}
		}), relay.Reject, "high-hash", false, false},
		{"a wrong transaction", edit(func(_ *world, b *consensus.Block, m []byte) []byte {
			at := bytes.LastIndex(m, b.Txs[1].MsgTx().TxOut[0].PkScript)
			m[at+3] ^= 1
			return m
		}), relay.Reject, "mutated", false, false},
		{"a spoiled witness", edit(func(_ *world, b *consensus.Block, m []byte) []byte {
			at := bytes.LastIndex(m, b.Txs[1].MsgTx().TxIn[0].Witness[0])
			m[at+10] ^= 1
			return m
		}), relay.Reject, "mutated", false, false},
		{"a stripped witness", edit(func(w *world, b *consensus.Block, _ []byte) []byte {
			txs := make([]*wire.MsgTx, len(b.Txs))
			for i, tx := range b.Txs {
				txs[i] = tx.MsgTx().Copy()
			}
			txs[1].TxIn[0].Witness = nil
			s, err := consensus.NewBlock(w.b.Params, b.Header, txs)
			if err != nil {
				t.Fatal(err)
			}
			return relay.Encode(s.Raw)
		}), relay.Reject, "mutated", false, false},
		{"its last transactions twice (CVE-2012-2459)", func(w *world) []byte {
			tx := func(fee int64) *wire.MsgTx { return enginetest.Spend(w.b.Genesis(), 0, fee) }
			b := w.b.Mine(w.b.Genesis(), tx(1), tx(2))
			txs := []*wire.MsgTx{b.Txs[0].MsgTx(), b.Txs[1].MsgTx(), b.Txs[2].MsgTx(), b.Txs[2].MsgTx()}
			s, err := consensus.NewBlock(w.b.Params, b.Header, txs)
			if err != nil {
				t.Fatal(err)
			}
			return relay.Encode(s.Raw)
		}, relay.Reject, "mutated", false, false},
		{"on disk", edit(func(w *world, b *consensus.Block, m []byte) []byte {
			w.learn(b)
			w.have[b.Hash] = true
			return m
		}), relay.Ignore, "known", false, false},
		{"header known, block not", edit(func(w *world, b *consensus.Block, m []byte) []byte {
			w.learn(b)
			return m
		}), relay.Accept, "", true, false},
		{"known to be invalid", edit(func(w *world, b *consensus.Block, m []byte) []byte {
			w.learn(b)
			w.invalid[b.Hash] = true
			return m
		}), relay.Ignore, "known-invalid", false, false},
		{"on an invalid parent", edit(func(w *world, _ *consensus.Block, m []byte) []byte {
			w.invalid[w.b.Params.GenesisHash] = true
			return m
		}), relay.Ignore, "known-invalid", false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			msg := row.msg(w)
			j := w.judge()
			v := j.Check("peer", msg)
			if v.Result != row.result || v.Reason != row.reason || v.Orphan != row.orphan || (v.Raw != nil) != row.raw {
				t.Fatalf("got %+v (%v)", v, v.Err)
			}
			if row.raw && !bytes.Equal(v.Raw, msg[1:]) {
				t.Error("another block is handed to the chain")
			}
			if _, headers, _ := j.Held(); (headers > 0) != (row.result == relay.Accept) {
				t.Errorf("%d headers counted against the caps", headers)
			}
		})
	}
}

// TestCompactVerdicts is the same table for compact blocks; TestCompactFaults has
// the malformed ones.
func TestCompactVerdicts(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		change  func(w *world, b *consensus.Block, m []byte) []byte
		result  relay.Result
		reason  string
		compact bool // handed to the assembler
		orphan  bool
	}{
		{"good", func(_ *world, _ *consensus.Block, m []byte) []byte { return m }, relay.Accept, "", true, false},
		{"nothing but an encoding", func(_ *world, _ *consensus.Block, m []byte) []byte { return m[:1] }, relay.Reject, "short-header", false, false},
		{"a cut header", func(_ *world, _ *consensus.Block, m []byte) []byte { return m[:80] }, relay.Reject, "short-header", false, false},
		{"a header alone", func(_ *world, _ *consensus.Block, m []byte) []byte { return m[:81] }, relay.Reject, "compact-truncated", false, false},
		{"the largest, garbage", func(w *world, _ *consensus.Block, m []byte) []byte {
			return append(m, make([]byte, 1+relay.MaxCompactBytes(w.b.Params)-len(m))...)
		}, relay.Reject, "compact-prefilled", false, false},
		{"a byte more", func(w *world, _ *consensus.Block, m []byte) []byte {
			return append(m, make([]byte, 2+relay.MaxCompactBytes(w.b.Params)-len(m))...)
		}, relay.Reject, "oversize", false, false},
		{"our own trouble", func(w *world, _ *consensus.Block, m []byte) []byte {
			w.err = errors.New("disk")
			return m
		}, relay.Ignore, "our-trouble", false, false},
		{"unknown parent", func(w *world, b *consensus.Block, _ []byte) []byte {
			return compact(t, w.b.Params, w.large(b, 2, 300, 80_000).Raw, 1)
		}, relay.Ignore, "unknown-parent", false, true},
		{"from the future", func(w *world, b *consensus.Block, m []byte) []byte {
			w.now = b.Header.Timestamp.Add(-3 * time.Hour)
			return m
		}, relay.Ignore, "time-too-new", false, false},
		{"false short ids", func(_ *world, _ *consensus.Block, m []byte) []byte {
			m[100] ^= 1 // nobody can tell
			return m
		}, relay.Accept, "", true, false},
		{"on disk", func(w *world, b *consensus.Block, m []byte) []byte {
			w.learn(b)
			w.have[b.Hash] = true
			return m
		}, relay.Ignore, "known", false, false},
		{"header known, block not", func(w *world, b *consensus.Block, m []byte) []byte {
			w.learn(b)
			return m
		}, relay.Accept, "", true, false},
		{"known to be invalid", func(w *world, b *consensus.Block, m []byte) []byte {
			w.learn(b)
			w.invalid[b.Hash] = true
			return m
		}, relay.Ignore, "known-invalid", false, false},
		{"on an invalid parent", func(w *world, _ *consensus.Block, m []byte) []byte {
			w.invalid[w.b.Params.GenesisHash] = true
			return m
		}, relay.Ignore, "known-invalid", false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			b := w.large(w.b.Genesis(), 1, 300, 80_000)
			msg := row.change(w, b, compact(t, w.b.Params, b.Raw, 1))
			v := w.judge().Check("peer", msg)
			if v.Result != row.result || v.Reason != row.reason || v.Orphan != row.orphan || (v.Compact != nil) != row.compact || v.Raw != nil {
				t.Fatalf("got %+v (%v)", v, v.Err)
			}
			if c := v.Compact; c != nil && (c.Hash != b.Hash || v.Hash != b.Hash || c.Height != 1 || v.Height != 1 || !c.Segwit || c.Txs() != 300) {
				t.Errorf("%+v", c)
			}
		})
	}
}

// TestEncodings: compact encodings of a header, which may be false, take up no place of
// a whole one, which proves itself and after which no compact one is news; what is
// not passed on is used, and what is rejected takes up no place.
func TestEncodings(t *testing.T) {
	t.Parallel()
	w := newWorld()
	j := w.judge()
	b := w.large(w.b.Genesis(), 1, 300, 80_000)
	check := func(from string, msg []byte, want string) {
		t.Helper()
		v := j.Check(from, msg)
		if v.Reason != want || (v.Result == relay.Accept) != (want == "") || (v.Raw == nil) == (v.Compact == nil) {
			t.Fatalf("%s: %+v, want reason %q", from, v, want)
		}
	}
	for i := range 5 {
		bad := compact(t, w.b.Params, b.Raw, uint64(i))
		if v := j.Check("evil", bad[:len(bad)-1]); v.Result != relay.Reject {
			t.Fatalf("%+v", v)
		}
	}
	check("a", compact(t, w.b.Params, b.Raw, 1), "")
	check("b", compact(t, w.b.Params, b.Raw, 2), "")
	check("c", compact(t, w.b.Params, b.Raw, 3), "encodings-cap")
	check("d", relay.Encode(b.Raw), "")
	c := w.large(w.b.Genesis(), 3, 300, 80_000)
	check("e", compact(t, w.b.Params, c.Raw, 1), "")
	check("f", relay.Encode(c.Raw), "")
	check("g", compact(t, w.b.Params, c.Raw, 2), "encodings-cap")
	check("a", compact(t, w.b.Params, w.large(w.b.Genesis(), 2, 300, 80_000).Raw, 1), "source-cap")
}

// TestMutatedFirst: a mutated copy that comes first, even many, and from the same
// peer, does not keep the real block from being used and passed on.
func TestMutatedFirst(t *testing.T) {
	t.Parallel()
	w := newWorld()
	j := w.judge()
	b := w.withTx(w.b.Genesis())
	for i := range 10 {
		bad := relay.Encode(b.Raw)
		bad[len(bad)-1-i%3] ^= 1 // lock time
		if v := j.Check("peer", bad); v.Result != relay.Reject || v.Raw != nil {
			t.Fatalf("mutated: %+v", v)
		}
	}
	if v := j.Check("peer", relay.Encode(b.Raw)); v.Result != relay.Accept || !bytes.Equal(v.Raw, b.Raw) {
		t.Fatalf("real: %+v", v)
	}
}

// TestCaps: what is passed on at one height, at each limit; all of it is handed
// to the chain.
func TestCaps(t *testing.T) {
	t.Parallel()
	w := newWorld()
	j := w.judge()
	var first *consensus.Block // accepted at the height
	check := func(from string, b *consensus.Block, want string) {
		t.Helper()
		v := j.Check(from, relay.Encode(b.Raw))
		if first == nil {
			first = b
		}
		if rival := v.Result == relay.Accept && b != first; v.Rival != rival {
			t.Fatalf("%s: %+v, want rival %v", from, v, rival)
		}
		if v.Reason != want || (v.Result == relay.Accept) != (want == "") || v.Raw == nil {
			t.Fatalf("%s: %+v, want reason %q", from, v, want)
		}
	}
	blocks := make([]*consensus.Block, relay.MaxHeadersPerHeight+1)
	for i := range blocks {
		blocks[i] = w.b.Mine(w.b.Genesis())
	}
	for range relay.MaxEncodings {
		check("a", blocks[0], "")
	}
	check("a", blocks[0], "encodings-cap")
	check("b", blocks[0], "encodings-cap")
	check("a", blocks[1], "source-cap")
	check("b", blocks[1], "")
	check("a", blocks[1], "") // another's header: a second encoding
	check("c", blocks[2], "")
	check("d", blocks[3], "height-cap")
	check("", blocks[3], "height-cap")
	// Another height is another matter.
	w.learn(blocks...)
	first = nil
	check("a", w.b.Mine(blocks[1]), "")
}

// TestOwnMessages: this node is no source.
func TestOwnMessages(t *testing.T) {
	t.Parallel()
	w := newWorld()
	j := w.judge()
	for range relay.MaxHeadersPerHeight {
		if v := j.Check("", relay.Encode(w.b.Mine(w.b.Genesis()).Raw)); v.Result != relay.Accept {
			t.Fatalf("%+v", v)
		}
	}
}

// TestMemory: whatever comes, what is remembered keeps its bounds, and heights
// far below are neither decoded nor remembered.
func TestMemory(t *testing.T) {
	t.Parallel()
	w := newWorld()
	j := w.judge()
	trunk := append([]*consensus.Block{w.b.Genesis()}, w.b.MineN(w.b.Genesis(), 2*relay.MaxHeights)...)
	w.learn(trunk...)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 2000 {
		parent := trunk[min(len(trunk)-2, i/8+r.IntN(len(trunk)))] // ever higher, but not the top
		j.Check(fmt.Sprint("peer", r.IntN(50)), relay.Encode(w.b.Mine(parent).Raw))
		heights, headers, sources := j.Held()
		if heights > relay.MaxHeights || headers > heights*relay.MaxHeadersPerHeight || sources > headers {
			t.Fatalf("%d heights, %d headers, %d sources", heights, headers, sources)
		}
	}
	if v := j.Check("x", relay.Encode(w.b.Mine(trunk[len(trunk)-1]).Raw)); v.Result != relay.Accept {
		t.Fatalf("%+v", v)
	}
	top := w.b.Height(trunk[len(trunk)-1].Hash) + 1
	if v := j.Check("y", relay.Encode(w.b.Mine(trunk[top-relay.MaxHeights-1]).Raw)); v.Reason != "old-height" || v.Raw != nil {
		t.Errorf("at the limit: %+v", v)
	}
}

// pool is a relay.Pool.
type pool []chainhash.Hash

// HaveTx implements relay.Pool.
func (p pool) HaveTx(id chainhash.Hash) bool { return slices.Contains(p, id) }

func encode(t testing.TB, tx *wire.MsgTx) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tx.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestTxVerdicts is the table of the package's documentation.
func TestTxVerdicts(t *testing.T) {
	t.Parallel()
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: 1}, nil, wire.TxWitness{{1}}))
	tx.AddTxOut(wire.NewTxOut(1, nil))
	good := encode(t, tx)
	tiny := tx.Copy()
	tiny.TxIn[0].Witness = make(wire.TxWitness, 100_000)
	for _, row := range []struct {
		name   string
		data   []byte
		pool   pool
		result relay.Result
		reason string
	}{
		{"good", good, nil, relay.Accept, ""},
		{"empty", nil, nil, relay.Reject, "bad-encoding"},
		{"cut", good[:len(good)-1], nil, relay.Reject, "bad-encoding"},
		{"a byte too many", append(slices.Clone(good), 0), nil, relay.Reject, "bad-encoding"},
		{"a count of billions", append(slices.Clone(good[:4]), 0xff, 1, 2, 3, 4, 5, 6, 7, 8), nil, relay.Reject, "bad-encoding"},
		{"very many tiny items", encode(t, tiny), nil, relay.Reject, "bad-encoding"},
		{"the largest, garbage", make([]byte, relay.MaxTxBytes), nil, relay.Reject, "bad-encoding"},
		{"a byte more", make([]byte, relay.MaxTxBytes+1), nil, relay.Reject, "oversize"},
		{"known", good, pool{tx.TxHash()}, relay.Ignore, "known"},
	} {
		v, got := relay.CheckTx(row.pool, row.data)
		if v.Result != row.result || v.Reason != row.reason || (got != nil) != (row.result == relay.Accept) {
			t.Errorf("%s: %+v", row.name, v)
		}
	}
	rule := func(b consensus.Blame) error {
		return fmt.Errorf("submit: %w", &consensus.RuleError{Rule: "some-rule", Blame: b})
	}
	for _, row := range []struct {
		name   string
		err    error
		result relay.Result
		reason string
	}{
		{"added", nil, relay.Accept, ""},
		{"the sender's fault", rule(consensus.BlameSender), relay.Reject, "some-rule"},
		{"invalid for ever", rule(consensus.BlameBlock), relay.Reject, "some-rule"},
		{"nobody's fault", rule(consensus.BlameNobody), relay.Ignore, "some-rule"},
		{"our own trouble", errors.New("disk"), relay.Ignore, "our-trouble"},
	} {
		if v := relay.TxVerdict(relay.Verdict{}, row.err); v.Result != row.result || v.Reason != row.reason || (v.Err != nil) != (row.result == relay.Reject) {
			t.Errorf("%s: %+v", row.name, v)
		}
	}
}

// inBounds runs f on n bytes of input and checks what it allocates: at most 8 times the
// input and 64 KiB.
func inBounds(t testing.TB, n int, f func()) {
	t.Helper()
	most := uint64(8*n + 64<<10)
	for tries := 0; ; tries++ { // others may allocate at the same time
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		got := after.TotalAlloc - before.TotalAlloc
		if got <= most {
			return
		}
		if tries == 4 {
			t.Fatalf("%d bytes took %d of memory, at most %d", n, got, most)
		}
	}
}

// FuzzBlockMessage: nothing crashes, and what is accepted is a block that hangs
// together, byte for byte what came.
func FuzzBlockMessage(f *testing.F) {
	w := newWorld()
	one := w.withTx(w.b.Genesis())
	f.Add(relay.Encode(one.Raw))
	f.Add(relay.Encode(w.b.Mine(w.b.Genesis()).Raw))
	f.Add(relay.Encode(w.b.Mine(one).Raw))
	f.Add(compact(f, w.b.Params, w.large(w.b.Genesis(), 1, 300, 80_000).Raw, 1))
	f.Add([]byte{1, 2, 3})
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, msg []byte) {
		judge := w.judge()
		var v relay.Verdict
		inBounds(t, len(msg), func() { v = judge.Check("peer", msg) })
		switch v.Result {
		case relay.Accept:
			if v.Reason != "" || v.Err != nil || v.Orphan {
				t.Fatalf("%+v", v)
			}
			if v.Compact != nil {
				if v.Raw != nil || msg[0] != byte(relay.CompactEncoding) || v.Compact.Hash != v.Hash {
					t.Fatalf("%+v", v)
				}
				return
			}
			if msg[0] != byte(relay.WholeBlock) || !bytes.Equal(v.Raw, msg[1:]) {
				t.Fatalf("%+v", v)
			}
			b, err := consensus.DecodeBlock(w.b.Params, v.Raw)
			if err != nil || b.Hash != v.Hash {
				t.Fatal(err)
			}
			if err := consensus.CheckCommitments(w.b.Params, true, b); err != nil {
				t.Fatal(err)
			}
		case relay.Ignore, relay.Reject:
			if v.Reason == "" || v.Raw != nil || v.Compact != nil {
				t.Fatalf("%+v", v)
			}
		default:
			t.Fatalf("%+v", v)
		}
	})
}

// FuzzTxMessage: nothing crashes, and what is accepted encodes to what came: a
// transaction has one encoding, so one message id.
func FuzzTxMessage(f *testing.F) {
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: 1}, []byte{1}, nil))
	tx.AddTxOut(wire.NewTxOut(1, []byte{2}))
	f.Add(encode(f, tx))
	tx.TxIn[0].Witness = wire.TxWitness{{1, 2}, nil}
	f.Add(encode(f, tx))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var v relay.Verdict
		var tx *wire.MsgTx
		inBounds(t, len(msg), func() { v, tx = relay.CheckTx(pool(nil), msg) })
		if (tx != nil) != (v.Result == relay.Accept) || (v.Reason == "") != (v.Result == relay.Accept) {
			t.Fatalf("%+v", v)
		}
		if tx != nil && (!bytes.Equal(encode(t, tx), msg) || tx.TxHash() != v.Hash) {
			t.Fatal("decodes to another transaction")
		}
	})
}
