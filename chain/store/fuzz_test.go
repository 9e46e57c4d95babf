package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"runtime"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// frame is a record as docs/storage.md has it.
func frame(payload []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, testMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
}

// inBounds runs f on n bytes of input and checks what it allocates: at most 8 times the
// input and 64 KiB.
func inBounds(t testing.TB, n int, f func()) {
	t.Helper()
	most := uint64(8*n + 64<<10)
	for tries := 0; ; tries++ { // others may allocate at the same time
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		got := after.TotalAlloc - before.TotalAlloc
		if got <= most {
			return
		}
		if tries == 4 {
			t.Fatalf("%d bytes took %d of memory, at most %d", n, got, most)
		}
	}
}

// FuzzCoin: whatever decodes encodes to the same bytes, and nothing panics.
func FuzzCoin(f *testing.F) {
	b, _ := store.EncodeCoin(consensus.Coin{Value: 50e8, Script: []byte{0x51}, Height: 14131, Coinbase: true})
	f.Add(b)
	f.Add([]byte{})
	f.Add([]byte{0x80, 0x00, 0x00}) // a uvarint that is not minimal
	f.Add(bytes.Repeat([]byte{0xff}, 20))
	f.Fuzz(func(t *testing.T, v []byte) {
		var c consensus.Coin
		var err error
		inBounds(t, len(v), func() { c, err = store.DecodeCoin(v) })
		if err != nil {
			return
		}
		if c.Height < 0 || c.Value < 0 {
			t.Fatalf("coin %+v", c)
		}
		if again, size := store.EncodeCoin(c); !bytes.Equal(again, v) || size != len(v) {
			t.Fatalf("%x decodes to %+v, which encodes to %x (%d bytes)", v, c, again, size)
		}
	})
}

// FuzzHeaderRecord: as FuzzCoin, for headers, tips and keys.
func FuzzHeaderRecord(f *testing.F) {
	f.Add(store.EncodeHeaderRecord(store.HeaderRecord{
		Raw: make([]byte, 80), Status: 7, Txs: 300, Block: store.Pos{File: 1, Offset: 8, Size: 300}, Undo: store.Pos{File: 0, Offset: 300, Size: 1},
	}))
	f.Add(store.EncodeHeaderRecord(store.HeaderRecord{Raw: make([]byte, 220)}))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 37))
	f.Fuzz(func(t *testing.T, v []byte) {
		var r store.HeaderRecord
		var tip store.Tip
		var err, tipErr error
		inBounds(t, len(v), func() {
			r, err = store.DecodeHeaderRecord(5, v)
			tip, tipErr = store.DecodeTip(v)
		})
		if err == nil {
			if again := store.EncodeHeaderRecord(r); !bytes.Equal(again, v) {
				t.Fatalf("%x decodes to %+v, which encodes to %x", v, r, again)
			}
		}
		if tipErr == nil && tip.Height < 0 {
			t.Fatalf("tip %+v", tip)
		}
		if op, ok := store.ParseCoinKey(v); ok {
			again := make([]byte, len(v))
			store.PutCoinKey(again, op)
			if !bytes.Equal(again, v) {
				t.Fatalf("coin key %x", v)
			}
		}
		if height, hash, ok := store.ParseHeaderKey(v); ok && !bytes.Equal(store.HeaderKey(height, hash), v) {
			t.Fatalf("header key %x", v)
		}
	})
}

// FuzzBlockFile: whatever is in a block file, scan and recovery end, hand out
// only records whose bytes are there, and never allocate for a false length.
func FuzzBlockFile(f *testing.F) {
	two := append(frame([]byte("first")), frame([]byte("second"))...)
	f.Add(two)
	f.Add(append(two, 0, 0, 0, 0))
	f.Add(append(two[:len(two)-1], frame([]byte("third"))...))
	f.Add(append(append(two, make([]byte, 9)...), frame([]byte("behind zeros"))...))
	f.Add([]byte{0xf9, 0xbe, 0xb4, 0xd9, 0xff, 0xff, 0xff, 0xff})
	f.Add(bytes.Repeat([]byte{0xf9, 0xbe, 0xb4, 0xd9}, 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("blocks", 0o700); err != nil {
			t.Fatal(err)
		}
		w, err := fs.Create("blocks/00000.blk", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Clone(b)); err != nil {
			t.Fatal(err)
		}
		s := store.Blocks(fs, testMagic, 1<<16)
		end := uint32(0)
		seen := func(p store.Pos, payload []byte) error {
			if p.Offset < end+8 || p.Size == 0 || int(p.Size) != len(payload) {
				t.Fatalf("record at %+v after %d", p, end)
			}
			end = p.Offset + p.Size + 4
			if !bytes.Equal(b[p.Offset-8:end], frame(payload)) {
				t.Fatalf("record at %+v is not in the file", p)
			}
			if raw, err := s.Read(p); err != nil || !bytes.Equal(raw, payload) {
				t.Fatalf("Read(%+v): %v", p, err)
			}
			return nil
		}
		damaged := func(d *store.DamageError) error {
			if d.Offset < 0 || d.Offset > int64(len(b)) {
				t.Fatalf("damage at %d of %d", d.Offset, len(b))
			}
			return nil
		}
		inBounds(t, len(b), func() {
			if err := s.Scan(func(store.Pos, []byte) error { return nil }, func(*store.DamageError) error { return nil }); err != nil {
				t.Fatal(err)
			}
		})
		if err := s.Scan(seen, damaged); err != nil {
			t.Fatal(err)
		}
		end = 0
		if err := s.RecoverTail(seen); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, fs, "blocks/00000.blk"); !bytes.Equal(got, b) {
			t.Fatal("recovery changed the file")
		}
	})
}

// FuzzWritten: as FuzzCoin, for the write positions and the list of invalidated blocks.
func FuzzWritten(f *testing.F) {
	f.Add(make([]byte, 24))
	f.Add(store.EncodeInvalidated(nil))
	f.Add(store.EncodeInvalidated([]chainhash.Hash{{1}, {2, 3}}))
	f.Fuzz(func(t *testing.T, v []byte) {
		var again []byte
		var ok bool
		inBounds(t, len(v), func() { again, ok = store.RecodeWritten(v) })
		if ok && !bytes.Equal(again, v) {
			t.Fatalf("%x became %x", v, again)
		}
		var hashes []chainhash.Hash
		var err error
		inBounds(t, len(v), func() { hashes, err = store.DecodeInvalidated(v) })
		if err == nil && !bytes.Equal(store.EncodeInvalidated(hashes), v) {
			t.Fatalf("%q became %q", v, store.EncodeInvalidated(hashes))
		}
	})
}

func TestCoinVector(t *testing.T) {
	// The example of docs/storage.md.
	b, _ := store.EncodeCoin(consensus.Coin{Value: 5_000_000_000, Script: []byte{0x51}, Height: 1, Coinbase: true})
	if want := []byte{0x03, 0x80, 0xe4, 0x97, 0xd0, 0x12, 0x51}; !bytes.Equal(b, want) {
		t.Errorf("coin is %x, should be %x", b, want)
	}
	key := make([]byte, 37)
	store.PutCoinKey(key, wire.OutPoint{Index: 258})
	if want := append(append([]byte{'c'}, make([]byte, 32)...), 0, 0, 1, 2); !bytes.Equal(key, want) {
		t.Errorf("key is %x, should be %x", key, want)
	}
	rec := store.EncodeHeaderRecord(store.HeaderRecord{
		Raw: make([]byte, 80), Status: 5, Txs: 200, Block: store.Pos{File: 1, Offset: 8, Size: 285},
	})
	if want := append([]byte{5, 0xc8, 0x01, 0x9d, 0x02, 1, 8, 0}, make([]byte, 80)...); !bytes.Equal(rec, want) {
		t.Errorf("header record is %x, should be %x", rec, want)
	}
}

// TestScanOfDecoys: a block full of what looks like the start of a record, each claiming
// all that follows, costs neither time nor memory when a scan looks for the next record
// behind damage, and does not hide it.
func TestScanOfDecoys(t *testing.T) {
	const decoys = 20_000
	payload := make([]byte, 0, decoys*8)
	end := len(frame(make([]byte, decoys*8))) + 900_000
	for i := range decoys {
		payload = binary.LittleEndian.AppendUint32(payload, testMagic)
		payload = binary.LittleEndian.AppendUint32(payload, uint32(end-8-8*i-12-i%7))
	}
	file := frame(payload)
	file[9] ^= 1 // damage
	wanted := []byte("what is looked for")
	file = append(file, frame(wanted)...)
	file = append(file, frame(make([]byte, 950_000))...)
	fs := vfs.NewMem()
	must(t, fs.MkdirAll("blocks", 0o700))
	w, err := fs.Create("blocks/00000.blk", vfs.WriteCategoryUnspecified)
	must(t, err)
	_, err = w.Write(file)
	must(t, errors.Join(err, w.Close()))
	s := store.Blocks(fs, testMagic, 1<<21)
	found := 0
	inBounds(t, len(file), func() {
		found = 0
		must(t, s.Scan(func(_ store.Pos, raw []byte) error {
			if bytes.Equal(raw, wanted) {
				found++
			}
			return nil
		}, func(*store.DamageError) error { return nil }))
	})
	if found != 1 {
		t.Error("the record behind the decoys was not found")
	}
	must(t, s.Close())
}

func TestBlockFileVector(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, options(fs))
	p, err := s.AppendBlock([]byte("123456789"))
	must(t, err)
	if want := (store.Pos{File: 0, Offset: 8, Size: 9}); p != want {
		t.Errorf("position %+v, should be %+v", p, want)
	}
	closeStore(t, s)
	want := []byte{0xf9, 0xbe, 0xb4, 0xd9, 9, 0, 0, 0, '1', '2', '3', '4', '5', '6', '7', '8', '9', 0x83, 0x92, 0x06, 0xe3, 0, 0, 0, 0}
	if got := contents(t, fs, "/home/chain/blocks/00000.blk"); !bytes.Equal(got, want) {
		t.Errorf("file is %x, should be %x", got, want)
	}
}
