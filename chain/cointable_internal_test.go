package chain

import (
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// A table under random additions, removals and look-ups is a map, and its numbers
// and scripts hold while it grows and shrinks.
func TestCoinTable(t *testing.T) {
	t.Parallel()
	const seed = 88
	r := rand.New(rand.NewPCG(seed, 0))
	type coin struct {
		script string
		number uint32
	}
	table, model := newCoinTable(), make(map[wire.OutPoint]coin)
	outpoint := func() (op wire.OutPoint) {
		op.Hash[0], op.Hash[31], op.Index = byte(r.IntN(40)), byte(r.IntN(40)), r.Uint32N(4)
		return op
	}
	check := func() {
		t.Helper()
		if table.count() != len(model) {
			t.Fatalf("seed %d: %d entries, want %d", seed, table.count(), len(model))
		}
		used := 0
		for i := range table.shards {
			used += table.shards[i].used
		}
		if used != len(model) {
			t.Fatalf("seed %d: %d slots in use, want %d", seed, used, len(model))
		}
		for op, want := range model {
			i, ok := table.find(&op)
			if !ok || i != want.number || string(table.script(i)) != want.script || !table.has(i, 0) {
				t.Fatalf("seed %d: %v is number %d (found %v) with script %x, want %+v", seed, op, i, ok, table.script(i), want)
			}
		}
	}
	for phase := range 6 {
		grow := phase%2 == 0
		for range 4000 {
			op := outpoint()
			i, had := table.find(&op)
			if want, ok := model[op]; had != ok || had && i != want.number {
				t.Fatalf("seed %d: %v is found: %v, number %d, want %v, %+v", seed, op, had, i, ok, want)
			}
			switch {
			case !had && (grow || r.IntN(8) == 0):
				i = table.add(&op)
				script := make([]byte, []int{0, 22, shortScript, shortScript + 1, 300, 10_000}[r.IntN(6)])
				for k := range script {
					script[k] = byte(r.Uint32())
				}
				table.setScript(i, script)
				model[op] = coin{string(script), i}
			case had && (!grow || r.IntN(8) == 0):
				table.remove(i)
				delete(model, op)
			case had: // the script becomes another, longer or shorter
				table.setScript(i, []byte{1})
				model[op] = coin{"\x01", i}
			}
		}
		check()
	}
	for op := range model {
		i, _ := table.find(&op)
		table.remove(i)
		delete(model, op)
	}
	check()
	if len(table.long) != 0 {
		t.Errorf("%d long scripts are left behind", len(table.long))
	}
}

// An entry chosen again after its removal is listed once: the flag outlives the coin.
func TestCoinAccounts(t *testing.T) {
	t.Parallel()
	const seed = 106
	r := rand.New(rand.NewPCG(seed, 0))
	c := newCoinCache(noCoins{})
	audit := func() {
		t.Helper()
		var all, dirty int64
		listed := make(map[uint32]bool)
		for _, i := range c.dirty {
			if listed[i] {
				t.Fatalf("seed %d: entry %d is listed twice", seed, i)
			}
			listed[i] = true
		}
		for i := range c.table.n {
			if !c.table.has(i, 0) {
				continue
			}
			all += c.table.cost(i)
			if c.table.has(i, coinDirty) {
				dirty += c.table.cost(i)
				if !listed[i] {
					t.Fatalf("seed %d: entry %d is dirty and not listed", seed, i)
				}
			}
		}
		if c.bytes != all || c.dirtyBytes != dirty {
			t.Fatalf("seed %d: accounts say %d and %d dirty, want %d and %d", seed, c.bytes, c.dirtyBytes, all, dirty)
		}
	}
	for round := range 40 {
		for range 200 {
			op := wire.OutPoint{Index: r.Uint32N(300)}
			if i, ok := c.table.find(&op); ok && !c.table.has(i, coinSpent) {
				c.spend(&op)
				continue
			}
			c.create(&op, consensus.Coin{Value: 1, Script: make([]byte, r.IntN(2*shortScript)), Height: 1})
		}
		audit()
		if round%5 == 4 {
			limit := int64(r.IntN(40_000))
			c.clean(limit)
			audit()
			if c.dirtyBytes != 0 || len(c.dirty) != 0 || c.bytes > limit {
				t.Fatalf("seed %d: after clean %d bytes, limit %d, %d dirty in %d", seed, c.bytes, limit, c.dirtyBytes, len(c.dirty))
			}
		}
	}
}

// noCoins is a store without coins.
type noCoins struct{}

func (noCoins) Coin(wire.OutPoint) (consensus.Coin, bool, error) { return consensus.Coin{}, false, nil }

// BenchmarkCoinTable adds a coin, finds it again and removes the oldest, among half a
// million.
func BenchmarkCoinTable(b *testing.B) {
	const many = 1 << 19
	table := newCoinTable()
	key := func(i uint64) (op wire.OutPoint) {
		r := rand.NewPCG(i/2, 1)
		for k := range 8 {
			op.Hash[k] = byte(r.Uint64())
		}
		op.Index = uint32(i & 1)
		return op
	}
	script := make([]byte, 22)
	n := uint64(0)
	step := func() {
		op := key(n)
		table.setScript(table.add(&op), script)
		if _, ok := table.find(&op); !ok {
			b.Fatal("lost")
		}
		if n++; n > many {
			op = key(n - many)
			if i, ok := table.find(&op); ok {
				table.remove(i)
			}
		}
	}
	for n < 2*many {
		step()
	}
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
}
