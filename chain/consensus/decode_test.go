package consensus_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
)

// realBlocks maps the names of the test data's blocks to their bytes.
func realBlocks(tb testing.TB) map[string][]byte {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(enginetest.DataPath(tb, "blocks"), "*.raw"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no blocks: %v", err)
	}
	blocks := make(map[string][]byte)
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		blocks[strings.TrimSuffix(filepath.Base(f), ".raw")] = raw
	}
	return blocks
}

func realBlock(tb testing.TB, name string) []byte {
	tb.Helper()
	return enginetest.Data(tb, "blocks/"+name+".raw")
}

// TestRealBlocks decodes, encodes and checks real blocks without coins.
func TestRealBlocks(t *testing.T) {
	t.Parallel()
	p := consensus.Bitcoin()
	for name, raw := range realBlocks(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := consensus.DecodeBlock(p, raw)
			if err != nil {
				t.Fatal(err)
			}
			at, err := consensus.TxOffsets(p, raw)
			if err != nil || len(at) != len(b.Txs)+1 || int(at[len(b.Txs)]) != len(raw) {
				t.Fatalf("%d offsets for %d transactions: %v", len(at), len(b.Txs), err)
			}
			for i, tx := range b.Txs {
				var w bytes.Buffer
				_ = tx.MsgTx().Serialize(&w)
				if one := raw[at[i]:at[i+1]]; !bytes.Equal(one, w.Bytes()) || consensus.CheckTxEncoding(one) != nil {
					t.Fatalf("transaction %d is not at %d to %d", i, at[i], at[i+1])
				}
			}
			oracle, err := btcutil.NewBlockFromBytes(raw)
			if err != nil {
				t.Fatal(err)
			}
			msg := oracle.MsgBlock()
			if b.Hash != *oracle.Hash() || b.StrippedSize != msg.SerializeSizeStripped() ||
				b.Weight != 3*msg.SerializeSizeStripped()+msg.SerializeSize() {
				t.Errorf("hash %s, base size %d, weight %d", b.Hash, b.StrippedSize, b.Weight)
			}
			txs := make([]*wire.MsgTx, len(b.Txs))
			for i, tx := range b.Txs {
				txs[i] = tx.MsgTx()
				if want := msg.Transactions[i].TxHash(); *tx.Hash() != want || tx.Index() != i {
					t.Fatalf("transaction %d: id %s, want %s", i, tx.Hash(), want)
				}
				if want := msg.Transactions[i].WitnessHash(); *tx.WitnessHash() != want {
					t.Fatalf("transaction %d: wtxid %s, want %s", i, tx.WitnessHash(), want)
				}
			}
			again, err := consensus.NewBlock(p, b.Header, txs)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again.Raw, raw) {
				t.Error("encoding gives other bytes")
			}
			height, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
			if err != nil {
				t.Fatal(err)
			}
			if err := consensus.CheckBlockContextFree(p, b); err != nil {
				t.Error(err)
			}
			if err := consensus.CheckCommitments(p, int32(height) >= p.SegwitHeight, b); err != nil {
				t.Error(err)
			}
			past := &enginetest.FakePast{
				At0: int32(height) - 1, Parent: b.Header.PrevBlock, Bits: b.Header.Bits, Time: b.Header.Timestamp.Unix() - 600,
			}
			if err := pow.New(p).CheckHeader(past, &b.Header, b.Header.Timestamp); err != nil {
				t.Error(err)
			}
			if err := consensus.CheckBlockContext(p, past, b); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFirstBlocks decodes and checks mainnet's first 14,132 blocks.
func TestFirstBlocks(t *testing.T) {
	t.Parallel()
	p := consensus.Bitcoin()
	raw := enginetest.Data(t, "chain/mainnet-blocks-0-14131.dat.zst")
	chain := enginetest.NewChain(p)
	var coins enginetest.CoinSet = make(map[wire.OutPoint]consensus.Coin)
	spends, supply := 0, int64(0)
	for n := 0; len(raw) > 0; n++ {
		if binary.LittleEndian.Uint32(raw) != p.Magic {
			t.Fatal("no magic")
		}
		size := binary.LittleEndian.Uint32(raw[4:])
		b, err := consensus.DecodeBlock(p, raw[8:8+size])
		if err != nil {
			t.Fatalf("block %d: %v", n, err)
		}
		raw = raw[8+size:]
		if n == 0 {
			continue
		}
		if err := errors.Join(consensus.CheckBlockContextFree(p, b), consensus.CheckBlockContext(p, chain, b)); err != nil {
			t.Fatalf("block %d: %v", n, err)
		}
		flags := consensus.ScriptFlags(p, chain, b.Hash)
		fees := int64(0)
		for i, tx := range b.Txs {
			if i > 0 {
				// The data has spends of outputs of the same block, which
				// CoinSet.Connect leaves to the block's end: connect what is there.
				spent, ok := lookUp(coins, b, tx.MsgTx())
				if !ok {
					t.Fatalf("block %d: no coin for %s", n, tx.Hash())
				}
				fee, err := consensus.CheckTxInputs(p, chain, tx.MsgTx(), spent)
				if err != nil {
					t.Fatalf("block %d: %v", n, err)
				}
				if err := consensus.CheckTxScripts(tx.MsgTx(), spent, flags); err != nil {
					t.Fatalf("block %d: %v", n, err)
				}
				fees += fee
				spends += len(spent)
			}
		}
		if err := consensus.CheckCoinbaseValue(p, int32(n), b.Txs[0].MsgTx(), fees); err != nil {
			t.Fatalf("block %d: %v", n, err)
		}
		coins.Connect(int32(n), b)
		chain.Append(&b.Header)
	}
	for _, c := range coins {
		supply += c.Value
	}
	if chain.Hash().String() != "00000000b3e750f37fdb42e1018799a9f44b546d393b130b369590a072430a1c" ||
		spends != 865 || len(coins) != 13_416 || supply != 706_550e8 {
		t.Errorf("tip %s at %d, %d spends, %d coins, supply %d", chain.Hash(), chain.Height(), spends, len(coins), supply)
	}
}

func lookUp(coins enginetest.CoinSet, b *consensus.Block, tx *wire.MsgTx) ([]consensus.Coin, bool) {
	spent := make([]consensus.Coin, len(tx.TxIn))
	for i, in := range tx.TxIn {
		c, ok := coins[in.PreviousOutPoint]
		if !ok {
			j := slices.IndexFunc(b.Txs, func(tx *btcutil.Tx) bool { return *tx.Hash() == in.PreviousOutPoint.Hash })
			if j < 0 {
				return nil, false
			}
			out := b.Txs[j].MsgTx().TxOut[in.PreviousOutPoint.Index]
			c = consensus.Coin{Value: out.Value, Script: out.PkScript}
		}
		spent[i] = c
	}
	return spent, true
}

// sealed is a network whose headers carry a seal.
func sealed() *consensus.Params {
	p := consensus.Regtest()
	p.SealBytes = 140
	p.GenesisSeal = make([]byte, 140)
	return p
}

func TestSealedBlock(t *testing.T) {
	t.Parallel()
	plain := consensus.Regtest()
	b, err := consensus.DecodeBlock(plain, realBlock(t, "mainnet-482683"))
	if err != nil {
		t.Fatal(err)
	}
	p := sealed()
	seal := bytes.Repeat([]byte{7}, 140)
	txs := make([]*wire.MsgTx, len(b.Txs))
	for i, tx := range b.Txs {
		txs[i] = tx.MsgTx()
	}
	s, err := consensus.NewBlock(p, consensus.Header{BlockHeader: b.Header.BlockHeader, Seal: seal}, txs)
	if err != nil {
		t.Fatal(err)
	}
	if s.Hash != b.Hash || s.Weight != b.Weight || s.StrippedSize != b.StrippedSize || len(s.Raw) != len(b.Raw)+140 ||
		!bytes.Equal(s.Header.Seal, seal) || *s.Txs[5].Hash() != *b.Txs[5].Hash() || *s.Txs[5].WitnessHash() != *b.Txs[5].WitnessHash() {
		t.Error("the seal changes more than the seal")
	}
	if err := consensus.CheckCommitments(p, true, s); err != nil {
		t.Error(err)
	}
	h, err := consensus.DecodeHeader(p, s.Raw[:220])
	if err != nil || !bytes.Equal(consensus.AppendHeader(nil, &h), s.Raw[:220]) || consensus.HeaderHash(&h) != s.Hash {
		t.Errorf("header: %v", err)
	}
	if _, err := consensus.DecodeHeader(p, s.Raw[:80]); blame(err) != consensus.BlameSender {
		t.Errorf("a header without its seal: %v", err)
	}
	if _, err := consensus.NewBlock(p, b.Header, txs); err == nil {
		t.Error("a block without its seal was encoded")
	}
}

func blame(err error) consensus.Blame {
	if r, ok := errors.AsType[*consensus.RuleError](err); ok {
		return r.Blame
	}
	return 0
}

func rule(err error) string {
	if r, ok := errors.AsType[*consensus.RuleError](err); ok {
		return r.Rule
	}
	return ""
}

// allocated is how much memory f allocates, in bytes, garbage included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// inBounds runs f on n bytes of input and checks that it allocates no more than 8 times
// the input and 64 KiB.
func inBounds(t testing.TB, n int, f func()) {
	t.Helper()
	most := uint64(8*n + 64<<10)
	for tries := 0; ; tries++ { // others may allocate at the same time
		got := allocated(f)
		if got <= most {
			return
		}
		if tries == 4 {
			t.Fatalf("%d bytes took %d of memory, at most %d", n, got, most)
		}
	}
}

func header80() []byte { return make([]byte, consensus.HeaderBytes) }

// txOf builds an encoding from its parts.
func join(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			raw, err := hex.DecodeString(p)
			if err != nil {
				panic(err)
			}
			b = append(b, raw...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

// emptyWitness is a transaction with one input whose witness has n empty items.
func emptyWitness(n uint32) []byte {
	return join("02000000", "0001", "01", make([]byte, 36), "00", "ffffffff", "01", make([]byte, 8), "0151",
		"fe", binary.LittleEndian.AppendUint32(nil, n), make([]byte, n), "00000000")
}

// TestDecodeAllocation is not parallel: it counts what the process allocates.
func TestDecodeAllocation(t *testing.T) {
	p := consensus.Bitcoin()
	smallTx := join("01000000", "01", make([]byte, 36), "00", "ffffffff", "01", make([]byte, 8), "00", "00000000")
	noOut := join("01000000", "01", make([]byte, 36), "00", "ffffffff", "00", "00000000")
	inputs := map[string][]byte{
		"9-byte transaction":   join("01000000", "fe"+"ffffff01"),
		"2^64 inputs":          join("01000000", "ffffffffffffffffff"),
		"2^32 outputs":         join("01000000", "01", make([]byte, 36), "00", "ffffffff", "feffffffff"),
		"long script":          join("01000000", "01", make([]byte, 36), "feffffff00"),
		"long witness":         join("01000000", "0001", "01", make([]byte, 36), "00", "ffffffff", "00", "feffffff00"),
		"4 MB of empty items":  emptyWitness(3_999_900),
		"60 kB of empty items": emptyWitness(60_000),
		"100,000 outputs": join("01000000", "01", make([]byte, 36), "00", "ffffffff", "fea0860100", make([]byte, 900_000),
			"00000000"),
		"huge witness": nil,
	}
	for name, body := range map[string][]byte{
		"2^24 transactions":  join("feffffff00"),
		"60-byte tx":         bytes.Repeat(smallTx, 30_000),
		"51-byte tx":         bytes.Repeat(noOut, 30_000),
		"one of empty items": emptyWitness(3_999_700),
		"garbage":            bytes.Repeat([]byte{0xff}, 1000),
	} {
		count := []byte{1}
		if strings.HasSuffix(name, "-byte tx") {
			count = join("fd", binary.LittleEndian.AppendUint16(nil, 30_000))
		}
		inputs["block: "+name] = join(header80(), count, body)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(enginetest.Data(t, "blocks/rustbitcoin-huge_witness.tx.hex"))))
	if err != nil {
		t.Fatal(err)
	}
	inputs["huge witness"] = raw
	for name, raw := range realBlocks(t) {
		inputs["block: "+name] = raw
	}
	for name, raw := range inputs {
		t.Run(name, func(t *testing.T) {
			inBounds(t, len(raw), func() {
				if strings.HasPrefix(name, "block: ") {
					_, err = consensus.DecodeBlock(p, raw)
				} else {
					_, err = consensus.DecodeTx(raw)
				}
			})
			if err != nil && blame(err) != consensus.BlameSender {
				t.Error(err)
			}
		})
	}
}

// TestDecodeProvenBody: what is dear to decode is decoded when the header
// commits to it, and only then.
func TestDecodeProvenBody(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	one := b.Mine(b.Genesis())
	tx := enginetest.Spend(one, 0, 0)
	tx.TxIn[0].Witness = make(wire.TxWitness, 100_000)
	dear := b.Mine(one, tx)
	if got := len(dear.Txs[1].MsgTx().TxIn[0].Witness); got != 100_000 {
		t.Fatalf("%d witness items", got)
	}
	for off, want := range map[int]string{
		40:                      "bad-txnmrklroot",          // the header's root
		len(dear.Raw) - 100:     "bad-encoding",             // an item's length
		len(dear.Raw) - 1:       "bad-txnmrklroot",          // the last lock time
		witnessNonceAt(t, dear): "bad-witness-merkle-match", // the coinbase's witness
	} {
		raw := bytes.Clone(dear.Raw)
		raw[off] ^= 1
		if _, err := consensus.DecodeBlock(p, raw); rule(err) != want || blame(err) != consensus.BlameSender {
			t.Errorf("byte %d changed: %v, want %s", off, err, want)
		}
	}
}

// witnessNonceAt finds the coinbase's witness: the 32 bytes before its lock time.
func witnessNonceAt(t *testing.T, b *consensus.Block) int {
	t.Helper()
	coinbase := b.Txs[0].MsgTx()
	return consensus.HeaderBytes + 1 + coinbase.SerializeSize() - 4 - 32
}

func TestDecodeFaults(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	good := p.GenesisBlock().Raw
	if _, err := consensus.DecodeBlock(p, good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := consensus.DecodeBlock(p, good[:n]); blame(err) != consensus.BlameSender {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
	tx := good[81:]
	for n := range tx {
		if _, err := consensus.DecodeTx(tx[:n]); blame(err) != consensus.BlameSender {
			t.Fatalf("the first %d bytes of a transaction: %v", n, err)
		}
	}
	in := join(make([]byte, 36), "00", "ffffffff")
	for name, raw := range map[string][]byte{
		"trailing byte":        join(tx, "00"),
		"count not minimal":    join("01000000", "fd0100", in, "00", "00000000"),
		"no inputs":            join("01000000", "0000", "00000000"),
		"flag 2":               join("01000000", "0002", "01", in, "00", "00", "00000000"),
		"flag, no inputs":      join("01000000", "0001", "00", "00", "00000000"),
		"flag, no witness":     join("01000000", "0001", "01", in, "00", "00", "00000000"),
		"more than any block":  make([]byte, 4_000_001),
		"script past the end":  join("01000000", "01", make([]byte, 36), "ff", "ffffffff", "00", "00000000"),
		"script length 2^64-1": join("01000000", "01", make([]byte, 36), "ffffffffffffffffff", "ffffffff", "00", "00000000"),
	} {
		if _, err := consensus.DecodeTx(raw); blame(err) != consensus.BlameSender {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, raw := range map[string][]byte{
		"trailing byte":     join(good, "00"),
		"no transactions":   join(good[:80], "00"),
		"more than allowed": make([]byte, 4_000_001),
	} {
		if _, err := consensus.DecodeBlock(p, raw); blame(err) != consensus.BlameSender {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDecodedBlockIsConcurrent runs under -race: ids are cached by the decoder.
func TestDecodedBlockIsConcurrent(t *testing.T) {
	t.Parallel()
	b, err := consensus.DecodeBlock(consensus.Bitcoin(), realBlock(t, "mainnet-482683"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, tx := range b.Txs {
				_, _, _ = tx.Hash(), tx.WitnessHash(), tx.HasWitness()
			}
		})
	}
	wg.Wait()
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(consensus.Regtest().GenesisBlock().Raw[:80])
	f.Add(make([]byte, 220))
	networks := []*consensus.Params{consensus.Regtest(), sealed()}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, p := range networks {
			var h consensus.Header
			var err error
			inBounds(t, len(raw), func() { h, err = consensus.DecodeHeader(p, raw) })
			if (err == nil) != (len(raw) == consensus.HeaderBytes+p.SealBytes) {
				t.Fatalf("%d bytes: %v", len(raw), err)
			}
			if err == nil && !bytes.Equal(consensus.AppendHeader(nil, &h), raw) {
				t.Fatal("other bytes")
			}
		}
	})
}

func FuzzDecodeTx(f *testing.F) {
	f.Add(consensus.Regtest().GenesisBlock().Raw[81:])
	f.Add(emptyWitness(3))
	f.Add(join("01000000", "feffffff01"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var tx *wire.MsgTx
		var err error
		inBounds(t, len(raw), func() { tx, err = consensus.DecodeTx(raw) })
		var oracle wire.MsgTx
		r := bytes.NewReader(raw)
		oracleOK := len(raw) < 1<<16 && oracle.Deserialize(r) == nil && r.Len() == 0
		if err != nil {
			if oracleOK {
				t.Fatalf("btcd decodes what we refuse: %v", err)
			}
			return
		}
		var buf bytes.Buffer
		if err := tx.Serialize(&buf); err != nil || !bytes.Equal(buf.Bytes(), raw) {
			t.Fatalf("encodes to other bytes (%v)", err)
		}
		if len(raw) < 1<<16 && (!oracleOK || oracle.TxHash() != tx.TxHash() || oracle.WitnessHash() != tx.WitnessHash()) {
			t.Fatal("btcd decodes something else")
		}
	})
}

func FuzzDecodeBlock(f *testing.F) {
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	one := b.Mine(b.Genesis())
	key := enginetest.NewKey(1)
	two := b.Mine(one, enginetest.Spend(one, 0, 0, key.Script(), key.Script()))
	tx := enginetest.Spend(two, 1, 0)
	key.Sign(tx, b.Coins(two.Hash).Spent(tx))
	f.Add(b.Mine(two, tx).Raw)
	f.Add(p.GenesisBlock().Raw)
	f.Add(join(header80(), "feffffff00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var b *consensus.Block
		var err error
		inBounds(t, len(raw), func() { b, err = consensus.DecodeBlock(p, raw) })
		if scanned := consensus.CheckEncoding(p, raw); (scanned != nil) && err == nil || rule(scanned) != "" && rule(scanned) != rule(err) {
			t.Fatalf("scanned: %v, decoded: %v", scanned, err)
		}
		if err != nil {
			if blame(err) != consensus.BlameSender {
				t.Fatal(err)
			}
			return
		}
		txs := make([]*wire.MsgTx, len(b.Txs))
		for i, tx := range b.Txs {
			txs[i] = tx.MsgTx()
		}
		again, err := consensus.NewBlock(p, b.Header, txs)
		if err != nil || !bytes.Equal(again.Raw, raw) || again.StrippedSize != b.StrippedSize || again.Weight != b.Weight {
			t.Fatalf("encodes to other bytes (%v)", err)
		}
		// The checks must not fall over what the decoder lets through.
		past := &enginetest.FakePast{At0: 100, Time: 1 << 31}
		_ = consensus.CheckBlockContextFree(p, b)
		_ = consensus.CheckCommitments(p, true, b)
		_ = consensus.CheckBlockContext(p, past, b)
		_, _ = consensus.CoinbaseData(b), consensus.CoinbaseText(b)
	})
}

func BenchmarkDecodeBlock(b *testing.B) {
	p := consensus.Bitcoin()
	for _, name := range []string{"mainnet-413567", "mainnet-574200"} {
		raw := realBlock(b, name)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := consensus.DecodeBlock(p, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/btcutil", func(b *testing.B) { // decoding and the same hashes
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				block, err := btcutil.NewBlockFromBytes(raw)
				if err != nil {
					b.Fatal(err)
				}
				for _, tx := range block.Transactions() {
					tx.Hash()
					tx.WitnessHash()
				}
			}
		})
	}
}

func BenchmarkCheckBlockContextFree(b *testing.B) {
	p := consensus.Bitcoin()
	raw := realBlock(b, "mainnet-413567")
	block, err := consensus.DecodeBlock(p, raw)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if err := consensus.CheckBlockContextFree(p, block); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMedianTimePast(b *testing.B) {
	past := &enginetest.FakePast{At0: 1000, Time: time.Now().Unix()}
	for b.Loop() {
		consensus.MedianTimePast(past)
	}
}
