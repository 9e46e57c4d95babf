package api

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// CookieFile is the name of the token's file in a home.
const CookieFile = "api.cookie"

// cookiePrefix is the user name of Bitcoin Core's cookie, so that programs that
// read Core's find a user and a password in ours.
const cookiePrefix = "__cookie__:"

// tokenBytes is the length of the random part.
const tokenBytes = 32

// newToken returns "__cookie__:" and 64 hex digits.
func newToken() string {
	var b [tokenBytes]byte
	_, _ = rand.Read(b[:]) // never fails, says crypto/rand
	return cookiePrefix + hex.EncodeToString(b[:])
}

// writeFile replaces <dir>/<name> by rename, so that a reader sees the old or
// the new content and never a part; mode 0600.
func writeFile(dir, name string, data []byte) error {
	f, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", name, err), os.Remove(f.Name()))
	}
	return nil
}

// sameToken compares in constant time, with or without the cookie's user name.
func sameToken(token, given string) bool {
	full := subtle.ConstantTimeCompare([]byte(token), []byte(given))
	bare := subtle.ConstantTimeCompare([]byte(strings.TrimPrefix(token, cookiePrefix)), []byte(given))
	return full|bare == 1
}

// instanceHeader tells a client that holds a token whether the server is the one
// that made it: a stale node.json may name a port where another node listens now.
const instanceHeader = "Dunlin-Instance"

// instanceOf is a digest of the token, of 16 hex digits. The token's 256 random
// bits cannot be guessed from it.
func instanceOf(token string) string {
	sum := sha256.Sum256([]byte("dunlin instance " + token))
	return hex.EncodeToString(sum[:8])
}
