package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/relay"
	"dunlin/config"
	"dunlin/internal/address"
	"dunlin/internal/api"
)

// stakeholders make stakenet's blocks outside of any daemon.
type stakeholders struct {
	p      *consensus.Params
	b      *enginetest.Builder
	blocks []*consensus.Block // from genesis on
}

func newStakeholders(n int) *stakeholders {
	p := consensus.Stakenet()
	s := enginetest.NewStakenet(p)
	x := &stakeholders{p: p, b: enginetest.NewBuilder(p)}
	x.b.Engine, x.b.Prepare, x.b.Seal = pos.New(p), s.Prepare, s.Seal
	x.blocks = append([]*consensus.Block{x.b.Genesis()}, x.b.MineN(x.b.Genesis(), n)...)
	return x
}

func (x *stakeholders) tip() *consensus.Block { return x.blocks[len(x.blocks)-1] }

func (x *stakeholders) mine(txs ...*wire.MsgTx) *consensus.Block {
	x.blocks = append(x.blocks, x.b.Mine(x.tip(), txs...))
	return x.tip()
}

// key is the (internal) key of initial holder n.
func (x *stakeholders) key(n int) *btcec.PrivateKey {
	secret := consensus.StakenetKey(n)
	k, _ := btcec.PrivKeyFromBytes(secret[:])
	return k
}

func (x *stakeholders) wif(t *testing.T, n int) string {
	t.Helper()
	wif, err := btcutil.NewWIF(x.key(n), address.Params(x.p), true)
	if err != nil {
		t.Fatal(err)
	}
	return wif.String()
}

// spend gives output i of a transaction that holder n has back to him, in so many parts.
func (x *stakeholders) spend(t *testing.T, n int, from *wire.MsgTx, i, parts int, fee int64) *wire.MsgTx {
	t.Helper()
	coin := from.TxOut[i]
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: from.TxHash(), Index: uint32(i)}, nil, nil))
	for range parts {
		tx.AddTxOut(wire.NewTxOut((coin.Value-fee)/int64(parts), coin.PkScript))
	}
	fetcher := txscript.NewCannedPrevOutputFetcher(coin.PkScript, coin.Value)
	witness, err := txscript.TaprootWitnessSignature(tx, txscript.NewTxSigHashes(tx, fetcher), 0, coin.Value, coin.PkScript, txscript.SigHashDefault, x.key(n))
	if err != nil {
		t.Fatal(err)
	}
	tx.TxIn[0].Witness = witness
	return tx
}

// result is a JSON-RPC call that must work.
func result[T any](t *testing.T, d *daemon, method string, params ...any) (v T) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"method": method, "params": append([]any{}, params...), "id": 1})
	if err != nil {
		t.Fatal(err)
	}
	_, answer, _ := strings.Cut(rpcRaw(t, d, string(body)), " ") // behind the HTTP status
	var r struct {
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal([]byte(answer), &r); err != nil {
		t.Fatalf("%s: %v in %s", method, err, answer)
	}
	if len(r.Error) > 0 && string(r.Error) != "null" {
		t.Fatalf("%s: %s", method, r.Error)
	}
	if err := json.Unmarshal(r.Result, &v); err != nil {
		t.Fatalf("%s: %v in %s", method, err, r.Result)
	}
	return v
}

// mustRun runs a command that must end well, and returns its output.
func mustRun(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, errs, code := dunlin(t, strings.NewReader(stdin), args...)
	if code != 0 {
		t.Fatalf("dunlin %v: exit %d\n%s%s", args, code, out, errs)
	}
	return out
}

// TestE2EStakenet: everything but the making of blocks works where stake makes them as
// where work does, and the outputs of genesis are money.
func TestE2EStakenet(t *testing.T) {
	t.Parallel()
	x := newStakeholders(110)
	args := []string{"--network", "stakenet", "--log-format", "json", "--log-level", "debug"}
	first := newDaemon(t, "first", append(args, "--tx-index", "--address-index")...)
	importBlocks(t, first, x.p, x.blocks[:101])
	first.start()
	second := startDaemon(t, "second", append(args, "--bootstrap", first.addr())...)
	second.reaches(x.blocks[100].Hash.String(), patience) // headers and blocks with seals
	knows(t, first, 1, patience)
	for _, b := range x.blocks[101:] { // small blocks, by RPC and gossip
		if got := rpcRaw(t, first, fmt.Sprintf(`{"method":"submitblock","params":["%x"],"id":1}`, b.Raw)); !strings.Contains(got, `"result":null`) {
			t.Fatal(got)
		}
	}
	second.reaches(x.tip().Hash.String(), patience)

	// A large block goes compact, and is put together out of the mempool: the poorest holder
	// moves his initial stake.
	first.meshed(1)
	genesis := x.blocks[0].Txs[0].MsgTx()
	move := x.spend(t, 4, genesis, 3, 800, 1_000_000)
	again := x.spend(t, 4, move, 0, 800, 1_000_000)
	first.mustSend(move)
	first.mustSend(again)
	second.holds(2)
	aged(t, first, again.TxHash().String())
	big := x.mine(move, again)
	if len(big.Raw) < relay.WholeBelow {
		t.Fatalf("the block has %d bytes, compact are those from %d", len(big.Raw), relay.WholeBelow)
	}
	result[any](t, first, "submitblock", hex.EncodeToString(big.Raw))
	second.reaches(big.Hash.String(), patience)
	if c := second.completed(big.Hash.String()); c.How != "compact" || c.Txs != 3 {
		t.Errorf("%+v", c)
	}
	for _, d := range []*daemon{first, second} {
		d.holds(0)
	}
	// A branch with more work takes the move back, and it waits again.
	later := big.Header.Timestamp.Add(x.p.SlotDuration) // nobody makes two blocks in a slot
	branch := []*consensus.Block{x.b.MineTemplate(x.blocks[110], enginetest.Template{Time: later})}
	branch = append(branch, x.b.Mine(branch[0]))
	for _, b := range branch {
		result[any](t, second, "submitblock", hex.EncodeToString(b.Raw))
	}
	for _, d := range []*daemon{first, second} {
		d.reaches(branch[1].Hash.String(), patience)
		d.holds(2)
	}
	x.blocks = append(x.blocks[:111], branch...)
	tip := x.mine(move, again)
	result[any](t, second, "submitblock", hex.EncodeToString(tip.Raw))
	for _, d := range []*daemon{first, second} {
		d.reaches(tip.Hash.String(), patience)
	}

	stakenetRPC(t, first, x, tip)
	stakenetPages(t, first, x, tip, again)
	stakenetWallet(t, second, x)
	stakenetHome(t, first, x, tip)
}

// stakenetRPC asks what Core's users ask.
func stakenetRPC(t *testing.T, d *daemon, x *stakeholders, tip *consensus.Block) {
	t.Helper()
	head := hex.EncodeToString(tip.Raw[:consensus.HeaderBytes+x.p.SealBytes])
	if got := result[string](t, d, "getblockheader", tip.Hash.String(), false); got != head {
		t.Errorf("getblockheader %s, want %s", got, head)
	}
	if got := result[string](t, d, "getblock", tip.Hash.String(), 0); got != hex.EncodeToString(tip.Raw) {
		t.Errorf("getblock 0: %d digits, want %d", len(got), 2*len(tip.Raw))
	}
	if got := result[any](t, d, "submitheader", head); got != nil {
		t.Errorf("submitheader: %v", got)
	}
	for _, c := range []struct{ method, params, want string }{
		{"submitheader", `["` + head[:2*consensus.HeaderBytes] + `"]`, "header of 80 bytes, want 220"},
		{"submitblock", fmt.Sprintf(`["%x"]`, tip.Raw), `"duplicate"`},
		{"getblocktemplate", `[{"rules":["segwit"]}]`, "made by stake, not by work"},
		{"generatetoaddress", `[1,"` + config.HolderAddress(consensus.StakenetHolders()[0].Key) + `"]`, "made by stake, not by work"},
		{"generatetodescriptor", `[1,"raw(51)"]`, "made by stake, not by work"},
		{"getnetworkhashps", `[]`, "made by stake, not by work"},
	} {
		if got := rpcRaw(t, d, `{"method":"`+c.method+`","params":`+c.params+`,"id":1}`); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %q", c.method, got, c.want)
		}
	}
	if m := result[map[string]any](t, d, "getmininginfo"); m["networkhashps"] != float64(0) || m["blocks"] != float64(113) {
		t.Errorf("getmininginfo: %v", m)
	}
	// Genesis: three of its coins are there still.
	genesis := x.blocks[0]
	id := genesis.Txs[0].Hash().String()
	for i, out := range genesis.Txs[0].MsgTx().TxOut {
		got := result[map[string]any](t, d, "gettxout", id, i)
		switch {
		case i == 3 && got != nil:
			t.Errorf("a coin that was spent: %v", got)
		case i < 3 && (got["value"] != btcutil.Amount(out.Value).ToBTC() || got["confirmations"] != float64(114)):
			t.Errorf("coin %d: %v", i, got)
		}
	}
	for _, params := range [][]any{{id, 2}, {id, true, genesis.Hash.String()}} {
		if got := result[map[string]any](t, d, "getrawtransaction", params...); got["blockhash"] != genesis.Hash.String() || len(got["vout"].([]any)) != 4 {
			t.Errorf("getrawtransaction of genesis: %v", got)
		}
	}
	if got := result[map[string]any](t, d, "getblock", genesis.Hash.String(), 3); len(got["tx"].([]any)) != 1 || got["nTx"] != float64(1) {
		t.Errorf("getblock of genesis: %v", got)
	}
	if got := result[string](t, d, "getblockheader", genesis.Hash.String(), false); len(got) != 2*(consensus.HeaderBytes+x.p.SealBytes) {
		t.Errorf("header of genesis: %s", got)
	}
	addr := config.HolderAddress(consensus.StakenetHolders()[0].Key)
	if got := result[map[string]any](t, d, "scantxoutset", "start", []string{"addr(" + addr + ")"}); got["total_amount"] != float64(500_000) {
		t.Errorf("scantxoutset: %v", got)
	}
	set := result[map[string]any](t, d, "gettxoutsetinfo")
	// A million, and 113 rewards of ten; the fees go to the makers of blocks, but the
	// builder leaves them.
	if total := set["total_amount"].(float64); total < 1_001_129 || total > 1_001_130 || set["height"] != float64(113) {
		t.Errorf("gettxoutsetinfo: %v", set)
	}
}

// stakenetPages asks what an explorer asks.
func stakenetPages(t *testing.T, d *daemon, x *stakeholders, tip *consensus.Block, moved *wire.MsgTx) {
	t.Helper()
	eventually(t, patience, "the indexes at the tip", func() error {
		for _, i := range asks[api.IndexesAnswer](t, d, "/indexes", http.StatusOK).Indexes {
			if !i.Enabled || !i.Synced || i.Height != 113 || i.Error != "" {
				return fmt.Errorf("%+v", i)
			}
		}
		return nil
	})
	holders := consensus.StakenetHolders()
	rich := asks[api.Address](t, d, "/address/"+config.HolderAddress(holders[0].Key), http.StatusOK)
	if rich.Balance != holders[0].Value || rich.Received != holders[0].Value || rich.FirstHeight != 0 {
		t.Errorf("the richest: %+v", rich)
	}
	poor := asks[api.Address](t, d, "/address/"+config.HolderAddress(holders[3].Key), http.StatusOK)
	if poor.Balance != poor.Received-poor.Sent || poor.Balance < holders[3].Value-2_100_000 || poor.Balance > holders[3].Value-2_000_000 {
		t.Errorf("the poorest: %+v", poor)
	}
	genesis := x.blocks[0]
	first := asks[api.TxDetails](t, d, "/tx/"+genesis.Txs[0].Hash().String()+"/details", http.StatusOK)
	if first.Status != api.TxConfirmed || first.BlockHash != genesis.Hash.String() || len(first.Outputs) != 4 || *first.Outputs[0].Spent || !*first.Outputs[3].Spent {
		t.Errorf("the first transaction: %+v", first)
	}
	last := asks[api.TxDetails](t, d, "/tx/"+moved.TxHash().String()+"/details", http.StatusOK)
	if last.Status != api.TxConfirmed || last.BlockHash != tip.Hash.String() || *last.Fee < 1_000_000 {
		t.Errorf("the last: %s in %s", last.Status, last.BlockHash)
	}
	b := asks[api.BlockDetails](t, d, "/chain/blocks/113/details", http.StatusOK)
	if b.Hash != tip.Hash.String() || b.Size != len(tip.Raw) || b.Weight != tip.Weight || b.StrippedSize != tip.StrippedSize {
		t.Errorf("the tip: %+v", b)
	}
	g := asks[api.BlockDetails](t, d, "/chain/blocks/0/details", http.StatusOK)
	if g.Hash != genesis.Hash.String() || g.Reward != 1_000_000e8 || g.Subsidy != 1_000_000e8 || g.MinerAddress != config.HolderAddress(holders[0].Key) {
		t.Errorf("genesis: %+v", g)
	}
	if list := asks[api.BlockTxs](t, d, "/chain/blocks/0/txs", http.StatusOK); list.Total != 1 || len(list.Txs[0].Outputs) != 4 {
		t.Errorf("transactions of genesis: %+v", list)
	}
}

// stakenetWallet makes a wallet of the second holder's key: it finds what genesis gave him.
func stakenetWallet(t *testing.T, d *daemon, x *stakeholders) {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(secret, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "", "wallet", "create", "--home", d.home, "--passphrase-file", secret)
	mustRun(t, "", "wallet", "unlock", "--home", d.home, "--passphrase-file", secret)
	desc := "tr(" + x.wif(t, 2) + ")"
	if out := mustRun(t, desc+"\n", "wallet", "import", "--home", d.home, "--passphrase-file", secret, "--from-height", "0"); strings.Contains(out, x.wif(t, 2)) {
		t.Error("the answer has the key")
	}
	eventually(t, patience, "the wallet has the initial stake", func() error {
		out := mustRun(t, "", "wallet", "balance", "--home", d.home)
		if !strings.Contains(out, "300000.00000000") {
			return fmt.Errorf("balance: %s", out)
		}
		return nil
	})
	// It can be spent from the first block on.
	to := config.HolderAddress(consensus.StakenetHolders()[0].Key)
	mustRun(t, "", "wallet", "send", to, "1000", "--home", d.home, "--passphrase-file", secret, "--yes")
	d.holds(1)
}

// stakenetHome works on the stopped home: its files, and the chain in the form of others.
func stakenetHome(t *testing.T, d *daemon, x *stakeholders, tip *consensus.Block) {
	t.Helper()
	d.stop()
	mustRun(t, "", "chain", "verify", "--home", d.home, "--full")
	mustRun(t, "", "chain", "reindex", "--home", d.home)
	dir := t.TempDir()
	plain, packed := filepath.Join(dir, "all.dat"), filepath.Join(dir, "all.dat.zst")
	mustRun(t, "", "chain", "export", "--home", d.home, plain)
	mustRun(t, "", "chain", "export", "--home", d.home, packed)
	raw, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, b := range x.blocks {
		want += 8 + len(b.Raw)
	}
	if len(raw) != want {
		t.Errorf("%d bytes are exported of %d", len(raw), want)
	}
	home := filepath.Join(dir, "other")
	mustRun(t, "", "chain", "import", "--home", home, "--network", "stakenet", packed)
	mustRun(t, "", "chain", "verify", "--home", home, "--full")
	d.start()
	d.reaches(tip.Hash.String(), patience)
}
