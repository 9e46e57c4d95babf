package exchange

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/consensus"
)

// txOf returns a transaction of so many bytes.
func txOf(t testing.TB, size int) []byte {
	t.Helper()
	for script := max(0, size-70); ; script++ {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(int64(size), make([]byte, script)))
		var b bytes.Buffer
		if err := tx.Serialize(&b); err != nil {
			t.Fatal(err)
		}
		if b.Len() == size {
			return b.Bytes()
		}
		if b.Len() > size {
			t.Fatalf("no transaction of %d bytes", size)
		}
	}
}

// inWork is a Pending of one block.
type inWork struct {
	hash chainhash.Hash

	mu      sync.Mutex // guards what follows
	known   bool
	txs     [][]byte // nil: not here yet
	raw     []byte   // nil: not complete
	changed chan struct{}
	asked   chan struct{} // gets a token at each look
}

func newInWork(hash chainhash.Hash, txs int) *inWork {
	return &inWork{hash: hash, known: true, txs: make([][]byte, txs), changed: make(chan struct{}), asked: make(chan struct{}, 1000)}
}

func (p *inWork) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *inWork) BlockTxs(block chainhash.Hash, indexes []uint32) (txs [][]byte, changed <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked <- struct{}{}
	if block != p.hash || !p.known {
		return nil, nil, nil
	}
	for _, i := range indexes {
		switch {
		case int(i) >= len(p.txs):
			return nil, nil, fmt.Errorf("index %d in a block of %d transactions", i, len(p.txs))
		case p.txs[i] == nil:
			return nil, p.changed, nil
		}
		txs = append(txs, p.txs[i])
	}
	return txs, nil, nil
}

func (p *inWork) Block(block chainhash.Hash) (raw []byte, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked <- struct{}{}
	switch {
	case block != p.hash || !p.known:
		return nil, nil
	case p.raw == nil:
		return nil, p.changed
	}
	return p.raw, nil
}

// servesInWork connects a client to a server with a block in work.
func servesInWork(t *testing.T, hash chainhash.Hash, txs int, hold time.Duration) (client, server *testNode, p *inWork) {
	t.Helper()
	p = newInWork(hash, txs)
	server = newNode(t, newFakeChain(), func(o *Options) { o.Pending, o.HoldFor = p, hold })
	client = newNode(t, newFakeChain())
	connect(t, client.host, server.host)
	eventually(t, "ready", func() bool { return client.Ready(server.host.ID()) && server.Ready(client.host.ID()) })
	return client, server, p
}

// TestPendingTxs: of a block in work, what is here is served at once, the rest when
// it comes. A block that was given up is not found.
func TestPendingTxs(t *testing.T) {
	t.Parallel()
	one, two := txOf(t, 200), txOf(t, 300)
	client, server, p := servesInWork(t, chainhash.Hash{7}, 3, patience)
	ask := func(indexes ...uint32) ([][]byte, error) {
		return client.FetchBlockTxs(t.Context(), server.host.ID(), p.hash, indexes, nil)
	}

	p.change(func() { p.txs[1] = one })
	if txs, err := ask(1); err != nil || len(txs) != 1 || !bytes.Equal(txs[0], one) {
		t.Errorf("what is here: %d, %v", len(txs), err)
	}

	<-p.asked
	answer := make(chan error, 1)
	go func() {
		txs, err := ask(0, 1)
		if err == nil && (len(txs) != 2 || !bytes.Equal(txs[0], two) || !bytes.Equal(txs[1], one)) {
			err = errors.New("other transactions")
		}
		answer <- err
	}()
	receive(t, "the request", p.asked)
	p.change(func() {}) // nothing of interest: it looks again and waits on
	receive(t, "another look", p.asked)
	p.change(func() { p.txs[0] = two })
	if err := receive(t, "the answer", answer); err != nil {
		t.Errorf("what came: %v", err)
	}

	for len(p.asked) > 0 {
		<-p.asked
	}
	go func() { _, err := ask(2); answer <- err }()
	receive(t, "the request", p.asked)
	p.change(func() { p.known = false })
	if err := receive(t, "the answer", answer); !errors.Is(err, ErrNotFound) {
		t.Errorf("given up: %v", err)
	}
	p.change(func() { p.known = true })
	if _, err := ask(3); !errors.Is(err, ErrNotFound) {
		t.Errorf("an index past the end: %v", err)
	}
	if n := len(server.blames) + len(client.blames); n > 0 {
		t.Errorf("%d blamed", n)
	}
}

// TestPendingBlock: the same of a whole block, which is served from memory until
// it is on disk.
func TestPendingBlock(t *testing.T) {
	t.Parallel()
	source := newFakeChain()
	raw := source.grow(t, 1, 1, 3*pieceBytes)[0]
	hash := chainhash.DoubleHashH(raw[:consensus.HeaderBytes])
	client, server, p := servesInWork(t, hash, 1, patience)
	fetch := func(ctx context.Context) ([]byte, error) { return client.FetchBlock(ctx, server.host.ID(), hash, nil) }

	// What is withdrawn is not held any longer, and does not hold up what follows.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := fetch(ctx); done <- err }()
	receive(t, "the request", p.asked)
	cancel()
	if err := receive(t, "the end", done); !errors.Is(err, context.Canceled) {
		t.Errorf("withdrawn: %v", err)
	}
	go func() {
		got, err := fetch(t.Context())
		if err == nil && !bytes.Equal(got, raw) {
			err = errors.New("another block")
		}
		done <- err
	}()
	receive(t, "the request", p.asked)
	p.change(func() { p.raw = raw })
	if err := receive(t, "the block", done); err != nil {
		t.Errorf("completed: %v", err)
	}
	if server.chain.BlockSize(hash) != 0 {
		t.Error("it is on disk: nothing was shown")
	}
	p.change(func() { p.known = false })
	if _, err := fetch(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("forgotten: %v", err)
	}
	if n := len(server.blames) + len(client.blames); n > 0 {
		t.Errorf("%d blamed", n)
	}
}

// TestNotYet: what does not come in time is not there yet, and nobody is blamed.
func TestNotYet(t *testing.T) {
	t.Parallel()
	const hold = 100 * time.Millisecond
	client, server, p := servesInWork(t, chainhash.Hash{7}, 2, hold)
	p.change(func() { p.txs[1] = txOf(t, 200) })
	began := time.Now()
	if _, err := client.FetchBlockTxs(t.Context(), server.host.ID(), p.hash, []uint32{0, 1}, nil); !errors.Is(err, ErrNotYet) {
		t.Errorf("transactions: %v", err)
	}
	if _, err := client.FetchBlock(t.Context(), server.host.ID(), p.hash, nil); !errors.Is(err, ErrNotYet) {
		t.Errorf("block: %v", err)
	}
	if took := time.Since(began); took < 2*hold {
		t.Errorf("held for %v", took)
	}
	if n := len(server.blames) + len(client.blames); n > 0 {
		t.Errorf("%d blamed", n)
	}
}

// TestNotFetchedInWork: a block that is being put together here is not fetched by
// height as well, unless that takes too long, or is given up.
func TestNotFetchedInWork(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		grace time.Duration
	}{{"given up", patience}, {"too long", 300 * time.Millisecond}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			source := newFakeChain()
			source.grow(t, 5, 1, 1000)
			tip, _ := source.Tip()
			raw := makeBlocks(tip.Hash, tip.Time, 1, 2, fixedSize(1000))[0]
			p := newInWork(chainhash.DoubleHashH(raw[:consensus.HeaderBytes]), 1)
			s := newNode(t, source)
			n := newNode(t, newFakeChain(), func(o *Options) { o.Pending, o.WorkGrace = p, row.grace })
			connect(t, n.host, s.host)
			awaitTip(t, n, source)
			eventually(t, "synced", func() bool { return n.Sync().State == Synced })

			h, err := consensus.DecodeHeader(n.chain.params, raw[:consensus.HeaderBytes])
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := n.chain.AcceptHeaders(t.Context(), []consensus.Header{h}); err != nil {
				t.Fatal(err)
			}
			source.addAll(t, [][]byte{raw})
			if row.grace == patience {
				receive(t, "a look at what is in work", p.asked)
				receive(t, "another look", p.asked)
				if tip, _ := n.chain.Tip(); tip.Height != 5 {
					t.Error("fetched while it was in work")
				}
				p.change(func() { p.known = false })
			}
			awaitTip(t, n, source)
		})
	}
}

// TestHeldRequests: so many requests of a peer are held and no more, and those of
// one that leaves are not.
func TestHeldRequests(t *testing.T) {
	t.Parallel()
	client, server, p := servesInWork(t, chainhash.Hash{7}, 1, patience)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asking sync.WaitGroup
	for range maxHeldPerPeer {
		asking.Go(func() { _, _ = client.FetchBlockTxs(ctx, server.host.ID(), p.hash, []uint32{0}, nil) })
	}
	held := func() int {
		server.holds.mu.Lock()
		defer server.holds.mu.Unlock()
		return server.holds.all
	}
	eventually(t, "all held", func() bool { return held() == maxHeldPerPeer })
	if _, err := client.FetchBlockTxs(ctx, server.host.ID(), p.hash, []uint32{0}, nil); !errors.Is(err, ErrNotYet) {
		t.Errorf("one more: %v", err)
	}
	client.stop()
	eventually(t, "nothing held", func() bool { return held() == 0 })
	cancel()
	asking.Wait()

	var h holds
	for i := range maxHeld {
		if !h.enter(peer.ID(fmt.Sprint(i / maxHeldPerPeer))) {
			t.Fatalf("request %d is not held", i)
		}
	}
	if h.enter("another") {
		t.Error("more are held than may be")
	}
	for i := range maxHeld {
		h.leave(peer.ID(fmt.Sprint(i / maxHeldPerPeer)))
	}
	if h.all != 0 || len(h.of) != 0 {
		t.Errorf("%d of %d peers held", h.all, len(h.of))
	}
}

// TestBadTxsServers: what a server of transactions may not do is a violation, for
// which it is blamed; that it has none is not.
func TestBadTxsServers(t *testing.T) {
	t.Parallel()
	tx := txOf(t, 100)
	for _, row := range []struct {
		name  string
		reply txsReply
		raw   []byte
		want  error
	}{
		{"good", txsReply{Sizes: []uint32{100, 100}}, append(bytes.Clone(tx), tx...), nil},
		{"too few", txsReply{Sizes: []uint32{100}}, tx, ErrViolation},
		{"too many", txsReply{Sizes: []uint32{100, 100, 100}}, bytes.Repeat(tx, 3), ErrViolation},
		{"one of no bytes", txsReply{Sizes: []uint32{100, 0}}, tx, ErrViolation},
		{"more than a block", txsReply{Sizes: []uint32{100, 1 << 31}}, tx, ErrViolation},
		{"no transaction", txsReply{Sizes: []uint32{100, 100}}, append(bytes.Clone(tx), make([]byte, 100)...), ErrViolation},
		{"two in the place of one", txsReply{Sizes: []uint32{150, 50}}, append(bytes.Clone(tx), tx...), ErrViolation},
		{"unknown status", txsReply{Status: 9}, nil, ErrViolation},
		{"not found", txsReply{Status: statusNotFound}, nil, ErrNotFound},
		{"not yet", txsReply{Status: statusNotYet}, nil, ErrNotYet},
		{"busy", txsReply{Status: statusBusy}, nil, ErrBusy},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, n := newNode(t, newFakeChain()), newNode(t, newFakeChain())
			s.host.SetStreamHandler(TxsID(s.o.ChainID), func(st network.Stream) {
				if _, err := readMessage(bufio.NewReader(st), nil, maxTxsRequest); err != nil {
					return
				}
				_, _ = st.Write(append(appendDelimited(nil, row.reply.append(nil)), row.raw...))
				_ = st.CloseWrite()
			})
			connect(t, n.host, s.host)
			eventually(t, "ready", func() bool { return n.Ready(s.host.ID()) && s.Ready(n.host.ID()) })
			txs, err := n.FetchBlockTxs(t.Context(), s.host.ID(), chainhash.Hash{1}, []uint32{1, 2}, nil)
			if !errors.Is(err, row.want) || (err == nil) != (len(txs) == 2) {
				t.Errorf("%d transactions, %v", len(txs), err)
			}
			if blamed := len(n.blames) > 0; blamed != errors.Is(row.want, ErrViolation) {
				t.Errorf("blamed: %v", blamed)
			}
		})
	}
}
