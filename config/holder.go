package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/btcsuite/btcd/address/v2/bech32"

	"dunlin/chain/consensus"
)

// holderHRP begins the addresses of every network of one's own.
const holderHRP = "tdun"

const holderWant = `ADDRESS=COINS or KEY=COINS: a taproot address (` + holderHRP + `1p…) or the 64 hex digits of its x-only output key, and an amount such as 500000 or 0.5`

// ParseHolder reads who has initial stake: "ADDRESS=COINS" or "KEY=COINS". The address
// is a taproot one (bech32m, tdun1p…), the key the output key in it, 64 hex digits. COINS
// is a decimal number with at most eight places, above 0 and at most 21 million.
func ParseHolder(s string) (consensus.Holder, error) {
	h, err := readHolder(s)
	if err == nil && len(consensus.NoPublicKeys([][32]byte{h.Key})) > 0 {
		err = errNoKey
	}
	return h, err
}

var errNoKey = errors.New("has a key that is no point of the curve: nobody could sign for it")

// readHolder is ParseHolder, which does not look for the key's point: a millionth of a second
// in place of several.
func readHolder(s string) (consensus.Holder, error) {
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

// readHolders reads all of them, and says what is wrong with each, or with their sum; but not
// whether their keys are any.
func readHolders(list []string) (holders []consensus.Holder, problems []string) {
	holders = make([]consensus.Holder, len(list))
	var sum int64
	for i, s := range list {
		h, err := readHolder(s)
		if err != nil {
			problems = append(problems, holderProblem(list, i, err))
			continue
		}
		holders[i] = h
		if sum <= maxMoney { // is said once
			if sum += h.Value; sum > maxMoney {
				problems = append(problems, fmt.Sprintf("have more than 21000000 coins in all, from item %d on", i+1))
			}
		}
	}
	return holders, problems
}

func holderProblem(list []string, i int, err error) string {
	return fmt.Sprintf("item %d (%s) %v", i+1, clip(quote(list[i])), err)
}

// holdersField checks each holder, and their sum.
func holdersField(key string, p *[]string, doc string) field {
	return field{
		key: key, ptr: p, doc: doc,
		want: fmt.Sprintf("a list of 1 to %d, each %s", consensus.MaxHolders, holderWant),
		check: func() string {
			switch {
			case len(*p) == 0:
				return "is empty: somebody must have the stake"
			case len(*p) > consensus.MaxHolders:
				return fmt.Sprintf("has %d items", len(*p))
			}
			holders, problems := readHolders(*p)
			if len(problems) == 0 { // then all keys are there
				keys := make([][32]byte, len(holders))
				for i := range holders {
					keys[i] = holders[i].Key
				}
				for _, i := range consensus.NoPublicKeys(keys) {
					problems = append(problems, holderProblem(*p, i, errNoKey))
				}
			}
			return strings.Join(problems, "; ")
		},
	}
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
