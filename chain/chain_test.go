package chain_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/store"
)

const (
	mainnetTip    = "00000000b3e750f37fdb42e1018799a9f44b546d393b130b369590a072430a1c"
	mainnetHeight = 14131
	mainnetCoins  = 13416
	mainnetSupply = 706_550 * 100_000_000
)

// The first 14,131 real blocks of Bitcoin give the known tip and the known coins.
func TestMainnet(t *testing.T) {
	data := enginetest.Data(t, "chain/mainnet-blocks-0-14131.dat.zst")
	h := open(t, func(o *chain.Options) { o.Params = consensus.Bitcoin() })
	start := time.Now()
	p, err := h.Import(t.Context(), bytes.NewReader(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d blocks in %v", p.Blocks, time.Since(start))
	if p.Height != mainnetHeight || p.Added != mainnetHeight || p.Known != 1 {
		t.Errorf("imported %+v", p)
	}
	tip, _ := h.Tip()
	if tip.Hash != hashOf(t, mainnetTip) || tip.Height != mainnetHeight {
		t.Errorf("tip %v at height %d", tip.Hash, tip.Height)
	}
	h.close()
	var supply int64
	n := 0
	st, err := store.Open(store.Options{Dir: h.o.Dir, FS: h.o.FS, ChainID: h.o.Params.ChainID(), Magic: h.o.Params.Magic})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Coins(func(_ wire.OutPoint, c consensus.Coin) error {
		n, supply = n+1, supply+c.Value
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if n != mainnetCoins || supply != mainnetSupply {
		t.Errorf("%d coins worth %d satoshi, want %d and %d", n, supply, mainnetCoins, mainnetSupply)
	}

	start = time.Now()
	h.load()
	took := time.Since(start)
	t.Logf("opened in %v", took)
	if tip, _ := h.Tip(); tip.Height != mainnetHeight {
		t.Errorf("tip after reopening at height %d", tip.Height)
	}
	var out bytes.Buffer
	if err := h.Export(context.Background(), &out, 0, -1); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), data) {
		t.Error("the export is not what was imported")
	}
}
