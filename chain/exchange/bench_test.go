package exchange

import (
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
)

// mainnetNode is an Exchange over a chain of mainnet's rules.
func mainnetNode(t testing.TB, fill func(*chain.Chain)) (*Exchange, *chain.Chain) {
	t.Helper()
	p := consensus.Bitcoin()
	c, err := chain.Open(chain.Options{Dir: "home", FS: vfs.NewMem(), Params: p, Engine: pow.New(p), ChainID: p.ChainID()})
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	x, err := New(Options{Host: h, Chain: FromChain(c), ChainID: p.ChainID(), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- c.Run(ctx) }()
	<-c.Ready()
	fill(c)
	go func() { done <- x.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
		_ = h.Close()
		_ = c.Close()
	})
	eventually(t, "handlers set", func() bool { return slices.Contains(h.Mux().Protocols(), TxsID(p.ChainID())) })
	return x, c
}

// BenchmarkMainnet syncs mainnet's first 14,131 blocks from three peers over
// loopback TCP, blocks fully validated.
func BenchmarkMainnet(b *testing.B) {
	var blocks [][]byte // of bootstrap.dat records: magic, length, block
	for data := enginetest.Data(b, "chain/mainnet-blocks-0-14131.dat.zst"); len(data) > 8; {
		n := binary.LittleEndian.Uint32(data[4:])
		blocks = append(blocks, data[8:8+n])
		data = data[8+n:]
	}
	var sources []*Exchange
	for range 3 {
		x, _ := mainnetNode(b, func(c *chain.Chain) {
			var last *chain.Ticket
			for _, raw := range blocks[1:] {
				last, _ = c.Submit(b.Context(), raw, chain.Source{Kind: chain.FromImport})
			}
			if v := last.Wait(b.Context()); v.Err != nil {
				b.Fatal(v.Err)
			}
		})
		sources = append(sources, x)
	}
	for b.Loop() {
		started := time.Now()
		var headers time.Duration
		n, c := mainnetNode(b, func(*chain.Chain) {})
		for _, s := range sources {
			connect(b, n.o.Host, s.o.Host)
		}
		for {
			best, more := c.BestHeader()
			if int(best.Height) == len(blocks)-1 {
				headers = time.Since(started)
				break
			}
			<-more
		}
		for {
			tip, more := c.Tip()
			if int(tip.Height) == len(blocks)-1 {
				break
			}
			<-more
		}
		took := time.Since(started).Seconds()
		b.ReportMetric(float64(len(blocks))/headers.Seconds(), "headers/s")
		b.ReportMetric(float64(len(blocks))/took, "blocks/s")
	}
}

// BenchmarkBytes downloads blocks of 1 MB from one peer over loopback TCP into a
// chain without rules: what the exchange itself can carry.
func BenchmarkBytes(b *testing.B) {
	source := newFakeChain()
	bs := makeBlocks(source.params.GenesisHash, source.params.Genesis.Header.Timestamp, 300, 1, fixedSize(1<<20))
	for _, raw := range bs {
		if _, err := source.Submit(b.Context(), raw, chain.Source{Kind: chain.FromMiner}); err != nil {
			b.Fatal(err)
		}
	}
	s := newNode(b, source)
	b.SetBytes(300 << 20)
	for b.Loop() {
		n := newNode(b, newFakeChain())
		connect(b, n.host, s.host)
		awaitTip(b, n, source)
		n.stop()
	}
}
