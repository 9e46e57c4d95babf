package chain_test

import (
	"testing"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/database"
	_ "github.com/btcsuite/btcd/database/ffldb" // the only kind of database that btcd has
	"github.com/btcsuite/btcd/txscript/v2"
)

// A btcd is btcd's block chain in this process, configured as its node does.
type btcd struct {
	*blockchain.BlockChain
	db database.DB
}

// openBTCD opens one in an empty folder. A checkpoint, if not nil, is at a height
// up to which it checks no scripts.
func openBTCD(tb testing.TB, p chaincfg.Params, checkpoint *chaincfg.Checkpoint) *btcd {
	tb.Helper()
	for i := range p.Deployments {
		d := &p.Deployments[i]
		// A chain sets its clock in these, which all chains with the same
		// parameters share.
		if s, ok := d.DeploymentStarter.(*chaincfg.MedianTimeDeploymentStarter); ok {
			d.DeploymentStarter = chaincfg.NewMedianTimeDeploymentStarter(s.StartTime())
		}
		if e, ok := d.DeploymentEnder.(*chaincfg.MedianTimeDeploymentEnder); ok {
			d.DeploymentEnder = chaincfg.NewMedianTimeDeploymentEnder(e.EndTime())
		}
	}
	db, err := database.Create("ffldb", tb.TempDir()+"/blocks_ffldb", p.Net)
	if err != nil {
		tb.Fatal(err)
	}
	var checkpoints []chaincfg.Checkpoint
	if checkpoint != nil {
		checkpoints = append(checkpoints, *checkpoint)
	}
	const sigCacheEntries, coinsCacheBytes = 100_000, 250 << 20 // its defaults
	c, err := blockchain.New(&blockchain.Config{
		DB:               db,
		ChainParams:      &p,
		Checkpoints:      checkpoints,
		TimeSource:       blockchain.NewMedianTime(),
		SigCache:         txscript.NewSigCache(sigCacheEntries),
		HashCache:        txscript.NewHashCache(sigCacheEntries),
		UtxoCacheMaxSize: coinsCacheBytes,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return &btcd{c, db}
}

// close writes what is in memory to disk.
func (b *btcd) close(tb testing.TB) {
	tb.Helper()
	if err := b.FlushUtxoCache(blockchain.FlushRequired); err != nil {
		tb.Fatal(err)
	}
	if err := b.db.Close(); err != nil {
		tb.Fatal(err)
	}
}

// process submits a block. The error is btcd's verdict or its own trouble.
func (b *btcd) process(raw []byte, flags blockchain.BehaviorFlags) (mainChain, orphan bool, err error) {
	block, err := btcutil.NewBlockFromBytes(raw)
	if err != nil {
		return false, false, err
	}
	return b.ProcessBlock(block, flags)
}
