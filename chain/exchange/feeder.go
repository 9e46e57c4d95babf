package exchange

import (
	"context"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

// feeder submits delivered blocks to the chain in order, with many tickets open,
// and reports the verdicts in order. What waits in it is bounded by the
// scheduler: delivered blocks count against its caps until their verdict.
type feeder struct {
	x    *Exchange
	wake chan struct{}

	mu    sync.Mutex // guards queue, held for an instant
	queue []feedItem
}

type feedItem struct {
	peer   string // who sent it, in libp2p's binary form; it may be gone
	height int32
	raw    []byte
	old    bool // further ones follow it: no news
}

// verdictEvent is the chain's answer on a delivered block.
type verdictEvent struct {
	height  int32
	hash    chainhash.Hash
	verdict chain.Verdict
}

// troubleEvent says that the chain cannot take blocks for a reason of its own,
// or, with a nil error, that it can again.
type troubleEvent struct{ err error }

type openTicket struct {
	feedItem
	ticket Ticket
}

// maxOpenTickets bounds the tickets that wait for their verdict; the chain's own
// pipeline is smaller.
const maxOpenTickets = 1024

func newFeeder(x *Exchange) *feeder { return &feeder{x: x, wake: make(chan struct{}, 1)} }

// push queues a block. It never blocks.
func (f *feeder) push(i feedItem) {
	f.mu.Lock()
	f.queue = append(f.queue, i)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feeder) pop(ctx context.Context) (feedItem, bool) {
	for {
		f.mu.Lock()
		if len(f.queue) > 0 {
			i := f.queue[0]
			f.queue[0] = feedItem{} // the array must not keep the bytes
			f.queue = f.queue[1:]
			f.mu.Unlock()
			return i, true
		}
		f.mu.Unlock()
		select {
		case <-f.wake:
		case <-ctx.Done():
			return feedItem{}, false
		}
	}
}

// run submits until ctx ends.
func (f *feeder) run(ctx context.Context) {
	tickets := make(chan openTicket, maxOpenTickets)
	f.x.tasks.Go(func() { f.collect(ctx, tickets) })
	defer close(tickets)
	for {
		i, ok := f.pop(ctx)
		if !ok {
			return
		}
		// A failed Submit is answered by collect, which tries again in order.
		t, _ := f.x.o.Chain.Submit(ctx, i.raw, i.source())
		select {
		case tickets <- openTicket{i, t}:
		case <-ctx.Done():
			return
		}
	}
}

func (i *feedItem) source() chain.Source {
	return chain.Source{Kind: chain.FromSync, Peer: peer.ID(i.peer).String(), Old: i.old}
}

// collect waits for each verdict in turn. What failed through trouble of our own
// (a full disk) is submitted again, later and later, rather than downloaded again.
func (f *feeder) collect(ctx context.Context, tickets <-chan openTicket) {
	const least, most = time.Second, 30 * time.Second
	backoff := least
	for t := range tickets {
		troubled := false
		for {
			v, ok := wait(ctx, t.ticket)
			if !ok {
				return
			}
			if v.Outcome != chain.Failed {
				if troubled {
					f.x.driver.post(ctx, troubleEvent{})
				}
				backoff = least
				f.x.driver.post(ctx, verdictEvent{t.height, chainhash.DoubleHashH(t.raw[:consensus.HeaderBytes]), v})
				break
			}
			// At once the first time: this verdict may be from before the trouble ended.
			if troubled {
				f.x.driver.post(ctx, troubleEvent{v.Err})
				if !pause(ctx, nil, backoff) {
					return
				}
				backoff = min(2*backoff, most)
			}
			troubled = true
			t.ticket, _ = f.x.o.Chain.Submit(ctx, t.raw, t.source())
		}
	}
}

// wait returns the verdict, or false when ctx ends. No ticket is a failure.
func wait(ctx context.Context, t Ticket) (chain.Verdict, bool) {
	if t == nil {
		return chain.Verdict{Outcome: chain.Failed, Height: -1, Err: chain.ErrClosed}, ctx.Err() == nil
	}
	select {
	case <-t.Done():
		return t.Verdict(), true
	case <-ctx.Done():
		return chain.Verdict{}, false
	}
}
