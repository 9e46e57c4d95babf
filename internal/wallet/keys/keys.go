// Package keys holds what may spend a wallet's coins: BIP39 words, BIP32 keys,
// imported private keys, and the file in which they rest.
//
// It is no wallet: it knows neither coins nor scripts nor addresses. Keys are named
// by where they come from ([Origin]); package descriptor says which key of which
// origin an output needs.
//
// Invariants:
//   - A secret leaves a value of this package only by a method whose name begins with
//     Reveal, or Words of a [Vault]. Everything that holds one prints as "(secret)" with every verb of fmt
//     and in slog, also when it is a field of something else.
//   - Nothing signs what it was not meant to: a [Staker] hashes the block header itself.
//   - The file of a [Vault] is replaced whole or not at all.
//
// Go copies memory as it grows and collects, so wiping is best effort: it shortens the
// time a secret lies around, it does not prove that none is left.
package keys

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"

	"dunlin/chain/consensus"
)

// Hardened is added to the index of a hardened step of a [Path].
const Hardened = 1 << 31

// maxSteps is what BIP32 can serialise: the depth is one byte.
const maxSteps = 255

// Errors of lookups.
var (
	// ErrNoKey means that no secret of ours leads to the public key asked for.
	ErrNoKey = errors.New("no private key for this public key")
	// ErrHardened means that a hardened step was asked of a public key.
	ErrHardened = errors.New("a hardened step needs the private key")
)

// A Fingerprint is the first four bytes of the HASH160 of a compressed public key
// (BIP32). Two keys may share one: it says where to look, never what was found.
type Fingerprint [4]byte

// ParseFingerprint reads 8 hexadecimal digits.
func ParseFingerprint(text string) (f Fingerprint, err error) {
	if len(text) != 8 {
		return f, fmt.Errorf("fingerprint: %d characters, not 8", len(text)) // not repeated: it may be a key in the wrong place
	}
	if _, err = hex.Decode(f[:], []byte(text)); err != nil {
		return f, fmt.Errorf("fingerprint %q: not hexadecimal", clip(text))
	}
	return f, nil
}

// String returns 8 lower-case hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// MarshalText implements [encoding.TextMarshaler].
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// A Path is a list of BIP32 derivation steps; hardened ones are Hardened or more.
type Path []uint32

// ParsePath reads a path as "m/84h/1h/0h/0/5" or "84'/1'/0'": the "m/" may be left out, ' and h
// both mean hardened. "m" and "" are the empty path. At most 255 steps.
func ParsePath(text string) (Path, error) {
	if text == "" || text == "m" {
		return nil, nil
	}
	rest := strings.TrimPrefix(text, "m/")
	if n := strings.Count(rest, "/") + 1; n > maxSteps {
		return nil, fmt.Errorf("path of %d steps: at most %d", n, maxSteps)
	}
	var p Path
	for part := range strings.SplitSeq(rest, "/") {
		step, err := ParseStep(part)
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", clip(text), err)
		}
		p = append(p, step)
	}
	return p, nil
}

// ParseStep reads one step of a path: a decimal number under 2³¹ and, if it is hardened, ' or h.
func ParseStep(text string) (uint32, error) {
	digits, offset := text, uint32(0)
	if strings.HasSuffix(text, "'") || strings.HasSuffix(text, "h") {
		digits, offset = text[:len(text)-1], Hardened
	}
	// ParseUint takes no sign and no spaces with base 10.
	n, err := strconv.ParseUint(digits, 10, 32)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && n > math.MaxInt32:
		return 0, fmt.Errorf("step %q: more than %d", clip(text), math.MaxInt32)
	case err != nil:
		return 0, fmt.Errorf("step %q: not a number, with ' or h behind it if hardened", clip(text))
	}
	return uint32(n) + offset, nil //nolint:gosec // Checked: at most MaxInt32.
}

// String returns the path without "m/", hardened steps with h: "84h/1h/0h/0/5".
func (p Path) String() string {
	var b strings.Builder
	for i, step := range p {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(StepString(step))
	}
	return b.String()
}

// StepString returns a step as [ParseStep] reads it, with h if it is hardened.
func StepString(step uint32) string {
	if step >= Hardened {
		return strconv.FormatUint(uint64(step-Hardened), 10) + "h"
	}
	return strconv.FormatUint(uint64(step), 10)
}

// MarshalText implements [encoding.TextMarshaler].
func (p Path) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Join returns p followed by more, sharing no memory with either.
func (p Path) Join(more ...uint32) Path {
	return append(append(make(Path, 0, len(p)+len(more)), p...), more...)
}

// An Origin says where a key comes from: the fingerprint of a key, and the steps from
// it. A key that came without an origin is its own: its fingerprint and no steps.
type Origin struct {
	Fingerprint Fingerprint
	Path        Path
}

// String returns the origin as in a descriptor, without brackets: "d34db33f/84h/0h/0h".
func (o Origin) String() string {
	if len(o.Path) == 0 {
		return o.Fingerprint.String()
	}
	return o.Fingerprint.String() + "/" + o.Path.String()
}

// A Ref names one key: where it comes from and what its public key is.
type Ref struct {
	Origin
	PubKey []byte // 33 bytes compressed, 65 uncompressed or 32 x-only
}

// A Purpose is the first step of an account's path: which kind of output it pays to.
type Purpose uint32

// Purposes and the kinds of output that their accounts pay to.
const (
	BIP44 Purpose = 44 // P2PKH
	BIP49 Purpose = 49 // P2WPKH in P2SH
	BIP84 Purpose = 84 // P2WPKH
	BIP86 Purpose = 86 // P2TR, key only
)

// Purposes lists every purpose, in the order of their numbers.
func Purposes() []Purpose { return []Purpose{BIP44, BIP49, BIP84, BIP86} }

// CoinType is the second step of an account's path: 0 on bitcoin, 1, which SLIP44 gives
// to test networks of all coins, on every other network.
func CoinType(net *consensus.Params) uint32 {
	if isBitcoin(net) {
		return 0
	}
	return 1
}

// AccountPath is the path of an account, as 84h/1h/0h. Account must be less than [Hardened].
func AccountPath(p Purpose, net *consensus.Params, account uint32) Path {
	return Path{Hardened + uint32(p), Hardened + CoinType(net), Hardened + account}
}

func isBitcoin(net *consensus.Params) bool { return net.Name == "bitcoin" }

// secret keeps what holds it from being printed. It is embedded by every type that
// holds a secret.
type secret struct{}

// hold returns a function that returns v. Every secret is held so: fmt does not ask a field that is not exported how it
// wants to be printed, and follows pointers for some verbs, but cannot look into a function.
func hold[T any](v T) func() T { return func() T { return v } }

const hidden = "(secret)"

// Format implements [fmt.Formatter]: it prints nothing of the secret.
func (secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// LogValue implements [slog.LogValuer]: it prints nothing of the secret.
func (secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText implements [encoding.TextMarshaler], for JSON: it prints nothing of the secret.
func (secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// clip shortens what an operator wrote for an error.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
