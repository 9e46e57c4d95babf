package pos_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
)

// A simBlock is a block of a simulated network, and its own past.
type simBlock struct {
	parent *simBlock
	h      consensus.Header
	hash   chainhash.Hash
	height int32
	work   *big.Int // cumulative

	modifier *chainhash.Hash // of its children
	bits     uint32          // likewise
}

func (b *simBlock) Height() int32        { return b.height }
func (b *simBlock) Hash() chainhash.Hash { return b.hash }
func (b *simBlock) At(height int32) consensus.PastHeader {
	for b.height > height {
		b = b.parent
	}
	return consensus.PastHeader{Bits: b.h.Bits, Nonce: b.h.Nonce, Time: b.h.Timestamp.Unix()}
}

// depth is how many blocks of from are not below to.
func depth(from, to *simBlock) int {
	n := from.height
	for from != to {
		if from.height >= to.height {
			from = from.parent
		} else {
			to = to.parent
		}
	}
	return int(n - from.height)
}

// A simNet is nodes with a stake each that follow the most work: blocks go from each to
// each in a time of their own.
type simNet struct {
	p     *consensus.Params
	e     *pos.Engine
	rng   *rand.Rand
	lots  bool          // blocks of one slot are drawn between
	delay time.Duration // from node to node, at most
	nodes []simNode
	depth []int // how often a node left so many blocks at once
}

type simNode struct {
	stake pos.Stake
	tip   *simBlock
	known map[*simBlock]bool
	waits map[*simBlock][]*simBlock // for their parent
	queue []simArrival              // the earliest first
}

type simArrival struct {
	at    time.Duration // since genesis
	block *simBlock
}

func newSimNet(seed uint64, lots bool, delay time.Duration, shares ...float64) *simNet {
	l := newLottery(seed)
	n := &simNet{p: l.p, e: l.e, rng: l.rng, lots: lots, delay: delay, depth: make([]int, 20)}
	genesis := &simBlock{h: consensus.Header{BlockHeader: n.p.Genesis.Header}, hash: n.p.GenesisHash, work: new(big.Int)}
	for i, share := range shares {
		node := simNode{tip: genesis, known: map[*simBlock]bool{genesis: true}, waits: make(map[*simBlock][]*simBlock)}
		node.stake.Value = int64(1_000_000e8 * share)
		node.stake.OutPoint.Index = uint32(i)
		n.nodes = append(n.nodes, node)
	}
	return n
}

// at is a time as a clock shows it.
func (n *simNet) at(t time.Duration) time.Time { return n.p.Genesis.Header.Timestamp.Add(t) }

// deliver lets all that arrived at a node before a time count.
func (n *simNet) deliver(node *simNode, until time.Duration) {
	for len(node.queue) > 0 && node.queue[0].at < until {
		next := node.queue[0]
		node.queue = node.queue[1:]
		n.take(node, next.block, next.at)
	}
}

func (n *simNet) take(node *simNode, b *simBlock, now time.Duration) {
	if !node.known[b.parent] {
		node.waits[b.parent] = append(node.waits[b.parent], b)
		return
	}
	node.known[b] = true
	switch cmp := b.work.Cmp(node.tip.work); {
	case cmp > 0,
		n.lots && cmp == 0 && b.parent == node.tip.parent && n.e.Precedes(b.parent, &b.h, &node.tip.h, n.at(now)):
		n.depth[depth(node.tip, b)]++
		node.tip = b
	}
	for _, child := range node.waits[b] {
		n.take(node, child, now)
	}
	delete(node.waits, b)
}

// run plays so many slots and lets all blocks arrive.
func (n *simNet) run(slots int64) {
	for slot := int64(1); slot <= slots; slot++ {
		begins := time.Duration(slot) * n.p.SlotDuration
		for i := range n.nodes {
			node := &n.nodes[i]
			n.deliver(node, begins)
			if last, _ := pos.Slot(n.p, node.tip.h.Timestamp.Unix()); last < slot {
				n.make(i, slot, begins)
			}
		}
	}
	for i := range n.nodes {
		n.deliver(&n.nodes[i], 1<<62)
	}
}

// make lets a node make a block if it has won the slot.
func (n *simNet) make(i int, slot int64, now time.Duration) {
	node := &n.nodes[i]
	past := node.tip
	if past.modifier == nil {
		past.modifier, past.bits = new(pos.Modifier(n.p, past)), n.e.NextBits(past, n.at(now))
	}
	kernel := pos.Kernel(*past.modifier, &node.stake, slot)
	if !pos.Wins(kernel, past.bits, node.stake.Value) {
		return
	}
	b := &simBlock{parent: past, height: past.height + 1}
	b.h.Version, b.h.PrevBlock, b.h.Timestamp, b.h.Bits, b.h.Nonce = 4, past.hash, n.at(now), past.bits, pos.Nonce(kernel)
	b.h.Seal = node.stake.Seal([64]byte{})
	b.h.MerkleRoot[0], b.h.MerkleRoot[1] = byte(i), 1
	b.hash = consensus.HeaderHash(&b.h)
	b.work = new(big.Int).Add(past.work, n.e.Work(&b.h))
	n.take(node, b, now)
	for k := range n.nodes {
		if k == i {
			continue
		}
		to := &n.nodes[k]
		to.queue = append(to.queue, simArrival{now + time.Duration(n.rng.Int64N(int64(n.delay))) + 1, b})
		slices.SortStableFunc(to.queue, func(a, b simArrival) int { return int(a.at - b.at) })
	}
}

// deepest is the depth of the deepest reorganisation, all how many there were.
func (n *simNet) deepest() (depth, all int) {
	for d, times := range n.depth {
		if d > 0 && times > 0 {
			depth, all = d, all+times
		}
	}
	return depth, all
}

// TestDepths: where every block is everywhere before the next slot begins, no
// reorganisation is deeper than the last block if blocks of one slot are drawn between;
// where the first seen stays they are. (Then all nodes are at one tip when a slot begins,
// so its blocks are siblings with the same work, and all nodes take the same of them.)
// With slower blocks it helps less. The seeds are fixed, so nothing here is chance.
func TestDepths(t *testing.T) {
	t.Parallel()
	slots := int64(20_000)
	if testing.Short() {
		slots = 4_000
	}
	shares := []float64{0.50, 0.30, 0.12, 0.05, 0.03}
	for _, slow := range []float64{0.9, 1.5, 3} {
		var deepest, all [2]int
		for k, lots := range []bool{false, true} {
			n := newSimNet(11, lots, time.Duration(slow*float64(16*time.Second)), shares...)
			n.run(slots)
			deepest[k], all[k] = n.deepest()
			for i := range n.nodes[1:] {
				if depth(n.nodes[i].tip, n.nodes[0].tip) > 3 {
					t.Errorf("delays up to %.1f slots: node %d is on another branch", slow, i)
				}
			}
			t.Logf("delays up to %.1f slots, lots %5t: %d blocks, %d reorganisations in %d nodes, by depth %v",
				slow, lots, n.nodes[0].tip.height, all[k], len(shares), n.depth[1:8])
		}
		if slow < 1 {
			if deepest[1] > 1 {
				t.Errorf("delays up to %.1f slots: one %d deep", slow, deepest[1])
			}
			if deepest[0] < 2 {
				t.Errorf("delays up to %.1f slots: none deeper than %d where the first seen stays: this shows nothing", slow, deepest[0])
			}
		} else if deepest[1] > deepest[0] {
			t.Errorf("delays up to %.1f slots: %d deep, %d where the first seen stays", slow, deepest[1], deepest[0])
		}
	}
}

// TestLotsAreFair: of two that win the same slot the one with more money goes first no more
// and no less often than is right, be it one coin or many. By the kernel alone, which is
// lower the smaller the coin, whoever splits would win nearly all of them.
func TestLotsAreFair(t *testing.T) {
	t.Parallel()
	l := newLottery(12)
	bits := l.p.Genesis.Header.Bits
	modifier := pos.Modifier(l.p, l.chain)
	const slots = 40_000
	for _, parts := range []int{1, 20} {
		stakes := []pos.Stake{{Value: 600_000e8}}
		for k := range parts {
			s := pos.Stake{Value: 400_000e8 / int64(parts)}
			s.OutPoint.Index = uint32(k + 1)
			stakes = append(stakes, s)
		}
		won, contested := [2]int{}, [2]int{}
		for slot := int64(1); slot <= slots; slot++ {
			var best consensus.Header
			winner, both := -1, [2]bool{}
			for i := range stakes {
				if !pos.Wins(pos.Kernel(modifier, &stakes[i], slot), bits, stakes[i].Value) {
					continue
				}
				h := consensus.Header{}
				h.Timestamp, h.Seal = time.Unix(pos.SlotTime(l.p, slot), 0), stakes[i].Seal([64]byte{})
				owner := min(i, 1)
				both[owner] = true
				if winner < 0 || l.e.Precedes(l.chain, &h, &best, h.Timestamp) {
					best, winner = h, owner
				}
			}
			if winner >= 0 {
				won[winner]++
				if both[0] && both[1] {
					contested[winner]++
				}
			}
		}
		// A coin's lot is even below the target when it wins, with 0.15 and 0.1 / parts.
		var first, second float64
		const steps = 1_000
		for k := range steps {
			x, n := (float64(k)+0.5)/steps, float64(parts)
			first += 0.15 * math.Pow(1-0.1*x/n, n) / steps
			second += 0.1 * math.Pow(1-0.1*x/n, n-1) * (1 - 0.15*x) / steps
		}
		rest := slots - won[0] - won[1]
		x := chiSquare([]int{won[0], won[1], rest}, []float64{slots * first, slots * second, slots * (1 - first - second)})
		t.Logf("0.4 in %d coins: won %v of %d slots, want %.0f and %.0f (chi-square %.2f); of slots that both won %v",
			parts, won, slots, slots*first, slots*second, x, contested)
		if x > 9.210 { // p > 0.01 with two degrees of freedom
			t.Errorf("0.4 in %d coins: won %v, want %.0f and %.0f", parts, won, slots*first, slots*second)
		}
		if of := contested[0] + contested[1]; contested[1] > of*6/10 || contested[1] < of*4/10 {
			t.Errorf("0.4 in %d coins: %d of %d contested slots", parts, contested[1], of)
		}
	}
}
