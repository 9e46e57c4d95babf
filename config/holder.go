package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/btcsuite/btcd/address/v2/bech32"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"

	"dunlin/chain/consensus"
)

// holderHRP begins the addresses of every network of one's own.
const holderHRP = "tdun"

const holderWant = `ADDRESS=COINS or KEY=COINS: a taproot address (` + holderHRP + `1p…) or the 64 hex digits of its x-only output key, and an amount such as 500000 or 0.5`

// ParseHolder reads who has initial stake: "ADDRESS=COINS" or "KEY=COINS". The address
// is a taproot one (bech32m, tdun1p…), the key the output key in it, 64 hex digits. COINS
// is a decimal number with at most eight places, above 0 and at most 21 million.
func ParseHolder(s string) (consensus.Holder, error) {
	owner, coins, ok := strings.Cut(s, "=")
	if !ok {
		return consensus.Holder{}, errors.New("lacks its amount: a = and coins")
	}
	key, err := parseHolderKey(strings.TrimSpace(owner))
	if err != nil {
		return consensus.Holder{}, err
	}
	value, err := parseCoins(strings.TrimSpace(coins))
	if err != nil {
		return consensus.Holder{}, err
	}
	return consensus.Holder{Key: key, Value: value}, nil
}

// FormatHolder is what [ParseHolder] reads, with an address.
func FormatHolder(h consensus.Holder) string {
	return HolderAddress(h.Key) + "=" + formatCoins(h.Value)
}

// HolderAddress is the taproot address of an output key on networks of one's own.
func HolderAddress(key [32]byte) string {
	program, err := bech32.ConvertBits(key[:], 8, 5, true)
	if err != nil {
		panic("config: regrouping 32 bytes: " + err.Error())
	}
	addr, err := bech32.EncodeM(holderHRP, append([]byte{1}, program...))
	if err != nil {
		panic("config: encoding an address: " + err.Error())
	}
	return addr
}

func parseHolderKey(s string) (key [32]byte, err error) {
	if raw, err := hex.DecodeString(s); err == nil {
		switch len(raw) {
		case 32:
			key = [32]byte(raw)
		case 33:
			return key, errors.New("has a compressed public key of 33 bytes: an output key has 32, without the 02 or 03 in front")
		default:
			return key, fmt.Errorf("has a key of %d bytes, an output key has 32", len(raw))
		}
	} else if key, err = decodeTaproot(s); err != nil {
		return key, err
	}
	if _, err := schnorr.ParsePubKey(key[:]); err != nil {
		return key, errors.New("has a key that is no point of the curve: nobody could sign for it")
	}
	return key, nil
}

func decodeTaproot(s string) (key [32]byte, err error) {
	hrp, data, version, err := bech32.DecodeGeneric(s)
	switch {
	case err != nil:
		return key, fmt.Errorf("has neither an address nor a key: %w", err)
	case hrp != holderHRP:
		return key, fmt.Errorf("has an address of another network: it begins with %s1, not %s1", hrp, holderHRP)
	case len(data) == 0 || data[0] != 1:
		return key, errors.New("has an address that is not taproot: only coins of tdun1p… can be stake")
	case version != bech32.VersionM:
		return key, errors.New("has an address with the wrong kind of checksum (BIP350)")
	}
	program, err := bech32.ConvertBits(data[1:], 5, 8, false)
	if err != nil || len(program) != len(key) {
		return key, errors.New("has an address that is not taproot: only coins of tdun1p… can be stake")
	}
	return [32]byte(program), nil
}

const coin = 100_000_000 // satoshi

// parseCoins reads an amount: digits, and a point with at most eight more.
func parseCoins(s string) (int64, error) {
	whole, part, point := strings.Cut(s, ".")
	if whole == "" || point && part == "" || strings.Trim(whole+part, "0123456789") != "" {
		return 0, fmt.Errorf("has the amount %s, which is no decimal number of coins", clip(quote(s)))
	}
	if len(part) > 8 {
		return 0, fmt.Errorf("has the amount %s: a coin has eight decimal places", clip(s))
	}
	if whole = strings.TrimLeft(whole, "0"); len(whole) > len("21000000") {
		return 0, fmt.Errorf("has the amount %s: there are at most 21000000 coins", clip(s))
	}
	var n int64
	for _, c := range whole + part + strings.Repeat("0", 8-len(part)) {
		n = 10*n + int64(c-'0')
	}
	switch {
	case n == 0:
		return 0, errors.New("has no coins")
	case n > maxMoney:
		return 0, fmt.Errorf("has the amount %s: there are at most 21000000 coins", s)
	}
	return n, nil
}

// formatCoins writes an amount without zeros at its end.
func formatCoins(n int64) string {
	s := fmt.Sprintf("%d.%08d", n/coin, n%coin)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// parseHolders reads all of them and adds them up.
func parseHolders(list []string) ([]consensus.Holder, error) {
	holders := make([]consensus.Holder, len(list))
	var sum int64
	for i, s := range list {
		h, err := ParseHolder(s)
		if err != nil {
			return nil, fmt.Errorf("item %d (%s) %w", i+1, clip(quote(s)), err)
		}
		if sum += h.Value; sum > maxMoney {
			return nil, fmt.Errorf("have more than 21000000 coins in all, from item %d on", i+1)
		}
		holders[i] = h
	}
	return holders, nil
}

// holdersField checks each holder, and their sum.
func holdersField(key string, p *[]string, doc string) field {
	f := list(key, p, consensus.MaxHolders, holderWant, func(s string) string {
		if _, err := ParseHolder(s); err != nil {
			return err.Error()
		}
		return ""
	}, doc)
	f.want = fmt.Sprintf("a list of 1 to %d, each %s", consensus.MaxHolders, holderWant)
	each := f.check
	f.check = func() string {
		if len(*p) == 0 {
			return "is empty: somebody must have the stake"
		}
		if problem := each(); problem != "" {
			return problem
		}
		if _, err := parseHolders(*p); err != nil {
			return err.Error()
		}
		return ""
	}
	return f
}

// slotField is a whole number of seconds.
func (s *NetworkSpec) slotField() field {
	f := dur("slot", &s.Slot, time.Second, time.Hour, "Length of a slot, in which each stake wins or not; a block is wanted in every fourth.")
	f.want = `whole seconds with their unit, such as "16s", from 1s to 1h0m0s`
	inRange := f.check
	f.check = func() string {
		if problem := inRange(); problem != "" {
			return problem
		}
		if s.Slot%time.Second != 0 {
			return "is no whole number of seconds"
		}
		return ""
	}
	return f
}
