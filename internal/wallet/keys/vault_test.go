package keys_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/btcec/v2/schnorr"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/keys"
)

// tiny are costs for tests: a fraction of a millisecond.
var tiny = keys.VaultOptions{KDF: keys.KDF{Time: 1, MemoryKiB: 64, Threads: 1}}

// words12 returns a ring with the words of the BIPs and one single key.
func words12(t testing.TB) *keys.Ring {
	t.Helper()
	ring := keys.NewRing()
	w, err := keys.ParseWords(about)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.AddWords(w, "", consensus.Bitcoin()); err != nil {
		t.Fatal(err)
	}
	k, err := keys.NewPrivateKey(bytes.Repeat([]byte{7}, 32), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.AddKey(k); err != nil {
		t.Fatal(err)
	}
	return ring
}

func newVault(t testing.TB, ring *keys.Ring, passphrase string) *keys.Vault {
	t.Helper()
	v, err := keys.Create(filepath.Join(t.TempDir(), "wallet.keys"), ring, []byte(passphrase), tiny)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// aRef is a key of words12.
func aRef(t testing.TB) keys.Ref {
	t.Helper()
	ring := words12(t)
	fp := ring.Roots()[0].Origin.Fingerprint
	x, err := ring.Root(fp)
	if err != nil {
		t.Fatal(err)
	}
	p := keys.Path{keys.Hardened + 84, keys.Hardened, keys.Hardened, 0, 5}
	c, err := x.Derive(p)
	if err != nil {
		t.Fatal(err)
	}
	return keys.Ref{Origin: keys.Origin{Fingerprint: fp, Path: p}, PubKey: c.PrivateKey().PublicBytes()}
}

// can returns what the handles of a vault do now.
func can(t testing.TB, v *keys.Vault) (spend, stake error) {
	t.Helper()
	ref := aRef(t)
	_, spend = v.Spender().SignECDSA(ref, [32]byte{1})
	if _, err := v.Spender().SignSchnorr(ref, [32]byte{1}, nil); !errors.Is(err, spend) {
		t.Errorf("SignSchnorr: %v, SignECDSA: %v", err, spend)
	}
	_, stake = v.Staker().SignSeal(ref, nil, new(consensus.Header))
	if v.Spender().Has(ref) != (spend == nil) || v.Staker().Has(ref) != (stake == nil) {
		t.Errorf("Has: %v, %v; signing: %v, %v", v.Spender().Has(ref), v.Staker().Has(ref), spend, stake)
	}
	if s := v.State(); s.Spend != (spend == nil) || s.Stake != (stake == nil) {
		t.Errorf("state %+v, but %v, %v", s, spend, stake)
	}
	return spend, stake
}

// TestVault: what was put in comes out by the right passphrase only; the file is private, holds nothing in the clear, and is not overwritten by
// a second Create.
func TestVault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wallet.keys")
	v, err := keys.Create(path, words12(t), []byte("Zürich"), tiny)
	if err != nil {
		t.Fatal(err)
	}
	if spend, stake := can(t, v); !errors.Is(spend, keys.ErrLocked) || !errors.Is(stake, keys.ErrLocked) {
		t.Errorf("a new vault: %v, %v", spend, stake)
	}
	if _, err := keys.Create(path, words12(t), []byte("x"), tiny); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created again: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if v, err = keys.Open(path, tiny); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"", "Zurich", "zürich", "Zürich ", strings.Repeat("x", 5000)} {
		if err := v.Unlock([]byte(wrong), 0); !errors.Is(err, keys.ErrPassphrase) || errors.Is(err, keys.ErrDamaged) {
			t.Errorf("%.20q: %v", wrong, err)
		}
	}
	if err := v.Unlock([]byte("Zu\u0308rich"), 0); err != nil { // the other Unicode form
		t.Fatal(err)
	}
	if spend, stake := can(t, v); spend != nil || stake != nil {
		t.Errorf("unlocked: %v, %v", spend, stake)
	}
	// A wrong passphrase does not end the unlocked state.
	if err := v.Unlock([]byte("wrong"), 0); !errors.Is(err, keys.ErrPassphrase) || !v.State().Spend {
		t.Errorf("%v, %+v", err, v.State())
	}
	roots, err := v.Spender().Roots()
	if err != nil || len(roots) != 1 || roots[0].Words != 12 {
		t.Errorf("%+v, %v", roots, err)
	}
	w, err := v.Words([]byte("Zürich"), roots[0].Origin.Fingerprint)
	if err != nil || w.Reveal() != about {
		t.Error(err)
	}
	if _, err := v.Words(nil, roots[0].Origin.Fingerprint); !errors.Is(err, keys.ErrPassphrase) {
		t.Errorf("words without passphrase: %v", err)
	}
	xpub, err := v.Spender().Account(roots[0].Origin.Fingerprint, keys.AccountPath(keys.BIP86, consensus.Bitcoin(), 0))
	if err != nil || xpub.String() != "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ" {
		t.Errorf("account %s, %v", xpub, err)
	}
	v.Lock()
	if spend, stake := can(t, v); !errors.Is(spend, keys.ErrLocked) || !errors.Is(stake, keys.ErrLocked) {
		t.Errorf("locked: %v, %v", spend, stake)
	}
	file, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(file, v.File()) {
		t.Errorf("File differs from the file: %v", err)
	}
	for _, secret := range [][]byte{bytes.Repeat([]byte{7}, 16), make([]byte, 16), []byte("abandon"), []byte("rich")} {
		if bytes.Contains(file[10:], secret) {
			t.Errorf("the file holds %x", secret)
		}
	}
}

// TestStaking: a vault unlocked for staking seals block headers and signs nothing else.
func TestStaking(t *testing.T) {
	v := newVault(t, words12(t), "p")
	if err := v.UnlockStaking([]byte("p"), 0); err != nil {
		t.Fatal(err)
	}
	if spend, stake := can(t, v); !errors.Is(spend, keys.ErrStakingOnly) || stake != nil {
		t.Fatalf("%v, %v", spend, stake)
	}
	s := v.Spender()
	ref := aRef(t)
	if _, err := s.RevealKey(ref); !errors.Is(err, keys.ErrStakingOnly) {
		t.Errorf("RevealKey: %v", err)
	}
	if _, err := s.Account(ref.Fingerprint, nil); !errors.Is(err, keys.ErrStakingOnly) {
		t.Errorf("Account: %v", err)
	}
	if err := v.Update(func(*keys.Ring) error { t.Error("called"); return nil }); !errors.Is(err, keys.ErrStakingOnly) {
		t.Errorf("Update: %v", err)
	}
	h := consensus.Header{BlockHeader: consensus.Bitcoin().Genesis.Header}
	hash := consensus.HeaderHash(&h)
	key, err := schnorr.ParsePubKey(ref.PubKey[1:])
	if err != nil {
		t.Fatal(err)
	}
	for _, tweak := range []*keys.TapTweak{nil, {}} {
		sig, err := v.Staker().SignSeal(ref, tweak, &h)
		if err != nil {
			t.Fatal(err)
		}
		if tweak != nil {
			key = keys.TaprootOutputKey(key, nil)
		}
		if parsed, err := schnorr.ParseSignature(sig[:]); err != nil || !parsed.Verify(hash[:], key) {
			t.Errorf("the seal does not sign the block: %v", err)
		}
	}
	// Unlocking for one purpose replaces the other.
	if err := v.Unlock([]byte("p"), 0); err != nil {
		t.Fatal(err)
	}
	if spend, stake := can(t, v); spend != nil || stake != nil {
		t.Errorf("%v, %v", spend, stake)
	}
	if err := v.UnlockStaking([]byte("p"), 0); err != nil {
		t.Fatal(err)
	}
	if spend, _ := can(t, v); !errors.Is(spend, keys.ErrStakingOnly) {
		t.Errorf("%v", spend)
	}
}

// TestUnlockTime: the time of an Unlock ends to the nanosecond, with Run wiping and without; a later Unlock replaces it.
func TestUnlockTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(t, words12(t), "p")
		unlock := func(d time.Duration) {
			t.Helper()
			if err := v.Unlock([]byte("p"), d); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(spend bool) {
			t.Helper()
			if got := v.State().Spend; got != spend {
				t.Errorf("spend %v, want %v", got, spend)
			}
		}
		// Without Run: whoever asks finds it locked.
		unlock(time.Minute)
		start := time.Now()
		if until := v.State().Until; !until.Equal(start.Add(time.Minute)) {
			t.Errorf("until %v", until)
		}
		time.Sleep(time.Minute - 1)
		expect(true)
		time.Sleep(time.Nanosecond)
		if spend, stake := can(t, v); !errors.Is(spend, keys.ErrLocked) || !errors.Is(stake, keys.ErrLocked) {
			t.Errorf("%v, %v", spend, stake)
		}
		unlock(0)
		time.Sleep(1000 * time.Hour)
		expect(true)
		// With Run: a longer, then a shorter time.
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- v.Run(ctx) }()
		unlock(time.Hour)
		time.Sleep(50 * time.Minute)
		expect(true)
		unlock(time.Hour)
		time.Sleep(50 * time.Minute)
		expect(true)
		unlock(time.Second)
		time.Sleep(time.Second)
		synctest.Wait()
		expect(false)
		unlock(0)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		expect(false)
		if err := v.Unlock([]byte("p"), -1); err == nil {
			t.Error("a negative time is accepted")
		}
	})
}

// TestUnlockTimeAsleep: a wall clock that jumped, as after a suspended machine, ends the time; one that was set back does not lengthen it.
func TestUnlockTimeAsleep(t *testing.T) {
	now := time.Now()
	o := tiny
	o.Now = func() time.Time { return now }
	v, err := keys.Create(filepath.Join(t.TempDir(), "k"), words12(t), []byte("p"), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Unlock([]byte("p"), time.Minute); err != nil {
		t.Fatal(err)
	}
	now = now.Round(0).Add(2 * time.Minute) // no monotonic part: only the wall clock moved
	if v.State().Spend {
		t.Error("still unlocked")
	}
}

// TestChangePassphrase: only the new passphrase opens afterwards, the secrets are the same, and the old file's data key does not open the new body.
func TestChangePassphrase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	v, err := keys.Create(path, words12(t), []byte("old"), tiny)
	if err != nil {
		t.Fatal(err)
	}
	before := v.File()
	if err := v.ChangePassphrase([]byte("wrong"), []byte("new")); !errors.Is(err, keys.ErrPassphrase) {
		t.Errorf("%v", err)
	}
	if err := v.ChangePassphrase([]byte("old"), nil); err == nil {
		t.Error("the encryption was removed unasked")
	}
	if !bytes.Equal(before, v.File()) {
		t.Error("a failure changed the file")
	}
	if err := v.Unlock([]byte("old"), 0); err != nil {
		t.Fatal(err)
	}
	if err := v.ChangePassphrase([]byte("old"), []byte("new")); err != nil {
		t.Fatal(err)
	}
	if v.State().Spend {
		t.Error("not locked after a change")
	}
	for range 2 {
		if err := v.Unlock([]byte("old"), 0); !errors.Is(err, keys.ErrPassphrase) {
			t.Errorf("the old passphrase: %v", err)
		}
		if err := v.Unlock([]byte("new"), 0); err != nil {
			t.Errorf("the new passphrase: %v", err)
		}
		if spend, _ := can(t, v); spend != nil {
			t.Error(spend)
		}
		if v, err = keys.Open(path, tiny); err != nil {
			t.Fatal(err)
		}
	}
	// The header of the old file before the body of the new one.
	mixed := append(bytes.Clone(before[:155]), v.File()[155:]...)
	if err := openFile(t, resum(mixed), "old"); !errors.Is(err, keys.ErrDamaged) {
		t.Errorf("old header, new body: %v", err)
	}
}

// TestUnencrypted: only when asked for; it can be encrypted later and back.
func TestUnencrypted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	if _, err := keys.Create(path, words12(t), nil, tiny); err == nil {
		t.Fatal("created without a passphrase")
	}
	o := tiny
	o.Unencrypted = true
	v, err := keys.Create(path, words12(t), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	check := func(encrypted bool) {
		t.Helper()
		if s := v.State(); s.Encrypted != encrypted || s.Spend == encrypted {
			t.Errorf("%+v", s)
		}
	}
	check(false)
	v.Lock()
	check(false)
	if spend, stake := can(t, v); spend != nil || stake != nil {
		t.Errorf("%v, %v", spend, stake)
	}
	if err := v.Unlock(nil, 0); err == nil {
		t.Error("unlocked what has no lock")
	}
	if w, err := v.Words(nil, aRef(t).Fingerprint); err != nil || w.Reveal() != about {
		t.Error(err)
	}
	if err := v.Update(func(*keys.Ring) error { return nil }); err != nil {
		t.Error(err)
	}
	if v, err = keys.Open(path, tiny); err != nil {
		t.Fatal(err)
	}
	check(false)
	if err := v.ChangePassphrase(nil, []byte("p")); err != nil {
		t.Fatal(err)
	}
	check(true)
	if bytes.Contains(v.File(), bytes.Repeat([]byte{7}, 32)) {
		t.Error("the file still holds a key in the clear")
	}
	if v, err = keys.Open(path, o); err != nil {
		t.Fatal(err)
	}
	if err := v.ChangePassphrase([]byte("p"), nil); err != nil {
		t.Fatal(err)
	}
	check(false)
	if spend, _ := can(t, v); spend != nil {
		t.Error(spend)
	}
}

// TestUpdate: added secrets are there after reopening; a change that fails changes neither file nor memory.
func TestUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	v, err := keys.Create(path, words12(t), []byte("p"), tiny)
	if err != nil {
		t.Fatal(err)
	}
	add := func(r *keys.Ring) error {
		k, err := keys.NewPrivateKey(bytes.Repeat([]byte{9}, 32), true)
		if err != nil {
			return err
		}
		return r.AddKey(k)
	}
	if err := v.Update(add); !errors.Is(err, keys.ErrLocked) {
		t.Errorf("locked: %v", err)
	}
	if err := v.Unlock([]byte("p"), 0); err != nil {
		t.Fatal(err)
	}
	k, err := keys.NewPrivateKey(bytes.Repeat([]byte{9}, 32), true)
	if err != nil {
		t.Fatal(err)
	}
	ref := keys.Ref{PubKey: k.PublicBytes()}
	before := v.File()
	broken := errors.New("broken")
	if err := v.Update(func(r *keys.Ring) error { return errors.Join(add(r), broken) }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	// A file that cannot be written: its temporary name is taken by a directory that is not empty.
	if err := os.MkdirAll(filepath.Join(path+".tmp", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := v.Update(add); err == nil {
		t.Error("written in spite of everything")
	}
	if err := v.ChangePassphrase([]byte("p"), []byte("q")); err == nil {
		t.Error("written in spite of everything")
	}
	if v.Spender().Has(ref) || !bytes.Equal(before, v.File()) {
		t.Error("a failure changed the vault")
	}
	if spend, _ := can(t, v); spend != nil {
		t.Errorf("after failures: %v", spend)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, before) {
		t.Errorf("a failure changed the file: %v", err)
	}
	if err := os.RemoveAll(path + ".tmp"); err != nil {
		t.Fatal(err)
	}
	// What a crash left does not matter.
	if err := os.WriteFile(path+".tmp", []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Update(add); err != nil {
		t.Fatal(err)
	}
	if v, err = keys.Open(path, tiny); err != nil {
		t.Fatal(err)
	}
	if err := v.Unlock([]byte("p"), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := v.Spender().RevealKey(ref); err != nil || !bytes.Equal(got.PublicBytes(), ref.PubKey) {
		t.Errorf("the added key: %v", err)
	}
	if spend, _ := can(t, v); spend != nil {
		t.Errorf("the first keys: %v", spend)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// openFile opens and unlocks bytes as a vault's file.
func openFile(t testing.TB, file []byte, passphrase string) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := keys.Open(path, tiny)
	if err != nil {
		return err
	}
	return v.Unlock([]byte(passphrase), 0)
}

// resum rewrites the sum at the end of a file, as an attacker would.
func resum(file []byte) []byte {
	body := bytes.Clone(file[:len(file)-sha256.Size])
	sum := sha256.Sum256(body)
	return append(body, sum[:]...)
}

// TestDamage: every bit flip and every length is found as damage before a passphrase is tried. With the sum rewritten, nothing opens
// either: a changed header looks like another passphrase, a changed body like damage.
func TestDamage(t *testing.T) {
	const header = 155
	file := newVault(t, words12(t), "p").File()
	if err := openFile(t, file, "p"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "k")
	check := func(what string, at int, bad []byte) error {
		t.Helper()
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := keys.Open(path, tiny)
		if err == nil {
			err = v.Unlock([]byte("p"), 0)
		}
		if err == nil {
			t.Fatalf("%s at %d: opened", what, at)
		}
		return err
	}
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		if err := check("flip", i, bad); !errors.Is(err, keys.ErrDamaged) || errors.Is(err, keys.ErrPassphrase) {
			t.Errorf("flip at %d: %v", i, err)
		}
		if err := check("cut", i, file[:i]); !errors.Is(err, keys.ErrDamaged) {
			t.Errorf("cut at %d: %v", i, err)
		}
		if i >= len(file)-sha256.Size || i >= 30 && i < 33 {
			continue // the sum itself; costs of up to 1 GiB, which are allowed, but take seconds
		}
		err := check("flip with sum", i, resum(bad))
		switch {
		case i >= header && !errors.Is(err, keys.ErrDamaged):
			t.Errorf("flip with sum at %d: %v", i, err)
		case i >= 10 && i < header && !errors.Is(err, keys.ErrPassphrase) && !errors.Is(err, keys.ErrDamaged):
			t.Errorf("flip with sum at %d: %v", i, err)
		}
	}
	if err := check("tail", len(file), append(bytes.Clone(file), 0)); !errors.Is(err, keys.ErrDamaged) {
		t.Errorf("tail: %v", err)
	}
	if err := check("tail with sum", len(file), resum(append(bytes.Clone(file), 0))); !errors.Is(err, keys.ErrDamaged) {
		t.Errorf("tail with sum: %v", err)
	}
	if _, err := keys.Open(filepath.Join(dir, "missing"), tiny); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// TestHostileCosts: a file cannot demand more memory or time than the limits, whatever it says.
func TestHostileCosts(t *testing.T) {
	file := newVault(t, words12(t), "p").File()
	for name, k := range map[string]keys.KDF{
		"100 GB":         {Time: 1, MemoryKiB: 100 << 20, Threads: 1},
		"over 1 GiB":     {Time: 1, MemoryKiB: 1<<20 + 1, Threads: 1},
		"most memory":    {Time: 1, MemoryKiB: 1<<32 - 1, Threads: 1},
		"many passes":    {Time: 65, MemoryKiB: 64, Threads: 1},
		"most passes":    {Time: 1<<32 - 1, MemoryKiB: 64, Threads: 1},
		"many threads":   {Time: 1, MemoryKiB: 1024, Threads: 17},
		"work":           {Time: 64, MemoryKiB: 1 << 20, Threads: 1},
		"no passes":      {Time: 0, MemoryKiB: 64, Threads: 1},
		"no threads":     {Time: 1, MemoryKiB: 64, Threads: 0},
		"little memory":  {Time: 1, MemoryKiB: 7, Threads: 1},
		"no memory":      {Time: 1, MemoryKiB: 0, Threads: 1},
		"thread starved": {Time: 1, MemoryKiB: 64, Threads: 16},
	} {
		bad := bytes.Clone(file)
		binary.BigEndian.PutUint32(bad[26:], k.Time)
		binary.BigEndian.PutUint32(bad[30:], k.MemoryKiB)
		bad[34] = k.Threads
		if err := openFile(t, resum(bad), "p"); !errors.Is(err, keys.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if k.Time == 0 || k.Threads == 0 || k.MemoryKiB == 0 {
			continue // defaults
		}
		if _, err := keys.Create(filepath.Join(t.TempDir(), "k"), words12(t), []byte("p"), keys.VaultOptions{KDF: k}); err == nil {
			t.Errorf("%s: created", name)
		}
	}
	// A version and a cipher of the future say so.
	for at, name := range map[int]string{8: "version", 9: "cipher"} {
		bad := bytes.Clone(file)
		bad[at] = 9
		if err := openFile(t, resum(bad), "p"); err == nil || errors.Is(err, keys.ErrDamaged) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An encrypted file cannot be passed off as an open one.
	bad := bytes.Clone(file)
	bad[9] = 0
	if err := openFile(t, resum(bad), "p"); !errors.Is(err, keys.ErrDamaged) {
		t.Errorf("cipher 0: %v", err)
	}
}

// TestVaultConcurrently: signing, locking, unlocking and updating at once end in no race and no wrong signature.
func TestVaultConcurrently(t *testing.T) {
	v := newVault(t, words12(t), "p")
	ref := aRef(t)
	key, err := schnorr.ParsePubKey(ref.PubKey[1:])
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(nil)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 30 {
				switch {
				case i == 0 && j%3 == 0:
					v.Lock()
				case i == 0:
					if err := v.Unlock([]byte("p"), time.Hour); err != nil {
						t.Error(err)
					}
				case i == 1 && j%10 == 0:
					if err := v.Update(func(*keys.Ring) error { return nil }); err != nil && !errors.Is(err, keys.ErrLocked) {
						t.Error(err)
					}
				default:
					sig, err := v.Spender().SignSchnorr(ref, hash, nil)
					if errors.Is(err, keys.ErrLocked) {
						continue
					}
					if s, perr := schnorr.ParseSignature(sig[:]); err != nil || perr != nil || !s.Verify(hash[:], key) {
						t.Errorf("a wrong signature: %v, %v", err, perr)
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestFormat: a file of version 1 that was written once opens for ever.
func TestFormat(t *testing.T) {
	b, err := os.ReadFile("testdata/vault-v1.hex")
	if err != nil {
		t.Fatal(err)
	}
	file := unhex(t, strings.Join(strings.Fields(string(b)), ""))
	path := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := keys.Open(path, keys.VaultOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Unlock([]byte("Zürich"), 0); err != nil {
		t.Fatal(err)
	}
	if spend, stake := can(t, v); spend != nil || stake != nil {
		t.Errorf("%v, %v", spend, stake)
	}
	k, err := v.Spender().RevealKey(keys.Ref{PubKey: unhex(t, "02989c0b76cb563971fdc9bef31ec06c3560f3249d6ee9e5d83c57625596e05f6f")[1:]})
	if err != nil || k.Compressed() {
		t.Errorf("the single key: %v", err)
	}
}

// FuzzVault: no file makes Open or Unlock panic, take much memory, or give secrets that were not put in.
func FuzzVault(f *testing.F) {
	path := filepath.Join(f.TempDir(), "k")
	o := tiny
	o.Unencrypted = true
	for i, passphrase := range []string{"p", ""} {
		v, err := keys.Create(path+string(rune('0'+i)), words12(f), []byte(passphrase), o)
		if err != nil {
			f.Fatal(err)
		}
		file := v.File()
		f.Add(file[:len(file)-sha256.Size])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 38 { // cheap costs: the limits have a test of their own
			copy(body[26:], []byte{0, 0, 0, 1, 0, 0, 0, 8, 1})
		}
		sum := sha256.Sum256(body)
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, append(bytes.Clone(body), sum[:]...), 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := keys.Open(path, tiny)
		if err != nil {
			return
		}
		if v.State().Encrypted && v.Unlock([]byte("p"), 0) != nil {
			return
		}
		if _, err := v.Spender().Roots(); err != nil {
			t.Error(err)
		}
	})
}
