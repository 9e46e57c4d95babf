package chain_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// templateAt is a block a second after its parent.
func templateAt(parent *consensus.Block) enginetest.Template {
	return enginetest.Template{Time: parent.Header.Timestamp.Add(1e9)}
}

// frames encodes blocks as a bootstrap.dat.
func frames(blocks ...*consensus.Block) []byte {
	var out []byte
	for _, b := range blocks {
		out = binary.LittleEndian.AppendUint32(out, consensus.Regtest().Magic)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(b.Raw)))
		out = append(out, b.Raw...)
	}
	return out
}

func compress(t *testing.T, raw []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(raw, nil)
}

func TestImport(t *testing.T) {
	b, blocks := grown(40)
	stranger := b.Mine(b.Mine(blocks[40]))
	invalid := b.Mine(blocks[40], enginetest.Spend(blocks[39], 0, 0))
	whole := frames(blocks...)
	third := int64(len(frames(blocks[:3]...)))
	end := int64(len(whole))
	tests := []struct {
		name   string
		file   []byte
		height int32  // reached
		err    string // in the error; empty for none
		is     error
	}{
		{"plain", whole, 40, "", nil},
		{"zstd", compress(t, whole), 40, "", nil},
		{"without genesis", frames(blocks[1:]...), 40, "", nil},
		{"twice", slices.Concat(whole, whole), 40, "", nil},
		{"padding at the end", slices.Concat(whole, make([]byte, 1000)), 40, "", nil},
		{"padding between", slices.Concat(frames(blocks[:3]...), make([]byte, 13), frames(blocks[3:]...)), 40, "", nil},
		{"empty", nil, -1, "", nil},
		{"cut in a block", whole[:third+20], 2, "offset " + itoa(third) + ", block number 4", chain.ErrTruncated},
		{"cut after a header", whole[:third+8+85], 2, "block " + blocks[3].Hash.String(), chain.ErrTruncated},
		{"cut in a frame", whole[:third+3], 2, "3 of 8 bytes", chain.ErrTruncated},
		{"cut zstd", compress(t, whole)[:500], -1, "unexpected EOF", nil},
		{"another network's", []byte("garbage!! and more of it"), -1, "offset 0: magic 62726167, blocks of regtest start with dab5bffa: no block", nil},
		{"cut, and on", slices.Concat(whole[:third+100], whole[third:]), 2, "offset " + itoa(third), nil},
		{"orphan", slices.Concat(whole, frames(stranger)), 40, "offset " + itoa(end) + ": block " + stranger.Hash.String() + ": its parent is unknown", nil},
		{"invalid", slices.Concat(whole, frames(invalid)), 40, "at height 41: bad-txns-premature-spend-of-coinbase", nil},
		{"invalid, then cut", slices.Concat(whole, frames(invalid), whole[:50]), 40, "at height 41", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t, nil)
			calls := 0
			p, err := h.Import(t.Context(), bytes.NewReader(tt.file), func(chain.ImportProgress) { calls++ })
			if (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) || (tt.is != nil && !errors.Is(err, tt.is)) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if calls == 0 {
				t.Error("no progress was reported")
			}
			if tt.name != "cut zstd" && p.Height != tt.height {
				t.Errorf("progress %+v, want height %d", p, tt.height)
			}
			if tip, _ := h.Tip(); tip.Height != max(0, p.Height) {
				t.Errorf("tip at height %d", tip.Height)
			}
			h.reopen() // what came before a fault is kept
			if tip, _ := h.Tip(); tip.Height != max(0, p.Height) {
				t.Errorf("tip at height %d after a restart", tip.Height)
			}
		})
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func TestExportRange(t *testing.T) {
	b, blocks := grown(20)
	h := open(t, nil)
	h.connectAll(blocks[1:])
	h.want(b.Mine(blocks[10]), chain.SideChain)
	var out bytes.Buffer
	if err := h.Export(t.Context(), &out, 5, 8); err != nil || !bytes.Equal(out.Bytes(), frames(blocks[5:9]...)) {
		t.Errorf("export of 5…8: %v", err)
	}
	for _, r := range [][2]int32{{-1, 3}, {4, 3}, {0, 21}} {
		if err := h.Export(t.Context(), &out, r[0], r[1]); err == nil {
			t.Errorf("export of %d…%d succeeds", r[0], r[1])
		}
	}
}

// What lies between blocks and is none is passed over and told.
func TestImportPassesOverGarbage(t *testing.T) {
	_, blocks := grown(40)
	whole := frames(blocks...)
	magic := whole[:4]
	third := int64(len(frames(blocks[:3]...)))
	between := func(garbage ...byte) []byte { return slices.Concat(whole[:third], garbage, whole[third:]) }
	words := []byte("garbage!!")
	tests := map[string]struct {
		file    []byte
		garbage int
		at      int64
	}{
		"none":     {whole, 0, -1},
		"before":   {slices.Concat(words, whole), 9, 0},
		"between":  {between(words...), 9, third},
		"one byte": {between(7), 1, third},
		"after":    {slices.Concat(whole, words), 9, int64(len(whole))},
		"between every two": {func() (f []byte) {
			for _, b := range blocks {
				f = slices.Concat(f, frames(b), words)
			}
			return f
		}(), 9 * 41, int64(len(frames(blocks[0])))},
		"a magic":                      {between(magic...), 4, third},
		"half a magic, twice":          {between(slices.Concat(magic[:2], magic[:3])...), 5, third},
		"a length of nothing":          {between(append(slices.Clone(magic), 0, 0, 0, 0)...), 8, third},
		"a length too great":           {between(append(slices.Clone(magic), 1, 9, 61, 0)...), 8, third},
		"a length far too great":       {between(append(slices.Clone(magic), 255, 255, 255, 255)...), 8, third},
		"a length that ends elsewhere": {between(append(append(slices.Clone(words), magic...), 90, 0, 0, 0)...), 17, third},
		"a header and no more":         {between(slices.Concat(words, magic, []byte{100, 0, 0, 0}, blocks[7].Raw[:80])...), 97, third},
		"a large piece":                {between(bytes.Repeat([]byte{3, 250, 191}, 100_000)...), 300_000, third},
	}
	for name, tt := range tests {
		for form, file := range map[string][]byte{"plain": tt.file, "zstd": compress(t, tt.file)} {
			t.Run(name+" "+form, func(t *testing.T) {
				h := open(t, nil)
				p, err := h.Import(t.Context(), iotest.OneByteReader(bytes.NewReader(file)), nil)
				if err != nil || p.Blocks != 41 || p.Height != 40 {
					t.Fatalf("%+v, %v", p, err)
				}
				if p.GarbageAt != tt.at || p.Garbage+p.Padding != int64(tt.garbage) {
					t.Errorf("%+v, want %d bytes of garbage at %d", p, tt.garbage, tt.at)
				}
				if p.Offset != int64(len(tt.file)) {
					t.Errorf("ends at %d of %d", p.Offset, len(tt.file))
				}
			})
		}
	}
}

// Blocks may come in any order: from a file that can be read again, or from a stream.
func TestImportOutOfOrder(t *testing.T) {
	b, blocks := grown(300)
	side := b.MineN(blocks[150], 20)
	all := slices.Concat(blocks, side)
	for seed := range uint64(4) {
		shuffled := slices.Clone(all)
		if seed == 0 {
			slices.Reverse(shuffled)
		} else {
			rng := rand.New(rand.NewPCG(seed, 8))
			rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		}
		// Some twice, some behind garbage.
		file := slices.Concat([]byte("???"), frames(shuffled[:200]...), []byte("!"), frames(shuffled[:50]...), frames(shuffled[200:]...))
		for name, r := range map[string]io.Reader{
			"file": bytes.NewReader(file), "stream": iotest.HalfReader(bytes.NewReader(file)), "zstd": bytes.NewReader(compress(t, file)),
			"later in a file": func() io.Reader {
				r := bytes.NewReader(slices.Concat([]byte("12345"), file))
				_, _ = r.Seek(5, io.SeekStart)
				return r
			}(),
		} {
			h := open(t, nil)
			most := 0
			p, err := h.Import(t.Context(), r, func(p chain.ImportProgress) { most = max(most, p.Held) })
			if err != nil || p.Blocks != len(all)+50 || p.Held != 0 {
				t.Fatalf("seed %d, %s: %+v, %v", seed, name, p, err)
			}
			if seed == 0 && most < 200 {
				t.Errorf("%s: at most %d were held", name, most)
			}
			h.wantTip(blocks[300])
			if s, _ := h.Status(side[19].Hash); !s.HaveBlock {
				t.Errorf("seed %d, %s: the side branch is not there", seed, name)
			}
			h.wantCoins(b, blocks[300])
		}
	}
	// One is not there: what builds on it is not taken, and told.
	h := open(t, nil)
	_, err := h.Import(t.Context(), bytes.NewReader(frames(append(slices.Clone(blocks[:100]), blocks[101:]...)...)), nil)
	if err == nil || !strings.Contains(err.Error(), "block "+blocks[101].Hash.String()+": its parent is unknown ("+blocks[100].Hash.String()+"); 199 more blocks wait like it") {
		t.Errorf("a missing block: %v", err)
	}
	h.wantTip(blocks[99])
}

// A stream whose blocks wait for ever is given up before memory is full.
func TestImportHoldsLittle(t *testing.T) {
	b := enginetest.NewBuilder(consensus.Regtest())
	script := make([]byte, 900_000)
	script[0] = 0x6a
	tip := b.Mine(b.Genesis()) // which is not in the file
	var blocks []*consensus.Block
	for range 76 {
		tip = b.MineTemplate(tip, enginetest.Template{Script: script})
		blocks = append(blocks, tip)
	}
	h := open(t, nil)
	_, err := h.Import(t.Context(), bytes.NewReader(compress(t, frames(blocks...))), nil)
	if err == nil || !strings.Contains(err.Error(), "over 64 MiB of blocks wait for their parents") {
		t.Errorf("%v", err)
	}
}

// What unpacks to far more than it is takes no more memory than its window, and ends
// at the first thing that is wrong, or as padding.
func TestImportOfBomb(t *testing.T) {
	zeros, size := bomb(t)
	h := open(t, nil)
	most := memory(t, func() {
		p, err := h.Import(t.Context(), bytes.NewReader(zeros), nil)
		if err != nil || p.Padding != size {
			t.Errorf("%+v, %v", p, err)
		}
	})
	t.Logf("%d bytes unpack to %d, %d allocated", len(zeros), size, most)
	if most > 40<<20 {
		t.Errorf("%d bytes allocated", most)
	}
	// A frame that asks for a larger window than is allowed is refused.
	wide := bytes.NewReader([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, (28 - 10) << 3, 1, 0, 0}) // 2^28, an empty last block
	if _, err := h.Import(t.Context(), wide, nil); !errors.Is(err, zstd.ErrWindowSizeExceeded) {
		t.Errorf("a window of 256 MiB: %v", err)
	}
}

// bomb is a small file that unpacks to size zeros.
func bomb(t *testing.T) (raw []byte, size int64) {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 128 {
		n, err := w.Write(zeros)
		if err != nil {
			t.Fatal(err)
		}
		size += int64(n)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), size
}

// memory is how much f allocates, garbage included: the least of some runs, for others may
// allocate at the same time.
func memory(t testing.TB, f func()) uint64 {
	t.Helper()
	least := uint64(math.MaxUint64)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// FuzzFrames: whatever is in a file, its reader ends, accounts for every byte, hands
// out what is there, and allocates little.
func FuzzFrames(f *testing.F) {
	_, blocks := grown(3)
	whole := frames(blocks...)
	f.Add(whole)
	f.Add(whole[:60])
	f.Add(slices.Concat([]byte("garbage"), whole, make([]byte, 9), whole[5:]))
	f.Add(slices.Concat(whole[:4], []byte{0, 9, 61, 0}))
	f.Add(slices.Concat([]byte{1}, bytes.Repeat(whole[:8], 40)))
	f.Fuzz(func(t *testing.T, file []byte) {
		var blocks [][]byte
		var n, taken int64
		var padding, garbage int64
		var err error
		got := memory(t, func() {
			blocks, n, padding, garbage, err = chain.ReadFrames(consensus.Regtest(), bytes.NewReader(file))
		})
		if limit := uint64(8*len(file) + 64<<10); got > limit {
			t.Fatalf("%d bytes took %d of memory", len(file), got)
		}
		for _, b := range blocks {
			taken += int64(len(b)) + 8
			if !bytes.Contains(file, b) {
				t.Fatal("a block that is not in the file")
			}
		}
		if n != taken+padding+garbage || n > int64(len(file)) || err == nil && n != int64(len(file)) {
			t.Fatalf("%d of %d bytes: %d of blocks, %d zeros, %d others; %v", n, len(file), taken, padding, garbage, err)
		}
	})
}

// No file makes Import panic, hang or lie about what it read.
func FuzzImport(f *testing.F) {
	_, blocks := grown(3)
	f.Add(frames(blocks...))
	f.Add(frames(blocks[2:]...)[:60])
	f.Add(append(make([]byte, 9), frames(blocks[1])...))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0})
	h := open(f, nil)
	f.Fuzz(func(t *testing.T, file []byte) {
		p, err := h.Import(t.Context(), bytes.NewReader(file), nil)
		if p.Added+p.Known > p.Blocks {
			t.Fatalf("%+v, %v", p, err)
		}
		if tip, _ := h.Tip(); p.Height > tip.Height {
			t.Fatalf("%+v with the tip at height %d", p, tip.Height)
		}
	})
}

// An import with a block to assume valid runs no scripts below it, however far up
// in the file it is: the headers are read first.
func TestImportAssumesValid(t *testing.T) {
	b, blocks := grown(111)
	bad := b.Mine(blocks[111], badScript(blocks[1]))
	above := b.MineN(bad, 600) // several batches
	file, last := frames(append(append(blocks, bad), above...)...), above[len(above)-1]
	h := open(t, func(o *chain.Options) { o.AssumeValid = last.Hash })
	if _, err := h.Import(t.Context(), bytes.NewReader(file), nil); err != nil {
		t.Error(err)
	}
	h.wantTip(last)
	h = open(t, nil)
	_, err := h.Import(t.Context(), bytes.NewReader(file), nil)
	checkRule(t, err, "mandatory-script-verify-flag-failed")
}
