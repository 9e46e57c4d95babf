package jsonrpc

import (
	"encoding/hex"
	"errors"
	"strings"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
	"dunlin/internal/address"
)

var txMethods = []method{
	{name: "decoderawtransaction", params: "hexstring iswitness?", help: "Shows a transaction.", run: decodeRawTransaction},
	{name: "decodescript", params: "hexstring", help: "Shows a script, and the addresses that stand for its hash.", run: decodeScript},
	{name: "getrawtransaction", params: "txid verbosity|verbose? blockhash?", help: "A transaction of the mempool, of a named block, with an unspent output, or, with storage.tx_index, any: 0 in hex, 1 shown, 2 with what it spends.", run: getRawTransaction},
	{name: "sendrawtransaction", params: "hexstring maxfeerate? maxburnamount?", help: "Hands a transaction in.", run: sendRawTransaction},
	{name: "testmempoolaccept", params: "rawtxs maxfeerate?", help: "Says whether the mempool would take a transaction, or several that build on one another.", run: testMempoolAccept},
}

const (
	// defaultMaxFeeRate is what a careless sender is kept from paying: 0.10 coins per
	// 1,000 virtual bytes (Core's DEFAULT_MAX_RAW_TX_FEE_RATE).
	defaultMaxFeeRate = amount(satoshiPerCoin / 10)
	// maxTestTxs bounds testmempoolaccept, as in Core.
	maxTestTxs = mempool.MaxPackage
	// maxOutputsAsked is how many outputs are looked up to find the block of a
	// transaction: one of them must be unspent.
	maxOutputsAsked = 100
)

// txArg is argument i as a transaction in hex.
func txArg(c *call, i int) (*wire.MsgTx, error) {
	text, err := arg(c, i, "")
	if err != nil {
		return nil, err
	}
	return decodeTx(text)
}

func decodeTx(text string) (*wire.MsgTx, error) {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, fault(codeDeserialization, "TX decode failed. Make sure the tx has at least one input.")
	}
	tx, err := consensus.DecodeTx(raw)
	if err != nil {
		return nil, fault(codeDeserialization, "TX decode failed: %v", err)
	}
	return tx, nil
}

func decodeRawTransaction(c *call) (any, error) {
	tx, err := txArg(c, 0)
	if err != nil {
		return nil, err
	}
	return c.describeTx(tx, false)
}

func decodeScript(c *call) (any, error) {
	text, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	script, err := hex.DecodeString(text)
	if err != nil {
		return nil, fault(codeInvalidParameter, "argument must be hexadecimal string (not '%s')", clip(text))
	}
	d := c.describeScript(script)
	type segwit struct {
		scriptPubKey

		P2SH string `json:"p2sh-segwit"`
	}
	out := struct {
		Asm     string  `json:"asm"`
		Desc    string  `json:"desc,omitempty"`
		Address string  `json:"address,omitempty"`
		Type    string  `json:"type"`
		P2SH    string  `json:"p2sh,omitempty"`
		Segwit  *segwit `json:"segwit,omitempty"`
	}{Asm: d.Asm, Desc: d.Desc, Address: d.Address, Type: d.Type}
	p2sh := func(inner []byte) string {
		script, err := txscript.NewScriptBuilder().AddOp(txscript.OP_HASH160).AddData(hash160(inner)).AddOp(txscript.OP_EQUAL).Script()
		if err != nil {
			return ""
		}
		a, _ := address.Of(script, c.addr)
		return a
	}
	switch d.Type {
	case "pubkey", "pubkeyhash", "multisig", "nonstandard", "witness_v0_keyhash", "witness_v0_scripthash":
		if len(script) > txscript.MaxScriptElementSize || len(script) > 0 && script[0] == txscript.OP_RETURN {
			return out, nil
		}
		out.P2SH = p2sh(script)
	default:
		return out, nil
	}
	if strings.HasPrefix(d.Type, "witness") {
		return out, nil
	}
	if inner := witnessFor(script, d.Type); inner != nil {
		out.Segwit = &segwit{c.describeScript(inner), p2sh(inner)}
	}
	return out, nil
}

// witnessFor returns the witness program that stands for a script; nil if its keys
// may not be in one.
func witnessFor(script []byte, kind string) []byte {
	b := txscript.NewScriptBuilder().AddOp(txscript.OP_0)
	switch kind {
	case "pubkey":
		key := script[1 : len(script)-1]
		if len(key) != 33 {
			return nil
		}
		b.AddData(hash160(key))
	case "pubkeyhash":
		b.AddData(script[3:23])
	default:
		h := chainhash.HashB(script)
		b.AddData(h)
	}
	out, err := b.Script()
	if err != nil {
		return nil
	}
	return out
}

func getRawTransaction(c *call) (any, error) {
	id, err := hashArg(c, 0)
	if err != nil {
		return nil, err
	}
	verbosity, err := verbosityArg(c, 1, 0)
	if err != nil {
		return nil, err
	}
	var block chainhash.Hash
	named := c.has(2)
	if named {
		if block, err = hashArg(c, 2); err != nil {
			return nil, err
		}
		if _, ok := c.o.Chain.Status(block); !ok {
			return nil, fault(codeInvalidAddress, "Block hash not found")
		}
	} else if e, ok := c.o.Pool.Get(id); ok {
		return c.poolTx(e, verbosity)
	} else if !c.params.GenesisSpendable() && id == c.params.Genesis.Transactions[0].TxHash() {
		return nil, fault(codeInvalidAddress, "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved")
	} else if block, ok, err = c.find(id); err != nil {
		return nil, err
	} else if !ok {
		return nil, c.noSuchTx()
	}
	raw, err := c.rawBlock(block)
	if err != nil {
		return nil, err
	}
	b, err := consensus.DecodeBlock(c.params, raw)
	if err != nil {
		return nil, err
	}
	for i, tx := range b.Txs {
		if *tx.Hash() != id {
			continue
		}
		if verbosity <= 0 {
			return txHex(tx.MsgTx())
		}
		d, err := c.describeTx(tx.MsgTx(), true)
		if err != nil {
			return nil, err
		}
		info, err := c.headerInfo(block)
		if err != nil {
			return nil, err
		}
		if named {
			active := info.Confirmations > 0
			d.InActiveChain = &active
		}
		confirmations := max(0, info.Confirmations)
		d.BlockHash, d.Confirmations, d.Time, d.BlockTime = info.Hash, &confirmations, info.Time, info.Time
		if verbosity >= 2 && i > 0 {
			if spent, err := c.o.Chain.Spent(b); err == nil {
				c.addSpent(d, tx.MsgTx(), spent[i], true)
			}
		}
		return d, nil
	}
	return nil, fault(codeInvalidAddress, "No such transaction found in the provided block")
}

// find finds the block of a transaction by an unspent output, else in the index.
func (h *Handler) find(id chainhash.Hash) (block chainhash.Hash, ok bool, err error) {
	if block, ok, err = h.blockOf(id); err != nil || ok {
		return block, ok, err
	}
	return h.o.Node.FindTx(id)
}

// noSuchTx says, as Core does, what would help to find a transaction.
func (h *Handler) noSuchTx() error {
	for _, x := range h.o.Node.Indexes() {
		switch {
		case x.Name != "tx_index" || !x.Enabled:
		case x.Error != "":
			return fault(codeInvalidAddress, "No such mempool transaction. The transaction index stands still at height %d: %s", x.Height, x.Error)
		case !x.Synced:
			return fault(codeInvalidAddress, "No such mempool transaction. Blockchain transactions are still in the process of being indexed: still building, %.0f%%", x.Percent)
		default:
			return fault(codeInvalidAddress, "No such mempool or blockchain transaction. Use gettransaction for wallet transactions.")
		}
	}
	return fault(codeInvalidAddress, "No such mempool transaction, nor one with an unspent output. Set storage.tx_index (--tx-index), or give the hash of its block.")
}

// poolTx shows a transaction of the mempool.
func (h *Handler) poolTx(e mempool.Entry, verbosity int) (any, error) {
	if verbosity <= 0 {
		return txHex(e.Tx)
	}
	d, err := h.describeTx(e.Tx, true)
	if err == nil && verbosity >= 2 {
		fee := amount(e.Fee)
		d.Fee = &fee
	}
	return d, err
}

// blockOf finds the block of a transaction by an output that is not spent yet.
func (h *Handler) blockOf(id chainhash.Hash) (block chainhash.Hash, ok bool, err error) {
	for i := range uint32(maxOutputsAsked) {
		coin, unspent, err := h.o.Chain.Coin(wire.OutPoint{Hash: id, Index: i})
		if err != nil {
			return block, false, err
		}
		if unspent {
			block, ok = h.o.Chain.HashAt(coin.Height)
			return block, ok, nil
		}
	}
	return block, false, nil
}

// feeRateArg is argument i as a limit in coins per 1,000 virtual bytes; 0 is none.
// Older clients send a bool there: whether high fees are allowed.
func feeRateArg(c *call, i int) (amount, error) {
	if c.has(i) {
		switch string(c.args[i]) {
		case "true":
			return 0, nil
		case "false":
			return defaultMaxFeeRate, nil
		}
	}
	rate, err := arg(c, i, defaultMaxFeeRate)
	if err == nil && (rate < 0 || rate > satoshiPerCoin) {
		return 0, fault(codeInvalidParameter, "Fee rates larger than or equal to 1 coin/kvB are not accepted, nor negative ones")
	}
	return rate, err
}

func sendRawTransaction(c *call) (any, error) {
	tx, err := txArg(c, 0)
	if err != nil {
		return nil, err
	}
	limit, err := feeRateArg(c, 1)
	if err != nil {
		return nil, err
	}
	burn, err := arg(c, 2, amount(0))
	if err != nil {
		return nil, err
	}
	for _, o := range tx.TxOut {
		if txscript.IsUnspendable(o.PkScript) && amount(o.Value) > burn {
			return nil, fault(codeVerify, "Unspendable output exceeds maximum configured by user (maxburnamount)")
		}
	}
	id := tx.TxHash()
	if !c.o.Pool.Have(id) {
		e, err := c.o.Pool.Check(c.ctx, tx)
		if err != nil {
			return nil, c.refusal(id, err)
		}
		if limit > 0 && tooDear(e, limit) {
			return nil, fault(codeVerify, "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)")
		}
	}
	if err := c.o.Node.SubmitTx(c.ctx, tx); err != nil {
		return nil, c.refusal(id, err)
	}
	return id.String(), nil
}

func tooDear(e mempool.Entry, limit amount) bool {
	vsize := (int64(e.Weight) + 3) / 4
	return amount(e.Fee) > limit*amount(vsize)/1000
}

// refusal is Core's error for a transaction that the mempool does not take.
func (h *Handler) refusal(id chainhash.Hash, err error) error {
	rule, ok := errors.AsType[*consensus.RuleError](err)
	if !ok {
		return err
	}
	switch rule.Rule {
	case "txn-already-known":
		return fault(codeAlreadyInChain, "Transaction outputs already in utxo set")
	case "missing-inputs":
		if _, known, err := h.blockOf(id); err == nil && known {
			return fault(codeAlreadyInChain, "Transaction outputs already in utxo set")
		}
		return fault(codeVerify, "bad-txns-inputs-missingorspent")
	}
	return fault(codeVerifyRejected, "%s", ruleText(rule))
}

// A txVerdict is what testmempoolaccept says of one transaction. Allowed is nil if it was
// not looked at to the end, since something before it was refused.
type txVerdict struct {
	TxID         string    `json:"txid"`
	WTxID        string    `json:"wtxid"`
	PackageError string    `json:"package-error,omitempty"`
	Allowed      *bool     `json:"allowed,omitempty"`
	VSize        int       `json:"vsize,omitempty"`
	Fees         *testFees `json:"fees,omitempty"`
	Reason       string    `json:"reject-reason,omitempty"`
	Details      string    `json:"reject-details,omitempty"`
}

type testFees struct {
	Base     amount   `json:"base"`
	Rate     amount   `json:"effective-feerate"`
	Includes []string `json:"effective-includes"`
}

func (v *txVerdict) refuse(reason, details string) {
	v.Allowed, v.Reason, v.Details = new(bool), reason, details
}

func testMempoolAccept(c *call) (any, error) {
	texts, err := arg(c, 0, []string(nil))
	if err != nil {
		return nil, err
	}
	limit, err := feeRateArg(c, 1)
	if err != nil {
		return nil, err
	}
	if len(texts) < 1 || len(texts) > maxTestTxs {
		return nil, fault(codeInvalidParameter, "Array must contain between 1 and %d transactions.", maxTestTxs)
	}
	txs, out := make([]*wire.MsgTx, len(texts)), make([]txVerdict, len(texts))
	for i, text := range texts {
		if txs[i], err = decodeTx(text); err != nil {
			return nil, err
		}
		out[i].TxID, out[i].WTxID = txs[i].TxHash().String(), txs[i].WitnessHash().String()
	}
	var entries []mempool.Entry
	refusedAt := 0
	if len(txs) == 1 { // it may replace others, where a package may not
		var e mempool.Entry
		e, err = c.o.Pool.Check(c.ctx, txs[0])
		entries = []mempool.Entry{e}
	} else {
		entries, err = c.o.Pool.CheckPackage(c.ctx, txs)
		if whole, ok := errors.AsType[*mempool.PackageError](err); ok {
			refusedAt = whole.At
		}
	}
	rule, refused := errors.AsType[*consensus.RuleError](err)
	switch {
	case refused && refusedAt < 0:
		for i := range out {
			out[i].PackageError = ruleText(rule)
		}
		return out, nil
	case refused:
		out[refusedAt].refuse(rule.Rule, ruleText(rule))
		return out, nil
	case err != nil:
		return nil, err
	}
	for i, e := range entries {
		v := &out[i]
		if limit > 0 && tooDear(e, limit) {
			v.refuse("max-fee-exceeded", "")
			break // what follows may build on it
		}
		v.Allowed, v.VSize = new(true), (e.Weight+3)/4
		v.Fees = &testFees{amount(e.Fee), amount(e.Fee * 1000 / int64(v.VSize)), []string{v.WTxID}}
	}
	return out, nil
}
