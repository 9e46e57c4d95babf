package exchange

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain"
	"dunlin/chain/chaintest"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
)

// realNode is an Exchange over a real chain whose disk is memory.
type realNode struct {
	*Exchange
	c      *chain.Chain
	stop   func()
	blames chan string
}

// newRealNode opens the chain on fs and runs it and an Exchange on a new host.
func newRealNode(t *testing.T, fs vfs.FS, change ...func(*chain.Options)) *realNode {
	t.Helper()
	return newWrappedNode(t, fs, func(c Chain) Chain { return c }, change...)
}

// newWrappedNode is newRealNode with another chain for the Exchange, made of the real one.
func newWrappedNode(t *testing.T, fs vfs.FS, wrap func(Chain) Chain, change ...func(*chain.Options)) *realNode {
	t.Helper()
	p := consensus.Regtest()
	home := chain.Options{Dir: "home", FS: fs, Params: p, Engine: pow.New(p)}
	for _, f := range change {
		f(&home)
	}
	p = home.Params
	c, err := chain.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	blames := make(chan string, 100)
	x, err := New(Options{
		Host: h, Chain: wrap(FromChain(c)), ChainID: p.ChainID(), Logger: slog.New(slog.DiscardHandler),
		TipGap: 50 * time.Millisecond, TipGrace: 20 * time.Millisecond,
		OnBlame: func(_ peer.ID, reason string) { blames <- reason },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- c.Run(ctx) }()
	go func() { done <- x.Run(ctx) }()
	eventually(t, "handlers set", func() bool { return slices.Contains(h.Mux().Protocols(), TxsID(p.ChainID())) })
	n := &realNode{Exchange: x, c: c, blames: blames}
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := receive(t, "end", done); !errors.Is(err, context.Canceled) {
				t.Errorf("run: %v", err)
			}
		}
		_ = h.Close()
		if len(blames) > 0 {
			t.Errorf("blamed: %s", <-blames)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		chaintest.Audit(t, home)
	}
	t.Cleanup(n.stop)
	receive(t, "chain ready", c.Ready())
	return n
}

func (n *realNode) submit(t *testing.T, blocks []*consensus.Block) {
	t.Helper()
	var last *chain.Ticket
	for _, b := range blocks {
		var err error
		if last, err = n.c.Submit(t.Context(), b.Raw, chain.Source{Kind: chain.FromImport}); err != nil {
			t.Fatal(err)
		}
	}
	if v := last.Wait(t.Context()); v.Err != nil {
		t.Fatal(v.Err)
	}
}

func (n *realNode) awaitBlock(t *testing.T, b *consensus.Block) {
	t.Helper()
	eventually(t, "the tip", func() bool {
		tip, _ := n.c.Tip()
		return tip.Hash == b.Hash
	})
}

// TestRealChain: several hundred regtest blocks from three peers, a restart in
// between, a longer branch, and a new block at the tip.
func TestRealChain(t *testing.T) {
	b := enginetest.NewBuilder(consensus.Regtest())
	blocks := b.MineN(b.Genesis(), 600)
	var sources []*realNode
	for range 3 {
		s := newRealNode(t, vfs.NewMem())
		s.submit(t, blocks[:300])
		sources = append(sources, s)
	}
	fs := vfs.NewMem()
	n := newRealNode(t, fs)
	for _, s := range sources {
		connect(t, n.o.Host, s.o.Host)
	}
	n.awaitBlock(t, blocks[299])
	n.stop()

	for _, s := range sources {
		s.submit(t, blocks[300:])
	}
	n = newRealNode(t, fs)
	if tip, _ := n.c.Tip(); tip.Hash != blocks[299].Hash {
		t.Fatalf("after the restart the tip is at %d", tip.Height)
	}
	for _, s := range sources {
		connect(t, n.o.Host, s.o.Host)
	}
	n.awaitBlock(t, blocks[599])
	eventually(t, "synced", func() bool { return n.Sync().State == Synced })

	branch := b.MineN(blocks[589], 20) // forks off ten blocks back, ten blocks longer
	sources[0].submit(t, branch)
	n.awaitBlock(t, branch[19])
	next := b.MineN(branch[19], 1)
	sources[1].awaitBlock(t, branch[19]) // nobody told it but n: it is connected to n only
	sources[1].submit(t, next)
	n.awaitBlock(t, next[0])
	sources[2].awaitBlock(t, next[0])
}
