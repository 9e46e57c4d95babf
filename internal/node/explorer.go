package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/index"
	"dunlin/chain/mempool"
	"dunlin/internal/address"
	"dunlin/internal/api"
)

const (
	// maxTreeNodes bounds what a picture of forks is made of.
	maxTreeNodes = 500
	// maxListedParts is how many inputs and outputs of a transaction a list shows.
	maxListedParts = 50
	// maxSpentLookups is of how many outputs it is looked up whether they are spent.
	maxSpentLookups = 5000
)

// hashOf reads a hash of the interface.
func hashOf(what, text string) (chainhash.Hash, error) {
	h, err := chainhash.NewHashFromStr(text)
	if err != nil || len(text) != 2*chainhash.HashSize {
		return chainhash.Hash{}, api.Errorf(http.StatusUnprocessableEntity, "%s %q: must be 64 hex digits", what, text)
	}
	return *h, nil
}

// readBlock reads and decodes a block; *api.Error if it is not on disk.
func (n *Node) readBlock(hash chainhash.Hash) (*consensus.Block, error) {
	raw, err := n.chain.Block(hash)
	if errors.Is(err, chain.ErrNotFound) {
		s, known := n.chain.Status(hash)
		switch {
		case !known:
			return nil, api.Errorf(http.StatusNotFound, "block %s is unknown", hash)
		case s.Pruned:
			return nil, api.Errorf(http.StatusNotFound, "block %s at height %d was pruned (storage.prune_mb)", hash, s.Height)
		}
		return nil, api.Errorf(http.StatusNotFound, "block %s at height %d is not on disk yet", hash, s.Height)
	}
	if err != nil {
		return nil, err
	}
	b, err := consensus.DecodeBlock(n.params, raw)
	if err != nil {
		return nil, fmt.Errorf("block %s on disk: %w", hash, err)
	}
	return b, nil
}

// spent is what the transactions of a block spend; nil if that is not on disk.
func (n *Node) spent(b *consensus.Block) ([][]consensus.Coin, error) {
	coins, err := n.chain.Spent(b)
	if errors.Is(err, chain.ErrNotFound) {
		return nil, nil
	}
	return coins, err
}

// summary describes a block that is on disk; what depends on the tip is asked for anew.
func (n *Node) summary(hash chainhash.Hash) (out api.BlockSummary, err error) {
	raw, known := n.summed.get(hash)
	s, ok := n.chain.Status(hash)
	if known && ok {
		out = summaryOf(hash, &s.Header)
		seal := unpackSummary(raw, &out)
		s.Header.Seal = seal
		out.BySlot = bySlot(n.params, &s.Header, s.Height)
	} else {
		b, err := n.readBlock(hash)
		if err != nil {
			return api.BlockSummary{}, err
		}
		if out, err = n.summarise(b); err != nil {
			return api.BlockSummary{}, err
		}
		// Without undo data a block may still be connected, and have them then.
		if out.Fees != nil && ok {
			n.summed.put(hash, packSummary(&out, b.Header.Seal))
		}
	}
	n.place(&out, hash)
	return out, nil
}

// place fills in what the header tree knows.
func (n *Node) place(out *api.BlockSummary, hash chainhash.Hash) {
	s, ok := n.chain.Status(hash)
	if !ok {
		out.Height = -1
		return
	}
	out.Height, out.Active, out.Work = s.Height, s.Active, hexWork(s.Work)
	if out.Subsidy = n.params.Subsidy(s.Height); s.Height == 0 {
		out.Subsidy = out.Reward // genesis makes what its coinbase says, and nobody can spend it
	}
	out.Confirmations = 0
	if s.Active {
		tip, _ := n.chain.Tip()
		out.Confirmations = max(1, tip.Height-s.Height+1)
	}
}

// headerSummary is what a header alone tells, with its seal if that is known to be right.
func (n *Node) headerSummary(hash chainhash.Hash, s *chain.NodeStatus) (api.BlockSummary, error) {
	h, err := n.sealed(hash, s)
	out := summaryOf(hash, h)
	out.BySlot = bySlot(n.params, h, s.Height)
	return out, err
}

func summaryOf(hash chainhash.Hash, h *consensus.Header) api.BlockSummary {
	return api.BlockSummary{
		Height: -1, Hash: hash.String(), PreviousHash: h.PrevBlock.String(), Time: h.Timestamp.UTC(),
		Bits: fmt.Sprintf("%08x", h.Bits), Difficulty: consensus.Difficulty(h.Bits),
	}
}

// summarise describes what never changes of a block.
func (n *Node) summarise(b *consensus.Block) (api.BlockSummary, error) {
	out := summaryOf(b.Hash, &b.Header)
	if s, ok := n.chain.Status(b.Hash); ok {
		out.BySlot = bySlot(n.params, &b.Header, s.Height)
	}
	out.Txs, out.Size, out.StrippedSize, out.Weight = len(b.Txs), len(b.Raw), b.StrippedSize, b.Weight
	out.Miner = strings.ToValidUTF8(consensus.CoinbaseText(b), "\ufffd")
	out.Data = strings.ToValidUTF8(consensus.CoinbaseData(b), "\ufffd")
	params := address.Params(n.params)
	for _, o := range b.Txs[0].MsgTx().TxOut {
		out.Reward += o.Value
		if a, ok := address.Of(o.PkScript, params); ok && o.Value > 0 && out.MinerAddress == "" {
			out.MinerAddress = a
		}
	}
	spent, err := n.spent(b)
	if err != nil || spent == nil {
		return out, err
	}
	var fees int64
	var weight int
	for i, tx := range b.Txs {
		if i == 0 {
			continue
		}
		fees += feeOf(tx.MsgTx(), spent[i])
		weight += weightOf(tx.MsgTx())
	}
	out.Fees = &fees
	if others := int64(len(b.Txs) - 1); others > 0 {
		each, rate := fees/others, rateOf(fees, weight)
		out.AvgFee, out.AvgFeeRate = &each, &rate
	}
	return out, nil
}

func feeOf(tx *wire.MsgTx, spent []consensus.Coin) (fee int64) {
	for i := range spent {
		fee += spent[i].Value
	}
	for _, o := range tx.TxOut {
		fee -= o.Value
	}
	return fee
}

// weightOf is BIP141's.
func weightOf(tx *wire.MsgTx) int { return 3*tx.SerializeSizeStripped() + tx.SerializeSize() }

// rateOf is a fee rate in satoshi per 1000 virtual bytes.
func rateOf(fee int64, weight int) int64 {
	return int64(float64(fee) * 4000 / float64(max(1, weight)))
}

// Summaries implements api.Explorer.
func (f face) Summaries(ctx context.Context, from string, most int) ([]api.BlockSummary, error) {
	tip, _ := f.chain.Tip()
	hash := tip.Hash
	if from != "" {
		var err error
		if hash, err = hashOf("block", from); err != nil {
			return nil, err
		}
	}
	var out []api.BlockSummary
	for len(out) < most {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b, err := f.summary(hash)
		if e, ok := errors.AsType[*api.Error](err); ok && e.Status == http.StatusNotFound {
			// Pruned: what is left is the header.
			s, known := f.chain.Status(hash)
			if !known {
				return nil, err
			}
			if b, err = f.headerSummary(hash, &s); err != nil {
				return nil, err
			}
			b.Txs = s.Txs
			f.place(&b, hash)
		} else if err != nil {
			return nil, err
		}
		out = append(out, b)
		if b.Height <= 0 {
			break
		}
		if hash, err = hashOf("block", b.PreviousHash); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// headerStatus is the word for what is known of a header that need not be a leaf.
func headerStatus(s *chain.NodeStatus) string {
	switch {
	case s.Active:
		return "active"
	case s.Invalid:
		return "invalid"
	case s.Valid:
		return "valid-fork"
	case s.HaveBlock:
		return "valid-headers"
	}
	return "headers-only"
}

// BlockDetails implements api.Explorer.
func (f face) BlockDetails(_ context.Context, text string) (api.BlockDetails, error) {
	hash, err := hashOf("block", text)
	if err != nil {
		return api.BlockDetails{}, err
	}
	s, ok := f.chain.Status(hash)
	if !ok {
		return api.BlockDetails{}, api.Errorf(http.StatusNotFound, "block %s is unknown", hash)
	}
	out := api.BlockDetails{
		MerkleRoot: s.Header.MerkleRoot.String(), Version: s.Header.Version, Nonce: s.Header.Nonce,
		Status: headerStatus(&s), HaveBlock: s.HaveBlock, Pruned: s.Pruned,
	}
	if s.HaveBlock {
		out.BlockSummary, err = f.summary(hash)
		if e, gone := errors.AsType[*api.Error](err); gone && e.Status == http.StatusNotFound { // pruned meanwhile
			out.HaveBlock, err = false, nil
		}
		if err != nil {
			return api.BlockDetails{}, err
		}
	}
	if !out.HaveBlock {
		if out.BlockSummary, err = f.headerSummary(hash, &s); err != nil {
			return api.BlockDetails{}, err
		}
		out.Txs = s.Txs
		f.place(&out.BlockSummary, hash)
	}
	if past, ok := f.chain.Past(s.Header.PrevBlock); ok && out.Stake != nil {
		h, err := f.sealed(hash, &s)
		if err != nil {
			return api.BlockDetails{}, err
		}
		out.Modifier, out.Kernel = kernelOf(f.params, past, h)
	}
	if past, ok := f.chain.Past(hash); ok {
		out.MedianTime = time.Unix(consensus.MedianTimePast(past), 0).UTC()
	}
	if s.Active {
		if next, ok := f.chain.HashAt(s.Height + 1); ok {
			out.NextHash = next.String()
		}
	}
	return out, nil
}

// BlockTxs implements api.Explorer.
func (f face) BlockTxs(ctx context.Context, text string, first, most int) (api.BlockTxs, error) {
	hash, err := hashOf("block", text)
	if err != nil {
		return api.BlockTxs{}, err
	}
	b, err := f.readBlock(hash)
	if err != nil {
		return api.BlockTxs{}, err
	}
	spent, err := f.spent(b)
	if err != nil {
		return api.BlockTxs{}, err
	}
	at := f.within(b)
	out := api.BlockTxs{BlockHash: hash.String(), Height: at.height, Total: len(b.Txs)}
	for i := first; i < len(b.Txs) && len(out.Txs) < most; i++ {
		if err := ctx.Err(); err != nil {
			return api.BlockTxs{}, err
		}
		out.Txs = append(out.Txs, f.blockTx(b, i, spent, at, maxListedParts))
	}
	return out, nil
}

// A location is where a block stands.
type location struct {
	height        int32
	confirmations int32 // 0: not on the active chain
}

func (n *Node) within(b *consensus.Block) location {
	at := location{height: -1}
	if s, ok := n.chain.Status(b.Hash); ok {
		at.height = s.Height
		if s.Active {
			tip, _ := n.chain.Tip()
			at.confirmations = max(1, tip.Height-s.Height+1)
		}
	}
	return at
}

// blockTx describes transaction i of a block; spent is what the block spends, nil if
// that is not known.
func (n *Node) blockTx(b *consensus.Block, i int, spent [][]consensus.Coin, at location, most int) api.TxDetails {
	tx := b.Txs[i].MsgTx()
	var coins []consensus.Coin
	if spent != nil {
		coins = spent[i]
	}
	out := n.describeTx(tx, coins, most)
	out.Time, out.BlockHash, out.Height, out.Index, out.Confirmations = b.Header.Timestamp.UTC(), b.Hash.String(), at.height, i, at.confirmations
	if out.Status = api.TxConfirmed; at.confirmations == 0 {
		out.Status = api.TxStale
	}
	if out.Coinbase = i == 0; i > 0 && spent != nil {
		fee := feeOf(tx, coins)
		rate := rateOf(fee, out.Weight)
		out.Fee, out.FeeRate = &fee, &rate
	}
	if i == 0 && len(out.Inputs) > 0 {
		in := &out.Inputs[0]
		in.Coinbase, in.ScriptSig, in.TxID = in.ScriptSig, "", ""
	}
	return out
}

// describeTx describes what a transaction alone and the coins that it spends say; coins
// is nil if they are not known. Up to most inputs and outputs are shown.
func (n *Node) describeTx(tx *wire.MsgTx, coins []consensus.Coin, most int) api.TxDetails {
	weight := weightOf(tx)
	out := api.TxDetails{
		TxID: tx.TxHash().String(), WTxID: tx.WitnessHash().String(), Version: tx.Version, LockTime: tx.LockTime,
		Size: tx.SerializeSize(), Weight: weight, VSize: (weight + 3) / 4, Height: -1, Index: -1, Parents: []string{},
		InputsTotal: len(tx.TxIn), Inputs: []api.TxInput{}, OutputsTotal: len(tx.TxOut), Outputs: []api.TxOutput{},
	}
	params := address.Params(n.params)
	for i, in := range tx.TxIn[:min(most, len(tx.TxIn))] {
		v := api.TxInput{
			TxID: in.PreviousOutPoint.Hash.String(), VOut: in.PreviousOutPoint.Index, Sequence: in.Sequence,
			ScriptSig: hex.EncodeToString(in.SignatureScript), Witness: []string{},
		}
		for _, item := range in.Witness {
			v.Witness = append(v.Witness, hex.EncodeToString(item))
		}
		if i < len(coins) {
			c := &coins[i]
			v.Prevout = &api.Prevout{Value: c.Value, Type: address.Kind(c.Script), Script: hex.EncodeToString(c.Script), Height: c.Height, Coinbase: c.Coinbase}
			v.Prevout.Address, _ = address.Of(c.Script, params)
		}
		out.Inputs = append(out.Inputs, v)
	}
	for i, o := range tx.TxOut[:min(most, len(tx.TxOut))] {
		v := api.TxOutput{N: i, Value: o.Value, Type: address.Kind(o.PkScript), Script: hex.EncodeToString(o.PkScript)}
		v.Address, _ = address.Of(o.PkScript, params)
		out.Outputs = append(out.Outputs, v)
	}
	return out
}

// Tree implements api.Explorer.
func (f face) Tree(depth int) api.Tree {
	tip, _ := f.chain.Tip()
	out := api.Tree{Tip: tip.Hash.String(), FromHeight: max(0, tip.Height-int32(depth)+1), ToHeight: tip.Height, Nodes: []api.TreeNode{}}
	seen := make(map[chainhash.Hash]bool)
	for _, leaf := range f.chain.Tips() { // the active one first, then the highest
		hash, isTip := leaf.Tip.Hash, true
		if highest := tip.Height + int32(depth); leaf.Tip.Height > highest { // headers run ahead in a sync
			var ok bool
			if hash, ok = f.chain.Ancestor(hash, highest); !ok {
				continue
			}
			isTip = false
		}
		for !seen[hash] {
			s, ok := f.chain.Status(hash)
			if !ok || s.Height < out.FromHeight {
				break
			}
			if len(out.Nodes) == maxTreeNodes {
				out.Truncated = true
				break
			}
			seen[hash] = true
			out.ToHeight = max(out.ToHeight, s.Height)
			out.Nodes = append(out.Nodes, api.TreeNode{
				Hash: hash.String(), PreviousHash: s.Header.PrevBlock.String(), Height: s.Height, Time: s.Header.Timestamp.UTC(),
				Status: headerStatus(&s), HaveBlock: s.HaveBlock, Tip: isTip,
			})
			hash, isTip = s.Header.PrevBlock, false
		}
	}
	slices.SortStableFunc(out.Nodes, func(a, b api.TreeNode) int {
		if a.Height != b.Height {
			return int(a.Height - b.Height)
		}
		return rank(a.Status) - rank(b.Status)
	})
	return out
}

func rank(status string) int {
	return slices.Index([]string{"active", "valid-fork", "valid-headers", "headers-only", "invalid"}, status)
}

// TxDetails implements api.Explorer.
func (f face) TxDetails(_ context.Context, text, block string) (api.TxDetails, error) {
	id, err := hashOf("transaction id", text)
	if err != nil {
		return api.TxDetails{}, err
	}
	if block != "" {
		hash, err := hashOf("block", block)
		if err != nil {
			return api.TxDetails{}, err
		}
		return f.txOfBlock(id, hash)
	}
	if e, ok := f.pool.Get(id); ok {
		return f.poolTx(&e)
	}
	hash, ok, err := f.findTx(id)
	if err != nil {
		return api.TxDetails{}, err
	}
	if !ok {
		return api.TxDetails{}, f.notFound(id)
	}
	return f.txOfBlock(id, hash)
}

// findTx finds the block that has a transaction: of the active chain by an output that is
// not spent, else, with the transaction index, any.
func (n *Node) findTx(id chainhash.Hash) (block chainhash.Hash, ok bool, err error) {
	for i := range uint32(maxTxOutputs) {
		coin, unspent, err := n.chain.Coin(wire.OutPoint{Hash: id, Index: i})
		if errors.Is(err, chain.ErrBusy) {
			return block, false, api.Errorf(http.StatusServiceUnavailable, "a deep reorganisation is under way, ask again")
		}
		if err != nil {
			return block, false, err
		}
		if unspent {
			block, ok = n.chain.HashAt(coin.Height)
			return block, ok, nil
		}
	}
	if x := n.indexes[index.Txs]; x != nil {
		p, ok, err := x.Tx(id)
		return p.Block, ok, err
	}
	return block, false, nil
}

func (n *Node) txOfBlock(id, block chainhash.Hash) (api.TxDetails, error) {
	b, err := n.readBlock(block)
	if err != nil {
		return api.TxDetails{}, err
	}
	i := slices.IndexFunc(b.Txs, func(tx *btcutil.Tx) bool { return *tx.Hash() == id })
	if i < 0 {
		return api.TxDetails{}, api.Errorf(http.StatusNotFound, "block %s has no transaction %s", block, id)
	}
	spent, err := n.spent(b)
	if err != nil {
		return api.TxDetails{}, err
	}
	tx := b.Txs[i].MsgTx()
	out := n.blockTx(b, i, spent, n.within(b), len(tx.TxIn)+len(tx.TxOut))
	out.Hex = hex.EncodeToString(consensus.AppendTx(nil, tx))
	if out.Status != api.TxConfirmed {
		return out, nil
	}
	return out, n.markSpent(&out, id, tx)
}

// markSpent says of each output whether it is spent.
func (n *Node) markSpent(out *api.TxDetails, id chainhash.Hash, tx *wire.MsgTx) error {
	for k := range out.Outputs[:min(len(out.Outputs), maxSpentLookups)] {
		if txscript.IsUnspendable(tx.TxOut[k].PkScript) {
			continue
		}
		op := wire.OutPoint{Hash: id, Index: uint32(k)}
		by, spent := n.pool.Spender(op)
		if spent {
			out.Outputs[k].SpentBy = by.String()
		} else if out.Status == api.TxConfirmed {
			_, unspent, err := n.chain.Coin(op)
			if errors.Is(err, chain.ErrBusy) {
				return nil // left unknown
			}
			if err != nil {
				return err
			}
			spent = !unspent
		}
		out.Outputs[k].Spent = &spent
	}
	return nil
}

// poolTx describes an entry of the mempool.
func (n *Node) poolTx(e *mempool.Entry) (api.TxDetails, error) {
	coins := make([]consensus.Coin, len(e.Tx.TxIn))
	for i, in := range e.Tx.TxIn {
		op := in.PreviousOutPoint
		if p, ok := n.pool.Get(op.Hash); ok && int64(op.Index) < int64(len(p.Tx.TxOut)) {
			o := p.Tx.TxOut[op.Index]
			coins[i] = consensus.Coin{Value: o.Value, Script: o.PkScript, Height: -1}
			continue
		}
		c, ok, err := n.chain.Coin(op)
		if err != nil && !errors.Is(err, chain.ErrBusy) {
			return api.TxDetails{}, err
		}
		if !ok || err != nil { // mined a moment ago, say
			coins = nil
			break
		}
		coins[i] = c
	}
	out := n.describeTx(e.Tx, coins, len(e.Tx.TxIn)+len(e.Tx.TxOut))
	rate := rateOf(e.Fee, int(e.FeeWeight()))
	out.Status, out.Time, out.Fee, out.FeeRate = api.TxInMempool, e.Added.UTC(), &e.Fee, &rate
	out.Hex = hex.EncodeToString(consensus.AppendTx(nil, e.Tx))
	for _, p := range e.Parents {
		out.Parents = append(out.Parents, p.String())
	}
	return out, n.markSpent(&out, e.ID, e.Tx)
}

// Search implements api.Explorer.
func (f face) Search(_ context.Context, q string) ([]api.SearchResult, error) {
	q = strings.TrimSpace(q)
	var out []api.SearchResult
	if height, err := strconv.ParseUint(strings.ReplaceAll(q, ",", ""), 10, 31); err == nil {
		if hash, ok := f.chain.HashAt(int32(height)); ok {
			out = append(out, api.SearchResult{Kind: api.FoundBlock, ID: hash.String(), Height: int32(height), Detail: fmt.Sprintf("block %d of the active chain", height)})
		}
	}
	if len(q) == 2*chainhash.HashSize {
		if hash, err := hashOf("hash", q); err == nil {
			found, err := f.searchHash(hash)
			if err != nil {
				return nil, err
			}
			return append(out, found...), nil
		}
	}
	if _, err := address.Decode(q, address.Params(f.params)); err == nil {
		out = append(out, api.SearchResult{Kind: api.FoundAddress, ID: q, Height: -1, Detail: "address of network " + f.params.Name})
	}
	for _, c := range f.connected() {
		if c.id.String() == q {
			out = append(out, api.SearchResult{Kind: api.FoundPeer, ID: q, Height: -1, Detail: "connected peer at " + c.addr.String()})
		}
	}
	return out, nil
}

// searchHash says what a hash is.
func (f face) searchHash(hash chainhash.Hash) (out []api.SearchResult, err error) {
	if s, ok := f.chain.Status(hash); ok {
		detail := fmt.Sprintf("block %d of the active chain", s.Height)
		if !s.Active {
			detail = fmt.Sprintf("block %d of another branch: %s", s.Height, headerStatus(&s))
		}
		out = append(out, api.SearchResult{Kind: api.FoundBlock, ID: hash.String(), Height: s.Height, Detail: detail})
	}
	tx := api.SearchResult{Kind: api.FoundTx, ID: hash.String(), Height: -1}
	if f.pool.Have(hash) {
		tx.Detail = "transaction of the mempool"
		return append(out, tx), nil
	}
	block, ok, err := f.findTx(hash)
	if e, busy := errors.AsType[*api.Error](err); busy && e.Status == http.StatusServiceUnavailable {
		return out, nil // what is found besides stays so
	}
	if err != nil {
		return nil, err
	}
	if ok {
		tx.Detail = "transaction of block " + block.String()
		if s, ok := f.chain.Status(block); ok {
			tx.Detail = fmt.Sprintf("transaction of block %d", s.Height)
		}
		out = append(out, tx)
	} else if fate, ok := f.pool.Fate(hash); ok {
		tx.Detail = "transaction that was dropped: " + fate.Cause.String()
		out = append(out, tx)
	}
	return out, nil
}

// Storage implements api.Explorer.
func (f face) Storage() (api.Storage, error) {
	u, err := f.chain.DiskUse()
	if err != nil {
		return api.Storage{}, err
	}
	lowest := f.chain.Lowest()
	out := api.Storage{
		Home: f.c.Home, BlocksBytes: u.Blocks, BlockFiles: u.BlockFiles, UndoBytes: u.Undo, IndexBytes: u.Index, FreeBytes: int64(u.Free),
		LowDisk: f.chain.LowDisk(), Pruned: lowest > 0, PrunedBelow: lowest, PruneTargetBytes: int64(f.c.Storage.PruneMB) << 20,
	}
	if info, err := os.Stat(filepath.Join(f.c.Home, poolFile)); err == nil {
		out.MempoolFileBytes = info.Size()
	}
	if x := f.indexes[index.Txs]; x != nil {
		out.TxIndexBytes = x.Status().Bytes
	}
	if x := f.indexes[index.Addresses]; x != nil {
		out.AddressIndexBytes = x.Status().Bytes
	}
	out.TotalBytes = out.BlocksBytes + out.UndoBytes + out.IndexBytes + out.TxIndexBytes + out.AddressIndexBytes + out.MempoolFileBytes
	return out, nil
}
