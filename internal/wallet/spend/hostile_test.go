package spend_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/internal/wallet/keys"
	"dunlin/internal/wallet/spend"
)

// magic starts a packet; bare is a transaction of one input and one output, as its
// field.
var (
	magic = []byte("psbt\xff")
	bare  = func() []byte {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(1, []byte{0x6a}))
		raw := consensus.AppendTx(nil, tx)
		return append([]byte{1, 0, byte(len(raw))}, raw...)
	}()
)

// pair is a field of a map.
func pair(key, value []byte) []byte {
	out := append(consensus.AppendCount(nil, len(key)), key...)
	return append(consensus.AppendCount(out, len(value)), value...)
}

// TestLimits: packets at their limits are read, those beyond are not.
func TestLimits(t *testing.T) {
	of := func(size int) []byte {
		fill := size - len(magic) - len(bare) - 2 - 5 - 3
		return bytes.Join([][]byte{magic, bare, pair([]byte{0xfc}, make([]byte, fill)), {0, 0, 0}}, nil)
	}
	if n := len(of(spend.MaxPacketBytes)); n != spend.MaxPacketBytes {
		t.Fatalf("%d bytes", n)
	}
	if _, err := spend.Decode(of(spend.MaxPacketBytes)); err != nil {
		t.Error(err)
	}
	if _, err := spend.Decode(of(spend.MaxPacketBytes + 1)); !errors.Is(err, spend.ErrPacket) {
		t.Error(err)
	}
	if _, err := spend.Parse(base64.StdEncoding.EncodeToString(of(spend.MaxPacketBytes))); err != nil {
		t.Error(err)
	}
	if _, err := spend.Parse(strings.Repeat("A", 6_000_000)); !errors.Is(err, spend.ErrPacket) {
		t.Error(err)
	}
	// A transaction as large as there can be, and one byte more.
	large := func(size int) []byte {
		script := make([]byte, size-4-1-41-1-8-5-4)
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(1, script))
		return bytes.Join([][]byte{magic, pair([]byte{0}, consensus.AppendTx(nil, tx)), {0, 0, 0}}, nil)
	}
	if _, err := spend.Decode(large(1_000_000)); err != nil {
		t.Error(err)
	}
	if _, err := spend.Decode(large(1_000_001)); !errors.Is(err, spend.ErrPacket) {
		t.Error(err)
	}
	fields := func(n int) []byte {
		out := bytes.Join([][]byte{magic, bare, {0}}, nil)
		for i := range n {
			out = append(out, pair([]byte{0xfc, byte(i), byte(i >> 8)}, nil)...)
		}
		return append(out, 0, 0)
	}
	if _, err := spend.Decode(fields(5000)); err != nil {
		t.Error(err)
	}
	if _, err := spend.Decode(fields(5001)); !errors.Is(err, spend.ErrPacket) {
		t.Error(err)
	}
}

// TestDear: the dearest packets that are read take their roles in seconds.
func TestDear(t *testing.T) {
	key := append([]byte(nil), 0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87, 0x0b, 0x07,
		0x02, 0x9b, 0xfc, 0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16, 0xf8, 0x17, 0x98) // x of the curve's generator
	tx := wire.NewMsgTx(2)
	for i := range 2 {
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: uint32(i)}, nil, nil))
	}
	tx.AddTxOut(wire.NewTxOut(1, []byte{0x6a}))
	p := spend.NewPacket(tx)
	// Very many keys of one script.
	var script []byte
	for range 100_000 {
		script = append(append(append(script, 33), 2), key...)
	}
	p.Inputs[0].WitnessScript = script
	sum := sha256.Sum256(script)
	p.Inputs[0].PrevOut = wire.NewTxOut(5, append([]byte{0, 32}, sum[:]...))
	// Very many leaves of taproot.
	in := &p.Inputs[1]
	in.PrevOut = wire.NewTxOut(5, append([]byte{0x51, 32}, key...))
	in.TapInternalKey = key
	for i := range 4000 {
		block := append([]byte{0xc0}, key...)
		in.TapLeaves = append(in.TapLeaves, spend.TapLeaf{
			ControlBlock: append(block, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 16)...), Script: []byte{0x51}, Version: 0xc0,
		})
	}
	p = parse(t, p.String())
	p.Analyse(nil)
	if _, err := p.Sign(keys.NewRing(), spend.SignOptions{}); !errors.Is(err, spend.ErrForged) {
		t.Errorf("signed: %v", err)
	}
	if err := p.Finalise(nil); err == nil {
		t.Error("finalised")
	}
	for range 6001 {
		in.TapLeaves = append(in.TapLeaves, in.TapLeaves[0])
	}
	for i := range in.TapLeaves {
		in.TapLeaves[i].ControlBlock = append(append([]byte{0xc0}, key...), bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 16)...)
	}
	p.Inputs[0].TapLeaves = in.TapLeaves[:5000]
	in.TapLeaves = in.TapLeaves[5000:]
	if _, err := spend.Decode(p.Encode()); !errors.Is(err, spend.ErrPacket) {
		t.Errorf("10,001 leaves are read: %v", err)
	}
}

// TestHostile: packets that claim much are refused for little.
func TestHostile(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	tx := func(raw ...[]byte) []byte {
		return bytes.Join([][]byte{magic, pair([]byte{0}, bytes.Join(raw, nil)), {0}}, nil)
	}
	input := func(field []byte) []byte { return bytes.Join([][]byte{magic, bare, {0}, field, {0, 0}}, nil) }
	for name, raw := range map[string][]byte{
		"nothing":        nil,
		"key":            append(bytes.Clone(magic), huge...),
		"value":          bytes.Join([][]byte{magic, {1, 0}, huge}, nil),
		"inputs":         tx([]byte{2, 0, 0, 0}, huge),
		"outputs":        tx([]byte{2, 0, 0, 0, 0}, huge),
		"many inputs":    tx([]byte{2, 0, 0, 0, 0xfe, 0, 0, 1, 0}, make([]byte, 1000)),
		"script":         tx([]byte{2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, huge),
		"negative value": tx([]byte{2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0}),
		"witness":        input(pair([]byte{8}, huge)),
		"many items":     input(pair([]byte{8}, append([]byte{0xfd, 0xff, 0xff}, make([]byte, 100)...))),
		"leaf hashes":    input(pair(append([]byte{0x16}, bytes.Repeat([]byte{0x79}, 32)...), huge)),
		"previous":       input(pair([]byte{0}, append([]byte{2, 0, 0, 0}, huge...))),
		"version 2":      bytes.Join([][]byte{magic, bare, pair([]byte{0xfb}, []byte{2, 0, 0, 0}), {0, 0, 0}}, nil),
		"long type":      input(pair(append([]byte{0xfd}, 1, 0), nil)),
		"twice":          input(append(pair([]byte{0xfc, 1}, nil), pair([]byte{0xfc, 1}, []byte{1})...)),
		"trailing":       append(input(nil), 0),
		"path":           input(pair(append([]byte{6, 2}, bytes.Repeat([]byte{0x79}, 32)...), make([]byte, 4+256*4))),
		"wrong preimage": input(pair(append([]byte{0x0b}, make([]byte, 32)...), []byte("x"))),
		"tree":           bytes.Join([][]byte{magic, bare, {0, 0}, pair([]byte{6}, []byte{1, 0xc0, 0}), {0}}, nil),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := spend.Decode(raw)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, spend.ErrPacket) {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes were allocated for %d", name, n, len(raw))
		}
	}
	// Trees that are whole.
	for _, tree := range [][]byte{{0, 0xc0, 0}, {1, 0xc0, 0, 1, 0xc0, 0}, {1, 0xc0, 0, 2, 0xc0, 0, 2, 0xc0, 1, 0x51}, {2, 0xc0, 0, 2, 0xc0, 0, 1, 0xc0, 0}} {
		if _, err := spend.Decode(bytes.Join([][]byte{magic, bare, {0, 0}, pair([]byte{6}, tree), {0}}, nil)); err != nil {
			t.Errorf("tree %x: %v", tree, err)
		}
	}
	for _, tree := range [][]byte{{}, {0, 0xc0, 0, 0, 0xc0, 0}, {2, 0xc0, 0, 1, 0xc0, 0, 2, 0xc0, 0}, {129, 0xc0, 0}, {0, 0xc1, 0}, {2, 0xc0, 0, 2, 0xc0, 0}} {
		if _, err := spend.Decode(bytes.Join([][]byte{magic, bare, {0, 0}, pair([]byte{6}, tree), {0}}, nil)); err == nil {
			t.Errorf("tree %x is whole", tree)
		}
	}
}

// FuzzDecode: what is read is written in a form that is read as the same, and every
// role takes it without harm.
func FuzzDecode(f *testing.F) {
	v := readVectors(f)
	for _, c := range append(v.Valid, v.Invalid...) {
		if raw, err := base64.StdEncoding.DecodeString(c.PSBT); err == nil {
			f.Add(raw)
		}
	}
	for _, text := range []string{v.Updated, v.Finaliser.PSBT, v.Finaliser.Result, v.TwoOfThree, v.Signer[0].Result} {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	purse := newPurse(f, consensus.Regtest())
	for _, form := range forms {
		p, _ := purse.onePacket(f, form, 2)
		f.Add(p.Encode())
		if _, err := p.Sign(purse.parties[0].ring, spend.SignOptions{}); err != nil {
			f.Fatal(err)
		}
		f.Add(p.Encode())
	}
	ring := keys.NewRing()
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := spend.Decode(raw)
		if err != nil {
			if !errors.Is(err, spend.ErrPacket) {
				t.Fatal(err)
			}
			return
		}
		once := p.Encode()
		again, err := spend.Decode(once)
		if err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		if twice := again.Encode(); !bytes.Equal(once, twice) {
			t.Fatalf("%x\n%x", once, twice)
		}
		p.Analyse(nil)
		if _, err := p.Sign(ring, spend.SignOptions{SigHashes: []uint32{0, 1, 2, 3}}); err == nil {
			if !bytes.Equal(p.Encode(), once) {
				t.Fatal("signed with no key")
			}
		}
		if _, err := spend.Combine(p, again); err != nil && !errors.Is(err, spend.ErrForged) {
			t.Fatal(err)
		}
		if err := p.Finalise(nil); err == nil {
			if _, err := p.Extract(); err == nil && !p.Complete() {
				t.Fatal("extracted what is not complete")
			}
		}
	})
}
