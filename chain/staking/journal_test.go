package staking_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"dunlin/chain/staking"
)

// before is a present slot before all others: what protects a stake in tests with it is
// in the file, not that a journal signs nothing of the time before it was opened.
const before = -1000

const journalPath = "staking/signed.log"

func openJournal(fs vfs.FS, slot int64) (*staking.Journal, error) {
	return staking.OpenJournal(staking.JournalOptions{FS: fs, Dir: "staking", Slot: slot, MaxRecords: 16})
}

func mustOpen(t *testing.T, fs vfs.FS, slot int64) *staking.Journal {
	t.Helper()
	j, err := openJournal(fs, slot)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// record is of a coin and a block that differ with their numbers.
func record(slot int64, coin, block uint64) staking.Record {
	return staking.Record{Slot: slot, OutPoint: wire.OutPoint{Hash: chainhash.Hash{byte(coin), 1}, Index: uint32(coin)}, Block: chainhash.Hash{byte(block), byte(block >> 8), byte(block >> 16)}}
}

// A notary remembers what was ever signed.
type notary map[string]chainhash.Hash

// sign returns what signs r, and tells when it is the second block of a slot.
func (n notary) sign(r staking.Record, fault func(string)) func() error {
	return func() error {
		id := fmt.Sprint(r.Slot, r.OutPoint)
		if was, ok := n[id]; ok && was != r.Block {
			fault(fmt.Sprintf("slot %d by %v: %v signed after %v", r.Slot, r.OutPoint, r.Block, was))
		}
		n[id] = r.Block
		return nil
	}
}

// life is one run of a node that signs for slots up to last with two stakes, each time with
// other blocks.
func (n notary) life(fs vfs.FS, last int64, r *rand.Rand, fault func(string)) error {
	j, err := openJournal(fs, before)
	if err != nil {
		return err
	}
	defer j.Close()
	if _, lost := j.Resting(); lost != "" && len(n) > 0 {
		fault("after a crash the journal " + lost)
	}
	for slot := max(1, last-6); slot <= last; slot++ {
		for coin := range uint64(2) {
			rec := record(slot, coin, r.Uint64())
			if err := j.Sign(rec, n.sign(rec, fault)); err != nil && !errors.Is(err, staking.ErrSigned) {
				return err
			}
		}
	}
	return nil
}

// TestCrashAnywhere: whatever write of the journal a crash comes before, and whatever of
// what was not flushed survives it, no second block of a slot is signed afterwards.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	percents := []int{0, 50, 100}
	if testing.Short() {
		percents = []int{50}
	}
	for _, percent := range percents {
		crashes := 0
		r := rand.New(rand.NewPCG(uint64(percent), 1))
		for at := 1; ; at++ {
			// The first life ends before write number at, the second finds what is left.
			mem, n, count := vfs.NewCrashableMem(), make(notary), 0
			var left *vfs.MemFS
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
					return nil
				}
				if count++; count == at {
					left = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: r})
				}
				if count >= at {
					return syscall.EIO
				}
				return nil
			}))
			fault := func(s string) { t.Errorf("crash before write %d, %d%% of the unsynced survives: %s", at, percent, s) }
			for slot := int64(1); slot < 40 && left == nil; slot += 3 { // compacts twice
				if err := n.life(fs, slot, r, fault); err != nil && left == nil {
					t.Fatal(err)
				}
			}
			if left == nil {
				break
			}
			crashes++
			for slot := int64(1); slot < 44; slot += 4 {
				if err := n.life(left, slot, r, fault); err != nil {
					t.Fatal(err)
				}
			}
			if len(n) < 30 {
				t.Errorf("crash before write %d: only %d signed afterwards", at, len(n))
			}
		}
		if crashes < 100 {
			t.Errorf("only %d crashes", crashes)
		}
	}
}

// TestManyCrashes: a hundred crashes one after another.
func TestManyCrashes(t *testing.T) {
	t.Parallel()
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 2))
		left, n := vfs.NewCrashableMem(), make(notary)
		crashes := 0
		for slot := int64(1); crashes < 100; slot++ {
			mem, writes := left, 1+r.IntN(40)
			crashed := false
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
					return nil
				}
				if writes--; writes == 0 {
					left, crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: r}), true
				}
				if writes <= 0 {
					return syscall.EIO
				}
				return nil
			}))
			err := n.life(fs, slot, r, func(s string) { t.Errorf("seed %d, after %d crashes: %s", seed, crashes, s) })
			if crashed {
				crashes++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if len(n) < 50 {
			t.Errorf("seed %d: only %d signed", seed, len(n))
		}
	}
}

func contents(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// holding returns a file system that has a journal with these bytes.
func holding(t *testing.T, raw []byte) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("staking", 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(journalPath, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(bytes.Clone(raw)) // which the file system may overwrite, to find who relies on it
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return fs
}

// TestDamage: a record that was being written is no damage. Any other is told, kept beside,
// and waited out; nothing that can be read is signed again.
func TestDamage(t *testing.T) {
	t.Parallel()
	fs, n := vfs.NewMem(), make(notary)
	j := mustOpen(t, fs, before)
	for slot := range int64(5) {
		r := record(slot, 0, uint64(slot))
		if err := j.Sign(r, n.sign(r, func(s string) { t.Error(s) })); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	whole := contents(t, fs, journalPath)
	const head, size = 20, 80
	if len(whole) != head+5*size {
		t.Fatalf("%d bytes", len(whole))
	}
	flip := func(at int) []byte { b := bytes.Clone(whole); b[at] ^= 4; return b }
	for _, c := range []struct {
		name   string
		raw    []byte
		lost   string // "": nothing
		signed int    // records left
	}{
		{"whole", whole, "", 5},
		{"cut in the last", whole[:len(whole)-1], "", 4},
		{"cut after the fourth's first byte", whole[:head+3*size+1], "", 3},
		{"last flipped", flip(len(whole) - 1), "", 4},
		{"zeros behind", append(bytes.Clone(whole), make([]byte, size)...), "", 5},
		{"more zeros behind", append(bytes.Clone(whole), make([]byte, size+1)...), "has 1 damaged records", 5},
		{"third flipped", flip(head + 2*size + 9), "has 1 damaged records", 4},
		{"last two flipped", func() []byte { b := flip(head + 3*size); b[head+4*size] ^= 1; return b }(), "has 1 damaged records", 3},
		{"another magic", flip(0), "has a damaged beginning", 5},
		{"floor flipped", flip(9), "has a damaged beginning", 5},
		{"empty", nil, "has a damaged beginning", 0},
		{"cut in the head", whole[:head-1], "has a damaged beginning", 0},
	} {
		fs := holding(t, c.raw)
		const present = 100
		for _, slot := range []int64{before, present} {
			if slot == present {
				fs = holding(t, c.raw)
			}
			j := mustOpen(t, fs, slot)
			first, lost := j.Resting()
			wait := int64(1)
			if c.lost != "" {
				wait = 9
			}
			if slot == present && first != present+wait {
				t.Errorf("%s: signs from slot %d, want %d", c.name, first, present+wait)
			}
			if (lost == "") != (c.lost == "") || !strings.HasPrefix(lost, c.lost) {
				t.Errorf("%s: %q, want %q", c.name, lost, c.lost)
			}
			if got := len(j.Last(100)); got != c.signed {
				t.Errorf("%s: %d records, want %d", c.name, got, c.signed)
			}
			if lost != "" && !bytes.Equal(contents(t, fs, journalPath+".damaged-1"), c.raw) {
				t.Errorf("%s: what was damaged is not kept", c.name)
			}
			for _, r := range j.Last(100) {
				if !j.Taken(r.Slot, r.OutPoint) {
					t.Errorf("%s: slot %d can be signed again", c.name, r.Slot)
				}
			}
			r := record(first+5, 1, 77)
			if err := j.Sign(r, func() error { return nil }); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			// It is told once; what was written then is there, and the slots that may be lost are
			// refused until they are past, however often it is opened.
			j = mustOpen(t, fs, slot)
			if again, _ := j.Resting(); again != first {
				t.Errorf("%s: opened again: signs from slot %d, want %d", c.name, again, first)
			}
			if _, lost := j.Resting(); lost != "" || len(j.Last(100)) != c.signed+1 || !j.Taken(r.Slot, r.OutPoint) {
				t.Errorf("%s: opened again: %q, %d records", c.name, lost, len(j.Last(100)))
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestMissing: a journal that is gone from its folder is missed; in a new folder there was
// none.
func TestMissing(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	j := mustOpen(t, fs, 50)
	if first, lost := j.Resting(); first != 51 || lost != "" {
		t.Errorf("new: from slot %d, %q", first, lost)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fs.Remove(journalPath); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, fs, 60)
	if first, lost := j.Resting(); first != 69 || lost != "is missing from its folder" {
		t.Errorf("gone: from slot %d, %q", first, lost)
	}
	if err := j.Sign(record(68, 0, 1), func() error { return errors.New("signed") }); !errors.Is(err, staking.ErrSigned) {
		t.Errorf("in a slot that may have been signed: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Sign(record(99, 0, 1), func() error { return errors.New("signed") }); err == nil || errors.Is(err, staking.ErrSigned) {
		t.Errorf("closed: %v", err)
	}
	j = mustOpen(t, fs, 61)
	if first, lost := j.Resting(); first != 69 || lost != "" {
		t.Errorf("opened again: from slot %d, %q", first, lost)
	}
}

// TestBound: the file does not grow without end, and what is dropped counts as signed.
func TestBound(t *testing.T) {
	t.Parallel()
	fs, n := vfs.NewMem(), make(notary)
	j := mustOpen(t, fs, before)
	for slot := range int64(1000) {
		for coin := range uint64(3) {
			r := record(slot, coin, uint64(slot))
			if err := j.Sign(r, n.sign(r, func(s string) { t.Error(s) })); err != nil {
				t.Fatal(err)
			}
			if got := len(contents(t, fs, journalPath)); got > 20+17*80 {
				t.Fatalf("%d bytes", got)
			}
		}
	}
	for range 2 {
		for slot := range int64(1000) {
			if !j.Taken(slot, record(slot, 1, 0).OutPoint) {
				t.Fatalf("slot %d can be signed again", slot)
			}
		}
		if last := j.Last(3); len(last) != 3 || last[0].Slot != 999 || last[2].Slot != 999 {
			t.Errorf("last: %v", last)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j = mustOpen(t, fs, before)
	}
	// A clock that was far ahead for a while: the present is signed beside it, until
	// the future fills the journal.
	r := record(1e9, 0, 1)
	if err := j.Sign(r, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	r = record(1001, 0, 1)
	if err := j.Sign(r, func() error { return nil }); err != nil {
		t.Error(err)
	}
}

// TestDiskRefuses: nothing is signed that is not on disk; the slot is gone, and the next one
// is signed once the disk takes it, with all that was noted before.
func TestDiskRefuses(t *testing.T) {
	t.Parallel()
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWriteAt, errorfs.OpFileSync} {
		mem := vfs.NewCrashableMem()
		broken := false
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if broken && (op.Kind == kind || op.Kind == errorfs.OpCreate) {
				return syscall.ENOSPC
			}
			return nil
		}))
		j := mustOpen(t, fs, before)
		sign := func(slot int64) error {
			return j.Sign(record(slot, 0, 1), func() error {
				if broken {
					t.Errorf("slot %d signed without the disk", slot)
				}
				return nil
			})
		}
		if err := sign(1); err != nil {
			t.Fatal(err)
		}
		broken = true
		for slot := int64(2); slot < 5; slot++ {
			if err := sign(slot); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("slot %d: %v", slot, err)
			}
		}
		broken = false
		if err := sign(3); !errors.Is(err, staking.ErrSigned) {
			t.Errorf("tried again: %v", err)
		}
		if err := sign(5); err != nil {
			t.Error(err)
		}
		_ = j.Close()
		j = mustOpen(t, mem.CrashClone(vfs.CrashCloneCfg{}), before)
		if got := len(j.Last(100)); got != 5 {
			t.Errorf("%d records, want 5", got)
		}
		_ = j.Close()
	}
}

// FuzzJournal: no content of the file makes a panic, or a signature of a slot that can be
// read in it.
func FuzzJournal(f *testing.F) {
	f.Add([]byte("dunlinS1"))
	f.Add(make([]byte, 200))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 10_000 {
			return
		}
		j, err := openJournal(holding(t, raw), before)
		if err != nil {
			return
		}
		for _, r := range j.Last(1000) {
			if err := j.Sign(r, func() error { return nil }); !errors.Is(err, staking.ErrSigned) {
				t.Fatal(err)
			}
		}
		_ = j.Close()
	})
}
