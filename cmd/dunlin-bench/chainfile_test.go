package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// framed writes blocks in bootstrap.dat form.
func framed(p *consensus.Params, blocks ...*consensus.Block) (out []byte) {
	for _, b := range blocks {
		out = binary.LittleEndian.AppendUint32(out, p.Magic)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(b.Raw)))
		out = append(out, b.Raw...)
	}
	return out
}

func writeFile(t *testing.T, path string, raw []byte) string {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestScanChain(t *testing.T) {
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	blocks := b.MineN(b.Genesis(), 5)
	size := int64(0)
	for _, block := range blocks {
		size += int64(len(block.Raw))
	}
	dir := t.TempDir()
	plain := framed(p, blocks...)
	whole := framed(p, append([]*consensus.Block{b.Genesis()}, blocks...)...)
	packer, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"plain": plain, "with genesis": whole, "zstd": packer.EncodeAll(whole, nil)} {
		c, err := scanChain(writeFile(t, filepath.Join(dir, name), raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if c.blocks != 5 || c.bytes != size || c.last != blocks[4].Hash || c.params.Name != "regtest" {
			t.Errorf("%s: %+v", name, c)
		}
	}
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"empty":        {nil, "not a file of blocks"},
		"text":         {[]byte(strings.Repeat("no blocks here ", 20)), "magic"},
		"cut":          {plain[:len(plain)-1], "ends in the middle of the block at byte"},
		"cut head":     {plain[:len(plain)-len(blocks[4].Raw)-3], "unexpected EOF"},
		"only genesis": {framed(p, b.Genesis()), "no block but genesis"},
		"two networks": {append(append([]byte{}, plain...), framed(consensus.Simnet(), blocks...)...), "magic 12141c16"},
		"huge block":   {append(binary.LittleEndian.AppendUint32(nil, p.Magic), []byte("\xff\xff\xff\x7f"+strings.Repeat("x", 100))...), "block of 2147483647 bytes"},
	} {
		if _, err := scanChain(writeFile(t, filepath.Join(dir, name), c.raw)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := scanChain(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Error(err)
	}
}
