package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
)

const (
	// maxWanted is how many requests for parents may wait, maxWantedPerPeer how
	// many of one peer. What does not fit is not lost: the orphan waits for its
	// parents from elsewhere.
	maxWanted        = 64
	maxWantedPerPeer = 4
	// maxGenerations is how far up the parents of parents are asked for: a
	// transaction in the mempool has no more ancestors.
	maxGenerations = 25
	// askTimeout is what a peer has for one answer; askers are how many are asked
	// at the same time.
	askTimeout = 3 * time.Second
	askers     = 2
)

// A wanted is a set of parents to be asked for from the peer that sent an orphan:
// gossip brought them before we were there, or never will.
type wanted struct {
	from       peer.ID
	ids        []chainhash.Hash
	generation int
}

// parents are the requests that wait, first come first served.
type parents struct {
	more chan struct{} // has a token when there may be one

	mu    sync.Mutex // guards what follows, held for assignments only
	queue []wanted
	of    map[peer.ID]int // in queue
}

func newParents() *parents {
	return &parents{more: make(chan struct{}, 1), of: make(map[peer.ID]int)}
}

// want asks a peer for parents, some time.
func (p *parents) want(from peer.ID, ids []chainhash.Hash) { p.add(wanted{from: from, ids: ids}) }

func (p *parents) add(w wanted) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(w.ids) == 0 || w.generation >= maxGenerations || len(p.queue) >= maxWanted || p.of[w.from] >= maxWantedPerPeer {
		return
	}
	p.queue = append(p.queue, w)
	p.of[w.from]++
	p.signal()
}

func (p *parents) signal() {
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// next returns the first request, when there is one.
func (p *parents) next(ctx context.Context) (wanted, error) {
	for {
		p.mu.Lock()
		if len(p.queue) > 0 {
			w := p.queue[0]
			p.queue = p.queue[1:]
			if p.of[w.from]--; p.of[w.from] == 0 {
				delete(p.of, w.from)
			}
			if len(p.queue) > 0 {
				p.signal() // for the other askers
			}
			p.mu.Unlock()
			return w, nil
		}
		p.mu.Unlock()
		select {
		case <-p.more:
		case <-ctx.Done():
			return wanted{}, ctx.Err()
		}
	}
}

// runParents asks for the parents of orphans until ctx ends.
func (n *Node) runParents(ctx context.Context) error {
	var all sync.WaitGroup
	for range askers {
		all.Go(func() {
			for {
				w, err := n.parents.next(ctx)
				if err != nil {
					return
				}
				n.askParents(ctx, w)
			}
		})
	}
	all.Wait()
	return ctx.Err()
}

// askParents asks a peer for parents and submits them. Their own parents, if they
// are not known either, are asked for later.
func (n *Node) askParents(ctx context.Context, w wanted) {
	var ids []chainhash.Hash
	for _, id := range w.ids {
		if !n.pool.Have(id) { // it may have come meanwhile
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	raws, err := n.exchange.FetchTxs(asking, w.from, ids)
	if err != nil {
		n.log.Debug("parents of an orphan not fetched", "peer", w.from, "err", err)
		return
	}
	for i, raw := range raws {
		tx, err := consensus.DecodeTx(raw)
		if err != nil || tx.TxHash() != ids[i] {
			continue // it has none, or it is not what we asked for: of no use
		}
		_, err = n.pool.SubmitAsked(ctx, tx, w.from.String())
		if missing, ok := errors.AsType[*mempool.MissingError](err); ok {
			n.parents.add(wanted{w.from, missing.Parents, w.generation + 1})
		}
	}
}
