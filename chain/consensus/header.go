package consensus

import (
	"math/big"

	"github.com/btcsuite/btcd/blockchain"
)

// CheckVersion refuses header versions from before the rules that bumped them
// (BIP34, BIP66, BIP65). Its faults are the block's.
func CheckVersion(p *Params, height, version int32) error {
	var least int32
	switch {
	case height >= p.BIP65Height:
		least = 4
	case height >= p.BIP66Height:
		least = 3
	case height >= p.BIP34Height:
		least = 2
	default:
		return nil
	}
	if version < least {
		return badBlock("bad-version", "version %#08x at height %d, at least %d", uint32(version), height, least)
	}
	return nil
}

// aserti3-2d, the algorithm of Bitcoin Cash
// (upgradespecs.bitcoincashnode.org/2020-11-15-asert):
//
//	target = anchor · 2^((time − spacing·(height+1)) / half-life)
//
// in 16-bit fixed point with a cubic for the fraction, time counted from the
// anchor's parent and height from the anchor.
const (
	asertRadixBits = 16
	asertRadix     = 1 << asertRadixBits
	asertCubic1    = 195_766_423_245_049
	asertCubic2    = 971_821_376
	asertCubic3    = 5_127
)

// ASERT returns the bits for a chain that is late seconds behind the schedule that
// it began with anchorBits, never easier than limit (aserti3-2d). 2^16·late must fit
// an int64: times are 32 bits wide, so it does.
func ASERT(anchorBits uint32, limit *big.Int, late, halfLife int64) uint32 {
	exponent := late * asertRadix / halfLife // truncates towards zero, as specified
	shifts := exponent >> asertRadixBits     // rounds down
	frac := uint64(exponent) & (asertRadix - 1)
	factor := asertRadix + (asertCubic1*frac+asertCubic2*frac*frac+asertCubic3*frac*frac*frac+1<<47)>>48

	target := blockchain.CompactToBig(anchorBits)
	target.Mul(target, new(big.Int).SetUint64(factor))
	// Past 256 shifts either way the result is a limit anyhow; the clamp keeps
	// the intermediate small.
	switch shifts = min(max(shifts, -512), 512) - asertRadixBits; {
	case shifts < 0:
		target.Rsh(target, uint(-shifts))
	default:
		target.Lsh(target, uint(shifts))
	}
	if target.Sign() == 0 {
		return blockchain.BigToCompact(big.NewInt(1))
	}
	if target.Cmp(limit) > 0 {
		return blockchain.BigToCompact(limit)
	}
	return blockchain.BigToCompact(target)
}
