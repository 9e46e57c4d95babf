package flood_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/relay"
	"dunlin/gossip"
	"dunlin/internal/flood"
)

// A world is the chain, the pool, the peers and the topic of one Flood.
type world struct {
	t *testing.T
	b *enginetest.Builder
	*flood.Flood

	mu       sync.Mutex // guards what follows
	heights  map[chainhash.Hash]int32
	have     map[chainhash.Hash][]byte // on disk
	pool     map[chainhash.Hash]*wire.MsgTx
	unheard  map[chainhash.Hash]bool
	peers    []flood.Peer
	sent     [][]byte
	sendErr  error
	unplaced []chainhash.Hash
	blamed   []peer.ID
	asked    []string // peer, and what it was asked for
	open     int      // requests
	serve    func(ctx context.Context, from peer.ID, indexes []uint32) ([][]byte, []byte, error)
	trickle  bool          // answers never end
	full     chan struct{} // Submit waits for it to close; nil: it does not
	verdict  func(context.Context) error

	done chan flood.Completed
}

// judge sets what becomes of the blocks that are handed over from now on.
func (w *world) judge(verdict func(context.Context) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.verdict = verdict
}

// newWorld runs a Flood until the test ends. Call it in a synctest bubble.
func newWorld(t *testing.T, change ...func(*flood.Options)) *world {
	t.Helper()
	p := consensus.Regtest()
	w := &world{
		t: t, b: enginetest.NewBuilder(p), heights: map[chainhash.Hash]int32{p.GenesisHash: 0},
		have: make(map[chainhash.Hash][]byte), pool: make(map[chainhash.Hash]*wire.MsgTx), unheard: make(map[chainhash.Hash]bool),
		done: make(chan flood.Completed, 100),
	}
	o := flood.Options{
		Params: p, Headers: w, Pool: w, Fetch: w,
		Send: func(_ context.Context, msg []byte) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.sendErr == nil {
				w.sent = append(w.sent, msg)
			}
			return w.sendErr
		},
		Submit: func(ctx context.Context, c flood.Completed) (func(context.Context) error, error) {
			w.mu.Lock()
			full, verdict := w.full, w.verdict
			w.mu.Unlock()
			if full != nil {
				select {
				case <-full:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			w.done <- c
			return verdict, nil
		},
		Peers: func() []flood.Peer {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.peers)
		},
		Block: func(hash chainhash.Hash) ([]byte, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.have[hash], nil
		},
		Header: func(_ context.Context, h *consensus.Header) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.heights[consensus.HeaderHash(h)] = w.heights[h.PrevBlock] + 1
		},
		Unplaced: func(_ peer.ID, hash chainhash.Hash) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.unplaced = append(w.unplaced, hash)
		},
		Unheard: func(_, wtxid *chainhash.Hash) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.unheard[*wtxid]
		},
		Blame: func(from peer.ID, _ string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.blamed = append(w.blamed, from)
		},
	}
	for _, f := range change {
		f(&o)
	}
	f, err := flood.New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.Flood = f
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		if w.open != 0 {
			t.Errorf("%d requests are still open", w.open)
		}
	})
	return w
}

// CheckHeader implements relay.Headers.
func (w *world) CheckHeader(h *consensus.Header) (height int32, known bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.heights[consensus.HeaderHash(h)]; ok {
		return at, true, nil
	}
	parent, ok := w.heights[h.PrevBlock]
	if !ok {
		return -1, false, &consensus.RuleError{Rule: "unknown-parent", Blame: consensus.BlameNobody}
	}
	return parent + 1, false, nil
}

// HaveBlock implements relay.Headers.
func (w *world) HaveBlock(hash chainhash.Hash) (have, invalid bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.have[hash] != nil, false
}

// CheckSeal implements relay.Headers: there are none.
func (w *world) CheckSeal(*consensus.Block) error { return nil }

// Claim implements relay.Headers.
func (w *world) Claim(*consensus.Header) (consensus.Claim, bool) { return consensus.Claim{}, false }

// Past implements relay.Headers.
func (w *world) Past(hash chainhash.Hash) (consensus.Past, bool) { return w.b.Past(hash), true }

// WitnessIDs implements relay.Candidates.
func (w *world) WitnessIDs() iter.Seq[*chainhash.Hash] {
	return func(yield func(*chainhash.Hash) bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for id := range w.pool {
			if !yield(&id) {
				return
			}
		}
	}
}

// ByWitnessID implements relay.Candidates.
func (w *world) ByWitnessID(id chainhash.Hash) (*wire.MsgTx, chainhash.Hash, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tx := w.pool[id]
	if tx == nil {
		return nil, chainhash.Hash{}, false
	}
	return tx, tx.TxHash(), true
}

// FetchBlockTxs implements flood.Fetcher.
func (w *world) FetchBlockTxs(ctx context.Context, from peer.ID, _ chainhash.Hash, indexes []uint32, progress func()) ([][]byte, error) {
	w.mu.Lock()
	trickle := w.trickle
	w.mu.Unlock()
	for trickle && ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond) // virtual
		progress()
	}
	txs, _, err := w.fetch(ctx, from, indexes)
	return txs, err
}

// FetchBlock implements flood.Fetcher.
func (w *world) FetchBlock(ctx context.Context, from peer.ID, _ chainhash.Hash, _ func()) ([]byte, error) {
	_, raw, err := w.fetch(ctx, from, nil)
	return raw, err
}

func (w *world) fetch(ctx context.Context, from peer.ID, indexes []uint32) ([][]byte, []byte, error) {
	w.mu.Lock()
	if indexes == nil {
		w.asked = append(w.asked, string(from)+" block")
	} else {
		w.asked = append(w.asked, fmt.Sprintf("%s %d", string(from), len(indexes)))
	}
	w.open++
	serve := w.serve
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.open--
		w.mu.Unlock()
	}()
	return serve(ctx, from, indexes)
}

// silent never answers.
func silent(ctx context.Context) ([][]byte, []byte, error) {
	<-ctx.Done()
	return nil, nil, ctx.Err()
}

// serves answers with parts of a block.
func serves(b *consensus.Block, indexes []uint32) ([][]byte, []byte, error) {
	if indexes == nil {
		return nil, b.Raw, nil
	}
	at, err := consensus.TxOffsets(consensus.Regtest(), b.Raw)
	if err != nil {
		return nil, nil, err
	}
	var txs [][]byte
	for _, i := range indexes {
		txs = append(txs, b.Raw[at[i]:at[i+1]])
	}
	return txs, nil, nil
}

// block makes a block of over 64 KiB on parent, with n transactions beside the
// coinbase.
func (w *world) block(parent *consensus.Block, n int) *consensus.Block {
	var txs []*wire.MsgTx
	for i := range n {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: chainhash.Hash{byte(i), byte(i >> 8), 1}}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(int64(i), make([]byte, (80<<10)/n)))
		txs = append(txs, tx)
	}
	return w.b.Mine(parent, txs...)
}

// warm puts a block's transactions into the pool, but the first ones.
func (w *world) warm(b *consensus.Block, but int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, tx := range b.Txs[1+but:] {
		w.pool[*tx.WitnessHash()] = tx.MsgTx()
	}
}

// compact is a block's message.
func (w *world) compact(b *consensus.Block, nonce uint64) []byte {
	w.t.Helper()
	msg, err := relay.MakeCompact(w.b.Params, b.Raw, nonce, nil)
	if err != nil || relay.Encoding(msg[0]) != relay.CompactEncoding {
		w.t.Fatalf("no compact block: %v", err)
	}
	return msg
}

func (w *world) receive(from string, msg []byte) gossip.Verdict {
	return w.Validate(w.t.Context(), peer.ID(from), msg)
}

// next waits for the next completed block.
func (w *world) next(b *consensus.Block) flood.Completed {
	w.t.Helper()
	select {
	case c := <-w.done:
		if c.Hash != b.Hash || !bytes.Equal(c.Raw, b.Raw) || c.Height != 1 {
			w.t.Fatalf("another block is complete: %v at height %d", c.Hash, c.Height)
		}
		synctest.Wait() // it is counted once it is handed over
		return c
	case <-time.After(time.Minute): // virtual
		w.t.Fatalf("the block is never complete; asked: %q", look(w, &w.asked))
		panic("unreachable")
	}
}

// nothing checks that no further block is handed over.
func (w *world) nothing() {
	w.t.Helper()
	synctest.Wait()
	if len(w.done) > 0 {
		w.t.Errorf("another block is handed over: %v", (<-w.done).Hash)
	}
}

// look reads what others may change.
func look[T any](w *world, v *T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *v
}

// bubble runs f with a world of its own, in virtual time.
func bubble(t *testing.T, name string, f func(w *world)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) { f(newWorld(t)) })
	})
}

// TestCompletion: a block that comes compact is handed to the chain once, whole,
// however much of it is here.
func TestCompletion(t *testing.T) {
	t.Parallel()
	const n = 100
	bubble(t, "all is here", func(w *world) {
		t := w.t
		b := w.block(w.b.Genesis(), n)
		w.warm(b, 0)
		if v := w.receive("a", w.compact(b, 1)); v.Result != gossip.Accept {
			t.Fatalf("%+v", v)
		}
		c := w.next(b)
		if c.How != flood.FromPool || c.From != "a" || c.Txs != n+1 || c.Prefilled != 1 || c.Hit() != 100 || len(look(w, &w.asked)) > 0 {
			t.Errorf("%v, asked %q", c.LogAttrs(), look(w, &w.asked))
		}
		// It is served from memory though the chain does not have it.
		if txs, changed, err := w.BlockTxs(b.Hash, []uint32{0, n}); len(txs) != 2 || changed != nil || err != nil {
			t.Errorf("%d transactions, %v", len(txs), err)
		}
		if raw, changed := w.Block(b.Hash); !bytes.Equal(raw, b.Raw) || changed != nil {
			t.Error("the block is not served")
		}
		if _, _, err := w.BlockTxs(b.Hash, []uint32{n + 1}); err == nil {
			t.Error("an index past the end is served")
		}
		if txs, changed, err := w.BlockTxs(chainhash.Hash{1}, []uint32{0}); txs != nil || changed != nil || err != nil {
			t.Error("an unknown block is known")
		}
		// Another encoding, and the block itself, are no news.
		w.receive("b", w.compact(b, 2))
		w.receive("c", relay.Encode(b.Raw))
		w.nothing()
		if s := w.Stats(); s.FromPool != 1 || s.CompactMessages != 2 || s.WholeMessages != 1 || s.Txs != n+1 || s.FromSight.Count != 1 || s.InWork != 0 {
			t.Errorf("%+v", s)
		}
	})
	bubble(t, "some are not", func(w *world) {
		t := w.t
		b := w.block(w.b.Genesis(), n)
		w.warm(b, 3)
		w.serve = func(_ context.Context, _ peer.ID, indexes []uint32) ([][]byte, []byte, error) {
			time.Sleep(50 * time.Millisecond) // virtual
			return serves(b, indexes)
		}
		w.receive("a", w.compact(b, 1))
		synctest.Wait()
		// While they are on their way, what is here is served and the rest awaited.
		if txs, _, err := w.BlockTxs(b.Hash, []uint32{0, 4}); len(txs) != 2 || err != nil {
			t.Errorf("%d transactions, %v", len(txs), err)
		}
		_, changed, _ := w.BlockTxs(b.Hash, []uint32{1})
		raw, whole := w.Block(b.Hash)
		if changed == nil || whole == nil || raw != nil {
			t.Fatal("what is not here is not awaited")
		}
		<-changed
		<-whole
		if txs, _, _ := w.BlockTxs(b.Hash, []uint32{1}); len(txs) != 1 {
			t.Error("there was no change")
		}
		c := w.next(b)
		if c.How != flood.Pulled || c.Pulled != 3 || c.Requests != 1 || c.Took != 50*time.Millisecond || !slices.Equal(look(w, &w.asked), []string{"a 3"}) {
			t.Errorf("%v, asked %q", c.LogAttrs(), look(w, &w.asked))
		}
		if s := w.Stats(); s.PulledTxs != 3 || s.PulledBytes != uint64(c.Bytes) || c.Bytes < 3*(80<<10)/n || s.Fetches != 0 {
			t.Errorf("%+v", s)
		}
	})
	bubble(t, "nothing is, and it is much", func(w *world) {
		t := w.t
		b := w.block(w.b.Genesis(), 300)
		w.serve = func(_ context.Context, _ peer.ID, indexes []uint32) ([][]byte, []byte, error) {
			time.Sleep(time.Duration(indexes[0]) * time.Millisecond) // virtual
			return serves(b, indexes)
		}
		w.receive("a", w.compact(b, 1))
		synctest.Wait()
		_, changed, _ := w.BlockTxs(b.Hash, []uint32{1})
		if changed == nil {
			t.Fatal("it is not in work")
		}
		<-changed
		// The first part is here and can be passed on while the others are on their way.
		if txs, _, _ := w.BlockTxs(b.Hash, []uint32{1, 128}); len(txs) != 2 {
			t.Error("the first part is not served")
		}
		if txs, later, _ := w.BlockTxs(b.Hash, []uint32{129}); txs != nil || later == nil {
			t.Error("the second part is here already")
		}
		c := w.next(b)
		if c.How != flood.Pulled || c.Pulled != 300 || c.Requests != 1 || !slices.Equal(look(w, &w.asked), []string{"a 128", "a 128", "a 44"}) {
			t.Errorf("%v, asked %q", c.LogAttrs(), look(w, &w.asked))
		}
	})
	bubble(t, "whole", func(w *world) {
		t := w.t
		b := w.block(w.b.Genesis(), n)
		w.receive("a", relay.Encode(b.Raw))
		if c := w.next(b); c.How != flood.Whole || len(c.LogAttrs()) > 0 {
			t.Errorf("%d: %v", c.How, c.LogAttrs())
		}
		w.receive("b", w.compact(b, 1))
		w.nothing()
		if len(look(w, &w.asked)) > 0 {
			t.Errorf("asked %q", look(w, &w.asked))
		}
	})
}

// TestWithheld: who sent a compact block and does not answer delays it by no more
// than 2 s if another peer has it, whether or not that one was heard of.
// What the chain refuses for its sender's sake does not keep the block out that it
// pretends to be: it is taken and handed over when it comes in other bytes.
func TestFalseCopyFirst(t *testing.T) {
	t.Parallel()
	bubble(t, "whole", func(w *world) {
		t := w.t
		b := w.block(w.b.Genesis(), 2)
		w.judge(func(context.Context) error {
			return &consensus.RuleError{Rule: "bad-seal", Blame: consensus.BlameSender}
		})
		if v := w.receive("evil", relay.Encode(b.Raw)); v.Result != gossip.Accept {
			t.Fatalf("%+v", v)
		}
		w.next(b)
		synctest.Wait()
		if raw, _ := w.Block(b.Hash); raw != nil {
			t.Error("what the chain refused is served")
		}
		if got := look(w, &w.unplaced); !slices.Equal(got, []chainhash.Hash{b.Hash}) {
			t.Errorf("left to sync: %v", got)
		}
		w.judge(nil)
		w.receive("good", relay.Encode(b.Raw))
		w.next(b)
		if raw, _ := w.Block(b.Hash); !bytes.Equal(raw, b.Raw) {
			t.Error("the block is not served")
		}
		// Of a block that is to blame itself, or that was taken, one copy is enough.
		for i, err := range []error{nil, &consensus.RuleError{Rule: "bad-txns", Blame: consensus.BlameBlock}, errors.New("disk")} {
			w.judge(func(context.Context) error { return err })
			next := w.block(w.b.Genesis(), i+3)
			w.receive("a", relay.Encode(next.Raw))
			w.next(next)
			synctest.Wait()
			w.receive("b", relay.Encode(next.Raw))
			synctest.Wait()
			if len(w.done) > 0 {
				t.Errorf("%v: handed over twice", err)
			}
		}
	})
	bubble(t, "own", func(w *world) {
		// The message that was prepared for a copy with another header is not sent for it.
		b := w.block(w.b.Genesis(), 2)
		other := w.block(w.b.Genesis(), 3)
		fake := *other
		fake.Hash = b.Hash
		w.Prepare(&fake)
		w.Publish(b.Raw, b.Hash)
		synctest.Wait()
		if sent := look(w, &w.sent); len(sent) != 1 || !bytes.HasPrefix(sent[0][1:], b.Raw[:consensus.HeaderBytes]) {
			w.t.Errorf("sent %d messages", len(sent))
		}
	})
}

func TestWithheld(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		fails func(ctx context.Context) ([][]byte, []byte, error)
	}{
		{"silent", silent},
		{"not found", func(context.Context) ([][]byte, []byte, error) { return nil, nil, flood.ErrNotFound }},
		{"gone", func(context.Context) ([][]byte, []byte, error) { return nil, nil, errors.New("stream reset") }},
		{"not yet, for ever", func(ctx context.Context) ([][]byte, []byte, error) {
			select {
			case <-time.After(time.Second): // virtual
				return nil, nil, flood.ErrNotYet
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
		}},
		{"other transactions", func(context.Context) ([][]byte, []byte, error) {
			w := &world{b: enginetest.NewBuilder(consensus.Regtest())}
			return serves(w.block(w.b.Genesis(), 50), []uint32{40, 41, 42})
		}},
	} {
		bubble(t, row.name, func(w *world) {
			t := w.t
			b := w.block(w.b.Genesis(), 100)
			w.warm(b, 3)
			w.peers = []flood.Peer{{ID: "evil"}, {ID: "good"}}
			w.serve = func(ctx context.Context, from peer.ID, indexes []uint32) ([][]byte, []byte, error) {
				if from == "evil" {
					return row.fails(ctx)
				}
				return serves(b, indexes)
			}
			w.receive("evil", w.compact(b, 1))
			if c := w.next(b); c.Took > 2*time.Second {
				t.Errorf("took %v; asked %q", c.Took, look(w, &w.asked))
			}
			if len(look(w, &w.blamed)) > 0 {
				t.Errorf("blamed %q", look(w, &w.blamed))
			}
		})
	}
}

// TestFalseBlocks: what is provably false is blamed, and the block is had all the
// same.
func TestFalseBlocks(t *testing.T) {
	t.Parallel()
	bubble(t, "a mutated block in answer", func(w *world) {
		t := w.t
		b, other := w.block(w.b.Genesis(), 100), w.block(w.b.Genesis(), 101)
		// A compact block with the transactions of another: no answer fits it.
		msg := w.compact(other, 1)
		copy(msg[1:1+consensus.HeaderBytes], b.Raw)
		w.peers = []flood.Peer{{ID: "evil"}, {ID: "good"}, {ID: "third"}}
		w.serve = func(_ context.Context, from peer.ID, indexes []uint32) ([][]byte, []byte, error) {
			if from == "evil" && indexes == nil {
				raw := bytes.Clone(b.Raw)
				raw[len(raw)-1] ^= 1
				return nil, raw, nil
			}
			if indexes != nil && int(indexes[len(indexes)-1]) > 100 {
				return nil, nil, flood.ErrNotFound
			}
			return serves(b, indexes)
		}
		w.receive("evil", msg)
		c := w.next(b)
		if c.How != flood.Fetched {
			t.Errorf("%d: %v", c.How, c.LogAttrs())
		}
		for _, id := range look(w, &w.blamed) {
			if id != "evil" {
				t.Errorf("blamed %q", look(w, &w.blamed))
			}
		}
	})
	bubble(t, "two false copies first", func(w *world) {
		t := w.t
		b, other := w.block(w.b.Genesis(), 100), w.block(w.b.Genesis(), 101)
		w.warm(b, 0)
		w.serve = func(context.Context, peer.ID, []uint32) ([][]byte, []byte, error) { return nil, nil, flood.ErrNotFound }
		for nonce := range uint64(2) {
			msg := w.compact(other, nonce)
			copy(msg[1:1+consensus.HeaderBytes], b.Raw)
			if v := w.receive(fmt.Sprint("evil", nonce), msg); v.Result != gossip.Accept {
				t.Fatalf("%+v", v)
			}
		}
		// The real one is not passed on, for the places are taken, but used: and since all
		// that was passed on was false, the block is sent once more.
		if v := w.receive("good", w.compact(b, 7)); v.Result != gossip.Ignore {
			t.Fatalf("%+v", v)
		}
		w.next(b)
		synctest.Wait()
		if len(look(w, &w.sent)) != 1 || !bytes.Equal(look(w, &w.sent)[0][1:1+consensus.HeaderBytes], b.Raw[:consensus.HeaderBytes]) {
			t.Errorf("%d messages sent", len(look(w, &w.sent)))
		}
		if len(look(w, &w.blamed)) > 0 {
			t.Errorf("blamed %q", look(w, &w.blamed))
		}
	})
}

// TestLeftToSync: what cannot be had, or has no room, is told to sync, and what
// sync brings ends the work.
func TestLeftToSync(t *testing.T) {
	t.Parallel()
	bubble(t, "nobody sends it", func(w *world) {
		t := w.t
		b := w.block(w.b.Genesis(), 100)
		w.serve = func(ctx context.Context, _ peer.ID, _ []uint32) ([][]byte, []byte, error) { return silent(ctx) }
		began := time.Now()
		w.receive("a", w.compact(b, 1))
		synctest.Wait()
		for len(look(w, &w.unplaced)) == 0 && time.Since(began) < time.Minute {
			time.Sleep(100 * time.Millisecond) // virtual
			synctest.Wait()
		}
		if took := time.Since(began); took > 11*time.Second || w.Stats().GivenUp != 1 || look(w, &w.unplaced)[0] != b.Hash {
			t.Errorf("given up after %v: %+v", took, w.Stats())
		}
		if raw, changed := w.Block(b.Hash); raw != nil || changed != nil {
			t.Error("it is still in work")
		}
	})
	bubble(t, "sync has it", func(w *world) {
		t := w.t
		b := w.block(w.b.Genesis(), 100)
		w.serve = func(ctx context.Context, _ peer.ID, _ []uint32) ([][]byte, []byte, error) { return silent(ctx) }
		w.receive("a", w.compact(b, 1))
		synctest.Wait()
		_, changed := w.Block(b.Hash)
		w.mu.Lock()
		w.have[b.Hash] = b.Raw
		w.mu.Unlock()
		<-changed               // who waits for it is told
		time.Sleep(time.Second) // virtual
		synctest.Wait()
		if s := w.Stats(); s.InWork != 0 || s.Fetches != 0 {
			t.Errorf("%+v", s)
		}
		w.nothing()
	})
	bubble(t, "sync has it, while bytes come in", func(w *world) {
		t := w.t
		b := w.block(w.b.Genesis(), 100)
		w.trickle = true
		w.serve = func(ctx context.Context, _ peer.ID, _ []uint32) ([][]byte, []byte, error) { return silent(ctx) }
		w.receive("a", w.compact(b, 1))
		time.Sleep(time.Second) // virtual
		w.mu.Lock()
		w.have[b.Hash] = b.Raw
		w.mu.Unlock()
		time.Sleep(800 * time.Millisecond) // virtual; something else is due after 2 s
		synctest.Wait()
		if s := w.Stats(); s.InWork != 0 || s.Fetches != 0 {
			t.Errorf("%+v", s)
		}
		w.nothing()
	})
	bubble(t, "unknown parent", func(w *world) {
		t := w.t
		b := w.block(w.block(w.b.Genesis(), 10), 100)
		w.receive("a", w.compact(b, 1))
		if !slices.Equal(look(w, &w.unplaced), []chainhash.Hash{b.Hash}) {
			t.Errorf("%v", look(w, &w.unplaced))
		}
	})
	bubble(t, "the chain is behind", func(w *world) {
		t := w.t
		w.full = make(chan struct{})
		const many = 30
		for i := range many {
			b := w.block(w.b.Genesis(), 10)
			w.receive(fmt.Sprint(i), relay.Encode(b.Raw))
			synctest.Wait()
		}
		s := w.Stats()
		if s.Crowded == 0 || int(s.Crowded) != len(look(w, &w.unplaced)) || int(s.Whole+s.Crowded) != many {
			t.Errorf("%+v, %d told to sync", s, len(look(w, &w.unplaced)))
		}
		close(w.full)
		for range s.Whole {
			<-w.done
		}
		w.nothing()
	})
}

// TestChild: a block on one that is still in work is no orphan.
func TestChild(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		parent := w.block(w.b.Genesis(), 100)
		child := w.b.Mine(parent)
		w.serve = func(ctx context.Context, _ peer.ID, _ []uint32) ([][]byte, []byte, error) { return silent(ctx) }
		w.receive("a", w.compact(parent, 1))
		synctest.Wait()
		if v := w.receive("a", relay.Encode(child.Raw)); v.Result != gossip.Accept {
			t.Errorf("%+v", v)
		}
		<-w.done
	})
}

// TestPublish: own blocks are sent once, compact from 64 KiB on, with what others
// have not heard of; what came by the topic is not sent again.
func TestPublish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := w.block(w.b.Genesis(), 100)
		w.unheard[*b.Txs[7].WitnessHash()] = true
		w.Prepare(b)
		clear(w.unheard) // by the time that it is published the pool has forgotten
		w.Publish(b.Raw, b.Hash)
		w.Publish(b.Raw, b.Hash)
		synctest.Wait()
		if len(look(w, &w.sent)) != 1 {
			t.Fatalf("%d messages", len(look(w, &w.sent)))
		}
		c, err := relay.DecodeCompact(w.b.Params, look(w, &w.sent)[0][1:])
		if err != nil || len(c.Prefilled) != 2 || c.Prefilled[1].Index != 7 {
			t.Fatalf("%v: %d prefilled", err, len(c.Prefilled))
		}
		if s := w.Stats(); s.Sent != 1 || s.SentAs.Compact != 1 || s.SentAs.Prefilled != 1 || s.SentAs.Bytes != uint64(len(look(w, &w.sent)[0])) {
			t.Errorf("%+v", s)
		}
		if raw, _ := w.Block(b.Hash); !bytes.Equal(raw, b.Raw) {
			t.Error("it is not served")
		}

		small := w.b.Mine(w.b.Genesis())
		w.Publish(small.Raw, small.Hash)
		synctest.Wait()
		if len(look(w, &w.sent)) != 2 || !bytes.Equal(look(w, &w.sent)[1], relay.Encode(small.Raw)) {
			t.Errorf("a small block: %d messages", len(look(w, &w.sent)))
		}
		heard := w.block(w.b.Genesis(), 50)
		w.warm(heard, 0)
		w.receive("a", w.compact(heard, 1))
		w.next(heard)
		w.Publish(heard.Raw, heard.Hash)
		synctest.Wait()
		if len(look(w, &w.sent)) != 2 {
			t.Error("what came by the topic is sent again")
		}
	})
}

// TestUnheard: a block that nobody heard is sent when somebody joins, and only the
// latest.
func TestUnheard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first, second := w.block(w.b.Genesis(), 100), w.block(w.b.Genesis(), 100)
		w.mu.Lock()
		w.sendErr = fmt.Errorf("publish: %w", gossip.ErrNobody)
		w.mu.Unlock()
		w.Publish(first.Raw, first.Hash)
		w.Publish(second.Raw, second.Hash)
		w.TopicPeer() // too early: it has left
		synctest.Wait()
		w.mu.Lock()
		w.sendErr = nil
		w.mu.Unlock()
		w.TopicPeer()
		synctest.Wait()
		w.TopicPeer()
		synctest.Wait()
		if len(look(w, &w.sent)) != 1 || !bytes.Equal(look(w, &w.sent)[0][1:81], second.Raw[:80]) {
			t.Errorf("%d messages", len(look(w, &w.sent)))
		}
	})
}

// TestBounds: whatever comes at once, what is in work keeps its bounds, and every
// block ends.
func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve = func(ctx context.Context, _ peer.ID, _ []uint32) ([][]byte, []byte, error) { return silent(ctx) }
		for i := range 40 {
			w.peers = append(w.peers, flood.Peer{ID: peer.ID(fmt.Sprint("peer", i))})
		}
		for i := range 60 {
			w.receive(fmt.Sprint("peer", i%40), w.compact(w.block(w.b.Genesis(), 20+i), 1))
			time.Sleep(100 * time.Millisecond) // virtual
			synctest.Wait()
			w.mu.Lock()
			open := w.open
			w.mu.Unlock()
			if s := w.Stats(); s.InWork > 8 || s.Fetches > 32 || open > 32 {
				t.Fatalf("%+v, %d open", s, open)
			}
		}
		time.Sleep(time.Minute) // virtual
		synctest.Wait()
		if s := w.Stats(); s.InWork != 0 || s.Fetches != 0 || s.GivenUp != 60 {
			t.Errorf("%+v", s)
		}
	})
}

// TestOptions: every fault is reported at once.
func TestOptions(t *testing.T) {
	t.Parallel()
	_, err := flood.New(flood.Options{})
	for _, want := range []string{"params", "headers", "pool", "fetch", "send", "submit"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing of %s in %v", want, err)
		}
	}
}
