package chain_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

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
		{"garbage after", slices.Concat(whole, []byte("garbage!!")), 40, "offset " + itoa(end) + ": magic 62726167", nil},
		{"too long", slices.Concat(whole, frames(blocks[1])[:4], []byte{1, 9, 61, 0}), 40, "a block of 4000001 bytes", nil},
		{"huge", slices.Concat(whole, frames(blocks[1])[:4], []byte{255, 255, 255, 255}), 40, "a block of 4294967295 bytes", nil},
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
		if p.Added+p.Known > p.Blocks || (err == nil && p.Added+p.Known != p.Blocks) {
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
