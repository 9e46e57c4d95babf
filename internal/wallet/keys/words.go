package keys

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cosmos/go-bip39"
	"golang.org/x/text/unicode/norm"
)

// Limits of BIP39.
const (
	wordBits  = 11
	minWords  = 12
	maxWords  = 24
	seedBytes = 64
	// seedRounds is how often PBKDF2 hashes (BIP39).
	seedRounds = 2048
	// maxWordsText is far more than 24 words and the spaces of a pasted page have.
	maxWordsText = 4096
)

// ErrChecksum means that every word is on the list, but that together they are not a
// backup: one was changed, left out or moved.
var ErrChecksum = errors.New("the words do not fit together (checksum): one is wrong, or two are exchanged")

// A WordError says which word is not on the English list.
type WordError struct {
	Position int    // from 1
	Word     string // as written; it was no word of a backup
	Nearest  []string
}

// Error names the place and the nearest words of the list.
func (e *WordError) Error() string {
	s := fmt.Sprintf("word %d, %q, is not on the English list of BIP39", e.Position, clip(e.Word))
	if len(e.Nearest) > 0 {
		s += ": did you mean " + strings.Join(e.Nearest, " or ") + "?"
	}
	return s
}

// Words are the 12, 15, 18, 21 or 24 words of a backup (BIP39, English). They are
// a secret: whoever has them has the coins.
type Words struct {
	secret
	entropy func() []byte
}

// NewWords draws new words: 12, 15, 18, 21 or 24.
func NewWords(count int) (*Words, error) {
	if err := checkCount(count); err != nil {
		return nil, err
	}
	entropy := make([]byte, count/3*4)
	_, _ = rand.Read(entropy) // never fails: it ends the process instead
	return &Words{entropy: hold(entropy)}, nil
}

// WordsFromEntropy returns the words of 16, 20, 24, 28 or 32 random bytes, which it copies.
func WordsFromEntropy(entropy []byte) (*Words, error) {
	if len(entropy)%4 != 0 || checkCount(len(entropy)/4*3) != nil {
		return nil, fmt.Errorf("entropy of %d bytes: words stand for 16, 20, 24, 28 or 32", len(entropy))
	}
	return &Words{entropy: hold(slices.Clone(entropy))}, nil
}

// ParseWords reads words from a backup. Case and the kind and number of spaces do not matter,
// nor does the Unicode form. Errors: a [*WordError] for the first word that is not on the list,
// [ErrChecksum].
func ParseWords(text string) (*Words, error) {
	if len(text) > maxWordsText {
		return nil, fmt.Errorf("text of %d bytes: at most %d", len(text), maxWordsText)
	}
	words := strings.Fields(strings.ToLower(norm.NFKD.String(text)))
	list := bip39.EnglishWordList
	bits := make([]byte, (len(words)*wordBits+7)/8)
	defer wipe(bits)
	for i, w := range words {
		n, ok := slices.BinarySearch(list, w)
		if !ok {
			return nil, &WordError{Position: i + 1, Word: w, Nearest: nearest(w, list)}
		}
		for b := range wordBits {
			if n>>(wordBits-1-b)&1 == 1 {
				at := i*wordBits + b
				bits[at/8] |= 0x80 >> (at % 8)
			}
		}
	}
	if err := checkCount(len(words)); err != nil {
		return nil, err
	}
	size := len(words) / 3 * 4
	entropy := slices.Clone(bits[:size])
	sum := sha256.Sum256(entropy)
	if mask := checksumMask(size); bits[size]&mask != sum[0]&mask {
		wipe(entropy)
		return nil, ErrChecksum
	}
	return &Words{entropy: hold(entropy)}, nil
}

func checkCount(n int) error {
	if n < minWords || n > maxWords || n%3 != 0 {
		return fmt.Errorf("%d words: a backup has 12, 15, 18, 21 or 24", n)
	}
	return nil
}

// checksumMask covers the checksum's bits, one for each 4 bytes of entropy, in the byte
// behind the entropy.
func checksumMask(entropyBytes int) byte { return ^byte(0xff >> (entropyBytes / 4)) }

// Count returns the number of words.
func (w *Words) Count() int { return len(w.entropy()) / 4 * 3 }

// Reveal returns the words, separated by single spaces. It is for the operator's eyes.
func (w *Words) Reveal() string { return string(w.text()) }

func (w *Words) text() []byte {
	entropy := w.entropy()
	sum := sha256.Sum256(entropy)
	bits := append(append(make([]byte, 0, len(entropy)+1), entropy...), sum[0])
	defer wipe(bits)
	text := make([]byte, 0, w.Count()*9) // no word is longer than 8: never reallocated
	for i := range w.Count() {
		n := 0
		for at := i * wordBits; at < (i+1)*wordBits; at++ {
			n = n<<1 | int(bits[at/8]>>(7-at%8)&1)
		}
		if i > 0 {
			text = append(text, ' ')
		}
		text = append(text, bip39.EnglishWordList[n]...)
	}
	return text
}

// Seed stretches the words and an optional passphrase, which may hold any Unicode text, to
// the seed of a [Master] key. Another passphrase gives another wallet, never an error.
func (w *Words) Seed(passphrase string) *Seed {
	text := w.text()
	defer wipe(text)
	salt := "mnemonic" + norm.NFKD.String(passphrase)
	key, err := pbkdf2.Key(sha512.New, string(text), []byte(salt), seedRounds, seedBytes)
	if err != nil {
		panic(err) // only of parameters outside FIPS 140, in a process that demands it
	}
	return &Seed{bytes: hold(key)}
}

// Wipe forgets the words. They must not be used afterwards.
func (w *Words) Wipe() { wipe(w.entropy()) }

// A Seed is what a [Master] key is made of.
type Seed struct {
	secret
	bytes func() []byte
}

// NewSeed takes a copy of 16 to 64 bytes (BIP32).
func NewSeed(b []byte) (*Seed, error) {
	if len(b) < 16 || len(b) > seedBytes {
		return nil, fmt.Errorf("seed of %d bytes: 16 to %d", len(b), seedBytes)
	}
	return &Seed{bytes: hold(slices.Clone(b))}, nil
}

// Reveal returns a copy of the seed.
func (s *Seed) Reveal() []byte { return slices.Clone(s.bytes()) }

// Wipe forgets the seed. It must not be used afterwards.
func (s *Seed) Wipe() { wipe(s.bytes()) }

// nearest returns up to three words of the list that are fewest typing errors away
// from w, none if all are far. The first four letters of each word are its own, so a
// shortened word is found by them.
func nearest(w string, list []string) []string {
	if len(w) > 32 {
		return nil
	}
	best, found := 3, []string(nil)
	for _, word := range list {
		d := distance(w, word)
		if len(w) >= 4 && strings.HasPrefix(word, w[:4]) {
			d = min(d, 1)
		}
		switch {
		case d < best:
			best, found = d, []string{word}
		case d == best && d < 3 && len(found) < 3:
			found = append(found, word)
		}
	}
	return found
}

// distance counts the insertions, deletions, substitutions and swaps of neighbours
// that make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

// wipe overwrites a secret.
func wipe(b []byte) { clear(b) }
