package node

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
	"dunlin/internal/api"
)

const (
	// maxHolders is how many holders are counted at a time: 20 MB while coins are read.
	// Twice as many may be before the poorest are left out.
	maxHolders = 1 << 16
	// listedHolders of them are kept between requests: 2 MB.
	listedHolders = 10_000
	// winsWindow is over how many blocks shares of wins are told, and winsSought how far
	// back a holder's last win is looked for.
	winsWindow = 100
	winsSought = 1000
	// scanRest is how many times as long as it took to read all coins what was read is
	// shown for, although the tip has moved: that keeps reading to a tenth of the time.
	scanRest = 10
)

// A holding is what one key has in coins that can win slots.
type holding struct {
	key                [32]byte
	coins, value       int64
	matureCoins, ready int64
	odds               pos.Odds // of the mature ones in a slot
	next               int32    // height from which the next of the others is mature; 0: none
}

// add counts a coin; a satoshi wins a slot with probability chance.
func (h *holding) add(p *consensus.Params, coin *consensus.Coin, height int32, chance float64) {
	h.coins++
	h.value += coin.Value
	if pos.Mature(p, coin.Height, height) {
		h.matureCoins++
		h.ready += coin.Value
		h.odds.Add(min(1, chance*float64(coin.Value)))
	} else if at := coin.Height + p.StakeMaturity; h.next == 0 || at < h.next {
		h.next = at
	}
}

// A census counts coins by holder. It keeps at most twice most holders: when there are
// more, all lose what the one in the middle has, and those with nothing left go. Whoever
// has more than total/most of all value stays, but not with all that he has: so a second
// round counts the coins of those who are left, and of no others (Misra and Gries 1982,
// with weights).
type census struct {
	p      *consensus.Params
	most   int
	height int32   // of the block that the coins could win
	chance float64 // of a satoshi in a slot
	byKey  map[[32]byte]*holding
	weight map[[32]byte]int64 // what is left of a holder; nil until the first loss
	known  bool               // holders are those of the first round: no other is counted
	lost   bool               // somebody went; never in the second round

	all holding // the sums over all holders
}

// key is the holder of a coin that can be a stake.
func stakeKey(script []byte) (key [32]byte, ok bool) {
	if len(script) != 34 || script[0] != txscript.OP_1 || script[1] != txscript.OP_DATA_32 {
		return key, false
	}
	return [32]byte(script[2:]), true
}

func (c *census) add(coin *consensus.Coin) {
	key, ok := stakeKey(coin.Script)
	if !ok {
		return
	}
	c.all.add(c.p, coin, c.height, c.chance)
	h := c.byKey[key]
	if h == nil {
		if c.known {
			return
		}
		if len(c.byKey) >= 2*c.most {
			c.thin()
		}
		h = &holding{key: key}
		c.byKey[key] = h
	}
	h.add(c.p, coin, c.height, c.chance)
	if c.weight != nil {
		c.weight[key] += coin.Value
	}
}

// thin makes room: at least half of the holders go.
func (c *census) thin() {
	if c.weight == nil {
		c.weight = make(map[[32]byte]int64, len(c.byKey))
		for key, h := range c.byKey {
			c.weight[key] = h.value
		}
	}
	c.lost = true
	sorted := make([]int64, 0, len(c.weight))
	for _, w := range c.weight {
		sorted = append(sorted, w)
	}
	slices.Sort(sorted)
	loss := sorted[len(sorted)/2]
	for key, w := range c.weight {
		if w <= loss {
			delete(c.weight, key)
			delete(c.byKey, key)
		} else {
			c.weight[key] = w - loss
		}
	}
}

// richest orders holders as they are listed.
func richest(a, b *holding) int {
	return cmp.Or(cmp.Compare(b.ready, a.ready), cmp.Compare(b.value, a.value), bytes.Compare(a.key[:], b.key[:]))
}

// A register is a census with what the last blocks say of the holders.
type register struct {
	out  api.StakeHolders // without holders and cursor
	tip  chain.Tip
	wins map[[32]byte]*wins
	held []*holding // at most listedHolders
	took time.Duration
}

type wins struct {
	count int
	last  api.SlotSeen
}

// holders reads all coins for those that can win slots: one reader at a time, whose
// answer the others wait for.
type holders struct {
	mu      sync.Mutex // guards what follows; held for moments
	last    *register
	running chan struct{} // closed when the present reader has ended; nil: none reads

	most int // maxHolders; less in tests
}

// get returns the register of the present tip, or one that is fresh for what it costs.
func (h *holders) get(ctx context.Context, tip func() chain.Tip, read func(context.Context) (*register, error)) (*register, error) {
	for {
		h.mu.Lock()
		if r := h.last; r != nil && (r.tip.Hash == tip().Hash || time.Since(r.out.At) < scanRest*r.took) {
			h.mu.Unlock()
			return r, nil
		}
		running := h.running
		if running == nil {
			running = make(chan struct{})
			h.running = running
			h.mu.Unlock()
			r, err := read(ctx)
			h.mu.Lock()
			if err == nil {
				h.last = r
			}
			h.running = nil
			close(running)
			h.mu.Unlock()
			return r, err
		}
		h.mu.Unlock()
		select {
		case <-running: // its reader may have been called away: then it is our turn
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// StakeHolders implements api.Explorer.
func (f face) StakeHolders(ctx context.Context, cursor string, most int) (api.StakeHolders, error) {
	if !f.params.ProofOfStake() {
		return api.StakeHolders{}, api.Errorf(http.StatusConflict, "network %s is made by work: no stake wins anything", f.params.Name)
	}
	after, err := parseHolderCursor(cursor)
	if err != nil {
		return api.StakeHolders{}, err
	}
	tip := func() chain.Tip { t, _ := f.chain.Tip(); return t }
	r, err := f.holders.get(ctx, tip, f.readHolders)
	if errors.Is(err, chain.ErrBusy) {
		return api.StakeHolders{}, api.Errorf(http.StatusServiceUnavailable, "blocks come too fast to read all coins between two, ask again")
	}
	if err != nil {
		return api.StakeHolders{}, err
	}
	return f.holdersPage(r, after, most), nil
}

// parseHolderCursor reads where a page begins: behind a holder, whether or not he is still
// there. The place is told by what holders are ordered by.
func parseHolderCursor(cursor string) (*holding, error) {
	if cursor == "" {
		return nil, nil //nolint:nilnil // from the beginning
	}
	var h holding
	parts := strings.Split(cursor, "-")
	if len(parts) == 3 {
		ready, err1 := strconv.ParseInt(parts[0], 10, 64)
		value, err2 := strconv.ParseInt(parts[1], 10, 64)
		key, err3 := hex.DecodeString(parts[2])
		if errors.Join(err1, err2, err3) == nil && len(key) == len(h.key) {
			h.ready, h.value, h.key = ready, value, [32]byte(key)
			return &h, nil
		}
	}
	return nil, api.Errorf(http.StatusUnprocessableEntity, "cursor: no page gave it")
}

func (n *Node) holdersPage(r *register, after *holding, most int) api.StakeHolders {
	out := r.out
	first := 0
	if after != nil {
		first, _ = slices.BinarySearchFunc(r.held, after, richest)
		if first < len(r.held) && richest(r.held[first], after) == 0 {
			first++
		}
	}
	page := r.held[first:min(len(r.held), first+most)]
	for _, h := range page {
		stake := pos.Stake{Key: h.key}
		v := api.StakeHolder{
			Address: stakeAddress(n.params, &stake), Coins: h.coins, Value: h.value, MatureCoins: h.matureCoins, MatureValue: h.ready,
			Chance: h.odds.Chance(),
		}
		if out.MatureValue > 0 {
			v.Share = float64(h.ready) / float64(out.MatureValue)
		}
		if h.next > 0 {
			in := max(0, h.next-r.tip.Height-1)
			v.MatureIn = &in
		}
		if w := r.wins[h.key]; w != nil {
			last := w.last
			v.Wins, v.LastWin = w.count, &last
			v.WinShare = float64(w.count) / float64(max(1, out.WindowBlocks))
		}
		out.Holders = append(out.Holders, v)
	}
	if k := len(page); k == most && first+k < len(r.held) {
		last := page[k-1]
		out.Next = strconv.FormatInt(last.ready, 10) + "-" + strconv.FormatInt(last.value, 10) + "-" + hex.EncodeToString(last.key[:])
	}
	return out
}

// readHolders reads all coins and the seals of the last blocks. The walk holds nothing up:
// it sees the coins as they were at its start.
func (n *Node) readHolders(ctx context.Context) (*register, error) {
	began := time.Now()
	c, tip, err := takeCensus(ctx, n.params, cmp.Or(n.holders.most, maxHolders), n.chain.CoinsFrom, func(tip chain.Tip) float64 {
		_, bits := n.stakeOnline(tip)
		return pos.Chance(bits, 1)
	})
	if err != nil {
		return nil, err
	}
	r := &register{tip: tip, held: make([]*holding, 0, len(c.byKey))}
	for _, h := range c.byKey {
		if h.coins > 0 { // in a second round the last of them may have been spent meanwhile
			r.held = append(r.held, h)
		}
	}
	slices.SortFunc(r.held, richest)
	r.out = api.StakeHolders{
		Height: tip.Height, TipHash: tip.Hash.String(), Coins: c.all.coins, Value: c.all.value,
		MatureCoins: c.all.matureCoins, MatureValue: c.all.ready, Total: len(r.held), Truncated: c.known || len(r.held) > listedHolders,
	}
	r.held = slices.Clone(r.held[:min(len(r.held), listedHolders)])
	if r.wins, err = n.countWins(ctx, tip); err != nil {
		return nil, err
	}
	r.out.WindowBlocks = int(min(tip.Height, winsWindow))
	online, _ := n.stakeOnline(tip)
	r.out.Online, r.out.Supply = int64(online), int64(pos.Supply(n.params, tip.Height))
	r.out.At, r.took = time.Now().UTC(), time.Since(began)
	r.out.TookMS = float64(r.took.Microseconds()) / 1000
	return r, nil
}

// A walk calls what begin returns with every coin of the tip that begin is given; as
// chain.Chain.CoinsFrom.
type walk func(ctx context.Context, begin func(chain.Tip) func(wire.OutPoint, consensus.Coin) error) (chain.Tip, error)

// takeCensus counts the coins of a tip: in one round, or in two if there are more holders
// than may be kept. A block may come between the two: the second is what counts.
func takeCensus(ctx context.Context, p *consensus.Params, most int, coins walk, chance func(chain.Tip) float64) (c *census, tip chain.Tip, err error) {
	var stay map[[32]byte]*holding
	for {
		tip, err = coins(ctx, func(at chain.Tip) func(wire.OutPoint, consensus.Coin) error {
			c = &census{p: p, most: most, height: at.Height + 1, chance: chance(at), byKey: make(map[[32]byte]*holding), known: stay != nil}
			for key := range stay {
				c.byKey[key] = &holding{key: key}
			}
			return func(_ wire.OutPoint, coin consensus.Coin) error { c.add(&coin); return nil }
		})
		if err != nil || !c.lost {
			return c, tip, err
		}
		stay = c.byKey
	}
}

// countWins reads who made the last blocks.
func (n *Node) countWins(ctx context.Context, tip chain.Tip) (map[[32]byte]*wins, error) {
	out := make(map[[32]byte]*wins)
	for height := tip.Height; height > max(0, tip.Height-winsSought); height-- {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		hash, ok := n.chain.Ancestor(tip.Hash, height)
		if !ok {
			break
		}
		stake, at, err := n.winnerOf(hash)
		if err != nil {
			return nil, err
		}
		w := out[stake.Key]
		if w == nil {
			w = &wins{last: api.SlotSeen{Height: height, Hash: hash.String(), Time: at.UTC()}}
			w.last.Slot, _ = pos.Slot(n.params, at.Unix())
			out[stake.Key] = w
		}
		if tip.Height-height < winsWindow {
			w.count++
		}
	}
	return out, nil
}

// winnerOf is the stake that made a block of the active chain, and when.
func (n *Node) winnerOf(hash chainhash.Hash) (stake pos.Stake, at time.Time, err error) {
	s, ok := n.chain.Status(hash)
	if !ok {
		return stake, at, chain.ErrNotFound
	}
	seal, err := n.chain.Seal(hash)
	if err != nil {
		return stake, at, err
	}
	stake, _, err = pos.ParseSeal(seal)
	return stake, s.Header.Timestamp, err
}
