//go:build unix

package chain_test

import (
	"runtime"
	"syscall"
	"testing"
	"time"

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
		name string
		enginetest.Recipe
	}{
		{"empty", enginetest.Recipe{Blocks: 3000}},
		{"empty-thousand-keys", enginetest.Recipe{Blocks: 3000, Holders: 1000}},
		{"one", enginetest.Recipe{Blocks: 1000, Inputs: 1}},
		{"four", enginetest.Recipe{Blocks: 600, Inputs: 4}},
		{"full", enginetest.Recipe{Blocks: 20, Inputs: 400}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			work, blocksOfWork := proofChain(b, bb.Recipe)
			bb.Stake = true
			stake, blocksOfStake := proofChain(b, bb.Recipe)
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

func proofChain(b *testing.B, r enginetest.Recipe) (engineOf, []*consensus.Block) {
	b.Helper()
	p, blocks, err := r.Make()
	if err != nil {
		b.Fatal(err)
	}
	if r.Stake {
		return engineOf{pos.New(p), p}, blocks
	}
	return engineOf{pow.New(p), p}, blocks
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
