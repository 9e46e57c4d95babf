//go:build slow

package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// btcctl is btcd's command line tool, talking to a node that it takes for btcd.
type btcctl struct {
	t                    *testing.T
	program, home        string
	addr, user, password string
}

// newBTCCtl builds it.
func newBTCCtl(t *testing.T, d *daemon) *btcctl {
	t.Helper()
	c := &btcctl{t: t, program: buildBTCD(t, "/cmd/btcctl"), home: t.TempDir(), addr: d.info.RPCAddr}
	c.user, c.password = cookie(t, d)
	if err := os.WriteFile(filepath.Join(c.home, "btcctl.conf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// run makes one call; failed says that btcctl said so.
func (c *btcctl) run(args ...string) (out string, failed bool) {
	c.t.Helper()
	args = append([]string{
		"--configfile=" + filepath.Join(c.home, "btcctl.conf"), "--notls", "--regtest", "--rpcserver=" + c.addr, "--rpcuser=" + c.user, "--rpcpass=" + c.password,
	}, args...)
	cmd := exec.CommandContext(c.t.Context(), c.program, args...)
	cmd.Env = append(os.Environ(), "HOME="+c.home)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(b.String()), err != nil
}

// must is run for what has to work.
func (c *btcctl) must(args ...string) string {
	c.t.Helper()
	out, failed := c.run(args...)
	if failed {
		c.t.Fatalf("btcctl %.100q: %s", args, out)
	}
	return out
}

// TestBTCCtl: btcctl, written for btcd, drives the node: blocks go in one by one, a transaction is sent, and a template has it.
func TestBTCCtl(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "driven", "--network", "regtest")
	c := newBTCCtl(t, d)
	if got := c.must("getblockcount"); got != "0" {
		t.Fatalf("getblockcount: %s", got)
	}
	p := newPurse(2)
	for _, b := range p.blocks {
		if got := c.must("submitblock", hex.EncodeToString(b.Raw)); got != "" && got != "null" {
			t.Fatalf("submitblock: %s", got)
		}
	}
	if got := c.must("getblockcount"); got != strconv.Itoa(len(p.blocks)) {
		t.Fatalf("getblockcount: %s", got)
	}
	if got := c.must("submitblock", hex.EncodeToString(p.blocks[0].Raw)); got != "duplicate" {
		t.Errorf("submitblock of a known one: %s", got)
	}
	best := p.blocks[len(p.blocks)-1].Hash.String()
	if got := c.must("getbestblockhash"); got != best {
		t.Errorf("getbestblockhash: %s, want %s", got, best)
	}
	tx := p.pay(1, 10_000)
	if got := c.must("sendrawtransaction", hex.EncodeToString(serialised(tx))); got != tx.TxHash().String() {
		t.Errorf("sendrawtransaction: %s", got)
	}
	if got, failed := c.run("sendrawtransaction", hex.EncodeToString(serialised(p.pay(1, 20)))); !failed || !strings.Contains(got, "-26") && !strings.Contains(got, "-25") {
		t.Errorf("a double spend: %s", got)
	}
	var template struct {
		Height       int
		Previous     string `json:"previousblockhash"`
		Transactions []struct{ TxID string }
	}
	if err := json.Unmarshal([]byte(c.must("getblocktemplate", `{"rules":["segwit"]}`)), &template); err != nil {
		t.Fatal(err)
	}
	if template.Height != len(p.blocks)+1 || template.Previous != best || len(template.Transactions) != 1 || template.Transactions[0].TxID != tx.TxHash().String() {
		t.Errorf("getblocktemplate: %+v", template)
	}
	var mined []string
	if err := json.Unmarshal([]byte(c.must("generatetoaddress", "2", btcdPays)), &mined); err != nil || len(mined) != 2 {
		t.Fatalf("generatetoaddress: %v, %v", mined, err)
	}
	var block struct {
		Height int
		Tx     []string
	}
	if err := json.Unmarshal([]byte(c.must("getblock", mined[0])), &block); err != nil || block.Height != len(p.blocks)+1 || len(block.Tx) != 2 || block.Tx[1] != tx.TxHash().String() {
		t.Errorf("getblock: %+v, %v", block, err)
	}
	for _, call := range [][]string{
		{"getblockchaininfo"},
		{"getmempoolinfo"},
		{"getpeerinfo"},
		{"getnetworkinfo"},
		{"getmininginfo"},
		{"getdifficulty"},
		{"getconnectioncount"},
		{"uptime"},
		{"getblockhash", "1"},
		{"getrawmempool"},
		{"validateaddress", btcdPays},
		{"getchaintips"},
		{"help"},
	} {
		if out, failed := c.run(call...); failed {
			t.Errorf("%s: %s", call, out)
		}
	}
	c.password = "wrong"
	if out, failed := c.run("stop"); !failed {
		t.Errorf("with a wrong password: %s", out)
	}
}

// TestMinerGBT: our miner, which knows a node by its JSON-RPC only, mines for btcd, and what it makes we accept too.
func TestMinerGBT(t *testing.T) {
	t.Parallel()
	theirs := startBTCD(t)
	ours := startDaemon(t, "judge", "--network", "regtest")
	password := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(password, []byte("judge\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := dunlin(t, nil, "miner", "gbt", "--network", "regtest", "--url", "http://"+theirs.addr, "--user", "judge", "--password-file", password,
		"--address", btcdPays, "--text", "for btcd", "--threads", "2", "--blocks", "20")
	if code != 0 || strings.Count(out, " accepted after ") != 20 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	for height := range 20 {
		var hash, raw string
		theirs.call("getblockhash", &hash, height+1)
		theirs.call("getblock", &raw, hash, 0)
		if _, err := ours.client.SubmitBlock(t.Context(), raw); err != nil {
			t.Fatalf("block %d of btcd: %v", height+1, err)
		}
	}
	var best string
	theirs.call("getbestblockhash", &best)
	if s := ours.mustStatus(); s.TipHash != best || s.Height != 20 {
		t.Errorf("at %d %s, btcd at %s", s.Height, s.TipHash, best)
	}
}

// A jsCoin is a coin that testdata/js/spend.mjs can spend.
type jsCoin struct {
	Kind  string `json:"kind"`
	TxID  string `json:"txid"`
	Vout  int    `json:"vout"`
	Value int64  `json:"value"`
}

// TestBitcoinJS: transactions that bitcoinjs-lib builds and signs, spending P2WPKH, P2TR by key and by script, and a multisig of P2WSH, are accepted
// and mined; one that was changed after signing is not.
func TestBitcoinJS(t *testing.T) {
	t.Parallel()
	node, dir := jsPrograms(t)
	ask := func(question, answer any) {
		t.Helper()
		text, err := json.Marshal(question)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), node, "spend.mjs", string(text))
		cmd.Dir = dir
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err == nil {
			err = json.Unmarshal(out, answer)
		}
		if err != nil {
			t.Fatalf("bitcoinjs-lib: %v\n%s", err, errs.String())
		}
	}
	var addrs map[string]string
	ask(map[string]any{"op": "addresses"}, &addrs)
	kinds := []string{"p2wpkh", "p2tr-key", "p2tr-script", "p2wsh-multisig"}

	d := startDaemon(t, "bank", "--network", "regtest")
	rpc := rpcTo(t, d)
	call := func(method string, result any, params ...any) error {
		t.Helper()
		var raw []json.RawMessage
		for _, p := range params {
			text, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			raw = append(raw, text)
		}
		out, err := rpc.RawRequest(method, raw)
		if err == nil && result != nil {
			err = json.Unmarshal(out, result)
		}
		return err
	}
	// A coinbase for each kind, twice: alone and together.
	var coins []jsCoin
	for range 2 {
		for _, kind := range kinds {
			var made []string
			if err := call("generatetoaddress", &made, 1, addrs[kind]); err != nil {
				t.Fatalf("%s %s: %v", kind, addrs[kind], err)
			}
			var block struct{ Tx []string }
			if err := call("getblock", &block, made[0]); err != nil {
				t.Fatal(err)
			}
			coins = append(coins, jsCoin{kind, block.Tx[0], 0, 5_000_000_000})
		}
	}
	if err := call("generatetoaddress", nil, 100, btcdPays); err != nil {
		t.Fatal(err)
	}

	type signed struct{ Hex, TxID string }
	spend := func(to string, coins ...jsCoin) (s signed) {
		t.Helper()
		ask(map[string]any{"op": "spend", "coins": coins, "to": to, "fee": 20_000}, &s)
		return s
	}
	var sent []string
	for i, kind := range kinds {
		s := spend(addrs[kinds[(i+1)%len(kinds)]], coins[i])
		// The amount of the output: the signature is of another transaction.
		forged := []byte(s.Hex)
		at := strings.Index(s.Hex, hex.EncodeToString([]byte{0xe0, 0xa3, 0x05, 0x2a, 0x01}))
		if at < 0 {
			t.Fatalf("%s: no amount in %s", kind, s.Hex)
		}
		forged[at] = 'd' // it pays less
		if err := call("sendrawtransaction", nil, string(forged)); err == nil {
			t.Errorf("%s: taken although it was changed after signing", kind)
		}
		var id string
		if err := call("sendrawtransaction", &id, s.Hex); err != nil || id != s.TxID {
			t.Errorf("%s: %s, %v", kind, id, err)
		}
		sent = append(sent, s.TxID)
	}
	all := spend(addrs["p2tr-key"], coins[len(kinds):]...)
	if err := call("sendrawtransaction", nil, all.Hex); err != nil {
		t.Errorf("all in one: %v", err)
	}
	sent = append(sent, all.TxID)
	var made []string
	if err := call("generatetoaddress", &made, 1, btcdPays); err != nil {
		t.Fatal(err)
	}
	var block struct{ Tx []string }
	if err := call("getblock", &block, made[0]); err != nil {
		t.Fatal(err)
	}
	mined := strings.Join(block.Tx, " ")
	for _, id := range sent {
		if !strings.Contains(mined, id) {
			t.Errorf("%s is not in the block", id)
		}
	}
	// What was received can be spent again.
	again := spend(btcdPays, jsCoin{"p2tr-key", all.TxID, 0, 4*5_000_000_000 - 20_000}, jsCoin{"p2tr-script", sent[1], 0, 5_000_000_000 - 20_000})
	if err := call("sendrawtransaction", nil, again.Hex); err != nil {
		t.Errorf("what was received: %v", err)
	}
}
