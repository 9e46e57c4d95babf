package chain_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/blockchain/fullblocktests"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

// ruleOf maps btcd's error codes to our rules, for the codes that the suite uses.
var ruleOf = map[blockchain.ErrorCode]string{
	blockchain.ErrBadCoinbaseHeight:    "bad-cb-height",
	blockchain.ErrBadCoinbaseScriptLen: "bad-cb-length",
	blockchain.ErrBadCoinbaseValue:     "bad-cb-amount",
	blockchain.ErrBadMerkleRoot:        "bad-txnmrklroot",
	blockchain.ErrBlockTooBig:          "bad-blk-length",
	blockchain.ErrDuplicateTx:          "bad-txns-duplicate",
	blockchain.ErrFirstTxNotCoinbase:   "bad-cb-missing",
	blockchain.ErrHighHash:             "high-hash",
	blockchain.ErrImmatureSpend:        "bad-txns-premature-spend-of-coinbase",
	blockchain.ErrMissingTxOut:         "bad-txns-inputs-missingorspent",
	blockchain.ErrMultipleCoinbases:    "bad-cb-multiple",
	blockchain.ErrNoTransactions:       "bad-blk-length",
	blockchain.ErrOverwriteTx:          "bad-txns-BIP30",
	blockchain.ErrSpendTooHigh:         "bad-txns-in-belowout",
	blockchain.ErrTimeTooNew:           "time-too-new",
	blockchain.ErrTimeTooOld:           "time-too-old",
	blockchain.ErrTooManySigOps:        "bad-blk-sigops",
	blockchain.ErrUnexpectedDifficulty: "bad-diffbits",
	blockchain.ErrUnfinalizedTx:        "bad-txns-nonfinal",
}

// asCore has the blocks for which btcd and Bitcoin Core differ; we do as Core.
var asCore = map[string]struct {
	rule  string
	aside bool // the fault shows only when the block is connected
}{
	// Bits that are a negative number: Core looks at the work first.
	"b49a": {rule: "high-hash"},
	// The same transaction twice, but not as a pair of the merkle tree: no mutant
	// (CVE-2012-2459), just a double spend. Beside the active chain nobody looks.
	"b51":   {rule: "bad-txns-inputs-missingorspent"},
	"b56p2": {rule: "bad-txns-inputs-missingorspent", aside: true},
}

// TestFullBlocks runs btcd's port of the block acceptance tests that Bitcoin Core
// has too: every block gets the expected verdict, for the expected rule, and every
// tip is the expected one. The soft forks that the suite's network has by BIP9 and
// never activates must make no difference, so it runs without and with them.
func TestFullBlocks(t *testing.T) {
	if testing.Short() {
		// The race detector makes some 20,000 signature checks of a block take
		// minutes; what runs at the same time is raced by the other tests.
		t.Skip("long under the race detector: run without -short")
	}
	for _, tt := range []struct {
		name   string
		change func(*consensus.Params)
	}{
		{"no soft fork", func(p *consensus.Params) {
			p.CSVHeight, p.SegwitHeight, p.TaprootHeight = math.MaxInt32, math.MaxInt32, math.MaxInt32
		}},
		{"regtest", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			// The suite signs with fresh randomness and knows the time, so its
			// blocks are new ones each time.
			tests, err := fullblocktests.Generate(slow && tt.change == nil)
			if err != nil {
				t.Fatal(err)
			}
			p := consensus.Regtest() // which the suite's parameters are, see its params.go
			if tt.change != nil {
				tt.change(p)
			}
			s := &suite{
				home: open(t, func(o *chain.Options) {
					o.Params, o.Now = p, time.Now
					if slow { // gigabytes
						o.FS, o.Dir = vfs.Default, t.TempDir()
					}
				}),
				orphans: make(map[chainhash.Hash][][]byte),
				seen:    make(map[chainhash.Hash][]byte),
			}
			for _, test := range tests {
				for _, instance := range test {
					s.do(instance)
				}
			}
			if s.instances < 100 {
				t.Errorf("%d instances, the suite has more", s.instances)
			}
			s.again()
			if slow && tt.change == nil { // for dunlin-bench all
				t.Attr("figure", fmt.Sprintf("reorg/fullblocks %.5g", time.Since(began).Seconds()))
			}
		})
	}
}

// A suite runs the instances against one chain. As a node does, it keeps blocks
// whose parent is unknown and submits them again behind their parent.
type suite struct {
	*home
	orphans   map[chainhash.Hash][][]byte // by parent
	seen      map[chainhash.Hash][]byte   // every block that could be read
	instances int
}

// give submits a block and whatever waited for it. It returns the verdict on the
// block and the first on one that was refused.
func (s *suite) give(raw []byte) (first chain.Verdict, refused *chain.Verdict) {
	s.t.Helper()
	first = s.submit(raw)
	s.seen[chainhash.DoubleHashH(raw[:consensus.HeaderBytes])] = raw
	todo := []chain.Verdict{first}
	if first.Outcome == chain.Orphan {
		parent := parentOf(raw)
		s.orphans[parent] = append(s.orphans[parent], raw)
	}
	for len(todo) > 0 {
		v := todo[0]
		todo = todo[1:]
		if v.Outcome == chain.Refused && refused == nil {
			refused = &v
		}
		if v.Outcome == chain.Connected || v.Outcome == chain.SideChain {
			for _, raw := range s.orphans[v.Hash] {
				todo = append(todo, s.submit(raw))
			}
			delete(s.orphans, v.Hash)
		}
	}
	return first, refused
}

func (s *suite) do(instance fullblocktests.TestInstance) {
	s.t.Helper()
	s.instances++
	switch x := instance.(type) {
	case fullblocktests.AcceptedBlock:
		want := chain.SideChain
		switch {
		case x.IsOrphan:
			want = chain.Orphan
		case x.IsMainChain:
			want = chain.Connected
		}
		v, _ := s.give(bytesOf(s.t, x.Block))
		if v.Outcome != want {
			s.t.Fatalf("block %s: outcome %v (%v), want %v", x.Name, v.Outcome, v.Err, want)
		}
		if want != chain.Orphan && v.Height != x.Height {
			s.t.Fatalf("block %s: height %d, want %d", x.Name, v.Height, x.Height)
		}
		if want == chain.Connected {
			s.wantTipHash(x.Name, x.Block.BlockHash(), x.Height)
		}
	case fullblocktests.RejectedBlock:
		want, ok := ruleOf[x.RejectCode]
		if !ok {
			s.t.Fatalf("block %s: no rule for %v", x.Name, x.RejectCode)
		}
		differs := asCore[x.Name]
		if differs.rule != "" {
			want = differs.rule
		}
		v, refused := s.give(bytesOf(s.t, x.Block))
		switch {
		case differs.aside:
			if v.Outcome != chain.SideChain {
				s.t.Fatalf("block %s: outcome %v (%v), want a side chain", x.Name, v.Outcome, v.Err)
			}
			s.checkAtTip(x.Name, v.Hash, want)
		case refused == nil:
			s.t.Fatalf("block %s: not refused, want %s", x.Name, want)
		default:
			var r *consensus.RuleError
			if errors.As(refused.Err, &r) && r.Rule == "bad-prevblk" {
				// An ancestor that was beside the active chain until now is at fault.
				s.checkAtTip(x.Name, s.culprit(refused.Hash), want)
			} else if r == nil || r.Rule != want {
				s.t.Errorf("block %s: %v, want %s", x.Name, refused.Err, want)
			}
		}
	case fullblocktests.RejectedNonCanonicalBlock:
		v, _ := s.give(x.RawBlock)
		if v.Outcome != chain.Refused {
			s.t.Fatalf("block %s: outcome %v, want refused", x.Name, v.Outcome)
		}
		checkRule(s.t, v.Err, "bad-encoding")
	case fullblocktests.OrphanOrRejectedBlock:
		if v, _ := s.give(bytesOf(s.t, x.Block)); v.Outcome != chain.Orphan && v.Outcome != chain.Refused {
			s.t.Fatalf("block %s: outcome %v (%v), want orphan or refused", x.Name, v.Outcome, v.Err)
		}
	case fullblocktests.ExpectedTip:
		s.wantTipHash(x.Name, x.Block.BlockHash(), x.Height)
	case fullblocktests.BlockDisconnectExpectUTXO:
		s.without(x.BlockHash, func() {
			_, ok, err := s.Coin(x.OutPoint)
			if err != nil {
				s.t.Fatal(err)
			}
			if ok != x.Expected {
				s.t.Errorf("%s after %v was disconnected: there %v, want %v", x.Name, x.BlockHash, ok, x.Expected)
			}
		})
	default:
		s.t.Fatalf("instance of unknown type %T", x)
	}
}

// culprit returns the oldest invalid ancestor of a block.
func (s *suite) culprit(hash chainhash.Hash) chainhash.Hash {
	s.t.Helper()
	for {
		parent := parentOf(s.seen[hash])
		if st, ok := s.Status(parent); !ok || !st.Invalid {
			return hash
		}
		hash = parent
	}
}

// checkAtTip submits a block to a fresh chain that ends in its parent, where it
// must break the rule.
func (s *suite) checkAtTip(name string, hash chainhash.Hash, rule string) {
	s.t.Helper()
	var branch [][]byte
	for at := parentOf(s.seen[hash]); at != s.o.Params.GenesisHash; at = parentOf(s.seen[at]) {
		branch = append(branch, s.seen[at])
	}
	fresh := open(s.t, func(o *chain.Options) { o.Params, o.Now = s.o.Params, s.o.Now })
	defer fresh.close()
	for _, raw := range slices.Backward(branch) {
		if v := fresh.submit(raw); v.Outcome != chain.Connected {
			s.t.Fatalf("ancestor %v of block %s: outcome %v (%v)", v.Hash, name, v.Outcome, v.Err)
		}
	}
	var r *consensus.RuleError
	if v := fresh.submit(s.seen[hash]); v.Outcome != chain.Refused || !errors.As(v.Err, &r) || r.Rule != rule {
		s.t.Errorf("block %s at the tip: outcome %v (%v), want %s", name, v.Outcome, v.Err, rule)
	}
}

func parentOf(raw []byte) (hash chainhash.Hash) {
	copy(hash[:], raw[4:])
	return hash
}

func (s *suite) wantTipHash(name string, hash chainhash.Hash, height int32) {
	s.t.Helper()
	if tip, _ := s.Tip(); tip.Hash != hash || tip.Height != height {
		s.t.Fatalf("block %s: tip %v at height %d, want %v at %d", name, tip.Hash, tip.Height, hash, height)
	}
}

// without calls f while the parent of an active block is the tip.
func (s *suite) without(hash chainhash.Hash, f func()) {
	s.t.Helper()
	ctx := context.Background()
	before, _ := s.Tip()
	st, _ := s.Status(hash)
	put := []chainhash.Hash{hash}
	for _, tip := range s.Tips() { // what would be the tip instead
		rival, ok := s.Ancestor(tip.Tip.Hash, st.Height)
		if ok && tip.Status != "active" && tip.Status != "invalid" && !slices.Contains(put, rival) {
			put = append(put, rival)
		}
	}
	for _, h := range slices.Backward(put) {
		if err := s.Invalidate(ctx, h); err != nil {
			s.t.Fatal(err)
		}
	}
	s.wantTipHash("without "+hash.String(), st.Header.PrevBlock, st.Height-1)
	f()
	for _, h := range put {
		if err := s.Reconsider(ctx, h); err != nil {
			s.t.Fatal(err)
		}
	}
	s.wantTipHash("with it again", before.Hash, before.Height)
}

// again checks that what is on disk is what was seen: after a restart and after
// everything was built anew from the block files the tip is the same, and the
// coins are those of a chain that never saw but the active branch.
func (s *suite) again() {
	s.t.Helper()
	tip, _ := s.Tip()
	s.reopen()
	s.wantTipHash("after a restart", tip.Hash, tip.Height)
	twin := open(s.t, func(o *chain.Options) {
		o.Params, o.Now = s.o.Params, s.o.Now
		if slow {
			o.FS, o.Dir = vfs.Default, s.t.TempDir()
		}
	})
	r, w := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { w.CloseWithError(s.Export(context.Background(), w, 0, -1)) })
	_, err := twin.Import(context.Background(), r, nil)
	r.CloseWithError(err)
	wg.Wait()
	if err != nil {
		s.t.Fatal(err)
	}
	(&suite{home: twin}).wantTipHash("of the twin", tip.Hash, tip.Height)
	want := twin.coins()
	sameCoins(s.t, s.coins(), want)

	s.o.Reindex = true
	s.start()
	s.wantTipHash("after a reindex", tip.Hash, tip.Height)
	sameCoins(s.t, s.coins(), want)
}

func bytesOf(t testing.TB, b *wire.MsgBlock) []byte {
	t.Helper()
	var raw bytes.Buffer
	if err := b.Serialize(&raw); err != nil {
		t.Fatal(err)
	}
	return raw.Bytes()
}
