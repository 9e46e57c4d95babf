package node

import (
	"context"
	"errors"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/exchange"
)

// How long a peer may take for a damaged block, and how long after the last try the
// peers are asked for one again: twice as long each time, from the start when another
// is found or the number of peers changes.
const (
	mendTimeout = time.Minute
	mendSoon    = time.Second
	mendLate    = time.Minute
)

// mend fetches blocks whose bytes on disk are damaged from peers, one at a time, until
// ctx ends. The chain lists them; it checks what comes.
func (n *Node) mend(ctx context.Context) error {
	select {
	case <-n.chain.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	wait, peers := mendSoon, 0
	for {
		hashes, more := n.chain.Damaged()
		for _, hash := range hashes {
			n.mendBlock(ctx, hash)
		}
		if now := len(n.exchange.Peers()); now != peers {
			wait, peers = mendSoon, now
		}
		timer := time.NewTimer(wait)
		again := timer.C
		if left, _ := n.chain.Damaged(); len(left) == 0 {
			again = nil
		}
		select {
		case <-more:
			wait = mendSoon
		case <-again:
			wait = min(2*wait, mendLate)
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// mendBlock asks each peer that should have a block until one brings it.
func (n *Node) mendBlock(ctx context.Context, hash chainhash.Hash) {
	s, ok := n.chain.Status(hash)
	if !ok {
		return
	}
	for _, p := range n.exchange.Peers() {
		if p.Services&exchange.ServeBlocks == 0 || p.Lowest > s.Height || p.Height < s.Height {
			continue
		}
		if n.mendFrom(ctx, p, hash) || ctx.Err() != nil {
			return
		}
	}
}

// mendFrom says whether the block is whole again.
func (n *Node) mendFrom(ctx context.Context, p exchange.Peer, hash chainhash.Hash) bool {
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	raw, err := n.exchange.FetchBlock(ctx, p.ID, hash, nil)
	if err != nil {
		n.log.Debug("a damaged block was not fetched", "hash", hash, "peer", p.ID, "err", err)
		return false
	}
	t, err := n.chain.Submit(ctx, raw, chain.Source{Kind: chain.FromSync, Peer: p.ID.String()})
	if err != nil {
		return false
	}
	v := t.Wait(ctx)
	if rule, ok := errors.AsType[*consensus.RuleError](v.Err); ok && v.Outcome == chain.Refused && rule.Blame == consensus.BlameSender {
		n.disc.Avoid(p.ID, avoidMisbehaved, "sent a block with a wrong body: "+rule.Error())
	}
	return v.Outcome != chain.Refused && v.Outcome != chain.Failed
}
