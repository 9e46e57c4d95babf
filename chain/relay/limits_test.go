package relay_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/relay"
)

// TestAssemblerConfig: every fault is named.
func TestAssemblerConfig(t *testing.T) {
	t.Parallel()
	if _, err := relay.NewAssembler(relay.AssemblerConfig{}); err == nil {
		t.Error("no params")
	}
	w := newWorld()
	_, err := relay.NewAssembler(relay.AssemblerConfig{
		Params: w.b.Params, MaxBlocks: -1, MaxBytes: 1, StallAfter: -1, OthersAfter: -1, WholeAfter: -1, GiveUpAfter: -1,
	})
	for _, name := range []string{"max blocks", "max bytes", "stall after", "others after", "whole after", "give up after"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
}

// TestEncodingsOfABlock: one encoding of each peer is looked at, of a few peers, and
// the false ones make room: the last that is looked at completes the block.
func TestEncodingsOfABlock(t *testing.T) {
	t.Parallel()
	for _, before := range []int{relay.MaxScans - 1, relay.MaxScans} {
		b := newBench(t, relay.AssemblerConfig{})
		blk := b.mine("b", 1, 9)
		b.pool.add(msgs(blk)...)
		for i := range before {
			e := relay.Announced{From: fmt.Sprint("evil", i), Block: b.spoilt(blk, uint64(i), nil, "ids")}
			b.step(e)
			e.Block = b.spoilt(blk, 50, nil, "")
			if b.step(e); b.ended[blk.Hash] != "" {
				t.Fatal("a second encoding of a peer was looked at")
			}
		}
		b.step(relay.Announced{From: "honest", Block: b.spoilt(blk, 99, nil, "")})
		if got, want := b.ended[blk.Hash] == "delivered", before < relay.MaxScans; got != want {
			t.Errorf("after %d others: delivered %v", before, got)
		}
	}
}

// TestAssemblerBytes: what blocks in work take stays in bounds, whatever is
// announced and answered.
func TestAssemblerBytes(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.AssemblerConfig{MaxBlocks: 64})
	most := int64(8 * b.w.b.Params.MaxBlockBytes())
	var peak int64
	check := func() {
		t.Helper()
		_, _, bytes := b.a.InWork()
		if peak = max(peak, bytes); bytes > most {
			t.Fatalf("%d bytes, at most %d", bytes, most)
		}
	}
	// Answers that fit all but one id, so that they are kept and the block not done.
	for i := range 16 {
		blk := b.w.large(b.w.b.Genesis(), uint64(i), 40, 3_600_000)
		b.blocks[fmt.Sprint(i)] = blk
		peer := fmt.Sprint("p", i)
		for _, x := range b.step(relay.Announced{From: peer, Block: b.spoilt(blk, 1, nil, "longer")}) {
			if ask, ok := x.(relay.AskTxs); ok {
				got := relay.GotTxs{ID: ask.ID}
				for _, i := range ask.Indexes {
					got.Txs = append(got.Txs, encode(t, blk.Txs[min(int(i), 39)].MsgTx()))
				}
				b.step(got)
			}
		}
		check()
	}
	if peak < most/2 {
		t.Errorf("at most %d bytes were in use: the limit was not met", peak)
	}
	if blocks, _, _ := b.a.InWork(); blocks == 16 || !slices.Contains(values(b.ended), "given up") {
		t.Error("nothing was displaced")
	}
}

func values(m map[chainhash.Hash]string) (out []string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// TestAssemblerPeers: so many peers are known and no more, and those that leave make
// room.
func TestAssemblerPeers(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.AssemblerConfig{})
	blk := b.mine("b", 1, 3)
	for i := range relay.MaxAssemblerPeers {
		b.step(relay.Peer{Peer: fmt.Sprint("p", i)})
	}
	b.step(relay.Peer{Peer: "late", Tip: blk.Hash})
	asked := func(nonce uint64) (peers []string) {
		b.step(relay.Announced{From: "gone", Block: b.spoilt(blk, nonce, nil, "")})
		for _, x := range b.step(relay.PeerGone{Peer: "gone"}) {
			peers = append(peers, peerOf(x))
		}
		return peers
	}
	if got := asked(1); len(got) != 1 || got[0] == "late" {
		t.Errorf("asks %v", got)
	}
	b.step(relay.PeerGone{Peer: "p7"})
	b.step(relay.Peer{Peer: "late", Tip: blk.Hash})
	b.now = b.now.Add(time.Second)
	var got []string
	for _, x := range b.step(relay.Tick{}) {
		got = append(got, peerOf(x))
	}
	if !slices.Contains(got, "late") {
		t.Errorf("asks %v", got)
	}
}

// TestCandidateTwice: that a pool yields one id twice is no clash.
func TestCandidateTwice(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.AssemblerConfig{})
	blk := b.mine("b", 1, 6)
	b.pool.add(msgs(blk)...)
	b.pool.ids = append(slices.Clone(b.pool.ids), b.pool.ids...)
	if b.step(relay.Announced{From: "p", Block: b.spoilt(blk, 1, nil, "")}); b.ended[blk.Hash] != "delivered" {
		t.Error("what came twice clashed")
	}
}
