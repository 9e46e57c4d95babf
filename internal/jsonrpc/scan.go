package jsonrpc

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/address"
)

const (
	// maxScanObjects bounds what one scan looks for, and maxScanned what it may find.
	maxScanObjects = 1000
	maxScanned     = 100_000
)

// indexNames are Core's names of indexes, by the setting.
var indexNames = map[string]string{"tx_index": "txindex", "address_index": "addressindex"}

func getIndexInfo(c *call) (any, error) {
	only, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	type info struct {
		Synced bool  `json:"synced"`
		Height int32 `json:"best_block_height"`
	}
	out := map[string]info{}
	for _, x := range c.o.Node.Indexes() {
		if name := indexNames[x.Name]; x.Enabled && name != "" && (only == "" || only == name) {
			out[name] = info{x.Synced, max(0, x.Height)}
		}
	}
	return out, nil
}

// A coinScan is a walk over all coins that can be watched and ended.
type coinScan struct {
	cancel context.CancelFunc
	// reached is the first two bytes of the transaction id that it has come to: coins are
	// in the order of ids, which are spread evenly.
	reached atomic.Uint32
}

func scanTxOutSet(c *call) (any, error) {
	action, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	running := c.scanned
	c.mu.Unlock()
	switch action {
	case "status":
		if running == nil {
			return nil, nil //nolint:nilnil // null is the answer
		}
		return struct {
			Progress int `json:"progress"`
		}{int(running.reached.Load() * 100 / 65536)}, nil
	case "abort":
		if running == nil {
			return false, nil
		}
		running.cancel()
		return true, nil
	case "start":
		return c.startScan()
	}
	return nil, fault(codeInvalidParameter, "Invalid action '%s'", clip(action))
}

// startScan reads all coins for those of some scripts.
func (c *call) startScan() (any, error) {
	scripts, err := c.scanScripts()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	scan := &coinScan{cancel: cancel}
	c.mu.Lock()
	if c.scanned != nil {
		c.mu.Unlock()
		return nil, fault(codeInvalidParameter, "Scan already in progress, use action \"abort\" or \"status\"")
	}
	c.scanned = scan
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.scanned = nil
	}()
	c.leave() // it may take minutes, and others need not wait
	select {
	case c.scan <- struct{}{}:
	case <-ctx.Done():
		return nil, c.scanEnded(ctx.Err())
	}
	defer func() { <-c.scan }()
	type unspent struct {
		TxID          string `json:"txid"`
		VOut          uint32 `json:"vout"`
		Script        string `json:"scriptPubKey"`
		Desc          string `json:"desc"`
		Amount        amount `json:"amount"`
		Coinbase      bool   `json:"coinbase"`
		Height        int32  `json:"height"`
		BlockHash     string `json:"blockhash"`
		Confirmations int32  `json:"confirmations"`
	}
	out := struct {
		Success  bool      `json:"success"`
		TxOuts   int64     `json:"txouts"`
		Height   int32     `json:"height"`
		Best     string    `json:"bestblock"`
		Unspents []unspent `json:"unspents"`
		Total    amount    `json:"total_amount"`
	}{Success: true, Unspents: []unspent{}}
	tip, err := c.o.Chain.Coins(ctx, func(op wire.OutPoint, coin consensus.Coin) error {
		out.TxOuts++
		scan.reached.Store(uint32(op.Hash[0])<<8 | uint32(op.Hash[1]))
		desc, wanted := scripts[string(coin.Script)]
		if !wanted {
			return nil
		}
		if len(out.Unspents) == maxScanned {
			return fault(codeMisc, "more than %d unspent outputs", maxScanned)
		}
		out.Total += amount(coin.Value)
		out.Unspents = append(out.Unspents, unspent{
			TxID: op.Hash.String(), VOut: op.Index, Script: hex.EncodeToString(coin.Script), Desc: desc, Amount: amount(coin.Value),
			Coinbase: coin.Coinbase, Height: coin.Height,
		})
		return nil
	})
	if err != nil {
		return nil, c.scanEnded(err)
	}
	out.Height, out.Best = tip.Height, tip.Hash.String()
	for i := range out.Unspents {
		u := &out.Unspents[i]
		var block chainhash.Hash
		if block, _ = c.o.Chain.Ancestor(tip.Hash, u.Height); block != (chainhash.Hash{}) {
			u.BlockHash = block.String()
		}
		u.Confirmations = tip.Height - u.Height + 1
	}
	return out, nil
}

// scanEnded is the error of a scan that was aborted, or of one whose caller went.
func (c *call) scanEnded(err error) error {
	if errors.Is(err, context.Canceled) && c.ctx.Err() == nil {
		return fault(codeMisc, "the scan was aborted")
	}
	return err
}

// scanScripts reads the scan objects into scripts, each with its descriptor.
func (c *call) scanScripts() (map[string]string, error) {
	if !c.has(1) {
		return nil, fault(codeMisc, "scanobjects argument is required for the start action")
	}
	objects, err := arg(c, 1, []json.RawMessage(nil))
	if err != nil {
		return nil, err
	}
	if len(objects) < 1 || len(objects) > maxScanObjects {
		return nil, fault(codeInvalidParameter, "want 1 to %d scan objects", maxScanObjects)
	}
	scripts := make(map[string]string, len(objects))
	for _, raw := range objects {
		var text string
		var object struct {
			Desc string `json:"desc"`
		}
		if json.Unmarshal(raw, &text) != nil {
			if json.Unmarshal(raw, &object) != nil || object.Desc == "" {
				return nil, fault(codeInvalidParameter, "Scan object needs to be either a string or an object")
			}
			text = object.Desc
		}
		script, err := c.scriptOf(text)
		if err != nil {
			return nil, err
		}
		scripts[string(script)] = c.describeScript(script).Desc
	}
	return scripts, nil
}

// scriptOf is the script of an addr() or raw() descriptor, with or without its checksum.
func (c *call) scriptOf(text string) ([]byte, error) {
	body, given, summed := strings.Cut(text, "#")
	if summed && given != descriptorChecksum(body) {
		return nil, fault(codeInvalidAddress, "Provided checksum '%s' does not match computed checksum '%s'", clip(given), descriptorChecksum(body))
	}
	inner, ok := strings.CutSuffix(body, ")")
	if s, is := strings.CutPrefix(inner, "addr("); ok && is {
		script, err := address.Script(s, c.addr)
		if err != nil {
			return nil, fault(codeInvalidAddress, "Address is not valid: %v", err)
		}
		return script, nil
	}
	if s, is := strings.CutPrefix(inner, "raw("); ok && is {
		script, err := hex.DecodeString(s)
		if err != nil {
			return nil, fault(codeInvalidAddress, "Raw script is not hex")
		}
		return script, nil
	}
	return nil, fault(codeInvalidAddress, "descriptor '%s': addr(…) and raw(…) are scanned for", clip(text))
}
