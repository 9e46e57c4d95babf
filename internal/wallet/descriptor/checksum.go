package descriptor

import (
	"errors"
	"fmt"
	"strings"
)

// Characters and code of BIP380's checksum.
const (
	inputChars    = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
	checksumChars = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	checksumLen   = 8
)

func polymod(c uint64, value int) uint64 {
	top := c >> 35
	c = (c&0x7ffffffff)<<5 ^ uint64(value) //nolint:gosec // Under 32.
	for i, g := range [...]uint64{0xf5dee51989, 0xa9fdca3312, 0x1bab10e32d, 0x3706b1677a, 0x644d626ffd} {
		if top>>i&1 == 1 {
			c ^= g
		}
	}
	return c
}

// Checksum returns the eight characters that belong behind a descriptor, after #.
func Checksum(text string) (string, error) {
	if len(text) > MaxTextBytes {
		return "", errTooLong(len(text))
	}
	c, group, n := uint64(1), 0, 0
	for i := range len(text) {
		at := strings.IndexByte(inputChars, text[i])
		if at < 0 {
			return "", fmt.Errorf("character %d is not one of a descriptor", i+1)
		}
		c = polymod(c, at&31)
		group = group*3 + at>>5
		if n++; n == 3 {
			c, group, n = polymod(c, group), 0, 0
		}
	}
	if n > 0 {
		c = polymod(c, group)
	}
	for range checksumLen {
		c = polymod(c, 0)
	}
	c ^= 1
	var sum [checksumLen]byte
	for i := range sum {
		sum[i] = checksumChars[c>>(5*(checksumLen-1-i))&31]
	}
	return string(sum[:]), nil
}

// ErrNoChecksum means that a checksum was demanded and is missing.
var ErrNoChecksum = errors.New("the descriptor has no checksum")

// splitChecksum returns the text without its checksum, which must be right if it is there.
func splitChecksum(text string, demanded bool) (string, error) {
	if len(text) > MaxTextBytes {
		return "", errTooLong(len(text))
	}
	body, given, found := strings.Cut(text, "#")
	want, err := Checksum(body)
	switch {
	case err != nil:
		return "", err
	case !found && demanded:
		return "", ErrNoChecksum
	case !found:
		return body, nil
	case len(given) != checksumLen:
		return "", fmt.Errorf("the checksum has %d characters, not %d", len(given), checksumLen)
	case given != want:
		return "", errors.New("the checksum does not fit the descriptor: a character was mistyped or is missing")
	}
	return body, nil
}

func errTooLong(n int) error {
	return fmt.Errorf("descriptor of %d bytes: at most %d", n, MaxTextBytes)
}
