// Package spend builds and signs transactions: it chooses coins, sets fees and
// change, carries transactions between signers (PSBT: BIP174, BIP371), and hands
// out what is signed and checked.
//
// The way of a payment: [Build] makes a [Plan] of a [Request]; [Plan.Packet] is its
// PSBT; [Packet.Sign] adds the signatures of a signer, [Combine] those of several;
// [Packet.Finalise] makes scripts of them, and [Packet.Extract] the transaction,
// whose scripts have passed chain/consensus by then.
//
// The package is no wallet: it knows neither which coins there are nor where keys
// are kept, does no I/O, has no clock, and takes its randomness as an argument: the
// same seed gives the same transaction. It holds no secret; signatures come from a
// [Signer].
//
// Invariants: what a Plan spends is worth exactly its outputs and its fee; the fee
// is never below what was asked, nor above the caps of the request; no output is
// dust; what a stranger sent (a PSBT) is bounded before anything is allocated for
// it, and no amount is believed that its signature does not commit to, or that the
// transaction which it is from does not show.
//
// Amounts are in satoshi, weights in BIP141's units, rates in satoshi per 1000
// virtual bytes.
package spend
