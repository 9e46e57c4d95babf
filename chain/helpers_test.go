package chain_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/chaintest"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
	"dunlin/chain/store"
)

// far is a clock at which no header of a test is from the future.
func far() time.Time { return time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC) }

// A home is a chain on a file system in memory that can be closed and opened.
type home struct {
	*chain.Chain
	t    testing.TB
	o    chain.Options
	stop func() error
	log  *lines
	// broken says that the test leaves the home in a state that no audit passes.
	broken bool
}

// lines collects log lines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// with returns the lines that hold all of subs.
func (l *lines) with(subs ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for line := range strings.Lines(l.b.String()) {
		for _, s := range subs {
			if !strings.Contains(line, s) {
				continue next
			}
		}
		found = append(found, strings.TrimSpace(line))
	}
	return found
}

// open opens a chain; change may change the options. When the test is over its
// coins are counted.
func open(t testing.TB, change func(*chain.Options)) *home {
	t.Helper()
	h := &home{t: t, log: &lines{}}
	h.o = chain.Options{
		Dir:    "home",
		FS:     vfs.NewMem(),
		Params: consensus.Regtest(),
		Now:    far,
		Logger: slog.New(slog.NewTextHandler(h.log, nil)),
	}
	if change != nil {
		change(&h.o)
	}
	if h.o.Engine == nil {
		h.o.Engine = pow.New(h.o.Params)
	}
	h.start()
	t.Cleanup(func() {
		h.close()
		if !h.broken {
			chaintest.Audit(t, h.o)
		}
	})
	return h
}

// start opens and runs the chain and waits for the replay.
func (h *home) start() {
	h.t.Helper()
	h.load()
	h.run()
	select {
	case <-h.Ready():
	case <-time.After(patience):
		h.t.Fatal("the replay does not end")
	}
}

// load opens the chain without running it.
func (h *home) load() {
	h.t.Helper()
	c, err := chain.Open(h.o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Chain = c
}

// run runs it until stop is called.
func (h *home) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	h.stop = func() error {
		cancel()
		h.stop = func() error { return nil }
		if err := <-done; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
}

// close ends it in good order.
func (h *home) close() {
	h.t.Helper()
	if h.Chain == nil {
		return
	}
	if h.stop != nil {
		if err := h.stop(); err != nil {
			h.t.Errorf("run: %v", err)
		}
	}
	if err := h.Close(); err != nil {
		h.t.Errorf("close: %v", err)
	}
	h.Chain = nil
}

// reopen closes and starts it again.
func (h *home) reopen() {
	h.t.Helper()
	h.close()
	h.start()
}

var fromSync = chain.Source{Kind: chain.FromSync, Peer: "peer1"}

// submit submits a block and returns the verdict.
func (h *home) submit(raw []byte) chain.Verdict {
	h.t.Helper()
	return h.submitFrom(raw, fromSync)
}

func (h *home) submitFrom(raw []byte, src chain.Source) chain.Verdict {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ticket, err := h.Submit(ctx, raw, src)
	if err != nil {
		h.t.Fatal(err)
	}
	return ticket.Wait(ctx)
}

// want submits a block and checks the outcome.
func (h *home) want(b *consensus.Block, o chain.Outcome) chain.Verdict {
	h.t.Helper()
	v := h.submit(b.Raw)
	if v.Outcome != o {
		h.t.Fatalf("block %v: outcome %v (%v), want %v", b.Hash, v.Outcome, v.Err, o)
	}
	if v.Hash != b.Hash {
		h.t.Fatalf("verdict on %v, want %v", v.Hash, b.Hash)
	}
	return v
}

// wantRule submits a block that breaks a rule.
func (h *home) wantRule(b *consensus.Block, rule string) {
	h.t.Helper()
	checkRule(h.t, h.want(b, chain.Refused).Err, rule)
}

func checkRule(t testing.TB, err error, rule string) {
	t.Helper()
	var r *consensus.RuleError
	if !errors.As(err, &r) || r.Rule != rule {
		t.Fatalf("error %v, want rule %s", err, rule)
	}
}

// submitAll submits blocks without waiting in between and returns the verdicts.
func (h *home) submitAll(blocks []*consensus.Block) []chain.Verdict {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tickets := make([]*chain.Ticket, len(blocks))
	for i, b := range blocks {
		var err error
		if tickets[i], err = h.Submit(ctx, b.Raw, fromSync); err != nil {
			h.t.Fatal(err)
		}
	}
	verdicts := make([]chain.Verdict, len(blocks))
	for i, t := range tickets {
		verdicts[i] = t.Wait(ctx)
	}
	return verdicts
}

// connectAll submits blocks that must all be connected.
func (h *home) connectAll(blocks []*consensus.Block) {
	h.t.Helper()
	for i, v := range h.submitAll(blocks) {
		if v.Outcome != chain.Connected {
			h.t.Fatalf("block %d: outcome %v: %v", i, v.Outcome, v.Err)
		}
	}
}

// wantTip waits until b is the tip: what is read back from disk behind a gap is
// still on its way when the verdict on the block that closed it is there.
func (h *home) wantTip(b *consensus.Block) {
	h.t.Helper()
	deadline := time.After(patience)
	for {
		tip, changed := h.Tip()
		if tip.Hash == b.Hash {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			h.t.Fatalf("tip %v at height %d, want %v", tip.Hash, tip.Height, b.Hash)
		}
	}
}

// rest waits until everything that was submitted is dealt with.
func (h *home) rest() {
	h.t.Helper()
	for range 5 { // a refusal met by one flush sends the coins elsewhere
		if err := h.Flush(context.Background()); err != nil {
			h.t.Fatal(err)
		}
	}
}

// coins closes the chain and returns all committed coins.
func (h *home) coins() map[wire.OutPoint]string {
	h.t.Helper()
	h.close()
	return storedCoins(h.t, h.o)
}

func storedCoins(t testing.TB, o chain.Options) map[wire.OutPoint]string {
	t.Helper()
	st, err := store.Open(store.Options{Dir: o.Dir, FS: o.FS, ChainID: o.Params.ChainID(), Magic: o.Params.Magic})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	coins := make(map[wire.OutPoint]string)
	if err := st.Coins(func(op wire.OutPoint, c consensus.Coin) error {
		coins[op] = coinString(c)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return coins
}

func coinString(c consensus.Coin) string {
	return fmt.Sprintf("%d %x %d %v", c.Value, c.Script, c.Height, c.Coinbase)
}

// sameCoins compares two sets of coins.
func sameCoins(t testing.TB, got, want map[wire.OutPoint]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d coins, want %d", len(got), len(want))
	}
	for op, c := range want {
		if got[op] != c {
			t.Fatalf("coin %v is %q, want %q", op, got[op], c)
		}
	}
}

// grown returns a builder and a chain of n blocks over genesis.
func grown(n int) (*enginetest.Builder, []*consensus.Block) {
	b := enginetest.NewBuilder(consensus.Regtest())
	return b, append([]*consensus.Block{b.Genesis()}, b.MineN(b.Genesis(), n)...)
}

func hashOf(t testing.TB, s string) chainhash.Hash {
	t.Helper()
	h, err := chainhash.NewHashFromStr(s)
	if err != nil {
		t.Fatal(err)
	}
	return *h
}
