package chain

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
)

// A tree from which branches are forgotten over and over answers as one that never had
// them: it finds every header that is left, and no other, its walks lead where they should,
// and it does not grow. Nodes of before stay what they were.
func TestTreeForgets(t *testing.T) {
	const ahead, side = 12, 40
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 8))
		tr := newTree(consensus.Stakenet(), ahead)
		tr.maxSide = side
		tr.index.oneKey = seed%4 == 0
		type model struct {
			parent chainhash.Hash
			height int32
			valid  bool
		}
		known := make(map[chainhash.Hash]*model)
		add := func(parent chainhash.Hash) chainhash.Hash {
			var h consensus.Header
			h.PrevBlock = parent
			binary.LittleEndian.PutUint64(h.MerkleRoot[:], rng.Uint64())
			h.Seal = make([]byte, tr.sealBytes)
			up, height := noNode, int32(0)
			if m := known[parent]; m != nil {
				up, _ = tr.find(&parent)
				height = m.height + 1
			}
			hash := consensus.HeaderHash(&h)
			tr.clock++
			tr.add(&h, hash, up, work128{lo: 1})
			known[hash] = &model{parent: parent, height: height}
			return hash
		}
		tip := add(chainhash.Hash{})
		valid := func(hash chainhash.Hash) {
			i, _ := tr.find(&hash)
			tr.prove(i)
			known[hash].valid = true
		}
		valid(tip)
		chain, most := []chainhash.Hash{tip}, 0
		for range 400 {
			// A branch from one of the last blocks; sometimes the next block with it.
			at := chain[max(0, len(chain)-1-rng.IntN(3))]
			for range 1 + rng.IntN(ahead) {
				if !tr.fits(1) {
					before := tr.nodes()
					old := make(map[uint32]node)
					for i := range tr.n {
						old[i] = *before.node(i)
					}
					i, _ := tr.find(&tip)
					j, ok := tr.find(&at)
					if !ok {
						t.Fatal("the branch at hand is not there")
					}
					tr.forget([]uint32{i, j}, tr.mostUnproven()-side)
					if !tr.fits(1) {
						t.Fatalf("seed %d: no room", seed)
					}
					for i, nd := range old {
						if *before.node(i) != nd {
							t.Fatalf("seed %d: node %d has changed for who has the old ones", seed, i)
						}
					}
					for hash := range known {
						if _, ok := tr.find(&hash); !ok {
							delete(known, hash)
						}
					}
				}
				at = add(at)
			}
			if rng.IntN(3) == 0 {
				tip = add(tip)
				valid(tip)
				chain = append(chain, tip)
			}
			most = max(most, int(tr.n))
		}
		if limit := len(chain) + tr.mostUnproven() + 1; most > limit {
			t.Errorf("seed %d: %d numbers, at most %d are needed", seed, most, limit)
		}
		live, waiting, parents := 0, 0, make(map[chainhash.Hash]bool)
		for _, m := range known {
			parents[m.parent] = true
		}
		for hash, m := range known {
			i, ok := tr.find(&hash)
			if !ok {
				t.Fatalf("seed %d: a header is lost", seed)
			}
			nd := tr.node(i)
			if nd.height != m.height || nd.hash != hash || tr.gone(i) || tr.has(i, flagBad) || tr.has(i, flagParent) != parents[hash] {
				t.Fatalf("seed %d: %+v, flags %b, model %+v", seed, nd, *tr.flags(i), m)
			}
			live++
			if !m.valid {
				waiting++
			}
			for up, at := hash, i; ; {
				if tr.ancestor(i, known[up].height) != at {
					t.Fatalf("seed %d: the ancestor at height %d is another", seed, known[up].height)
				}
				if up = known[up].parent; known[up] == nil {
					break
				}
				at = tr.node(at).parent
			}
		}
		if waiting != tr.waiting || live+len(tr.free) != int(tr.n) {
			t.Errorf("seed %d: %d waiting, %d counted; %d live and %d free of %d", seed, waiting, tr.waiting, live, len(tr.free), tr.n)
		}
		for _, hash := range chain {
			if known[hash] == nil {
				t.Errorf("seed %d: a validated header was forgotten", seed)
			}
		}
		if !slices.IsSortedFunc(tr.free, func(a, b uint32) int { return int(b) - int(a) }) {
			t.Errorf("seed %d: free numbers are not in order", seed)
		}
		for _, i := range tr.free {
			if !tr.gone(i) || len(tr.seals[i]) != 0 {
				t.Errorf("seed %d: number %d is free and not", seed, i)
			}
		}
	}
}
