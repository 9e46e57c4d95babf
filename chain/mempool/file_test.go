package mempool_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"dunlin/chain/consensus"
	"dunlin/chain/mempool"
)

const poolFile = "mempool.dat"

// reopen replaces the lab's pool by a new one with the same options, but for
// change.
func (l *lab) reopen(change func(*mempool.Options)) {
	l.t.Helper()
	o := mempool.Options{Chain: l.chain, Now: l.clock.now}
	change(&o)
	var err error
	if l.pool, err = mempool.New(o); err != nil {
		l.t.Fatal(err)
	}
}

// session runs the pool until f returns.
func (l *lab) session(f func()) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	done := make(chan error, 1)
	go func() { done <- l.pool.Run(ctx) }()
	f()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		l.t.Errorf("run: %v", err)
	}
}

func readAll(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeAll(t testing.TB, fs vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Clone(b)); err != nil { // under -race MemFS spoils what it is given
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestFileRoundTrip: what was in the pool is in it after a restart, with its age,
// and what must still be relayed; what was mined meanwhile, or is too old, is not.
func TestFileRoundTrip(t *testing.T) {
	t.Parallel()
	fs, log := vfs.NewMem(), new(logBook)
	options := func(o *mempool.Options) {
		o.FS, o.File, o.Expiry, o.Logger = fs, poolFile, 10*time.Hour, log.logger()
	}
	l := newLab(t, consensus.Regtest(), 6, options)
	old, parent, mined := l.pay(1000, 1, l.coinbase(0)), l.pay(1000, 2, l.coinbase(1)), l.pay(1000, 1, l.coinbase(2))
	child := l.pay(1000, 1, coinsOf(parent)...)
	ours := l.pay(1000, 1, l.coinbase(3))
	first, second := l.pay(1000, 1, l.coinbase(4)), l.pay(9000, 1, l.coinbase(4))
	var added time.Time
	l.session(func() {
		l.want(old)
		l.clock.add(9 * time.Hour)
		for _, tx := range []*wire.MsgTx{parent, child, mined, first, second} {
			l.want(tx)
		}
		if _, err := l.submit(ours, ""); err != nil {
			t.Fatal(err)
		}
		e, _ := l.pool.Get(child.TxHash())
		added = e.Added
	})
	l.tip = l.on(l.tip, 0, mined)
	l.clock.add(2 * time.Hour)
	l.reopen(options)
	l.session(func() {
		l.until(func() bool { return l.has(parent, child, ours, second) })
		if l.has(old) || l.has(mined) || l.has(first) {
			t.Error("what is too old, mined or replaced is there again")
		}
		if e, _ := l.pool.Get(child.TxHash()); !e.Added.Equal(added) || len(e.Parents) != 1 {
			t.Errorf("added %v, was %v; %d parents", e.Added, added, len(e.Parents))
		}
		if due, _, _ := l.pool.Unsent(9, 0); len(due) != 1 || due[0].ID != ours.TxHash() {
			t.Errorf("%d to be relayed", len(due))
		}
		if f, ok := l.pool.Fate(first.TxHash()); !ok || f.Cause != mempool.Replaced || f.By != second.TxHash() || f.At.IsZero() {
			t.Errorf("fate %+v, %t", f, ok)
		}
		l.verify()
	})
	if lines := log.lines("mempool loaded"); len(lines) != 1 || !strings.Contains(lines[0], "txs=4 expired=1 refused=1") {
		t.Errorf("log: %q", lines)
	}
	if lines := log.lines("WARN"); len(lines) != 0 {
		t.Errorf("log: %q", lines)
	}
}

// TestFileVector: an empty pool's file, and one with a transaction, byte by byte.
func TestFileVector(t *testing.T) {
	t.Parallel()
	l := newLab(t, consensus.Regtest(), 1, nil)
	save := func() []byte {
		var b bytes.Buffer
		n, err := l.pool.Save(t.Context(), &b)
		if err != nil || n != int64(b.Len()) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		return b.Bytes()
	}
	sum := func(b []byte) []byte {
		return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	}
	genesis := l.chain.Params().GenesisHash
	head := append([]byte("dunlinmp\x02\x00\x00\x00"), genesis[:]...)
	head = sum(binary.LittleEndian.AppendUint64(head, 2_000_000_000))
	end := func(n byte) []byte { return sum([]byte{0, 4, 0, 0, 0, n, 0, 0, 0}) }
	if got, want := save(), append(bytes.Clone(head), end(0)...); !bytes.Equal(got, want) {
		t.Errorf("empty: %x\nwant   %x", got, want)
	}
	run(t, l.pool.Run)
	tx := l.pay(1000, 1, l.coinbase(0))
	if _, err := l.submit(tx, ""); err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	if err := tx.Serialize(&raw); err != nil {
		t.Fatal(err)
	}
	rec := binary.LittleEndian.AppendUint32([]byte{1}, uint32(9+raw.Len()))
	rec = append(binary.LittleEndian.AppendUint64(rec, 2_000_000_000), 3) // unsent, own
	want := append(append(bytes.Clone(head), sum(append(rec, raw.Bytes()...))...), end(1)...)
	if got := save(); !bytes.Equal(got, want) {
		t.Errorf("one: %x\nwant %x", got, want)
	}
	// Version 1 knew nothing of own ones.
	old := append([]byte("dunlinmp\x01\x00\x00\x00"), genesis[:]...)
	old = sum(binary.LittleEndian.AppendUint64(old, 2_000_000_000))
	rec[len(rec)-1] = 1
	old = append(append(old, sum(append(rec, raw.Bytes()...))...), end(1)...)
	l.reopen(func(*mempool.Options) {})
	if report, err := l.pool.Load(t.Context(), bytes.NewReader(old), int64(len(old))); err != nil || report.Accepted != 1 {
		t.Errorf("version 1: %+v, %v", report, err)
	}
	if due, _, _ := l.pool.Unsent(9, 0); len(due) != 1 {
		t.Errorf("version 1: %d to be relayed", len(due))
	}
}

// saved makes a small file with transactions and fates.
func savedFile(t testing.TB, l *lab) []byte {
	t.Helper()
	var b bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.pool.Run(ctx) }()
	one := l.pay(1000, 1, l.coinbase(0))
	l.want(one)
	l.want(l.pay(9000, 1, l.coinbase(0)))
	l.want(l.pay(1000, 1, l.coinbase(1)))
	if _, err := l.pool.Save(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	return b.Bytes()
}

// TestFileDamage: whichever byte of the file is changed, and wherever it is cut
// off, the pool starts, says so once, sets the file aside and goes on; it holds
// nothing that was not in the file.
func TestFileDamage(t *testing.T) {
	t.Parallel()
	fs, log := vfs.NewMem(), new(logBook)
	options := func(o *mempool.Options) { o.FS, o.File, o.Logger = fs, poolFile, log.logger() }
	l := newLab(t, consensus.Regtest(), 3, nil)
	good := savedFile(t, l)
	before := 0
	check := func(what string, bad []byte) {
		t.Helper()
		writeAll(t, fs, poolFile, bad)
		l.reopen(options)
		err := l.pool.ReadFile(t.Context())
		lines := log.lines("mempool file set aside")
		if err != nil || len(lines) != before+1 || !strings.Contains(lines[before], poolFile) {
			t.Fatalf("%s: %v, log %q", what, err, lines[before:])
		}
		before++
		if !bytes.Equal(readAll(t, fs, poolFile+".aside"), bad) {
			t.Fatalf("%s: the file is not set aside as it was", what)
		}
		if n, _, _ := l.pool.Size(); n > 2 {
			t.Fatalf("%s: %d entries", what, n)
		}
		l.verify()
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	for i := 0; i < len(good); i += step {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		check(fmt.Sprint("byte ", i), bad)
	}
	for i := 0; i < len(good); i += step {
		check(fmt.Sprint("the first ", i), good[:i])
	}
	check("a byte more", append(bytes.Clone(good), 0))
	check("twice", append(bytes.Clone(good), good...))
	// And the good one is good.
	writeAll(t, fs, poolFile, good)
	l.reopen(options)
	if err := l.pool.ReadFile(t.Context()); err != nil || len(log.lines("set aside")) != before {
		t.Errorf("%v, %q", err, log.lines("set aside")[before:])
	}
	if n, _, _ := l.pool.Size(); n != 2 {
		t.Errorf("%d entries", n)
	}
}

// TestFileOfOthers: a newer file and one of another chain are set aside, with
// words that say which it is.
func TestFileOfOthers(t *testing.T) {
	t.Parallel()
	l := newLab(t, consensus.Regtest(), 2, nil)
	good := savedFile(t, l)
	newer := bytes.Clone(good)
	newer[8] = 3
	other := newLab(t, consensus.Simnet(), 0, nil)
	for _, row := range []struct {
		l    *lab
		file []byte
		want string
	}{
		{l, newer, "of version 3, this dunlin knows 1 to 2"},
		{other, good, "of another chain: genesis " + consensus.Regtest().GenesisHash.String()},
		{l, []byte("{}"), "damage at byte 0"},
	} {
		fs, log := vfs.NewMem(), new(logBook)
		writeAll(t, fs, poolFile, row.file)
		row.l.reopen(func(o *mempool.Options) { o.FS, o.File, o.Logger = fs, poolFile, log.logger() })
		if err := row.l.pool.ReadFile(t.Context()); err != nil {
			t.Error(err)
		}
		if lines := log.lines(row.want); len(lines) != 1 || !strings.Contains(lines[0], "WARN") {
			t.Errorf("want %q: %q", row.want, lines)
		}
		if !bytes.Equal(readAll(t, fs, poolFile+".aside"), row.file) {
			t.Error("not set aside as it was")
		}
	}
}

// TestFileLimits: a record that says it is longer than what is left, or than any
// may be, is damage, found before memory is taken for it; a small pool reads a
// large file and keeps what pays best.
func TestFileLimits(t *testing.T) {
	t.Parallel()
	l := newLab(t, consensus.Regtest(), 20, nil)
	var txs []*wire.MsgTx
	var file bytes.Buffer
	l.session(func() {
		for i := range 20 {
			txs = append(txs, l.pay(int64(1000+100*i), 1, l.coinbase(i)))
			l.want(txs[i])
		}
		if _, err := l.pool.Save(t.Context(), &file); err != nil {
			t.Fatal(err)
		}
	})
	room := 5*mempool.MemoryOf(txs[0]) + 10
	l.reopen(func(o *mempool.Options) { o.MaxBytes = room })
	l.session(func() {
		if _, err := l.pool.Load(t.Context(), bytes.NewReader(file.Bytes()), int64(file.Len())); err != nil {
			t.Fatal(err)
		}
	})
	if n, _, memory := l.pool.Size(); n != 5 || memory > room || !l.has(txs[15:]...) {
		t.Errorf("%d entries of %d bytes", n, memory)
	}
	l.verify()
	// Too long for any pool: what is behind the limit is left out.
	l.reopen(func(*mempool.Options) {})
	l.session(func() {
		report, err := l.pool.LoadUpTo(t.Context(), bytes.NewReader(file.Bytes()), int64(file.Len()), 1000)
		if err != nil || !report.LeftOut || report.Accepted < 4 || report.Accepted > 8 {
			t.Errorf("%+v, %v", report, err)
		}
	})
}

// TestFileFullDisk: a disk that is full, at whatever write, costs a warning and
// leaves the old file; when there is room again it is written.
func TestFileFullDisk(t *testing.T) {
	t.Parallel()
	for n := range 12 {
		mem, log := vfs.NewMem(), new(logBook)
		var broken atomic.Bool
		var count atomic.Int32
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if broken.Load() && op.Kind != errorfs.OpRemove && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && count.Add(1) > int32(n) {
				return errors.New("no space left on device")
			}
			return nil
		}))
		l := newLab(t, consensus.Regtest(), 2, func(o *mempool.Options) {
			o.FS, o.File, o.SaveEvery, o.Logger = fs, poolFile, time.Millisecond, log.logger()
		})
		saved := func() bool {
			if _, err := mem.Stat(poolFile); err != nil {
				return false
			}
			spent := l.coinbase(1).op.Hash
			return bytes.Contains(readAll(t, mem, poolFile), spent[:])
		}
		l.session(func() {
			l.want(l.pay(1000, 1, l.coinbase(0)))
			poll(t, func() bool { _, err := mem.Stat(poolFile); return err == nil })
			old := readAll(t, mem, poolFile)
			broken.Store(true)
			l.want(l.pay(1000, 1, l.coinbase(1)))
			poll(t, func() bool { return saved() || len(log.lines("mempool not saved")) == 1 })
			if got := readAll(t, mem, poolFile); !saved() && !bytes.Equal(got, old) {
				t.Fatalf("fault %d: neither the old file nor the new one", n)
			}
			broken.Store(false)
			poll(t, saved)
		})
		if _, err := mem.Stat(poolFile + ".new"); err == nil {
			t.Errorf("fault %d: a half-written file is left", n)
		}
		if lines := log.lines("mempool not saved"); len(lines) > 1 {
			t.Errorf("fault %d: %q", n, lines)
		}
	}
}

// TestFilePowerCut: a power cut at any moment of the writing leaves a whole file.
func TestFilePowerCut(t *testing.T) {
	t.Parallel()
	fs := vfs.NewCrashableMem()
	l := newLab(t, consensus.Regtest(), 30, func(o *mempool.Options) {
		o.FS, o.File, o.SaveEvery = fs, poolFile, time.Millisecond
	})
	var clones []vfs.FS
	l.session(func() {
		for i := range 30 {
			l.want(l.pay(1000, 1, l.coinbase(i)))
			clones = append(clones, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 10 * (i % 11), RNG: rand.New(rand.NewPCG(uint64(i), 5))}))
		}
		poll(t, func() bool { _, err := fs.Stat(poolFile); return err == nil })
	})
	clones = append(clones, fs.CrashClone(vfs.CrashCloneCfg{}))
	found := 0
	for i, c := range clones {
		log := new(logBook)
		l.reopen(func(o *mempool.Options) { o.FS, o.File, o.Logger = c, poolFile, log.logger() })
		if err := l.pool.ReadFile(t.Context()); err != nil || len(log.lines("WARN")) > 0 {
			t.Errorf("cut %d: %v, %q", i, err, log.lines("WARN"))
		}
		found, _, _ = l.pool.Size()
	}
	if found != 30 {
		t.Errorf("%d entries after an orderly end, want 30", found)
	}
}

// TestFileCutOffLoading: a stop while the file is read leaves the file alone; a
// stop right after a reorganisation saves what had not come back yet.
func TestFileCutOff(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	options := func(o *mempool.Options) { o.FS, o.File = fs, poolFile }
	l := newLab(t, consensus.Regtest(), 20, options)
	var txs []*wire.MsgTx
	l.session(func() {
		for i := range 20 {
			txs = append(txs, l.pay(1000, 1, l.coinbase(i)))
			l.want(txs[i])
		}
	})
	good := readAll(t, fs, poolFile)
	for range 5 {
		l.reopen(options)
		l.session(func() {}) // at once
	}
	l.reopen(options)
	l.session(func() { l.until(func() bool { return l.has(txs...) }) })
	if got := readAll(t, fs, poolFile); len(got) != len(good) {
		t.Errorf("%d bytes, were %d", len(got), len(good))
	}
	// A block takes them all, a reorganisation gives them back: stop in between.
	fork := l.tip
	b := l.on(fork, 0, txs...)
	l.reopen(options)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.pool.Run(ctx) }()
	l.follow(b.Hash)
	away := l.on(l.on(fork, 0), 0)
	for l.pool.Tip() != away.Hash {
		<-l.pool.Changed()
	}
	cancel()
	<-done
	l.reopen(options)
	l.session(func() { l.until(func() bool { return l.has(txs...) }) })
}

// TestLoadAllocation is not parallel: it counts what the process allocates.
func TestLoadAllocation(t *testing.T) {
	l := newLab(t, consensus.Regtest(), 3, nil)
	good := savedFile(t, l)
	genesis := l.chain.Params().GenesisHash
	head := good[:56]
	record := func(kind byte, n uint32, b []byte) []byte {
		r := binary.LittleEndian.AppendUint32([]byte{kind}, n)
		r = append(r, b...)
		return binary.LittleEndian.AppendUint32(r, crc32.Checksum(r, crc32.MakeTable(crc32.Castagnoli)))
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	small := append(make([]byte, 9), bytes.Repeat([]byte{0}, 60)...)
	for name, b := range map[string][]byte{
		"good":              good,
		"long transaction":  join(head, binary.LittleEndian.AppendUint32([]byte{1}, 400_009)),
		"longer than any":   join(head, binary.LittleEndian.AppendUint32([]byte{1}, 1<<31)),
		"unknown kind":      join(head, record(9, 0, nil)),
		"no transaction":    join(head, record(1, 9, make([]byte, 9))),
		"garbage":           join(head, record(1, uint32(len(small)), small)),
		"fates":             join(head, bytes.Repeat(record(2, 177, append(append(make([]byte, 32), 1), make([]byte, 144)...)), 3000)),
		"a fate too short":  join(head, record(2, 10, make([]byte, 10))),
		"a wrong end":       join(head, record(0, 4, []byte{1, 0, 0, 0})),
		"many empty inputs": join(head, record(1, 18, append(make([]byte, 9), 1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0))),
	} {
		got := mempool.Allocated(func() { _, _ = mempool.ReadRecords(bytes.NewReader(b), int64(len(b)), genesis) })
		if limit := uint64(8*len(b) + 64<<10); got > limit {
			t.Errorf("%s: %d bytes took %d of memory, at most %d", name, len(b), got, limit)
		}
	}
}

// FuzzFile: whatever the file holds, reading it neither crashes nor takes more
// memory than its size pays for.
func FuzzFile(f *testing.F) {
	l := newLab(f, consensus.Regtest(), 3, nil)
	good := savedFile(f, l)
	genesis := l.chain.Params().GenesisHash
	f.Add(good)
	f.Add(good[:56])
	f.Add([]byte{})
	f.Add(append(bytes.Clone(good[:56]), 1, 9, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		// A mutation hardly ever keeps the checksums: mend them.
		for _, b := range [][]byte{b, mempool.Mend(bytes.Clone(b), genesis)} {
			var txs int
			got := mempool.Allocated(func() { txs, _ = mempool.ReadRecords(bytes.NewReader(b), int64(len(b)), genesis) })
			if limit := uint64(8*len(b) + 64<<10); got > limit {
				t.Errorf("%d bytes with %d transactions took %d of memory, at most %d", len(b), txs, got, limit)
			}
		}
	})
}

func poll(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
		<-tick.C
	}
}
