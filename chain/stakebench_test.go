package chain_test

import (
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/consensus/pow"
)

// BenchmarkIBDStake takes a chain in as sync does, headers in full replies as far ahead as
// is allowed, then their blocks, into a fresh chain on disk until all is committed:
// by turns one of work and one of stake, with the same rules but for what proves a block
// and with the same number and kind of transactions. "ratio" is blocks a second of stake
// over those of work; "cpu-ratio" the same by the processor's time, which other work on
// the machine changes less. Blocks without transactions are the worst case: there is nothing
// then that costs what the signature of a seal does.
func BenchmarkIBDStake(b *testing.B) {
	for _, bb := range []struct {
		name           string
		blocks, inputs int
	}{
		{"empty", 3000, 0},
		{"one", 1000, 1},
		{"four", 600, 4},
		{"full", 20, 400},
	} {
		b.Run(bb.name, func(b *testing.B) {
			work, blocksOfWork := proofChain(b, false, bb.blocks, bb.inputs)
			stake, blocksOfStake := proofChain(b, true, bb.blocks, bb.inputs)
			var spent, cpu [2]time.Duration
			for b.Loop() {
				for i, side := range []func() time.Duration{
					func() time.Duration { return takeIn(b, work, blocksOfWork) },
					func() time.Duration { return takeIn(b, stake, blocksOfStake) },
				} {
					before := processorTime(b)
					spent[i] += side()
					cpu[i] += processorTime(b) - before
				}
			}
			n := float64(b.N * len(blocksOfWork))
			b.ReportMetric(0, "ns/op") // the sum of both says nothing
			b.ReportMetric(n/spent[0].Seconds(), "work-blocks/s")
			b.ReportMetric(n/spent[1].Seconds(), "stake-blocks/s")
			b.ReportMetric(spent[0].Seconds()/spent[1].Seconds(), "ratio")
			b.ReportMetric(cpu[0].Seconds()/cpu[1].Seconds(), "cpu-ratio")
		})
	}
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	runtime.GC() // what is left over by now counts before
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// proofChain makes a chain of n blocks with some signed inputs each, after as many as
// are needed for coins.
func proofChain(b *testing.B, stake bool, n, inputs int) (network engineOf, blocks []*consensus.Block) {
	b.Helper()
	custom := consensus.Custom{Name: "bench", GenesisTime: time.Unix(1_700_000_000, 0), Spacing: 64 * time.Second, HalvingInterval: 1 << 30, Subsidy: 50e8}
	if stake {
		custom.Holders = consensus.StakenetHolders()
	}
	p, err := consensus.New(custom)
	if err != nil {
		b.Fatal(err)
	}
	builder := enginetest.NewBuilder(p)
	var engine consensus.Engine
	if stake {
		s := enginetest.NewStakenet(p)
		e := pos.New(p)
		engine, builder.Engine, builder.Prepare, builder.Seal = e, e, s.Prepare, s.Seal
	} else {
		e := pow.New(p)
		engine, builder.Engine = e, e
	}
	tip := builder.Genesis()
	mine := func(t enginetest.Template) {
		tip = builder.MineTemplate(tip, t)
		blocks = append(blocks, tip)
	}
	key := enginetest.NewKey(1)
	var coins []wire.OutPoint // each of value
	const value = 100_000
	if inputs > 0 {
		first := len(blocks)
		lots := (n*inputs + 1999) / 2000
		for range lots {
			mine(enginetest.Template{Script: key.Script()})
		}
		for range 100 {
			mine(enginetest.Template{})
		}
		for i := range lots {
			coinbase := blocks[first+i].Txs[0]
			tx := wire.NewMsgTx(2)
			tx.AddTxIn(wire.NewTxIn(wire.NewOutPoint(coinbase.Hash(), 0), nil, nil))
			for range 2000 {
				tx.AddTxOut(wire.NewTxOut(value, key.Script()))
			}
			key.Sign(tx, []consensus.Coin{{Value: 50e8, Script: key.Script()}})
			mine(enginetest.Template{Txs: []*wire.MsgTx{tx}})
			id := tx.TxHash()
			for k := range uint32(2000) {
				coins = append(coins, wire.OutPoint{Hash: id, Index: k})
			}
		}
	}
	for range n {
		var txs []*wire.MsgTx
		for range inputs {
			tx := wire.NewMsgTx(2)
			tx.AddTxIn(wire.NewTxIn(&coins[0], nil, nil))
			coins = coins[1:]
			tx.AddTxOut(wire.NewTxOut(value-1000, key.Script()))
			key.Sign(tx, []consensus.Coin{{Value: value, Script: key.Script()}})
			txs = append(txs, tx)
		}
		mine(enginetest.Template{Txs: txs})
	}
	return engineOf{engine, p}, blocks
}

// engineOf is an engine that knows its network.
type engineOf struct {
	consensus.Engine
	p *consensus.Params
}

// takeIn is the time that a chain takes to take in all blocks, in a folder on disk.
func takeIn(b *testing.B, network engineOf, blocks []*consensus.Block) time.Duration {
	b.Helper()
	start := time.Now()
	h := open(b, func(o *chain.Options) {
		o.Params, o.Engine, o.FS, o.Dir = network.p, network.Engine, vfs.Default, b.TempDir()
	})
	hs := headersOf(blocks)
	for len(hs) > 0 {
		n := min(len(hs), 2000)
		if _, _, err := h.AcceptHeaders(b.Context(), hs[:n]); err != nil {
			b.Fatal(err)
		}
		hs = hs[n:]
	}
	for i, v := range h.submitAll(blocks) {
		if v.Outcome != chain.Connected {
			b.Fatalf("block %d: %+v", i, v)
		}
	}
	h.close()
	return time.Since(start)
}
