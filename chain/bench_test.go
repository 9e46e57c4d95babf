package chain_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
)

// BenchmarkImportTiny imports 20,000 blocks of a coinbase each into a fresh chain.
func BenchmarkImportTiny(b *testing.B) {
	const n = 20_000
	_, blocks := grown(n)
	file := frames(blocks...)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		h := open(b, nil)
		if _, err := h.Import(context.Background(), bytes.NewReader(file), nil); err != nil {
			b.Fatal(err)
		}
		h.close()
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "blocks/s")
}

// BenchmarkImportMainnet imports the first 14,131 blocks of Bitcoin.
func BenchmarkImportMainnet(b *testing.B) {
	file := enginetest.Data(b, "chain/mainnet-blocks-0-14131.dat.zst")
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		h := open(b, func(o *chain.Options) { o.Params = consensus.Bitcoin() })
		if _, err := h.Import(context.Background(), bytes.NewReader(file), nil); err != nil {
			b.Fatal(err)
		}
		h.close()
	}
	b.ReportMetric(mainnetHeight*float64(b.N)/b.Elapsed().Seconds(), "blocks/s")
}

// benchDataEnv names the folder with tiny.dat, fat.dat and full.dat: chains of
// simnet in the bootstrap.dat form.
const benchDataEnv = "DUNLIN_BENCHDATA"

// BenchmarkAgainstBTCD imports a chain into ours and into btcd's by turns, on real
// disks, from a file in memory to everything written and closed. "ratio" is our
// time over btcd's. With assume-valid no scripts are checked; btcd then has a
// checkpoint at the tip and trusts, as its node does, that whatever leads there
// connects (BFFastAdd: no double spend, no amount is checked), which we do not.
func BenchmarkAgainstBTCD(b *testing.B) {
	for _, bb := range []struct {
		name, file  string
		assumeValid bool
	}{
		{"tiny", "tiny.dat", false},
		{"fat", "fat.dat", false},
		{"full", "full.dat", false},
		{"full-assumed", "full.dat", true},
		{"fat-assumed", "fat.dat", true},
		{"tiny-assumed", "tiny.dat", true},
	} {
		b.Run(bb.name, func(b *testing.B) {
			file := benchData(b, bb.file)
			blocks := unframe(b, file)
			tip := chainhash.DoubleHashH(blocks[len(blocks)-1][:consensus.HeaderBytes])
			var assumed chainhash.Hash
			var checkpoint *chaincfg.Checkpoint
			if bb.assumeValid {
				assumed, checkpoint = tip, &chaincfg.Checkpoint{Height: int32(len(blocks)), Hash: &tip}
			}
			var ours, theirs time.Duration
			var peak uint64
			for b.Loop() {
				took, most := importOurs(b, file, tip, assumed)
				ours += took
				peak = max(peak, most)
				theirs += importTheirs(b, blocks, tip, checkpoint)
			}
			b.ReportMetric(0, "ns/op") // the sum of both says nothing
			b.ReportMetric(ours.Seconds()/theirs.Seconds(), "ratio")
			b.ReportMetric(float64(b.N*len(blocks))/ours.Seconds(), "blocks/s")
			b.ReportMetric(float64(b.N*len(blocks))/theirs.Seconds(), "btcd-blocks/s")
			b.ReportMetric(float64(b.N*len(file))/1e6/ours.Seconds(), "MB/s")
			b.ReportMetric(float64(b.N*len(file))/1e6/theirs.Seconds(), "btcd-MB/s")
			b.ReportMetric(float64(peak)/1e6, "peak-MB") // of ours, without the file
		})
	}
}

// BenchmarkImport imports the three chains into ours alone, for profiles.
func BenchmarkImport(b *testing.B) {
	for _, name := range []string{"tiny", "fat", "full"} {
		for _, assume := range []bool{false, true} {
			full := name
			if assume {
				full += "-assumed"
			}
			b.Run(full, func(b *testing.B) {
				file := benchData(b, name+".dat")
				blocks := unframe(b, file)
				tip := chainhash.DoubleHashH(blocks[len(blocks)-1][:consensus.HeaderBytes])
				var assumed chainhash.Hash
				if assume {
					assumed = tip
				}
				b.SetBytes(int64(len(file)))
				b.ReportAllocs()
				for b.Loop() {
					importOurs(b, file, tip, assumed)
				}
				b.ReportMetric(float64(b.N*len(blocks))/b.Elapsed().Seconds(), "blocks/s")
			})
		}
	}
}

// importOurs imports a file into a fresh chain. peak is the most memory that the
// process had of the operating system meanwhile, in bytes, less what it had before.
func importOurs(b *testing.B, file []byte, tip, assumed chainhash.Hash) (took time.Duration, peak uint64) {
	b.Helper()
	debug.FreeOSMemory()
	before := residentBytes()
	stop, most := make(chan struct{}), make(chan uint64)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		var m uint64
		for {
			m = max(m, residentBytes())
			select {
			case <-tick.C:
			case <-stop:
				most <- m
				return
			}
		}
	}()
	start := time.Now()
	h := open(b, func(o *chain.Options) {
		o.Params, o.FS, o.Dir, o.AssumeValid = consensus.Simnet(), vfs.Default, b.TempDir(), assumed
	})
	if _, err := h.Import(context.Background(), bytes.NewReader(file), nil); err != nil {
		b.Fatal(err)
	}
	if at, _ := h.Tip(); at.Hash != tip {
		b.Fatalf("our tip is %v at height %d, want %v", at.Hash, at.Height, tip)
	}
	h.close()
	took = time.Since(start)
	close(stop)
	return took, <-most - before
}

// residentBytes is what the Go runtime has of the operating system.
func residentBytes() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// importTheirs gives blocks to a fresh btcd.
func importTheirs(b *testing.B, blocks [][]byte, tip chainhash.Hash, checkpoint *chaincfg.Checkpoint) time.Duration {
	b.Helper()
	runtime.GC()
	start := time.Now()
	c := openBTCD(b, chaincfg.SimNetParams, checkpoint)
	flags := blockchain.BFNone
	if checkpoint != nil {
		flags = blockchain.BFFastAdd
	}
	for i, raw := range blocks {
		if main, _, err := c.process(raw, flags); err != nil || !main {
			b.Fatalf("btcd, block %d: main chain %v, %v", i+1, main, err)
		}
	}
	if at := c.BestSnapshot(); at.Hash != tip {
		b.Fatalf("btcd's tip is %v at height %d, want %v", at.Hash, at.Height, tip)
	}
	c.close(b)
	return time.Since(start)
}

func benchData(b *testing.B, name string) []byte {
	b.Helper()
	dir := os.Getenv(benchDataEnv)
	if dir == "" {
		b.Skipf("no benchmark chains (set %s)", benchDataEnv)
	}
	file, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		b.Fatal(err)
	}
	return file
}

// unframe cuts a file of the bootstrap.dat form into its blocks, which share it.
func unframe(b *testing.B, file []byte) (blocks [][]byte) {
	b.Helper()
	for len(file) > 0 {
		size := binary.LittleEndian.Uint32(file[4:])
		blocks = append(blocks, file[8:8+size])
		file = file[8+size:]
	}
	return blocks
}
