package node

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/exchange"
	"dunlin/chain/relay"
	"dunlin/internal/api"
	"dunlin/internal/flood"
)

// openFlood makes what drives the block topic.
func (n *Node) openFlood() (err error) {
	n.blocks, err = flood.New(flood.Options{
		Params:  n.params,
		Headers: headerView{n.chain},
		Pool:    n.pool,
		Fetch:   fetcher{n.exchange},
		Send: func(ctx context.Context, msg []byte) error {
			return n.gossip.Publish(ctx, n.blockTopic(), msg)
		},
		Submit: n.submitFlooded,
		Peers: func() (out []flood.Peer) {
			for _, p := range n.exchange.Peers() {
				if p.Services&exchange.ServeTxs != 0 {
					out = append(out, flood.Peer{ID: p.ID, Tip: p.Hash})
				}
			}
			return out
		},
		Block: n.chain.Block,
		Header: func(ctx context.Context, h *consensus.Header) {
			if _, _, err := n.chain.AcceptHeaders(ctx, []consensus.Header{*h}); err != nil {
				n.log.Debug("header of a compact block not taken", "hash", consensus.HeaderHash(h), "err", err)
			}
		},
		Unplaced: n.exchange.FetchFrom,
		Unheard:  n.pool.Unheard,
		Judged: func(from peer.ID, v relay.Verdict) {
			switch v.Result {
			case relay.Accept:
				n.deeds.broughtBlock(from)
			case relay.Reject:
				n.refused(from, "block", v)
			case relay.Ignore:
			}
		},
		Blame:  n.exchange.Blame,
		Logger: n.log.With("subsystem", "flood"),
	})
	return err
}

// submitFlooded hands a block of the topic to the chain.
func (n *Node) submitFlooded(ctx context.Context, c flood.Completed) (verdict func(context.Context) error, err error) {
	src := chain.Source{Kind: chain.FromGossip, Peer: c.From.String(), Facts: c.LogAttrs()}
	ticket, err := n.chain.Submit(ctx, c.Raw, src)
	if errors.Is(err, chain.ErrClosed) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return ticket.Wait(ctx).Err }, nil
}

// allHave says whether every greeted peer has said that its tip is as high as
// height: a block there is news to none of them.
func (n *Node) allHave(height int32) bool {
	peers := n.exchange.Peers()
	for _, p := range peers {
		if p.Height < height {
			return false
		}
	}
	return len(peers) > 0
}

// fetcher asks by the exchange's protocols and speaks the flood's language.
type fetcher struct{ x *exchange.Exchange }

// FetchBlockTxs implements flood.Fetcher.
func (f fetcher) FetchBlockTxs(ctx context.Context, from peer.ID, block chainhash.Hash, indexes []uint32, progress func()) ([][]byte, error) {
	txs, err := f.x.FetchBlockTxs(ctx, from, block, indexes, progress)
	return txs, floodError(err)
}

// FetchBlock implements flood.Fetcher.
func (f fetcher) FetchBlock(ctx context.Context, from peer.ID, hash chainhash.Hash, progress func()) ([]byte, error) {
	raw, err := f.x.FetchBlock(ctx, from, hash, progress)
	return raw, floodError(err)
}

// floodError joins an error of the exchange with what it means to the flood.
func floodError(err error) error {
	for _, e := range [...]struct{ from, to error }{
		{exchange.ErrNotFound, flood.ErrNotFound},
		{exchange.ErrNotYet, flood.ErrNotYet},
		{exchange.ErrBusy, flood.ErrBusy},
	} {
		if errors.Is(err, e.from) {
			return errors.Join(e.to, err)
		}
	}
	return err
}

// inWork shows the exchange the blocks that are not on disk. The flood is made
// after it, and it asks only while both run.
type inWork struct{ n *Node }

// BlockTxs implements exchange.Pending.
func (w inWork) BlockTxs(block chainhash.Hash, indexes []uint32) (txs [][]byte, changed <-chan struct{}, err error) {
	return w.n.blocks.BlockTxs(block, indexes)
}

// Block implements exchange.Pending.
func (w inWork) Block(block chainhash.Hash) (raw []byte, changed <-chan struct{}) {
	return w.n.blocks.Block(block)
}

// gossipStatus is what status and API show of gossip.
func (n *Node) gossipStatus() api.GossipStatus {
	s := n.blocks.Stats()
	out := api.GossipStatus{
		Compact: s.FromPool + s.Pulled, NotPulled: s.FromPool, Whole: s.Whole, Fetched: s.Fetched, GivenUp: s.GivenUp,
		HitPercent: 100, PulledTxs: s.PulledTxs, PulledBytes: s.PulledBytes,
		DelayS: seconds(s.Last.Delay), CompletionS: seconds(s.Last.Took),
	}
	if s.Txs > 0 {
		out.HitPercent = math.Floor(1000*float64(s.Txs-s.PulledTxs)/float64(s.Txs)) / 10
	}
	for _, t := range n.gossip.Stats().Topics {
		if t.Name == n.txTopic() {
			out.TxPeers, out.TxMesh = t.Peers, t.Mesh
			continue
		}
		out.BlockPeers, out.BlockMesh, out.Duplicates = t.Peers, t.Mesh, t.Duplicates
		for _, v := range t.Rejected {
			out.Rejected += v
		}
	}
	return out
}

// seconds is a duration in seconds, to the millisecond.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

var (
	descMesh         = desc("gossip_mesh_peers", "Neighbours of a topic, who send whole messages.", "topic")
	descTopicPeers   = desc("gossip_topic_peers", "Peers on a topic.", "topic")
	descTopicBytes   = desc("gossip_bytes_total", "Bytes of messages by topic and direction, copies included.", "topic", "direction")
	descFlooded      = desc("flood_blocks_total", "Blocks that gossip brought, by how they became complete: whole, pool (put together without asking), pulled (with transactions that were asked for), fetched (asked for whole).", "how")
	descGivenUp      = desc("flood_given_up_total", "Compact blocks left to sync.")
	descCrowded      = desc("flood_crowded_total", "Blocks left to sync because too many waited.")
	descFloodMsgs    = desc("flood_messages_total", "Block messages by encoding.", "encoding")
	descFloodTxs     = desc("flood_transactions_total", "Transactions of the compact blocks that became complete, by where they were found.", "source")
	descFloodPulled  = desc("flood_pulled_bytes_total", "Bytes asked for and received to complete blocks.")
	descFloodAsks    = desc("flood_requests_total", "Requests for parts of blocks.")
	descFloodFailed  = desc("flood_requests_failed_total", "Of them, those that brought nothing.")
	descFloodSent    = desc("flood_sent_total", "Blocks sent out by this node itself, by encoding.", "encoding")
	descFloodSentB   = desc("flood_sent_bytes_total", "Their bytes, once each.")
	descFloodPrefill = desc("flood_prefilled_total", "Transactions sent with own compact blocks because others would lack them.")
	descInWork       = desc("flood_in_work", "Compact blocks that are not complete.")
	descFloodFlying  = desc("flood_in_flight_requests", "Requests for parts of blocks under way.")
	descDelay        = desc("flood_delay_seconds", "How long blocks took until they were complete here: from the time in their header, from their first message.", "from")

	floodDescs = []*prometheus.Desc{
		descMesh, descTopicPeers, descTopicBytes, descFlooded, descGivenUp, descCrowded, descFloodMsgs, descFloodTxs, descFloodPulled,
		descFloodAsks, descFloodFailed, descFloodSent, descFloodSentB, descFloodPrefill, descInWork, descFloodFlying, descDelay,
	}
)

// collectFlood is Collect for what drives the block topic.
func (m *meter) collectFlood(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		send(d, prometheus.GaugeValue, float64(v), labels...)
	}
	total := func(d *prometheus.Desc, v uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(v), labels...)
	}
	s := m.n.blocks.Stats()
	total(descFlooded, s.Whole, "whole")
	total(descFlooded, s.FromPool, "pool")
	total(descFlooded, s.Pulled, "pulled")
	total(descFlooded, s.Fetched, "fetched")
	total(descGivenUp, s.GivenUp)
	total(descCrowded, s.Crowded)
	total(descFloodMsgs, s.WholeMessages, "whole")
	total(descFloodMsgs, s.CompactMessages, "compact")
	total(descFloodTxs, s.PulledTxs, "pulled")
	total(descFloodTxs, s.PrefilledTxs, "prefilled")
	total(descFloodTxs, s.Txs-s.PulledTxs-s.PrefilledTxs, "pool")
	total(descFloodPulled, s.PulledBytes)
	total(descFloodAsks, s.Requests)
	total(descFloodFailed, s.RequestsFailed)
	total(descFloodSent, s.SentAs.Whole, "whole")
	total(descFloodSent, s.SentAs.Compact, "compact")
	total(descFloodSentB, s.SentAs.Bytes)
	total(descFloodPrefill, s.SentAs.Prefilled)
	gauge(descInWork, s.InWork)
	gauge(descFloodFlying, s.Fetches)
	for _, h := range []struct {
		from string
		d    flood.Delays
	}{{"header", s.FromHeader}, {"first_message", s.FromSight}} {
		within := make(map[float64]uint64, len(flood.Buckets))
		for i, most := range flood.Buckets {
			within[most] = h.d.Within[i]
		}
		ch <- prometheus.MustNewConstHistogram(descDelay, h.d.Count, h.d.Sum, within, h.from)
	}
}
