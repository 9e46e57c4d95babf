package node

import (
	"encoding/binary"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/internal/api"
	"dunlin/internal/ring"
)

const (
	// maxSummaries is how many blocks are remembered by what is fixed of them. Where work makes blocks one takes some 100 bytes, and a seal
	// of stake as many again.
	maxSummaries  = 1024
	summariesSize = 256 << 10
	summaryBytes  = 512 // most of what packSummary makes: a script of a coinbase is short; what is longer is not remembered
)

// summaries remembers what never changes of blocks that were described and is not in the header tree: a block list is
// asked for again and again, and each block costs reading and decoding it. Safe for concurrent use.
type summaries struct {
	mu    sync.Mutex // guards what follows; held for a look at each key
	keys  []uint64   // that record n of the ring begins with, at n's remainder by maxSummaries
	known *ring.Ring // hash and what packSummary makes
}

// keyOf is the part of a hash that work does not make zero.
func keyOf(hash chainhash.Hash) uint64 { return binary.LittleEndian.Uint64(hash[:]) }

// get returns what put was given for a block.
func (s *summaries) get(hash chainhash.Hash) (packed []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.find(hash)
	if !ok {
		return nil, false
	}
	raw, _ := s.known.Append(nil, n)
	return raw[chainhash.HashSize:], true
}

// find returns the number of a block's record, the latest ones first. Callers hold mu.
func (s *summaries) find(hash chainhash.Hash) (n uint64, ok bool) {
	if s.known == nil {
		return 0, false
	}
	key := keyOf(hash)
	for n = s.known.Next(); n > s.known.First(); n-- {
		if s.keys[(n-1)%maxSummaries] == key {
			var full [chainhash.HashSize + summaryBytes]byte
			if raw, _ := s.known.Append(full[:0], n-1); chainhash.Hash(raw[:chainhash.HashSize]) == hash {
				return n - 1, true
			}
		}
	}
	return 0, false
}

func (s *summaries) put(hash chainhash.Hash, packed []byte) {
	if len(packed) > summaryBytes {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.find(hash); ok {
		return
	}
	if s.known == nil {
		s.keys, s.known = make([]uint64, maxSummaries), ring.New(maxSummaries, summariesSize)
	}
	s.keys[s.known.Next()%maxSummaries] = keyOf(hash)
	s.known.Add(append(hash[:], packed...))
}

// What packSummary says is not null.
const (
	hasFees = 1 << iota
	hasAverage
)

// packSummary packs what is in a block and not in its header, and its seal, nil if it has none.
func packSummary(s *api.BlockSummary, seal []byte) []byte {
	b := make([]byte, 0, 128)
	for _, v := range []int{s.Txs, s.Size, s.StrippedSize, s.Weight} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = binary.AppendVarint(b, s.Reward)
	switch {
	case s.Fees != nil && s.AvgFee != nil && s.AvgFeeRate != nil:
		b = append(b, hasFees|hasAverage)
		b = binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(b, *s.Fees), *s.AvgFee), *s.AvgFeeRate)
	case s.Fees != nil:
		b = binary.AppendVarint(append(b, hasFees), *s.Fees)
	default:
		b = append(b, 0)
	}
	for _, text := range []string{s.Miner, s.Data, s.MinerAddress} {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	return append(b, seal...)
}

// unpackSummary fills in what packSummary packed, and returns the seal.
func unpackSummary(b []byte, s *api.BlockSummary) (seal []byte) {
	p := unpacker(b)
	for _, v := range []*int{&s.Txs, &s.Size, &s.StrippedSize, &s.Weight} {
		*v = int(p.uint())
	}
	s.Reward = p.int()
	has := p.uint()
	if has&hasFees != 0 {
		s.Fees = new(p.int())
	}
	if has&hasAverage != 0 {
		s.AvgFee, s.AvgFeeRate = new(p.int()), new(p.int())
	}
	s.Miner, s.Data, s.MinerAddress = p.string(), p.string(), p.string()
	return p
}
