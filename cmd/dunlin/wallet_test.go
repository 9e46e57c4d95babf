package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/btcjson"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/rpcclient"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/internal/api"
	"dunlin/internal/wallet/keys"
)

// walletPhrase seals the wallets of tests.
const walletPhrase = "correct horse battery"

// privateKey is an extended one: the letters alone come by chance in public keys and checksums too.
var privateKey = regexp.MustCompile(`\b[tx]prv[1-9A-HJ-NP-Za-km-z]{20}`)

// A purseOwner has a wallet on a daemon.
type purseOwner struct {
	t     *testing.T
	d     *daemon
	rpc   *rpcclient.Client
	api   *api.Client
	words string
}

// withWallet makes a wallet on a daemon; of words, if there are any, by looking through the chain.
func withWallet(t *testing.T, d *daemon, words string) *purseOwner {
	t.Helper()
	c, _, err := api.Open(d.home)
	if err != nil {
		t.Fatal(err)
	}
	o := &purseOwner{t: t, d: d, rpc: rpcTo(t, d), api: c, words: words}
	r := api.WalletCreate{Words: words, Passphrase: walletPhrase, Restore: words != ""}
	if words == "" {
		w, err := keys.NewWords(12)
		if err != nil {
			t.Fatal(err)
		}
		o.words = w.Reveal()
		r.Words = o.words
	}
	var info api.WalletInfo
	o.call(http.MethodPost, "", r, &info)
	return o
}

func (o *purseOwner) call(method, path string, in, out any) {
	o.t.Helper()
	if err := o.api.Call(o.t.Context(), method, "/api/v1/wallet"+path, in, out); err != nil {
		o.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// sees waits until a payment has a text, and returns it.
func (o *purseOwner) sees(txid, text string) (p api.WalletTx) {
	o.t.Helper()
	eventually(o.t, patience, txid+" is "+text, func() error {
		if err := o.api.Call(o.t.Context(), http.MethodGet, "/api/v1/wallet/tx/"+txid, nil, &p); err != nil {
			return err
		}
		if p.Text != text {
			return fmt.Errorf("%s: %s", p.Text, p.Explain)
		}
		return nil
	})
	return p
}

// address decodes one of regtest.
func regtestAddress(t *testing.T, text string) address.Address {
	t.Helper()
	return must[address.Address](t)(address.DecodeAddress(text, &chaincfg.RegressionNetParams))
}

// TestE2EWallet: two wallets on two daemons: what is mined to one is sent to the other, seen there unconfirmed, one of six,
// confirmed; a reorganisation makes it conflicted; from the words alone a third node finds all coins.
func TestE2EWallet(t *testing.T) {
	t.Parallel()
	d1 := startDaemon(t, "one", "--network", "regtest")
	d2 := startDaemon(t, "two", "--network", "regtest", "--bootstrap", d1.addr())
	a, b := withWallet(t, d1, ""), withWallet(t, d2, "")
	mining := must[string](t)(newAddressOf(a, "p2tr"))
	hashes := must[[]*chainhash.Hash](t)(a.rpc.GenerateToAddress(102, regtestAddress(t, mining), nil))
	d2.reaches(hashes[101].String(), patience)
	eventually(t, patience, "the wallet has followed", func() error {
		if got := must[btcutil.Amount](t)(a.rpc.GetBalance("*")); got != 150*btcutil.SatoshiPerBitcoin {
			return fmt.Errorf("balance %s", got)
		}
		return nil
	})

	to := must[string](t)(newAddressOf(b, "p2wpkh"))
	var sent api.WalletSent
	pay := api.WalletSend{Outputs: []api.WalletPay{{Address: to, Amount: 20_0000_0000}}, FeeRate: 2000, Label: "tea", Passphrase: walletPhrase}
	a.call(http.MethodPost, "/send", pay, &sent)
	if p := a.sees(sent.TxID, "unconfirmed"); p.Amount != -20_0000_0000-sent.Fee || p.Label != "tea" {
		t.Errorf("sent: %+v", p.WalletPayment)
	}
	if p := b.sees(sent.TxID, "unconfirmed"); p.Amount != 20_0000_0000 || !p.InMempool || p.Kind != "received" {
		t.Errorf("received: %+v", p.WalletPayment)
	}
	elsewhere := regtestAddress(t, "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn")
	mine := func(n int) []*chainhash.Hash {
		t.Helper()
		out := must[[]*chainhash.Hash](t)(a.rpc.GenerateToAddress(int64(n), elsewhere, nil))
		d2.reaches(out[n-1].String(), patience)
		return out
	}
	first := mine(1)
	b.sees(sent.TxID, "1 of 6")
	mine(4)
	b.sees(sent.TxID, "5 of 6")
	mine(1)
	if p := b.sees(sent.TxID, "confirmed"); p.Confirmations != 6 {
		t.Errorf("%d confirmations", p.Confirmations)
	}

	// Both leave the block; a payment of the same coins to somebody else is mined in its place.
	for _, o := range []*purseOwner{a, b} {
		if err := o.rpc.InvalidateBlock(first[0]); err != nil {
			t.Fatal(err)
		}
	}
	b.sees(sent.TxID, "unconfirmed")
	eventually(t, patience, "it is in the mempool again", func() error { _, err := a.rpc.GetMempoolEntry(sent.TxID); return err })
	var coins []string
	for _, in := range sent.Inputs {
		coins = append(coins, in.Coin)
	}
	rival := rivalOf(a, coins)
	id := must[*chainhash.Hash](t)(a.rpc.SendRawTransaction(rival, true))
	mine(7)
	p := b.sees(sent.TxID, "conflicted")
	if p.Conflicting != id.String() || !strings.Contains(p.Explain, id.String()) {
		t.Errorf("conflicted by %s: %s; want %s", p.Conflicting, p.Explain, id)
	}
	a.sees(sent.TxID, "conflicted")

	// Paid again; then a fresh home finds it all from the words.
	pay.Coins = nil
	a.call(http.MethodPost, "/send", pay, &sent)
	b.sees(sent.TxID, "unconfirmed")
	last := mine(1)
	b.sees(sent.TxID, "1 of 6")
	d3 := startDaemon(t, "three", "--network", "regtest", "--bootstrap", d1.addr())
	d3.reaches(last[0].String(), patience)
	c := withWallet(t, d3, a.words)
	var want, got api.WalletBalances
	a.call(http.MethodGet, "/balance", nil, &want)
	eventually(t, patience, "all coins are found", func() error {
		c.call(http.MethodGet, "/balance", nil, &got)
		if got.Confirmed != want.Confirmed || got.Immature != want.Immature {
			return fmt.Errorf("%+v, want %+v", got.WalletBalance, want.WalletBalance)
		}
		return nil
	})
	if want.Confirmed == 0 || want.Immature == 0 {
		t.Errorf("nothing to be found: %+v", want.WalletBalance)
	}
	for _, d := range []*daemon{d1, d2, d3} { // no secret in any log
		if log := d.log.String(); strings.Contains(log, walletPhrase) || strings.Contains(log, a.words) || privateKey.MatchString(log) {
			t.Errorf("%s's log has a secret", d.home)
		}
	}
}

func newAddressOf(o *purseOwner, kind string) (string, error) {
	var a api.WalletAddress
	err := o.api.Call(o.t.Context(), http.MethodPost, "/api/v1/wallet/addresses", api.WalletAddressRequest{Kind: kind}, &a)
	return a.Address, err
}

// rivalOf is a transaction that spends the same coins to somebody else, at a higher fee.
func rivalOf(o *purseOwner, coins []string) *wire.MsgTx {
	o.t.Helper()
	var inputs []btcjson.TransactionInput
	for _, c := range coins {
		id, n, _ := strings.Cut(c, ":")
		var vout uint32
		if _, err := fmt.Sscan(n, &vout); err != nil {
			o.t.Fatal(err)
		}
		inputs = append(inputs, btcjson.TransactionInput{Txid: id, Vout: vout})
	}
	total := btcutil.Amount(0)
	for range coins {
		total += 50 * btcutil.SatoshiPerBitcoin
	}
	elsewhere := regtestAddress(o.t, "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn")
	m := must[*wire.MsgTx](o.t)(o.rpc.CreateRawTransaction(inputs, map[address.Address]btcutil.Amount{elsewhere: total - 100_000}, nil))
	if err := o.rpc.WalletPassphrase(walletPhrase, 60); err != nil {
		o.t.Fatal(err)
	}
	signed, complete, err := o.rpc.SignRawTransactionWithWallet(m)
	if err != nil || !complete {
		o.t.Fatalf("signing: %v, complete %t", err, complete)
	}
	// Whoever asks for a signature of one output must not get one of all, nor the other way round.
	var raw bytes.Buffer
	if err := m.Serialize(&raw); err != nil {
		o.t.Fatal(err)
	}
	_, err = o.rpc.RawRequest("signrawtransactionwithwallet", []json.RawMessage{
		json.RawMessage(`"` + hex.EncodeToString(raw.Bytes()) + `"`), json.RawMessage("[]"), json.RawMessage(`"SINGLE"`),
	})
	refusedWith(o.t, btcjson.ErrRPCInvalidParameter, err)
	if err := o.rpc.WalletLock(); err != nil {
		o.t.Fatal(err)
	}
	return signed
}

// TestE2EWalletRPC: btcd's client, written for Bitcoin Core's wallet, drives ours.
func TestE2EWalletRPC(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "rpc", "--network", "regtest")
	c := rpcTo(t, d)
	_, err := c.GetBalance("*")
	refusedWith(t, btcjson.ErrRPCWalletNotFound, err)
	withWallet(t, d, "")
	for kind, prefix := range map[string]string{"legacy": "m n", "p2sh-segwit": "2", "bech32": "bcrt1q", "bech32m": "bcrt1p"} {
		a := must[address.Address](t)(c.GetNewAddressType("shop", kind)).EncodeAddress()
		ok := false
		for p := range strings.FieldsSeq(prefix) {
			ok = ok || strings.HasPrefix(a, p)
		}
		if !ok {
			t.Errorf("%s: %s", kind, a)
		}
	}
	own := must[address.Address](t)(c.GetNewAddress("mined"))
	must[address.Address](t)(c.GetRawChangeAddress(""))
	must[[]*chainhash.Hash](t)(c.GenerateToAddress(103, own, nil))
	eventually(t, patience, "the wallet has followed", func() error {
		if got := must[btcutil.Amount](t)(c.GetBalance("*")); got != 200*btcutil.SatoshiPerBitcoin {
			return fmt.Errorf("balance %s", got)
		}
		return nil
	})
	all := must[*btcjson.GetBalancesResult](t)(c.GetBalances())
	if all.Mine.Trusted != 200 || all.Mine.Immature != 99*50 {
		t.Errorf("getbalances: %+v", all.Mine)
	}
	coins := must[[]btcjson.ListUnspentResult](t)(c.ListUnspent())
	if len(coins) != 4 || coins[0].Amount != 50 || coins[0].Address != own.EncodeAddress() || !coins[0].Spendable {
		t.Errorf("listunspent: %+v", coins)
	}
	elsewhere := regtestAddress(t, "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn")
	_, err = c.SendToAddress(elsewhere, 1e8)
	refusedWith(t, btcjson.ErrRPCWalletUnlockNeeded, err)
	refusedWith(t, btcjson.ErrRPCWalletPassphraseIncorrect, c.WalletPassphrase("wrong horse", 60))
	if err := c.WalletPassphrase(walletPhrase, 600); err != nil {
		t.Fatal(err)
	}
	_, err = c.SendToAddress(elsewhere, 1000e8)
	refusedWith(t, btcjson.ErrRPCWalletInsufficientFunds, err)

	// A coin that is set aside stays.
	first := must[*chainhash.Hash](t)(chainhash.NewHashFromStr(coins[0].TxID))
	if err := c.LockUnspent(false, []*wire.OutPoint{{Hash: *first, Index: coins[0].Vout}}); err != nil {
		t.Fatal(err)
	}
	if l := must[[]*wire.OutPoint](t)(c.ListLockUnspent()); len(l) != 1 || l[0].Hash != *first {
		t.Errorf("listlockunspent: %v", l)
	}
	if l := must[[]btcjson.ListUnspentResult](t)(c.ListUnspent()); len(l) != 3 {
		t.Errorf("%d coins beside the one that is set aside", len(l))
	}
	if err := c.LockUnspent(true, []*wire.OutPoint{{Hash: *first, Index: coins[0].Vout}}); err != nil {
		t.Fatal(err)
	}

	id := must[*chainhash.Hash](t)(c.SendToAddress(elsewhere, 1.5e8))
	tx := must[*btcjson.GetTransactionResult](t)(c.GetTransaction(id))
	if tx.Amount != -1.5 || tx.Fee >= 0 || tx.Confirmations != 0 || len(tx.Details) != 1 || tx.Details[0].Category != "send" || tx.Details[0].Address != elsewhere.EncodeAddress() {
		t.Errorf("gettransaction: %+v", tx)
	}
	list := must[[]btcjson.ListTransactionsResult](t)(c.ListTransactionsCount("*", 3))
	if len(list) != 3 || list[2].TxID != id.String() || list[2].Category != "send" || list[0].Category != "immature" {
		t.Errorf("listtransactions: %+v", list)
	}
	bumped := rpcRaw(t, d, `{"method":"bumpfee","params":["`+id.String()+`"],"id":1}`)
	if !strings.Contains(bumped, `"origfee":0.0000`) {
		t.Errorf("bumpfee: %s", bumped)
	}
	_, err = c.GetTransaction(&chainhash.Hash{1})
	refusedWith(t, btcjson.ErrRPCInvalidAddressOrKey, err)

	// By PSBT.
	funded := rpcResult[struct {
		PSBT string  `json:"psbt"`
		Fee  float64 `json:"fee"`
	}](t, d, "walletcreatefundedpsbt", `[[],[{"`+elsewhere.EncodeAddress()+`":0.25}]]`)
	processed := rpcResult[struct {
		PSBT     string `json:"psbt"`
		Complete bool   `json:"complete"`
		Hex      string `json:"hex"`
	}](t, d, "walletprocesspsbt", `["`+funded.PSBT+`"]`)
	if !processed.Complete || processed.Hex == "" || funded.Fee <= 0 {
		t.Errorf("walletprocesspsbt: %+v of %+v", processed, funded)
	}
	if s := rpcRaw(t, d, `{"method":"sendrawtransaction","params":["`+processed.Hex+`"],"id":1}`); !strings.HasPrefix(s, "200 ") {
		t.Errorf("sendrawtransaction: %s", s)
	}
	if s := rpcRaw(t, d, `{"method":"decodepsbt","params":["`+funded.PSBT+`"],"id":1}`); !strings.Contains(s, `"fee":0.0000`) || !strings.Contains(s, `"witness_utxo"`) {
		t.Errorf("decodepsbt: %s", s)
	}
	if s := rpcRaw(t, d, `{"method":"dumpprivkey","params":["`+own.EncodeAddress()+`"],"id":1}`); !strings.Contains(s, `"code":-4`) {
		t.Errorf("dumpprivkey: %s", s)
	}
	if s := rpcRaw(t, d, `{"method":"listdescriptors","params":[],"id":1}`); !strings.Contains(s, "/84h/1h/0h]tpub") || privateKey.MatchString(s) {
		t.Errorf("listdescriptors: %s", s)
	}
	if s := rpcRaw(t, d, `{"method":"getaddressinfo","params":["`+own.EncodeAddress()+`"],"id":1}`); !strings.Contains(s, `"ismine":true`) || !strings.Contains(s, `"labels":["mined"]`) {
		t.Errorf("getaddressinfo: %s", s)
	}
	if s := rpcRaw(t, d, `{"method":"importdescriptors","params":[[{"desc":"addr(mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn)","timestamp":"now"}]],"id":1}`); !strings.Contains(s, `"success":false`) || !strings.Contains(s, "checksum") {
		t.Errorf("importdescriptors without a checksum: %s", s)
	}
	// What would be lost is refused: a payment for later must not become one for now.
	later := rpcResult[string](t, d, "createrawtransaction", `[[],[{"`+elsewhere.EncodeAddress()+`":0.25}],5000]`)
	for _, body := range []string{
		`{"method":"fundrawtransaction","params":["` + later + `"],"id":1}`,
		`{"method":"walletcreatefundedpsbt","params":[[],[{"` + elsewhere.EncodeAddress() + `":0.25}],5000],"id":1}`,
	} {
		if s := rpcRaw(t, d, body); !strings.Contains(s, `"code":-8`) || !strings.Contains(s, "lock times") {
			t.Errorf("%s: %s", body, s)
		}
	}
	info := must[*btcjson.GetWalletInfoResult](t)(c.GetWalletInfo())
	if info.TransactionCount < 105 || !info.PrivateKeysEnabled {
		t.Errorf("getwalletinfo: %+v", info)
	}
	if err := c.WalletLock(); err != nil {
		t.Fatal(err)
	}
}

// rpcResult calls and decodes the result.
func rpcResult[T any](t *testing.T, d *daemon, method, params string) T {
	t.Helper()
	answer := rpcRaw(t, d, `{"method":"`+method+`","params":`+params+`,"id":1}`)
	_, raw, _ := strings.Cut(answer, " ")
	var v struct {
		Result *T               `json:"result"`
		Error  *json.RawMessage `json:"error"`
	}
	if err := json.NewDecoder(bytes.NewReader([]byte(raw))).Decode(&v); err != nil || v.Result == nil {
		t.Fatalf("%s: %v: %s", method, err, answer)
	}
	return *v.Result
}
