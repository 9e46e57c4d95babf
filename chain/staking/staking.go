// Package staking makes blocks by stake: it waits for the slots that coins of ours win
// and seals blocks for them, a [Sealer] for the miner of chain/mining.
//
// It has no keys: a [Holder] knows the coins and signs. It decides when a block may be
// made, by which coin, and that no coin ever signs two blocks of a slot, which is what
// the [Journal] is for.
package staking

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
)

const (
	// lateSlots is how long after its end a slot that was won is still used. A parent that
	// arrives late, or a pause of the machine, should not cost the win: peers take the
	// block as any other. But not longer: after an outage of the whole network every
	// holder would otherwise make all the blocks that it could have made, in a second and
	// against one another.
	lateSlots = 1
	// maxLook is the longest sleep: a clock that was set, and a holder that became able
	// to sign, are noticed by then.
	maxLook = time.Second
	// settleSlots is for how long no block is made after the clock jumped: the wanted
	// spacing of blocks, in which a node that slept meets its peers again and hears of
	// what they made.
	settleSlots = consensus.SlotsPerBlock
)

// A Holder has coins and their keys. All methods are safe for concurrent use and answer at
// once.
type Holder interface {
	// Coins lists coins whose key is held, in any order, as of a moment ago: what was spent
	// since and what is not mature is found out here. The caller owns the result.
	Coins() ([]Coin, error)
	// Ready says why nothing can be signed now; nil: it can.
	Ready() error
	// Sign signs the header's hash by the stake's key, which is that of the output.
	Sign(stake *pos.Stake, h *consensus.Header) (sig [64]byte, err error)
}

// Options configure NewSealer.
type Options struct {
	Params  *consensus.Params
	Engine  consensus.Engine
	Coins   consensus.Coins // of the validated tip
	Holder  Holder
	Journal *Journal
	// Ready says whether making blocks makes sense now, and if not, why. Default: always.
	Ready    func() (bool, string)
	MaxCoins int                  // that take part, the largest; default DefaultMaxCoins
	Now      func() time.Time     // default time.Now
	Elapsed  func() time.Duration // a clock that nobody sets; default: since NewSealer
	Logger   *slog.Logger         // default: discards
}

// A Sealer waits for slots and seals blocks by stake. All methods are safe for concurrent
// use.
type Sealer struct {
	o   Options
	log *slog.Logger

	mu     sync.Mutex // guards what follows; held for assignments only
	wall   time.Time  // the last look at both clocks
	steady time.Duration
	until  time.Time // nothing is made before, for the clock jumped
	jumped string
	many   bool      // it was logged that there are too many coins
	waits  string    // the obstacle that was logged last; empty: none
	waited time.Time // when
}

var _ consensus.Sealer = (*Sealer)(nil)

// NewSealer returns a sealer. It starts nothing.
func NewSealer(o Options) (*Sealer, error) {
	if o.Params == nil || o.Engine == nil || o.Coins == nil || o.Holder == nil || o.Journal == nil {
		return nil, errors.New("staking: parameters, engine, coins, holder and journal are required")
	}
	if !o.Params.ProofOfStake() {
		return nil, fmt.Errorf("staking: network %s has no slots", o.Params.Name)
	}
	if o.Ready == nil {
		o.Ready = func() (bool, string) { return true, "" }
	}
	if o.MaxCoins == 0 {
		o.MaxCoins = DefaultMaxCoins
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Elapsed == nil {
		start := time.Now()
		o.Elapsed = func() time.Duration { return time.Since(start) }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Sealer{o: o, log: o.Logger}, nil
}

// slotAt returns the slot that a moment is in.
func (s *Sealer) slotAt(t time.Time) int64 {
	slot, _ := pos.Slot(s.o.Params, t.Unix())
	return slot
}

// Prepare waits for the next slot on past that a coin of the holder wins, from its
// beginning by our clock until one slot after its end, and in which the coin has not
// signed. While something is in the way ([Sealer.Obstacle]) slots go by unused.
func (s *Sealer) Prepare(stop <-chan struct{}, past consensus.Past) (consensus.Plan, error) {
	parent, _ := pos.Slot(s.o.Params, past.At(past.Height()).Time)
	next := parent + 1 // the first slot that was not tried yet
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := s.look()
		why := s.obstacle(now, past)
		s.tell(now, why)
		if why == "" {
			present := s.slotAt(now)
			for next = max(next, present-lateSlots); next <= present; next++ {
				plan, ok, err := s.try(past, next)
				if err != nil || ok {
					return plan, err
				}
			}
		}
		sleep := maxLook
		if begins := time.Unix(pos.SlotTime(s.o.Params, max(next, s.slotAt(now)+1)), 0).Sub(now); begins < sleep {
			sleep = max(begins, time.Millisecond)
		}
		timer.Reset(sleep)
		select {
		case <-timer.C:
		case <-stop:
			return consensus.Plan{}, context.Canceled
		}
	}
}

// obstacleLogInterval is the least time between two lines of the log that say why
// nothing is made: reasons that count blocks change with each.
const obstacleLogInterval = time.Minute

// tell logs what is in the way when it changes, and when nothing is any more.
func (s *Sealer) tell(now time.Time, why string) {
	s.mu.Lock()
	news := why != s.waits && ((why == "") != (s.waits == "") || now.Sub(s.waited).Abs() >= obstacleLogInterval)
	if news {
		s.waits, s.waited = why, now
	}
	s.mu.Unlock()
	switch {
	case !news:
	case why != "":
		s.log.Info("staking waits", "reason", why)
	default:
		s.log.Info("staking: nothing is in the way any more")
	}
}

// try looks whether a coin wins a slot.
func (s *Sealer) try(past consensus.Past, slot int64) (consensus.Plan, bool, error) {
	stakes, err := s.mature(past)
	if err != nil {
		return consensus.Plan{}, false, nil //nolint:nilerr // an obstacle since a moment ago; it will be looked at again
	}
	p := s.o.Params
	modifier := pos.Modifier(p, past)
	when := time.Unix(pos.SlotTime(p, slot), 0)
	bits := s.o.Engine.NextBits(past, when)
	for i := range stakes {
		stake := &stakes[i].Stake
		kernel := pos.Kernel(modifier, stake, slot)
		if !pos.Wins(kernel, bits, stake.Value) || s.o.Journal.Taken(slot, stake.OutPoint) {
			continue
		}
		// The holder may be a moment behind, or we: the coin must be there at the parent.
		coin, ok, err := s.o.Coins.Coin(stake.OutPoint)
		if err != nil {
			return consensus.Plan{}, false, fmt.Errorf("stake %v: %w", stake.OutPoint, err)
		}
		if !ok || coin.Value != stake.Value || string(coin.Script) != string(stake.Script()) || !pos.Mature(p, coin.Height, past.Height()+1) {
			continue
		}
		return consensus.Plan{
			Time: when.Unix(), Nonce: pos.Nonce(kernel), Seal: stake.Seal([64]byte{}), PayTo: stake.Script(),
			Outputs: []*wire.TxOut{wire.NewTxOut(0, stake.Commitment())},
		}, true, nil
	}
	return consensus.Plan{}, false, nil
}

// mature returns the coins that can be stakes of a child of past, the largest first.
func (s *Sealer) mature(past consensus.Past) ([]Coin, error) {
	coins, err := s.o.Holder.Coins()
	if err != nil {
		return nil, err
	}
	height, n := past.Height()+1, 0
	for _, c := range coins {
		if pos.Mature(s.o.Params, c.Height, height) {
			coins[n] = c
			n++
		}
	}
	coins = coins[:n]
	bySize(coins)
	if n > s.o.MaxCoins {
		coins = coins[:s.o.MaxCoins]
	}
	s.mu.Lock()
	told := s.many
	s.many = n > s.o.MaxCoins
	s.mu.Unlock()
	if n > s.o.MaxCoins && !told {
		s.log.Warn("more coins than take part: the largest do", "coins", n, "most", s.o.MaxCoins)
	}
	return coins, nil
}

// Seal signs a header that was prepared, once it is in the journal that it will be. It never
// returns false without an error.
func (s *Sealer) Seal(stop <-chan struct{}, h *consensus.Header) (bool, error) {
	select {
	case <-stop:
		return false, context.Canceled
	default:
	}
	stake, _, err := pos.ParseSeal(h.Seal)
	if err != nil {
		return false, err
	}
	slot, begins := pos.Slot(s.o.Params, h.Timestamp.Unix())
	if !begins {
		return false, fmt.Errorf("seal: time %d begins no slot", h.Timestamp.Unix())
	}
	if err := s.o.Holder.Ready(); err != nil {
		return false, consensus.ErrStale // before the slot is taken for nothing
	}
	err = s.o.Journal.Sign(Record{slot, stake.OutPoint, consensus.HeaderHash(h)}, func() error {
		sig, err := s.o.Holder.Sign(&stake, h)
		if err != nil {
			return fmt.Errorf("sign for slot %d: %w", slot, err)
		}
		h.Seal = stake.Seal(sig)
		return nil
	})
	if errors.Is(err, ErrSigned) {
		return false, consensus.ErrStale
	}
	return err == nil, err
}

// look returns the time, and notices when the clock has jumped against the one that nobody
// sets: the machine slept, or somebody set it.
func (s *Sealer) look() time.Time {
	now, steady := s.clocks()
	s.mu.Lock()
	defer s.mu.Unlock()
	// Between looks far apart nobody waited for slots, and clocks drift.
	if passed := steady - s.steady; !s.wall.IsZero() && passed < time.Minute {
		jump := now.Sub(s.wall) - passed
		if jump.Abs() > s.o.Params.SlotDuration/2 {
			s.until = now.Add(settleSlots * s.o.Params.SlotDuration)
			s.jumped = fmt.Sprintf("the clock jumped by %v (or the machine slept): blocks are made again from %s",
				jump.Round(time.Millisecond), s.until.UTC().Format(time.RFC3339))
			s.log.Warn("clock jumped; no block is made for a while", "jump_s", jump.Seconds(), "until", s.until.UTC())
		}
	}
	s.wall, s.steady = now, steady
	return now
}

// clocks reads both clocks at one moment: where the machine has other things to do between
// two readings they are repeated, or that would be taken for a jump.
func (s *Sealer) clocks() (wall time.Time, steady time.Duration) {
	const tries = 5
	for range tries {
		steady = s.o.Elapsed()
		wall = s.o.Now().Round(0)
		if s.o.Elapsed()-steady < s.o.Params.SlotDuration/16 {
			break
		}
	}
	return wall, steady
}

// Obstacle says why no slot on past can be won now, for people; empty: only a slot that wins
// is waited for.
func (s *Sealer) Obstacle(past consensus.Past) string { return s.obstacle(s.o.Now(), past) }

func (s *Sealer) obstacle(now time.Time, past consensus.Past) string {
	if ok, why := s.o.Ready(); !ok {
		return why
	}
	if err := s.o.Holder.Ready(); err != nil {
		return err.Error()
	}
	coins, err := s.o.Holder.Coins()
	if err != nil {
		return err.Error()
	}
	if len(coins) == 0 {
		return "no coins: a stake is a confirmed pay-to-taproot output of our keys"
	}
	wait := s.o.Params.StakeMaturity // blocks until the first is mature
	for _, c := range coins {
		if pos.Mature(s.o.Params, c.Height, past.Height()+1) {
			wait = 0
			break
		}
		wait = min(wait, s.o.Params.StakeMaturity-(past.Height()+1-c.Height))
	}
	if wait > 0 {
		return fmt.Sprintf("no mature coins: the first is in %d blocks", wait)
	}
	s.mu.Lock()
	until, jumped := s.until, s.jumped
	s.mu.Unlock()
	if now.Before(until) {
		return jumped
	}
	if first, lost := s.o.Journal.Resting(); s.slotAt(now) < first {
		begins := time.Unix(pos.SlotTime(s.o.Params, first), 0).UTC().Format(time.RFC3339)
		if lost != "" {
			return fmt.Sprintf("the journal of signed slots %s: blocks are made again from %s, when slots that may have been signed are past", lost, begins)
		}
		return "just started: slots that may have been signed before are waited out, until " + begins
	}
	parent, _ := pos.Slot(s.o.Params, past.At(past.Height()).Time)
	if ahead := parent - s.slotAt(now); ahead > 1 {
		return fmt.Sprintf("the tip is %d slots ahead of our clock", ahead)
	}
	return ""
}

// Chances are what the holder may expect at a tip.
type Chances struct {
	Coins    int   // mature: those that take part
	Weight   int64 // satoshi, of them
	Immature int   // coins
	Waiting  int64 // satoshi, of the immature
	// Network is the estimate of all stake that takes part, in satoshi, at least Weight;
	// 0: unknown.
	Network float64
	Share   float64       // of Weight in Network
	Slot    float64       // chance of a slot: that at least one of the coins wins it
	Time    time.Duration // to win one, on average; 0: never
}

// Chances returns what the holder may expect of slots on past.
func (s *Sealer) Chances(past consensus.Past) Chances {
	var c Chances
	p := s.o.Params
	coins, err := s.o.Holder.Coins()
	if err != nil {
		coins = nil
	}
	bySize(coins)
	var odds pos.Odds
	bits := s.o.Engine.NextBits(past, s.o.Now())
	for _, coin := range coins {
		switch {
		case !pos.Mature(p, coin.Height, past.Height()+1):
			c.Immature++
			c.Waiting += coin.Value
		case c.Coins < s.o.MaxCoins:
			c.Coins++
			c.Weight += coin.Value
			odds.Add(pos.Chance(bits, coin.Value))
		}
	}
	c.Slot, c.Time = odds.Chance(), odds.Time(p)
	c.Network = max(pos.Online(p, bits, past.Height()+1), float64(c.Weight))
	c.Share = float64(c.Weight) / c.Network
	return c
}
