package wallet

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/btcsuite/btcd/btcutil/v2"
)

// decimals is how many digits a coin has behind the point.
const decimals = 8

// ParseAmount reads a number of coins, as "0.001", into satoshi, exactly. It takes neither signs nor exponents,
// nor more than eight digits behind the point, nor more than there can be.
func ParseAmount(s string) (int64, error) {
	whole, part, point := strings.Cut(s, ".")
	if whole == "" || point && part == "" || len(part) > decimals || strings.Trim(whole+part, "0123456789") != "" {
		return 0, refuse("amount %q: want coins, as 1 or 0.00012345", clip(s))
	}
	n, err := strconv.ParseInt(whole+part+strings.Repeat("0", decimals-len(part)), 10, 64)
	if err != nil || n > btcutil.MaxSatoshi {
		return 0, refuse("amount %q: there are 21,000,000 coins at most", clip(s))
	}
	return n, nil
}

// FormatAmount writes satoshi as coins, with eight digits behind the point.
func FormatAmount(n int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	return fmt.Sprintf("%s%d.%08d", sign, n/btcutil.SatoshiPerBitcoin, n%btcutil.SatoshiPerBitcoin)
}

// rateDecimals is how many digits a rate in satoshi per virtual byte has behind the point.
const rateDecimals = 3

// ParseRate reads a fee rate in satoshi per virtual byte, as "1.5", into satoshi per 1000 virtual bytes.
func ParseRate(s string) (int64, error) {
	whole, part, point := strings.Cut(s, ".")
	if whole == "" || point && part == "" || len(part) > rateDecimals || strings.Trim(whole+part, "0123456789") != "" {
		return 0, refuse("fee rate %q: want satoshi per virtual byte, as 2 or 1.5", clip(s))
	}
	n, err := strconv.ParseInt(whole+part+strings.Repeat("0", rateDecimals-len(part)), 10, 64)
	if err != nil || n > btcutil.MaxSatoshi {
		return 0, refuse("fee rate %q: too high", clip(s))
	}
	return n, nil
}

// FormatRate writes satoshi per 1000 virtual bytes as satoshi per virtual byte.
func FormatRate(n int64) string { return fmt.Sprintf("%d.%03d", n/1000, n%1000) }
