package chain_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
)

// Each step of the accept order, with what it says and whom it blames.
func TestAcceptOrder(t *testing.T) {
	b, blocks := grown(111)
	tip := blocks[111]
	stranger := enginetest.NewBuilder(consensus.Regtest())
	stranger.MineN(stranger.Genesis(), 1)
	lost := b.Mine(b.Mine(tip)) // its parent is never submitted
	value := int64(51_0000_0000)
	future := b.MineTemplate(tip, enginetest.Template{Time: far().Add(3 * time.Hour)})
	double := b.Mine(tip, enginetest.Spend(blocks[1], 0, 0), enginetest.Spend(blocks[1], 0, 1))
	immature := b.Mine(tip, enginetest.Spend(blocks[50], 0, 0))
	greedy := b.MineTemplate(tip, enginetest.Template{Value: &value})
	missing := b.Mine(tip, enginetest.Spend(stranger.Mine(stranger.Genesis()), 0, 0))
	badHeight := b.MineTemplate(tip, enginetest.Template{Change: func(u *enginetest.Unsealed) {
		u.Txs[0].TxIn[0].SignatureScript = []byte{1, 1, 1, 1}
	}})
	noCoinbase := b.MineTemplate(tip, enginetest.Template{Change: func(u *enginetest.Unsealed) {
		u.Txs[0] = enginetest.Spend(blocks[1], 0, 0)
	}})
	badBits := b.MineTemplate(tip, enginetest.Template{Change: func(u *enginetest.Unsealed) { u.Header.Bits = 0x207ffffe }})
	tests := []struct {
		name    string
		raw     []byte
		outcome chain.Outcome
		rule    string
		blame   consensus.Blame
		marked  bool // the header is remembered as invalid
	}{
		{"1 garbage", []byte("garbage"), chain.Refused, "bad-encoding", consensus.BlameSender, false},
		{"1 trailing byte", append(slices.Clone(lost.Raw), 0), chain.Refused, "bad-encoding", consensus.BlameSender, false},
		{"1 too long", make([]byte, 4_000_001), chain.Refused, "bad-blk-length", consensus.BlameSender, false},
		{"2 known", tip.Raw, chain.Duplicate, "", 0, false},
		{"2 genesis", blocks[0].Raw, chain.Duplicate, "", 0, false},
		{"3 parent unknown", lost.Raw, chain.Orphan, "", 0, false},
		{"5 from the future", future.Raw, chain.Refused, "time-too-new", consensus.BlameNobody, false},
		{"5 bits", badBits.Raw, chain.Refused, "bad-diffbits", consensus.BlameBlock, false},
		{"6 no coinbase", noCoinbase.Raw, chain.Refused, "bad-cb-missing", consensus.BlameBlock, true},
		{"7 height in coinbase", badHeight.Raw, chain.Refused, "bad-cb-height", consensus.BlameBlock, true},
		{"9 same coin twice", double.Raw, chain.Refused, "bad-txns-inputs-missingorspent", consensus.BlameBlock, true},
		{"9 no such coin", missing.Raw, chain.Refused, "bad-txns-inputs-missingorspent", consensus.BlameBlock, true},
		{"9 immature", immature.Raw, chain.Refused, "bad-txns-premature-spend-of-coinbase", consensus.BlameBlock, true},
		{"9 too much money", greedy.Raw, chain.Refused, "bad-cb-amount", consensus.BlameBlock, true},
		{"11 script", b.Mine(tip, badScript(blocks[2])).Raw, chain.Refused, "mandatory-script-verify-flag-failed", consensus.BlameBlock, true},
	}
	h := open(t, nil)
	h.connectAll(blocks[1:])
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := h.submit(tt.raw)
			if v.Outcome != tt.outcome {
				t.Fatalf("verdict %+v, want %v", v, tt.outcome)
			}
			if tt.rule == "" {
				if v.Err != nil {
					t.Fatalf("error %v", v.Err)
				}
				return
			}
			checkRule(t, v.Err, tt.rule)
			if r, _ := errors.AsType[*consensus.RuleError](v.Err); r.Blame != tt.blame {
				t.Errorf("blame %d, want %d", r.Blame, tt.blame)
			}
			if s, ok := h.Status(v.Hash); s.Invalid != tt.marked {
				t.Errorf("status %+v (known: %v)", s, ok)
			}
			if tt.marked {
				checkRule(t, h.submit(tt.raw).Err, "duplicate-invalid")
			}
		})
	}
	h.wantTip(tip)
	next := b.Mine(tip, enginetest.Spend(blocks[1], 0, 0))
	h.want(next, chain.Connected)
	// The same coin again, a block later.
	h.wantRule(b.Mine(next, enginetest.Spend(blocks[1], 0, 5)), "bad-txns-inputs-missingorspent")
	h.wantCoins(b, next)
}

// A body that does not belong to its header blames the sender alone: the right
// body is welcome later, and the header is not marked.
func TestMutatedBody(t *testing.T) {
	b, blocks := grown(101)
	tip := blocks[101]
	good := b.Mine(tip, enginetest.Spend(blocks[1], 0, 0))
	flipped := slices.Clone(good.Raw)
	flipped[len(flipped)-1] ^= 1 // a lock time
	cut := good.Raw[:len(good.Raw)-1]
	// CVE-2012-2459: the last transaction twice has the same merkle root when the
	// number of transactions is odd.
	three := b.Mine(good, enginetest.Spend(blocks[2], 0, 0), enginetest.Spend(good, 1, 0))
	var twice wire.MsgBlock
	if err := twice.Deserialize(bytes.NewReader(three.Raw)); err != nil {
		t.Fatal(err)
	}
	twice.Transactions = append(twice.Transactions, twice.Transactions[2])
	var doubled bytes.Buffer
	if err := twice.Serialize(&doubled); err != nil {
		t.Fatal(err)
	}
	h := open(t, nil)
	h.connectAll(blocks[1:])
	for _, tt := range []struct {
		name  string
		raw   []byte
		right *consensus.Block
	}{
		{"cut", cut, nil},
		{"flipped", flipped, good},
		{"doubled", doubled.Bytes(), three},
	} {
		v := h.submit(tt.raw)
		r, ok := errors.AsType[*consensus.RuleError](v.Err)
		if v.Outcome != chain.Refused || !ok || r.Blame != consensus.BlameSender {
			t.Fatalf("%s: verdict %+v", tt.name, v)
		}
		if tt.right != nil {
			if s, _ := h.Status(tt.right.Hash); s.Invalid || s.HaveBlock {
				t.Errorf("%s: status %+v", tt.name, s)
			}
			h.want(tt.right, chain.Connected)
		}
	}
	h.wantCoins(b, three)
}

// Blocks may come in any order once their headers are known; whatever closes a
// gap connects all that was stored behind it.
func TestOutOfOrder(t *testing.T) {
	b, blocks := grown(130)
	blocks = append(blocks, spending(b, blocks[130], blocks[1:], 20)...)
	tip := blocks[len(blocks)-1]
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := open(t, nil)
			if n, last, err := h.AcceptHeaders(t.Context(), headersOf(blocks)); err != nil || n != 150 || last.Hash != tip.Hash {
				t.Fatalf("headers: %d, %v, %v", n, last.Hash, err)
			}
			send := slices.Clone(blocks[1:])
			rng := rand.New(rand.NewPCG(seed, 0))
			rng.Shuffle(len(send), func(i, j int) { send[i], send[j] = send[j], send[i] })
			half := len(send) / 2
			h.submitAll(send[:half])
			if seed%2 == 1 {
				h.reopen() // what is stored is taken up again
			}
			for _, r := range h.Have(tip.Hash, 0, 150) {
				for height := r[0]; height <= r[1]; height++ {
					hash, _ := h.Ancestor(tip.Hash, height)
					if !slices.ContainsFunc(send[:half], func(b *consensus.Block) bool { return b.Hash == hash }) {
						t.Errorf("have %d, which was not sent", height)
					}
				}
			}
			h.submitAll(send[half:])
			h.wantTip(tip)
			if have := h.Have(tip.Hash, 0, 1000); !slices.Equal(have, [][2]int32{{1, 150}}) {
				t.Errorf("have %v", have)
			}
			h.wantCoins(b, tip)
		})
	}
}

// A script that fails in the middle of a batch is blamed on its own block: what
// precedes it is connected, what follows it refused as building on it.
func TestScriptFailureInBatch(t *testing.T) {
	b, blocks := grown(120)
	good := spending(b, blocks[120], blocks[1:], 10)
	bad := b.Mine(good[9], enginetest.Spend(blocks[11], 0, 0), badScript(blocks[12]))
	after := b.MineN(bad, 10)
	h := open(t, nil)
	h.connectAll(blocks[1:])
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(append(append(slices.Clone(good), bad), after...))); err != nil {
		t.Fatal(err)
	}
	verdicts := h.submitAll(append(append(slices.Clone(good), bad), after...))
	for i, v := range verdicts {
		switch {
		case i < 10:
			if v.Outcome != chain.Connected {
				t.Fatalf("block %d: %+v", i, v)
			}
		case i == 10:
			checkRule(t, v.Err, "mandatory-script-verify-flag-failed")
		default:
			checkRule(t, v.Err, "bad-prevblk")
		}
	}
	h.wantTip(good[9])
	next := b.Mine(good[9], enginetest.Spend(blocks[12], 0, 0))
	h.want(next, chain.Connected)
	h.wantCoins(b, next)
}

// A gate holds CheckBlock of an engine until it is opened.
type gate struct {
	consensus.Engine
	mu   sync.Mutex
	held map[int32]chan struct{} // by height of the block
	at   chan int32
}

func (g *gate) CheckBlock(past consensus.Past, coins consensus.Coins, b *consensus.Block) error {
	g.mu.Lock()
	hold := g.held[past.Height()+1]
	g.mu.Unlock()
	if hold != nil {
		g.at <- past.Height() + 1
		<-hold
	}
	return g.Engine.CheckBlock(past, coins, b)
}

// newGate holds blocks at height until the returned channel is closed.
func newGate(height int32) (*gate, chan struct{}) {
	hold := make(chan struct{})
	return &gate{
		Engine: pow.New(consensus.Regtest()),
		held:   map[int32]chan struct{}{height: hold},
		at:     make(chan int32, 16),
	}, hold
}

// The pipeline takes so many blocks and no more; Submit waits, and readers do not.
func TestPipelineBounds(t *testing.T) {
	b, blocks := grown(30)
	for _, tt := range []struct {
		name   string
		change func(*chain.Options)
		fit    int
	}{
		{"blocks", func(o *chain.Options) { o.MaxQueueBlocks = 4 }, 4},
		{"bytes", func(o *chain.Options) { o.MaxQueueBytes = int64(3*len(blocks[5].Raw) + 10) }, 3},
		{"one always fits", func(o *chain.Options) { o.MaxQueueBytes = 1 }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, hold := newGate(1)
			h := open(t, func(o *chain.Options) { o.Engine = g; tt.change(o) })
			ctx, cancel := context.WithCancel(t.Context())
			for _, x := range blocks[1 : 1+tt.fit] {
				if _, err := h.Submit(ctx, x.Raw, fromSync); err != nil {
					t.Fatal(err)
				}
			}
			<-g.at // the first is inside, its coins half applied
			blocked := make(chan error, 1)
			go func() {
				_, err := h.Submit(ctx, blocks[1+tt.fit].Raw, fromSync)
				blocked <- err
			}()
			// Readers answer meanwhile, as of the published tip.
			h.wantTip(blocks[0])
			if _, ok, err := h.Coin(wire.OutPoint{Hash: *blocks[1].Txs[0].Hash()}); ok || err != nil {
				t.Errorf("coin of an unpublished block: %v, %v", ok, err)
			}
			if s, _ := h.Status(blocks[1].Hash); !s.HaveBlock || s.Valid {
				t.Errorf("status %+v", s)
			}
			if raw, err := h.Block(blocks[1].Hash); err != nil || !bytes.Equal(raw, blocks[1].Raw) {
				t.Errorf("block: %v", err)
			}
			select {
			case err := <-blocked:
				t.Fatalf("one block too many was taken: %v", err)
			default:
			}
			cancel()
			if err := <-blocked; !errors.Is(err, context.Canceled) {
				t.Fatalf("blocked submit: %v", err)
			}
			close(hold)
			h.connectAll(blocks[1+tt.fit:])
			h.wantCoins(b, blocks[30])
		})
	}
}

// Coin answers as of the published tip while later blocks are under way, and
// while a reorganisation has taken the coins elsewhere.
func TestCoinIsOfThePublishedTip(t *testing.T) {
	b, blocks := grown(111)
	base, tip := blocks[1:], blocks[111]
	old := spending(b, tip, base, 3)
	first := b.Mine(tip)
	rival := append([]*consensus.Block{first}, spending(b, first, []*consensus.Block{base[2], base[1], base[0]}, 3)...)
	g, hold := newGate(114)
	h := open(t, func(o *chain.Options) { o.Engine = g; o.CacheBytes = 1 })
	h.connectAll(base)
	for _, x := range old[:2] {
		h.want(x, chain.Connected)
	}
	// Everything that either branch made or spent.
	touched := make(map[wire.OutPoint]bool)
	for _, x := range []*consensus.Block{tip, old[1], old[2], rival[2], rival[3]} {
		for op := range modelCoins(b, x) {
			touched[op] = true
		}
	}
	check := func(tip *consensus.Block) {
		t.Helper()
		h.wantTip(tip)
		model := modelCoins(b, tip)
		for op := range touched {
			c, ok, err := h.Coin(op)
			want, exists := model[op]
			if err != nil || ok != exists || (ok && coinString(c) != want) {
				t.Fatalf("coin %v at %v: %v, %v, %v; want %v %q", op, tip.Hash, c, ok, err, exists, want)
			}
		}
	}
	send := func(x *consensus.Block) *chain.Ticket {
		t.Helper()
		ticket, err := h.Submit(t.Context(), x.Raw, fromSync)
		if err != nil {
			t.Fatal(err)
		}
		return ticket
	}
	// Block 114 of the old branch is applied but not through.
	ticket := send(old[2])
	<-g.at
	check(old[1])
	close(hold)
	ticket.Wait(t.Context())
	check(old[2])
	// Block 114 of the other branch is, in the middle of a reorganisation.
	for _, x := range rival[:3] {
		h.want(x, chain.SideChain)
	}
	hold = make(chan struct{})
	g.mu.Lock()
	g.held[114] = hold
	g.mu.Unlock()
	ticket = send(rival[3])
	<-g.at
	check(old[2])
	close(hold)
	ticket.Wait(t.Context())
	check(rival[3])
}

// The blocks on the way forward count as those on the way back do: neither keeps more
// than the queue may hold. It is over when the new tip is out, or the old one is back.
func TestLongReorgForward(t *testing.T) {
	b, blocks := grown(120)
	good := b.MineN(blocks[115], 6)
	bad := b.Mine(good[4], badScript(blocks[1]))
	for name, last := range map[string]*consensus.Block{"good": good[5], "bad": bad} {
		t.Run(name, func(t *testing.T) {
			g, hold := newGate(-1)
			h := open(t, func(o *chain.Options) {
				o.Engine = g
				for _, x := range append(slices.Clone(blocks[116:]), good[:3]...) {
					o.MaxQueueBytes += int64(len(x.Raw))
				}
			})
			h.connectAll(blocks[1:])
			for _, x := range good[:5] {
				h.want(x, chain.SideChain)
			}
			g.mu.Lock()
			g.held[121] = hold
			g.mu.Unlock()
			ticket, err := h.Submit(t.Context(), last.Raw, fromSync)
			if err != nil {
				t.Fatal(err)
			}
			<-g.at
			if n := chain.Steps(h.Chain); n != 1 {
				t.Errorf("%d steps are kept, want that of the block at hand", n)
			}
			op := wire.OutPoint{Hash: *blocks[118].Txs[0].Hash()}
			if _, _, err := h.Coin(op); !errors.Is(err, chain.ErrBusy) {
				t.Errorf("error %v, want ErrBusy", err)
			}
			close(hold)
			ticket.Wait(t.Context())
			h.rest()
			tip, want := blocks[120], true
			if name == "good" {
				tip, want = last, false
			}
			h.wantTip(tip)
			if n := chain.Steps(h.Chain); n != 0 {
				t.Errorf("%d steps are kept afterwards", n)
			}
			if _, ok, err := h.Coin(op); err != nil || ok != want {
				t.Errorf("coin of the old branch: %v, %v", ok, err)
			}
			next := b.Mine(tip)
			h.want(next, chain.Connected)
			h.wantCoins(b, next)
		})
	}
}

// A reorganisation too deep for its steps to be kept says so instead of giving
// the coins of another tip, and is over with the next tip.
func TestCoinDuringDeepReorg(t *testing.T) {
	b, blocks := grown(20)
	rival := b.MineN(blocks[5], 16)
	g, hold := newGate(-1)
	h := open(t, func(o *chain.Options) { o.Engine = g; o.MaxQueueBytes = 1000 })
	h.connectAll(blocks[1:])
	for _, x := range rival[:15] {
		h.want(x, chain.SideChain)
	}
	g.mu.Lock()
	g.held[10] = hold
	g.mu.Unlock()
	ticket, err := h.Submit(t.Context(), rival[15].Raw, fromSync)
	if err != nil {
		t.Fatal(err)
	}
	<-g.at
	op := wire.OutPoint{Hash: *blocks[7].Txs[0].Hash()}
	if _, _, err := h.Coin(op); !errors.Is(err, chain.ErrBusy) {
		t.Errorf("coin in between: %v", err)
	}
	h.wantTip(blocks[20])
	close(hold)
	if v := ticket.Wait(t.Context()); v.Outcome != chain.Connected {
		t.Fatalf("verdict %+v", v)
	}
	if _, ok, err := h.Coin(op); ok || err != nil {
		t.Errorf("coin of the old branch: %v, %v", ok, err)
	}
	h.wantCoins(b, rival[15])
}

// Many submitters, header senders and readers at once.
func TestConcurrency(t *testing.T) {
	b, blocks := grown(111)
	base, tip := blocks[1:], blocks[111]
	var branches [][]*consensus.Block
	for i := range 4 {
		first := b.Mine(tip)
		branches = append(branches, append([]*consensus.Block{first}, spending(b, first, base, 5+i)...))
	}
	h := open(t, func(o *chain.Options) { o.FlushInterval = 5 * time.Millisecond; o.CacheBytes = 8 << 10 })
	h.connectAll(base)
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for i, branch := range branches {
		rng := rand.New(rand.NewPCG(uint64(i), 0))
		writers.Go(func() {
			send := slices.Clone(branch)
			rng.Shuffle(len(send), func(i, j int) { send[i], send[j] = send[j], send[i] })
			if _, _, err := h.AcceptHeaders(t.Context(), headersOf(branch)); err != nil {
				t.Error(err)
			}
			for _, x := range send {
				h.submitFrom(x.Raw, chain.Source{Kind: chain.FromRPC})
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				at, _ := h.Tip()
				h.BestHeader()
				h.Tips()
				h.Locator(at.Hash)
				h.Have(at.Hash, 0, at.Height)
				if raw, err := h.Block(at.Hash); err != nil || len(raw) != h.BlockSize(at.Hash) {
					t.Errorf("block of the tip: %v", err)
				}
				if _, _, err := h.Coin(wire.OutPoint{Hash: *base[0].Txs[0].Hash()}); err != nil {
					t.Errorf("coin: %v", err)
				}
				if _, _, _, err := h.HeadersAfter(nil, nil, 50); err != nil {
					t.Errorf("headers: %v", err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	last := branches[3][len(branches[3])-1]
	h.wantTip(last)
	h.wantCoins(b, last)
}

// A random tree of blocks, some bad, in random order with restarts: the end is
// always a good tip with most work and exactly the coins of its branch.
func TestRandomTree(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			b, blocks := grown(111)
			base := blocks[1:]
			made := []*consensus.Block{blocks[111]}
			bad := map[*consensus.Block]bool{}
			for range 60 {
				// Mostly near the end, so that branches grow long.
				parent := made[max(0, len(made)-1-rng.IntN(min(len(made), 8)))]
				var txs []*wire.MsgTx
				isBad := bad[parent]
				if from := base[rng.IntN(10)]; rng.IntN(2) == 0 {
					tx := enginetest.Spend(from, 0, 0, enginetest.OpTrue(), enginetest.OpTrue())
					if _, ok := b.Coins(parent.Hash)[tx.TxIn[0].PreviousOutPoint]; !ok {
						isBad = true
					}
					if rng.IntN(8) == 0 {
						tx, isBad = badScript(from), true
					}
					txs = append(txs, tx)
				}
				x := b.Mine(parent, txs...)
				bad[x] = isBad
				made = append(made, x)
			}
			h := open(t, func(o *chain.Options) { o.CacheBytes = 16 << 10; o.FlushBlocks = 1 + rng.IntN(20) })
			h.connectAll(base)
			for _, x := range made[1:] {
				if _, _, err := h.AcceptHeaders(t.Context(), []consensus.Header{x.Header}); err != nil {
					t.Fatal(err)
				}
			}
			send := slices.Clone(made[1:])
			rng.Shuffle(len(send), func(i, j int) { send[i], send[j] = send[j], send[i] })
			for len(send) > 0 {
				n := min(len(send), 1+rng.IntN(20))
				h.submitAll(send[:n])
				send = send[n:]
				if rng.IntN(3) == 0 {
					h.reopen()
				}
			}
			h.rest()
			best := int32(0)
			for _, x := range made {
				if !bad[x] {
					best = max(best, b.Height(x.Hash))
				}
			}
			tip, _ := h.Tip()
			if tip.Height != best {
				t.Fatalf("tip at height %d, the best good one is at %d", tip.Height, best)
			}
			for _, x := range made {
				if x.Hash == tip.Hash {
					if bad[x] {
						t.Fatal("the tip is bad")
					}
					h.wantCoins(b, x)
					return
				}
			}
			t.Fatal("the tip is none of the blocks")
		})
	}
}

// The gate for peers: nothing is stored on a branch with too little work.
func TestMinChainWork(t *testing.T) {
	b, blocks := grown(20)
	h := open(t, func(o *chain.Options) {
		o.Params.MinChainWork = big.NewInt(2 * 11) // ten blocks and genesis
	})
	hs := headersOf(blocks[1:])
	n, _, err := h.AcceptHeaders(t.Context(), hs[:9])
	checkRule(t, err, "too-little-chainwork")
	if n != 0 {
		t.Errorf("%d headers were added", n)
	}
	h.wantRule(blocks[1], "too-little-chainwork")
	if tips := h.Tips(); len(tips) != 1 {
		t.Errorf("tips %+v", tips)
	}
	// A faulty header at the end does not open the gate for those before it.
	broken := slices.Clone(hs[:10])
	broken[9].Bits = 0x1d00ffff
	_, _, err = h.AcceptHeaders(t.Context(), broken)
	if err == nil {
		t.Error("a broken header was accepted")
	}
	if _, ok := h.Status(blocks[1].Hash); ok {
		t.Error("headers before a broken one passed the gate")
	}
	if n, _, err := h.AcceptHeaders(t.Context(), hs[:10]); n != 10 || err != nil {
		t.Fatalf("%d headers, %v", n, err)
	}
	h.connectAll(blocks[1:])
	h.wantTip(blocks[20])
	// One's own blocks and files need no gate.
	side := b.Mine(blocks[0])
	h.wantRule(side, "too-little-chainwork")
	if v := h.submitFrom(side.Raw, chain.Source{Kind: chain.FromMiner}); v.Outcome != chain.SideChain {
		t.Errorf("verdict %+v", v)
	}
}

// Scripts below the assumed-valid block are skipped while it is on the best
// header chain, and only then; the other rules hold.
func TestAssumeValid(t *testing.T) {
	b, blocks := grown(111)
	bad := b.Mine(blocks[111], badScript(blocks[1]))
	after := b.MineN(bad, 3)
	for _, tt := range []struct {
		name    string
		assume  *consensus.Block
		headers bool
		want    chain.Outcome
	}{
		{"above", after[1], true, chain.Connected},
		{"itself", bad, true, chain.Connected},
		{"below", blocks[111], true, chain.Refused},
		{"header unknown", after[1], false, chain.Refused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t, func(o *chain.Options) { o.AssumeValid = tt.assume.Hash })
			h.connectAll(blocks[1:])
			if tt.headers {
				if _, _, err := h.AcceptHeaders(t.Context(), headersOf(append([]*consensus.Block{bad}, after...))); err != nil {
					t.Fatal(err)
				}
			}
			h.want(bad, tt.want)
		})
	}
}

// Headers stop at the first fault, are consecutive, and known ones cost nothing.
func TestAcceptHeaders(t *testing.T) {
	b, blocks := grown(10)
	h := open(t, nil)
	ctx := t.Context()
	hs := headersOf(blocks[1:])
	_, _, err := h.AcceptHeaders(ctx, hs[3:])
	checkRule(t, err, "unknown-parent")
	n, last, err := h.AcceptHeaders(ctx, []consensus.Header{hs[0], hs[1], hs[3]})
	checkRule(t, err, "headers-not-consecutive")
	if n != 2 || last.Hash != blocks[2].Hash {
		t.Errorf("%d added, last %v", n, last.Hash)
	}
	n, last, err = h.AcceptHeaders(ctx, hs)
	if n != 8 || last.Hash != blocks[10].Hash || err != nil {
		t.Errorf("%d added, last %v, %v", n, last.Hash, err)
	}
	if n, last, err = h.AcceptHeaders(ctx, hs[:4]); n != 0 || last.Hash != blocks[4].Hash || err != nil {
		t.Errorf("known ones: %d, %v, %v", n, last.Hash, err)
	}
	if height, known, err := h.CheckHeader(&hs[4]); height != 5 || !known || err != nil {
		t.Errorf("check of a known header: %d, %v, %v", height, known, err)
	}
	next := b.Mine(blocks[10])
	if height, known, err := h.CheckHeader(&next.Header); height != 11 || known || err != nil {
		t.Errorf("check of a new header: %d, %v, %v", height, known, err)
	}
	above := b.Mine(next)
	height, _, err := h.CheckHeader(&above.Header)
	checkRule(t, err, "unknown-parent")
	if height != -1 {
		t.Errorf("height %d", height)
	}
	if best, _ := h.BestHeader(); best.Hash != blocks[10].Hash {
		t.Errorf("best header %v", best.Hash)
	}
	h.wantTip(blocks[0])
	h.reopen() // headers are committed with the rest
	if best, _ := h.BestHeader(); best.Hash != blocks[10].Hash {
		t.Errorf("best header after a restart %v", best.Hash)
	}
}

// Scripts that the mempool has checked are not checked again, and it is asked
// only about blocks whose transactions it may know.
func TestScriptsChecked(t *testing.T) {
	b, blocks := grown(111)
	tx := badScript(blocks[1]) // shows whether its scripts were run
	bad := b.Mine(blocks[111], tx)
	for _, tt := range []struct {
		src  chain.SourceKind
		want chain.Outcome
	}{
		{chain.FromGossip, chain.Connected},
		{chain.FromSync, chain.Refused},
	} {
		h := open(t, func(o *chain.Options) {
			o.ScriptsChecked = func(wtxid chainhash.Hash, flags uint32) bool {
				return wtxid == tx.WitnessHash() && flags == consensus.ScriptFlags(o.Params, b.Past(blocks[111].Hash), bad.Hash)
			}
		})
		h.connectAll(blocks[1:])
		if v := h.submitFrom(bad.Raw, chain.Source{Kind: tt.src}); v.Outcome != tt.want {
			t.Errorf("%v: verdict %+v", tt.src, v)
		}
	}
}

// A coin in memory has its own copy of the script: a block's bytes go when the
// block does.
func TestCoinsDoNotPinBlocks(t *testing.T) {
	_, blocks := grown(1)
	h := open(t, nil)
	raw := bytes.Clone(blocks[1].Raw)
	if v := h.submit(raw); v.Outcome != chain.Connected {
		t.Fatalf("verdict %+v", v)
	}
	h.rest()
	clear(raw) // nobody reads it any more
	coin, ok, err := h.Coin(wire.OutPoint{Hash: *blocks[1].Txs[0].Hash()})
	if err != nil || !ok || !bytes.Equal(coin.Script, enginetest.OpTrue()) {
		t.Errorf("coin %+v, there %v, %v", coin, ok, err)
	}
}
