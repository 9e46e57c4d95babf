package mining_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/chaintest"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/mempool"
	"dunlin/chain/mining"
)

// ownNetwork is one of ours: BIP54, ASERT, every soft fork from genesis.
func ownNetwork(t testing.TB) *consensus.Params {
	t.Helper()
	p, err := consensus.New(consensus.Custom{
		Name: "mining-test", GenesisTime: time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC),
		Spacing: 30 * time.Second, HalvingInterval: 100, Subsidy: 50e8,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// open opens and runs a chain.
func open(t testing.TB, p *consensus.Params, now func() time.Time) *chain.Chain {
	t.Helper()
	home := chain.Options{Dir: "home", FS: vfs.NewMem(), Params: p, Engine: pow.New(p), Now: now, Workers: 1}
	c, err := chain.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		chaintest.Audit(t, home)
	})
	run(t, c.Run)
	return c
}

// run runs f until the test ends, or until stop.
func run(t testing.TB, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// miner returns a miner; change may change its options.
func miner(t testing.TB, c *chain.Chain, change func(*mining.Options)) *mining.Miner {
	t.Helper()
	o := mining.Options{
		Chain: c, Engine: pow.New(c.Params()), Sealer: pow.NewSealer(1),
		PayTo: enginetest.OpTrue(), Interval: 1, Mine: true,
	}
	if change != nil {
		change(&o)
	}
	m, err := mining.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// height waits until the chain is that high.
func height(t testing.TB, c *chain.Chain, want int32) chain.Tip {
	t.Helper()
	limit := time.NewTimer(24 * time.Hour) // virtual where time is; elsewhere the test has its own limit
	defer limit.Stop()
	for {
		tip, moved := c.Tip()
		if tip.Height >= want {
			return tip
		}
		select {
		case <-moved:
		case <-limit.C:
			t.Fatalf("height %d, want %d", tip.Height, want)
		}
	}
}

// block reads a block of the active chain.
func block(t testing.TB, c *chain.Chain, height int32) *consensus.Block {
	t.Helper()
	hash, ok := c.HashAt(height)
	if !ok {
		t.Fatalf("no block at height %d", height)
	}
	raw, err := c.Block(hash)
	if err != nil {
		t.Fatal(err)
	}
	b, err := consensus.DecodeBlock(c.Params(), raw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// submit seals a template and submits it.
func submit(t testing.TB, c *chain.Chain, tpl *mining.Template) chain.Verdict {
	t.Helper()
	if ok, err := pow.NewSealer(1).Seal(nil, &tpl.Header); err != nil || !ok {
		t.Fatalf("seal: %v %v", ok, err)
	}
	b, err := tpl.Block(c.Params())
	if err != nil {
		t.Fatal(err)
	}
	ticket, err := c.Submit(t.Context(), b.Raw, chain.Source{Kind: chain.FromMiner})
	if err != nil {
		t.Fatal(err)
	}
	return ticket.Wait(t.Context())
}

// entry makes an entry out of a transaction that is only measured.
func entry(n byte, fee int64, weight, sigOps int, parents ...mempool.Entry) mempool.Entry {
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: uint32(n)}, nil, nil))
	e := mempool.Entry{Tx: tx, Fee: fee, Weight: weight, SigOpCost: sigOps}
	e.ID[0] = n
	for _, p := range parents {
		e.Parents = append(e.Parents, p.ID)
	}
	return e
}
