package jsonrpc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
	"dunlin/chain/mining"
	"dunlin/internal/address"
	"dunlin/internal/api"
)

var miningMethods = []method{
	{name: "getblocktemplate", params: "template_request?", help: "What to make a block of (BIP22, BIP23, BIP145).", run: getBlockTemplate},
	{name: "submitblock", params: "hexdata dummy?", help: "Hands a block in; null if it is accepted, else why not.", run: submitBlock},
	{name: "submitheader", params: "hexdata", help: "Hands a header in, for a chain to be downloaded by.", run: submitHeader},
	{name: "generatetoaddress", params: "nblocks address maxtries?", help: "Makes blocks at once, on test networks.", run: generateToAddress},
	{name: "generatetodescriptor", params: "num_blocks descriptor maxtries?", help: "Makes blocks that pay addr() or raw() at once, on test networks.", run: generateToDescriptor},
	{name: "getmininginfo", help: "What a miner wants to know.", run: getMiningInfo},
	{name: "getstakinginfo", help: "What a staker wants to know, where stake makes blocks (Blackcoin's and Qtum's).", run: getStakingInfo},
	{name: "getnetworkhashps", params: "nblocks? height?", help: "Estimate of the network's hashes per second.", run: getNetworkHashPS},
}

const (
	// maxGenerate bounds one generatetoaddress: longer ones would outlive every client.
	maxGenerate = 10_000
	// longPoll is how long a long poll waits for a new tip, and poolPoll how long before
	// it is content with new transactions (Core: a minute).
	longPoll = 90 * time.Second
	poolPoll = time.Minute
)

// templateRequest is BIP22's and BIP23's.
type templateRequest struct {
	Mode         string   `json:"mode"`
	Capabilities []string `json:"capabilities"`
	Rules        []string `json:"rules"`
	LongPollID   string   `json:"longpollid"`
	Data         string   `json:"data"`
	WorkID       string   `json:"workid"`
	MaxVersion   any      `json:"maxversion"`
	SigOpLimit   any      `json:"sigoplimit"`
	SizeLimit    any      `json:"sizelimit"`
	Target       any      `json:"target"`
}

// templateTx is a transaction of a template.
type templateTx struct {
	Data    string `json:"data"`
	TxID    string `json:"txid"`
	Hash    string `json:"hash"`
	Depends []int  `json:"depends"`
	Fee     int64  `json:"fee"`
	SigOps  int    `json:"sigops"`
	Weight  int    `json:"weight"`
}

type blockTemplate struct {
	Capabilities []string          `json:"capabilities"`
	Version      int32             `json:"version"`
	Rules        []string          `json:"rules"`
	VBAvailable  map[string]int    `json:"vbavailable"`
	VBRequired   int               `json:"vbrequired"`
	Previous     string            `json:"previousblockhash"`
	Transactions []templateTx      `json:"transactions"`
	CoinbaseAux  map[string]string `json:"coinbaseaux"`
	Value        int64             `json:"coinbasevalue"`
	LongPollID   string            `json:"longpollid"`
	Target       string            `json:"target"`
	MinTime      int64             `json:"mintime"`
	Mutable      []string          `json:"mutable"`
	NonceRange   string            `json:"noncerange"`
	SigOpLimit   int               `json:"sigoplimit"`
	SizeLimit    int               `json:"sizelimit"`
	WeightLimit  int               `json:"weightlimit"`
	CurTime      int64             `json:"curtime"`
	Bits         string            `json:"bits"`
	Height       int32             `json:"height"`
	Commitment   string            `json:"default_witness_commitment,omitempty"`
}

// ofWork refuses what makes sense only where work makes blocks.
func (c *call) ofWork() error {
	if c.params.ProofOfStake() {
		return fault(codeMisc, "blocks of network %s are made by stake, not by work: see dunlin stake --help", c.params.Name)
	}
	return nil
}

func getBlockTemplate(c *call) (any, error) {
	req, err := arg(c, 0, templateRequest{})
	if err != nil {
		return nil, err
	}
	if err := c.ofWork(); err != nil {
		return nil, err
	}
	switch req.Mode {
	case "", "template":
	case "proposal":
		return c.testProposal(req.Data)
	default:
		return nil, fault(codeInvalidParameter, "Invalid mode")
	}
	if !slices.Contains(req.Rules, "segwit") {
		return nil, fault(codeInvalidParameter, "getblocktemplate must be called with the segwit rule set (call with {\"rules\": [\"segwit\"]})")
	}
	if !c.params.Test {
		switch st := c.o.Node.Status(); {
		case st.Peers.Inbound+st.Peers.Outbound == 0:
			return nil, fault(codeNotConnected, "no peers: a block made now would be alone")
		case st.Sync.State != api.StateSynced:
			return nil, fault(-10, "the node is not synced: %s", st.Sync.State)
		}
	}
	if req.LongPollID != "" {
		c.leave()
		if err := c.awaitTemplate(req.LongPollID); err != nil {
			return nil, err
		}
	}
	return c.template()
}

// testProposal is BIP23's block proposal: null if the block in hex would be accepted on
// top of the tip, were it proven, else why not.
func (c *call) testProposal(text string) (any, error) {
	if text == "" {
		return nil, fault(codeType, "Missing data String key for proposal")
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, fault(codeDeserialization, "Block decode failed")
	}
	b, err := consensus.DecodeBlock(c.params, raw)
	if err != nil {
		return nil, fault(codeDeserialization, "Block decode failed: %v", err)
	}
	switch st, known := c.o.Chain.Status(b.Hash); {
	case !known:
	case st.Valid:
		return "duplicate", nil
	case st.Invalid:
		return "duplicate-invalid", nil
	default:
		return "duplicate-inconclusive", nil
	}
	err = c.o.Chain.TestBlock(c.ctx, b)
	rule, refused := errors.AsType[*consensus.RuleError](err)
	switch {
	case err == nil:
		return nil, nil //nolint:nilnil // null is the answer
	case errors.Is(err, chain.ErrNotNext):
		return "inconclusive-not-best-prevblk", nil
	case refused:
		return rule.Rule, nil
	}
	return nil, err
}

// longPollID names the state that a template was made of.
func (h *Handler) longPollID(tip chainhash.Hash, sequence uint64) string {
	return fmt.Sprintf("%s%d", tip, sequence)
}

// awaitTemplate waits until a template would differ from that with the id.
func (c *call) awaitTemplate(id string) error {
	start := c.o.Now()
	limit := time.NewTimer(longPoll)
	defer limit.Stop()
	pool := time.NewTimer(poolPoll)
	defer pool.Stop()
	for {
		tip, moved := c.o.Chain.Tip()
		changed := c.o.Pool.Changed()
		if !strings.HasPrefix(id, tip.Hash.String()) {
			return nil
		}
		if id != c.longPollID(tip.Hash, c.o.Pool.Sequence()) && c.o.Now().Sub(start) >= poolPoll {
			return nil
		}
		select {
		case <-moved:
		case <-changed:
		case <-pool.C:
		case <-limit.C:
			return nil
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}

// template makes a template for an outside miner.
func (c *call) template() (any, error) {
	for range 3 {
		tip, _ := c.o.Chain.Tip()
		sequence := c.o.Pool.Sequence()
		entries, ok := c.o.Pool.Snapshot(c.ctx, tip.Hash)
		if !ok {
			continue // the chain went on
		}
		t, err := mining.NewTemplate(c.o.Chain, c.o.Engine, tip, mining.TemplateOptions{
			PayTo: []byte{txscript.OP_TRUE}, Now: c.o.Now(), Entries: entries,
		})
		if errors.Is(err, mining.ErrTipGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return c.describeTemplate(t, tip, entries, sequence)
	}
	return nil, fault(codeMisc, "the tip moves too fast, ask again")
}

func (c *call) describeTemplate(t *mining.Template, tip chain.Tip, entries []mempool.Entry, sequence uint64) (any, error) {
	past, ok := c.o.Chain.Past(tip.Hash)
	if !ok {
		return nil, fault(codeMisc, "the tip moves too fast, ask again")
	}
	forks := c.params.Forks(past)
	out := blockTemplate{
		Capabilities: []string{"proposal"}, Version: t.Header.Version, Rules: []string{"csv"}, VBAvailable: map[string]int{},
		Previous: tip.Hash.String(), Transactions: []templateTx{}, CoinbaseAux: map[string]string{},
		Value: t.Txs[0].TxOut[0].Value, LongPollID: c.longPollID(tip.Hash, sequence), Target: targetHex(t.Header.Bits),
		MinTime: mining.EarliestTime(c.params, past), Mutable: []string{"time", "transactions", "prevblock"}, NonceRange: "00000000ffffffff",
		SigOpLimit: c.params.MaxBlockSigOpsCost, SizeLimit: c.params.MaxBlockBytes(), WeightLimit: c.params.MaxBlockWeight,
		CurTime: t.Header.Timestamp.Unix(), Bits: bitsHex(t.Header.Bits), Height: t.Height,
	}
	if forks.Segwit {
		out.Rules = append(out.Rules, "!segwit")
		outs := t.Txs[0].TxOut
		out.Commitment = hex.EncodeToString(outs[len(outs)-1].PkScript)
	}
	if forks.Taproot {
		out.Rules = append(out.Rules, "taproot")
	}
	byID := make(map[chainhash.Hash]*mempool.Entry, len(entries))
	for i := range entries {
		byID[entries[i].ID] = &entries[i]
	}
	at := make(map[chainhash.Hash]int, len(t.Txs))
	for i, tx := range t.Txs[1:] {
		id := tx.TxHash()
		e := byID[id]
		data, err := txHex(tx)
		if err != nil {
			return nil, err
		}
		x := templateTx{
			Data: data, TxID: id.String(), Hash: e.WID.String(), Depends: []int{}, Fee: e.Fee,
			SigOps: e.SigOpCost, Weight: e.Weight,
		}
		for _, p := range e.Parents {
			x.Depends = append(x.Depends, at[p])
		}
		at[id] = i + 1 // counted from 1
		out.Transactions = append(out.Transactions, x)
	}
	return out, nil
}

func submitBlock(c *call) (any, error) {
	text, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, fault(codeDeserialization, "Block decode failed")
	}
	b, err := consensus.DecodeBlock(c.params, raw)
	if err != nil {
		return nil, fault(codeDeserialization, "Block decode failed: %v", err)
	}
	if raw, err = c.withNonce(b); err != nil {
		return nil, err
	}
	v, err := c.o.Node.SubmitBlock(c.ctx, raw)
	if err != nil {
		return nil, err
	}
	rule, refused := errors.AsType[*consensus.RuleError](v.Err)
	switch { // BIP22: a text says why it was not accepted
	case v.Outcome == chain.Connected:
		return nil, nil //nolint:nilnil // null is the answer
	case v.Outcome == chain.Duplicate:
		return "duplicate", nil
	case v.Outcome == chain.SideChain, v.Outcome == chain.Stored:
		return "inconclusive", nil
	case v.Outcome == chain.Orphan, refused && rule.Rule == "unknown-parent":
		return "prev-blk-not-found", nil
	case refused:
		return rule.Rule, nil
	}
	return nil, v.Err
}

// withNonce returns a block's bytes, with the witness of the coinbase filled in if its maker
// left that to the node: pools send the coinbase as it was hashed, and Core adds the 32
// zeros that its templates' commitment is made with.
func (h *Handler) withNonce(b *consensus.Block) ([]byte, error) {
	coinbase := b.Txs[0].MsgTx()
	past, ok := h.o.Chain.Past(b.Header.PrevBlock)
	if !ok || !h.params.Forks(past).Segwit || coinbase.HasWitness() || len(coinbase.TxIn) != 1 ||
		!slices.ContainsFunc(coinbase.TxOut, func(o *wire.TxOut) bool { return commitsToWitness(o.PkScript) }) {
		return b.Raw, nil
	}
	txs := make([]*wire.MsgTx, len(b.Txs))
	for i, tx := range b.Txs {
		txs[i] = tx.MsgTx()
	}
	txs[0] = coinbase.Copy()
	txs[0].TxIn[0].Witness = wire.TxWitness{make([]byte, chainhash.HashSize)}
	whole, err := consensus.NewBlock(h.params, b.Header, txs)
	if err != nil {
		return nil, fault(codeDeserialization, "Block decode failed: %v", err)
	}
	return whole.Raw, nil
}

// commitsToWitness says whether an output script has the form of BIP141's commitment.
func commitsToWitness(script []byte) bool {
	return len(script) >= 38 && bytes.HasPrefix(script, []byte{txscript.OP_RETURN, 0x24, 0xaa, 0x21, 0xa9, 0xed})
}

func submitHeader(c *call) (any, error) {
	text, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, fault(codeDeserialization, "Block header decode failed")
	}
	hd, err := consensus.DecodeHeader(c.params, raw)
	if err != nil {
		return nil, fault(codeDeserialization, "Block header decode failed: %v", err)
	}
	_, _, err = c.o.Chain.AcceptHeaders(c.ctx, []consensus.Header{hd})
	if rule, ok := errors.AsType[*consensus.RuleError](err); ok {
		if rule.Rule == "unknown-parent" {
			return nil, fault(codeVerify, "Must submit previous header (%s) first", hd.PrevBlock)
		}
		return nil, fault(codeVerify, "%s", ruleText(rule))
	}
	return nil, err
}

func generateToAddress(c *call) (any, error) {
	text, err := arg(c, 1, "")
	if err != nil {
		return nil, err
	}
	script, err := address.Script(text, c.addr)
	if err != nil {
		return nil, fault(codeInvalidAddress, "Error: Invalid address: %v", err)
	}
	return c.generate(script)
}

func generateToDescriptor(c *call) (any, error) {
	text, err := arg(c, 1, "")
	if err != nil {
		return nil, err
	}
	body, sum, summed := strings.Cut(text, "#")
	if summed && sum != descriptorChecksum(body) {
		return nil, fault(codeInvalidAddress, "Provided checksum '%s' does not match computed checksum '%s'", clip(sum), descriptorChecksum(body))
	}
	var script []byte
	switch kind, inner, _ := strings.Cut(strings.TrimSuffix(body, ")"), "("); kind {
	case "addr":
		script, err = address.Script(inner, c.addr)
	case "raw":
		script, err = hex.DecodeString(inner)
	default:
		return nil, fault(codeInvalidAddress, "descriptor %s: only addr() and raw() are served", clip(text))
	}
	if err != nil {
		return nil, fault(codeInvalidAddress, "descriptor %s: %v", clip(text), err)
	}
	return c.generate(script)
}

// generate makes blocks, as many as argument 0 says, that pay script.
func (c *call) generate(script []byte) (any, error) {
	if err := c.ofWork(); err != nil {
		return nil, err
	}
	n, err := intArg(c, 0, 0, 0, maxGenerate)
	if err != nil {
		return nil, err
	}
	if _, err := arg(c, 2, 1_000_000); err != nil { // taken and not needed: it ends with the caller
		return nil, err
	}
	if !c.params.Test {
		return nil, fault(codeMisc, "network %s needs more work than this node has: blocks at will are for test networks", c.params.Name)
	}
	hashes := []string{}
	for range n {
		b, _, err := c.o.Miner.MineTo(c.ctx, script, "")
		if errors.Is(err, mining.ErrPayTo) {
			return nil, fault(codeInvalidParameter, "%v", err)
		}
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, b.Hash.String())
	}
	return hashes, nil
}

func getMiningInfo(c *call) (any, error) {
	tip, _ := c.o.Chain.Tip()
	rate, err := c.networkHashPS(120, -1)
	if err != nil {
		return nil, err
	}
	count, _, _ := c.o.Pool.Size()
	type next struct {
		Height     int32   `json:"height"`
		Bits       string  `json:"bits"`
		Difficulty float64 `json:"difficulty"`
		Target     string  `json:"target"`
	}
	out := struct {
		Blocks     int32    `json:"blocks"`
		Bits       string   `json:"bits"`
		Difficulty float64  `json:"difficulty"`
		Target     string   `json:"target"`
		HashPS     float64  `json:"networkhashps"`
		NetStake   *int64   `json:"netstakeweight,omitempty"`
		Weight     *int64   `json:"stakeweight,omitempty"`
		Pooled     int      `json:"pooledtx"`
		Chain      string   `json:"chain"`
		Next       *next    `json:"next,omitempty"`
		Warnings   []string `json:"warnings"`
	}{
		Blocks: tip.Height, Bits: bitsHex(tip.Bits), Difficulty: consensus.Difficulty(tip.Bits), Target: targetHex(tip.Bits),
		HashPS: rate, NetStake: c.netStakeWeight(), Pooled: count, Chain: chainName(c.params.Name), Warnings: c.warnings(),
	}
	if out.NetStake != nil {
		s, err := c.o.Node.Staking(0)
		if err != nil {
			return nil, err
		}
		out.Weight = &s.Weight
	}
	if past, ok := c.o.Chain.Past(tip.Hash); ok {
		bits := c.o.Engine.NextBits(past, c.o.Now())
		out.Next = &next{tip.Height + 1, bitsHex(bits), consensus.Difficulty(bits), targetHex(bits)}
	}
	return out, nil
}

func getNetworkHashPS(c *call) (any, error) {
	if err := c.ofWork(); err != nil {
		return nil, err
	}
	n, err := intArg(c, 0, 120, -1, 1<<31-1)
	if err != nil {
		return nil, err
	}
	height, err := intArg(c, 1, -1, -1, 1<<31-1)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fault(codeInvalidParameter, "Invalid nblocks. Must be a positive number or -1.")
	}
	tip, _ := c.o.Chain.Tip()
	if height > int64(tip.Height) {
		return nil, fault(codeInvalidParameter, "Block does not exist at specified height")
	}
	return c.networkHashPS(int(n), int32(height))
}

// networkHashPS is Core's estimate: the work of n blocks over the time between the
// earliest and the latest of them. n is -1 for those since the last retarget. Where stake
// makes blocks nobody hashes.
func (h *Handler) networkHashPS(n int, height int32) (float64, error) {
	if h.params.ProofOfStake() {
		return 0, nil
	}
	tip, _ := h.o.Chain.Tip()
	hash := tip.Hash
	if height >= 0 {
		var ok bool
		if hash, ok = h.o.Chain.HashAt(height); !ok {
			return 0, fault(codeInvalidParameter, "Block does not exist at specified height")
		}
	}
	past, ok := h.o.Chain.Past(hash)
	if !ok || past.Height() == 0 || h.params.ProofOfStake() { // nobody hashes there
		return 0, nil
	}
	const period = 2016
	if n < 0 {
		n = int(past.Height()%period) + 1
	}
	return consensus.HashRate(past, n), nil
}
