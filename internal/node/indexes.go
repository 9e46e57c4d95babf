package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"golang.org/x/sync/errgroup"

	"dunlin/chain"
	"dunlin/chain/index"
	"dunlin/chain/store"
	"dunlin/config"
	"dunlin/internal/address"
	"dunlin/internal/api"
)

// maxUnconfirmed is how many transactions of the mempool, and how many unspent outputs, are
// looked at for an address.
const maxUnconfirmed = 200

// openIndexes opens the indexes that are on.
func (n *Node) openIndexes() error {
	n.indexes = make(map[index.Kind]*index.Index)
	for kind, on := range map[index.Kind]bool{index.Txs: n.c.Storage.TxIndex, index.Addresses: n.c.Storage.AddressIndex} {
		if !on {
			continue
		}
		x, err := OpenIndex(n.c, n.chain, kind, n.log)
		if err != nil {
			return err
		}
		n.indexes[kind] = x
		n.closers = append(n.closers, x.Close)
	}
	return nil
}

// OpenIndex opens an index of an open chain; the caller runs and closes it.
func OpenIndex(c *config.Config, ch *chain.Chain, kind index.Kind, log *slog.Logger) (*index.Index, error) {
	if lowest := ch.Lowest(); lowest > 0 {
		return nil, fmt.Errorf("storage.%s needs every block, and this home was pruned below height %d (storage.prune_mb): set storage.%s = false, or sync anew with storage.prune_mb = 0",
			kind, lowest, kind)
	}
	return index.Open(index.Options{
		Kind: kind, Chain: ch, ChainID: ch.Params().ChainID(), Dir: c.Home, MemTableBytes: store.MemTableBytes(int64(c.Storage.CacheMB) << 20),
		Logger: log.With("subsystem", "index"),
	})
}

// BuildIndex drops an index of an open, running chain and makes it anew; progress is told
// now and then.
func BuildIndex(ctx context.Context, c *config.Config, ch *chain.Chain, kind index.Kind, log *slog.Logger, progress func(index.Status)) (index.Status, error) {
	if err := index.DropAt(c.Home, kind); err != nil {
		return index.Status{}, err
	}
	x, err := OpenIndex(c, ch, kind, log)
	if err != nil {
		return index.Status{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		defer cancel()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			s := x.Status()
			progress(s)
			if s.Err != nil || s.Synced && s.Height == s.Target {
				return s.Err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	_ = x.Run(ctx) // ends with ctx, which ends with g
	err = g.Wait()
	s := x.Status()
	cancel()
	return s, errors.Join(err, x.Close())
}

// runIndexes is the stage of the indexes.
func (n *Node) runIndexes(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, x := range n.indexes {
		g.Go(func() error { return x.Run(ctx) })
	}
	return g.Wait()
}

// Indexes implements api.Explorer.
func (f face) Indexes() []api.IndexStatus {
	out := []api.IndexStatus{}
	for _, kind := range []index.Kind{index.Txs, index.Addresses} {
		x := f.indexes[kind]
		if x == nil {
			out = append(out, api.IndexStatus{Name: kind.String(), Height: -1})
			continue
		}
		s := x.Status()
		one := api.IndexStatus{Name: s.Name, Enabled: true, Synced: s.Synced, Height: s.Height, Percent: s.Percent, Bytes: s.Bytes}
		if s.Err != nil {
			one.Error = s.Err.Error()
		}
		out = append(out, one)
	}
	return out
}

// building says how far an index is that is not finished; "" if it is, or is off.
func building(x *index.Index) string {
	if x == nil {
		return ""
	}
	s := x.Status()
	switch {
	case s.Err != nil:
		return fmt.Sprintf("%s stands still at height %d: %v", s.Name, s.Height, s.Err)
	case !s.Synced:
		return fmt.Sprintf("%s is still building, %.0f%%", s.Name, s.Percent)
	}
	return ""
}

// notFound says why a transaction is not shown, and what would help.
func (n *Node) notFound(id chainhash.Hash) error {
	x := n.indexes[index.Txs]
	if x == nil {
		return api.Errorf(http.StatusNotFound, "transaction %s is not in the mempool and has no unspent output in the chain; name its block with ?block=, or set storage.tx_index", id)
	}
	if why := building(x); why != "" {
		return api.Errorf(http.StatusServiceUnavailable, "transaction %s is not known yet: %s", id, why)
	}
	return api.Errorf(http.StatusNotFound, "transaction %s is neither in the mempool nor in the chain", id)
}

// addressIndex returns the index and the script of an address.
func (f face) addressIndex(text string) (x *index.Index, script []byte, err error) {
	if x = f.indexes[index.Addresses]; x == nil {
		return nil, nil, api.Errorf(http.StatusConflict, "addresses are not indexed: set storage.address_index = true (--address-index) and start again")
	}
	if script, err = address.Script(text, address.Params(f.params)); err != nil {
		return nil, nil, api.Errorf(http.StatusUnprocessableEntity, "address %q: %v", text, err)
	}
	if why := building(x); why != "" {
		return nil, nil, api.Errorf(http.StatusServiceUnavailable, "%s", why)
	}
	return x, script, nil
}

// indexError turns an error of an index into what a caller may know.
func indexError(err error) error {
	switch {
	case errors.Is(err, index.ErrCursor):
		return api.Errorf(http.StatusUnprocessableEntity, "%v", err)
	case errors.Is(err, index.ErrBusy):
		return api.Errorf(http.StatusUnprocessableEntity, "address has %v", err)
	case errors.Is(err, chain.ErrBusy):
		return api.Errorf(http.StatusServiceUnavailable, "a deep reorganisation is under way, ask again")
	}
	return err
}

// Address implements api.Explorer.
func (f face) Address(ctx context.Context, text string) (api.Address, error) {
	x, script, err := f.addressIndex(text)
	if err != nil {
		return api.Address{}, err
	}
	sum, err := x.Sum(ctx, script)
	if err != nil {
		return api.Address{}, indexError(err)
	}
	hash := sha256.Sum256(script)
	slices.Reverse(hash[:])
	out := api.Address{
		Address: text, Script: hex.EncodeToString(script), ScriptHash: hex.EncodeToString(hash[:]), Type: address.Kind(script),
		Balance: sum.Received - sum.Sent, Received: sum.Received, Sent: sum.Sent, Txs: sum.Txs, FirstHeight: sum.First, LastHeight: sum.Last,
	}
	waiting, err := f.unconfirmed(ctx, x, script)
	if err != nil {
		return api.Address{}, indexError(err)
	}
	for _, tx := range waiting {
		out.Unconfirmed.Received += tx.Received
		out.Unconfirmed.Sent += tx.Sent
		out.Unconfirmed.Txs++
	}
	return out, nil
}

// unconfirmed lists what the mempool would do to a script, newest first: of a bounded
// number of transactions that pay it, and of those that spend its latest outputs.
func (f face) unconfirmed(ctx context.Context, x *index.Index, script []byte) ([]api.AddressTx, error) {
	found := make(map[chainhash.Hash]*api.AddressTx)
	at := func(id chainhash.Hash, added time.Time) *api.AddressTx {
		if found[id] == nil {
			found[id] = &api.AddressTx{TxID: id.String(), Height: -1, Time: added.UTC()}
		}
		return found[id]
	}
	spend := func(op wire.OutPoint, value int64) {
		if by, ok := f.pool.Spender(op); ok {
			if e, ok := f.pool.Get(by); ok {
				at(by, e.Added).Sent += value
			}
		}
	}
	all := f.poolViews.get(f.pool, false)
	for i := range all {
		if len(found) >= maxUnconfirmed {
			break
		}
		e := &all[i]
		for n, o := range e.Tx.TxOut {
			if slices.Equal(o.PkScript, script) {
				at(e.ID, e.Added).Received += o.Value
				spend(wire.OutPoint{Hash: e.ID, Index: uint32(n)}, o.Value)
			}
		}
	}
	coins, _, err := x.Unspent(ctx, script, "", maxUnconfirmed)
	if err != nil {
		return nil, err
	}
	for _, c := range coins {
		spend(c.Out, c.Value)
	}
	out := make([]api.AddressTx, 0, len(found))
	for _, tx := range found {
		tx.Net = tx.Received - tx.Sent
		out = append(out, *tx)
	}
	slices.SortFunc(out, func(a, b api.AddressTx) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return slices.Compare([]byte(a.TxID), []byte(b.TxID))
	})
	return out, nil
}

// AddressTxs implements api.Explorer. The unconfirmed ones come first, on the first page,
// besides the limit.
func (f face) AddressTxs(ctx context.Context, text, cursor string, most int) (api.AddressTxs, error) {
	x, script, err := f.addressIndex(text)
	if err != nil {
		return api.AddressTxs{}, err
	}
	var out api.AddressTxs
	if cursor == "" {
		if out.Txs, err = f.unconfirmed(ctx, x, script); err != nil {
			return api.AddressTxs{}, indexError(err)
		}
	}
	rows, next, err := x.History(ctx, script, cursor, most)
	if err != nil {
		return api.AddressTxs{}, indexError(err)
	}
	tip, _ := f.chain.Tip()
	for i := range rows {
		r := &rows[i]
		tx := api.AddressTx{
			TxID: r.TxID.String(), Height: r.Height, BlockHash: r.Block.String(), Received: r.Received, Sent: r.Sent, Net: r.Received - r.Sent,
			Confirmations: max(1, tip.Height-r.Height+1),
		}
		if s, ok := f.chain.Status(r.Block); ok {
			tx.Time = s.Header.Timestamp.UTC()
		}
		out.Txs = append(out.Txs, tx)
	}
	out.Next = next
	return out, nil
}

// AddressCoins implements api.Explorer.
func (f face) AddressCoins(ctx context.Context, text, cursor string, most int) (api.AddressCoins, error) {
	x, script, err := f.addressIndex(text)
	if err != nil {
		return api.AddressCoins{}, err
	}
	coins, next, err := x.Unspent(ctx, script, cursor, most)
	if err != nil {
		return api.AddressCoins{}, indexError(err)
	}
	tip, _ := f.chain.Tip()
	out := api.AddressCoins{Next: next}
	for _, c := range coins {
		one := api.AddressCoin{
			TxID: c.Out.Hash.String(), VOut: c.Out.Index, Value: c.Value, Height: c.Height, Confirmations: max(1, tip.Height-c.Height+1), Coinbase: c.Coinbase,
		}
		if by, ok := f.pool.Spender(c.Out); ok {
			one.SpentBy = by.String()
		}
		out.UTXOs = append(out.UTXOs, one)
	}
	return out, nil
}
