package jsonrpc

import (
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/mempool"
)

// feeRate is satoshi per 1,000 virtual bytes as Core writes it.
func feeRate(satoshi int64) amount { return amount(satoshi) }

func getMempoolInfo(c *call) (any, error) {
	count, vbytes, memory := c.o.Pool.Size()
	least := c.o.Pool.MinRelayFeeRate()
	var fees int64
	for _, e := range c.o.Pool.Entries() {
		fees += e.Fee
	}
	return struct {
		Loaded      bool   `json:"loaded"`
		Size        int    `json:"size"`
		Bytes       int64  `json:"bytes"`
		Usage       int64  `json:"usage"`
		TotalFee    amount `json:"total_fee"`
		Max         int64  `json:"maxmempool"`
		MinFee      amount `json:"mempoolminfee"`
		MinRelay    amount `json:"minrelaytxfee"`
		Incremental amount `json:"incrementalrelayfee"`
		Unbroadcast int    `json:"unbroadcastcount"`
		FullRBF     bool   `json:"fullrbf"`
	}{
		true, count, vbytes, memory, amount(fees), c.o.Pool.MaxBytes(), feeRate(c.o.Pool.MinFeeRate()), feeRate(least), feeRate(least),
		c.o.Pool.UnsentCount(), true,
	}, nil
}

// poolView is a snapshot of the mempool with its families.
type poolView struct {
	byID     map[chainhash.Hash]*mempool.Entry
	children map[chainhash.Hash][]chainhash.Hash
	order    []chainhash.Hash // parents before children
}

func (h *Handler) poolView() *poolView {
	entries := h.o.Pool.Entries()
	v := &poolView{byID: make(map[chainhash.Hash]*mempool.Entry, len(entries)), children: make(map[chainhash.Hash][]chainhash.Hash)}
	for i := range entries {
		e := &entries[i]
		v.byID[e.ID] = e
		v.order = append(v.order, e.ID)
		for _, p := range e.Parents {
			v.children[p] = append(v.children[p], e.ID)
		}
	}
	return v
}

// ancestors lists what id depends on, without id.
func (v *poolView) ancestors(id chainhash.Hash) []chainhash.Hash {
	return walk(id, func(id chainhash.Hash) []chainhash.Hash { return v.byID[id].Parents })
}

// descendants lists what depends on id, without id.
func (v *poolView) descendants(id chainhash.Hash) []chainhash.Hash {
	return walk(id, func(id chainhash.Hash) []chainhash.Hash { return v.children[id] })
}

func walk(from chainhash.Hash, next func(chainhash.Hash) []chainhash.Hash) []chainhash.Hash {
	seen, found := map[chainhash.Hash]bool{from: true}, []chainhash.Hash{from}
	for i := 0; i < len(found); i++ {
		for _, id := range next(found[i]) {
			if !seen[id] {
				seen[id] = true
				found = append(found, id)
			}
		}
	}
	return found[1:]
}

// poolEntry is getmempoolentry's answer.
type poolEntry struct {
	VSize           int      `json:"vsize"`
	Weight          int      `json:"weight"`
	Time            int64    `json:"time"`
	Height          int32    `json:"height"`
	DescendantCount int      `json:"descendantcount"`
	DescendantSize  int      `json:"descendantsize"`
	AncestorCount   int      `json:"ancestorcount"`
	AncestorSize    int      `json:"ancestorsize"`
	WTxID           string   `json:"wtxid"`
	Fees            poolFees `json:"fees"`
	Depends         []string `json:"depends"`
	SpentBy         []string `json:"spentby"`
	Replaceable     bool     `json:"bip125-replaceable"`
	Unbroadcast     bool     `json:"unbroadcast"`
}

type poolFees struct {
	Base       amount `json:"base"`
	Modified   amount `json:"modified"`
	Ancestor   amount `json:"ancestor"`
	Descendant amount `json:"descendant"`
}

func vsizeOf(e *mempool.Entry) int { return (e.Weight + 3) / 4 }

func (h *Handler) describeEntry(v *poolView, id chainhash.Hash) poolEntry {
	e := v.byID[id]
	out := poolEntry{
		VSize: vsizeOf(e), Weight: e.Weight, Time: e.Added.Unix(), Height: e.Height, WTxID: e.WID.String(),
		DescendantCount: 1, DescendantSize: vsizeOf(e), AncestorCount: 1, AncestorSize: vsizeOf(e),
		Fees: poolFees{amount(e.Fee), amount(e.Fee), amount(e.Fee), amount(e.Fee)}, Depends: texts(e.Parents), SpentBy: texts(v.children[id]),
		Unbroadcast: h.o.Pool.IsUnsent(id),
	}
	signals := func(tx *wire.MsgTx) bool { // BIP125
		return slices.ContainsFunc(tx.TxIn, func(in *wire.TxIn) bool { return in.Sequence < wire.MaxTxInSequenceNum-1 })
	}
	out.Replaceable = signals(e.Tx)
	for _, id := range v.ancestors(id) {
		a := v.byID[id]
		out.AncestorCount++
		out.AncestorSize += vsizeOf(a)
		out.Fees.Ancestor += amount(a.Fee)
		out.Replaceable = out.Replaceable || signals(a.Tx)
	}
	for _, id := range v.descendants(id) {
		d := v.byID[id]
		out.DescendantCount++
		out.DescendantSize += vsizeOf(d)
		out.Fees.Descendant += amount(d.Fee)
	}
	return out
}

func texts(ids []chainhash.Hash) []string {
	out := make([]string, len(ids))
	for i := range ids {
		out[i] = ids[i].String()
	}
	return out
}

// list is what getrawmempool and its like answer: ids, or entries by id.
func (h *Handler) list(v *poolView, ids []chainhash.Hash, verbose bool) any {
	if !verbose {
		return texts(ids)
	}
	out := make(map[string]poolEntry, len(ids))
	for _, id := range ids {
		out[id.String()] = h.describeEntry(v, id)
	}
	return out
}

func getRawMempool(c *call) (any, error) {
	verbose, err := arg(c, 0, false)
	if err != nil {
		return nil, err
	}
	sequence, err := arg(c, 1, false)
	if err != nil {
		return nil, err
	}
	if verbose && sequence {
		return nil, fault(codeInvalidParameter, "Verbose results cannot contain mempool sequence values.")
	}
	v := c.poolView()
	if !sequence {
		return c.list(v, v.order, verbose), nil
	}
	return struct {
		IDs      []string `json:"txids"`
		Sequence uint64   `json:"mempool_sequence"`
	}{texts(v.order), c.o.Pool.Sequence()}, nil
}

// poolIDArg is argument 0 as the id of a transaction of the mempool.
func poolIDArg(c *call, v *poolView) (chainhash.Hash, error) {
	id, err := hashArg(c, 0)
	if err == nil && v.byID[id] == nil {
		err = fault(codeInvalidAddress, "Transaction not in mempool")
	}
	return id, err
}

func getMempoolEntry(c *call) (any, error) {
	v := c.poolView()
	id, err := poolIDArg(c, v)
	if err != nil {
		return nil, err
	}
	return c.describeEntry(v, id), nil
}

func getRelatives(c *call, of func(*poolView, chainhash.Hash) []chainhash.Hash) (any, error) {
	v := c.poolView()
	id, err := poolIDArg(c, v)
	if err != nil {
		return nil, err
	}
	verbose, err := arg(c, 1, false)
	if err != nil {
		return nil, err
	}
	return c.list(v, of(v, id), verbose), nil
}
