package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"dunlin/config"
	"dunlin/internal/api"
)

// A redactor takes secrets out of texts: those that lie in the home, whatever file they turn up in, and all that looks like one. It rather takes
// out too much.
type redactor struct {
	known [][]byte // longest first
}

const (
	redacted = "(left out)"
	// minSecret is the least length of a secret that is looked for elsewhere: shorter ones would be found everywhere.
	minSecret = 8
	// maxSecretFile bounds what is read of a file of secrets, maxSecretFiles how many there are.
	maxSecretFile  = 1 << 20
	maxSecretFiles = 256
)

// secretPatterns is what is taken out wherever it stands: of three groups the middle one.
var secretPatterns = []*regexp.Regexp{
	// Private keys of files.
	regexp.MustCompile(`(?s)()(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z))()`),
	// Keys as wallets write them: WIF, and extended private keys of every prefix. The node's own token.
	regexp.MustCompile(`()\b([5KL9c][1-9A-HJ-NP-Za-km-z]{50,51})\b()`),
	regexp.MustCompile(`()\b([a-zA-Z]prv[1-9A-HJ-NP-Za-km-z]{50,})()`),
	regexp.MustCompile(`()(__cookie__:[0-9a-fA-F]+)()`),
	// The words of a wallet: twelve or more of them in a row, however they are parted.
	regexp.MustCompile(`()\b((?:[a-z]{3,8}(?:[\s,;"'#-]|\\n|\d+[.):])+){11,}[a-z]{3,8})\b()`),
	// A user and a password in a URL.
	regexp.MustCompile(`(://)([^/\s:@"(]+:[^/\s@"]+)(@)`),
	// What is called a secret: --key value, key = value, "key": "value", Header: value.
	regexp.MustCompile(`(?i)(--[a-z-]*(?:pass(?:word|phrase|wd)?|secret|token|auth|mnemonic|key-seed|words)[a-z-]*[ =])([^\s(]\S*)()`),
	regexp.MustCompile(`(?i)((?:pass(?:word|phrase|wd)?|secret|token|auth|authorization|mnemonic|seed|words|priv(?:ate)?[_ -]?key|cookie)["']?\s*[:=]\s*\[?\s*(?:basic |bearer )?["']?)([^\s"',\](][^"'\n\],]*)()`),
	regexp.MustCompile(`(?i)(\b(?:basic|bearer) )([A-Za-z0-9+/=._:-]{8,})()`),
}

// secretWord is what in a file of secrets may be one: long, and no prose.
var secretWord = regexp.MustCompile(`[A-Za-z0-9+/=_.:$~!@%^&*-]{16,}`)

// newRedactor reads the secrets of a home and of its settings, which may be nil if they cannot be read. What is not there is no fault.
func newRedactor(home string, c *config.Config) *redactor {
	r := &redactor{}
	r.file(filepath.Join(home, api.CookieFile))
	files := 0
	_ = filepath.WalkDir(home, func(path string, e fs.DirEntry, err error) error { // what cannot be read is in no text either
		if err != nil {
			return nil //nolint:nilerr // the rest is looked at
		}
		rel, _ := filepath.Rel(home, path) // path is below home
		if e.IsDir() {
			if slices.Contains([]string{"blocks", "undo", "index", "peers"}, rel) {
				return fs.SkipDir
			}
			return nil
		}
		name := strings.ToLower(rel)
		secret := strings.HasSuffix(name, ".key") || strings.HasSuffix(name, ".pem") || strings.Contains(name, "wallet") ||
			strings.Contains(name, "vault") || strings.Contains(name, "secret") || strings.Contains(name, "cookie")
		if secret && e.Type().IsRegular() && files < maxSecretFiles {
			files++
			r.file(path)
		}
		return nil
	})
	r.learn(filepath.Join(home, config.FileName))
	if c != nil {
		r.file(c.RPC.TLSKey)
		for _, e := range c.Entries() {
			if isSecretKey(e.Key) {
				for _, part := range strings.FieldsFunc(e.Value, func(r rune) bool { return strings.ContainsRune(`[]", `, r) }) {
					r.add([]byte(part))
				}
			}
		}
	}
	slices.SortFunc(r.known, func(a, b []byte) int { return len(b) - len(a) })
	r.known = slices.CompactFunc(r.known, bytes.Equal)
	return r
}

// isSecretKey says whether a setting's value is a secret.
func isSecretKey(key string) bool {
	last := key[strings.LastIndexByte(key, '.')+1:]
	for _, word := range []string{"auth", "pass", "secret", "token", "mnemonic", "seed_words"} {
		if strings.Contains(last, word) {
			return true
		}
	}
	return false
}

// file notes what a file holds, as it stands and as it may be written elsewhere.
func (r *redactor) file(path string) {
	if path == "" {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxSecretFile))
	if err != nil {
		return
	}
	for _, word := range secretWord.FindAll(raw, -1) { // not what stands around it: that is in every file
		r.add(word)
		if _, password, ok := bytes.Cut(word, []byte(":")); ok { // of a cookie
			r.add(password)
		}
	}
	if len(raw) > 4096 { // a store, not a key
		return
	}
	for _, form := range [][]byte{raw, bytes.TrimSpace(raw)} { // a cookie in base64 is what basic authentication sends
		r.add(form)
		r.add([]byte(hex.EncodeToString(form)))
		r.add([]byte(base64.RawStdEncoding.EncodeToString(form)))
		r.add([]byte(base64.RawURLEncoding.EncodeToString(form)))
	}
}

// learn notes what looks like a secret in a text, so that it is found elsewhere without what told it there.
func (r *redactor) learn(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecretFile))
	if err != nil {
		return
	}
	for _, p := range secretPatterns {
		for _, m := range p.FindAllSubmatch(text, -1) {
			r.add(bytes.TrimSpace(m[2]))
			if _, password, ok := bytes.Cut(m[2], []byte(":")); ok {
				r.add(password)
			}
		}
	}
}

func (r *redactor) add(secret []byte) {
	if len(bytes.Trim(secret, "-=_.* ")) >= minSecret {
		r.known = append(r.known, bytes.Clone(secret))
	}
}

// text returns a text without secrets.
func (r *redactor) text(b []byte) []byte {
	for _, s := range r.known {
		b = bytes.ReplaceAll(b, s, []byte(redacted))
	}
	for _, p := range secretPatterns {
		b = p.ReplaceAll(b, []byte("${1}"+redacted+"${3}"))
	}
	return b
}
