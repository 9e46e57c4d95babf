package chain_test

import (
	"bytes"
	"math"
	"reflect"
	"testing"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

func TestUndoRoundTrip(t *testing.T) {
	coins := []consensus.Coin{
		{Value: 0, Script: []byte{}, Height: 0},
		{Value: 50_0000_0000, Script: []byte{0x51}, Height: 1, Coinbase: true},
		{Value: 21_000_000 * 1_0000_0000, Script: bytes.Repeat([]byte{1}, 10_000), Height: math.MaxInt32},
	}
	raw := chain.AppendUndo(nil, []consensus.SpentTx{{}, {Coins: coins[:1]}, {}, {Coins: coins[1:]}})
	got, err := chain.DecodeUndo(raw, 3)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, coins) {
		t.Errorf("got %v", got)
	}
	for n := range raw {
		if _, err := chain.DecodeUndo(raw[:n], 3); err == nil {
			t.Fatalf("cut to %d bytes it still decodes", n)
		}
	}
	if _, err := chain.DecodeUndo(append(raw, 0), 3); err == nil {
		t.Error("a trailing byte is accepted")
	}
	if _, err := chain.DecodeUndo(raw, 2); err == nil {
		t.Error("another number of coins is accepted")
	}
}

// A decoded record encodes to itself, and nothing is allocated for what is not there.
func FuzzUndo(f *testing.F) {
	f.Add([]byte{0}, 0)
	f.Add([]byte{1, 3, 5, 1, 0x51}, 1)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f}, 1<<30)
	f.Add([]byte{1, 3, 5, 0xff, 0x7f, 0x51}, 1)
	f.Fuzz(func(t *testing.T, raw []byte, want int) {
		var coins []consensus.Coin
		var err error
		got := memory(t, func() { coins, err = chain.DecodeUndo(raw, want) })
		// The block is there already, with an input of 41 bytes or more for each coin.
		if limit := uint64(8*(len(raw)+41*len(coins)) + 64<<10); got > limit {
			t.Fatalf("%d bytes took %d of memory, at most %d", len(raw), got, limit)
		}
		if err != nil {
			return
		}
		again := chain.AppendUndo(nil, []consensus.SpentTx{{}, {Coins: coins}})
		if !bytes.Equal(again, raw) {
			t.Fatalf("%x decodes to %v, which encodes to %x", raw, coins, again)
		}
	})
}
