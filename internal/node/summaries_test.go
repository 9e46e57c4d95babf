package node

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/internal/api"
)

// What is remembered of a block is told as it was, with what is null.
func TestPackSummary(t *testing.T) {
	for _, want := range []api.BlockSummary{
		{Txs: 1, Size: 192, StrippedSize: 150, Weight: 642, Reward: 50e8, Fees: new(int64(0))},
		{Txs: 3, Size: 900, StrippedSize: 500, Weight: 2400, Reward: 50e8 + 7, Fees: new(int64(7)), AvgFee: new(int64(3)), AvgFeeRate: new(int64(-1)), Miner: "made by node 9", Data: "\x00ü", MinerAddress: "bcrt1q"},
		{Txs: 1 << 30, Reward: -1},
	} {
		for _, seal := range [][]byte{nil, {1, 2, 3}} {
			var got api.BlockSummary
			if rest := unpackSummary(packSummary(&want, seal), &got); !reflect.DeepEqual(got, want) || !bytes.Equal(rest, seal) {
				t.Errorf("%+v with seal %x, want %+v with %x", got, rest, want, seal)
			}
		}
	}
}

// The last blocks that were described are remembered, each once; hashes that begin alike are told apart, and what is too long is left out.
func TestSummaries(t *testing.T) {
	var s summaries
	hash := func(i int) (h chainhash.Hash) {
		binary.LittleEndian.PutUint32(h[:], uint32(i/2)) // two of each
		binary.LittleEndian.PutUint32(h[28:], uint32(i))
		return h
	}
	if _, ok := s.get(hash(0)); ok {
		t.Error("knows a block before any")
	}
	const all = maxSummaries + 300
	for i := range all {
		packed := packSummary(&api.BlockSummary{Txs: i, Size: 900, Weight: 3000, Reward: 50e8, Fees: new(int64(i)), Miner: "made by node 9", MinerAddress: strings.Repeat("a", 44)}, nil)
		for range 2 {
			s.put(hash(i), packed)
		}
	}
	for i := range all {
		packed, ok := s.get(hash(i))
		if ok != (i >= 300) {
			t.Fatalf("block %d: %v", i, ok)
		}
		if !ok {
			continue
		}
		var got api.BlockSummary
		if unpackSummary(packed, &got); got.Txs != i {
			t.Fatalf("block %d is told to be %d", i, got.Txs)
		}
	}
	if n := s.known.Size() + 8*len(s.keys); n > 192*maxSummaries {
		t.Errorf("%d blocks take %d bytes", s.known.Len(), n)
	}
	// The longest of them, with a seal: fewer, in as much as there may be.
	for i := range all {
		s.put(hash(all+i), make([]byte, summaryBytes))
	}
	if n := s.known.Size(); s.known.Len() < summariesSize/(summaryBytes+chainhash.HashSize) || n > summariesSize+8*maxSummaries {
		t.Errorf("%d blocks take %d bytes", s.known.Len(), n)
	}
	s.put(hash(-1), make([]byte, summaryBytes+1))
	if _, ok := s.get(hash(-1)); ok {
		t.Error("one that is too long is remembered")
	}
}
