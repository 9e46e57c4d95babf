// Package exchange speaks the chain's stream protocols over libp2p: hello (who
// are you and what is your tip), headers, blocks and txs, each as server and as
// client, and drives the block download of package ibd.
//
// It is not a chain: headers and blocks go to the chain through its one door
// and come back as verdicts. It is not discovery: it dials nobody (except in
// [Exchange.Probe]), it greets whoever is connected and says who turned out to
// be of another network or to misbehave. It is not gossip: [Exchange.FetchFrom]
// is how gossip asks for what it cannot place.
//
// # Invariants
//
//   - Nothing but hello is served to, or asked of, a peer whose hello is not
//     complete.
//   - At one peer never more than ibd.Config.MaxRequestsPerPeer requests and
//     MaxBytesPerPeer promised bytes are outstanding, at all peers together never
//     more than MaxRequests and MaxBytes: counted on the wire, withdrawn requests
//     included until the peer has acknowledged them.
//   - A block is handed on only if its header hashes to the validated header at
//     the height that was asked for, and memory for it is allocated only after its
//     length is within what the request allowed.
//   - What is on its way out to all peers together takes at most ServeBytes of
//     memory, at most 128 KiB a stream of blocks; peers get turns by bytes, least
//     served first.
//   - Every read and write has a deadline that only progress extends.
//   - Every goroutine is joined by [Exchange.Run].
//
// The bytes are described in docs/protocol.md.
package exchange
