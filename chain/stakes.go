package chain

import (
	"sync"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// A header claims a coin, and anybody can claim any. Only its block, once it is connected,
// shows that the claim is true. But much of what is false shows before, without a block: a
// stake must be mature, so up to StakeMaturity blocks above the last common block of a
// branch and the validated chain every stake is a coin that was there, unspent, at that
// common block. Whether it was, the coins of today tell, and which of them the blocks since
// have spent: those of the last spentDepth blocks are remembered for that.
//
// So on a branch that leaves the chain near its tip, headers cost real stake. Where it
// leaves further down, or higher up on it, they do not, and what bounds them is elsewhere
// (forget.go, aside.go).

// A staker is an engine whose headers claim coins.
type staker interface {
	// CheckStake is what CheckBlock checks of a header's claim; coins are those of past.
	CheckStake(past consensus.Past, coins consensus.Coins, h *consensus.Header) error
}

const (
	// spentDepth is for how many blocks, at most, spent coins are remembered.
	spentDepth = 1 << 10
	// maxSpentStakes is how many coins are, some 10 MB; for more those of the lowest blocks
	// are forgotten.
	maxSpentStakes = 1 << 16
	// maxSpentRead is how many bytes of blocks are read for them after a start.
	maxSpentRead = 16 << 20
)

// spentStakes are the coins that could be stake and that the last blocks spent.
type spentStakes struct {
	mu     sync.Mutex   // guards what follows, for a few instructions
	blocks []spentBlock // by height modulo their number; none where there is no stake
	coins  int          // in all of them
	lowest int32        // no block below is remembered
}

// A spentBlock is what one block spent. Node 0, genesis, spends nothing: then it is empty.
type spentBlock struct {
	node   uint32
	height int32
	coins  map[wire.OutPoint]consensus.Coin // nil: none
}

func newSpentStakes(p *consensus.Params) *spentStakes {
	if p.SealBytes == 0 {
		return new(spentStakes)
	}
	return &spentStakes{blocks: make([]spentBlock, min(max(p.MaxReorg, 1), spentDepth))}
}

// note remembers what a block that was connected spent. Scripts are copied.
func (s *spentStakes) note(node uint32, height int32, txs []consensus.SpentTx) {
	if len(s.blocks) == 0 {
		return
	}
	b := spentBlock{node: node, height: height}
	for i := range txs {
		if i == 0 {
			continue
		}
		for n, in := range txs[i].Tx.TxIn {
			if coin := txs[i].Coins[n]; txscript.IsPayToTaproot(coin.Script) && coin.Height < height {
				if b.coins == nil {
					b.coins = make(map[wire.OutPoint]consensus.Coin)
				}
				coin.Script = append([]byte(nil), coin.Script...)
				b.coins[in.PreviousOutPoint] = coin
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := &s.blocks[int(height)%len(s.blocks)]
	s.coins += len(b.coins) - len(at.coins)
	*at = b
	low := height - int32(len(s.blocks)) + 1
	for s.lowest = max(s.lowest, low); s.coins > maxSpentStakes && s.lowest < height; s.lowest++ {
		if old := &s.blocks[int(s.lowest)%len(s.blocks)]; old.height == s.lowest {
			s.coins -= len(old.coins)
			*old = spentBlock{}
		}
	}
	if s.coins > maxSpentStakes { // the block alone
		s.coins -= len(at.coins)
		*at = spentBlock{}
	}
}

// since looks for a coin among what the blocks from above a height up to tip have spent.
// known is false if not all of them are remembered.
func (s *spentStakes) since(ns nodes, above int32, tip uint32, op wire.OutPoint) (coin consensus.Coin, ok, known bool) {
	height := ns.node(tip).height
	if int(height-above) > len(s.blocks) {
		return coin, false, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := tip; height > above; height-- {
		b := &s.blocks[int(height)%len(s.blocks)]
		if b.node != i || b.height != height {
			return coin, false, false
		}
		if coin, ok = b.coins[op]; ok {
			return coin, true, true
		}
		i = ns.node(i).parent
	}
	return coin, false, true
}

// loadSpentStakes reads what the last blocks spent, as far as that is not much to read.
func (c *Chain) loadSpentStakes() {
	s, t := c.spentStakes, c.tree
	read := int64(0)
	for i := c.tip.get(); t.node(i).height > 0 && int(t.node(c.tip.get()).height-t.node(i).height) < len(s.blocks); i = t.node(i).parent {
		nd := t.node(i)
		t.mu.RLock()
		at := t.body(i)
		t.mu.RUnlock()
		if read += int64(at.block.Size) + int64(at.undo.Size); read > maxSpentRead || at.block.Size == 0 {
			return
		}
		raw, err := c.store.ReadBlock(at.block)
		if err != nil {
			return // whoever needs it says so
		}
		b, err := consensus.DecodeBlock(c.o.Params, raw)
		if err != nil {
			return
		}
		txs, err := c.readUndo(b, nd.height, at.undo)
		if err != nil {
			return
		}
		s.note(i, nd.height, txs)
	}
}

// coinsAt are the coins as of a block of the validated chain, as far as they could be stake
// there.
type coinsAt struct {
	c       *Chain
	ns      nodes
	at, tip uint32
	unknown bool // the answer is not at hand
}

// Coin is consensus.Coins.
func (v *coinsAt) Coin(op wire.OutPoint) (consensus.Coin, bool, error) {
	height := v.ns.node(v.at).height
	coin, ok, err := v.c.coins.view(op)
	if err == nil && !ok && v.at != v.tip {
		var known bool
		coin, ok, known = v.c.spentStakes.since(v.ns, height, v.tip, op)
		v.unknown = v.unknown || !known
	}
	if err != nil || !ok || coin.Height > height {
		return consensus.Coin{}, false, err
	}
	return coin, true, nil
}

// upTo is a past of which only the height is known.
type upTo struct {
	consensus.Past
	height int32
}

// Height is that of the parent.
func (u upTo) Height() int32 { return u.height }

// CheckStake looks the stake of a header up, if it is low enough on a branch that leaves the
// validated chain near its tip: its fault there is that of the block, if it has one with
// this seal. As a header alone does not cover its seal it blames nobody. nil if the parent is
// unknown, or the coins are not at hand.
func (c *Chain) CheckStake(h *consensus.Header) error {
	rule, _ := c.lookUpStake(h)
	if rule == nil {
		return nil
	}
	return rule
}

// lookUpStake is CheckStake; found says that the coin is there, and its owner's key the seal's.
func (c *Chain) lookUpStake(h *consensus.Header) (rule *consensus.RuleError, found bool) {
	s, ok := c.o.Engine.(staker)
	if !ok {
		return nil, false
	}
	tip := c.tip.get()
	ns, parent, ok := c.tree.look(&h.PrevBlock)
	if !ok {
		return nil, false
	}
	v := coinsAt{c: c, ns: ns, at: ns.fork(parent, tip), tip: tip}
	height := ns.node(parent).height + 1
	if height-ns.node(v.at).height > c.o.Params.StakeMaturity {
		return nil, false
	}
	err := s.CheckStake(upTo{past{ns, parent}, height - 1}, &v, h)
	if v.unknown || c.tip.get() != tip {
		return nil, false
	}
	if rule = asRule(err); rule != nil {
		return ruleError(rule.Rule, consensus.BlameNobody, rule.Detail), false
	}
	return nil, err == nil
}
