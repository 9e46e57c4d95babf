package node

import (
	"fmt"
	"log/slog"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/pos"
	"dunlin/chain/consensus/pow"
	"dunlin/config"
)

// newEngine returns the engine of a network. Engines are chosen here, by a switch, and
// nowhere else.
func newEngine(p *consensus.Params) consensus.Engine {
	switch {
	case p.ProofOfStake():
		return pos.New(p)
	default:
		return pow.New(p)
	}
}

// openSealer makes what proves the blocks that are made here.
func (n *Node) openSealer() error {
	switch {
	case n.params.ProofOfStake():
		if err := n.openStaking(); err != nil {
			return err
		}
		n.sealer = n.stake.sealer
	default:
		n.sealer = pow.NewSealer(n.c.Mining.Threads)
	}
	return nil
}

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
	engine := newEngine(p)
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
		BlockFacts:    slotFacts(p),
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
