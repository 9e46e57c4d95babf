package chain_test

import (
	"slices"
	"testing"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// mainnetHeaders are those of heights 1 to 99,999.
func mainnetHeaders(t testing.TB) []consensus.Header {
	t.Helper()
	p := consensus.Bitcoin()
	raw := enginetest.Data(t, "headers/mainnet-headers-0-99999.bin.zst")
	var hs []consensus.Header
	for raw = raw[consensus.HeaderBytes:]; len(raw) > 0; raw = raw[consensus.HeaderBytes:] {
		h, err := consensus.DecodeHeader(p, raw[:consensus.HeaderBytes])
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, h)
	}
	return hs
}

// Real headers, over 34 changes of difficulty: the first pass finds their work and
// stores nothing, the second stores them.
func TestPresyncMainnet(t *testing.T) {
	hs := mainnetHeaders(t)
	h := open(t, func(o *chain.Options) { o.Params = consensus.Bitcoin() })
	p, ok := h.NewPresync(h.o.Params.GenesisHash)
	if !ok {
		t.Fatal("genesis is unknown")
	}
	before := liveHeap()
	for batch := range slices.Chunk(hs, 2000) {
		if err := p.Check(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	if grown := int64(liveHeap()) - int64(before); grown > 1<<20 {
		t.Errorf("%d bytes of heap for %d headers", grown, len(hs))
	}
	if w := p.Work().Text(16); w != "64492eaf00f2520" {
		t.Errorf("work %s", w)
	}
	if best, _ := h.BestHeader(); best.Height != 0 {
		t.Errorf("%d headers were kept", best.Height)
	}
	for batch := range slices.Chunk(hs, 2000) {
		if p.Done() {
			t.Fatal("done early")
		}
		if added, _, err := p.Accept(t.Context(), batch); added != len(batch) || err != nil {
			t.Fatal(added, err)
		}
	}
	if best, _ := h.BestHeader(); !p.Done() || best.Height != 99_999 || best.Work.Text(16) != "64492eaf00f2520" {
		t.Errorf("best header at %d, done %v", best.Height, p.Done())
	}
	if _, _, err := p.Accept(t.Context(), hs[:1]); err == nil {
		t.Error("a batch that was never seen is accepted")
	}
}

// The first pass refuses what AcceptHeaders would; the second whatever is not
// the same, and then keeps nothing of it.
func TestPresyncFaults(t *testing.T) {
	b, blocks := grown(30)
	other := b.MineN(blocks[5], 25)
	hs := headersOf(blocks[1:])
	fresh := func() (*home, *chain.Presync) {
		h := open(t, nil)
		p, _ := h.NewPresync(blocks[0].Hash)
		return h, p
	}
	first := func(t *testing.T, p *chain.Presync) {
		t.Helper()
		for batch := range slices.Chunk(hs, 10) {
			if err := p.Check(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("unknown base", func(t *testing.T) {
		h, _ := fresh()
		if _, ok := h.NewPresync(blocks[1].Hash); ok {
			t.Error("a presync above an unknown header")
		}
	})
	t.Run("too many at once", func(t *testing.T) {
		_, p := fresh()
		if p.Check(t.Context(), make([]consensus.Header, 2001)) == nil || p.Check(t.Context(), nil) == nil {
			t.Error("no error")
		}
	})
	t.Run("not consecutive", func(t *testing.T) {
		_, p := fresh()
		checkRule(t, p.Check(t.Context(), []consensus.Header{hs[0], hs[2]}), "headers-not-consecutive")
	})
	t.Run("bad bits", func(t *testing.T) {
		_, p := fresh()
		bad := slices.Clone(hs[:3])
		bad[2].Bits = 0x1d00ffff
		if err := p.Check(t.Context(), bad); err == nil {
			t.Error("no error")
		}
	})
	for name, tc := range map[string]struct {
		second [][]consensus.Header
		rule   string
		kept   int32
	}{
		"another branch":     {[][]consensus.Header{append(slices.Clone(hs[:5]), headersOf(other[:5])...)}, "presync-mismatch", 0},
		"in the second":      {[][]consensus.Header{hs[:10], headersOf(other[5:15])}, "presync-mismatch", 10},
		"shorter":            {[][]consensus.Header{hs[:9]}, "presync-mismatch", 0},
		"again":              {[][]consensus.Header{hs[:10], hs[:10]}, "presync-mismatch", 10},
		"only the last fits": {[][]consensus.Header{append(headersOf(other[:9]), hs[9])}, "headers-not-consecutive", 0},
	} {
		t.Run(name, func(t *testing.T) {
			h, p := fresh()
			first(t, p)
			var err error
			for _, batch := range tc.second {
				_, _, err = p.Accept(t.Context(), batch)
			}
			checkRule(t, err, tc.rule)
			if best, _ := h.BestHeader(); best.Height != tc.kept || len(h.Tips()) > 2 {
				t.Errorf("best header at height %d, tips %v", best.Height, h.Tips())
			}
		})
	}
}
