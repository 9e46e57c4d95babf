package relay_test

import (
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/relay"
)

// A block of a few transactions goes whole; a message starts with what it is.
func ExampleMakeCompact() {
	p := consensus.Regtest()
	block := p.GenesisBlock()
	message, err := relay.MakeCompact(p, block.Raw, 1, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(relay.Encoding(message[0]) == relay.WholeBlock, len(message)-len(block.Raw))

	// What is no compact block is its sender's fault.
	_, err = relay.DecodeCompact(p, []byte("junk"))
	fmt.Println(err != nil)
	// Output:
	// true 1
	// true
}

// exampleTree knows genesis alone.
type exampleTree struct{ p *consensus.Params }

func (t exampleTree) CheckHeader(h *consensus.Header) (int32, bool, error) {
	if consensus.HeaderHash(h) == t.p.GenesisHash {
		return 0, true, nil
	}
	return -1, false, &consensus.RuleError{Rule: "unknown-parent", Blame: consensus.BlameNobody}
}

func (exampleTree) HaveBlock(chainhash.Hash) (have, invalid bool)   { return true, false }
func (exampleTree) Past(chainhash.Hash) (consensus.Past, bool)      { return nil, false }
func (exampleTree) CheckSeal(*consensus.Block) error                { return nil }
func (exampleTree) Claim(*consensus.Header) (consensus.Claim, bool) { return consensus.Claim{}, false }

// A message of the block topic is judged before it is passed on: what is known is ignored, what is no block is its sender's fault.
func ExampleBlocks_Check() {
	p := consensus.Regtest()
	judge := relay.NewBlocks(p, exampleTree{p})
	known := judge.Check("a peer", relay.Encode(p.GenesisBlock().Raw))
	fmt.Println(known.Result == relay.Ignore, known.Reason)
	junk := judge.Check("a peer", []byte("\x00junk"))
	fmt.Println(junk.Result == relay.Reject, junk.Reason)
	// Output:
	// true known
	// true short-header
}
