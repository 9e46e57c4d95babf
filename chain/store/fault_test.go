package store_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// A history is a run of commits on a file system with faults: states[i] is what
// the store holds after i acknowledged commits. The commit under way when the
// run ended is states[acked+1].
type history struct {
	states []*model
	acked  atomic.Int64
	known  map[string]bool // every block ever appended
}

// historyRuns is how often a history opens the store; each run commits twice.
const historyRuns = 4

// run writes the same history for the same seed until a fault ends it.
func (h *history) run(fs vfs.FS, seed uint64) error {
	r := newRand(seed)
	m := newModel()
	h.states = []*model{m.clone()}
	h.known = map[string]bool{}
	for i := range historyRuns {
		// Reopening in between gives the index tables as well as logs.
		s, err := store.Open(options(fs))
		if err != nil {
			return err
		}
		err = h.commits(s, m, r)
		if e := s.Close(); err == nil && e != nil {
			err = fmt.Errorf("close after %d: %w", i, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *history) commits(s *store.Store, m *model, r *rand.Rand) error {
	for range 2 {
		b := s.NewBatch()
		err := m.grow(s, b, r, 1+r.IntN(6))
		h.states = append(h.states, m.clone())
		for _, raw := range m.blocks {
			h.known[string(raw)] = true
		}
		if err != nil {
			return err
		}
		if err := s.Commit(b); err != nil {
			return err
		}
		h.acked.Add(1)
	}
	return nil
}

// survives checks that what a fault left behind is the state of the last
// acknowledged commit or of the one under way, whole; that what lies behind it
// is only what was appended; and that the store goes on from there.
func (h *history) survives(fs vfs.FS, acked int) error {
	s, err := store.Open(options(fs))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = s.Close() }()
	tip, ok, err := s.Tip()
	if err != nil {
		return err
	}
	if !ok {
		tip.Height = -1
	}
	var now *model
	for i := acked; i < len(h.states) && i <= acked+1; i++ {
		if h.states[i].tip.Height == tip.Height {
			now = h.states[i].clone()
			break
		}
	}
	if now == nil {
		return fmt.Errorf("tip %+v is not that of commit %d or the next", tip, acked)
	}
	if err := now.check(s); err != nil {
		return err
	}
	err = s.ScanTail(func(p store.Pos, raw []byte) error {
		if !h.known[string(raw)] {
			return fmt.Errorf("record at %+v was never appended", p)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("tail: %w", err)
	}
	b := s.NewBatch()
	if err := now.grow(s, b, newRand(99), 3); err != nil {
		return err
	}
	if err := s.Commit(b); err != nil {
		return err
	}
	if err := now.check(s); err != nil {
		return fmt.Errorf("going on: %w", err)
	}
	return s.Scan(func(store.Pos, []byte) error { return nil }, nil)
}

// TestCrash cuts the power before every fifth write, sync, rename or removal
// that a history makes, losing all, some or none of what was not synced.
func TestCrash(t *testing.T) {
	type crash struct {
		fs    *vfs.MemFS
		acked int
		what  string
	}
	for _, percent := range []int{0, 30, 100} {
		t.Run(fmt.Sprintf("%d%% of the unsynced survives", percent), func(t *testing.T) {
			t.Parallel()
			mem := vfs.NewCrashableMem()
			h := &history{}
			var mu sync.Mutex
			var crashes []crash
			r := newRand(uint64(percent))
			n := 0
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				if n++; n%4 != percent%3 {
					return nil
				}
				crashes = append(crashes, crash{
					fs:    mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: r}),
					acked: int(h.acked.Load()),
					what:  fmt.Sprintf("write %d, %v of %s", n, op.Kind, op.Path),
				})
				return nil
			}))
			must(t, h.run(fs, 7))
			if len(crashes) < 30 {
				t.Fatalf("only %d writes", len(crashes))
			}
			for _, c := range crashes {
				if err := h.survives(c.fs, c.acked); err != nil {
					t.Errorf("crash before %s after commit %d: %v", c.what, c.acked, err)
				}
			}
		})
	}
}

// TestFailedWrites makes the nth write, sync, rename or removal fail, once or
// from then on, and reopens what is left, with and without a power cut.
func TestFailedWrites(t *testing.T) {
	for name, forGood := range map[string]bool{"once": false, "for good": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const step = 7 // coprime to the period of the writes; every place comes up
			for n := 1; ; n += step {
				mem := vfs.NewCrashableMem()
				var count atomic.Int64
				var what atomic.Value
				fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFileClose {
						return nil
					}
					if c := count.Add(1); c == int64(n) || forGood && c > int64(n) {
						what.CompareAndSwap(nil, fmt.Sprintf("%v of %s", op.Kind, op.Path))
						return syscall.ENOSPC
					}
					return nil
				}))
				h := &history{}
				err := h.run(fs, 7)
				if what.Load() == nil {
					if n == 1 {
						t.Fatal("nothing was written")
					}
					must(t, err)
					return
				}
				if err == nil && forGood && int(h.acked.Load()) < 2*historyRuns {
					t.Fatalf("failure of %v passed over", what.Load())
				}
				for _, percent := range []int{0, 100} {
					left := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: newRand(uint64(n))})
					if err := h.survives(left, int(h.acked.Load())); err != nil {
						t.Errorf("write %d, %v failed (%v), %d%% of the unsynced survives: %v", n, what.Load(), err, percent, err)
					}
				}
			}
		})
	}
}

// TestDiskFull: an append that found no room may be tried again; a history on a
// disk that is relieved in time notices nothing.
func TestDiskFull(t *testing.T) {
	full := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWriteAt {
			return syscall.ENOSPC
		}
		return nil
	})
	toggle := &errorfs.Toggle{Injector: full}
	mem := vfs.NewMem()
	s := open(t, options(errorfs.Wrap(mem, toggle)))
	m := newModel()
	r := newRand(8)
	b := s.NewBatch()
	must(t, m.grow(s, b, r, 4))
	toggle.On()
	if _, err := s.AppendBlock([]byte("no room")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("AppendBlock: %v", err)
	}
	toggle.Off()
	must(t, m.grow(s, b, r, 20))
	must(t, s.Commit(b))
	must(t, m.check(s))
	must(t, s.Scan(func(store.Pos, []byte) error { return nil }, nil))
	closeStore(t, s)

	relieved := 0
	toggle = &errorfs.Toggle{Injector: full}
	fs := vfs.OnDiskFull(errorfs.Wrap(vfs.NewMem(), toggle), func() { relieved++; toggle.Off() })
	toggle.On()
	h := &history{}
	must(t, h.run(fs, 8))
	if relieved == 0 {
		t.Error("the disk was never full")
	}
}

// TestFailedSyncIsFinal: after a failed fsync nothing is written any more, for
// the kernel forgets what it could not write.
func TestFailedSyncIsFinal(t *testing.T) {
	toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".blk") && (op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync) {
			return syscall.EIO
		}
		return nil
	})}
	mem := vfs.NewCrashableMem()
	s := open(t, options(errorfs.Wrap(mem, toggle)))
	m := newModel()
	r := newRand(9)
	b := s.NewBatch()
	must(t, m.grow(s, b, r, 2))
	must(t, s.Commit(b))
	before := m.clone()
	b = s.NewBatch()
	must(t, m.grow(s, b, r, 2))
	toggle.On()
	if err := s.Commit(b); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Commit: %v", err)
	}
	toggle.Off()
	if err := s.Commit(s.NewBatch()); !errors.Is(err, syscall.EIO) {
		t.Errorf("second Commit: %v", err)
	}
	if _, err := s.AppendBlock([]byte{1}); !errors.Is(err, syscall.EIO) {
		t.Errorf("AppendBlock: %v", err)
	}
	must(t, before.check(s)) // reads go on
	closeStore(t, s)
	must(t, before.check(open(t, options(mem))))
}

// TestFailedIndexIsFinal: Pebble's fatal errors must not end the process, hang a
// commit or look like success.
func TestFailedIndexIsFinal(t *testing.T) {
	for name, kinds := range map[string][]errorfs.OpKind{
		"sync":  {errorfs.OpFileSync, errorfs.OpFileSyncData},
		"write": {errorfs.OpFileWrite},
	} {
		t.Run(name, func(t *testing.T) {
			toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
				for _, k := range kinds {
					if op.Kind == k && strings.Contains(op.Path, "/index/") {
						return syscall.EIO
					}
				}
				return nil
			})}
			mem := vfs.NewCrashableMem()
			s := open(t, options(errorfs.Wrap(mem, toggle)))
			m := newModel()
			r := newRand(10)
			b := s.NewBatch()
			must(t, m.grow(s, b, r, 2))
			must(t, s.Commit(b))
			before := m.clone()
			b = s.NewBatch()
			must(t, m.grow(s, b, r, 2))
			toggle.On()
			if err := s.Commit(b); !errors.Is(err, syscall.EIO) {
				t.Fatalf("Commit: %v", err)
			}
			toggle.Off()
			if err := s.Commit(s.NewBatch()); !errors.Is(err, syscall.EIO) {
				t.Errorf("second Commit: %v", err)
			}
			if _, _, err := s.Tip(); err != nil {
				t.Errorf("Tip: %v", err)
			}
			closeStore(t, s)
			must(t, before.check(open(t, options(mem.CrashClone(vfs.CrashCloneCfg{})))))
		})
	}
}

// grown makes a store whose index has tables flushed in the middle of its life,
// logs behind them, and a manifest that tells of the flush. It returns the state
// after each commit.
func grown(t testing.TB, fs vfs.FS) []*model {
	t.Helper()
	r := newRand(11)
	m := newModel()
	states := []*model{m.clone()}
	commit := func(s *store.Store, n int, pad int) {
		b := s.NewBatch()
		must(t, m.grow(s, b, r, n))
		for i := range pad {
			b.PutMeta(fmt.Sprint("pad", i), make([]byte, 4<<10))
		}
		must(t, s.Commit(b))
		states = append(states, m.clone())
	}
	s := open(t, options(fs))
	commit(s, 4, 0)
	commit(s, 4, 0)
	closeStore(t, s)
	s = open(t, options(fs))
	commit(s, 4, 0)
	for range 3 { // the third log takes the place of the first
		commit(s, 2, 520) // over half a memtable: flushed at once
		commit(s, 2, 0)
	}
	closeStore(t, s)
	return states
}

// TestFlippedBit flips bits all over every file. What follows is an error, or
// the state of an earlier commit, whole, as after a power cut: never a mixture.
func TestFlippedBit(t *testing.T) {
	src := vfs.NewCrashableMem()
	states := grown(t, src)
	r := newRand(12)
	older := 0
	for _, dir := range []string{"blocks", "undo", "index"} {
		names, err := src.List("/home/chain/" + dir)
		must(t, err)
		for _, name := range names {
			path := "/home/chain/" + dir + "/" + name
			size := len(contents(t, src, path))
			tries := min(size, 4)
			if strings.HasPrefix(name, "MANIFEST") {
				tries = min(size, 40)
			}
			for range tries {
				at, bit := r.IntN(size), byte(1)<<r.IntN(8)
				fs := src.CrashClone(vfs.CrashCloneCfg{})
				change(t, fs, path, func(b []byte) []byte { b[at] ^= bit; return b })
				state, err := judge(fs, states)
				switch {
				case err != nil:
					t.Errorf("bit %#x of byte %d of %s/%s: %v", bit, at, dir, name, err)
				case state >= 0 && state < len(states)-1:
					if older++; dir != "index" {
						t.Errorf("byte %d of %s/%s: an older state", at, dir, name)
					}
				}
			}
		}
	}
	t.Logf("%d flips led back to an older commit", older)
}

// judge opens a damaged store. It returns the number of the state that it holds,
// or -1 if it says that it is damaged; and an error if it does neither.
func judge(fs vfs.FS, states []*model) (int, error) {
	s, err := store.Open(options(fs))
	if err != nil {
		return -1, nil // any error is an answer
	}
	defer func() { _ = s.Close() }()
	tip, ok, err := s.Tip()
	if err != nil {
		return -1, nil
	}
	if !ok {
		tip.Height = -1
	}
	for i, m := range states {
		if m.tip.Height != tip.Height {
			continue
		}
		err := m.check(s)
		if _, damaged := errors.AsType[*store.DamageError](err); damaged {
			return -1, nil
		}
		return i, err
	}
	return 0, fmt.Errorf("tip %+v was never committed", tip)
}

func TestTruncatedOrMissingFiles(t *testing.T) {
	src := vfs.NewCrashableMem()
	m := filled(t, options(src), newRand(13))
	for _, name := range []string{"blocks/00000.blk", "blocks/00002.blk", "undo/00000.und"} {
		path := "/home/chain/" + name
		// The last 4 bytes are the zero word, which may be missing.
		for cut, bad := range map[int]bool{4: false, 5: true, 500: true, len(contents(t, src, path)): true} {
			fs := src.CrashClone(vfs.CrashCloneCfg{})
			change(t, fs, path, func(b []byte) []byte { return b[:len(b)-cut] })
			expectDamage(t, fs, m, name, bad)
		}
		fs := src.CrashClone(vfs.CrashCloneCfg{})
		must(t, fs.Remove(path))
		expectDamage(t, fs, m, name, true)
	}
}

func expectDamage(t *testing.T, fs vfs.FS, m *model, name string, bad bool) {
	t.Helper()
	s, err := store.Open(options(fs))
	if !bad {
		must(t, err)
		must(t, m.check(s))
		closeStore(t, s)
		return
	}
	damage, ok := errors.AsType[*store.DamageError](err)
	if !ok || damage.File != name || damage.Mend != "dunlin chain reindex" {
		t.Errorf("Open with %s cut: %v", name, err)
	}
}

type silent struct{}

func (silent) Infof(string, ...any)           {}
func (silent) Errorf(string, ...any)          {}
func (silent) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

// index opens the database of a closed store.
func index(t testing.TB, fs vfs.FS) *pebble.DB {
	t.Helper()
	db, err := pebble.Open("/home/chain/index", &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatTableFormatV6, Logger: silent{}})
	must(t, err)
	return db
}

func TestNewerFormat(t *testing.T) {
	t.Run("ours", func(t *testing.T) {
		fs := vfs.NewMem()
		filled(t, options(fs), newRand(14))
		db := index(t, fs)
		must(t, db.Set([]byte("v"), binary.LittleEndian.AppendUint32(nil, store.FormatVersion+1), pebble.Sync))
		must(t, db.Close())
		_, err := store.Open(options(fs))
		if !errors.Is(err, store.ErrNewerFormat) || !strings.Contains(err.Error(), "format 3, this one reads up to 2") {
			t.Errorf("Open: %v", err)
		}
	})
	t.Run("Pebble's", func(t *testing.T) {
		fs := vfs.NewMem()
		filled(t, options(fs), newRand(14))
		names, err := fs.List("/home/chain/index")
		must(t, err)
		for _, name := range names {
			if strings.HasPrefix(name, "marker.format-version.") {
				must(t, fs.Rename("/home/chain/index/"+name, "/home/chain/index/marker.format-version.999999.999"))
			}
		}
		if _, err := store.Open(options(fs)); !errors.Is(err, store.ErrNewerFormat) {
			t.Errorf("Open: %v", err)
		}
	})
}

// TestMalformedRecords: a record whose checksum is right but whose content is
// not (a bug of ours, or a hand at work) is damage, not a panic or a guess.
func TestMalformedRecords(t *testing.T) {
	coinKey := append([]byte("c"), make([]byte, 36)...)
	headerKey := append([]byte("h"), make([]byte, 36)...)
	for name, c := range map[string]struct {
		key, value []byte
		read       func(*store.Store) error
	}{
		"coin": {coinKey, []byte{0xff}, func(s *store.Store) error { _, _, err := s.Coin(wire.OutPoint{}); return err }},
		"coins": {coinKey, nil, func(s *store.Store) error {
			return s.Coins(func(op wire.OutPoint, _ consensus.Coin) error {
				if op == (wire.OutPoint{}) {
					return errors.New("handed out")
				}
				return nil
			})
		}},
		"coin key": {[]byte("c123"), []byte{0, 0}, func(s *store.Store) error { return s.Coins(func(wire.OutPoint, consensus.Coin) error { return nil }) }},
		"header": {headerKey, make([]byte, 83), func(s *store.Store) error {
			return s.Headers(func(chainhash.Hash, store.HeaderRecord) error { return nil })
		}},
		"header key": {[]byte("h"), make([]byte, 84), func(s *store.Store) error {
			return s.Headers(func(chainhash.Hash, store.HeaderRecord) error { return nil })
		}},
		"tip":        {[]byte("t"), make([]byte, 35), func(s *store.Store) error { _, _, err := s.Tip(); return err }},
		"tip height": {[]byte("t"), bytes.Repeat([]byte{0xff}, 36), func(s *store.Store) error { _, _, err := s.Tip(); return err }},
		"positions":  {[]byte("w"), make([]byte, 23), nil},
		"a commit":   {[]byte("r\x00\x02"), make([]byte, 8), nil},
		"file end":   {[]byte("eb\x00\x00\x00\x00"), make([]byte, 3), nil},
		"version":    {[]byte("v"), make([]byte, 3), nil},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			filled(t, options(fs), newRand(15))
			db := index(t, fs)
			must(t, db.Set(c.key, c.value, pebble.Sync))
			must(t, db.Close())
			s, err := store.Open(options(fs))
			if c.read != nil {
				must(t, err)
				defer func() { _ = s.Close() }()
				err = c.read(s)
			}
			if _, ok := errors.AsType[*store.DamageError](err); !ok {
				t.Errorf("%v is not damage", err)
			}
		})
	}
}

// TestLostCommit: a commit missing from the middle is noticed, also when more
// commits were made than are checked.
func TestLostCommit(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, options(fs))
	for range store.RingSlots + 20 {
		must(t, s.Commit(s.NewBatch()))
	}
	closeStore(t, s)
	closeStore(t, open(t, options(fs)))
	db := index(t, fs)
	must(t, db.Delete([]byte("r\x01\x00"), pebble.Sync))
	must(t, db.Close())
	_, err := store.Open(options(fs))
	if _, ok := errors.AsType[*store.DamageError](err); !ok || !strings.Contains(err.Error(), "are missing") {
		t.Errorf("Open: %v", err)
	}
}

// TestReadsDuringAppends runs readers against the writer; -race judges. More
// files are read than may be open.
func TestReadsDuringAppends(t *testing.T) {
	o := options(vfs.NewMem())
	o.MaxFileBytes = 256
	s := open(t, o)
	const n = 60
	type written struct {
		p   store.Pos
		raw []byte
	}
	var mu sync.Mutex
	var all []written
	done := make(chan struct{})
	var wg sync.WaitGroup
	for seed := range uint64(4) {
		wg.Go(func() {
			r := newRand(seed)
			for {
				select {
				case <-done:
					return
				default:
				}
				mu.Lock()
				w := written{}
				if len(all) > 0 {
					w = all[r.IntN(len(all))]
				}
				mu.Unlock()
				if w.raw == nil {
					continue
				}
				if raw, err := s.ReadBlock(w.p); err != nil || !bytes.Equal(raw, w.raw) {
					t.Errorf("ReadBlock(%+v): %v", w.p, err)
					return
				}
				if _, _, err := s.Coin(wire.OutPoint{}); err != nil {
					t.Errorf("Coin: %v", err)
				}
				s.Size()
			}
		})
	}
	wg.Go(func() {
		for range 3 {
			if err := s.Scan(func(store.Pos, []byte) error { return nil }, nil); err != nil {
				t.Errorf("Scan: %v", err)
			}
		}
	})
	r := newRand(16)
	for i := range n {
		raw := randBytes(r, 100+r.IntN(100))
		p, err := s.AppendBlock(raw)
		must(t, err)
		mu.Lock()
		all = append(all, written{p, raw})
		mu.Unlock()
		if i%7 == 0 {
			must(t, s.Commit(s.NewBatch()))
		}
	}
	close(done)
	wg.Wait()
	if last := all[n-1].p.File; last < 32 {
		t.Errorf("only %d files", last)
	}
}

// TestCloseWaitsAndEndsIterations: Close during an iteration ends it.
func TestCloseWaitsAndEndsIterations(t *testing.T) {
	o := options(vfs.NewMem())
	filled(t, o, newRand(17))
	s := open(t, o)
	closed := make(chan error, 1)
	started := false
	err := s.Coins(func(wire.OutPoint, consensus.Coin) error {
		if !started {
			started = true
			go func() { closed <- s.Close() }()
		}
		// Until Close is under way every other call works.
		for {
			if _, _, err := s.Tip(); err != nil {
				return nil //nolint:nilerr // closed, which is what this waits for
			}
		}
	})
	if !errors.Is(err, store.ErrClosed) {
		t.Errorf("Coins: %v", err)
	}
	must(t, <-closed)
}

const holderDir = "DUNLIN_STORE_TEST_DIR"

// TestHolder is the process that TestKill9 kills.
func TestHolder(t *testing.T) {
	dir := os.Getenv(holderDir)
	if dir == "" {
		return // only as a child of TestKill9
	}
	o := options(vfs.Default)
	o.Dir = dir
	s := open(t, o)
	m := newModel()
	r := newRand(18)
	b := s.NewBatch()
	must(t, m.grow(s, b, r, 10))
	must(t, s.Commit(b))
	b = s.NewBatch()
	must(t, m.grow(s, b, r, 5)) // left behind as a tail
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // until killed
}

// TestKill9: a killed process leaves no lock and loses nothing, not even what it
// did not commit.
func TestKill9(t *testing.T) {
	o := options(vfs.Default)
	o.Dir = t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHolder$")
	cmd.Env = append(os.Environ(), holderDir+"="+o.Dir)
	stdin, err := cmd.StdinPipe()
	must(t, err)
	defer func() { _ = stdin.Close() }()
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Errorf("holder says %q, %v", line, err)
	}
	_, err = store.Open(o)
	if want := fmt.Sprintf("home %s is in use by another dunlin (pid %d)", o.Dir, cmd.Process.Pid); !errors.Is(err, store.ErrLocked) || err.Error() != want {
		t.Errorf("Open while held: %v", err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()

	s := open(t, o)
	if tip, ok, err := s.Tip(); !ok || err != nil || tip.Height != 9 {
		t.Errorf("tip %+v, %v, %v", tip, ok, err)
	}
	n := 0
	must(t, s.ScanTail(func(store.Pos, []byte) error { n++; return nil }))
	if n != 5 {
		t.Errorf("%d records in the tail, should be 5", n)
	}
}
