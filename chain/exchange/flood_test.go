package exchange

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
)

// A forger is a chain that says to have more work than any other. Whoever asks for its headers gets
// another branch each time, by stake that nobody has, from below the last block
// that he has on the honest chain: with more work than that, and as many headers as he takes.
type forger struct {
	Chain
	p      *consensus.Params
	length int
	back   int // blocks from the last common one to where a branch leaves the chain

	mu       sync.Mutex // guards what follows
	honest   []*consensus.Block
	heights  map[chainhash.Hash]int
	branch   []*consensus.Block // the latest
	from     int                // height of its first
	branches uint32
	shown    int
}

func newForger(c Chain, honest []*consensus.Block, length, back int, number uint32) *forger {
	f := &forger{Chain: c, p: c.Params(), length: length, back: back, branches: number << 20, heights: make(map[chainhash.Hash]int)}
	f.learn(honest)
	return f
}

// learn gives the forger the blocks of the honest chain, genesis first.
func (f *forger) learn(honest []*consensus.Block) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.honest = honest
	for height, b := range honest {
		f.heights[b.Hash] = height
	}
}

func (f *forger) Tip() (chain.Tip, <-chan struct{}) {
	tip, moved := f.Chain.Tip()
	return chain.Tip{Hash: fill(7), Height: 1 << 20, Time: tip.Time, Work: new(big.Int).Lsh(big.NewInt(1), 120)}, moved
}

func (f *forger) HeadersAfter(dst []byte, locator []chainhash.Hash, most int) (start int32, n int, raw []byte, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, b := range f.branch {
		if b.Hash == locator[0] { // it has this one already
			start, list := f.from+k+1, f.branch[k+1:]
			return int32(start), min(most, len(list)), f.append(dst, list, most), nil
		}
	}
	at := 0
	for _, h := range locator {
		if height, ok := f.heights[h]; ok {
			at = max(0, height-f.back)
			break
		}
	}
	f.branches++
	b, s := enginetest.NewBuilder(f.p), enginetest.NewForger(f.p, f.branches)
	b.Engine, b.Prepare, b.Seal = pos.New(f.p), s.Prepare, s.Seal
	for _, known := range f.honest[1 : at+1] {
		b.Add(known)
	}
	f.from, f.branch = at+1, b.MineN(f.honest[at], f.length)
	f.shown += f.length
	return int32(f.from), min(most, f.length), f.append(dst, f.branch, most), nil
}

func (f *forger) append(dst []byte, list []*consensus.Block, most int) []byte {
	for _, b := range list[:min(most, len(list))] {
		dst = append(dst, b.Raw[:consensus.HeaderBytes+f.p.SealBytes]...)
	}
	return dst
}

// Block is nobody's but of the latest branch.
func (f *forger) Block(hash chainhash.Hash) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.branch {
		if b.Hash == hash {
			return bytes.Clone(b.Raw), nil
		}
	}
	return nil, chain.ErrNotFound
}

func (f *forger) ReadBlocks(_ []byte, hashes []chainhash.Hash) (blocks [][]byte, err error) {
	for _, h := range hashes {
		raw, err := f.Block(h)
		if err != nil {
			return blocks, err
		}
		blocks = append(blocks, raw)
	}
	return blocks, nil
}

func (f *forger) total() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shown
}

// A victim is a node whose peers are forgers; the clock of its exchange runs five times too
// fast.
type victim struct {
	c      *chain.Chain
	x      *Exchange
	logs   *logs
	blames chan blamed
	stop   func()
}

func newVictim(t *testing.T, fs vfs.FS, stake func(*chain.Options)) *victim {
	t.Helper()
	o := chain.Options{Dir: "home", FS: fs}
	stake(&o)
	c, err := chain.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{c: c, logs: &logs{}, blames: make(chan blamed, 10_000)}
	v.x, err = New(Options{
		Host: newHost(t), Chain: FromChain(c), ChainID: o.Params.ChainID(), Now: hastily(5), ReplyTimeout: 10 * time.Second,
		TipGap: 50 * time.Millisecond, TipGrace: 20 * time.Millisecond,
		Logger:  slog.New(slog.NewTextHandler(v.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		OnBlame: func(id peer.ID, reason string) { v.blames <- blamed{id, reason} },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- c.Run(ctx) }()
	go func() { done <- v.x.Run(ctx) }()
	eventually(t, "handlers set", func() bool { return slices.Contains(v.x.o.Host.Mux().Protocols(), TxsID(v.x.o.ChainID)) })
	v.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		<-done
		_ = v.x.o.Host.Close()
		_ = c.Close()
	})
	t.Cleanup(func() {
		v.stop()
		if t.Failed() {
			t.Logf("log:\n%s", v.logs)
		}
	})
	return v
}

// TestForgers: a node that syncs has several peers who show headers without stake as long
// as it asks, and either say nothing when asked for a block, or hand it out; and one that
// is honest. It comes to the honest one's tip, also when it starts anew, follows a
// reorganisation then, and does not hold the honest one to be at fault.
func TestForgers(t *testing.T) {
	t.Parallel()
	const ahead = 30
	p := consensus.Stakenet()
	p.MaxReorg = 20
	s := enginetest.NewStakenet(p)
	b := enginetest.NewBuilder(p)
	b.Engine, b.Prepare, b.Seal = pos.New(p), s.Prepare, s.Seal
	blocks := append([]*consensus.Block{b.Genesis()}, b.MineN(b.Genesis(), 160)...)
	stake := func(o *chain.Options) {
		o.Params, o.Engine, o.HeadersAhead = p, pos.New(p), ahead
		o.Now = func() time.Time { return time.Unix(math.MaxUint32, 0) }
	}
	honest := newRealNode(t, vfs.NewMem(), stake)
	honest.submit(t, blocks[1:101])

	idle := newRealNode(t, vfs.NewMem(), stake)
	var forgers []*forger
	forge := func() host.Host {
		k := len(forgers)
		f := newForger(idle.o.Chain, blocks, ahead, 1+k%2, uint32(k))
		x := serving(t, f)
		if k%3 > 0 {
			x.o.Host.SetStreamHandler(BlocksID(p.ChainID()), silence)
		}
		forgers = append(forgers, f)
		return x.o.Host
	}
	total := func() (n int) {
		for _, f := range forgers {
			n += f.total()
		}
		return n
	}
	fs := vfs.NewMem()
	var evil []host.Host
	// await waits for a tip; forgers who are disconnected come again by other names.
	await := func(v *victim, want *consensus.Block) {
		t.Helper()
		eventually(t, "the honest tip", func() bool {
			for k, h := range evil {
				if len(forgers) < 200 && v.x.o.Host.Network().Connectedness(h.ID()) != network.Connected {
					evil[k] = forge()
					connect(t, v.x.o.Host, evil[k])
				}
			}
			tip, _ := v.c.Tip()
			return tip.Hash == want.Hash
		})
	}
	follow := func(want *consensus.Block) *victim {
		t.Helper()
		v, before, names := newVictim(t, fs, stake), total(), len(forgers)
		evil = nil
		for range 6 {
			evil = append(evil, forge())
			connect(t, v.x.o.Host, evil[len(evil)-1])
		}
		eventually(t, "headers without stake", func() bool { return total() > before+4*ahead })
		connect(t, v.x.o.Host, honest.o.Host)
		await(v, want)
		t.Logf("%d headers without stake were shown by %d peers", total()-before, len(forgers)-names)
		return v
	}
	v := follow(blocks[100])
	v.stop()
	honest.submit(t, blocks[101:])
	v = follow(blocks[160])
	branch := b.MineN(blocks[150], 14)
	honest.submit(t, branch)
	await(v, branch[13])
	if v.x.o.Host.Network().Connectedness(honest.o.Host.ID()) != network.Connected {
		t.Error("the honest peer was disconnected")
	}
	v.stop()
	for len(v.blames) > 0 {
		if who := <-v.blames; who.id == honest.o.Host.ID() {
			t.Errorf("the honest peer is blamed: %s", who.reason)
		}
	}
}
