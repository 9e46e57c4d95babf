// Package flood owns the block topic of a node: it judges what comes, puts compact
// blocks together, hands complete blocks to the chain, and sends out own ones.
//
// It is the I/O around package relay, which decides: [Flood] feeds a
// relay.Assembler with what came and performs what it wants, in one goroutine with
// bounded workers. It is not gossip, whose topic it plugs into ([Flood.Topic]), not
// the chain ([Options.Submit]), and not the stream protocols ([Options.Fetch]):
// a node and a simulation hand in theirs.
//
// # Invariants
//
//   - Validate never waits: neither for a peer nor for the chain.
//   - A block is sent out by this node at most once by itself, unless nobody heard
//     it, and not at all if it passed it on; once more if the assembler says that false
//     copies have used up its places ([relay.Deliver]).
//   - What is passed on can be asked for here: blocks in work and the last
//     completed ones are served from memory ([Flood.BlockTxs], [Flood.Block]).
//   - Nothing that a peer sends makes anything grow without a limit: messages that
//     wait, blocks in work, requests under way, completed blocks kept.
//   - Every goroutine is joined by [Flood.Run].
package flood
