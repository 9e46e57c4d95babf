package mempool

import (
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// spreadTime is how long after its acceptance a transaction that was made here is
// taken to be on its way to others: a few hops of a wide network.
const spreadTime = 500 * time.Millisecond

// Unheard guesses whether others lack a transaction, named by its ids: it is not in
// the pool, nobody has been told of it, or it was made here a moment ago.
func (p *Pool) Unheard(txid, wtxid *chainhash.Hash) bool {
	now := p.o.Now()
	p.mu.RLock()
	defer p.mu.RUnlock()
	e := p.byID[*txid]
	if e == nil || e.WID != *wtxid {
		return true
	}
	return e.unsent() || e.Received.IsZero() && now.Sub(e.Added) < spreadTime
}
