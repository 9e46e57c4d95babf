package mining

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
)

// templateAge is how long a template is worked on before it is made anew with
// the mempool's later transactions and a later time.
const templateAge = 10 * time.Second

// retryAfter is the pause after a fault of our own, so that it cannot fill the log.
const retryAfter = 2 * time.Second

// Options configure New.
type Options struct {
	Chain  *chain.Chain
	Engine consensus.Engine
	Sealer consensus.Sealer
	Pool   *mempool.Pool // nil: empty blocks

	PayTo        []byte        // output script of the coinbase; nil: what the sealer's plan says, where it has one. See Miner.Pay
	CoinbaseText string        // at most MaxCoinbaseTextBytes
	Interval     time.Duration // no block sooner than this after the tip was first seen; default: the network's spacing, none where slots pace
	Mine         bool          // started from the beginning

	// Ready says whether mining makes sense now, and if not, why. Default: always.
	Ready func() (bool, string)
	// OnSealed is called with each block that was made here, before the chain has
	// it. It must not block.
	OnSealed func(*consensus.Block)
	// OnBlock is called with each connected block that was made here, before
	// Run or MineOne goes on. It must not block.
	OnBlock func(context.Context, *consensus.Block)
	Now     func() time.Time // default time.Now
	Logger  *slog.Logger     // default: discards
}

// Status describes the miner.
type Status struct {
	Mining bool   `json:"mining"`
	Reason string `json:"reason,omitempty"` // why a started miner waits
	Blocks int    `json:"blocks"`           // made since the start
}

// A Miner seals templates. All methods are safe for concurrent use.
type Miner struct {
	o   Options
	log *slog.Logger
	// slots says that the sealer waits for slots. Then attempts at the same time would
	// wait for the same one and only one could have it: whoever asks for a block goes
	// before Run, and has turn.
	slots bool
	turn  chan struct{} // capacity 1

	mu     sync.Mutex // guards what follows, held for assignments only
	on     bool
	toggle chan struct{} // closed and replaced when on, payTo or orders change
	payTo  []byte        // output script of the coinbase
	orders int           // MineTo calls under way, where there are slots
	reason string
	blocks int
}

// New returns a miner that does nothing until Run or MineOne.
func New(o Options) (*Miner, error) {
	var errs []error
	if o.Chain == nil || o.Engine == nil || o.Sealer == nil {
		errs = append(errs, errors.New("chain, engine and sealer are required"))
	}
	slots := o.Chain != nil && o.Chain.Params().ProofOfStake()
	if !payable(o.PayTo) && (o.PayTo != nil || !slots) {
		errs = append(errs, ErrPayTo)
	}
	if len(o.CoinbaseText) > MaxCoinbaseTextBytes {
		errs = append(errs, fmt.Errorf("coinbase text %q: %w", o.CoinbaseText, ErrTextTooLong))
	}
	if o.Interval < 0 {
		errs = append(errs, fmt.Errorf("interval %v: must not be negative", o.Interval))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("mining: %w", err)
	}
	if o.Interval == 0 && !slots {
		o.Interval = o.Chain.Params().TargetSpacing
	}
	if o.Ready == nil {
		o.Ready = func() (bool, string) { return true, "" }
	}
	if o.OnSealed == nil {
		o.OnSealed = func(*consensus.Block) {}
	}
	if o.OnBlock == nil {
		o.OnBlock = func(context.Context, *consensus.Block) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Miner{
		o: o, log: o.Logger, on: o.Mine, toggle: make(chan struct{}), payTo: o.PayTo, slots: slots, turn: make(chan struct{}, 1),
	}, nil
}

// Start makes Run mine. It reports whether that changed anything.
func (m *Miner) Start() bool { return m.set(true) }

// Stop makes Run wait; a template in work is dropped. It reports whether that
// changed anything.
func (m *Miner) Stop() bool { return m.set(false) }

func (m *Miner) set(on bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.on == on {
		return false
	}
	m.on = on
	m.toggled()
	return true
}

// toggled has Run look again. The caller holds mu.
func (m *Miner) toggled() {
	close(m.toggle)
	m.toggle = make(chan struct{})
}

// Pay makes the coinbases of templates from now on pay another script; one in work
// is dropped. nil is what the sealer's plan says, where it has one.
func (m *Miner) Pay(script []byte) error {
	if !payable(script) && (script != nil || !m.slots) {
		return fmt.Errorf("mining: %w", ErrPayTo)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes.Equal(m.payTo, script) {
		return nil
	}
	m.payTo = script
	m.toggled()
	return nil
}

// paid is the output script of the coinbase.
func (m *Miner) paid() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.payTo
}

// Status returns a snapshot.
func (m *Miner) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{Mining: m.on, Blocks: m.blocks}
	if m.on {
		s.Reason = m.reason
	}
	return s
}

// Run mines, while started, until ctx ends.
func (m *Miner) Run(ctx context.Context) error {
	tip, _ := m.o.Chain.Tip()
	seen, seenAt := tip.Hash, tip.Time
	for ctx.Err() == nil {
		m.mu.Lock()
		on, toggled, payTo := m.on && m.orders == 0, m.toggle, m.payTo
		m.mu.Unlock()
		if !on {
			wait(ctx, -1, toggled, nil)
			continue
		}
		if ok, why := m.o.Ready(); !ok {
			if m.setReason(why) {
				m.log.Info("miner waits", "reason", why)
			}
			wait(ctx, time.Second, toggled, nil)
			continue
		}
		m.setReason("")
		tip, moved := m.o.Chain.Tip()
		if tip.Hash != seen {
			seen, seenAt = tip.Hash, m.o.Now()
		}
		// A little jitter keeps two paced miners from finding the same height together.
		pause := seenAt.Add(m.o.Interval + rand.N(m.o.Interval/16+1)).Sub(m.o.Now())
		if m.o.Interval > 0 && pause > 0 && !wait(ctx, pause, toggled, moved) {
			continue // something changed: look again
		}
		b, v, err := m.attempt(ctx, payTo, "", toggled)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			m.log.Error("mining", "err", err)
			wait(ctx, retryAfter, toggled, nil)
		case b == nil: // the tip moved, the template grew old, or we were stopped
		case v.Outcome == chain.Connected, v.Outcome == chain.SideChain:
		default:
			m.log.Error("own block not accepted", "hash", b.Hash, "height", v.Height, "err", v.Err)
			wait(ctx, retryAfter, toggled, nil)
		}
	}
	return ctx.Err()
}

// MineOne makes one block that carries data and returns it once it is durable
// and on the active chain. It retries when another block comes first, until ctx
// ends. It needs no Run.
func (m *Miner) MineOne(ctx context.Context, data string) (*consensus.Block, int32, error) {
	return m.MineTo(ctx, m.paid(), data)
}

// MineTo is MineOne with another output script for the coinbase to pay.
func (m *Miner) MineTo(ctx context.Context, payTo []byte, data string) (*consensus.Block, int32, error) {
	if len(data) > MaxDataBytes {
		return nil, 0, fmt.Errorf("%d bytes: %w", len(data), ErrDataTooLong)
	}
	if m.slots {
		m.order(1)
		defer m.order(-1)
		select {
		case m.turn <- struct{}{}:
			defer func() { <-m.turn }()
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	for {
		b, v, err := m.attempt(ctx, payTo, data, nil)
		switch {
		case err != nil:
			return nil, 0, err
		case ctx.Err() != nil:
			return nil, 0, ctx.Err()
		case b == nil, v.Outcome == chain.SideChain:
			continue // another block came first
		case v.Outcome == chain.Connected:
			return b, v.Height, nil
		case v.Err != nil:
			return nil, 0, fmt.Errorf("own block %s at height %d not accepted: %w", b.Hash, v.Height, v.Err)
		default:
			return nil, 0, fmt.Errorf("own block %s at height %d not accepted: outcome %d", b.Hash, v.Height, v.Outcome)
		}
	}
}

// order counts the blocks that were asked for; Run waits until there are none.
func (m *Miner) order(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.orders += n
	m.toggled()
}

// attempt waits until a block may be made, makes a template that pays payTo, seals it
// and submits it. A nil block without an error means that there was nothing to submit:
// the tip moved, the template is older than templateAge, or stop was closed.
func (m *Miner) attempt(ctx context.Context, payTo []byte, data string, stop <-chan struct{}) (*consensus.Block, chain.Verdict, error) {
	tip, moved := m.o.Chain.Tip()
	past, ok := m.o.Chain.Past(tip.Hash)
	if !ok { // reorganised away meanwhile
		return nil, chain.Verdict{}, nil
	}
	// The sealer watches one channel: close it on whichever comes first.
	sealing, cancel := context.WithCancel(ctx)
	defer cancel()
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-moved:
		case <-stop: // nil: never
		case <-sealing.Done():
		}
		cancel()
	})
	defer watcher.Wait()
	defer cancel()
	plan, err := m.o.Sealer.Prepare(sealing.Done(), past)
	if sealing.Err() != nil {
		return nil, chain.Verdict{}, ctx.Err()
	} else if err != nil {
		return nil, chain.Verdict{}, fmt.Errorf("prepare: %w", err)
	}
	old := time.AfterFunc(templateAge, cancel)
	defer old.Stop()
	var entries []mempool.Entry
	if m.o.Pool != nil {
		// Not there: an empty block is better than none.
		entries, _ = m.o.Pool.Snapshot(ctx, tip.Hash)
	}
	t, err := NewTemplate(m.o.Chain, m.o.Engine, tip, TemplateOptions{
		PayTo: payTo, CoinbaseText: m.o.CoinbaseText, Data: data, Now: m.o.Now(), Entries: entries,
		ExtraNonce: rand.Uint64(), Plan: plan,
	})
	if errors.Is(err, ErrTipGone) {
		return nil, chain.Verdict{}, nil
	} else if err != nil {
		return nil, chain.Verdict{}, err
	}
	for {
		found, err := m.o.Sealer.Seal(sealing.Done(), &t.Header)
		if sealing.Err() != nil && !found {
			return nil, chain.Verdict{}, ctx.Err()
		}
		if errors.Is(err, consensus.ErrStale) {
			return nil, chain.Verdict{}, nil
		} else if err != nil {
			return nil, chain.Verdict{}, fmt.Errorf("seal: %w", err)
		}
		if found {
			break
		}
		if err := t.NextExtraNonce(); err != nil {
			return nil, chain.Verdict{}, err
		}
	}
	b, err := t.Block(m.o.Chain.Params())
	if err != nil {
		return nil, chain.Verdict{}, fmt.Errorf("encode own block: %w", err)
	}
	m.o.OnSealed(b)
	ticket, err := m.o.Chain.Submit(ctx, b.Raw, chain.Source{Kind: chain.FromMiner})
	if err != nil {
		return nil, chain.Verdict{}, err
	}
	v := ticket.Wait(ctx)
	if v.Outcome == chain.Connected {
		m.mu.Lock()
		m.blocks++
		m.mu.Unlock()
		m.o.OnBlock(ctx, b)
	}
	return b, v, nil
}

func (m *Miner) setReason(why string) (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed = m.reason != why
	m.reason = why
	return changed
}

// wait pauses for d (for ever if negative) and reports whether it ran to its end
// rather than being cut short by ctx or one of the channels.
func wait(ctx context.Context, d time.Duration, a, b <-chan struct{}) bool {
	var expired <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-expired:
		return true
	case <-ctx.Done():
	case <-a:
	case <-b:
	}
	return false
}
