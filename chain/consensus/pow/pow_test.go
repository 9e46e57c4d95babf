package pow_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/consensus"
	"dunlin/chain/consensus/enginetest"
	"dunlin/chain/consensus/pow"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]*consensus.Params{
		"asert": harder(consensus.Testnet()), "never": harder(consensus.Regtest()), "2016": harder(consensus.Simnet()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			enginetest.Run(t, enginetest.Fixture{Params: p, Engine: pow.New(p)})
		})
	}
}

// harder makes a network's limit hard enough that hardly a header is valid by
// chance (one in 4,096) and easy enough for the race detector.
func harder(p *consensus.Params) *consensus.Params {
	p.PowLimitBits = 0x1f0fffff
	p.PowLimit = blockchain.CompactToBig(p.PowLimitBits)
	p.Genesis.Header.Bits = p.PowLimitBits
	p.GenesisHash = p.Genesis.BlockHash() // unproven; nothing checks genesis
	return p
}

// farFuture is a clock that no header is ahead of.
var farFuture = time.Unix(1<<32, 0)

// TestMainnetHeaders: 34 difficulty changes.
func TestMainnetHeaders(t *testing.T) {
	t.Parallel()
	raw := enginetest.Data(t, "headers/mainnet-headers-0-99999.bin.zst")
	p := consensus.Bitcoin()
	e := pow.New(p)
	c := enginetest.NewChain(p)
	work := e.Work(&consensus.Header{BlockHeader: p.Genesis.Header})
	for off := consensus.HeaderBytes; off < len(raw); off += consensus.HeaderBytes {
		h, err := consensus.DecodeHeader(p, raw[off:off+consensus.HeaderBytes])
		if err != nil {
			t.Fatal(err)
		}
		if err := e.CheckHeader(c, &h, farFuture); err != nil {
			t.Fatalf("height %d: %v", c.Height()+1, err)
		}
		work.Add(work, e.Work(&h))
		c.Append(&h)
	}
	if c.Height() != 99_999 || work.Text(16) != "64492eaf00f2520" {
		t.Errorf("height %d, work %s", c.Height(), work.Text(16))
	}
}

// offsetPast is the end of a branch of which only the headers from a height on
// are known.
type offsetPast struct {
	*enginetest.Chain
	from int32
}

func (p offsetPast) Height() int32 { return p.Chain.Height() + p.from }

func (p offsetPast) At(h int32) consensus.PastHeader { return p.Chain.At(h - p.from) }

// TestMainnetPeriodHeaders: heights 665,280 to 665,407, from a retarget on.
func TestMainnetPeriodHeaders(t *testing.T) {
	t.Parallel()
	var file struct {
		FromHeight int32
		Headers    []struct{ HeaderHex string }
	}
	if err := json.Unmarshal(enginetest.Data(t, "headers/mainnet-headers-665280-665407.json"), &file); err != nil {
		t.Fatal(err)
	}
	p := consensus.Bitcoin()
	e := pow.New(p)
	past := offsetPast{new(enginetest.Chain), file.FromHeight}
	for i, entry := range file.Headers {
		h := decodeHeader(t, p, entry.HeaderHex)
		// The first eleven lack a median time past.
		if i > 11 {
			if err := e.CheckHeader(past, &h, farFuture); err != nil {
				t.Fatalf("height %d: %v", past.Height()+1, err)
			}
		}
		past.Append(&h)
	}
}

// TestAlternativeMainnet: Bitcoin Core's coinbase-only mainnet, with real work across
// a retarget that takes all it may.
func TestAlternativeMainnet(t *testing.T) {
	t.Parallel()
	p := consensus.Bitcoin()
	e := pow.New(p)
	c := enginetest.NewChain(p)
	for _, b := range enginetest.AlternativeMainnet(t) {
		if err := e.CheckHeader(c, &b.Header, farFuture); err != nil {
			t.Fatalf("height %d: %v", c.Height()+1, err)
		}
		c.Append(&b.Header)
	}
	if c.Height() != 2016 {
		t.Errorf("height %d", c.Height())
	}
}

func decodeHeader(t *testing.T, p *consensus.Params, s string) consensus.Header {
	t.Helper()
	raw, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	h, err := consensus.DecodeHeader(p, raw)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// extension is a node of the tree of header chains in BIP54's vectors.
type extension struct {
	BlockHeaders []string `json:"block_headers"`
	Extensions   []extension
	Valid        *bool
	Comment      string
}

func TestBIP54Timestamps(t *testing.T) {
	t.Parallel()
	var root extension
	if err := json.Unmarshal(enginetest.Data(t, "bips/bip-0054_test_vectors_timestamps.json"), &root); err != nil {
		t.Fatal(err)
	}
	p := consensus.Bitcoin()
	p.BIP54 = true
	e := pow.New(p)
	if first := decodeHeader(t, p, root.BlockHeaders[0]); consensus.HeaderHash(&first) != p.GenesisHash {
		t.Fatal("the vectors start at another genesis")
	}
	root.BlockHeaders = root.BlockHeaders[1:]
	verdicts := 0
	var walk func(x extension, c *enginetest.Chain)
	walk = func(x extension, c *enginetest.Chain) {
		c = c.UpTo(c.Height())
		var err error
		for _, s := range x.BlockHeaders {
			h := decodeHeader(t, p, s)
			if err = e.CheckHeader(c, &h, farFuture); err != nil {
				break
			}
			c.Append(&h)
		}
		switch {
		case x.Valid == nil && err != nil:
			t.Errorf("common part, height %d: %v", c.Height()+1, err)
			return
		case x.Valid != nil && *x.Valid != (err == nil):
			t.Errorf("%s: valid %t, got %v at height %d", x.Comment, *x.Valid, err, c.Height()+1)
		case x.Valid != nil && err != nil && rule(err) != "time-timewarp-attack" && rule(err) != "time-murch-zawy":
			t.Errorf("%s: refused by %v", x.Comment, err)
		}
		if x.Valid != nil {
			verdicts++
		}
		for _, sub := range x.Extensions {
			walk(sub, c)
		}
	}
	walk(root, enginetest.NewChain(p))
	if verdicts == 0 {
		t.Error("no verdict in the vectors")
	}
	t.Logf("%d chains", verdicts)
}

func rule(err error) string {
	if r, ok := errors.AsType[*consensus.RuleError](err); ok {
		return r.Rule
	}
	return ""
}

func TestCheckHeaderRules(t *testing.T) {
	t.Parallel()
	const now = 2_000_000_000
	for _, tt := range []struct {
		name    string
		p       *consensus.Params
		past    enginetest.FakePast
		time    int64
		version int32
		want    string
	}{
		{"ok", consensus.Regtest(), enginetest.FakePast{At0: 20, Time: now}, now, 4, ""},
		{"version 3 under BIP65", consensus.Regtest(), enginetest.FakePast{At0: 20, Time: now}, now, 3, "bad-version"},
		{"version 0", consensus.Regtest(), enginetest.FakePast{At0: 20, Time: now}, now, 0, "bad-version"},
		{"negative version", consensus.Regtest(), enginetest.FakePast{At0: 20, Time: now}, now, -1, "bad-version"},
		{"median time", consensus.Regtest(), enginetest.FakePast{At0: 20, Time: now}, now - 5*600, 4, "time-too-old"},
		{"a second later", consensus.Regtest(), enginetest.FakePast{At0: 20, Time: now}, now - 5*600 + 1, 4, ""},
		{"two hours ahead", consensus.Regtest(), enginetest.FakePast{At0: 20, Time: now}, now + 7200, 4, ""},
		{"a second more", consensus.Regtest(), enginetest.FakePast{At0: 20, Time: now}, now + 7201, 4, "time-too-new"},
	} {
		tt.past.Bits = tt.p.PowLimitBits
		h := consensus.Header{}
		h.Version, h.Timestamp, h.Bits = tt.version, time.Unix(tt.time, 0), tt.p.PowLimitBits
		if ok, err := pow.NewSealer(1).Seal(nil, &h); !ok || err != nil {
			t.Fatal(ok, err)
		}
		err := pow.New(tt.p).CheckHeader(&tt.past, &h, time.Unix(now, 0))
		if got := rule(err); got != tt.want || (err != nil) != (tt.want != "") {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestBitsOutsideTheLimit: however the retarget came to them.
func TestBitsOutsideTheLimit(t *testing.T) {
	t.Parallel()
	p := consensus.Testnet()
	for _, bits := range []uint32{
		0x1f010000, 0x20000100, 0x207fffff, // one above the limit in the shortest form; another form of that; far above
		0x1f800001, 0x04923456, 0x01fedcba, // negative
		0xff123456, 0x22000100, 0x23000001, 0xff7fffff, // more than 256 bits
		0, 0x00123456, 0x01003456, 0x02000056, 0x03000000, 0xff000000, // nothing
		0x01800000, 0x80800000, 0x05800000, // nothing, with a sign
	} {
		h := consensus.Header{}
		h.Bits = bits
		if err := pow.New(p).CheckHeader(&enginetest.FakePast{}, &h, farFuture); rule(err) != "high-hash" {
			t.Errorf("bits %08x: %v", bits, err)
		}
	}
}

// TestTimeWarp: how far the first block of a period may be before its parent.
func TestTimeWarp(t *testing.T) {
	t.Parallel()
	const before = 2_000_000_000
	for _, tt := range []struct {
		bip94, bip54 bool
		height       int32
		back         int64 // seconds before the parent
		want         string
	}{
		{false, false, 2016, 8000, ""},
		{true, false, 2016, 600, ""},
		{true, false, 2016, 601, "time-timewarp-attack"},
		{true, false, 2017, 601, ""},
		{false, true, 2016, 7200, ""},
		{false, true, 2016, 7201, "time-timewarp-attack"},
		{false, true, 2017, 7201, ""},
		{false, true, 2015, 8000, ""},
		{true, true, 2016, 601, "time-timewarp-attack"},
	} {
		p := consensus.Regtest()
		p.Retarget, p.TargetTimespan = consensus.Retarget2016, 2016*p.TargetSpacing
		p.EnforceBIP94, p.BIP54 = tt.bip94, tt.bip54
		e := pow.New(p)
		// The parent's time leaps ahead, so the median time past stays far behind.
		past := &enginetest.FakePast{At0: tt.height - 1, Bits: p.PowLimitBits, Time: before - 20_000, Times: map[int32]int64{tt.height - 1: before}}
		h := consensus.Header{}
		h.Version, h.Timestamp = 4, time.Unix(before-tt.back, 0)
		h.Bits = e.NextBits(past, h.Timestamp)
		if ok, err := pow.NewSealer(1).Seal(nil, &h); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := e.CheckHeader(past, &h, farFuture); rule(err) != tt.want || (err == nil) != (tt.want == "") {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestCheckpoint(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	b := enginetest.NewBuilder(p)
	one := b.Mine(b.Genesis())
	other := b.Mine(b.Genesis())
	p.Checkpoints = map[int32]chainhash.Hash{1: one.Hash}
	e := pow.New(p)
	past := b.Past(p.GenesisHash)
	if err := e.CheckHeader(past, &one.Header, farFuture); err != nil {
		t.Error(err)
	}
	if err := e.CheckHeader(past, &other.Header, farFuture); rule(err) != "checkpoint-mismatch" {
		t.Errorf("another block at a checkpoint: %v", err)
	}
}

// TestMinDifficultyWalk: on chains that keep the rules, the bits of a period's first
// block are those that Bitcoin Core finds by walking back over the exceptions.
func TestMinDifficultyWalk(t *testing.T) {
	t.Parallel()
	const seed = 3
	r := rand.New(rand.NewPCG(seed, 0))
	p := consensus.Simnet()
	e := pow.New(p)
	for _, mean := range []int{300, 900, 2000} { // seconds between blocks
		c := enginetest.NewChain(p)
		for range 3 * 2016 {
			parent := c.Height()
			last := c.At(parent)
			h := consensus.Header{}
			h.Timestamp = time.Unix(last.Time+int64(r.IntN(2*mean)), 0)
			h.Bits = e.NextBits(c, h.Timestamp)
			if (parent+1)%2016 != 0 {
				want := p.PowLimitBits
				if h.Timestamp.Unix() <= last.Time+20*60 {
					at := parent
					for at%2016 != 0 && c.At(at).Bits == p.PowLimitBits {
						at--
					}
					want = c.At(at).Bits
				}
				if h.Bits != want {
					t.Fatalf("seed %d, height %d: %08x, want %08x", seed, parent+1, h.Bits, want)
				}
			}
			c.Append(&h)
		}
	}
}

// TestMinDifficulty: the exception for late blocks, and the way back from it.
func TestMinDifficulty(t *testing.T) {
	t.Parallel()
	p := consensus.Simnet()
	e := pow.New(p)
	c := enginetest.NewChain(p)
	const hard = 0x1f00ffff
	add := func(bits uint32, after time.Duration) {
		h := consensus.Header{}
		h.Bits = bits
		h.Timestamp = time.Unix(c.At(c.Height()).Time, 0).Add(after)
		c.Append(&h)
	}
	for range 2015 {
		add(hard, 10*time.Minute)
	}
	add(hard, 10*time.Minute) // 2016, the first of a period
	add(p.PowLimitBits, time.Hour)
	add(p.PowLimitBits, time.Hour)
	last := time.Unix(c.At(c.Height()).Time, 0)
	if got := e.NextBits(c, last.Add(20*time.Minute)); got != hard {
		t.Errorf("in time: %08x, want that of the last ordinary block %08x", got, hard)
	}
	if got := e.NextBits(c, last.Add(20*time.Minute+time.Second)); got != p.PowLimitBits {
		t.Errorf("late: %08x, want the limit", got)
	}
}

// TestRetargetBIP94: the period's first bits count, not the last's.
func TestRetargetBIP94(t *testing.T) {
	t.Parallel()
	for _, bip94 := range []bool{false, true} {
		p := consensus.Bitcoin()
		p.EnforceBIP94 = bip94
		c := enginetest.NewChain(p)
		for i := range 2015 {
			h := consensus.Header{}
			h.Bits = 0x1b0404cb
			if i == 2014 {
				h.Bits = p.PowLimitBits
			}
			h.Timestamp = time.Unix(c.At(0).Time, 0).Add(time.Duration(i+1) * 10 * time.Minute)
			c.Append(&h)
		}
		// Height 0 has the limit's bits as well, so put the hard ones first.
		bits := pow.New(p).NextBits(firstBits{c, 0x1b0404cb}, farFuture)
		if easy := blockchain.CompactToBig(bits).BitLen() > 220; easy == bip94 {
			t.Errorf("BIP94 %t: bits %08x", bip94, bits)
		}
	}
}

// firstBits replaces the bits of genesis.
type firstBits struct {
	*enginetest.Chain
	bits uint32
}

func (p firstBits) At(h int32) consensus.PastHeader {
	a := p.Chain.At(h)
	if h == 0 {
		a.Bits = p.bits
	}
	return a
}

// TestCompact: Core's examples of compact targets (arith_uint256_tests), as values.
func TestCompact(t *testing.T) {
	t.Parallel()
	for bits, want := range map[uint32]string{
		0x01123456: "12", 0x02123456: "1234", 0x03123456: "123456", 0x04123456: "12345600", 0x05009234: "92340000",
		0x02008000: "80", 0x1d00ffff: "ffff0000000000000000000000000000000000000000000000000000",
		0x20123456: "1234560000000000000000000000000000000000000000000000000000000000",
	} {
		if got := blockchain.CompactToBig(bits).Text(16); got != want {
			t.Errorf("%08x: %s, want %s", bits, got, want)
		}
	}
}

func TestASERT(t *testing.T) {
	t.Parallel()
	p := consensus.Testnet()
	p.PowLimitBits = 0x1d00ffff
	p.PowLimit = big.NewInt(0).Lsh(big.NewInt(0xffff), 208)
	p.Genesis.Header.Bits = 0x1c00ffff
	half := int64(p.ASERTHalfLife / time.Second)
	start := p.Genesis.Header.Timestamp.Unix()
	e := pow.New(p)
	bits := func(height int32, late int64) uint32 {
		spacing := int64(p.TargetSpacing / time.Second)
		return e.NextBits(&enginetest.FakePast{
			At0: height, Bits: 0x1c00ffff, Time: start + int64(height)*spacing + late,
			Times: map[int32]int64{0: start},
		}, time.Time{})
	}
	for _, tt := range []struct {
		late int64
		want uint32
	}{
		{0, 0x1c00ffff},
		{half, 0x1c01fffe},     // twice as easy
		{-half, 0x1b7fff80},    // twice as hard
		{8 * half, 0x1d00ffff}, // 2^8: the limit
		{9 * half, 0x1d00ffff},
		{600 * half, 0x1d00ffff},
		{-4 * half, 0x1b0ffff0},
		{-600 * half, 0x01010000},
	} {
		if got := bits(1_000_000, tt.late); got != tt.want {
			t.Errorf("%+d s: bits %08x, want %08x", tt.late, got, tt.want)
		}
	}
	// Monotonic: the later, the easier.
	for prev, late := big.NewInt(0), -3*half; late < 3*half; late += 7 {
		target := compact(bits(1000, late))
		if target.Cmp(prev) < 0 {
			t.Fatalf("%+d s is harder than 7 s earlier", late)
		}
		prev = target
	}
}

// compact is the definition of the compact form, independent of btcd's.
func compact(bits uint32) *big.Int {
	m := big.NewInt(int64(bits & 0x7fffff))
	if n := int(bits>>24) - 3; n >= 0 {
		return m.Lsh(m, uint(8*n))
	}
	return m.Rsh(m, uint(8*(3-int(bits>>24))))
}

func TestSealer(t *testing.T) {
	t.Parallel()
	p := consensus.Testnet()
	h := consensus.Header{BlockHeader: p.Genesis.Header}
	h.Nonce = 0
	ok, err := pow.NewSealer(3).Seal(nil, &h)
	if !ok || err != nil {
		t.Fatalf("%t, %v", ok, err)
	}
	hash := consensus.HeaderHash(&h)
	if blockchain.HashToBig(&hash).Cmp(p.PowLimit) > 0 {
		t.Errorf("%s is above the target", hash)
	}
	ok, err = pow.NewSealer(1).Seal(nil, &h)
	if !ok || err != nil || h.Nonce != p.Genesis.Header.Nonce {
		t.Errorf("one thread finds nonce %d (%t, %v), the genesis block's first is %d", h.Nonce, ok, err, p.Genesis.Header.Nonce)
	}
}

func TestSealerStops(t *testing.T) {
	t.Parallel()
	h := consensus.Header{}
	h.Bits = 0x03000001 // the hash 0 or 1: never
	stop := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		_, err := pow.NewSealer(2).Seal(stop, &h)
		result <- err
	}()
	close(stop)
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	h.Bits = 0
	if ok, err := pow.NewSealer(1).Seal(nil, &h); ok || err == nil {
		t.Errorf("bits that are no target: %t, %v", ok, err)
	}
}

func BenchmarkCheckHeader(b *testing.B) {
	p := consensus.Testnet()
	e := pow.New(p)
	builder := enginetest.NewBuilder(p)
	builder.Engine = e
	blocks := builder.MineN(builder.Genesis(), 20)
	past := builder.Past(blocks[18].Hash)
	for b.Loop() {
		if err := e.CheckHeader(past, &blocks[19].Header, farFuture); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSealer(b *testing.B) {
	h := consensus.Header{}
	h.Bits = 0x1e0fffff
	n := 0
	for b.Loop() {
		h.Version = int32(n)
		n++
		if ok, err := pow.NewSealer(1).Seal(nil, &h); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
