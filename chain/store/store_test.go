package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

const testMagic = 0xd9b4bef9

func options(fs vfs.FS) store.Options {
	return store.Options{
		Dir:            "/home/chain",
		FS:             fs,
		ChainID:        "regtest-0f9188f1",
		Magic:          testMagic,
		MaxFileBytes:   4096,
		MaxRecordBytes: 1 << 20,
		CacheBytes:     1 << 20,
	}
}

func open(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func closeStore(t testing.TB, s *store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A model is what a store must hold after a commit.
type model struct {
	tip     store.Tip
	headers map[chainhash.Hash]store.HeaderRecord
	blocks  map[chainhash.Hash][]byte
	undos   map[chainhash.Hash][]byte
	coins   map[wire.OutPoint]consensus.Coin
	meta    string
}

func newModel() *model {
	return &model{
		tip:     store.Tip{Height: -1},
		headers: map[chainhash.Hash]store.HeaderRecord{},
		blocks:  map[chainhash.Hash][]byte{},
		undos:   map[chainhash.Hash][]byte{},
		coins:   map[wire.OutPoint]consensus.Coin{},
	}
}

func (m *model) clone() *model {
	c := *m
	c.headers, c.blocks, c.undos, c.coins = maps.Clone(m.headers), maps.Clone(m.blocks), maps.Clone(m.undos), maps.Clone(m.coins)
	return &c
}

func randBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// grow appends n blocks to the store and gathers the change of each in b and m.
func (m *model) grow(s *store.Store, b *store.Batch, r *rand.Rand, n int) error {
	for range n {
		height := m.tip.Height + 1
		raw := randBytes(r, consensus.HeaderBytes+1+r.IntN(600))
		undo := randBytes(r, 1+r.IntN(200))
		hash := chainhash.DoubleHashH(raw[:consensus.HeaderBytes])
		m.blocks[hash] = raw
		bp, err := s.AppendBlock(raw)
		if err != nil {
			return err
		}
		up, err := s.AppendUndo(undo)
		if err != nil {
			return err
		}
		rec := store.HeaderRecord{
			Height: height, Raw: raw[:consensus.HeaderBytes], Status: uint8(r.Uint32()), Txs: r.Uint32N(5000), Block: bp, Undo: up,
		}
		b.PutHeader(hash, rec)
		m.headers[hash], m.undos[hash] = rec, undo
		for i := range uint32(1 + r.IntN(4)) {
			op := wire.OutPoint{Hash: chainhash.DoubleHashH(raw), Index: i}
			c := consensus.Coin{Value: r.Int64N(21e14), Script: randBytes(r, r.IntN(40)), Height: height, Coinbase: i == 0}
			b.PutCoin(op, c)
			m.coins[op] = c
		}
		if len(m.coins) > 5 {
			ops := slices.SortedFunc(maps.Keys(m.coins), compareOutPoints)
			op := ops[r.IntN(len(ops))]
			b.DeleteCoin(op)
			delete(m.coins, op)
		}
		m.tip = store.Tip{Hash: hash, Height: height}
	}
	m.meta = fmt.Sprint("at ", m.tip.Height)
	b.SetTip(m.tip)
	b.PutMeta("where", []byte(m.meta))
	return nil
}

func compareOutPoints(a, b wire.OutPoint) int {
	if c := bytes.Compare(a.Hash[:], b.Hash[:]); c != 0 {
		return c
	}
	return int(int64(a.Index) - int64(b.Index))
}

// check compares everything that the store holds with the model.
func (m *model) check(s *store.Store) error {
	tip, ok, err := s.Tip()
	switch {
	case err != nil:
		return err
	case !ok && m.tip.Height < 0:
	case !ok || tip != m.tip:
		return fmt.Errorf("tip is %v %v, should be %v", tip, ok, m.tip)
	}
	if v, ok, err := s.Meta("where"); err != nil || ok != (m.meta != "") || string(v) != m.meta {
		return fmt.Errorf("meta is %q %v %w, should be %q", v, ok, err, m.meta)
	}
	seen, last := 0, int32(-1)
	err = s.Headers(func(hash chainhash.Hash, r store.HeaderRecord) error {
		seen++
		want, ok := m.headers[hash]
		if !ok || !bytes.Equal(r.Raw, want.Raw) || r.Height != want.Height || r.Status != want.Status ||
			r.Txs != want.Txs || r.Block != want.Block || r.Undo != want.Undo {
			return fmt.Errorf("header %v is %+v, should be %+v", hash, r, want)
		}
		if r.Height < last {
			return fmt.Errorf("height %d after %d", r.Height, last)
		}
		last = r.Height
		if again, ok, err := s.Header(r.Height, hash); err != nil || !ok || !reflect.DeepEqual(again, r) {
			return fmt.Errorf("header %v by itself is %+v, %v, %w", hash, again, ok, err)
		}
		if _, ok, err := s.Header(r.Height+1, hash); err != nil || ok {
			return fmt.Errorf("header %v is at two heights, %w", hash, err)
		}
		if raw, err := s.ReadBlock(r.Block); err != nil || !bytes.Equal(raw, m.blocks[hash]) {
			return fmt.Errorf("block at height %d: %w, equal %v", r.Height, err, bytes.Equal(raw, m.blocks[hash]))
		}
		if raw, err := s.ReadUndo(r.Undo); err != nil || !bytes.Equal(raw, m.undos[hash]) {
			return fmt.Errorf("undo at height %d: %w, equal %v", r.Height, err, bytes.Equal(raw, m.undos[hash]))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if seen != len(m.headers) {
		return fmt.Errorf("%d headers, should be %d", seen, len(m.headers))
	}
	if top, ok, err := s.HighestHeader(); err != nil || ok != (seen > 0) || ok && top != last {
		return fmt.Errorf("the highest header is at %d, %v, %w, should be %d", top, ok, err, last)
	}
	const span = 40
	for from, before := int32(0), 0; before < seen; from += span {
		got := 0
		err := s.HeaderRange(from, span, func(hash chainhash.Hash, r store.HeaderRecord) error {
			if want := m.headers[hash]; r.Height < from || r.Height >= from+span || r.Height != want.Height || !bytes.Equal(r.Raw, want.Raw) {
				return fmt.Errorf("header %v of the range from %d is %+v", hash, from, r)
			}
			got++
			return nil
		})
		if err != nil {
			return err
		}
		if before += got; from > last {
			return fmt.Errorf("%d headers in ranges, should be %d", before, seen)
		}
	}
	var ops []wire.OutPoint
	err = s.Coins(func(op wire.OutPoint, c consensus.Coin) error {
		ops = append(ops, op)
		got, ok, err := s.Coin(op)
		if want, there := m.coins[op]; err != nil || !ok || !there || !equalCoins(c, want) || !equalCoins(got, want) {
			return fmt.Errorf("coin %v is %+v and %+v %v %w, should be %+v %v", op, c, got, ok, err, want, there)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(ops) != len(m.coins) || !slices.IsSortedFunc(ops, compareOutPoints) {
		return fmt.Errorf("%d coins, should be %d; sorted %v", len(ops), len(m.coins), slices.IsSortedFunc(ops, compareOutPoints))
	}
	return nil
}

func equalCoins(a, b consensus.Coin) bool {
	return a.Value == b.Value && a.Height == b.Height && a.Coinbase == b.Coinbase && bytes.Equal(a.Script, b.Script)
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// filled makes a store with some files' worth of committed blocks.
func filled(t testing.TB, o store.Options, r *rand.Rand) *model {
	t.Helper()
	s := open(t, o)
	m := newModel()
	for range 6 {
		b := s.NewBatch()
		must(t, m.grow(s, b, r, 5))
		must(t, s.Commit(b))
	}
	closeStore(t, s)
	return m
}

func TestRoundTrip(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		t.Run(name, func(t *testing.T) {
			o := options(fs)
			if fs == vfs.Default {
				o.Dir = filepath.Join(t.TempDir(), "deep", "home")
			}
			r := newRand(1)
			s := open(t, o)
			m := newModel()
			must(t, m.check(s))
			for range 8 {
				b := s.NewBatch()
				must(t, m.grow(s, b, r, 6))
				must(t, s.Commit(b))
				must(t, m.check(s))
			}
			blocks, undo, index := s.Size()
			if blocks == 0 || undo == 0 || index == 0 {
				t.Errorf("Size() = %d, %d, %d", blocks, undo, index)
			}
			closeStore(t, s)
			s = open(t, o)
			must(t, m.check(s))
			if b, u, _ := s.Size(); b < blocks || u < undo || b > blocks+100 || u > undo+100 {
				t.Errorf("Size() after reopening = %d, %d; before %d, %d", b, u, blocks, undo)
			}
			must(t, s.ScanTail(func(p store.Pos, _ []byte) error { return fmt.Errorf("tail record at %+v after a clean end", p) }))
			b := s.NewBatch()
			must(t, m.grow(s, b, r, 6))
			must(t, s.Commit(b))
			must(t, m.check(s))
			closeStore(t, s)
			closeStore(t, s) // idempotent
		})
	}
}

func TestHomeIsPrivate(t *testing.T) {
	o := options(vfs.Default)
	o.Dir = filepath.Join(t.TempDir(), "home")
	open(t, o)
	info, err := os.Stat(o.Dir)
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestUncommittedIsReadable(t *testing.T) {
	s := open(t, options(vfs.NewMem()))
	p, err := s.AppendBlock([]byte("a block"))
	must(t, err)
	if raw, err := s.ReadBlock(p); err != nil || string(raw) != "a block" {
		t.Errorf("ReadBlock = %q, %v", raw, err)
	}
}

func TestRecordSizes(t *testing.T) {
	o := options(vfs.NewMem())
	o.MaxRecordBytes = 3 << 20
	o.MaxFileBytes = 5 << 20
	s := open(t, o)
	r := newRand(2)
	var all []store.Pos
	var raws [][]byte
	for _, n := range []int{1, 79, 1 << 20, 1<<20 + 1, 3 << 20, 2, 1 << 20} {
		raw := bytes.Repeat(randBytes(r, 64), n/64+1)[:n]
		p, err := s.AppendBlock(raw)
		must(t, err)
		all, raws = append(all, p), append(raws, raw)
	}
	for _, n := range []int{0, 3<<20 + 1} {
		if _, err := s.AppendBlock(make([]byte, n)); err == nil {
			t.Errorf("a record of %d bytes was taken", n)
		}
	}
	for i, p := range all {
		if raw, err := s.ReadBlock(p); err != nil || !bytes.Equal(raw, raws[i]) {
			t.Errorf("record %d: %v", i, err)
		}
		if i > 0 && p.File == all[i-1].File && int64(p.Offset)+int64(p.Size) > o.MaxFileBytes {
			t.Errorf("record %d at %+v lies past MaxFileBytes", i, p)
		}
	}
	i := 0
	must(t, s.Scan(func(p store.Pos, raw []byte) error {
		if p != all[i] || !bytes.Equal(raw, raws[i]) {
			t.Errorf("Scan gives %+v, should be %+v", p, all[i])
		}
		i++
		return nil
	}, nil))
	if i != len(all) {
		t.Errorf("Scan gave %d records of %d", i, len(all))
	}
}

func TestReadBlockRefusesImpossiblePositions(t *testing.T) {
	s := open(t, options(vfs.NewMem()))
	_, err := s.AppendBlock([]byte("a block"))
	must(t, err)
	for _, p := range []store.Pos{
		{},
		{Offset: 8},
		{Offset: 7, Size: 7},
		{Offset: 8, Size: 6},
		{Offset: 9, Size: 7},
		{Offset: 8, Size: 1 << 31},
		{File: 7, Offset: 8, Size: 7},
		{Offset: 1 << 31, Size: 7},
	} {
		if raw, err := s.ReadBlock(p); err == nil {
			t.Errorf("ReadBlock(%+v) = %q", p, raw)
		}
	}
}

func TestOptionsReportEveryFault(t *testing.T) {
	_, err := store.Open(store.Options{MaxFileBytes: -1, MaxRecordBytes: -1, CacheBytes: -1, MemTableBytes: 5 << 20})
	if err == nil {
		t.Fatal("opened")
	}
	for _, word := range []string{"Dir", "ChainID", "Magic", "MaxFileBytes", "MaxRecordBytes", "CacheBytes", "MemTableBytes"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not name %s", err, word)
		}
	}
}

// Whoever gives little memory to coins has small memtables; the default is the largest.
func TestMemTableBytes(t *testing.T) {
	for coins, want := range map[int64]int64{0: 512 << 10, 8 << 20: 512 << 10, 16 << 20: 1 << 20, 32 << 20: 2 << 20, 64 << 20: 4 << 20, 1 << 40: 4 << 20} {
		if got := store.MemTableBytes(coins); got != want {
			t.Errorf("beside %d bytes of coins: %d, want %d", coins, got, want)
		}
		o := options(vfs.NewMem())
		o.MemTableBytes = store.MemTableBytes(coins)
		open(t, o)
	}
	if _, _, err := store.OpenSide(store.SideOptions{FS: vfs.NewMem(), Dir: "/home", Name: "side", ChainID: "c", MemTableBytes: 1}); err == nil || !strings.Contains(err.Error(), "MemTableBytes") {
		t.Errorf("a memtable of one byte: %v", err)
	}
}

func TestBatchRefusesWhatCannotBeStored(t *testing.T) {
	s := open(t, options(vfs.NewMem()))
	for name, fill := range map[string]func(*store.Batch){
		"short header": func(b *store.Batch) { b.PutHeader(chainhash.Hash{}, store.HeaderRecord{Raw: make([]byte, 79)}) },
		"long header":  func(b *store.Batch) { b.PutHeader(chainhash.Hash{}, store.HeaderRecord{Raw: make([]byte, 4097)}) },
		"negative height": func(b *store.Batch) {
			b.PutHeader(chainhash.Hash{}, store.HeaderRecord{Height: -1, Raw: make([]byte, 80)})
		},
		"negative value": func(b *store.Batch) { b.PutCoin(wire.OutPoint{}, consensus.Coin{Value: -1}) },
		"negative coin":  func(b *store.Batch) { b.PutCoin(wire.OutPoint{}, consensus.Coin{Height: -1}) },
		"negative tip":   func(b *store.Batch) { b.SetTip(store.Tip{Height: -1}) },
		"large meta":     func(b *store.Batch) { b.PutMeta("m", make([]byte, 64<<10+1)) },
		"empty name":     func(b *store.Batch) { b.PutMeta("", nil) },
	} {
		b := s.NewBatch()
		fill(b)
		if err := s.Commit(b); err == nil {
			t.Errorf("%s was committed", name)
		}
	}
	b := s.NewBatch()
	b.PutHeader(chainhash.Hash{}, store.HeaderRecord{Raw: make([]byte, 4096)})
	b.PutMeta("empty", nil)
	b.PutMeta(strings.Repeat("n", 255), make([]byte, 64<<10))
	must(t, s.Commit(b)) // and the store still works
	if v, ok, err := s.Meta("empty"); err != nil || !ok || len(v) != 0 {
		t.Errorf("Meta = %q, %v, %v", v, ok, err)
	}
	if s.Commit(b) == nil {
		t.Error("a batch was committed twice")
	}
}

func TestClosed(t *testing.T) {
	s := open(t, options(vfs.NewMem()))
	b := s.NewBatch()
	closeStore(t, s)
	for name, err := range map[string]error{
		"Commit":      s.Commit(b),
		"AppendBlock": second(s.AppendBlock([]byte{1})),
		"ReadBlock":   second(s.ReadBlock(store.Pos{Offset: 8, Size: 1})),
		"ReadBlocks":  second(s.ReadBlocks(nil, []store.Pos{{Offset: 8, Size: 1}})),
		"CheckBlock":  s.CheckBlock(store.Pos{Offset: 8, Size: 1}, []byte{0}),
		"part":        s.ReadBlockPart(store.Pos{Offset: 8, Size: 1}, 0, []byte{0}),
		"Meta":        third(s.Meta("x")),
		"Tip":         third(s.Tip()),
		"Coin":        third(s.Coin(wire.OutPoint{})),
		"Coins":       s.Coins(nil),
		"Headers":     s.Headers(nil),
		"ScanTail":    s.ScanTail(nil),
		"Scan":        s.Scan(nil, nil),
	} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[A any](_ A, err error) error        { return err }
func third[A, B any](_ A, _ B, err error) error { return err }

func TestLock(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		t.Run(name, func(t *testing.T) {
			o := options(fs)
			if fs == vfs.Default {
				o.Dir = t.TempDir()
			}
			s := open(t, o)
			_, err := store.Open(o)
			if !errors.Is(err, store.ErrLocked) {
				t.Fatalf("second Open: %v", err)
			}
			if want := fmt.Sprintf("home %s is in use by another dunlin (pid %d)", o.Dir, os.Getpid()); err.Error() != want {
				t.Errorf("error %q, should be %q", err, want)
			}
			if err := store.Wipe(o); !errors.Is(err, store.ErrLocked) {
				t.Errorf("Wipe: %v", err)
			}
			closeStore(t, s)
			open(t, o)
		})
	}
}

func TestOtherChain(t *testing.T) {
	o := options(vfs.NewMem())
	m := filled(t, o, newRand(3))
	wrong := o
	wrong.ChainID = "simnet-683e86bd"
	_, err := store.Open(wrong)
	if !errors.Is(err, store.ErrOtherChain) || !strings.Contains(err.Error(), o.ChainID) {
		t.Fatalf("Open: %v", err)
	}
	must(t, m.check(open(t, o))) // the refusal took nothing and released the lock
}

func TestDiskFree(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, options(fs))
	if _, err := s.DiskFree(); err == nil {
		t.Error("a file system that does not know gave an answer")
	}
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 7, TotalBytes: 10, UsedBytes: 3})
	if n, err := s.DiskFree(); n != 7 || err != nil {
		t.Errorf("DiskFree = %d, %v", n, err)
	}
}

func TestScanTailHandsOutWhatWasNotCommitted(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	r := newRand(4)
	m := filled(t, o, r)

	s := open(t, o)
	var want []store.Pos
	var raws [][]byte
	for range 30 { // several files' worth
		raw := randBytes(r, 300+r.IntN(400))
		p, err := s.AppendBlock(raw)
		must(t, err)
		want, raws = append(want, p), append(raws, raw)
	}
	closeStore(t, s)
	if want[0].File == want[29].File {
		t.Fatal("the tail does not span files")
	}

	// Twice: the scan itself commits nothing.
	for range 2 {
		s = open(t, o)
		i := 0
		must(t, s.ScanTail(func(p store.Pos, raw []byte) error {
			if p != want[i] || !bytes.Equal(raw, raws[i]) {
				t.Errorf("record %d at %+v, should be at %+v", i, p, want[i])
			}
			i++
			return nil
		}))
		if i != 30 {
			t.Errorf("%d records of 30", i)
		}
		must(t, m.check(s))
		closeStore(t, s)
	}

	// Refused at the fifth: appends go on there.
	s = open(t, o)
	i := 0
	stop := errors.New("stop")
	err := s.ScanTail(func(store.Pos, []byte) error {
		if i++; i == 5 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	p, err := s.AppendBlock([]byte("instead"))
	must(t, err)
	if p.File != want[4].File || p.Offset != want[4].Offset {
		t.Errorf("append at %+v, should be at %+v", p, want[4])
	}
	if s.ScanTail(nil) == nil {
		t.Error("ScanTail after an append")
	}
	must(t, s.Commit(s.NewBatch()))
	closeStore(t, s)

	// What was behind is not resurrected, except whole files after the end.
	s = open(t, o)
	must(t, s.ScanTail(func(p store.Pos, _ []byte) error {
		if p.File == want[4].File {
			t.Errorf("an overwritten record at %+v", p)
		}
		return nil
	}))
}

func TestScanTailEndsAtTheFirstTornRecord(t *testing.T) {
	for name, tear := range map[string]func(b []byte, off, size int) []byte{
		"cut in the head":    func(b []byte, off, _ int) []byte { return b[:off-3] },
		"cut in the payload": func(b []byte, off, _ int) []byte { return b[:off+5] },
		"cut in the CRC":     func(b []byte, off, size int) []byte { return b[:off+size+1] },
		"flipped magic":      func(b []byte, off, _ int) []byte { b[off-8] ^= 1; return b },
		"flipped length":     func(b []byte, off, _ int) []byte { b[off-4] ^= 1; return b },
		"huge length":        func(b []byte, off, _ int) []byte { b[off-1] = 0xff; return b },
		"flipped payload":    func(b []byte, off, _ int) []byte { b[off] ^= 1; return b },
		"flipped CRC":        func(b []byte, off, size int) []byte { b[off+size] ^= 1; return b },
		"zeros":              func(b []byte, off, _ int) []byte { clear(b[off-8:]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			o := options(fs)
			o.MaxFileBytes = 1 << 20
			s := open(t, o)
			var at []store.Pos
			for i := range 5 {
				p, err := s.AppendBlock(bytes.Repeat([]byte{byte(i + 1)}, 50))
				must(t, err)
				at = append(at, p)
			}
			closeStore(t, s)
			change(t, fs, "/home/chain/blocks/00000.blk", func(b []byte) []byte { return tear(b, int(at[3].Offset), 50) })

			s = open(t, o)
			var got []store.Pos
			must(t, s.ScanTail(func(p store.Pos, _ []byte) error { got = append(got, p); return nil }))
			if !slices.Equal(got, at[:3]) {
				t.Fatalf("got %v, should be %v", got, at[:3])
			}
			p, err := s.AppendBlock([]byte("new"))
			must(t, err)
			if p.Offset != at[3].Offset {
				t.Errorf("append at %d, should be at %d", p.Offset, at[3].Offset)
			}
			must(t, s.Commit(s.NewBatch()))
			closeStore(t, s)

			// The new record ends the file, whatever lies behind it.
			s = open(t, o)
			must(t, s.ScanTail(func(p store.Pos, _ []byte) error { return fmt.Errorf("record at %+v", p) }))
			n := 0
			must(t, s.Scan(func(store.Pos, []byte) error { n++; return nil }, nil))
			if n != 4 {
				t.Errorf("Scan gave %d records, should be 4", n)
			}
		})
	}
}

// change rewrites a file of a closed store.
func change(t testing.TB, fs vfs.FS, name string, f func([]byte) []byte) {
	t.Helper()
	b := f(contents(t, fs, name))
	w, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	must(t, err)
	_, err = w.Write(b)
	must(t, err)
	must(t, w.Sync())
	must(t, w.Close())
}

func contents(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	r, err := fs.Open(name)
	must(t, err)
	info, err := r.Stat()
	must(t, err)
	b := make([]byte, info.Size())
	if len(b) > 0 {
		_, err = r.ReadAt(b, 0)
		must(t, err)
	}
	must(t, r.Close())
	return b
}

func TestRebuild(t *testing.T) {
	fs := vfs.NewMem()
	o := options(fs)
	r := newRand(5)
	m := filled(t, o, r)
	must(t, store.Wipe(o))
	must(t, store.Wipe(o)) // as after a crash
	other := o
	other.ChainID = "other"
	if _, err := store.Open(other); !errors.Is(err, store.ErrOtherChain) {
		t.Errorf("Open of the wiped home of another chain: %v", err)
	}
	if err := store.Wipe(other); !errors.Is(err, store.ErrOtherChain) {
		t.Errorf("Wipe of the wiped home of another chain: %v", err)
	}

	// Without the mark of Wipe nobody asked for the index to be gone.
	mark := o.FS.PathJoin(o.Dir, "REINDEX")
	must(t, fs.Rename(mark, mark+".away"))
	_, err := store.Open(o)
	damage, ok := errors.AsType[*store.DamageError](err)
	if !ok || damage.File != "index" || !strings.Contains(err.Error(), "dunlin chain reindex") {
		t.Fatalf("Open without an index: %v", err)
	}

	must(t, fs.Rename(mark+".away", mark))
	s := open(t, o)
	if !s.Rebuilding() {
		t.Error("Open after Wipe does not rebuild")
	}
	if _, ok, err := s.Tip(); ok || err != nil {
		t.Fatalf("Tip: %v, %v", ok, err)
	}
	b := s.NewBatch()
	n := 0
	must(t, s.Scan(func(p store.Pos, raw []byte) error {
		hash := chainhash.DoubleHashH(raw[:consensus.HeaderBytes])
		rec, ok := m.headers[hash]
		if !ok || rec.Block != p || !bytes.Equal(raw, m.blocks[hash]) {
			return fmt.Errorf("record at %+v is not a block of ours", p)
		}
		up, err := s.AppendUndo(m.undos[hash])
		if err != nil {
			return err
		}
		rec.Undo = up
		m.headers[hash] = rec
		b.PutHeader(hash, rec)
		n++
		return nil
	}, nil))
	if n != len(m.headers) {
		t.Fatalf("%d records of %d", n, len(m.headers))
	}
	for op, c := range m.coins {
		b.PutCoin(op, c)
	}
	b.SetTip(m.tip)
	b.PutMeta("where", []byte(m.meta))
	must(t, s.Commit(b))
	must(t, m.check(s))
	b = s.NewBatch()
	must(t, m.grow(s, b, r, 10))
	must(t, s.Commit(b))
	closeStore(t, s)
	s = open(t, o)
	if s.Rebuilding() || !s.Filling() || s.Mend() != "dunlin chain reindex --restart" {
		t.Errorf("rebuilding %v, filling %v, mend %q", s.Rebuilding(), s.Filling(), s.Mend())
	}
	must(t, s.Filled())
	if s.Filling() || s.Mend() != "dunlin chain reindex" {
		t.Errorf("filled: filling %v, mend %q", s.Filling(), s.Mend())
	}
	must(t, m.check(s))
}

func TestScanGoesOnAfterDamage(t *testing.T) {
	for name, rebuild := range map[string]bool{"with its index": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			o := options(fs)
			o.MaxFileBytes = 1 << 20
			s := open(t, o)
			var at []store.Pos
			for range 6 {
				p, err := s.AppendBlock(bytes.Repeat(binary.LittleEndian.AppendUint32(nil, testMagic), 30))
				must(t, err)
				at = append(at, p)
			}
			must(t, s.Commit(s.NewBatch()))
			closeStore(t, s)
			change(t, fs, "/home/chain/blocks/00000.blk", func(b []byte) []byte {
				b[at[1].Offset+9] ^= 4                    // a payload
				clear(b[at[3].Offset-8 : at[3].Offset-4]) // a magic, zeroed
				b[at[4].Offset-1] ^= 0x80                 // a length
				return b
			})
			if rebuild {
				must(t, store.Wipe(o))
				o.Rebuild = true
			}
			s = open(t, o)
			if err := s.Scan(func(store.Pos, []byte) error { return nil }, nil); err == nil {
				t.Error("Scan passed over damage")
			}
			var got []store.Pos
			var damaged []int64
			must(t, s.Scan(func(p store.Pos, _ []byte) error { got = append(got, p); return nil },
				func(d *store.DamageError) error { damaged = append(damaged, d.Offset); return nil }))
			if want := []store.Pos{at[0], at[2], at[5]}; !slices.Equal(got, want) {
				t.Errorf("records at %v, should be at %v", got, want)
			}
			want := []int64{int64(at[1].Offset) - 8, int64(at[3].Offset) - 8}
			if rebuild {
				want = want[:1] // without an index, zeros are no damage
			}
			for _, off := range want {
				if !slices.Contains(damaged, off) {
					t.Errorf("damage at %v, should include %v", damaged, want)
				}
			}
		})
	}
}
