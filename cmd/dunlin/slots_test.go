package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pos"
	"dunlin/internal/address"
	"dunlin/internal/api"
)

// wonBlock is a block of stakenet with who won its slot.
type wonBlock struct {
	*consensus.Block

	slot   int64
	stake  pos.Stake
	winner string
}

// whoWon tells of each block who did.
func whoWon(t *testing.T, p *consensus.Params, blocks []*consensus.Block) (out []wonBlock) {
	t.Helper()
	for _, block := range blocks {
		w := wonBlock{Block: block}
		w.slot, _ = pos.Slot(p, block.Header.Timestamp.Unix())
		if len(out) > 0 {
			stake, _, err := pos.ParseSeal(block.Header.Seal)
			if err != nil {
				t.Fatal(err)
			}
			w.stake = stake
			w.winner, _ = address.Of(stake.Script(), address.Params(p))
		}
		out = append(out, w)
	}
	return out
}

// submits hands blocks in, which must be connected.
func (d *daemon) submits(blocks ...wonBlock) {
	d.t.Helper()
	for _, b := range blocks {
		if v, err := d.client.SubmitBlock(d.t.Context(), hex.EncodeToString(b.Raw)); err != nil || v.Outcome != "connected" {
			d.t.Fatalf("block %v: %+v, %v", b.Hash, v, err)
		}
	}
}

// TestE2ESlots: on a network where stake makes blocks every node says who won each slot: in its log, in events, in every
// form of a block; and who could.
func TestE2ESlots(t *testing.T) {
	t.Parallel()
	x := newStakeholders(110)
	p, blocks := x.p, whoWon(t, x.p, x.blocks)
	d := startDaemon(t, "watcher", "--network", "stakenet", "--address-index")

	// Events and log, a block at a time.
	d.submits(blocks[1])
	last := d.hears("", []string{api.EventSlot}, func(e api.Event) bool {
		if e.Type == api.EventHello {
			d.submits(blocks[2])
			return false
		}
		var got api.SlotEvent
		if err := json.Unmarshal(e.Data, &got); err != nil {
			t.Fatal(err)
		}
		return e.Type == api.EventSlot && got.Height == 2 // the first may be told only now
	})
	d.submits(blocks[3:12]...)
	next := 3
	d.hears(last, []string{api.EventSlot}, func(e api.Event) bool {
		if e.Type != api.EventSlot {
			return false
		}
		var got api.SlotEvent
		if err := json.Unmarshal(e.Data, &got); err != nil {
			t.Fatal(err)
		}
		b := blocks[next]
		want := api.SlotEvent{
			Slot: b.slot, Height: int32(next), Hash: b.Hash.String(), Time: b.Header.Timestamp.UTC(), Winner: b.winner,
			OutPoint: b.stake.OutPoint.String(), Value: b.stake.Value, Share: got.Share,
		}
		if share := pos.Share(p, b.Header.Bits, int32(next), b.stake.Value); got != want || math.Abs(got.Share-share) > 1e-4 {
			t.Errorf("event %+v, want %+v with share %f", got, want, share)
		}
		next++
		return next == 12
	})
	for i, b := range blocks[1:12] {
		line := regexp.MustCompile(fmt.Sprintf(`INF block %d \S+ slot %d won by %s, share \d+\.\d%% txs=1 `, i+1, b.slot, b.winner))
		if n := len(line.FindAllString(d.log.String(), -1)); n != 1 {
			t.Errorf("%d lines of the log are %s", n, line)
		}
	}
	d.submits(blocks[12:]...)
	d.sayWho(blocks)
	d.sayWhoCould(p, blocks)
	readExamples(t, d)
	d.saysWhoSignedTwice(x)
}

// saysWhoSignedTwice hands in a second block of the tip's stake and slot, and asks for that
// in every way, also after a restart with kill -9.
func (d *daemon) saysWhoSignedTwice(x *stakeholders) {
	t := d.t
	t.Helper()
	const none = "no stake is known to have signed two blocks for one slot\n"
	if got := mustRun(t, "", "stake", "doubles", "--home", d.home); got != none {
		t.Errorf("before: %q", got)
	}
	first := x.tip()
	parent := x.blocks[len(x.blocks)-2]
	second := x.b.MineTemplate(parent, enginetest.Template{Data: "twin"})
	stake, _, err := pos.ParseSeal(second.Header.Seal)
	if err != nil {
		t.Fatal(err)
	}
	slot, _ := pos.Slot(x.p, second.Header.Timestamp.Unix())
	by, _ := address.Of(stake.Script(), address.Params(x.p))
	want := api.DoubleStake{
		Slot: slot, Address: by, OutPoint: stake.OutPoint.String(), Height: x.b.Height(first.Hash), First: first.Hash.String(), Second: second.Hash.String(),
	}
	d.hears("", []string{api.EventDouble}, func(e api.Event) bool {
		if e.Type == api.EventHello {
			if v, err := d.client.SubmitBlock(t.Context(), hex.EncodeToString(second.Raw)); err != nil || v.Outcome != "side-chain" {
				t.Fatalf("%+v, %v", v, err)
			}
			return false
		}
		var got api.DoubleStake
		if err := json.Unmarshal(e.Data, &got); err != nil {
			t.Fatal(err)
		}
		want.Seen = got.Seen
		if e.Type != api.EventDouble || got != want {
			t.Errorf("%s %+v, want %+v", e.Type, got, want)
		}
		return true
	})
	d.kill9()
	d.start()
	if got := asks[api.DoubleStakes](t, d, "/staking/doubles", http.StatusOK); got.Total != 1 || len(got.Doubles) != 1 || !got.Doubles[0].Seen.Equal(want.Seen.Truncate(time.Millisecond)) {
		t.Errorf("after a restart: %+v", got)
	}
	if v, err := d.metric("dunlin_stake_doubles_total"); v != 1 || err != nil {
		t.Errorf("metric: %v, %v", v, err)
	}
	if table := mustRun(t, "", "stake", "doubles", "--home", d.home); !strings.Contains(table, fmt.Sprint(slot)) || !strings.Contains(table, by) || !strings.Contains(table, want.Second) {
		t.Errorf("the table is\n%s", table)
	}
}

// sayWho checks the forms of a block.
func (d *daemon) sayWho(blocks []wonBlock) {
	t := d.t
	t.Helper()
	tip := blocks[len(blocks)-1]
	coin := api.StakeCoin{TxID: tip.stake.OutPoint.Hash.String(), VOut: tip.stake.OutPoint.Index, Value: tip.stake.Value}
	var simple []struct {
		Validator *string `json:"validator"`
	}
	if err := d.client.Call(t.Context(), http.MethodGet, "/blocks", nil, &simple); err != nil || len(simple) != len(blocks) {
		t.Fatalf("%d blocks, %v", len(simple), err)
	}
	for i, b := range blocks {
		if simple[i].Validator == nil || *simple[i].Validator != b.winner {
			t.Errorf("/blocks says that block %d is %v's, it is %s's", i, simple[i].Validator, b.winner)
		}
	}
	says := func(where string, by api.BySlot) {
		t.Helper()
		if by.Slot == nil || *by.Slot != tip.slot || by.Validator == nil || *by.Validator != tip.winner || by.Stake == nil || *by.Stake != coin || by.Share == nil {
			t.Errorf("%s: %+v, want slot %d of %s", where, by, tip.slot, tip.winner)
		}
	}
	says("block", asks[api.Block](t, d, "/chain/blocks/"+strconv.Itoa(len(blocks)-1), http.StatusOK).BySlot)
	says("head", asks[api.Block](t, d, "/chain/head", http.StatusOK).BySlot)
	says("recent", asks[api.RecentBlocks](t, d, "/chain/recent", http.StatusOK).Blocks[0].BySlot)
	details := asks[api.BlockDetails](t, d, "/chain/blocks/"+tip.Hash.String()+"/details", http.StatusOK)
	says("details", details.BySlot)
	if nonce, err := hex.DecodeString(details.Kernel); err != nil || len(nonce) != 32 || details.Modifier == "" ||
		fmt.Sprintf("%x", nonce[28:]) != fmt.Sprintf("%08x", tip.Header.Nonce) { // the hash is told in reverse
		t.Errorf("kernel %s of modifier %s, nonce %08x", details.Kernel, details.Modifier, tip.Header.Nonce)
	}
	genesis := asks[api.BlockDetails](t, d, "/chain/blocks/0/details", http.StatusOK)
	if genesis.Slot == nil || *genesis.Slot != 0 || genesis.Validator == nil || *genesis.Validator != "" || genesis.Stake != nil || genesis.Kernel != "" {
		t.Errorf("genesis: %+v", genesis.BySlot)
	}
	type rpcBlock struct {
		Flags     string
		Slot      int64
		Validator *string
		ProofHash string
		Modifier  string
		Signature string
		Stake     *struct {
			TxID  string
			VOut  uint32
			Value float64
		}
	}
	for _, method := range []string{"getblock", "getblockheader"} {
		got := rpcResult[rpcBlock](t, d, method, `["`+tip.Hash.String()+`"]`)
		if got.Flags != "proof-of-stake" || got.Slot != tip.slot || *got.Validator != tip.winner || got.ProofHash != details.Kernel ||
			got.Modifier != details.Modifier || got.Signature != hex.EncodeToString(tip.Header.Seal[76:]) || got.Stake == nil ||
			got.Stake.TxID != coin.TxID || got.Stake.VOut != coin.VOut || math.Round(got.Stake.Value*1e8) != float64(coin.Value) {
			t.Errorf("%s: %+v", method, got)
		}
		if got := rpcResult[rpcBlock](t, d, method, `["`+blocks[0].Hash.String()+`"]`); got.Validator == nil || *got.Validator != "" || got.Stake != nil || got.Signature != "" {
			t.Errorf("%s of genesis: %+v", method, got)
		}
	}
	if got, want := rpcResult[string](t, d, "getblockheader", `["`+tip.Hash.String()+`",false]`), hex.EncodeToString(tip.Raw[:consensus.HeaderBytes+pos.SealBytes]); got != want {
		t.Errorf("header %s, want %s", got, want)
	}
	if head := mustRun(t, "", "chain", "head", "--home", d.home); !regexp.MustCompile(`(?m)^slot +` + strconv.FormatInt(tip.slot, 10) + `\nvalidator +` + tip.winner + `$`).MatchString(head) {
		t.Errorf("chain head says\n%s", head)
	}
	if list := mustRun(t, "", "chain", "list", "--last", "1", "--home", d.home); !regexp.MustCompile(tip.winner + `\n$`).MatchString(list) {
		t.Errorf("chain list says\n%s", list)
	}
}

// sayWhoCould checks what is said of the stake that there is.
func (d *daemon) sayWhoCould(p *consensus.Params, blocks []wonBlock) {
	t := d.t
	t.Helper()
	st := d.mustStatus()
	if s := st.Slots; s == nil || s.LengthS != 16 || s.Online <= 0 || s.Online > s.Supply || s.Supply != int64(pos.Supply(p, st.Height)) || s.SinceBlock != s.Now-blocks[len(blocks)-1].slot {
		t.Errorf("slots: %+v", s)
	}
	mining := rpcResult[struct {
		NetworkHashPS  float64
		NetStakeWeight int64
	}](t, d, "getmininginfo", "[]")
	if mining.NetworkHashPS != 0 || mining.NetStakeWeight != st.Slots.Online {
		t.Errorf("getmininginfo: %+v, %d are online", mining, st.Slots.Online)
	}
	staking := rpcResult[map[string]any](t, d, "getstakinginfo", "[]")
	for key, want := range map[string]any{"enabled": false, "staking": false, "search-interval": 16.0, "weight": 0.0, "netstakeweight": float64(st.Slots.Online), "expectedtime": 0.0} {
		if staking[key] != want {
			t.Errorf("getstakinginfo: %s is %v, want %v", key, staking[key], want)
		}
	}
	if chain := rpcResult[struct{ MoneySupply float64 }](t, d, "getblockchaininfo", "[]"); math.Round(chain.MoneySupply*1e8) != float64(st.Slots.Supply) {
		t.Errorf("money supply %f", chain.MoneySupply)
	}

	wins := map[string]int{}
	for _, b := range blocks[len(blocks)-100:] {
		wins[b.winner]++
	}
	var holders api.StakeHolders
	if err := json.Unmarshal([]byte(mustRun(t, "", "stake", "holders", "-o", "json", "--home", d.home)), &holders); err != nil {
		t.Fatal(err)
	}
	if holders.Total != 4 || holders.Truncated || holders.Height != st.Height || holders.TipHash != st.TipHash || holders.MatureValue != 1e14 || holders.WindowBlocks != 100 || holders.Online != st.Slots.Online {
		t.Errorf("holders: %+v", holders)
	}
	for i, h := range holders.Holders {
		share := []float64{0.5, 0.3, 0.15, 0.05}[i]
		last := len(blocks) - 1
		for blocks[last].winner != h.Address && last > 0 {
			last--
		}
		if h.Coins != 1 || h.Value != int64(share*1e14) || h.MatureValue != h.Value || h.MatureIn != nil || math.Abs(h.Share-share) > 1e-9 ||
			h.Wins != wins[h.Address] || h.Chance <= 0 || h.LastWin == nil || h.LastWin.Height != int32(last) || h.LastWin.Slot != blocks[last].slot {
			t.Errorf("holder %d: %+v, last win %+v, want %d wins, the last at %d", i+1, h, h.LastWin, wins[h.Address], last)
		}
	}
	page := asks[api.StakeHolders](t, d, "/staking/holders?limit=3", http.StatusOK)
	rest := asks[api.StakeHolders](t, d, "/staking/holders?limit=3&cursor="+page.Next, http.StatusOK)
	if len(page.Holders) != 3 || len(rest.Holders) != 1 || rest.Next != "" || rest.Holders[0].Address != holders.Holders[3].Address || !page.At.Equal(holders.At) {
		t.Errorf("pages of %d and %d holders, read at %s and %s", len(page.Holders), len(rest.Holders), page.At, holders.At)
	}
	if p := asks[problem](t, d, "/staking/holders?cursor=1-2-3", http.StatusUnprocessableEntity); p.Detail != "cursor: no page gave it" {
		t.Errorf("%+v", p)
	}
	table := mustRun(t, "", "stake", "holders", "--limit", "2", "--home", d.home)
	if !regexp.MustCompile(`(?m)^` + holders.Holders[1].Address + ` +1 +300000\.00000000 +300000\.00000000 +\d+\.\d\d% +30\.00% +\d+ \(\d+\.00%\) +block \d+, 20`).MatchString(table) {
		t.Errorf("the table is\n%s", table)
	}
}
