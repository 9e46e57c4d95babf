package chain_test

import (
	"bytes"
	"context"
	"testing"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// BenchmarkImportTiny imports 20,000 blocks of a coinbase each into a fresh chain.
func BenchmarkImportTiny(b *testing.B) {
	const n = 20_000
	_, blocks := grown(n)
	file := frames(blocks...)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		h := open(b, nil)
		if _, err := h.Import(context.Background(), bytes.NewReader(file), nil); err != nil {
			b.Fatal(err)
		}
		h.close()
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "blocks/s")
}

// BenchmarkImportMainnet imports the first 14,131 blocks of Bitcoin.
func BenchmarkImportMainnet(b *testing.B) {
	file := enginetest.Data(b, "chain/mainnet-blocks-0-14131.dat.zst")
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		h := open(b, func(o *chain.Options) { o.Params = consensus.Bitcoin() })
		if _, err := h.Import(context.Background(), bytes.NewReader(file), nil); err != nil {
			b.Fatal(err)
		}
		h.close()
	}
	b.ReportMetric(mainnetHeight*float64(b.N)/b.Elapsed().Seconds(), "blocks/s")
}
