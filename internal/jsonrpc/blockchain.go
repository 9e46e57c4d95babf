package jsonrpc

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"net/http"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/internal/api"
)

var chainMethods = []method{
	{name: "getbestblockhash", help: "Hash of the tip.", run: func(c *call) (any, error) {
		tip, _ := c.o.Chain.Tip()
		return tip.Hash.String(), nil
	}},
	{name: "getblockcount", help: "Height of the tip.", run: func(c *call) (any, error) {
		tip, _ := c.o.Chain.Tip()
		return tip.Height, nil
	}},
	{name: "getblockhash", params: "height", help: "Hash of the block at a height of the active chain.", run: getBlockHash},
	{name: "getblock", params: "blockhash verbosity|verbose?", help: "A block: 0 in hex, 1 with transaction ids, 2 with transactions, 3 with what they spend.", run: getBlock},
	{name: "getblockheader", params: "blockhash verbose?", help: "A block's header.", run: getBlockHeader},
	{name: "getblockchaininfo", help: "State of the chain.", run: getBlockchainInfo},
	{name: "getchaintips", help: "Leaves of the header tree.", run: getChainTips},
	{name: "getdifficulty", help: "Difficulty of the tip.", run: func(c *call) (any, error) {
		tip, _ := c.o.Chain.Tip()
		return consensus.Difficulty(tip.Bits), nil
	}},
	{name: "gettxout", params: "txid n include_mempool?", help: "An unspent output, or null.", run: getTxOut},
	{name: "getindexinfo", params: "index_name?", help: "State of the optional indexes: txindex and addressindex.", run: getIndexInfo},
	{name: "scantxoutset", params: "action scanobjects?", help: "Finds the unspent outputs of addr() and raw() descriptors by reading all: start, status or abort.", run: scanTxOutSet},
	{name: "gettxoutsetinfo", params: "hash_type?", help: "Statistics of all unspent outputs, read from disk. hash_type: hash_serialized_3 or none.", run: getTxOutSetInfo},
	{name: "invalidateblock", params: "blockhash", help: "Takes a block, and all that builds on it, out of the chain.", run: func(c *call) (any, error) {
		return mark(c, c.o.Node.Invalidate)
	}},
	{name: "reconsiderblock", params: "blockhash", help: "Takes an invalidateblock back.", run: func(c *call) (any, error) {
		return mark(c, c.o.Node.Reconsider)
	}},
	{name: "getmempoolinfo", help: "State of the mempool.", run: getMempoolInfo},
	{name: "getrawmempool", params: "verbose? mempool_sequence?", help: "Transactions of the mempool.", run: getRawMempool},
	{name: "getmempoolentry", params: "txid", help: "One transaction of the mempool.", run: getMempoolEntry},
	{name: "getmempoolancestors", params: "txid verbose?", help: "Unconfirmed transactions that one depends on.", run: func(c *call) (any, error) {
		return getRelatives(c, (*poolView).ancestors)
	}},
	{name: "getmempooldescendants", params: "txid verbose?", help: "Unconfirmed transactions that depend on one.", run: func(c *call) (any, error) {
		return getRelatives(c, (*poolView).descendants)
	}},
}

// hashArg is argument i as a block or transaction id.
func hashArg(c *call, i int) (chainhash.Hash, error) {
	text, err := arg(c, i, "")
	if err != nil {
		return chainhash.Hash{}, err
	}
	return parseHash(c.method.names()[i], text)
}

func parseHash(name, text string) (chainhash.Hash, error) {
	if len(text) != 2*chainhash.HashSize {
		return chainhash.Hash{}, fault(codeInvalidParameter, "%s must be of length %d (not %d, for '%s')", name, 2*chainhash.HashSize, len(text), clip(text))
	}
	h, err := chainhash.NewHashFromStr(text)
	if err != nil {
		return chainhash.Hash{}, fault(codeInvalidParameter, "%s must be hexadecimal string (not '%s')", name, clip(text))
	}
	return *h, nil
}

func mark(c *call, do func(ctx context.Context, hash string) error) (any, error) {
	h, err := hashArg(c, 0)
	if err != nil {
		return nil, err
	}
	err = do(c.ctx, h.String())
	if e, ok := errors.AsType[*api.Error](err); ok && e.Status == http.StatusNotFound {
		return nil, fault(codeInvalidAddress, "Block not found")
	}
	return nil, err
}

func getBlockHash(c *call) (any, error) {
	height, err := arg(c, 0, int32(0))
	if err != nil {
		return nil, err
	}
	h, ok := c.o.Chain.HashAt(height)
	if !ok {
		return nil, fault(codeInvalidParameter, "Block height out of range")
	}
	return h.String(), nil
}

func bitsHex(bits uint32) string { return fmt.Sprintf("%08x", bits) }

func targetHex(bits uint32) string { return fmt.Sprintf("%064x", blockchain.CompactToBig(bits)) }

// workHex is work as Core writes it: 64 digits.
func workHex(w *big.Int) string { return fmt.Sprintf("%064x", w) }

// headerInfo is getblockheader's answer, and the beginning of getblock's.
type headerInfo struct {
	Hash          string  `json:"hash"`
	Confirmations int32   `json:"confirmations"`
	Height        int32   `json:"height"`
	Version       int32   `json:"version"`
	VersionHex    string  `json:"versionHex"`
	MerkleRoot    string  `json:"merkleroot"`
	Time          int64   `json:"time"`
	MedianTime    int64   `json:"mediantime"`
	Nonce         uint32  `json:"nonce"`
	Bits          string  `json:"bits"`
	Target        string  `json:"target"`
	Difficulty    float64 `json:"difficulty"`
	ChainWork     string  `json:"chainwork"`
	Txs           int     `json:"nTx"`
	Previous      string  `json:"previousblockhash,omitempty"`
	Next          string  `json:"nextblockhash,omitempty"`

	*stakeInfo
}

func (h *Handler) headerInfo(hash chainhash.Hash) (headerInfo, error) {
	s, ok := h.o.Chain.Status(hash)
	if !ok {
		return headerInfo{}, fault(codeInvalidAddress, "Block not found")
	}
	hd := &s.Header
	out := headerInfo{
		Hash: hash.String(), Confirmations: -1, Height: s.Height, Version: hd.Version, VersionHex: fmt.Sprintf("%08x", uint32(hd.Version)),
		MerkleRoot: hd.MerkleRoot.String(), Time: hd.Timestamp.Unix(), Nonce: hd.Nonce, Bits: bitsHex(hd.Bits),
		Target: targetHex(hd.Bits), Difficulty: consensus.Difficulty(hd.Bits), ChainWork: workHex(s.Work), Txs: s.Txs,
	}
	if past, ok := h.o.Chain.Past(hash); ok {
		out.MedianTime = consensus.MedianTimePast(past)
	}
	if s.Height > 0 {
		out.Previous = hd.PrevBlock.String()
	}
	if s.Active {
		tip, _ := h.o.Chain.Tip()
		out.Confirmations = max(1, tip.Height-s.Height+1)
		if next, ok := h.o.Chain.HashAt(s.Height + 1); ok {
			out.Next = next.String()
		}
	}
	var err error
	out.stakeInfo, err = h.stakeInfo(hash, &s)
	return out, err
}

func getBlockHeader(c *call) (any, error) {
	hash, err := hashArg(c, 0)
	if err != nil {
		return nil, err
	}
	verbose, err := arg(c, 1, true)
	if err != nil {
		return nil, err
	}
	info, err := c.headerInfo(hash)
	if err != nil || verbose {
		return info, err
	}
	s, _ := c.o.Chain.Status(hash)
	if s.Header.Seal, err = c.o.Chain.Seal(hash); err != nil { // a part of it
		return nil, err
	}
	return hex.EncodeToString(consensus.AppendHeader(nil, &s.Header)), nil
}

// rawBlock reads a block that getblock is asked for.
func (h *Handler) rawBlock(hash chainhash.Hash) ([]byte, error) {
	raw, err := h.o.Chain.Block(hash)
	if !errors.Is(err, chain.ErrNotFound) {
		return raw, err
	}
	s, known := h.o.Chain.Status(hash)
	switch {
	case !known:
		return nil, fault(codeInvalidAddress, "Block not found")
	case s.Pruned:
		return nil, fault(codeMisc, "Block not available (pruned data)")
	}
	return nil, fault(codeMisc, "Block not available (not fully downloaded)")
}

// verbosityArg is argument i as a number, or as the bool that it once was.
func verbosityArg(c *call, i, def int) (int, error) {
	if !c.has(i) {
		return def, nil
	}
	var yes bool
	if json.Unmarshal(c.args[i], &yes) == nil {
		if yes {
			return 1, nil
		}
		return 0, nil
	}
	return arg(c, i, def)
}

func getBlock(c *call) (any, error) {
	hash, err := hashArg(c, 0)
	if err != nil {
		return nil, err
	}
	verbosity, err := verbosityArg(c, 1, 1)
	if err != nil {
		return nil, err
	}
	raw, err := c.rawBlock(hash)
	if err != nil {
		return nil, err
	}
	if verbosity <= 0 {
		return hex.EncodeToString(raw), nil
	}
	b, err := consensus.DecodeBlock(c.params, raw)
	if err != nil {
		return nil, fmt.Errorf("block %s on disk: %w", hash, err)
	}
	out := struct {
		headerInfo

		StrippedSize int   `json:"strippedsize"`
		Size         int   `json:"size"`
		Weight       int   `json:"weight"`
		Tx           []any `json:"tx"`
	}{StrippedSize: b.StrippedSize, Size: len(b.Raw), Weight: b.Weight, Tx: make([]any, len(b.Txs))}
	if out.headerInfo, err = c.headerInfo(hash); err != nil {
		return nil, err
	}
	out.Txs = len(b.Txs) // the tree knows it only of connected ones
	if verbosity == 1 {
		for i, tx := range b.Txs {
			out.Tx[i] = tx.Hash().String()
		}
		return out, nil
	}
	spent, err := c.o.Chain.Spent(b)
	if err != nil && !errors.Is(err, chain.ErrNotFound) {
		return nil, err // without undo data Core leaves fees and prevouts out, and so do we
	}
	for i, tx := range b.Txs {
		if c.ctx.Err() != nil {
			return nil, c.ctx.Err()
		}
		d, err := c.describeTx(tx.MsgTx(), true)
		if err != nil {
			return nil, err
		}
		if i > 0 && spent != nil {
			c.addSpent(d, tx.MsgTx(), spent[i], verbosity >= 3)
		}
		out.Tx[i] = d
	}
	return out, nil
}

// addSpent adds the fee, and with prevouts what each input spends.
func (h *Handler) addSpent(d *rawTx, tx *wire.MsgTx, spent []consensus.Coin, prevouts bool) {
	var fee int64
	for i := range spent {
		fee += spent[i].Value
		if prevouts {
			d.In[i].Prevout = &prevout{spent[i].Coinbase, spent[i].Height, amount(spent[i].Value), h.describeScript(spent[i].Script)}
		}
	}
	for _, o := range tx.TxOut {
		fee -= o.Value
	}
	f := amount(fee)
	d.Fee = &f
}

// chainName is Core's name of a network, or ours if Core has none.
func chainName(name string) string {
	if name == "bitcoin" {
		return "main"
	}
	return name
}

func getBlockchainInfo(c *call) (any, error) {
	tip, _ := c.o.Chain.Tip()
	best, _ := c.o.Chain.BestHeader()
	st := c.o.Node.Status()
	lowest := c.o.Chain.Lowest()
	out := struct {
		Chain       string   `json:"chain"`
		Blocks      int32    `json:"blocks"`
		Headers     int32    `json:"headers"`
		Best        string   `json:"bestblockhash"`
		Bits        string   `json:"bits"`
		Target      string   `json:"target"`
		Difficulty  float64  `json:"difficulty"`
		Time        int64    `json:"time"`
		MedianTime  int64    `json:"mediantime"`
		Progress    float64  `json:"verificationprogress"`
		IBD         bool     `json:"initialblockdownload"`
		ChainWork   string   `json:"chainwork"`
		SizeOnDisk  int64    `json:"size_on_disk"`
		Pruned      bool     `json:"pruned"`
		PruneHeight int32    `json:"pruneheight,omitempty"`
		Supply      *amount  `json:"moneysupply,omitempty"`
		Warnings    []string `json:"warnings"`
	}{
		Chain: chainName(c.params.Name), Blocks: tip.Height, Headers: best.Height, Best: tip.Hash.String(),
		Bits: bitsHex(tip.Bits), Target: targetHex(tip.Bits), Difficulty: consensus.Difficulty(tip.Bits),
		Time: tip.Time.Unix(), MedianTime: tip.MedianTime.Unix(), Progress: st.Sync.Percent / 100,
		IBD: st.Sync.State != api.StateSynced && st.Sync.State != api.StateConnecting, ChainWork: workHex(tip.Work),
		SizeOnDisk: c.o.Chain.SizeOnDisk(), Pruned: lowest > 0, PruneHeight: lowest, Supply: c.moneySupply(tip.Height), Warnings: c.warnings(),
	}
	return out, nil
}

func (h *Handler) warnings() []string {
	if w := h.o.Warnings(); w != nil {
		return w
	}
	return []string{}
}

func getChainTips(c *call) (any, error) {
	type tip struct {
		Height int32  `json:"height"`
		Hash   string `json:"hash"`
		Branch int32  `json:"branchlen"`
		Status string `json:"status"`
	}
	out := []tip{}
	for _, t := range c.o.Chain.Tips() {
		out = append(out, tip{t.Tip.Height, t.Tip.Hash.String(), t.Branch, t.Status})
	}
	return out, nil
}

func getTxOut(c *call) (any, error) {
	id, err := hashArg(c, 0)
	if err != nil {
		return nil, err
	}
	n, err := arg(c, 1, uint32(0))
	if err != nil {
		return nil, err
	}
	pool, err := arg(c, 2, true)
	if err != nil {
		return nil, err
	}
	out := struct {
		Best          string       `json:"bestblock"`
		Confirmations int32        `json:"confirmations"`
		Value         amount       `json:"value"`
		Script        scriptPubKey `json:"scriptPubKey"`
		Coinbase      bool         `json:"coinbase"`
	}{}
	op := wire.OutPoint{Hash: id, Index: n}
	tip, _ := c.o.Chain.Tip()
	out.Best = tip.Hash.String()
	if pool {
		if _, spent := c.o.Pool.Spender(op); spent {
			return nil, nil //nolint:nilnil // null is the answer
		}
		if e, ok := c.o.Pool.Get(id); ok {
			if int64(n) >= int64(len(e.Tx.TxOut)) {
				return nil, nil //nolint:nilnil // as above
			}
			o := e.Tx.TxOut[n]
			out.Value, out.Script = amount(o.Value), c.describeScript(o.PkScript)
			return out, nil
		}
	}
	coin, ok, err := c.o.Chain.Coin(op)
	if err != nil || !ok {
		return nil, err
	}
	out.Confirmations = max(1, tip.Height-coin.Height+1)
	out.Value, out.Script, out.Coinbase = amount(coin.Value), c.describeScript(coin.Script), coin.Coinbase
	return out, nil
}

// coinHash is Core's hash_serialized_3: the double SHA-256 of all coins.
type coinHash struct {
	h   hash.Hash
	buf []byte
}

func (s *coinHash) add(op wire.OutPoint, coin consensus.Coin) {
	b := append(s.buf[:0], op.Hash[:]...)
	b = binary.LittleEndian.AppendUint32(b, op.Index)
	code := uint32(coin.Height) << 1
	if coin.Coinbase {
		code |= 1
	}
	b = binary.LittleEndian.AppendUint32(b, code)
	b = binary.LittleEndian.AppendUint64(b, uint64(coin.Value))
	switch n := len(coin.Script); {
	case n < 0xfd:
		b = append(b, byte(n))
	default: // no script has 65,536 bytes
		b = binary.LittleEndian.AppendUint16(append(b, 0xfd), uint16(n))
	}
	s.buf = append(b, coin.Script...)
	s.h.Write(s.buf)
}

func (s *coinHash) sum() string {
	h := chainhash.Hash(sha256.Sum256(s.h.Sum(nil)))
	return h.String()
}

func getTxOutSetInfo(c *call) (any, error) {
	kind, err := arg(c, 0, "hash_serialized_3")
	if err != nil {
		return nil, err
	}
	if kind != "hash_serialized_3" && kind != "none" {
		return nil, fault(codeInvalidParameter, "'%s' is not a valid hash_type: hash_serialized_3 or none", clip(kind))
	}
	c.leave() // it may take minutes, and others need not wait
	select {
	case c.scan <- struct{}{}:
	case <-c.ctx.Done():
		return nil, c.ctx.Err()
	}
	defer func() { <-c.scan }()
	out := struct {
		Height       int32  `json:"height"`
		Best         string `json:"bestblock"`
		TxOuts       int64  `json:"txouts"`
		BogoSize     int64  `json:"bogosize"`
		Hash         string `json:"hash_serialized_3,omitempty"`
		Total        amount `json:"total_amount"`
		Transactions int64  `json:"transactions"`
		DiskSize     int64  `json:"disk_size"`
	}{}
	sum := coinHash{h: sha256.New()}
	var last chainhash.Hash
	tip, err := c.o.Chain.Coins(c.ctx, func(op wire.OutPoint, coin consensus.Coin) error {
		if out.TxOuts == 0 || op.Hash != last {
			out.Transactions++
			last = op.Hash
		}
		out.TxOuts++
		out.Total += amount(coin.Value)
		out.BogoSize += int64(32 + 4 + 4 + 8 + 2 + len(coin.Script))
		if kind != "none" {
			sum.add(op, coin)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Height, out.Best, out.DiskSize = tip.Height, tip.Hash.String(), c.o.Chain.SizeOnDisk()
	if kind != "none" {
		out.Hash = sum.sum()
	}
	return out, nil
}
