package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/gossip"
	"dunlin/internal/flood"
	"dunlin/internal/simnet"
)

// dunlin's relay as the node runs it: gossip, and on it internal/flood with the judge and the assembler of chain/relay.
// The chain is one in memory whose headers are taken as they are, the pool has the blocks' transactions but for those
// that the case says are missing, and parts of blocks are asked for over streams that hold a request, as those of
// chain/exchange do.

const (
	fetchProtocol = protocol.ID("/dunlin/bench-00000000/txs/1")
	fetchHold     = time.Second // as chain/exchange's HoldFor
	fetchWhole    = 0xffff_ffff // in place of a count of indexes

	fetchOK, fetchNotFound, fetchNotYet = 0, 1, 2
)

// floodWorld is what all nodes of one simulation have in common.
type floodWorld struct {
	params  *consensus.Params
	builder *enginetest.Builder
	pool    *fixedPool
	heights map[chainhash.Hash]int32
	raws    map[chainhash.Hash][]byte
}

func newFloodWorld(builder *enginetest.Builder, blocks []*floodBlock) *floodWorld {
	w := &floodWorld{params: builder.Params, builder: builder, pool: newFixedPool(), heights: map[chainhash.Hash]int32{}, raws: map[chainhash.Hash][]byte{}}
	for _, b := range blocks {
		w.raws[b.Hash] = b.Raw
		w.heights[b.Hash] = builder.Height(b.Hash)
		for _, tx := range b.Txs[1:] {
			if !b.missing[*tx.Hash()] {
				w.pool.add(*tx.WitnessHash(), *tx.Hash(), tx.MsgTx())
			}
		}
	}
	return w
}

// fixedPool is a pool that does not change.
type fixedPool struct {
	ids []chainhash.Hash
	txs map[chainhash.Hash]pooled
}

type pooled struct {
	tx *wire.MsgTx
	id chainhash.Hash
}

func newFixedPool() *fixedPool { return &fixedPool{txs: map[chainhash.Hash]pooled{}} }

func (p *fixedPool) add(wtxid, txid chainhash.Hash, tx *wire.MsgTx) {
	p.ids = append(p.ids, wtxid)
	p.txs[wtxid] = pooled{tx, txid}
}

// WitnessIDs implements relay.Candidates.
func (p *fixedPool) WitnessIDs() iter.Seq[*chainhash.Hash] {
	return func(yield func(*chainhash.Hash) bool) {
		for i := range p.ids {
			if !yield(&p.ids[i]) {
				return
			}
		}
	}
}

// ByWitnessID implements relay.Candidates.
func (p *fixedPool) ByWitnessID(wtxid chainhash.Hash) (*wire.MsgTx, chainhash.Hash, bool) {
	t, ok := p.txs[wtxid]
	return t.tx, t.id, ok
}

// dunlinNode is one node.
type dunlinNode struct {
	host   *simnet.Host
	world  *floodWorld
	flood  *flood.Flood
	gossip *gossip.Gossip
	got    func(chainhash.Hash)

	mu   sync.Mutex // guards have
	have map[chainhash.Hash][]byte
}

func startDunlin(n *simnet.Network, h *simnet.Host, w *floodWorld, degree int, got func(chainhash.Hash)) (floodNode, error) {
	d := &dunlinNode{host: h, world: w, got: got, have: map[chainhash.Hash][]byte{}}
	var err error
	d.flood, err = flood.New(flood.Options{
		Params: w.params, Headers: d, Pool: w.pool, Fetch: d,
		Send: func(ctx context.Context, msg []byte) error { return d.gossip.Publish(ctx, baseTopic, msg) },
		Submit: func(_ context.Context, c flood.Completed) (func(context.Context) error, error) {
			d.keep(c.Hash, c.Raw)
			d.got(c.Hash)
			return nil, nil //nolint:nilnil // nobody waits for a verdict
		},
		Peers: func() (peers []flood.Peer) {
			for _, id := range d.host.Network().Peers() {
				peers = append(peers, flood.Peer{ID: id})
			}
			return peers
		},
		Block: func(hash chainhash.Hash) ([]byte, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if raw := d.have[hash]; raw != nil {
				return raw, nil
			}
			return nil, flood.ErrNotFound
		},
	})
	if err != nil {
		return nil, err
	}
	d.gossip, err = gossip.New(gossip.Options{
		Host: h, Private: true, Degree: degree, Topics: []gossip.Topic{d.flood.Topic(baseTopic)},
		OnTopicPeer: func(string, peer.ID) { d.flood.TopicPeer() },
	})
	if err != nil {
		return nil, err
	}
	h.SetStreamHandler(fetchProtocol, func(s network.Stream) { d.serve(n.Context(), s) })
	n.Go(func(ctx context.Context) { _ = d.gossip.Run(ctx) })
	n.Go(func(ctx context.Context) { _ = d.flood.Run(ctx) })
	return d, nil
}

// keep is the node's disk: of equal bytes a thousand nodes have one copy.
func (d *dunlinNode) keep(hash chainhash.Hash, raw []byte) {
	if one := d.world.raws[hash]; bytes.Equal(one, raw) {
		raw = one
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.have[hash] = raw
}

func (d *dunlinNode) publish(_ context.Context, b *floodBlock) error {
	d.keep(b.Hash, b.Raw)
	d.flood.Publish(b.Raw, b.Hash)
	return nil
}

func (d *dunlinNode) stats() floodStats {
	s := floodStats{pulled: d.flood.Stats().PulledBytes}
	for _, t := range d.gossip.Stats().Topics {
		s.duplicates += t.Duplicates
	}
	return s
}

// CheckHeader implements relay.Headers: the blocks of the simulation are good.
func (d *dunlinNode) CheckHeader(h *consensus.Header) (int32, bool, error) {
	hash := h.BlockHash()
	height, ok := d.world.heights[hash]
	if !ok {
		return 0, false, fmt.Errorf("header %s is not of the simulation", hash)
	}
	have, _ := d.HaveBlock(hash)
	return height, have, nil
}

// HaveBlock implements relay.Headers.
func (d *dunlinNode) HaveBlock(hash chainhash.Hash) (have, invalid bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.have[hash] != nil, false
}

// CheckSeal implements relay.Headers: there are none.
func (d *dunlinNode) CheckSeal(*consensus.Block) error { return nil }

// Claim implements relay.Headers.
func (d *dunlinNode) Claim(*consensus.Header) (consensus.Claim, bool) {
	return consensus.Claim{}, false
}

// Past implements relay.Headers.
func (d *dunlinNode) Past(hash chainhash.Hash) (consensus.Past, bool) {
	return d.world.builder.Past(hash), true
}

// FetchBlockTxs implements flood.Fetcher.
func (d *dunlinNode) FetchBlockTxs(ctx context.Context, from peer.ID, block chainhash.Hash, indexes []uint32, progress func()) ([][]byte, error) {
	ask := binary.BigEndian.AppendUint32(block[:], uint32(len(indexes))) //nolint:gosec // at most the transactions of a block
	for _, i := range indexes {
		ask = binary.BigEndian.AppendUint32(ask, i)
	}
	return d.fetch(ctx, from, ask, len(indexes), progress)
}

// FetchBlock implements flood.Fetcher.
func (d *dunlinNode) FetchBlock(ctx context.Context, from peer.ID, hash chainhash.Hash, progress func()) ([]byte, error) {
	parts, err := d.fetch(ctx, from, binary.BigEndian.AppendUint32(hash[:], fetchWhole), 1, progress)
	if err != nil {
		return nil, err
	}
	return parts[0], nil
}

// fetch asks one peer and reads so many parts, each with its length before it.
func (d *dunlinNode) fetch(ctx context.Context, from peer.ID, ask []byte, parts int, progress func()) ([][]byte, error) {
	s, err := d.host.NewStream(network.WithNoDial(ctx, "flood"), from, fetchProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if _, err := s.Write(ask); err != nil {
		return nil, err
	}
	r := bufio.NewReader(&progressReader{s, progress})
	switch status, err := r.ReadByte(); {
	case err != nil:
		return nil, err
	case status == fetchNotYet:
		return nil, flood.ErrNotYet
	case status != fetchOK:
		return nil, flood.ErrNotFound
	}
	out := make([][]byte, parts)
	for i := range out {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(size[:])
		if int64(n) > int64(d.world.params.MaxBlockBytes()) {
			return nil, fmt.Errorf("a part of %d bytes", n)
		}
		out[i] = make([]byte, n)
		if _, err := io.ReadFull(r, out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// progressReader tells of bytes that come in.
type progressReader struct {
	r        io.Reader
	progress func()
}

// Read implements io.Reader.
func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.progress()
	}
	return n, err
}

// serve answers one request, and holds it while the block is in work here.
func (d *dunlinNode) serve(ctx context.Context, s network.Stream) {
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	var head [chainhash.HashSize + 4]byte
	if _, err := io.ReadFull(s, head[:]); err != nil {
		return
	}
	hash, count := chainhash.Hash(head[:chainhash.HashSize]), binary.BigEndian.Uint32(head[chainhash.HashSize:])
	var indexes []uint32
	if count != fetchWhole {
		raw := make([]byte, 4*min(int(count), d.world.params.MaxBlockWeight/240))
		if _, err := io.ReadFull(s, raw); err != nil {
			return
		}
		for i := 0; i < len(raw); i += 4 {
			indexes = append(indexes, binary.BigEndian.Uint32(raw[i:]))
		}
	}
	parts, status := d.parts(ctx, hash, indexes)
	reply := []byte{status}
	for _, p := range parts {
		reply = append(binary.BigEndian.AppendUint32(reply, uint32(len(p))), p...) //nolint:gosec // at most a block
	}
	_, _ = s.Write(reply)
}

// parts returns what is asked for, nil indexes meaning the block.
func (d *dunlinNode) parts(ctx context.Context, hash chainhash.Hash, indexes []uint32) ([][]byte, byte) {
	timer := time.NewTimer(fetchHold)
	defer timer.Stop()
	for {
		var parts [][]byte
		var changed <-chan struct{}
		var err error
		if indexes == nil {
			var raw []byte
			if raw, changed = d.flood.Block(hash); raw != nil {
				parts = [][]byte{raw}
			}
		} else {
			parts, changed, err = d.flood.BlockTxs(hash, indexes)
		}
		switch {
		case err != nil, parts == nil && changed == nil:
			return nil, fetchNotFound
		case parts != nil:
			return parts, fetchOK
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, fetchNotYet
		case <-ctx.Done():
			return nil, fetchNotYet
		}
	}
}
