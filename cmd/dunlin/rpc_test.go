package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcjson"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/rpcclient"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// rpcTo is btcd's client, talking to a daemon with its cookie.
func rpcTo(t *testing.T, d *daemon) *rpcclient.Client {
	t.Helper()
	user, password := cookie(t, d)
	c, err := rpcclient.New(&rpcclient.ConnConfig{
		Host: d.info.RPCAddr, User: user, Pass: password, HTTPPostMode: true, DisableTLS: true, Params: "regtest",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Shutdown)
	return c
}

func cookie(t *testing.T, d *daemon) (user, password string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(d.home, "api.cookie"))
	if err != nil {
		t.Fatal(err)
	}
	user, password, _ = strings.Cut(strings.TrimSpace(string(raw)), ":")
	return user, password
}

// must is for calls that only have to work.
func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refusedWith checks Core's error code.
func refusedWith(t *testing.T, code btcjson.RPCErrorCode, err error) {
	t.Helper()
	e, ok := errors.AsType[*btcjson.RPCError](err)
	if !ok || e.Code != code {
		t.Errorf("%v, want an error with code %d", err, code)
	}
}

// TestE2ERPCClient: btcd's client, written for Bitcoin Core and btcd, drives the node:
// it mines, sends, asks, makes a block of a template, and takes blocks back.
func TestE2ERPCClient(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "rpc", "--network", "regtest")
	other := startDaemon(t, "peer", "--network", "regtest", "--bootstrap", d.addr())
	c := rpcTo(t, d)
	p := newPurse(10)
	for _, b := range p.blocks {
		// The raw bytes, as btcd's miners do.
		if err := c.SubmitBlock(btcutil.NewBlock(decoded(t, b.Raw)), nil); err != nil {
			t.Fatal(err)
		}
	}
	count := must[int64](t)(c.GetBlockCount())
	if count != 110 {
		t.Fatalf("height %d after 110 blocks", count)
	}

	// The chain.
	info := must[*btcjson.GetBlockChainInfoResult](t)(c.GetBlockChainInfo())
	best := must[*chainhash.Hash](t)(c.GetBestBlockHash())
	if info.Chain != "regtest" || info.Blocks != 110 || info.Headers != 110 || info.BestBlockHash != best.String() || info.SizeOnDisk == 0 || len(info.ChainWork) != 64 {
		t.Errorf("getblockchaininfo: %+v", info)
	}
	if h := must[*chainhash.Hash](t)(c.GetBlockHash(110)); *h != *best {
		t.Errorf("getblockhash 110: %s, tip %s", h, best)
	}
	_, err := c.GetBlockHash(111)
	refusedWith(t, btcjson.ErrRPCInvalidParameter, err)
	if b := must[*wire.MsgBlock](t)(c.GetBlock(best)); b.BlockHash() != *best {
		t.Errorf("getblock gives %s", b.BlockHash())
	}
	header := must[*wire.BlockHeader](t)(c.GetBlockHeader(best))
	if header.BlockHash() != *best {
		t.Errorf("getblockheader gives %s", header.BlockHash())
	}
	hv := must[*btcjson.GetBlockHeaderVerboseResult](t)(c.GetBlockHeaderVerbose(best))
	if hv.Height != 110 || hv.Confirmations != 1 || hv.PreviousHash != header.PrevBlock.String() || hv.Nonce != uint64(header.Nonce) {
		t.Errorf("getblockheader: %+v", hv)
	}
	_, err = c.GetBlock(&chainhash.Hash{1})
	refusedWith(t, btcjson.ErrRPCBlockNotFound, err)
	if tips := must[[]*btcjson.GetChainTipsResult](t)(c.GetChainTips()); len(tips) != 1 || tips[0].Status != "active" || tips[0].Height != 110 {
		t.Errorf("getchaintips: %+v", tips)
	}
	set := must[*btcjson.GetTxOutSetInfoResult](t)(c.GetTxOutSetInfo())
	if set.Height != 110 || set.TxOuts != 110 || set.TotalAmount != 110*50*btcutil.SatoshiPerBitcoin {
		t.Errorf("gettxoutsetinfo: %+v", set)
	}

	// Transactions. Whoever is behind would not take them yet.
	other.reaches(best.String(), patience)
	tx := p.pay(1, 10_000)
	id := tx.TxHash()
	if r := must[[]*btcjson.TestMempoolAcceptResult](t)(c.TestMempoolAccept([]*wire.MsgTx{tx}, 0)); !r[0].Allowed || r[0].Fees.Base != 0.0001 || r[0].Txid != id.String() {
		t.Errorf("testmempoolaccept: %+v", r[0])
	}
	if n := len(must[[]*chainhash.Hash](t)(c.GetRawMempool())); n != 0 {
		t.Errorf("a test left %d transactions in the mempool", n)
	}
	if sent := must[*chainhash.Hash](t)(c.SendRawTransaction(tx, false)); *sent != id {
		t.Errorf("sent %s, want %s", sent, id)
	}
	if _, err := c.SendRawTransaction(tx, false); err != nil {
		t.Errorf("the same again: %v", err) // as with Core
	}
	_, err = c.SendRawTransaction(p.pay(1, 10_001), false) // pays a satoshi more only
	refusedWith(t, btcjson.ErrRPCVerifyRejected, err)
	_, err = c.SendRawTransaction(p.pay(2, 50_000_000), false)
	refusedWith(t, btcjson.ErrRPCVerify, err) // half a coin of fee is a mistake
	e := must[*btcjson.GetMempoolEntryResult](t)(c.GetMempoolEntry(id.String()))
	if e.Fees.Base != 0.0001 || e.VSize == 0 || e.AncestorCount != 1 || e.Height != 110 || e.WTxId != tx.WitnessHash().String() {
		t.Errorf("getmempoolentry: %+v", e)
	}
	child := p.spend(tx, 20_000)
	must[*chainhash.Hash](t)(c.SendRawTransaction(child, false))
	e = must[*btcjson.GetMempoolEntryResult](t)(c.GetMempoolEntry(child.TxHash().String()))
	if e.AncestorCount != 2 || e.Fees.Ancestor != 0.0003 || len(e.Depends) != 1 || e.Depends[0] != id.String() {
		t.Errorf("getmempoolentry of the child: %+v", e)
	}
	if out := must[*btcjson.GetTxOutResult](t)(c.GetTxOut(new(child.TxHash()), 0, true)); out == nil || out.Confirmations != 0 || out.ScriptPubKey.Type != "witness_v0_keyhash" && out.ScriptPubKey.Type != "witness_v1_taproot" && out.ScriptPubKey.Type != "pubkeyhash" {
		t.Errorf("gettxout of the mempool: %+v", out)
	}
	if out := must[*btcjson.GetTxOutResult](t)(c.GetTxOut(&id, 0, true)); out != nil {
		t.Errorf("gettxout of a spent one: %+v", out)
	}
	raw := must[*btcjson.TxRawResult](t)(c.GetRawTransactionVerbose(&id))
	if raw.Txid != id.String() || raw.Hex != hex.EncodeToString(serialised(tx)) || len(raw.Vin) != 1 || raw.Vout[0].Value != 49.9999 {
		t.Errorf("getrawtransaction: %+v", raw)
	}
	if x := must[*btcjson.TxRawResult](t)(c.DecodeRawTransaction(serialised(tx))); x.Txid != id.String() {
		t.Errorf("decoderawtransaction: %+v", x)
	}
	other.holds(2) // it was told to others
	testPackages(t, d, p, child)

	// A block of a template, found here as any miner would.
	template := must[*btcjson.GetBlockTemplateResult](t)(c.GetBlockTemplate(&btcjson.TemplateRequest{Mode: "template", Rules: []string{"segwit"}}))
	if len(template.Transactions) != 2 || template.Height != 111 || *template.CoinbaseValue != 50*btcutil.SatoshiPerBitcoin+30_000 {
		t.Fatalf("getblocktemplate: %+v", template)
	}
	if deps := template.Transactions[1].Depends; len(deps) != 1 || deps[0] != 1 {
		t.Errorf("the child depends on %v", deps)
	}
	_, err = c.GetBlockTemplate(&btcjson.TemplateRequest{Mode: "template"})
	refusedWith(t, btcjson.ErrRPCInvalidParameter, err)
	if !slices.Contains(template.Capabilities, "proposal") {
		t.Errorf("capabilities %q", template.Capabilities)
	}
	block := mineTemplate(t, template)
	testProposals(t, d, block)
	bare := block.Copy() // as pools send it: the node adds the coinbase's witness
	bare.Transactions[0].TxIn[0].Witness = nil
	if err := c.SubmitBlock(btcutil.NewBlock(bare), nil); err != nil {
		t.Fatalf("submitblock: %v", err)
	}
	if err := c.SubmitBlock(btcutil.NewBlock(block), nil); err == nil || !strings.Contains(err.Error(), "duplicate") {
		t.Errorf("the same again: %v", err)
	}
	if h := must[*chainhash.Hash](t)(c.GetBestBlockHash()); *h != block.BlockHash() {
		t.Errorf("tip %s, want the block made of the template", h)
	}
	if answer := propose(t, d, block); answer != `"duplicate"` {
		t.Errorf("proposing what is the tip: %s", answer)
	}
	other.holds(0)
	vb := must[*btcjson.GetBlockVerboseTxResult](t)(c.GetBlockVerboseTx(new(block.BlockHash())))
	if len(vb.Tx) != 3 || vb.Tx[1].Txid != id.String() || vb.Confirmations != 1 {
		t.Errorf("getblock 2: %+v", vb)
	}
	if b1 := must[*btcjson.GetBlockVerboseResult](t)(c.GetBlockVerbose(new(block.BlockHash()))); len(b1.Tx) != 3 || b1.Weight == 0 || b1.StrippedSize == 0 {
		t.Errorf("getblock 1: %+v", b1)
	}
	if x := must[*btcjson.TxRawResult](t)(c.GetRawTransactionVerbose(new(child.TxHash()))); x.BlockHash != block.BlockHash().String() || x.Confirmations != 1 {
		t.Errorf("getrawtransaction of a mined one: %+v", x)
	}
	prevouts := rpcRaw(t, d, `{"method":"getblock","params":{"blockhash":"`+block.BlockHash().String()+`","verbosity":3},"id":7,"jsonrpc":"2.0"}`)
	if !strings.Contains(prevouts, `"prevout":{"generated":true,"height":1,"value":50.00000000`) || !strings.Contains(prevouts, `"fee":0.00010000`) || !strings.Contains(prevouts, `"id":7`) {
		t.Errorf("getblock 3: %s", prevouts)
	}

	// Blocks at once, and back.
	addr, err := address.NewAddressWitnessPubKeyHash(make([]byte, 20), &chaincfg.RegressionNetParams)
	if err != nil {
		t.Fatal(err)
	}
	made := must[[]*chainhash.Hash](t)(c.GenerateToAddress(3, addr, nil))
	if b := must[*wire.MsgBlock](t)(c.GetBlock(made[2])); !bytes.Equal(b.Transactions[0].TxOut[0].PkScript, must[[]byte](t)(txscript.PayToAddrScript(addr))) {
		t.Error("generatetoaddress pays another script")
	}
	if err := c.InvalidateBlock(made[0]); err != nil {
		t.Fatal(err)
	}
	if n := must[int64](t)(c.GetBlockCount()); n != 111 {
		t.Errorf("height %d after invalidateblock", n)
	}
	if err := c.ReconsiderBlock(made[0]); err != nil {
		t.Fatal(err)
	}
	if n := must[int64](t)(c.GetBlockCount()); n != 114 {
		t.Errorf("height %d after reconsiderblock", n)
	}
	refusedWith(t, btcjson.ErrRPCBlockNotFound, c.InvalidateBlock(&chainhash.Hash{1}))

	// The rest.
	eventually(t, patience, "the peer is shown", func() error {
		peers, err := c.GetPeerInfo()
		if err == nil && (len(peers) != 1 || !strings.Contains(peers[0].SubVer, "dunlin")) {
			err = fmt.Errorf("%+v", peers)
		}
		return err
	})
	if n := must[int64](t)(c.GetConnectionCount()); n != 1 {
		t.Errorf("%d connections", n)
	}
	if n := must[*btcjson.GetNetworkInfoResult](t)(c.GetNetworkInfo()); n.Connections != 1 || !strings.HasPrefix(n.SubVersion, "/Satoshi:28.0.0/dunlin:") {
		t.Errorf("getnetworkinfo: %+v", n)
	}
	if m := must[*btcjson.GetMiningInfoResult](t)(c.GetMiningInfo()); m.Blocks != 114 || m.Difficulty == 0 {
		t.Errorf("getmininginfo: %+v", m)
	}
	if rate := must[float64](t)(c.GetNetworkHashPS()); rate <= 0 {
		t.Errorf("getnetworkhashps: %v", rate)
	}
	if v := must[*btcjson.ValidateAddressWalletResult](t)(c.ValidateAddress(addr)); !v.IsValid || v.Address != addr.EncodeAddress() {
		t.Errorf("validateaddress: %+v", v)
	}
	if f := must[*btcjson.EstimateSmartFeeResult](t)(c.EstimateSmartFee(6, nil)); f.FeeRate == nil || *f.FeeRate != 0.00001 {
		t.Errorf("estimatesmartfee: %+v", f)
	}
	if s := must[*btcjson.DecodeScriptResult](t)(c.DecodeScript([]byte{txscript.OP_1, txscript.OP_DROP})); s.Asm != "1 OP_DROP" || s.P2sh == "" {
		t.Errorf("decodescript: %+v", s)
	}
	if info := must[*btcjson.GetDescriptorInfoResult](t)(c.GetDescriptorInfo("raw(deadbeef)")); info.Checksum != "89f8spxm" { // BIP380's vector
		t.Errorf("getdescriptorinfo: %+v", info)
	}
}

func decoded(t *testing.T, raw []byte) *wire.MsgBlock {
	t.Helper()
	var b wire.MsgBlock
	if err := b.Deserialize(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	return &b
}

// propose asks what the node thinks of a block (BIP23).
func propose(t *testing.T, d *daemon, b *wire.MsgBlock) string {
	t.Helper()
	var raw bytes.Buffer
	if err := b.Serialize(&raw); err != nil {
		t.Fatal(err)
	}
	answer := rpcRaw(t, d, `{"method":"getblocktemplate","params":[{"mode":"proposal","data":"`+hex.EncodeToString(raw.Bytes())+`"}],"id":1}`)
	var r struct {
		Result json.RawMessage
		Error  *btcjson.RPCError
	}
	if err := json.Unmarshal([]byte(answer[strings.Index(answer, "{"):]), &r); err != nil {
		t.Fatalf("%s: %v", answer, err)
	}
	if r.Error != nil {
		return r.Error.Message
	}
	return string(r.Result)
}

// testProposals proposes variants of a block that is good, none with a proof.
func testProposals(t *testing.T, d *daemon, good *wire.MsgBlock) {
	t.Helper()
	for _, row := range []struct {
		name   string
		change func(*wire.MsgBlock)
		want   string
	}{
		{"good", func(*wire.MsgBlock) {}, `null`},
		{"too much money", func(b *wire.MsgBlock) { b.Transactions[0].TxOut[0].Value++ }, `"bad-cb-amount"`},
		{"another parent", func(b *wire.MsgBlock) { b.Header.PrevBlock[0]++ }, `"inconclusive-not-best-prevblk"`},
		{"no parent of the child", func(b *wire.MsgBlock) { b.Transactions = slices.Delete(b.Transactions, 1, 2) }, `"bad-witness-merkle-match"`},
		{"from the future", func(b *wire.MsgBlock) { b.Header.Timestamp = b.Header.Timestamp.Add(3 * time.Hour) }, `"time-too-new"`},
	} {
		b := good.Copy()
		row.change(b)
		txs := make([]*btcutil.Tx, len(b.Transactions))
		for i, tx := range b.Transactions {
			txs[i] = btcutil.NewTx(tx)
		}
		b.Header.MerkleRoot = blockchain.CalcMerkleRoot(txs, false)
		target := blockchain.CompactToBig(b.Header.Bits)
		for hash := b.BlockHash(); blockchain.HashToBig(&hash).Cmp(target) <= 0; hash = b.BlockHash() {
			b.Header.Nonce++
		}
		if got := propose(t, d, b); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

// testPackages asks what would become of several transactions that build on one another, and on tip, which is in the mempool.
func testPackages(t *testing.T, d *daemon, p *purse, tip *wire.MsgTx) {
	t.Helper()
	one := p.spend(tip, 10_000)
	two := p.spend(one, 20_000)
	other := p.pay(3, 5_000)
	dear := p.spend(two, 50_000_000)
	rival := p.spend(tip, 30_000)
	poor := p.spend(two, 0)
	for _, row := range []struct {
		name string
		txs  []*wire.MsgTx
		want string // allowed, or why not, of each
	}{
		{"a family", []*wire.MsgTx{one, other, two}, "true true true"},
		{"children first", []*wire.MsgTx{two, one}, "package-not-sorted package-not-sorted"},
		{"the same twice", []*wire.MsgTx{one, one}, "package-contains-duplicates package-contains-duplicates"},
		{"rivals", []*wire.MsgTx{one, rival}, "conflict-in-package conflict-in-package"},
		{"without the parent", []*wire.MsgTx{other, two}, "- missing-inputs"},
		{"one in the mempool", []*wire.MsgTx{tip, one}, "txn-already-in-mempool -"},
		{"a replacement", []*wire.MsgTx{p.pay(1, 9_000_000), other}, "bip125-replacement-disallowed -"},
		{"too dear", []*wire.MsgTx{one, two, dear, p.spend(dear, 10_000)}, "true true max-fee-exceeded -"},
		{"too cheap", []*wire.MsgTx{one, two, poor}, "- - min-relay-fee-not-met"},
	} {
		var texts []string
		for _, tx := range row.txs {
			texts = append(texts, hex.EncodeToString(serialised(tx)))
		}
		params := must[[]byte](t)(json.Marshal([]any{texts}))
		answer := rpcRaw(t, d, `{"method":"testmempoolaccept","params":`+string(params)+`,"id":1}`)
		var r struct {
			Result []struct {
				TxID    string `json:"txid"`
				Error   string `json:"package-error"`
				Allowed *bool
				Reason  string `json:"reject-reason"`
				Fees    struct {
					Includes []string `json:"effective-includes"`
				}
			}
		}
		if err := json.Unmarshal([]byte(answer[strings.Index(answer, "{"):]), &r); err != nil || len(r.Result) != len(row.txs) {
			t.Fatalf("%s: %s", row.name, answer)
		}
		var got []string
		for i, x := range r.Result {
			said := "-"
			switch {
			case x.Error != "":
				said = x.Error
			case x.Allowed != nil && *x.Allowed && len(x.Fees.Includes) == 1:
				said = "true"
			case x.Allowed != nil:
				said = x.Reason
			}
			got = append(got, said)
			if x.TxID != row.txs[i].TxHash().String() {
				t.Errorf("%s: result %d is of %s", row.name, i, x.TxID)
			}
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%s: %s, want %s: %s", row.name, got, row.want, answer)
		}
	}
}

// mineTemplate makes a block as an outside miner does, by what the template says.
func mineTemplate(t *testing.T, g *btcjson.GetBlockTemplateResult) *wire.MsgBlock {
	t.Helper()
	prev := must[*chainhash.Hash](t)(chainhash.NewHashFromStr(g.PreviousHash))
	coinbase := wire.NewMsgTx(2)
	script := must[[]byte](t)(txscript.NewScriptBuilder().AddInt64(g.Height).AddData([]byte("outside")).Script())
	in := wire.NewTxIn(wire.NewOutPoint(&chainhash.Hash{}, wire.MaxPrevOutIndex), script, [][]byte{make([]byte, 32)})
	coinbase.AddTxIn(in)
	coinbase.AddTxOut(wire.NewTxOut(*g.CoinbaseValue, []byte{txscript.OP_TRUE}))
	coinbase.AddTxOut(wire.NewTxOut(0, must[[]byte](t)(hex.DecodeString(g.DefaultWitnessCommitment))))
	bits := must[[]byte](t)(hex.DecodeString(g.Bits))
	b := &wire.MsgBlock{Header: wire.BlockHeader{
		Version: g.Version, PrevBlock: *prev, Timestamp: time.Unix(g.CurTime, 0), Bits: uint32(new(big.Int).SetBytes(bits).Uint64()),
	}}
	txs := []*btcutil.Tx{btcutil.NewTx(coinbase)}
	for _, x := range g.Transactions {
		txs = append(txs, must[*btcutil.Tx](t)(btcutil.NewTxFromBytes(must[[]byte](t)(hex.DecodeString(x.Data)))))
	}
	for _, tx := range txs {
		b.Transactions = append(b.Transactions, tx.MsgTx())
	}
	b.Header.MerkleRoot = blockchain.CalcMerkleRoot(txs, false)
	target := blockchain.CompactToBig(b.Header.Bits)
	for hash := b.BlockHash(); blockchain.HashToBig(&hash).Cmp(target) > 0; hash = b.BlockHash() {
		b.Header.Nonce++
	}
	return b
}

// rpcRaw sends a body and returns the answer's, whatever its status.
func rpcRaw(t *testing.T, d *daemon, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+d.info.RPCAddr+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(cookie(t, d))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, bytes.TrimSpace(answer))
}

// TestE2ERPCForms: the forms of JSON-RPC that Core's clients use, and what is wrong
// with others; nothing without the token.
func TestE2ERPCForms(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "rpc", "--network", "regtest")
	genesis := "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
	for _, tc := range []struct{ send, want string }{
		{`{"method":"getblockcount","params":[],"id":1}`, `200 {"result":0,"error":null,"id":1}`},
		{`{"jsonrpc":"1.0","method":"getblockhash","params":[0],"id":"curltext"}`, `200 {"result":"` + genesis + `","error":null,"id":"curltext"}`},
		{`{"jsonrpc":"2.0","method":"getblockhash","params":{"height":0},"id":2}`, `200 {"jsonrpc":"2.0","result":"` + genesis + `","id":2}`},
		{`{"jsonrpc":"2.0","method":"getblockhash","params":{"args":[0]},"id":2}`, `200 {"jsonrpc":"2.0","result":"` + genesis + `","id":2}`},
		{`{"jsonrpc":"2.0","method":"getblockcount"}`, `204 `},
		{`{"method":"nosuch","id":1}`, `404 {"result":null,"error":{"code":-32601,"message":"Method not found"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"nosuch","id":1}`, `200 {"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":1}`},
		{`{"method":"getblockhash","params":["0"],"id":1}`, `500 {"result":null,"error":{"code":-3,"message":"argument 1 (height) of getblockhash: JSON value of type string is not of expected type int32"},"id":1}`},
		{`{"method":"getblockhash","params":[],"id":1}`, `500 {"result":null,"error":{"code":-1,"message":"getblockhash takes height: height is missing"},"id":1}`},
		{`{"method":"getblockhash","params":[1,2],"id":1}`, `500 {"result":null,"error":{"code":-1,"message":"getblockhash takes height, not 2 arguments"},"id":1}`},
		{`{"method":"getblockhash","params":{"hight":0},"id":1}`, `500 {"result":null,"error":{"code":-8,"message":"Unknown named parameter hight"},"id":1}`},
		{`{"method":"getblock","params":{"blockhash":"` + genesis + `","verbose":"x"},"id":1}`, `500 {"result":null,"error":{"code":-3,"message":"argument 2 (verbosity) of getblock: JSON value of type string is not of expected type int"},"id":1}`},
		{`{"method":"getblocktemplate","params":[{"rules":["segwit"],"mode":"proposal","client":"x"}],"id":1}`, `500 {"result":null,"error":{"code":-3,"message":"Missing data String key for proposal"},"id":1}`},
		{`{"method":"getblockhash","params":7,"id":1}`, `400 {"result":null,"error":{"code":-32600,"message":"Params must be an array or object"},"id":1}`},
		{`{"id":1}`, `400 {"result":null,"error":{"code":-32600,"message":"Missing method"},"id":1}`},
		{`[{"method":"getblockcount","id":1},{"jsonrpc":"2.0","method":"getblockcount"},7,{"jsonrpc":"2.0","method":"nosuch","id":3}]`, `200 [{"result":0,"error":null,"id":1},` +
			`{"result":null,"error":{"code":-32600,"message":"Invalid Request object"},"id":null},{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":3}]`},
		{`[]`, `200 []`},
	} {
		if got := rpcRaw(t, d, tc.send); got != tc.want {
			t.Errorf("%s\n got %s\nwant %s", tc.send, got, tc.want)
		}
	}
	for _, bad := range []string{"", "{", `{"method":`, "[{]", strings.Repeat("[", 100_000)} {
		if got := rpcRaw(t, d, bad); !strings.HasPrefix(got, `500 {"result":null,"error":{"code":-32700`) {
			t.Errorf("%.20q: %.200s", bad, got)
		}
	}
	resp, err := http.Post("http://"+d.info.RPCAddr+"/", "application/json", strings.NewReader(`{"method":"getblockcount"}`)) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without the cookie: %s", resp.Status)
	}
	var calls struct{ Result string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(rpcRaw(t, d, `{"method":"help","id":1}`), "200 ")), &calls); err != nil || !strings.Contains(calls.Result, "== Blockchain ==") {
		t.Errorf("help: %q, %v", calls.Result, err)
	}
	if got := rpcRaw(t, d, `{"method":"stop","id":1}`); got != `200 {"result":"dunlin stopping","error":null,"id":1}` {
		t.Errorf("stop: %s", got)
	}
	<-d.done
}
