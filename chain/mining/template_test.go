package mining_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/mempool"
	"dunlin/chain/mining"
)

// TestTemplateOnEveryNetwork: what a template says is accepted by the chain, from
// the first height on, where a height is one opcode, with the longest texts.
func TestTemplateOnEveryNetwork(t *testing.T) {
	t.Parallel()
	mint := ownNetwork(t)
	mint.BaseSubsidy = btcutil.MaxSatoshi // and no output may hold more
	now := time.Unix(2_000_000_000, 0)
	for name, p := range map[string]*consensus.Params{
		"regtest": consensus.Regtest(), "simnet": consensus.Simnet(), "ours": ownNetwork(t), "all the money": mint,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, p, func() time.Time { return now })
			seen := make(map[chainhash.Hash]bool)
			for h := int32(1); h <= 20; h++ {
				tip, _ := c.Tip()
				o := mining.TemplateOptions{PayTo: enginetest.OpTrue(), Now: now, ExtraNonce: uint64(h)}
				switch h % 4 {
				case 1:
					o.Data = strings.Repeat("d", mining.MaxDataBytes)
					o.CoinbaseText = strings.Repeat("t", mining.MaxCoinbaseTextBytes)
					o.ExtraNonce = 1<<64 - 1
					o.PayTo = slices.Repeat([]byte{txscript.OP_NOP}, mining.MaxPayToBytes)
				case 2:
					o.Data, o.CoinbaseText = "x", "y"
				case 3:
					o.ExtraNonce, o.CoinbaseText = binary.BigEndian.Uint64([]byte("printed?")), "text"
				}
				tpl, err := mining.NewTemplate(c, pow.New(p), tip, o)
				if err != nil {
					t.Fatal(err)
				}
				// A coinbase keeps what was set aside for it.
				cb := tpl.Txs[0]
				if w := 3*cb.SerializeSizeStripped() + cb.SerializeSize() + 4*(consensus.HeaderBytes+9); w > mining.CoinbaseWeight {
					t.Errorf("coinbase and header weigh %d", w)
				}
				if v := submit(t, c, tpl); v.Outcome != chain.Connected {
					t.Fatalf("height %d: outcome %d: %v", h, v.Outcome, v.Err)
				}
				b := block(t, c, h)
				if id := *b.Txs[0].Hash(); seen[id] {
					t.Errorf("coinbase of height %d has the id of another", h)
				} else {
					seen[id] = true
				}
				if got := consensus.CoinbaseText(b); got != o.CoinbaseText && len(o.CoinbaseText) > 1 {
					t.Errorf("text %q, want %q", got, o.CoinbaseText)
				}
				if got := consensus.CoinbaseData(b); got != o.Data {
					t.Errorf("data %q, want %q", got, o.Data)
				}
			}
		})
	}
}

func TestTemplateRefusals(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	c := open(t, p, time.Now)
	tip, _ := c.Tip()
	for _, row := range []struct {
		name string
		o    mining.TemplateOptions
		want error
	}{
		{"data too long", mining.TemplateOptions{PayTo: enginetest.OpTrue(), Data: strings.Repeat("x", 81)}, mining.ErrDataTooLong},
		{"text too long", mining.TemplateOptions{PayTo: enginetest.OpTrue(), CoinbaseText: strings.Repeat("x", 61)}, mining.ErrTextTooLong},
		{"no script", mining.TemplateOptions{}, mining.ErrPayTo},
		{"a long script", mining.TemplateOptions{PayTo: make([]byte, 101)}, mining.ErrPayTo},
		{"a script of signatures", mining.TemplateOptions{PayTo: slices.Repeat([]byte{txscript.OP_CHECKMULTISIG}, 6)}, mining.ErrPayTo},
	} {
		if _, err := mining.NewTemplate(c, pow.New(p), tip, row.o); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
	_, err := mining.New(mining.Options{CoinbaseText: strings.Repeat("x", 61), Interval: -1})
	for _, part := range []string{"chain", "pay to", "text", "interval"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("options: %v does not name %s", err, part)
		}
	}
}

// TestExtraNonce: each opens another search space and changes nothing else.
func TestExtraNonce(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	c := open(t, p, time.Now)
	tip, _ := c.Tip()
	tpl, err := mining.NewTemplate(c, pow.New(p), tip, mining.TemplateOptions{PayTo: enginetest.OpTrue(), Now: time.Unix(2e9, 0)})
	if err != nil {
		t.Fatal(err)
	}
	roots := map[chainhash.Hash]bool{tpl.Header.MerkleRoot: true}
	for range 300 { // over the borders of opcodes and bytes
		tpl.Header.Nonce = 99
		if err := tpl.NextExtraNonce(); err != nil {
			t.Fatal(err)
		}
		if roots[tpl.Header.MerkleRoot] || tpl.Header.Nonce != 0 {
			t.Fatal("the same search space again")
		}
		roots[tpl.Header.MerkleRoot] = true
	}
}

// TestEarliest: the rules on time, when our clock is behind the chain's.
func TestEarliest(t *testing.T) {
	t.Parallel()
	bip54, bip94, plain := ownNetwork(t), consensus.Regtest(), consensus.Regtest()
	bip94.EnforceBIP94, plain.EnforceBIP94 = true, false
	past := func(height int32) *enginetest.FakePast {
		p := &enginetest.FakePast{At0: height, Time: 1000, Spacing: 0, Times: map[int32]int64{}}
		for h := height - 11; h <= height; h++ {
			p.Times[h] = 500
		}
		p.Times[height] = 9000
		p.Times[2016] = 8000 // the first of a period
		return p
	}
	for _, row := range []struct {
		name   string
		p      *consensus.Params
		parent int32
		want   int64
	}{
		{"median time past", plain, 100, 501},
		{"BIP54 inside a period", bip54, 3000, 501},
		{"BIP54 first of a period", bip54, 4031, 9000},
		{"BIP54 last of a period", bip54, 4030, 8000},
		{"BIP94 first of a period", bip94, 4031, 9000},
		{"BIP94 last of a period", bip94, 4030, 501},
		{"neither", plain, 4031, 501},
	} {
		if got := mining.EarliestTime(row.p, past(row.parent)); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
}

func ids(es []*mempool.Entry) string {
	var b strings.Builder
	for _, e := range es {
		b.WriteByte('a' + e.ID[0])
	}
	return b.String()
}

// TestChoose is the table of what goes into a block, in what order.
func TestChoose(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	room := p.MaxBlockWeight - mining.CoinbaseWeight
	ops := p.MaxBlockSigOpsCost - mining.CoinbaseSigOps
	a := entry(0, 100, 1000, 0)
	b := entry(1, 5000, 1000, 0, a) // pays for a
	c := entry(2, 2000, 1000, 0)
	d := entry(3, 100, 1000, 0, b)
	locked := entry(4, 1e6, 1000, 0)
	locked.Tx.LockTime, locked.Tx.TxIn[0].Sequence = 500, 0
	rich := entry(0, btcutil.MaxSatoshi, 400_000, 0)
	for _, row := range []struct {
		name string
		in   []mempool.Entry
		want string
	}{
		{"nothing", nil, ""},
		{"by fee rate", []mempool.Entry{a, c}, "ca"},
		{"a child pays for its parent", []mempool.Entry{a, b, c, d}, "abcd"},
		{"a missing parent", []mempool.Entry{b, c}, "c"},
		{"equal rates by age", []mempool.Entry{entry(0, 10, 100, 0), entry(1, 20, 200, 0)}, "ab"},
		{"not final, nor what builds on it", []mempool.Entry{locked, entry(5, 1e6, 100, 0, locked), c}, "c"},
		{"exactly full", []mempool.Entry{entry(0, 9, room-10, 0), entry(1, 1, 10, 0)}, "ba"},
		{"one too heavy, a smaller one fits", []mempool.Entry{entry(0, 10*int64(room), room+1, 0), entry(1, 1, 100, 0)}, "b"},
		{"signature operations", []mempool.Entry{entry(0, 100_000_000, 100, ops), entry(1, 400, 100, 1), entry(2, 1, 100, 0)}, "ac"},
		{"a package that does not fit, its parent does", []mempool.Entry{entry(0, 500, room-50, 0), entry(1, 100_000_000, 100, 0, entry(0, 0, 0, 0)), entry(2, 1, 10, 0)}, "ca"},
		{"fees beyond all money", []mempool.Entry{rich, entry(1, btcutil.MaxSatoshi, 399_999, 0)}, "b"},
	} {
		if got := ids(mining.Choose(p, row.in, 100, 100)); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

// TestChooseRandom: whatever the families, a block has parents before children,
// nothing twice, keeps the limits, and leaves out nothing that would have fit.
func TestChooseRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		p := consensus.Regtest()
		p.MaxBlockWeight = mining.CoinbaseWeight + 1000 + r.IntN(20_000)
		p.MaxBlockSigOpsCost = mining.CoinbaseSigOps + r.IntN(200)
		var in []mempool.Entry
		for i := range 5 + r.IntN(60) {
			var parents []mempool.Entry
			for range r.IntN(3) {
				if i > 0 {
					if q := in[max(0, i-1-r.IntN(8))]; !slices.ContainsFunc(parents, func(e mempool.Entry) bool { return e.ID == q.ID }) {
						parents = append(parents, q)
					}
				}
			}
			in = append(in, entry(byte(i), r.Int64N(5000), 100+r.IntN(900), r.IntN(8), parents...))
		}
		out := mining.Choose(p, in, 100, 100)
		got := make(map[chainhash.Hash]bool)
		weight, sigOps := mining.CoinbaseWeight, mining.CoinbaseSigOps
		for _, e := range out {
			for _, parent := range e.Parents {
				if !got[parent] {
					t.Fatalf("seed %d: child before parent", seed)
				}
			}
			if got[e.ID] {
				t.Fatalf("seed %d: twice", seed)
			}
			got[e.ID] = true
			weight += e.Weight
			sigOps += e.SigOpCost
		}
		if weight > p.MaxBlockWeight || sigOps > p.MaxBlockSigOpsCost {
			t.Fatalf("seed %d: weight %d, sigops %d", seed, weight, sigOps)
		}
		for _, e := range in {
			ready := !got[e.ID] && !slices.ContainsFunc(e.Parents, func(h chainhash.Hash) bool { return !got[h] })
			if ready && weight+e.Weight <= p.MaxBlockWeight && sigOps+e.SigOpCost <= p.MaxBlockSigOpsCost {
				t.Fatalf("seed %d: left out one that fits", seed)
			}
		}
	}
}

// BenchmarkTemplate makes templates of 5,000 entries in families of five.
func BenchmarkTemplate(b *testing.B) {
	p := consensus.Regtest()
	c := open(b, p, time.Now)
	tip, _ := c.Tip()
	r := rand.New(rand.NewPCG(1, 1))
	entries := make([]mempool.Entry, 5000)
	for i := range entries {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: uint32(i)}, nil, wire.TxWitness{make([]byte, 72), make([]byte, 33)}))
		tx.AddTxOut(wire.NewTxOut(1, make([]byte, 22)))
		e := mempool.Entry{Tx: tx, ID: tx.TxHash(), Fee: r.Int64N(100_000), Weight: 3*tx.SerializeSizeStripped() + tx.SerializeSize(), SigOpCost: 1}
		if i%5 > 0 {
			e.Parents = []chainhash.Hash{entries[i-1].ID}
		}
		entries[i] = e
	}
	b.ResetTimer()
	for b.Loop() {
		tpl, err := mining.NewTemplate(c, pow.New(p), tip, mining.TemplateOptions{PayTo: enginetest.OpTrue(), Now: time.Unix(2e9, 0), Entries: entries})
		if err != nil || len(tpl.Txs) != 5001 {
			b.Fatal(len(tpl.Txs), err)
		}
	}
}
