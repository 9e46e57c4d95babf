package node

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/consensus/pow"
	"dunlin/config"
)

// engines returns the engine and the sealer of a network. Engines are chosen
// here, by a switch, and nowhere else.
func engines(p *consensus.Params, threads int) (consensus.Engine, consensus.Sealer) {
	switch {
	case p.ProofOfStake():
		return pos.New(p), noSealer{}
	default:
		return pow.New(p), pow.NewSealer(threads)
	}
}

// errNoStake is why a node does not make blocks on a proof-of-stake network.
var errNoStake = errors.New("blocks of this network are made with stake, and this node stakes none")

// A noSealer seals nothing, as nothing can be searched for where stake makes blocks.
type noSealer struct{}

func (noSealer) Seal(<-chan struct{}, *consensus.Header) (bool, error) { return false, errNoStake }

// OpenChain opens the chain in the home of c: for the daemon and for commands
// that work on a stopped home. The caller runs and closes it.
func OpenChain(c *config.Config, log *slog.Logger) (*chain.Chain, error) {
	return openChain(c, log, func(*chain.Options) {})
}

// ReindexChain is OpenChain for a chain that is to be built anew from its block
// files, which its Run does before it is ready. One that was cut off goes on
// where it was, unless it shall start anew.
func ReindexChain(c *config.Config, log *slog.Logger, anew bool) (*chain.Chain, error) {
	return openChain(c, log, func(o *chain.Options) { o.Reindex, o.ReindexAnew = true, anew })
}

func openChain(c *config.Config, log *slog.Logger, change func(*chain.Options)) (*chain.Chain, error) {
	p := c.Chain.Params
	engine, _ := engines(p, 1)
	o := chain.Options{
		Dir:           c.Home,
		Params:        p,
		Engine:        engine,
		ChainID:       p.ChainID(),
		Logger:        log.With("subsystem", "chain"),
		CacheBytes:    int64(c.Storage.CacheMB) << 20,
		FlushBytes:    int64(c.Storage.FlushMB) << 20,
		FlushBlocks:   c.Storage.FlushBlocks,
		FlushInterval: c.Storage.FlushInterval,
		MinFreeBytes:  uint64(c.Storage.MinFreeMB) << 20,
		MaxFileBytes:  int64(c.Storage.FileMB) << 20,
		PruneBytes:    int64(c.Storage.PruneMB) << 20,
	}
	change(&o)
	if c.Sync.AssumeValid != "" {
		hash, err := chainhash.NewHashFromStr(c.Sync.AssumeValid)
		if err != nil {
			return nil, fmt.Errorf("sync.assume_valid: %w", err)
		}
		o.AssumeValid = *hash
	}
	return chain.Open(o)
}
