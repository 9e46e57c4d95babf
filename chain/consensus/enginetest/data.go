package enginetest

import (
	"compress/bzip2"
	"encoding/hex"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/klauspost/compress/zstd"

	"dunlin/chain/consensus"
)

// dataEnv names the folder with real blocks, headers and vectors; without it
// they are looked for in ../shared/data of the module's root.
const dataEnv = "DUNLIN_TESTDATA"

// DataPath returns the path of a file or folder of the test data. Without the
// data the test is skipped; with CI=true it fails.
func DataPath(tb testing.TB, name string) string {
	tb.Helper()
	dir := os.Getenv(dataEnv)
	if dir == "" {
		dir = filepath.Join(moduleRoot(tb), "..", "shared", "data")
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatalf("test data: %v", err)
		}
		tb.Skipf("test data: %v (set %s)", err, dataEnv)
	}
	return path
}

// Data returns a file of the test data, decompressed if its name ends in .zst or
// .bz2. Without the data the test is skipped; with CI=true it fails.
func Data(tb testing.TB, name string) []byte {
	tb.Helper()
	f, err := os.Open(DataPath(tb, name))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	switch {
	case strings.HasSuffix(name, ".zst"):
		z, err := zstd.NewReader(f)
		if err != nil {
			tb.Fatal(err)
		}
		defer z.Close()
		r = z
	case strings.HasSuffix(name, ".bz2"):
		r = bzip2.NewReader(f)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		tb.Fatalf("test data %s: %v", name, err)
	}
	return b
}

// AlternativeMainnet returns the blocks of another mainnet, from height 1 on, that
// Bitcoin Core's developers mined for its tests: 2,016 with real work, so close in
// time that the difficulty of the last is four times that of the others. The file has
// times and nonces; the rest is the same for all but for the height. Without the data
// the test is skipped; with CI=true it fails.
func AlternativeMainnet(tb testing.TB) []*consensus.Block {
	tb.Helper()
	var file struct{ Timestamps, Nonces []uint32 }
	if err := json.Unmarshal(Data(tb, "core/mainnet_alt.json"), &file); err != nil {
		tb.Fatal(err)
	}
	const quadrupled = 0x1c3fffc0 // the bits from height 2016 on
	payTo, err := hex.DecodeString("76a914eadbac7f36c37e39361168b7aaee3cb24a25312d88ac")
	if err != nil {
		tb.Fatal(err)
	}
	p := consensus.Bitcoin()
	prev := p.GenesisHash
	blocks := make([]*consensus.Block, len(file.Nonces))
	for i := range blocks {
		height := int32(i + 1)
		coinbase := wire.NewMsgTx(2)
		script := consensus.HeightScript(height)
		if len(script) < 2 { // the least that a coinbase script may have
			script = append(script, txscript.OP_0)
		}
		coinbase.AddTxIn(&wire.TxIn{
			PreviousOutPoint: wire.OutPoint{Index: math.MaxUint32}, SignatureScript: script, Sequence: wire.MaxTxInSequenceNum,
		})
		coinbase.AddTxOut(wire.NewTxOut(p.Subsidy(height), payTo))
		h := consensus.Header{BlockHeader: wire.BlockHeader{
			Version: 0x20000000, PrevBlock: prev, MerkleRoot: coinbase.TxHash(), Timestamp: time.Unix(int64(file.Timestamps[i]), 0),
			Bits: p.PowLimitBits, Nonce: file.Nonces[i],
		}}
		if height >= 2016 {
			h.Bits = quadrupled
		}
		if blocks[i], err = consensus.NewBlock(p, h, []*wire.MsgTx{coinbase}); err != nil {
			tb.Fatal(err)
		}
		prev = blocks[i].Hash
	}
	return blocks
}

// moduleRoot is the folder above the test's that holds go.mod.
func moduleRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			tb.Fatal("no go.mod above the test")
		}
		dir = up
	}
}
