//go:build slow

package keys_test

import (
	"crypto/sha256"
	"path/filepath"
	"testing"
	"time"

	"dunlin/internal/wallet/keys"
)

// TestDefaultCosts: the costs that operators get open what they seal.
func TestDefaultCosts(t *testing.T) {
	v, err := keys.Create(filepath.Join(t.TempDir(), "k"), words12(t), []byte("p"), keys.VaultOptions{})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := v.Unlock([]byte("p"), 0); err != nil {
		t.Fatal(err)
	}
	t.Logf("unlocked in %v", time.Since(start).Round(time.Millisecond))
}

// TestMaxKeys: single keys are bounded, and as many as there may be rest in a file.
func TestMaxKeys(t *testing.T) {
	ring := keys.NewRing()
	for i := range keys.MaxKeys + 1 {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		k, err := keys.NewPrivateKey(sum[:], true)
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.AddKey(k); (err == nil) != (i < keys.MaxKeys) {
			t.Fatalf("key %d: %v", i, err)
		}
	}
	v := newVault(t, ring, "p")
	if err := v.Unlock([]byte("p"), 0); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte{5, 6})
	k, err := keys.NewPrivateKey(sum[:], true)
	if err != nil {
		t.Fatal(err)
	}
	if !v.Spender().Has(keys.Ref{PubKey: k.PublicBytes()}) {
		t.Error("a key is lost")
	}
}
