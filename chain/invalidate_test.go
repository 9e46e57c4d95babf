package chain_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/store"
)

// A reindex forgets the header tree, not what an operator said of a block.
func TestInvalidateOutlivesReindex(t *testing.T) {
	b, blocks := grown(111)
	long := spending(b, blocks[111], blocks[1:], 6)
	short := b.MineN(blocks[111], 3)
	h := open(t, nil)
	h.connectAll(blocks[1:])
	h.connectAll(long)
	h.connectAllButLast(short)
	if err := h.Invalidate(t.Context(), long[2].Hash); err != nil {
		t.Fatal(err)
	}
	h.wantTip(short[2])
	reindex := func() {
		t.Helper()
		h.close()
		h.o.Reindex = true
		h.start()
		h.o.Reindex = false
	}
	for range 2 {
		reindex()
		h.wantTip(short[2])
		h.wantRule(long[2], "duplicate-invalid")
		h.wantRule(long[4], "bad-prevblk")
	}
	if l := h.log.with("level=WARN", "invalidated by hand", "blocks=1", long[2].Hash.String()); len(l) != 2 {
		t.Errorf("lines %q", l)
	}
	// Not even the header is known: the block files went too, and sync brings it again.
	h.close()
	for _, dir := range []string{"blocks", "undo", "index"} {
		if err := h.o.FS.RemoveAll("home/" + dir); err != nil {
			t.Fatal(err)
		}
	}
	h.start()
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks[1:])); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(long)); err == nil {
		if best, _ := h.BestHeader(); best.Hash != long[1].Hash {
			t.Errorf("best header %d", best.Height)
		}
	}
	h.connectAll(blocks[1:])
	h.connectAll(long[:2])
	h.wantRule(long[2], "duplicate-invalid")
	h.connectAllButLast(short)
	h.wantTip(short[2])
	if err := h.Reconsider(t.Context(), long[2].Hash); err != nil {
		t.Fatal(err)
	}
	h.submitAll(long)
	h.wantTip(long[5])
	reindex()
	h.wantTip(long[5])
	h.wantCoins(b, long[5])
	if l := h.log.with("invalidated by hand"); len(l) != 2 {
		t.Errorf("lines %q", l)
	}
}

// The word is durable when Invalidate returns, also where no commit follows.
func TestInvalidateIsDurable(t *testing.T) {
	b, blocks := grown(20)
	side := b.MineN(blocks[10], 5)
	h := open(t, func(o *chain.Options) { o.FS = vfs.NewCrashableMem(); o.FlushInterval = time.Hour })
	h.connectAll(blocks[1:])
	h.connectAllButLast(side)
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Invalidate(t.Context(), blocks[12].Hash); err != nil {
		t.Fatal(err)
	}
	h.wantTip(side[4])
	h.crash(rand.New(rand.NewPCG(1, 1)))
	h.start()
	h.wantTip(side[4])
	h.wantRule(blocks[12], "duplicate-invalid")
}

// A list that is not what was written is damage, with a word on what to do.
func TestDamagedListOfInvalidated(t *testing.T) {
	_, blocks := grown(3)
	h := open(t, nil)
	h.connectAll(blocks[1:])
	for _, i := range []int{2, 3} {
		if err := h.Invalidate(t.Context(), blocks[i].Hash); err != nil {
			t.Fatal(err)
		}
	}
	h.close()
	const name = "home/INVALIDATED"
	var whole []byte
	edit(t, h.o.FS, name, func(raw []byte) []byte { whole = append(whole, raw...); return raw })
	if lines := strings.Split(string(whole), "\n"); len(lines) != 4 || !strings.HasPrefix(lines[2], "crc32c ") {
		t.Fatalf("%q", whole)
	}
	for what, change := range map[string]func([]byte) []byte{
		"a digit":      func(raw []byte) []byte { raw[5] ^= 1; return raw },
		"upper case":   func(raw []byte) []byte { return []byte(strings.ToUpper(string(raw))) },
		"a line less":  func(raw []byte) []byte { return raw[65:] },
		"cut":          func(raw []byte) []byte { return raw[:len(raw)-1] },
		"empty":        func([]byte) []byte { return nil },
		"longer":       func(raw []byte) []byte { return append(raw, '\n') },
		"a long value": func([]byte) []byte { return make([]byte, 1<<20) },
	} {
		edit(t, h.o.FS, name, func([]byte) []byte { return change(append([]byte(nil), whole...)) })
		_, err := chain.Open(h.o)
		if d, ok := errors.AsType[*store.DamageError](err); !ok || d.File != "INVALIDATED" || d.Mend != "rm home/INVALIDATED" {
			t.Errorf("%s: %v", what, err)
		}
	}
	edit(t, h.o.FS, name, func([]byte) []byte { return whole })
	h.start()
	h.wantTip(blocks[1])
}
