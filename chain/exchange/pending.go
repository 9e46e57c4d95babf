package exchange

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// maxHeld and maxHeldPerPeer bound the requests that are held: of all peers,
	// and of one. Beyond, the answer is not_yet at once.
	maxHeld        = 64
	maxHeldPerPeer = 4
)

// Pending knows the blocks that are not on disk: those that are in work here, and
// the last that were completed, which wait for their validation. Neighbours ask for
// parts of a block as soon as its header was passed on, long before it is on disk.
// Methods answer from memory, at once, and are safe for concurrent use; what they
// return is not changed any more.
type Pending interface {
	// BlockTxs returns the transactions of a block at ascending indexes, serialised
	// with witness. If some are not here yet it returns a channel that is closed at
	// the next change instead; an error if the block has no such index, which is
	// nobody's fault: a false compact block makes honest nodes ask for it; and nothing
	// at all if it knows nothing of the block.
	BlockTxs(block chainhash.Hash, indexes []uint32) (txs [][]byte, changed <-chan struct{}, err error)
	// Block returns the block's bytes, or a channel that is closed at the next
	// change, or nothing.
	Block(block chainhash.Hash) (raw []byte, changed <-chan struct{})
}

// nothingPending is the Pending of a node without.
type nothingPending struct{}

func (nothingPending) BlockTxs(chainhash.Hash, []uint32) ([][]byte, <-chan struct{}, error) {
	return nil, nil, nil
}

func (nothingPending) Block(chainhash.Hash) ([]byte, <-chan struct{}) { return nil, nil }

// errNoIndex says that a block has fewer transactions than somebody thinks.
var errNoIndex = errors.New("no such index")

// errNotYet says that a block is in work here and was not completed in time.
var errNotYet = errors.New("not yet")

// holds counts the requests that wait for a block in work. A held request costs
// its stream's goroutine, which there are few of a peer, and no memory beside.
type holds struct {
	mu  sync.Mutex // guards what follows, held for an instant
	all int
	of  map[peer.ID]int
}

func (h *holds) enter(id peer.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all >= maxHeld || h.of[id] >= maxHeldPerPeer {
		return false
	}
	if h.of == nil {
		h.of = make(map[peer.ID]int)
	}
	h.all++
	h.of[id]++
	return true
}

func (h *holds) leave(id peer.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all--
	if h.of[id]--; h.of[id] == 0 {
		delete(h.of, id)
	}
}

// hold calls look until it returns no channel, at each change that the channel
// tells of, for at most HoldFor: then it returns errNotYet, as it does at once if too
// many are held already. withdrawn ends it too.
func (x *Exchange) hold(ctx context.Context, r *remote, withdrawn <-chan struct{}, look func() (changed <-chan struct{})) error {
	changed := look()
	if changed == nil {
		return nil
	}
	if !x.holds.enter(r.id) {
		return errNotYet
	}
	defer x.holds.leave(r.id)
	timer := time.NewTimer(x.o.HoldFor)
	defer timer.Stop()
	for changed != nil {
		select {
		case <-changed:
			changed = look()
		case <-timer.C:
			return errNotYet
		case <-withdrawn:
			return errNotYet
		case <-r.gone:
			return context.Canceled
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// pendingTxs gathers transactions of a block that is in work here, or was. Known
// is false if it is neither: it may be on disk.
func (x *Exchange) pendingTxs(ctx context.Context, r *remote, req *txsRequest) (txs [][]byte, known bool, err error) {
	var fault error
	err = x.hold(ctx, r, nil, func() (changed <-chan struct{}) {
		txs, changed, fault = x.o.Pending.BlockTxs(req.Block, req.Indexes)
		return changed
	})
	if fault != nil {
		return nil, true, errNoIndex
	}
	return txs, txs != nil || err != nil, err
}

// pendingBlock is pendingTxs for a whole block.
func (x *Exchange) pendingBlock(ctx context.Context, r *remote, withdrawn <-chan struct{}, hash chainhash.Hash) (raw []byte, err error) {
	err = x.hold(ctx, r, withdrawn, func() (changed <-chan struct{}) {
		raw, changed = x.o.Pending.Block(hash)
		return changed
	})
	return raw, err
}
