package chain_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/store"
)

// damagedHome is a chain of these blocks with damage in the bytes of some.
func damagedHome(t *testing.T, blocks []*consensus.Block, damaged ...*consensus.Block) *home {
	t.Helper()
	h := open(t, func(o *chain.Options) { o.FS = vfs.NewCrashableMem() })
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks)); err != nil {
		t.Fatal(err)
	}
	for _, x := range blocks {
		h.submit(x.Raw)
	}
	h.close()
	for _, x := range damaged {
		edit(t, h.o.FS, "home/blocks/00000.blk", flip(t, x.Raw))
	}
	h.start()
	return h
}

func (h *home) wantDamaged(want ...*consensus.Block) {
	h.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		// A block is listed when the conductor has read it, which is after the tip before it was told.
		hashes, more := h.Damaged()
		if len(hashes) == len(want) && (len(want) != 1 || hashes[0] == want[0].Hash) {
			return
		}
		if len(hashes) >= len(want) {
			h.t.Errorf("damaged: %v", hashes)
			return
		}
		select {
		case <-more:
		case <-timer.C:
			h.t.Errorf("damaged: %v, want %d", hashes, len(want))
			return
		}
	}
}

// A connected block whose bytes are damaged is named once, and kept anew when somebody
// brings it; a wrong body is not.
func TestDamagedBlockIsRestored(t *testing.T) {
	b, blocks := short()
	deep := blocks[120]
	h := damagedHome(t, blocks[1:], deep)
	_, more := h.Damaged()
	h.want(deep, chain.Duplicate) // nobody knows yet
	for range 3 {
		if raw, err := h.Block(deep.Hash); err == nil || raw != nil || !strings.Contains(err.Error(), "damage in blocks/00000.blk") {
			t.Fatalf("%d bytes, %v", len(raw), err)
		}
	}
	select {
	case <-more:
	default:
		t.Error("nobody was told")
	}
	h.wantDamaged(deep)
	if l := h.log.with("level=WARN", "a block on disk is damaged", "height=120", "file=blocks/00000.blk", `without_peers="dunlin chain reindex"`); len(l) != 1 {
		t.Errorf("lines %q", l)
	}
	wrong := bytes.Clone(deep.Raw)
	wrong[len(wrong)-1] ^= 1
	for what, raw := range map[string][]byte{"wrong": wrong, "cut": wrong[:len(wrong)-1]} {
		v := h.submit(raw)
		if rule, ok := errors.AsType[*consensus.RuleError](v.Err); !ok || v.Outcome != chain.Refused || rule.Blame != consensus.BlameSender {
			t.Errorf("a %s body: %+v", what, v)
		}
	}
	h.wantDamaged(deep)
	h.want(deep, chain.Duplicate)
	h.wantDamaged()
	h.reopen()
	if raw, err := h.Block(deep.Hash); err != nil || !bytes.Equal(raw, deep.Raw) {
		t.Errorf("restored: %v", err)
	}
	if len(h.log.with("a damaged block was restored", "height=120")) != 1 {
		t.Error("no line says so")
	}
	h.wantCoins(b, blocks[141])
	if r := verifies(t, h.o); r.Remains != 1 || r.Reconnected != 141 {
		t.Errorf("%+v", r)
	}
}

// A block that was stored before its parents and is damaged when they come does not end
// the chain: it is one to be fetched again, and what lies behind it is used.
func TestDamagedStoredBlockIsFetchedAgain(t *testing.T) {
	b, blocks := short()
	// 101 to 104 are not there.
	h := open(t, func(o *chain.Options) { o.FS = vfs.NewCrashableMem() })
	if _, _, err := h.AcceptHeaders(t.Context(), headersOf(blocks)); err != nil {
		t.Fatal(err)
	}
	h.connectAll(blocks[1:101])
	for _, x := range blocks[105:] {
		h.want(x, chain.Stored)
	}
	h.close()
	edit(t, h.o.FS, "home/blocks/00000.blk", flip(t, blocks[110].Raw))
	edit(t, h.o.FS, "home/blocks/00000.blk", flip(t, blocks[130].Raw))
	h.start()
	h.submitAll(blocks[101:105])
	h.wantTip(blocks[109])
	h.wantDamaged(blocks[110])
	if have := h.Have(blocks[141].Hash, 0, 141); len(have) != 2 || have[0] != [2]int32{1, 109} || have[1] != [2]int32{111, 141} {
		t.Errorf("have %v", have)
	}
	h.reopen() // it is on the list again when it is met again, or it is just not there
	h.wantTip(blocks[109])
	h.submit(blocks[110].Raw)
	h.wantTip(blocks[129])
	h.wantDamaged(blocks[130])
	if v := h.submit(blocks[130].Raw); v.Outcome != chain.Connected {
		t.Errorf("%+v", v)
	}
	h.wantTip(blocks[141])
	h.wantCoins(b, blocks[141])
	verifies(t, h.o)
}

// An operator's word that would take a damaged block back is refused, with nothing
// changed, and holds when the block was restored.
func TestInvalidateBelowDamage(t *testing.T) {
	b, blocks := short()
	h := damagedHome(t, blocks[1:], blocks[130])
	for _, i := range []int{120, 130} {
		err := h.Invalidate(t.Context(), blocks[i].Hash)
		if !errors.Is(err, chain.ErrDamaged) {
			t.Fatalf("invalidate %d: %v", i, err)
		}
		for _, what := range []string{"height 130 is damaged", "from a peer", "blocks/00000.blk", "dunlin chain reindex"} {
			if !strings.Contains(err.Error(), what) {
				t.Errorf("%q does not say %q", err, what)
			}
		}
	}
	h.wantDamaged(blocks[130])
	h.wantTip(blocks[141])
	h.reopen()
	h.wantTip(blocks[141])
	if err := h.Invalidate(t.Context(), blocks[131].Hash); err != nil { // above the damage
		t.Fatal(err)
	}
	h.wantTip(blocks[130])
	if err := h.Invalidate(t.Context(), blocks[120].Hash); !errors.Is(err, chain.ErrDamaged) {
		t.Fatalf("again: %v", err)
	}
	h.want(blocks[130], chain.Duplicate)
	if err := h.Invalidate(t.Context(), blocks[120].Hash); err != nil {
		t.Fatal(err)
	}
	h.wantTip(blocks[119])
	h.reopen()
	h.wantCoins(b, blocks[119])
	verifies(t, h.o)
}

// Where the word is there and the damage came afterwards, the chain ends with the
// command that mends it, which then does.
func TestDamageBelowWhatWasInvalidated(t *testing.T) {
	_, blocks := short()
	other := open(t, nil)
	other.connectAll(blocks[1:])
	if err := other.Invalidate(t.Context(), blocks[120].Hash); err != nil {
		t.Fatal(err)
	}
	other.close()
	const name = "home/INVALIDATED"
	var word []byte
	edit(t, other.o.FS, name, func(raw []byte) []byte { word = bytes.Clone(raw); return raw })

	h := damagedHome(t, blocks[1:], blocks[130])
	h.close()
	f, err := h.o.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(word); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h.load()
		err := h.Run(t.Context())
		d, ok := errors.AsType[*store.DamageError](err)
		if !ok || d.File != "blocks/00000.blk" || d.Mend != "dunlin chain reindex" || !strings.Contains(err.Error(), "height 130") {
			t.Fatalf("run: %v", err)
		}
		h.close()
	}
	h.o.Reindex = true
	h.start()
	h.o.Reindex = false
	h.wantTip(blocks[119])
	h.wantRule(blocks[120], "duplicate-invalid")
}

// A reorganisation that meets damage waits, on the old tip, for the block to be
// restored, and then goes on.
func TestDamageInTheWayOfAReorg(t *testing.T) {
	b, blocks := short()
	h := damagedHome(t, blocks[1:], blocks[130])
	rival := b.MineN(blocks[125], 20)
	h.submitAll(rival)
	h.wantTip(blocks[141])
	h.rest()
	h.wantTip(blocks[141])
	h.wantDamaged(blocks[130])
	if l := h.log.with("level=ERROR", "cannot be followed before a damaged block is restored", "damaged_height=130"); len(l) == 0 {
		t.Error("no line says why")
	}
	next := b.Mine(blocks[141]) // meanwhile it works
	h.want(next, chain.Connected)
	h.want(blocks[130], chain.Duplicate)
	h.wantTip(rival[19])
	h.wantCoins(b, rival[19])
	verifies(t, h.o)
}
