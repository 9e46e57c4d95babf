//go:build slow

package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
	"dunlin/config"
	"dunlin/internal/address"
)

// stakeNetwork makes a network with slots of a second, whose genesis is an hour old, of
// three holders: it returns its file and key files of the holders.
func stakeNetwork(t *testing.T) (p *consensus.Params, file string, keyFiles []string, stakers *enginetest.Stakers) {
	t.Helper()
	dir := t.TempDir()
	var holders []string
	var keys, tweaked []*btcec.PrivateKey
	for i, coins := range []int64{600_000, 300_000, 100_000} {
		secret := consensus.StakenetKey(i + 1)
		key, _ := btcec.PrivKeyFromBytes(secret[:])
		out := txscript.TweakTaprootPrivKey(*key, nil)
		keys, tweaked = append(keys, key), append(tweaked, out)
		holders = append(holders, config.FormatHolder(consensus.Holder{Key: [32]byte(schnorr.SerializePubKey(out.PubKey())), Value: coins * btcutil.SatoshiPerBitcoin}))
	}
	spec := config.DefaultStakeSpec("flock", time.Now().Add(-time.Hour).Truncate(time.Second), holders...)
	spec.Slot = time.Second
	file = filepath.Join(dir, "flock.toml")
	network, err := config.WriteNetworkFile(file, spec)
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		wif, err := btcutil.NewWIF(key, address.Params(network.Params), true)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, fmt.Sprintf("holder-%d.key", i+1))
		if err := os.WriteFile(name, []byte(wif.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		keyFiles = append(keyFiles, name)
	}
	return network.Params, file, keyFiles, enginetest.NewStakers(network.Params, tweaked...)
}

// TestE2EStakingDashboard: where stake makes blocks, the dashboard shows who does and who
// could, switches staking, and shows what this node won; of mining it shows nothing.
func TestE2EStakingDashboard(t *testing.T) {
	t.Parallel()
	_ = chromium(t)
	p, file, keyFiles, stakers := stakeNetwork(t)
	d := startDaemon(t, "staker", "--network-file", file, "--key-file", keyFiles[0])
	x := enginetest.NewBuilder(p)
	x.Engine, x.Prepare, x.Seal = pos.New(p), stakers.Prepare, stakers.Seal
	blocks := whoWon(t, p, append([]*consensus.Block{x.Genesis()}, x.MineN(x.Genesis(), 110)...))
	d.submits(blocks[1:]...)

	b := openBrowser(t, d)
	b.scheme("light")
	b.signIn(d)
	const way = `document.querySelector('nav a[href="#/miner"]')`
	b.until("the way to staking", way+`?.innerText.startsWith('Staking')`)
	if js[bool](b, `[...document.querySelectorAll('nav a')].some((a) => a.innerText.startsWith('Miner'))`) {
		t.Error("where stake makes blocks there is a miner")
	}
	js[bool](b, "("+way+".click(), true)")
	b.until("staking", `document.title.startsWith('Staking') && document.querySelector('main .section') && !document.querySelector('main .waiting')`)
	b.says("Not staking")
	b.says("in 1 coin")
	b.says("3 holders of")
	b.until("the holders with their bars", `document.querySelectorAll('main tbody tr').length === 3 && document.querySelectorAll('main tbody .track').length === 6`)
	b.says("60.0\u00a0%")
	b.says("None yet.")
	// A second block of the tip's stake and slot is shown as soon as the node knows it.
	b.says("None is known.")
	twin := x.MineTemplate(blocks[109].Block, enginetest.Template{Data: "twin"})
	if v, err := d.client.SubmitBlock(t.Context(), hex.EncodeToString(twin.Raw)); err != nil || v.Outcome != "side-chain" {
		t.Fatalf("%+v, %v", v, err)
	}
	b.until("the double stake", `document.querySelectorAll('[aria-label="Double stakes"] tbody tr').length === 1`)
	b.says(fmt.Sprintf("%s…", twin.Hash.String()[:8]))
	b.says("docs/pos.md")
	b.click("Not staking")
	b.until("staking is on", `document.querySelector('[role=switch]').getAttribute('aria-checked') === 'true'`)
	b.until("a slot is won", `document.querySelector('main table[aria-label="Won slots"] tbody tr, [aria-label="Won slots"] tbody tr')`)
	b.until("and is told to be active", `document.querySelector('[aria-label="Won slots"] tbody .tag.good')`)
	b.accessible("staking")
	b.clean("staking")

	b.window(360, 740)
	b.fits("staking on a telephone")
	b.accessible("staking on a telephone")
	b.window(1100, 1000)
	for _, s := range []string{"dark", "light"} {
		b.scheme(s)
		b.fits("staking, " + s)
		b.accessible("staking, " + s)
	}
	b.until("no message", `!document.querySelector('.toast')`)
	b.both("staking")

	b.click("Staking")
	b.until("staking is off", `document.querySelector('[role=switch]').getAttribute('aria-checked') === 'false'`)
	b.goTo("blocks")
	b.says("Won by")
	b.fits("blocks")
	b.goTo("explorer/block/" + blocks[100].Hash.String())
	b.says("Won by")
	b.says("of what took part")
	b.fits("a block")
	b.accessible("a block")
	b.goTo("overview")
	b.clean("other views")
}
