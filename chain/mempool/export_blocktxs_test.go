package mempool

import (
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// Limits of what is kept for blocks.
const (
	MaxExtra      = maxExtra
	MaxExtraBytes = maxExtraBytes
	ExtraShare    = extraShare
	WIDsAtOnce    = widsAtOnce
)

// Extras is an extraBook.
type Extras struct{ b extraBook }

// NewExtras returns an empty book.
func NewExtras() *Extras { return &Extras{extraBook{byWID: make(map[chainhash.Hash]*bystander)}} }

// Keep remembers a transaction.
func (x *Extras) Keep(tx *wire.MsgTx) { x.b.keep(tx, tx.TxHash(), tx.WitnessHash()) }

// Has says whether a transaction is remembered.
func (x *Extras) Has(tx *wire.MsgTx) bool { return x.b.byWID[tx.WitnessHash()] != nil }

// Verify checks the accounts and returns what is remembered.
func (x *Extras) Verify() (count int, bytes int64, err error) {
	return len(x.b.order), x.b.bytes, x.b.verify()
}

func (b *extraBook) verify() error {
	var bytes int64
	for _, n := range b.order {
		if b.byWID[n.wid] != n {
			return fmt.Errorf("%s: not by witness id", n.id)
		}
		bytes += n.bytes
	}
	if bytes != b.bytes || bytes > maxExtraBytes || len(b.order) > maxExtra || len(b.byWID) != len(b.order) {
		return fmt.Errorf("%d extras of %d bytes, counted %d", len(b.order), b.bytes, bytes)
	}
	return nil
}

// verifyBlockTxs checks the lists of witness ids. Callers hold mu.
func (p *Pool) verifyBlockTxs() error {
	if len(p.wids) != len(p.byWID) || len(p.listed) != len(p.wids) {
		return fmt.Errorf("%d entries, %d and %d listed", len(p.byWID), len(p.wids), len(p.listed))
	}
	for i, e := range p.listed {
		if e.place != i || p.wids[i] != e.WID || p.byWID[e.WID] != e {
			return fmt.Errorf("%s: listed at %d, and thinks %d", e.ID, i, e.place)
		}
	}
	return p.extra.verify()
}
