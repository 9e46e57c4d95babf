// Package address turns addresses of a network into output scripts and back.
//
// It holds no state: all that differs between networks comes from their
// parameters.
package address

import (
	"errors"
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/address/v2/base58"
	"github.com/btcsuite/btcd/address/v2/bech32"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"

	"dunlin/chain/consensus"
)

// Params is what btcd's address functions want to know of a network.
func Params(p *consensus.Params) *chaincfg.Params {
	return &chaincfg.Params{
		Name:             p.Name,
		Bech32HRPSegwit:  p.Bech32HRP,
		PubKeyHashAddrID: p.PubKeyHashAddrID,
		ScriptHashAddrID: p.ScriptHashAddrID,
		PrivateKeyID:     p.PrivateKeyID,
	}
}

// Script returns the output script that pays an address. Errors are as of [Decode].
func Script(s string, p *chaincfg.Params) ([]byte, error) {
	a, err := Decode(s, p)
	if err != nil {
		return nil, err
	}
	return txscript.PayToAddrScript(a)
}

// Of returns the address that an output script pays, and false if it has none, as
// bare public keys and multisig scripts.
func Of(script []byte, p *chaincfg.Params) (string, bool) {
	class, addrs, _, err := txscript.ExtractPkScriptAddrs(script, p)
	if err != nil || len(addrs) != 1 || class == txscript.PubKeyTy || class == txscript.MultiSigTy {
		return "", false
	}
	return addrs[0].EncodeAddress(), true
}

// Decode reads an address of the given network only: base58 (P2PKH,
// P2SH) or bech32/bech32m (BIP173, BIP350; P2WPKH, P2WSH, P2TR).
//
// btcd's DecodeAddress knows bech32 prefixes by a process-wide registry, into
// which an operator's own network would have to be written; this takes them from
// the parameters.
func Decode(s string, p *chaincfg.Params) (address.Address, error) {
	if i := strings.LastIndexByte(s, '1'); i > 0 && strings.EqualFold(s[:i], p.Bech32HRPSegwit) {
		return decodeSegwit(s, p)
	}
	payload, id, err := base58.CheckDecode(s)
	if err != nil {
		return nil, fmt.Errorf("neither a bech32 address with prefix %s1 nor a base58 one: %w", p.Bech32HRPSegwit, err)
	}
	if len(payload) != 20 {
		return nil, fmt.Errorf("holds %d bytes, an address 20", len(payload))
	}
	switch id {
	case p.PubKeyHashAddrID:
		return address.NewAddressPubKeyHash(payload, p)
	case p.ScriptHashAddrID:
		return address.NewAddressScriptHashFromHash(payload, p)
	}
	return nil, fmt.Errorf("of another network (version byte %#02x; %s has %#02x and %#02x)", id, p.Name, p.PubKeyHashAddrID, p.ScriptHashAddrID)
}

func decodeSegwit(s string, p *chaincfg.Params) (address.Address, error) {
	_, data, checksum, err := bech32.DecodeGeneric(s)
	if err != nil {
		return nil, err
	}
	if len(data) < 1 {
		return nil, errors.New("no witness version")
	}
	program, err := bech32.ConvertBits(data[1:], 5, 8, false)
	if err != nil {
		return nil, err
	}
	version := data[0]
	if want := map[bool]bech32.Version{true: bech32.Version0, false: bech32.VersionM}[version == 0]; checksum != want {
		return nil, fmt.Errorf("wrong kind of checksum for witness version %d (BIP350)", version)
	}
	switch {
	case version == 0 && len(program) == 20:
		return address.NewAddressWitnessPubKeyHash(program, p)
	case version == 0 && len(program) == 32:
		return address.NewAddressWitnessScriptHash(program, p)
	case version == 1 && len(program) == 32:
		return address.NewAddressTaproot(program, p)
	}
	return nil, fmt.Errorf("witness version %d with %d bytes: not a kind this version pays to", version, len(program))
}
