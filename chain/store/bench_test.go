package store_test

import (
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

func benchStore(b *testing.B) *store.Store {
	b.Helper()
	o := options(vfs.Default)
	o.Dir = b.TempDir()
	o.MaxFileBytes, o.MaxRecordBytes, o.CacheBytes = 0, 0, 0
	return open(b, o)
}

func BenchmarkAppendBlock(b *testing.B) {
	for name, n := range map[string]int{"285 B": 285, "1 MB": 1e6, "4 MB": 4e6} {
		b.Run(name, func(b *testing.B) {
			s := benchStore(b)
			raw := make([]byte, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i > 0 && i%max(1, int(5e8)/n) == 0 { // as a node: do not fill the page cache
					b.StopTimer()
					must(b, s.Commit(s.NewBatch()))
					b.StartTimer()
				}
				if _, err := s.AppendBlock(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReadBlock(b *testing.B) {
	s := benchStore(b)
	p, err := s.AppendBlock(make([]byte, 1e6))
	must(b, err)
	b.SetBytes(1e6)
	for b.Loop() {
		if _, err := s.ReadBlock(p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommit commits 100,000 new coins and deletes half of the last ones.
func BenchmarkCommit(b *testing.B) {
	const coins = 100_000
	s := benchStore(b)
	r := rand.New(rand.NewPCG(1, 2))
	script := make([]byte, 25)
	var last []wire.OutPoint
	for b.Loop() {
		batch := s.NewBatch()
		for _, op := range last[:len(last)/2] {
			batch.DeleteCoin(op)
		}
		last = last[:0]
		for i := range coins {
			op := wire.OutPoint{Index: uint32(i % 3)}
			for j := range op.Hash {
				op.Hash[j] = byte(r.Uint32())
			}
			batch.PutCoin(op, consensus.Coin{Value: 50e8, Script: script, Height: 500_000})
			last = append(last, op)
		}
		must(b, s.Commit(batch))
	}
	b.ReportMetric(float64(coins)*float64(b.N)/b.Elapsed().Seconds(), "coins/s")
}

// BenchmarkCommitOne is the commit that a mined block waits for.
func BenchmarkCommitOne(b *testing.B) {
	s := benchStore(b)
	raw := make([]byte, 300)
	for b.Loop() {
		if _, err := s.AppendBlock(raw); err != nil {
			b.Fatal(err)
		}
		must(b, s.Commit(s.NewBatch()))
	}
}

func BenchmarkCoin(b *testing.B) {
	s := benchStore(b)
	batch := s.NewBatch()
	for i := range uint32(100_000) {
		batch.PutCoin(wire.OutPoint{Index: i * 7919}, consensus.Coin{Value: 1, Script: make([]byte, 25), Height: 1})
	}
	must(b, s.Commit(batch))
	for name, step := range map[string]uint32{"found": 7919, "missing": 7920} {
		b.Run(name, func(b *testing.B) {
			for i := uint32(1); b.Loop(); i = i%99_000 + 1 {
				if _, _, err := s.Coin(wire.OutPoint{Index: i * step}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	o := options(vfs.Default)
	o.Dir = b.TempDir()
	o.CacheBytes = 0
	for b.Loop() {
		s, err := store.Open(o)
		must(b, err)
		must(b, s.Close())
	}
}
