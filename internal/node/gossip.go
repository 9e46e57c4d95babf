package node

import (
	"context"
	"errors"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/exchange"
	"dunlin/chain/mempool"
	"dunlin/chain/relay"
	"dunlin/gossip"
	"dunlin/internal/logs"
)

const (
	// maxInbound is how many blocks from gossip may wait for the chain: a few of
	// the largest size. What does not fit is not lost: its header brings it back.
	maxInbound = 8
	// maxOutbound is how many own blocks may wait to be sent.
	maxOutbound = 8
	// maxTxLag is how many blocks behind its peers a node still looks at
	// transactions: what it ignored now would not come again.
	maxTxLag = 6
	// txValidators check transactions at the same time; scripts run inside.
	txValidators = 2
	// txWaste is how many messages without use a peer's budget has on the tx topic: a node that syncs ignores all.
	txWaste = 4000
	// txQueue is how many transactions wait for them: some seconds of 500 a second,
	// so that a collection of garbage or a block in between loses none.
	txQueue = 4096
	// blockValidators decode blocks at the same time: four of the largest take
	// some 100 MB between them.
	blockValidators = 2
)

// txRate bounds what one neighbour may send: twice the 500 transactions a second
// that all of them together are built for, some 20 times what fits into blocks.
var txRate = gossip.Rate{Messages: 1000, Bytes: 1 << 20, Burst: 10}

// pending is a block on its way from gossip to the chain.
type pending struct {
	raw  []byte
	from peer.ID
}

// own is a block of ours on its way to gossip.
type own struct {
	raw  []byte
	hash chainhash.Hash
}

// headerView is what relay wants to know of the chain.
type headerView struct{ *chain.Chain }

// HaveBlock implements relay.Headers.
func (h headerView) HaveBlock(hash chainhash.Hash) (have, invalid bool) {
	s, ok := h.Status(hash)
	return ok && s.HaveBlock, ok && s.Invalid
}

func (n *Node) blockTopic() string { return exchange.Prefix(n.params.ChainID()) + "/block/1" }
func (n *Node) txTopic() string    { return exchange.Prefix(n.params.ChainID()) + "/tx/1" }

func (n *Node) openGossip() (err error) {
	n.blocks = relay.NewBlocks(n.params, headerView{n.chain})
	n.gossip, err = gossip.New(gossip.Options{
		Host: n.host,
		Topics: []gossip.Topic{
			{Name: n.blockTopic(), MaxBytes: relay.MaxMessageBytes(n.params), Concurrency: blockValidators, Validate: n.judgeBlock},
			{Name: n.txTopic(), MaxBytes: relay.MaxTxBytes, Concurrency: txValidators, Waste: txWaste, Queue: txQueue, PeerRate: txRate, Validate: n.judgeTx},
		},
		Private:      n.private,
		PeerExchange: n.c.P2P.PeerExchange,
		OnTopicPeer:  n.topicPeer,
		OnGraylisted: n.graylisted,
		AppScore: func(id peer.ID) float64 {
			if n.trusted[id] {
				return gossip.TrustedScore
			}
			return 0
		},
		Logger: logs.Library(n.log, "pubsub"),
	})
	return err
}

// judgeBlock is the block topic's validator. It hands what may be good to the
// chain, whether or not it is passed on.
func (n *Node) judgeBlock(_ context.Context, from peer.ID, data []byte) gossip.Verdict {
	if from == n.host.ID() {
		return gossip.Verdict{Result: gossip.Accept}
	}
	v := n.blocks.Check(from.String(), data)
	switch {
	case v.Orphan:
		n.exchange.FetchFrom(from, v.Hash)
	case v.Raw != nil:
		select {
		case n.inbound <- pending{v.Raw, from}:
		default: // the chain is behind: sync brings it
			n.exchange.FetchFrom(from, v.Hash)
		}
	}
	switch v.Result {
	case relay.Accept:
		n.deeds.broughtBlock(from)
	case relay.Reject:
		n.refused(from, "block", v)
	}
	return verdict(v)
}

// judgeTx is the transaction topic's validator: the pool decides.
func (n *Node) judgeTx(ctx context.Context, from peer.ID, data []byte) gossip.Verdict {
	if from == n.host.ID() {
		return gossip.Verdict{Result: gossip.Accept}
	}
	if s := n.exchange.Sync(); (s.State == exchange.Blocks || s.State == exchange.Headers) && s.Target-s.Height > maxTxLag {
		return gossip.Verdict{Result: gossip.Ignore, Reason: "syncing"} // its inputs may be blocks away
	}
	v, tx := relay.CheckTx(poolView{n.pool}, data)
	if v.Result == relay.Accept {
		_, err := n.pool.Submit(ctx, tx, from.String()) // the teller has orphans that it completes
		v = relay.TxVerdict(v, err)
		if missing, ok := errors.AsType[*mempool.MissingError](err); ok {
			n.parents.want(from, missing.Parents)
		}
		if e, ok := n.pool.Get(v.Hash); err == nil && ok && !n.floor.takes(&e, time.Now()) {
			v.Result, v.Reason = relay.Ignore, "below-fee-of-all-peers" // it is in the pool all the same
		}
	}
	switch v.Result {
	case relay.Accept:
		n.deeds.broughtTx(from)
	case relay.Reject:
		n.refused(from, "tx", v)
	}
	return verdict(v)
}

// refused logs a reject, a few a minute and peer.
func (n *Node) refused(from peer.ID, what string, v relay.Verdict) {
	if more, ok := n.refusals.Allow(from.String()); ok {
		n.log.Warn("message rejected", "topic", what, "peer", from, "rule", v.Reason, "height", v.Height, "hash", v.Hash, "err", v.Err, "suppressed", more)
	}
}

func verdict(v relay.Verdict) gossip.Verdict {
	switch v.Result {
	case relay.Accept:
		return gossip.Verdict{Result: gossip.Accept}
	case relay.Reject:
		return gossip.Verdict{Result: gossip.Reject, Reason: v.Reason}
	default:
		return gossip.Verdict{Result: gossip.Ignore, Reason: v.Reason}
	}
}

// runInbound hands blocks from gossip to the chain, so that no validator waits
// for a full pipeline.
func (n *Node) runInbound(ctx context.Context) error {
	for {
		select {
		case b := <-n.inbound:
			src := chain.Source{Kind: chain.FromGossip, Peer: b.from.String()}
			if _, err := n.chain.Submit(ctx, b.raw, src); err != nil && ctx.Err() == nil && !errors.Is(err, chain.ErrClosed) {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// flood has a block sent out that was made, handed in or synced here. It does not
// wait: with no neighbour yet, sending takes seconds.
func (n *Node) flood(raw []byte, hash chainhash.Hash) {
	select {
	case n.outbound <- own{raw, hash}:
	default: // peers hear of the tip by hello and ask
		n.log.Debug("block not flooded", "hash", hash, "reason", "queue full")
	}
}

// runOutbound sends out the node's own blocks.
func (n *Node) runOutbound(ctx context.Context) error {
	for {
		select {
		case b := <-n.outbound:
			n.publishBlock(ctx, b.raw, b.hash)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// publishBlock floods a block. If nobody listens yet, the tip is sent when
// somebody does.
func (n *Node) publishBlock(ctx context.Context, raw []byte, hash chainhash.Hash) {
	err := n.gossip.Publish(ctx, n.blockTopic(), relay.Encode(raw))
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err == nil, errors.Is(err, gossip.ErrSeen): // neighbours have it
		n.unsent = chainhash.Hash{}
	case errors.Is(err, gossip.ErrNobody):
		n.unsent = hash
	case ctx.Err() == nil:
		n.log.Warn("block not flooded", "hash", hash, "err", err)
	}
}

// topicPeer is called when a peer joins a topic: a tip or transactions that nobody
// heard go out now.
func (n *Node) topicPeer(topic string, _ peer.ID) {
	if topic != n.blockTopic() {
		select {
		case n.txPeer <- struct{}{}:
		default:
		}
		return
	}
	n.mu.Lock()
	waiting := n.unsent != (chainhash.Hash{})
	n.mu.Unlock()
	if waiting {
		select {
		case n.republish <- struct{}{}:
		default:
		}
	}
}

// poolView is what relay wants to know of the pool.
type poolView struct {
	pool interface {
		Have(txid chainhash.Hash) bool
	}
}

// HaveTx implements relay.Pool.
func (p poolView) HaveTx(txid chainhash.Hash) bool { return p.pool.Have(txid) }

var _ relay.Headers = headerView{}

// blame says whether an error from the chain or the pool is the caller's fault.
func blame(err error) (*consensus.RuleError, bool) {
	var rule *consensus.RuleError
	ok := errors.As(err, &rule)
	return rule, ok
}
