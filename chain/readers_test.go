package chain_test

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// The header tree answers as a plain list of parents does, colliding keys or not.
func TestTreeAgainstModel(t *testing.T) {
	for _, collide := range []bool{false, true} {
		rng := rand.New(rand.NewPCG(7, 7))
		b, blocks := grown(0)
		h := open(t, nil)
		if collide {
			chain.CollideAll(h.Chain)
		}
		parent := map[chainhash.Hash]*consensus.Block{}
		for range 400 {
			// Long branches with forks here and there.
			at := blocks[len(blocks)-1]
			if rng.IntN(10) == 0 {
				at = blocks[rng.IntN(len(blocks))]
			}
			x := b.Mine(at)
			parent[x.Hash] = at
			blocks = append(blocks, x)
			if n, _, err := h.AcceptHeaders(t.Context(), []consensus.Header{x.Header}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		branch := func(x *consensus.Block) []chainhash.Hash { // by height
			var up []chainhash.Hash
			for ; x != nil; x = parent[x.Hash] {
				up = append(up, x.Hash)
			}
			slices.Reverse(up)
			return up
		}
		for range 200 {
			x, y := blocks[rng.IntN(len(blocks))], blocks[rng.IntN(len(blocks))]
			up, other := branch(x), branch(y)
			for height, want := range up {
				if got, ok := h.Ancestor(x.Hash, int32(height)); !ok || got != want {
					t.Fatalf("ancestor of %v at %d: %v, %v, want %v", x.Hash, height, got, ok, want)
				}
			}
			for _, height := range []int32{-1, int32(len(up))} {
				if _, ok := h.Ancestor(x.Hash, height); ok {
					t.Fatalf("there is an ancestor at %d", height)
				}
			}
			fork := 0
			for fork < min(len(up), len(other)) && up[fork] == other[fork] {
				fork++
			}
			if hash, height, ok := h.Fork(x.Hash, y.Hash); !ok || hash != up[fork-1] || height != int32(fork-1) {
				t.Fatalf("fork of %v and %v: %v at %d", x.Hash, y.Hash, hash, height)
			}
			locator := h.Locator(x.Hash)
			if len(locator) > 64 || locator[0] != x.Hash || locator[len(locator)-1] != blocks[0].Hash {
				t.Fatalf("locator %v", locator)
			}
			last := len(up)
			for k, hash := range locator {
				at := slices.Index(up, hash)
				if at < 0 || at >= last || (k > 0 && k <= 10 && at != last-1) {
					t.Fatalf("locator hash %d is at height %d after %d", k, at, last)
				}
				last = at
			}
		}
		var unknown chainhash.Hash
		if _, ok := h.Status(unknown); ok || h.Locator(unknown) != nil || h.Have(unknown, 0, 10) != nil {
			t.Error("an unknown hash is known")
		}
		if _, err := h.Block(unknown); !errors.Is(err, chain.ErrNotFound) {
			t.Errorf("block of an unknown hash: %v", err)
		}
	}
}

func TestHeadersAfter(t *testing.T) {
	b, blocks := grown(30)
	h := open(t, nil)
	h.connectAll(blocks[1:])
	side := b.MineN(blocks[20], 3)
	for _, x := range side {
		h.want(x, chain.SideChain)
	}
	var unknown chainhash.Hash
	unknown[0] = 1
	tests := []struct {
		name    string
		locator []chainhash.Hash
		max     int
		start   int32
		n       int
	}{
		{"no locator", nil, 2000, 1, 30},
		{"nothing known", []chainhash.Hash{unknown}, 5, 1, 5},
		{"in the middle", []chainhash.Hash{unknown, blocks[10].Hash, blocks[5].Hash}, 7, 11, 7},
		{"a side branch", []chainhash.Hash{side[2].Hash, blocks[20].Hash}, 100, 21, 10},
		{"the tip", []chainhash.Hash{blocks[30].Hash}, 100, 31, 0},
		{"none wanted", []chainhash.Hash{blocks[3].Hash}, 0, 4, 0},
	}
	for _, tt := range tests {
		start, n, raw, err := h.HeadersAfter([]byte("x"), tt.locator, tt.max)
		if err != nil || start != tt.start || n != tt.n {
			t.Errorf("%s: %d headers from %d, %v", tt.name, n, start, err)
			continue
		}
		want := []byte("x")
		for _, x := range blocks[start:][:n] {
			want = append(want, x.Raw[:consensus.HeaderBytes]...)
		}
		if !bytes.Equal(raw, want) {
			t.Errorf("%s: other headers", tt.name)
		}
	}
	for height := range int32(31) {
		if hash, ok := h.HashAt(height); !ok || hash != blocks[height].Hash {
			t.Errorf("hash at %d: %v, %v", height, hash, ok)
		}
	}
	if _, ok := h.HashAt(31); ok {
		t.Error("there is a hash past the tip")
	}
	if s, _ := h.Status(side[0].Hash); s.Active || s.Height != 21 || s.Txs != 1 || s.Header.BlockHash() != side[0].Hash {
		t.Errorf("status %+v", s)
	}
	p, ok := h.Past(side[0].Hash)
	if !ok || p.Height() != 21 || p.Hash() != side[0].Hash || p.At(21).Time != side[0].Header.Timestamp.Unix() || p.At(3).Bits != blocks[3].Header.Bits {
		t.Errorf("past %+v", p)
	}
}

// One line a block at the tip, none while catching up.
func TestBlockLines(t *testing.T) {
	b, blocks := grown(50)
	h := open(t, func(o *chain.Options) {
		o.Now = func() time.Time { return blocks[50].Header.Timestamp.Add(1500 * time.Millisecond) }
	})
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks[1:])); err != nil {
		t.Fatal(err)
	}
	h.connectAll(blocks[1:])
	if l := h.log.with("msg=block "); len(l) != 2 || !strings.Contains(l[1], "height=50") {
		t.Errorf("lines of the sync: %q", l)
	}
	want := []string{"level=INFO", "msg=block ", "height=50", "hash=" + blocks[50].Hash.String(), "txs=1", "bytes=", "from=peer1", "delay=1.5"}
	if l := h.log.with(want...); len(l) != 1 {
		t.Errorf("lines: %q", h.log.with("height=50"))
	}
	old := b.MineTemplate(blocks[50], templateAt(blocks[50]))
	h.submitFrom(old.Raw, chain.Source{Kind: chain.FromSync, Peer: "peer1", Old: true}) // more follow, whose headers are not here
	if l := h.log.with("msg=block ", "height=51"); len(l) != 0 {
		t.Errorf("lines: %q", l)
	}
	next := b.MineTemplate(old, templateAt(old))
	h.submitFrom(next.Raw, chain.Source{Kind: chain.FromMiner, Facts: []slog.Attr{slog.Int("pulled", 3)}})
	if l := h.log.with("msg=block ", "height=52", "from=miner", "pulled=3"); len(l) != 1 {
		t.Errorf("lines: %q", h.log.with("height=52"))
	}
}

// A peer cannot fill the disk with refusals; those left out are counted.
func TestRefusalsAreLimited(t *testing.T) {
	h := open(t, nil)
	for i := range 500 {
		h.submit([]byte{byte(i)})
	}
	if n := len(h.log.with("level=WARN", "block refused", "rule=bad-encoding", "peer=peer1")); n < 10 || n > 30 {
		t.Errorf("%d lines", n)
	}
	var l chain.Limiter
	now := far()
	allowed := 0
	for range 100 {
		if _, ok := l.Allow(now); ok {
			allowed++
		}
	}
	if allowed != 10 {
		t.Errorf("%d allowed at once", allowed)
	}
	now = now.Add(2 * time.Second)
	if n, ok := l.Allow(now); !ok || n != 90 {
		t.Errorf("later: %v, %d suppressed", ok, n)
	}
}

func TestOptionFaults(t *testing.T) {
	_, err := chain.Open(chain.Options{Workers: -1, MaxQueueBlocks: -1, MaxQueueBytes: -1, CacheBytes: -1, FlushBytes: -1, FlushBlocks: -1, FlushInterval: -1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"Dir", "Params", "Engine", "Workers", "MaxQueueBlocks", "MaxQueueBytes", "CacheBytes", "FlushBytes", "FlushBlocks", "FlushInterval"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not reported in %q", name, err)
		}
	}
}

// A million headers must fit into a small machine.
func TestNodeSize(t *testing.T) {
	if chain.NodeBytes > 112 || chain.BodyBytes > 32 {
		t.Errorf("a node has %d bytes and its body %d", chain.NodeBytes, chain.BodyBytes)
	}
}

// Run joins everything that it started.
func TestRunLeavesNothing(t *testing.T) {
	_, blocks := grown(30)
	h := open(t, nil)
	h.connectAll(blocks[1:])
	c := h.Chain
	h.close()
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, name := range []string{"(*workers).work", "(*Chain).Run", "(*conductor)"} {
		if bytes.Contains(stacks, []byte(name)) {
			t.Errorf("%s still runs:\n%s", name, stacks)
		}
	}
	if err := c.Run(t.Context()); err == nil {
		t.Error("a second Run succeeds")
	}
}

// TestSpent: what a block's transactions spent is told, of a block that was connected;
// and the walk over all coins sees those of the tip, in the order that is promised.
func TestSpent(t *testing.T) {
	h := open(t, nil)
	b := enginetest.NewBuilder(h.o.Params)
	key := enginetest.NewKey(1)
	tip := b.Genesis()
	var blocks []*consensus.Block
	for range h.o.Params.CoinbaseMaturity {
		tip = b.MineTemplate(tip, enginetest.Template{Script: key.Script()})
		blocks = append(blocks, tip)
	}
	first := blocks[0].Txs[0].MsgTx().TxOut[0]
	tx := enginetest.Spend(blocks[0], 0, 5000, key.Script())
	key.Sign(tx, []consensus.Coin{{Value: first.Value, Script: first.PkScript}})
	full := b.MineTemplate(tip, enginetest.Template{Txs: []*wire.MsgTx{tx}, Fees: 5000})
	rival := b.Mine(tip)
	h.connectAll(append(blocks, full))
	h.want(rival, chain.SideChain)

	spent, err := h.Spent(full)
	if err != nil || len(spent) != 2 || len(spent[0]) != 0 || len(spent[1]) != 1 {
		t.Fatalf("%v, %v", spent, err)
	}
	if c := spent[1][0]; c.Value != first.Value || c.Height != 1 || !c.Coinbase || !bytes.Equal(c.Script, first.PkScript) {
		t.Errorf("spent %+v", c)
	}
	if spent, err := h.Spent(b.Genesis()); err != nil || len(spent) != 1 {
		t.Errorf("genesis: %v, %v", spent, err)
	}
	for _, x := range []*consensus.Block{rival, b.Mine(full)} {
		if _, err := h.Spent(x); !errors.Is(err, chain.ErrNotFound) {
			t.Errorf("of a block that was never connected: %v", err)
		}
	}
	var total int64
	var last wire.OutPoint
	n := 0
	at, err := h.Coins(t.Context(), func(op wire.OutPoint, c consensus.Coin) error {
		if n > 0 && bytes.Compare(last.Hash[:], op.Hash[:]) > 0 {
			t.Errorf("%v after %v", op, last)
		}
		last, total = op, total+c.Value
		n++
		return nil
	})
	if err != nil || at.Hash != full.Hash || total != int64(len(blocks)+1)*50e8 {
		t.Errorf("%d coins worth %d at %v, %v", n, total, at.Hash, err)
	}
	if _, err := h.Coins(t.Context(), func(wire.OutPoint, consensus.Coin) error { return errors.New("enough") }); err == nil || err.Error() != "enough" {
		t.Errorf("the walk goes on: %v", err)
	}
}
