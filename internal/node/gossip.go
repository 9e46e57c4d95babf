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
	// maxTxLag is how many blocks behind its peers a node still looks at
	// transactions: what it ignored now would not come again.
	maxTxLag = 6
	// txValidators check transactions at the same time; scripts run inside.
	txValidators = 2
	// txWaste is how many messages without use a peer's budget has on the tx topic: a node that syncs ignores all.
	txWaste = 4000
	// blockWorth and txWorth are what first bringing one is worth: neighbours are chosen by who brings blocks.
	blockWorth, txWorth = 2, 0.1
	// txQueue is how many transactions wait for them: some seconds of 500 a second,
	// so that a collection of garbage or a block in between loses none.
	txQueue = 4096
)

// txRate bounds what one neighbour may send: twice the 500 transactions a second
// that all of them together are built for, some 20 times what fits into blocks.
var txRate = gossip.Rate{Messages: 1000, Bytes: 1 << 20, Burst: 10}

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
	if err := n.openFlood(); err != nil {
		return err
	}
	blocks := n.blocks.Topic(n.blockTopic())
	blocks.Worth = blockWorth
	n.gossip, err = gossip.New(gossip.Options{
		Host: n.host,
		Topics: []gossip.Topic{
			blocks,
			{Name: n.txTopic(), MaxBytes: relay.MaxTxBytes, Concurrency: txValidators, Waste: txWaste, Worth: txWorth, Queue: txQueue, PeerRate: txRate, Validate: n.judgeTx},
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

// topicPeer is called when a peer joins a topic: blocks or transactions that nobody
// heard go out now.
func (n *Node) topicPeer(topic string, _ peer.ID) {
	if topic != n.blockTopic() {
		select {
		case n.txPeer <- struct{}{}:
		default:
		}
		return
	}
	n.blocks.TopicPeer()
}

// poolView is what relay wants to know of the pool.
type poolView struct {
	pool interface {
		Have(txid chainhash.Hash) bool
	}
}

// HaveTx implements relay.Pool.
func (p poolView) HaveTx(txid chainhash.Hash) bool { return p.pool.Have(txid) }

// blame says whether an error from the chain or the pool is the caller's fault.
func blame(err error) (*consensus.RuleError, bool) {
	var rule *consensus.RuleError
	ok := errors.As(err, &rule)
	return rule, ok
}
