package node

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/index"
	"dunlin/chain/mempool"
	"dunlin/gossip"
	"dunlin/internal/api"
)

const (
	// poolFile holds the unconfirmed transactions over restarts (docs/storage.md).
	poolFile = "mempool.dat"
	// seenFor is how long gossip takes a message for known that it has seen: its
	// window of 2 min, a sweep that comes once a minute, and a little more.
	seenFor = 3*time.Minute + 5*time.Second
	// tellAtOnce is how many transactions are told between two looks at the pool,
	// tellPause the rest in between: some 1000 a second, which is what neighbours
	// take of one peer and what fits into the queues to them.
	tellAtOnce = 64
	tellPause  = 60 * time.Millisecond
	// tellAgain is the pause when nobody was there to be told; a peer that joins
	// ends it.
	tellAgain = 10 * time.Second
	// maxTxOutputs is how many outputs are looked up to find out whether a
	// transaction is in the chain.
	maxTxOutputs = 100
)

// unsentPool is what a teller wants of the mempool.
type unsentPool interface {
	Unsent(most int, seenFor time.Duration) (due []mempool.Entry, next time.Time, more <-chan struct{})
	Sent(txid chainhash.Hash)
	Later(txid chainhash.Hash, until time.Time)
}

// A teller tells others of transactions that gossip does not pass on by itself:
// those made here, and orphans that were completed here. With nobody to tell, it
// waits for somebody.
type teller struct {
	pool    unsentPool
	publish func(context.Context, *wire.MsgTx) error
	joined  <-chan struct{} // has a token when a peer has joined the topic
	// takes says whether a peer would take an entry, as far as its fee goes.
	takes func(e *mempool.Entry, now time.Time) bool
}

// run tells until ctx ends.
func (t *teller) run(ctx context.Context) error {
	timer := time.NewTimer(tellAgain)
	defer timer.Stop()
	for ctx.Err() == nil {
		due, next, more := t.pool.Unsent(tellAtOnce, seenFor)
		nobody, later := false, false
		for i := range due {
			e := &due[i]
			if now := time.Now(); !t.takes(e, now) {
				t.pool.Later(e.ID, now.Add(tryFeeAgain))
				later = true
				continue
			}
			if err := t.publish(ctx, e.Tx); errors.Is(err, gossip.ErrNobody) || errors.Is(err, gossip.ErrNotRunning) || ctx.Err() != nil {
				nobody = true
				break
			}
			// Another error is one for ever (a message too large): it is as good as sent.
			t.pool.Sent(e.ID)
		}
		pause := time.Hour // nothing is due
		if len(due) == tellAtOnce && !nobody {
			pause, more = tellPause, nil
		} else if nobody {
			pause, more = tellAgain, nil // more of it would not be told either
		} else if !next.IsZero() {
			pause = max(time.Second, time.Until(next))
		}
		if later {
			pause = min(pause, tryFeeAgain)
		}
		timer.Reset(pause)
		select {
		case <-more:
		case <-t.joined:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// runTxs is the stage of the teller.
func (n *Node) runTxs(ctx context.Context) error {
	t := teller{pool: n.pool, publish: n.publishTx, joined: n.txPeer, takes: n.floor.takes}
	return t.run(ctx)
}

func (n *Node) publishTx(ctx context.Context, tx *wire.MsgTx) error {
	var b bytes.Buffer
	if err := tx.Serialize(&b); err != nil {
		return err // cannot happen: it was decoded or signed here
	}
	err := n.gossip.Publish(ctx, n.txTopic(), b.Bytes())
	if errors.Is(err, gossip.ErrSeen) {
		return nil // neighbours have it
	}
	if err != nil && !errors.Is(err, gossip.ErrNobody) && !errors.Is(err, gossip.ErrNotRunning) && ctx.Err() == nil {
		n.log.Debug("transaction not flooded", "txid", tx.TxHash(), "err", err)
	}
	return err
}

// Mempool implements api.Node.
func (f face) Mempool() api.Mempool {
	out := api.Mempool{
		MaxBytes: f.pool.MaxBytes(), MinFeeRate: f.pool.MinFeeRate(), PeersMinFeeRate: f.floor.least(time.Now()),
		Unsent: f.pool.UnsentCount(), Lost: f.pool.LostCount(),
		Listed: f.pools.count.listed.Load(), Pulled: f.pools.count.accepted.Load(),
	}
	out.Count, out.VBytes, out.Bytes = f.pool.Size()
	out.Orphans, out.OrphanBytes = f.pool.Orphans()
	for _, s := range f.gossip.Stats().Topics {
		if s.Name == f.txTopic() {
			out.Gossip = api.TopicFlow{
				Peers: s.Peers, Mesh: s.Mesh, Accepted: s.Accepted, Ignored: orNone(s.Ignored), Rejected: orNone(s.Rejected),
				Duplicates: s.Duplicates, Throttled: s.Throttled, Dropped: s.Dropped, Published: s.Published,
			}
		}
	}
	return out
}

// orNone is m, not nil: in JSON an object.
func orNone(m map[string]uint64) map[string]uint64 {
	if m == nil {
		return map[string]uint64{}
	}
	return m
}

// SubmitTx implements api.Node.
func (f face) SubmitTx(ctx context.Context, raw []byte) (string, error) {
	tx, err := consensus.DecodeTx(raw)
	if err != nil {
		return "", api.Errorf(http.StatusBadRequest, "transaction: %v", err)
	}
	err = rpcFace{f}.SubmitTx(ctx, tx)
	if rule, ok := blame(err); ok {
		return "", api.Errorf(http.StatusUnprocessableEntity, "transaction refused: %v", rule)
	}
	if err != nil {
		return "", err
	}
	return tx.TxHash().String(), nil
}

// Tx implements api.Node.
func (f face) Tx(_ context.Context, txid string) (api.Tx, error) {
	id, err := chainhash.NewHashFromStr(txid)
	if err != nil || len(txid) != 2*chainhash.HashSize {
		return api.Tx{}, api.Errorf(http.StatusBadRequest, "transaction id %q: must be 64 hex digits", txid)
	}
	if e, ok := f.pool.Get(*id); ok {
		out := api.Tx{TxID: id.String(), Status: api.TxInMempool, Time: e.Added.UTC(), Fee: e.Fee, VSize: (e.Weight + 3) / 4, Height: -1, WasHeight: -1}
		for _, p := range e.Parents {
			out.Parents = append(out.Parents, p.String())
		}
		return out, nil
	}
	block, ok, err := f.findTx(*id)
	if err != nil {
		return api.Tx{}, err
	}
	if s, known := f.chain.Status(block); ok && known && s.Active {
		tip, _ := f.chain.Tip()
		return api.Tx{
			TxID: id.String(), Status: api.TxConfirmed, BlockHash: block.String(), Height: s.Height, WasHeight: -1,
			Confirmations: max(1, tip.Height-s.Height+1),
		}, nil
	}
	// The index may know a block that was on the chain; that it is there no longer is told by the fate.
	if fate, ok := f.pool.Fate(*id); ok {
		return f.describeFate(fate), nil
	}
	if ok {
		return api.Tx{}, api.Errorf(http.StatusNotFound, "transaction %s is not in the mempool, and block %s, which has it, is not on the active chain", txid, block)
	}
	if x := f.indexes[index.Txs]; x != nil {
		return api.Tx{}, f.notFound(*id)
	}
	return api.Tx{}, api.Errorf(http.StatusNotFound,
		"transaction %s is not in the mempool, has no unspent output in the chain, and is not among the last that were dropped; with storage.tx_index any in the chain is found", txid)
}

// LostTxs implements api.Node.
func (f face) LostTxs(after uint64) (txs []api.Tx, last uint64, changed <-chan struct{}) {
	fates, changed := f.pool.Lost(after)
	last = after
	for _, fate := range fates {
		txs = append(txs, f.describeFate(fate))
		last = fate.Seq
	}
	return txs, last, changed
}

func (f face) describeFate(fate mempool.Fate) api.Tx {
	out := api.Tx{TxID: fate.ID.String(), Status: fate.Cause.String(), Rule: fate.Rule, Time: fate.At.UTC(), Height: -1, WasHeight: -1}
	hash := func(h chainhash.Hash) string {
		if h == (chainhash.Hash{}) {
			return ""
		}
		return h.String()
	}
	out.SpentBy, out.Via = hash(fate.By), hash(fate.Via)
	if out.BlockHash = hash(fate.Block); out.BlockHash != "" {
		out.Height = fate.Height
		if s, ok := f.chain.Status(fate.Block); ok && s.Active {
			tip, _ := f.chain.Tip()
			out.Confirmations = max(0, tip.Height-fate.Height+1)
		}
	}
	if out.WasBlock = hash(fate.Was); out.WasBlock != "" {
		out.WasHeight = fate.WasHeight
	}
	return out
}
