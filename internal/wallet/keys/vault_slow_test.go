//go:build slow

package keys_test

import (
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
