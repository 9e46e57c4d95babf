//go:build slow

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/config"
	"dunlin/internal/address"
	"dunlin/internal/api"
)

// keyIn reads the key of a file that `network create` wrote.
func keyIn(t *testing.T, file string) *btcec.PrivateKey {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		wif, err := btcutil.DecodeWIF(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("%s: no key", file)
		}
		return wif.PrivKey
	}
	t.Fatalf("%s: no key", file)
	return nil
}

func taproot(key *btcec.PrivateKey) []byte {
	out := txscript.ComputeTaprootKeyNoScript(key.PubKey())
	return append([]byte{txscript.OP_1, txscript.OP_DATA_32}, schnorr.SerializePubKey(out)...)
}

// A chainLine is what a daemon's log says of a block, one beside the chain, or a
// reorganisation.
type chainLine struct {
	Message string  `json:"msg"`
	Height  int32   `json:"height"`
	Delay   float64 `json:"delay"` // s
	Depth   int32   `json:"depth"`
	Fork    int32   `json:"fork"`
}

// chainLines reads the log of a daemon that writes JSON.
func chainLines(d *daemon) (out []chainLine) {
	for line := range strings.Lines(d.log.String()) {
		var l chainLine
		if err := json.Unmarshal([]byte(line), &l); err == nil && (l.Message == "block" || l.Message == "fork" || l.Message == "reorg") {
			out = append(out, l)
		}
	}
	return out
}

// TestStakeFive: four holders with 50, 30, 15 and 5 % of the stake make blocks, each with
// a daemon of his own; one without any joins later, is paid, and stakes too. They agree,
// also after the richest was killed, and when he is back. With DUNLIN_LONG=1 it takes ten
// minutes.
//
// Where every block is with all before the next slot begins, no reorganisation is deeper
// than the last block (TestDepths of chain/consensus/pos). Slots of a second are short for
// a busy machine: deeper ones are asked for a block that was late.
func TestStakeFive(t *testing.T) {
	t.Parallel()
	long := os.Getenv("DUNLIN_LONG") == "1"
	dir := t.TempDir()
	file := filepath.Join(dir, "guild.toml")
	mustRun(t, "", "network", "create", "--name", "guild", "--engine", "pos", "--slot", "1s", "--stake-maturity", "10", "--out", file,
		"--new-holder", "500000", "--new-holder", "300000", "--new-holder", "150000", "--new-holder", "50000")
	network, err := config.ReadNetworkFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := network.Params
	start := time.Now()
	var all []*daemon
	join := func(keys string) *daemon {
		args := []string{"--network-file", file, "--stake", "--key-file", keys, "--log-format", "json"}
		for _, d := range all {
			args = append(args, "--bootstrap", d.addr())
		}
		d := startDaemon(t, fmt.Sprint("holder", len(all)+1), args...)
		all = append(all, d)
		return d
	}
	holderKey := func(n int) string { return filepath.Join(dir, fmt.Sprintf("guild-holder-%d.key", n)) }
	for n := 1; n <= 4; n++ {
		join(holderKey(n))
	}
	high := func(d *daemon, height int32) {
		t.Helper()
		eventually(t, patience, fmt.Sprintf("%s at height %d", d.name, height), func() error {
			s, err := d.status()
			if err == nil && s.Height < height {
				err = fmt.Errorf("height %d, %d peers, staking %+v", s.Height, s.Peers.Inbound+s.Peers.Outbound, s.Staking)
			}
			return err
		})
	}
	agree := func(list ...*daemon) (tip api.Status) {
		t.Helper()
		eventually(t, patience, "all agree on one tip", func() error {
			for i, d := range list {
				s, err := d.status()
				if err != nil {
					return err
				}
				if i == 0 {
					tip = s
				}
				if s.TipHash != tip.TipHash {
					return fmt.Errorf("%s at height %d %s, %s at height %d %s", list[0].name, tip.Height, tip.TipHash, d.name, s.Height, s.TipHash)
				}
			}
			return nil
		})
		return tip
	}
	until := func(share float64) { // of the ten minutes
		for d := all[1]; long && time.Since(start).Minutes() < 10*share; {
			high(d, d.mustStatus().Height+1)
		}
	}

	high(all[0], 3)
	until(0.25)
	agree(all...)

	// The late one: a third of the third holder's stake.
	own, err := btcec.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	wif, err := btcutil.NewWIF(own, address.Params(p), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(holderKey(5), []byte(wif.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	newcomer := join(holderKey(5))
	high(newcomer, 3)
	agree(all...)
	giver := keyIn(t, holderKey(3))
	genesis := p.Genesis.Transactions[0]
	coin := genesis.TxOut[2]
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: genesis.TxHash(), Index: 2}, nil, nil))
	tx.AddTxOut(wire.NewTxOut(coin.Value/3, taproot(own)))
	tx.AddTxOut(wire.NewTxOut(coin.Value/3*2-10_000, coin.PkScript))
	fetcher := txscript.NewCannedPrevOutputFetcher(coin.PkScript, coin.Value)
	if tx.TxIn[0].Witness, err = txscript.TaprootWitnessSignature(tx, txscript.NewTxSigHashes(tx, fetcher), 0, coin.Value, coin.PkScript, txscript.SigHashDefault, giver); err != nil {
		t.Fatal(err)
	}
	newcomer.mustSend(tx)
	eventually(t, patience, "the payment is stake", func() error {
		s, err := newcomer.client.Staking(t.Context())
		if err == nil && (s.Coins+s.ImmatureCoins == 0 || long && s.Coins == 0) {
			err = fmt.Errorf("%+v", s.StakingSummary)
		}
		return err
	})

	// The richest dies: the others go on, at half the rate for a while.
	until(0.5)
	before := agree(all...)
	all[0].kill9()
	high(newcomer, before.Height+3)
	until(0.75)
	tip := agree(all[1:]...)
	t.Logf("killed at height %d, the others are at %d", before.Height, tip.Height)
	all[0].start()
	high(all[0], tip.Height)
	until(1)
	last := agree(all...)

	took := time.Since(start)
	t.Logf("%d blocks in %s: one in %.1f slots", last.Height, took.Round(time.Second), took.Seconds()/float64(max(1, last.Height)))
	if last.Staking == nil || last.Height < before.Height+3 {
		t.Errorf("%+v", last)
	}
	late := make(map[int32]float64) // s, by height, at whom it took longest
	for _, d := range all {
		for _, l := range chainLines(d) {
			late[l.Height] = max(late[l.Height], l.Delay)
		}
	}
	const inTime = 0.75 // of a slot: the next block takes its time too
	for _, d := range all {
		var depths []int32
		for _, l := range chainLines(d) {
			if l.Message != "reorg" {
				continue
			}
			depths = append(depths, l.Depth)
			worst := 0.0
			for height := l.Fork + 1; height <= l.Fork+l.Depth+1; height++ {
				worst = max(worst, late[height])
			}
			if l.Depth > 1 && worst < inTime {
				t.Errorf("%s left %d blocks at once above height %d, though none took longer than %.2f s", d.name, l.Depth, l.Fork, worst)
			}
		}
		s, err := d.client.Staking(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d blocks since its start, with a share of %.2f; reorganisations of depth %v", d.name, s.Blocks, s.Share, depths)
	}
}
