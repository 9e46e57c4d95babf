package chain_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
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

// BenchmarkAgainstBTCD imports a chain into ours and into btcd's by turns, from a
// file on disk to everything written to disk and closed. "ratio" is our
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
			f := benchData(b, bb.file)
			tip := f.tip
			var assumed chainhash.Hash
			var checkpoint *chaincfg.Checkpoint
			if bb.assumeValid {
				assumed, checkpoint = tip, &chaincfg.Checkpoint{Height: int32(len(f.blocks)), Hash: &tip}
			}
			var ours, theirs time.Duration
			for b.Loop() {
				took, _ := importOurs(b, f, assumed)
				ours += took
				theirs += importTheirs(b, f, checkpoint)
			}
			b.ReportMetric(0, "ns/op") // the sum of both says nothing
			b.ReportMetric(ours.Seconds()/theirs.Seconds(), "ratio")
			b.ReportMetric(float64(b.N*len(f.blocks))/ours.Seconds(), "blocks/s")
			b.ReportMetric(float64(b.N*len(f.blocks))/theirs.Seconds(), "btcd-blocks/s")
			b.ReportMetric(float64(b.N)*float64(f.size)/1e6/ours.Seconds(), "MB/s")
			b.ReportMetric(float64(b.N)*float64(f.size)/1e6/theirs.Seconds(), "btcd-MB/s")
		})
	}
}

// BenchmarkImport imports the three chains into ours alone, for profiles and for the
// peak of memory, which what btcd leaves in the heap would blur.
func BenchmarkImport(b *testing.B) {
	for _, name := range []string{"tiny", "fat", "full"} {
		for _, assume := range []bool{false, true} {
			full := name
			if assume {
				full += "-assumed"
			}
			b.Run(full, func(b *testing.B) {
				f := benchData(b, name+".dat")
				var assumed chainhash.Hash
				if assume {
					assumed = f.tip
				}
				b.SetBytes(f.size)
				b.ReportAllocs()
				var peak uint64
				for b.Loop() {
					_, most := importOurs(b, f, assumed)
					peak = max(peak, most)
				}
				b.ReportMetric(float64(peak)/1e6, "peak-MB")
				b.ReportMetric(float64(b.N*len(f.blocks))/b.Elapsed().Seconds(), "blocks/s")
			})
		}
	}
}

// BenchmarkReorg connects the last 100 blocks of a chain at the tip, then leaves them for
// a branch of 100 others with the same transactions and one block more. "reorg-s" is
// from submitting that block to its verdict: 100 blocks are taken back, 100 are read from
// disk and connected with all checks. "ratio" is that over what connecting the 100
// first took, from the first to the last verdict. Scripts that this process has run
// for the first branch are remembered; after a restart all of them are run again, as they
// are for a branch with transactions of its own.
func BenchmarkReorg(b *testing.B) {
	const depth = 100
	for _, bb := range []struct {
		name, file string
		restart    bool
	}{
		{"fat", "fat.dat", false},
		{"full", "full.dat", false},
		{"full-restarted", "full.dat", true},
	} {
		b.Run(bb.name, func(b *testing.B) {
			f := benchData(b, bb.file)
			fork := len(f.blocks) - depth
			first := make([]*consensus.Block, depth)
			for i, at := range f.blocks[fork:] {
				first[i] = f.read(b, at)
			}
			second := twins(b, first)
			var connecting, leaving time.Duration
			for b.Loop() {
				h := open(b, func(o *chain.Options) {
					o.Params, o.FS, o.Dir = consensus.Simnet(), vfs.Default, b.TempDir()
				})
				if _, err := h.Import(context.Background(), io.NewSectionReader(f.file, 0, f.blocks[fork].offset-8), nil); err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				h.connectAll(first)
				connecting += time.Since(start)
				for i, v := range h.submitAll(second[:depth]) {
					if v.Outcome != chain.SideChain {
						b.Fatalf("block %d of the branch: %v (%v)", i, v.Outcome, v.Err)
					}
				}
				if bb.restart {
					h.reopen()
				}
				start = time.Now()
				h.want(second[depth], chain.Connected)
				leaving += time.Since(start)
				h.close()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(connecting.Seconds()/float64(b.N), "connect-s")
			b.ReportMetric(leaving.Seconds()/float64(b.N), "reorg-s")
			b.ReportMetric(leaving.Seconds()/connecting.Seconds(), "ratio")
		})
	}
}

// twins mines a branch with the transactions of blocks, each under another coinbase,
// and a block more.
func twins(b *testing.B, blocks []*consensus.Block) (branch []*consensus.Block) {
	b.Helper()
	p := consensus.Simnet()
	mine := func(h consensus.Header, parent *chainhash.Hash, txs []*wire.MsgTx) {
		hashed := make([]*btcutil.Tx, len(txs))
		for i, tx := range txs {
			hashed[i] = btcutil.NewTx(tx)
		}
		h.PrevBlock, h.MerkleRoot = *parent, blockchain.CalcMerkleRoot(hashed, false)
		target := blockchain.CompactToBig(h.Bits)
		for hash := consensus.HeaderHash(&h); blockchain.HashToBig(&hash).Cmp(target) > 0; hash = consensus.HeaderHash(&h) {
			h.Nonce++
		}
		block, err := consensus.NewBlock(p, h, txs)
		if err != nil {
			b.Fatal(err)
		}
		branch = append(branch, block)
	}
	parent := blocks[0].Header.PrevBlock
	for _, block := range blocks {
		txs := make([]*wire.MsgTx, len(block.Txs))
		for i, tx := range block.Txs {
			txs[i] = tx.MsgTx()
		}
		txs[0] = txs[0].Copy()
		txs[0].TxIn[0].SignatureScript = append(txs[0].TxIn[0].SignatureScript, txscript.OP_1)
		mine(block.Header, &parent, txs)
		parent = branch[len(branch)-1].Hash
	}
	last := blocks[len(blocks)-1]
	coinbase := wire.NewMsgTx(1)
	script, err := txscript.NewScriptBuilder().AddInt64(int64(simnetHeight(last) + 1)).AddInt64(0).Script()
	if err != nil {
		b.Fatal(err)
	}
	coinbase.AddTxIn(&wire.TxIn{PreviousOutPoint: wire.OutPoint{Index: math.MaxUint32}, SignatureScript: script, Sequence: math.MaxUint32})
	coinbase.AddTxOut(&wire.TxOut{Value: 1, PkScript: []byte{txscript.OP_TRUE}})
	header := last.Header
	header.Timestamp = header.Timestamp.Add(time.Minute)
	mine(header, &parent, []*wire.MsgTx{coinbase})
	return branch
}

// simnetHeight is the height that a block's coinbase states.
func simnetHeight(b *consensus.Block) int32 {
	height, err := blockchain.ExtractCoinbaseHeight(b.Txs[0])
	if err != nil {
		return 0
	}
	return height
}

// read reads and decodes a block.
func (f *benchFile) read(b *testing.B, at extent) *consensus.Block {
	b.Helper()
	raw := make([]byte, at.n)
	if _, err := f.file.ReadAt(raw, at.offset); err != nil {
		b.Fatal(err)
	}
	block, err := consensus.DecodeBlock(consensus.Simnet(), raw)
	if err != nil {
		b.Fatal(err)
	}
	return block
}

// importOurs imports a file into a fresh chain. peak is the most memory that the
// process had of the operating system meanwhile, in bytes, less what it had before.
func importOurs(b *testing.B, f benchFile, assumed chainhash.Hash) (took time.Duration, peak uint64) {
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
	if _, err := h.Import(context.Background(), io.NewSectionReader(f.file, 0, f.size), nil); err != nil {
		b.Fatal(err)
	}
	if at, _ := h.Tip(); at.Hash != f.tip {
		b.Fatalf("our tip is %v at height %d, want %v", at.Hash, at.Height, f.tip)
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
func importTheirs(b *testing.B, f benchFile, checkpoint *chaincfg.Checkpoint) time.Duration {
	b.Helper()
	runtime.GC()
	start := time.Now()
	c := openBTCD(b, chaincfg.SimNetParams, checkpoint)
	flags := blockchain.BFNone
	if checkpoint != nil {
		flags = blockchain.BFFastAdd
	}
	for i, at := range f.blocks {
		raw := make([]byte, at.n)
		if _, err := f.file.ReadAt(raw, at.offset); err != nil {
			b.Fatal(err)
		}
		if main, _, err := c.process(raw, flags); err != nil || !main {
			b.Fatalf("btcd, block %d: main chain %v, %v", i+1, main, err)
		}
	}
	if at := c.BestSnapshot(); at.Hash != f.tip {
		b.Fatalf("btcd's tip is %v at height %d, want %v", at.Hash, at.Height, f.tip)
	}
	c.close(b)
	return time.Since(start)
}

// A benchFile is a chain in the bootstrap.dat form. It stays on disk: a heap that
// holds it would let the garbage collector wait for as much again.
type benchFile struct {
	file   *os.File
	size   int64
	blocks []extent
	tip    chainhash.Hash
}

// An extent is where a block is.
type extent struct {
	offset int64
	n      int
}

func benchData(b *testing.B, name string) benchFile {
	b.Helper()
	dir := os.Getenv(benchDataEnv)
	if dir == "" {
		b.Skipf("no benchmark chains (set %s)", benchDataEnv)
	}
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { file.Close() })
	info, err := file.Stat()
	if err != nil {
		b.Fatal(err)
	}
	f := benchFile{file: file, size: info.Size()}
	var head [8 + consensus.HeaderBytes]byte
	for at := int64(0); at < f.size; {
		if _, err := file.ReadAt(head[:], at); err != nil {
			b.Fatal(err)
		}
		n := int(binary.LittleEndian.Uint32(head[4:]))
		f.blocks = append(f.blocks, extent{at + 8, n})
		at += 8 + int64(n)
	}
	f.tip = chainhash.DoubleHashH(head[8:])
	return f
}
