package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/exchange"
	"dunlin/chain/staking"
	"dunlin/config"
	"dunlin/internal/address"
	"dunlin/internal/api"
	"dunlin/internal/wallet"
	"dunlin/internal/wallet/keys"
)

const (
	// stakingDir holds the journal of signed slots.
	stakingDir = "staking"
	// maxKeyFileBytes and maxStakingKeys bound a key file.
	maxKeyFileBytes = 256 << 10
	maxStakingKeys  = 1000
	// maxStaked bounds the history of blocks made by stake.
	maxStaked = 100
)

// stake is what a node of a proof-of-stake network makes blocks with.
type stake struct {
	source  string // "wallet" or "key-file"
	holder  staking.Holder
	sealer  *staking.Sealer
	journal *staking.Journal
	finder  *staking.Finder // of the key file's coins; nil with a wallet

	mu     sync.Mutex // guards staked
	staked map[chainhash.Hash]stakedBlock
}

// stakedBlock is what does not change of a block that was made here.
type stakedBlock struct {
	height int32
	reward int64
}

// openStaking makes the sealer of a proof-of-stake network. Nothing is staked before
// the miner is started.
func (n *Node) openStaking() error {
	s := &stake{source: "wallet", staked: make(map[chainhash.Hash]stakedBlock)}
	log := n.log.With("subsystem", "staking")
	var holder staking.Holder = walletStakes{n}
	if path := n.c.Staking.KeyFile; path != "" {
		held, err := loadStakingKeys(path, n.params)
		if err != nil {
			return fmt.Errorf("staking.key_file: %w", err)
		}
		n.closers = append(n.closers, func() error { held.wipe(); return nil })
		s.source = "key-file"
		s.finder = staking.NewFinder(staking.FinderOptions{
			Chain: n.chain, Held: held.has, Logger: log,
			Synced: func() bool { ok, _ := n.nearTip(); return ok },
		})
		held.finder = s.finder
		holder = held
	}
	s.holder = holder
	slot, _ := pos.Slot(n.params, n.now().Unix())
	var err error
	s.journal, err = staking.OpenJournal(staking.JournalOptions{Dir: filepath.Join(n.c.Home, stakingDir), Slot: slot, Logger: log})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, s.journal.Close)
	s.sealer, err = staking.NewSealer(staking.Options{
		Params: n.params, Engine: n.engine, Coins: n.chain, Holder: holder, Journal: s.journal, Ready: n.mayStake,
		Now: n.now, Logger: log,
	})
	n.stake = s
	return err
}

// runStaking follows the coins of a key file.
func (n *Node) runStaking(ctx context.Context) error {
	if n.stake == nil || n.stake.finder == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return n.stake.finder.Run(ctx)
}

// mayStake says whether a block by stake makes sense now.
func (n *Node) mayStake() (bool, string) {
	if n.exchange == nil {
		return false, "starting"
	}
	// A node that has just started hears of what it missed first, or its first block is
	// one that nobody builds on.
	first := consensus.SlotsPerBlock * n.params.SlotDuration
	if time.Since(n.started) < first && n.exchange.Sync().State == exchange.Connecting && !n.alone() {
		return false, "no peers yet"
	}
	return n.nearTip()
}

// walletStakes stakes the wallet's coins.
type walletStakes struct{ n *Node }

var _ staking.Holder = walletStakes{}

// Coins implements staking.Holder.
func (w walletStakes) Coins() ([]staking.Coin, error) {
	list, err := w.n.wallet.Stakes()
	if err != nil {
		return nil, stakingFault(err)
	}
	out := make([]staking.Coin, len(list))
	for i, s := range list {
		out[i] = staking.Coin{Stake: pos.Stake{OutPoint: s.OutPoint, Value: s.Amount, Key: s.Key}, Height: s.Height}
	}
	return out, nil
}

// Ready implements staking.Holder.
func (w walletStakes) Ready() error { return stakingFault(w.n.wallet.StakingReady()) }

// Sign implements staking.Holder.
func (w walletStakes) Sign(s *pos.Stake, h *consensus.Header) ([64]byte, error) {
	return w.n.wallet.SignSeal(s.Key, h)
}

// errNothingToStake is of a node with neither wallet nor key file.
var errNothingToStake = errors.New("there is nothing to stake: no wallet (dunlin wallet create) and no staking.key_file")

func stakingFault(err error) error {
	if errors.Is(err, wallet.ErrNone) {
		return errNothingToStake
	}
	return err
}

// stakingKeys are the keys of a file, by their outputs' keys.
type stakingKeys struct {
	finder *staking.Finder
	mu     sync.RWMutex // guards what follows; held for a signature
	held   map[[32]byte]*keys.PrivateKey
}

var _ staking.Holder = (*stakingKeys)(nil)

// has says whether the key of an output is held.
func (k *stakingKeys) has(key [32]byte) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.held[key] != nil
}

// Coins implements staking.Holder.
func (k *stakingKeys) Coins() ([]staking.Coin, error) { return k.finder.Coins() }

// Ready implements staking.Holder.
func (k *stakingKeys) Ready() error { return nil }

// Sign implements staking.Holder.
func (k *stakingKeys) Sign(s *pos.Stake, h *consensus.Header) ([64]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	key := k.held[s.Key]
	if key == nil {
		return [64]byte{}, fmt.Errorf("output key %x is not held", s.Key)
	}
	return key.SignSchnorr(consensus.HeaderHash(h), &keys.TapTweak{})
}

// wipe forgets the keys.
func (k *stakingKeys) wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.held {
		key.Wipe()
	}
	k.held = nil
}

// loadStakingKeys reads a file of private keys, a WIF a line; empty lines and those that
// begin with # do not count. Each key is the internal one of a BIP86 output. Nobody but its
// owner may read the file. Errors name lines, never what is in them.
func loadStakingKeys(path string, p *consensus.Params) (_ *stakingKeys, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: is no file", path)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s has mode %#o: others can read the keys; chmod 600 it", path, info.Mode().Perm())
	case info.Size() > maxKeyFileBytes:
		return nil, fmt.Errorf("%s has %d bytes: at most %d", path, info.Size(), maxKeyFileBytes)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFileBytes))
	defer func() { clear(raw) }()
	if err != nil {
		return nil, err
	}
	k := &stakingKeys{held: make(map[[32]byte]*keys.PrivateKey)}
	defer func() {
		if err != nil {
			k.wipe()
		}
	}()
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, maxKeyFileBytes)
	var faults []error
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := keys.ParseWIF(string(line), p)
		if err != nil {
			faults = append(faults, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		out := [32]byte(schnorr.SerializePubKey(keys.TaprootOutputKey(key.PublicKey(), nil)))
		k.held[out] = key
	}
	switch {
	case lines.Err() != nil:
		return nil, fmt.Errorf("%s: %w", path, lines.Err())
	case len(faults) > 0:
		return nil, fmt.Errorf("%s: %w", path, errors.Join(faults[:min(len(faults), 10)]...))
	case len(k.held) == 0:
		return nil, fmt.Errorf("%s has no key: a private key (WIF) a line is wanted", path)
	case len(k.held) > maxStakingKeys:
		return nil, fmt.Errorf("%s has %d keys: at most %d", path, len(k.held), maxStakingKeys)
	}
	return k, nil
}

// checkStaking checks that the settings fit the engine.
func checkStaking(c *config.Config) error {
	p := c.Chain.Params
	var faults []error
	if p.ProofOfStake() {
		if c.Mining.Enabled {
			faults = append(faults, fmt.Errorf("%s: mining.enabled = true: blocks of %s are made with stake, not by mining: use staking.enabled (--stake)", c.Origin("mining.enabled"), p.Name))
		}
		if path := c.Staking.KeyFile; path != "" {
			held, err := loadStakingKeys(path, p)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: staking.key_file: %w", c.Origin("staking.key_file"), err))
			} else {
				held.wipe()
			}
		}
		return errors.Join(faults...)
	}
	if c.Staking.Enabled {
		faults = append(faults, fmt.Errorf("%s: staking.enabled = true: %w", c.Origin("staking.enabled"), noStakeHere(p)))
	}
	if c.Staking.KeyFile != "" {
		faults = append(faults, fmt.Errorf("%s: staking.key_file: %w", c.Origin("staking.key_file"), noStakeHere(p)))
	}
	return errors.Join(faults...)
}

func noStakeHere(p *consensus.Params) error {
	return fmt.Errorf("blocks of %s are made by work: staking needs a proof-of-stake network, such as stakenet", p.Name)
}

// past is the branch that ends in the tip.
func (n *Node) past() (chain.Tip, consensus.Past, bool) {
	tip, _ := n.chain.Tip()
	past, ok := n.chain.Past(tip.Hash)
	return tip, past, ok
}

// Staking implements api.Node.
func (f face) Staking(history int) (api.Staking, error) {
	s := f.stake
	if s == nil {
		return api.Staking{}, api.Errorf(http.StatusConflict, "%v", noStakeHere(f.params))
	}
	m := f.miner.Status()
	out := api.Staking{
		StakingSummary: f.stakingSummary(m.Mining), Source: s.source, SlotS: f.params.SlotDuration.Seconds(), Maturity: f.params.StakeMaturity,
		Address: *f.payTo.Load(), Blocks: m.Blocks, History: []api.StakedBlock{},
	}
	for _, r := range s.journal.Last(min(history, maxStaked)) {
		out.History = append(out.History, f.stakedBlock(r))
	}
	return out, nil
}

// stakingSummary is what the node's status shows of staking.
func (n *Node) stakingSummary(on bool) api.StakingSummary {
	out := api.StakingSummary{Enabled: on, State: "off"}
	_, past, ok := n.past()
	if !ok {
		return out
	}
	if why := n.stake.sealer.Obstacle(past); on && why != "" {
		out.State, out.Reason = "waiting", why
	} else if on {
		out.State = "staking"
	} else {
		out.Reason = why
	}
	c := n.stake.sealer.Chances(past)
	out.Coins, out.Weight, out.ImmatureCoins, out.ImmatureWeight = c.Coins, c.Weight, c.Immature, c.Waiting
	out.NetworkWeight, out.Share, out.SlotChance = int64(c.Network), c.Share, c.Slot
	if c.Time > 0 {
		out.ExpectedS = new(c.Time.Seconds())
	}
	return out
}

// stakedBlock tells what became of a block that was to be signed.
func (n *Node) stakedBlock(r staking.Record) api.StakedBlock {
	out := api.StakedBlock{
		Slot: r.Slot, Time: time.Unix(pos.SlotTime(n.params, r.Slot), 0).UTC(), Hash: r.Block.String(), Height: -1,
		Coin: wallet.CoinText(r.OutPoint), State: "lost",
	}
	at, ok := n.chain.Status(r.Block)
	if !ok {
		return out
	}
	out.Height, out.State = at.Height, "orphaned"
	if at.Active {
		out.State = "active"
	}
	s := n.stake
	s.mu.Lock()
	defer s.mu.Unlock()
	b, known := s.staked[r.Block]
	if !known {
		raw, err := n.chain.Block(r.Block)
		if err != nil {
			return out // pruned, as a rule
		}
		block, err := consensus.DecodeBlock(n.params, raw)
		if err != nil {
			return out
		}
		b.height = at.Height
		for _, o := range block.Txs[0].MsgTx().TxOut {
			b.reward += o.Value
		}
		if len(s.staked) >= 2*maxStaked {
			clear(s.staked)
		}
		s.staked[r.Block] = b
	}
	out.Reward = b.reward
	return out
}

// StartStaking implements api.Node.
func (f face) StartStaking() error {
	if f.stake == nil {
		return api.Errorf(http.StatusConflict, "%v", noStakeHere(f.params))
	}
	if f.stake.source == "wallet" && !f.wallet.Exists() {
		return api.Errorf(http.StatusConflict, "%v", errNothingToStake)
	}
	if f.miner.Start() {
		f.log.Info("staking started", "by", "rpc", "source", f.stake.source)
	}
	return nil
}

// StopStaking implements api.Node.
func (f face) StopStaking() error {
	if f.stake == nil {
		return api.Errorf(http.StatusConflict, "%v", noStakeHere(f.params))
	}
	if f.miner.Stop() {
		f.log.Info("staking stopped", "by", "rpc")
	}
	return nil
}

// cannotStake says why no block can be made until somebody does something about it, which
// nobody need wait for; nil: one may come.
func (n *Node) cannotStake() error {
	if n.stake == nil {
		return nil
	}
	if err := n.stake.holder.Ready(); err != nil {
		return api.Errorf(http.StatusConflict, "no block can be made: %v", err)
	}
	return nil
}

// notStaked says why no block was made in time.
func (n *Node) notStaked() string {
	_, past, ok := n.past()
	if !ok {
		return "the tip changes"
	}
	if why := n.stake.sealer.Obstacle(past); why != "" {
		return why
	}
	c := n.stake.sealer.Chances(past)
	if c.Time == 0 {
		return "no slot was won"
	}
	return fmt.Sprintf("no slot was won: with %.1f%% of the stake that takes part this node wins one in %v, on average",
		100*c.Share, c.Time.Round(time.Second))
}

// logStaked tells of a block that was made by stake.
func (n *Node) logStaked(b *consensus.Block) {
	slot, _ := pos.Slot(n.params, b.Header.Timestamp.Unix())
	seal, _, err := pos.ParseSeal(b.Header.Seal)
	if err != nil {
		return // cannot be: the chain has taken it
	}
	var reward int64
	for _, o := range b.Txs[0].MsgTx().TxOut {
		reward += o.Value
	}
	by, _ := address.Of(seal.Script(), address.Params(n.params))
	s, _ := n.chain.Status(b.Hash)
	n.log.Info("own block by stake", "subsystem", "staking", "height", s.Height, "hash", b.Hash, "slot", slot, "stake", seal.Value, "by", by, "reward", reward)
}
