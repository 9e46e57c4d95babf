package exchange

import (
	"context"
	"math/big"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

// Chain is what the protocols need of a chain: the methods of *[chain.Chain],
// whose comments are the contract. [FromChain] makes one.
type Chain interface {
	Ready() <-chan struct{}
	Submit(ctx context.Context, raw []byte, src chain.Source) (Ticket, error)
	AcceptHeaders(ctx context.Context, hs []consensus.Header) (added int, last chain.Tip, err error)
	LeastWork() *big.Int
	HeaderLimit() int32
	Follow(hash chainhash.Hash)
	Refused() []chain.RefusedBranch
	ReorgsAccepted() int64
	NewPresync(base chainhash.Hash) (Presync, bool)
	Tip() (chain.Tip, <-chan struct{})
	BestHeader() (chain.Tip, <-chan struct{})
	Status(hash chainhash.Hash) (chain.NodeStatus, bool)
	Ancestor(hash chainhash.Hash, height int32) (chainhash.Hash, bool)
	Fork(a, b chainhash.Hash) (hash chainhash.Hash, height int32, ok bool)
	Have(tip chainhash.Hash, from, to int32) [][2]int32
	Locator(hash chainhash.Hash) []chainhash.Hash
	HeadersAfter(dst []byte, locator []chainhash.Hash, limit int) (start int32, n int, raw []byte, err error)
	Block(hash chainhash.Hash) ([]byte, error)
	BlockSize(hash chainhash.Hash) int
	ReadBlocks(buf []byte, hashes []chainhash.Hash) ([][]byte, error)
	CheckBlock(hash chainhash.Hash, buf []byte) error
	ReadBlockPart(hash chainhash.Hash, offset int64, dst []byte) error
	Params() *consensus.Params
}

// A Presync looks at headers before any are stored, as *[chain.Presync] does.
type Presync interface {
	Check(ctx context.Context, hs []consensus.Header) error
	Work() *big.Int
	Accept(ctx context.Context, hs []consensus.Header) (added int, last chain.Tip, err error)
	Done() bool
}

// A Ticket yields the verdict on one submitted block, as *[chain.Ticket] does.
type Ticket interface {
	Done() <-chan struct{}
	Verdict() chain.Verdict
}

// FromChain adapts c.
func FromChain(c *chain.Chain) Chain { return ledger{c} }

type ledger struct{ *chain.Chain }

func (l ledger) NewPresync(base chainhash.Hash) (Presync, bool) {
	p, ok := l.Chain.NewPresync(base)
	return p, ok
}

func (l ledger) Submit(ctx context.Context, raw []byte, src chain.Source) (Ticket, error) {
	t, err := l.Chain.Submit(ctx, raw, src)
	if err != nil {
		return nil, err
	}
	return t, nil
}
