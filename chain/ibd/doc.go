// Package ibd decides which peer to ask for which blocks while a node catches
// up with the network (initial block download).
//
// A [Scheduler] is a pure state machine: no goroutine, no clock, no I/O. The
// driver (chain/exchange) reports each event with the time at which it happened
// and performs the actions that [Scheduler.Step] returns. The same seed, config
// and events give the same actions.
//
// It is not a download: it never sees a block's bytes, only heights and sizes.
// The driver matches blocks to headers and keeps them until Deliver or Discard.
//
// # Invariants
//
// After every Step, for the caps of [Config]:
//
//   - A peer owes at most MaxRequestsPerPeer replies, MaxBlocksPerPeer blocks
//     and MaxBytesPerPeer bytes. Cancelled requests count until they end.
//   - All peers together owe at most MaxRequests replies that are not
//     cancelled.
//   - Bytes promised by requests that are not cancelled, bytes buffered and
//     bytes delivered but not connected are together at most MaxBytes. A request
//     promises its MaxBytes; each block that arrives turns its part of the
//     promise into its real size.
//   - A height is asked for only in (floor, floor+Window], where the floor is the
//     end of the unbroken run of connected and on-disk blocks from Base. In that
//     range each height is exactly one of: missing, owed by one to three
//     requests, or held (buffered, delivered, on disk).
//   - Deliveries come in height order, and each delivered block is the only copy
//     that was ever accepted for its request and height.
//   - Only the next block to connect may use the last MaxBlockBytes of MaxBytes,
//     and only the block after the floor the last of MaxRequests. Since the former
//     is the first to get a verdict, a full memory always empties: the lowest
//     missing height may be asked for as soon as the blocks below it have their
//     verdicts or are on disk (in the latter case, if need be, in place of what
//     is farthest ahead). Where MaxBytes holds less than two largest blocks
//     this does not hold after the loss of a block that was on disk.
//   - Second copies (hedges) are at most 3% of the bytes received, or one largest
//     block if that is more.
//   - A peer is dropped only for a lie: a reply that breaks the protocol, a
//     mutated block, or a size that turned out false. Slowness, silence, Busy and
//     NotFound are answered with back-off.
//   - What a peer says, and nobody has seen yet, counts only so far: a second of
//     delay past its round trip for its quota, four sizes of blocks for what is
//     expected of the others.
//   - A peer holds up the next block to connect for as long as the best of the
//     others needs ten times, however many are as slow.
//   - Memory is O(Window + peers), and the work of a Step O(peers + actions)
//     except after a reorg.
package ibd
