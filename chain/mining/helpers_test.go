package mining_test

import (
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

// What the tests of staking use, too.
var (
	run    = chaintest.Run
	height = chaintest.Height
	block  = chaintest.Block
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
