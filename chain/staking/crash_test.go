package staking_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/mining"
	"dunlin/chain/staking"
)

// A witness is a holder that remembers what it signed.
type witness struct {
	*holder

	signed map[string]chainhash.Hash // by slot and coin
	twice  func(string)
}

// Sign implements staking.Holder.
func (w *witness) Sign(s *pos.Stake, h *consensus.Header) ([64]byte, error) {
	id, hash := fmt.Sprint(h.Timestamp.Unix(), s.OutPoint), consensus.HeaderHash(h)
	if was, ok := w.signed[id]; ok && was != hash {
		w.twice(fmt.Sprintf("%s: %s after %s", id, hash, was))
	}
	w.signed[id] = hash
	return w.holder.Sign(s, h)
}

// TestMinerCrashes kills a node a hundred times: between signing a block and handing it in, or
// between that and its being on disk. Chain and journal lose what was not flushed, and
// somebody sets the clock back to before the block: the same slots come again on the same
// parent, and no stake signs a second block in one.
func TestMinerCrashes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		crashes := 100
		if testing.Short() {
			crashes = 25
		}
		r := rand.New(rand.NewPCG(1, 1))
		p := network(t, time.Now(), 500, 300, 200)
		disk := vfs.NewCrashableMem()
		signed := make(map[string]chainhash.Hash)
		var set time.Duration // of the clock
		var tallest int32
		for n := range crashes {
			now := func() time.Time { return time.Now().Add(set) }
			life(t, disk, p, now, func(c *chain.Chain) *staking.Options {
				h := newHolder(c, key(1), key(2), key(3))
				run(t, h.finder.Run)
				w := &witness{h, signed, func(s string) { t.Errorf("crash %d: signed twice: %s", n, s) }}
				j, err := staking.OpenJournal(staking.JournalOptions{FS: disk, Dir: "staking", Slot: before, MaxRecords: 32})
				if err != nil {
					t.Fatal(err)
				}
				if _, lost := j.Resting(); lost != "" && len(signed) > 0 {
					t.Errorf("crash %d: the journal %s", n, lost)
				}
				return &staking.Options{Holder: w, Journal: j}
			}, func(crash func()) (onSealed func(*consensus.Block), onBlock func(context.Context, *consensus.Block)) {
				left := 1 + r.IntN(3) // blocks until then
				if r.IntN(2) == 0 {
					onSealed = func(*consensus.Block) {
						if left--; left == 0 {
							disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
							crash()
						}
					}
				} else {
					onBlock = func(context.Context, *consensus.Block) {
						if left--; left == 0 {
							disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
							crash()
						}
					}
				}
				return onSealed, onBlock
			}, &tallest)
			set -= time.Duration(r.IntN(6)) * time.Second
			if t.Failed() {
				return
			}
		}
		if len(signed) < crashes || tallest < int32(crashes)/2 {
			t.Errorf("%d signed, %d high", len(signed), tallest)
		}
	})
}

// life runs a chain and a miner on a disk until the crash.
func life(t *testing.T, disk vfs.FS, p *consensus.Params, now func() time.Time,
	start func(*chain.Chain) *staking.Options,
	hooks func(crash func()) (func(*consensus.Block), func(context.Context, *consensus.Block)), tallest *int32,
) {
	t.Helper()
	c, err := chain.Open(chain.Options{Dir: "home", FS: disk, Params: p, Engine: pos.New(p), Workers: 1, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	stopChain := run(t, c.Run)
	ctx, crash := context.WithCancel(context.Background())
	defer crash()
	o := start(c)
	o.Params, o.Engine, o.Coins, o.Now = p, pos.New(p), c, now
	s, err := staking.NewSealer(*o)
	if err != nil {
		t.Fatal(err)
	}
	mo := mining.Options{Chain: c, Engine: o.Engine, Sealer: s, Mine: true, Now: now}
	mo.OnSealed, mo.OnBlock = hooks(crash)
	m, err := mining.New(mo)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("miner: %v", err)
	}
	tip, _ := c.Tip()
	*tallest = max(*tallest, tip.Height)
	_ = o.Journal.Close()
	stopChain()
	_ = c.Close() // of a disk that nobody looks at again
}
