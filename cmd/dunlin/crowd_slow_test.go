//go:build slow

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// TestE2ECrowd: 100 clients fetch blocks from one daemon as fast as they can, some
// with sixteen requests outstanding and some with one. They get fair shares, the
// daemon's memory stays bounded, its own tip advances and floods meanwhile, and with
// an upload limit it keeps to that.
func TestE2ECrowd(t *testing.T) {
	const clients, window = 100, 6 * time.Second
	small := newLedger(4000).blocks
	b := enginetest.NewBuilder(consensus.Regtest())
	fat := make([]byte, 900_000)
	fat[0] = txscript.OP_RETURN
	var large []*consensus.Block
	for tip := b.Genesis(); len(large) < 40; {
		tip = b.MineTemplate(tip, enginetest.Template{Script: fat})
		large = append(large, tip)
	}
	free := 0.0 // MiB a second without a limit
	for _, tc := range []struct {
		name   string
		figure string
		blocks []*consensus.Block
		count  int     // blocks in a request
		limit  int     // KiB a second
		jain   float64 // least index of fairness
	}{
		{"blocks of 4 kB", "crowd", small, 128, 0, 0.95},
		{"blocks of 4 kB, 16 MiB a second", "crowd-capped", small, 128, 16 << 10, 0.95},
		{"blocks of 900 kB", "crowd-large", large, 4, 0, 0.95},
	} {
		chain := branchOf(b.Params, tc.blocks)
		t.Run(tc.name, func(t *testing.T) {
			d := newDaemon(t, "server", "--network", "regtest", "--p2p-max-upload-kb-per-s", fmt.Sprint(tc.limit))
			importBlocks(t, d, b.Params, tc.blocks)
			d.start()
			neighbour := startDaemon(t, "neighbour", "--network", "regtest", "--bootstrap", d.addr())
			neighbour.reaches(chain.hashes[len(chain.hashes)-1].String(), patience)

			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			got := make([]atomic.Int64, clients)
			var busy atomic.Int64
			var all sync.WaitGroup
			begin := make(chan struct{}) // closed when all are connected
			for i := range clients {
				h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.ResourceManager(&network.NullResourceManager{}),
					libp2p.DisableRelay(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.DisableMetrics())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = h.Close() })
				a := &attacker{t: t, h: h, params: b.Params}
				s, _ := a.greet(d, chain.tip())
				stream, err := a.open(s.Conn().RemotePeer(), a.id("blocks/1"))
				if err != nil {
					t.Fatal(err)
				}
				_ = stream.SetDeadline(time.Time{})
				all.Go(func() {
					<-begin
					crowdClient(ctx, stream, chain, tc.count, []int{1, 16}[i%2], &got[i], &busy)
				})
			}
			close(begin)
			eventually(t, patience, "everybody is served", func() error {
				for i := range got {
					if got[i].Load() == 0 {
						return fmt.Errorf("client %d has got nothing", i)
					}
				}
				return nil
			})
			slowest := time.Duration(0)
			start := make([]int64, clients)
			for i := range got {
				start[i] = got[i].Load()
			}
			began := time.Now()
			height := d.mustStatus().Height
			for i := 0; time.Since(began) < window; i++ {
				made := time.Now()
				neighbour.reaches(d.mine(1).Hash, soon)
				slowest = max(slowest, time.Since(made))
				wait(t.Context(), time.Until(began.Add(time.Duration(i+1)*time.Second)))
			}
			took := time.Since(began)
			shares := make([]float64, clients)
			var sum, squares float64
			for i := range got {
				shares[i] = float64(got[i].Load()-start[i]) / (1 << 20)
				sum += shares[i]
				squares += shares[i] * shares[i]
			}
			var modest, greedy float64 // of those with one request outstanding, and with sixteen
			for i, s := range shares {
				if i%2 == 0 {
					modest += s / (clients / 2)
				} else {
					greedy += s / (clients / 2)
				}
			}
			stop()
			all.Wait()
			slices.Sort(shares)
			jain := sum * sum / (clients * squares)
			peak, err := d.peak()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%.0f MiB/s to %d clients: least %.1f, median %.1f, most %.1f MiB, with one request %.1f, with sixteen %.1f; Jain's index %.3f; %d busy; peak memory %d MB; a block was made and at the neighbour after %v at most",
				sum/took.Seconds(), clients, shares[0], shares[clients/2], shares[clients-1], modest, greedy, jain, busy.Load(), peak>>20, slowest.Round(time.Millisecond))
			figure(t, "daemons/"+tc.figure, sum/took.Seconds())
			figure(t, "daemons/crowd-fair", jain)
			figure(t, "daemons/crowd-memory", float64(peak)/1e6)
			figure(t, "daemons/crowd-block", milliseconds(slowest))
			if jain < tc.jain || shares[0] < 0.3*shares[clients/2] {
				t.Errorf("shares are not fair: Jain's index %.3f, least %.1f of a median of %.1f MiB", jain, shares[0], shares[clients/2])
			}
			rate := sum / took.Seconds()
			if tc.limit == 0 && free == 0 {
				free = rate
			}
			// The machine may have other work, and not reach the limit.
			if limit := float64(tc.limit) / 1024; limit > 0 && (rate > 1.1*limit || rate < min(0.6*limit/slowness, free/4)) {
				t.Errorf("%.1f MiB/s with a limit of %.0f, %.1f without", rate, limit, free)
			}
			if peak > slowness*250<<20 {
				t.Errorf("%d MB of memory", peak>>20)
			}
			if h := d.mustStatus().Height; h <= height {
				t.Errorf("the tip stayed at %d", h)
			}
			d.cleanLog(t)
		})
	}
}

// crowdClient keeps n requests for count blocks each outstanding until ctx ends and counts what comes.
func crowdClient(ctx context.Context, s network.Stream, b *branch, count, n int, got, busy *atomic.Int64) {
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	in := bufio.NewReaderSize(s, 64<<10)
	var id uint64
	ask := func() error {
		id++
		first := 1 + rand.IntN(len(b.raws)-count)
		_, err := s.Write(blocksMsg(id, uint64(first), uint64(count), b.hashes[first+count-2], 16<<20))
		return err
	}
	for range n {
		if ask() != nil {
			return
		}
	}
	for {
		m, err := readMsg(in)
		if err != nil {
			return
		}
		f, err := parseMsg(m)
		if err != nil {
			return
		}
		if f.n[3] == 0 {
			k, err := io.CopyN(io.Discard, in, int64(f.n[2]))
			if got.Add(k); err != nil {
				return
			}
			continue
		}
		if f.n[4] == 2 {
			busy.Add(1)
			wait(ctx, 100*time.Millisecond)
		}
		if ask() != nil {
			return
		}
	}
}
