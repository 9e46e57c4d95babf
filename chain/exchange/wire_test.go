package exchange

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/chainhash/v2"
)

func fill(b byte) (h chainhash.Hash) {
	for i := range h {
		h[i] = b
	}
	return h
}

// vectors are the messages whose bytes docs/protocol.md gives.
func vectors() []struct {
	name string
	msg  []byte
	back func([]byte) (any, error)
	want any
} {
	tip := TipInfo{Height: 14131, Hash: fill(0x11), Work: big.NewInt(0x373337333733), Lowest: 1}
	hello := helloMessage{Hello: &Hello{
		Version: 1, Agent: "dunlin/0.1.0", Genesis: fill(0x22), Tip: tip, Services: ServeBlocks | ServeTxs, Nonce: 0x0102030405060708,
	}}
	update := helloMessage{Tip: &tip, Ping: 7, Pong: 9}
	goodbye := helloMessage{Bye: &bye{Code: byeWrongNetwork, Text: "another network"}}
	hreq := headersRequest{Hint: 300, Locator: []chainhash.Hash{fill(0x33), fill(0x44)}, Max: 2000}
	hskip := headersRequest{Hint: 300, Locator: []chainhash.Hash{fill(0x33)}, Max: 2000, Skip: 6000}
	hrep := headersReply{Start: 301, Count: 2, Bytes: 160, Tip: tip}
	byHeight := blocksRequest{ID: 5, Start: 1000, Count: 128, Last: fill(0x55), MaxBytes: 1 << 20}
	byHash := blocksRequest{ID: 6, MaxBytes: 4_000_000, Hashes: []chainhash.Hash{fill(0x66)}}
	cancel := blocksRequest{ID: 5, Cancel: true}
	block := frame{ID: 5, Length: 285}
	end := frame{ID: 5, End: true}
	large := frame{ID: 6, End: true, Status: statusTooLarge, Size: 3_999_999}
	byIndex := txsRequest{Block: fill(0x77), Indexes: []uint32{1, 2, 300}}
	byID := txsRequest{IDs: []chainhash.Hash{fill(0x88)}}
	trep := txsReply{Sizes: []uint32{250, 0, 300}}
	paid := helloMessage{Tip: &TipInfo{Height: 14131, Hash: fill(0x11), Work: big.NewInt(0x373337333733), Lowest: 1, MinFeeRate: 1331}}
	asked := txsRequest{List: &ListQuery{Run: 0x0102030405060708, After: 700, MinRate: 1000}}
	listed := txsReply{List: &List{Run: 0x0102030405060708, Last: 702, End: 900, Items: []ListItem{
		{ID: fill(0x88), Rate: 1500, Bytes: 222}, {ID: fill(0x99), Rate: 1<<32 - 1, Bytes: 400_000},
	}}}
	return []struct {
		name string
		msg  []byte
		back func([]byte) (any, error)
		want any
	}{
		{"hello", hello.append(nil), helloBack, hello},
		{"hello-tip-ping-pong", update.append(nil), helloBack, update},
		{"hello-bye", goodbye.append(nil), helloBack, goodbye},
		{"hello-tip-fee-rate", paid.append(nil), helloBack, paid},
		{"headers-request", hreq.append(nil), back(decodeHeadersRequest), hreq},
		{"headers-request-skip", hskip.append(nil), back(decodeHeadersRequest), hskip},
		{"headers-reply", hrep.append(nil), back(decodeHeadersReply), hrep},
		{"blocks-by-height", byHeight.append(nil), back(decodeBlocksRequest), byHeight},
		{"blocks-by-hash", byHash.append(nil), back(decodeBlocksRequest), byHash},
		{"blocks-cancel", cancel.append(nil), back(decodeBlocksRequest), cancel},
		{"frame-block", block.append(nil), back(decodeFrame), block},
		{"frame-end", end.append(nil), back(decodeFrame), end},
		{"frame-too-large", large.append(nil), back(decodeFrame), large},
		{"txs-by-index", byIndex.append(nil), back(decodeTxsRequest), byIndex},
		{"txs-by-id", byID.append(nil), back(decodeTxsRequest), byID},
		{"txs-list", asked.append(nil), back(decodeTxsRequest), asked},
		{"txs-reply", trep.append(nil), back(decodeTxsReply), trep},
		{"txs-reply-list", listed.append(nil), back(decodeTxsReply), listed},
	}
}

func back[T any](f func([]byte) (T, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) { return f(b) }
}

func helloBack(b []byte) (any, error) { return decodeHelloMessage(b) }

func TestMessagesRoundTrip(t *testing.T) {
	for _, v := range vectors() {
		got, err := v.back(v.msg)
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
		} else if !reflect.DeepEqual(got, v.want) {
			t.Errorf("%s: got %+v, want %+v", v.name, got, v.want)
		}
		// A field that a later version adds is skipped.
		more := append(append([]byte(nil), v.msg...), 0x9a, 0x06, 2, 1, 2)
		if got, err := v.back(more); err != nil || !reflect.DeepEqual(got, v.want) {
			t.Errorf("%s with an unknown field: %+v, %v", v.name, got, err)
		}
		for i := range v.msg {
			_, _ = v.back(v.msg[:i]) // must not panic
		}
	}
}

// TestVectorsOfTheDocument: docs/protocol.md gives the bytes, delimited, of each message.
func TestVectorsOfTheDocument(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors() {
		line := v.name + " " + hex.EncodeToString(appendDelimited(nil, v.msg))
		if !strings.Contains(string(doc), "\n"+line+"\n") {
			t.Errorf("docs/protocol.md lacks the line\n%s", line)
		}
	}
}

func TestDecodersRefuse(t *testing.T) {
	h := fill(1)
	long := putBytes(nil, 1, make([]byte, 33))
	tip := appendTip(nil, &TipInfo{Hash: h})
	locator := func(n int) (b []byte) {
		for range n {
			b = putBytes(b, 2, h[:])
		}
		return b
	}
	ids := func(n int) (b []byte) {
		for range n {
			b = putBytes(b, 3, h[:])
		}
		return b
	}
	indexes := func(n int) []byte {
		r := txsRequest{Block: h, Indexes: make([]uint32, n)}
		for i := range r.Indexes {
			r.Indexes[i] = uint32(i)
		}
		return r.append(nil)
	}
	for _, tc := range []struct {
		name string
		f    func([]byte) (any, error)
		b    []byte
		ok   bool
	}{
		{"hello without genesis", helloBack, putBytes(nil, 1, putBytes(nil, 4, tip)), false},
		{"hello without tip", helloBack, putBytes(nil, 1, putBytes(nil, 3, h[:])), false},
		{"hello", helloBack, putBytes(nil, 1, putBytes(putBytes(nil, 3, h[:]), 4, tip)), true},
		{"tip without hash", helloBack, putBytes(nil, 2, putUint(nil, 1, 5)), false},
		{"tip with height over 31 bits", helloBack, putBytes(nil, 2, putUint(tip, 1, 1<<31)), false},
		{"work of 32 bytes", helloBack, putBytes(nil, 2, putBytes(tip, 3, make([]byte, 32))), true},
		{"work of 33 bytes", helloBack, putBytes(nil, 2, putBytes(tip, 3, make([]byte, 33))), false},
		{"hash of 33 bytes", back(decodeTxsRequest), long, false},
		{"wrong wire type", back(decodeFrame), putBytes(nil, 1, []byte{1}), false},
		{"locator of 64", back(decodeHeadersRequest), locator(MaxLocator), true},
		{"locator of 65", back(decodeHeadersRequest), locator(MaxLocator + 1), false},
		{"2000 headers", back(decodeHeadersReply), putUint(putBytes(nil, 4, tip), 2, MaxHeaders), true},
		{"2001 headers", back(decodeHeadersReply), putUint(putBytes(nil, 4, tip), 2, MaxHeaders+1), false},
		{"headers reply without tip", back(decodeHeadersReply), nil, false},
		{"no id", back(decodeBlocksRequest), (&blocksRequest{Count: 1, MaxBytes: 1}).append(nil), false},
		{"nothing asked", back(decodeBlocksRequest), (&blocksRequest{ID: 1, MaxBytes: 1}).append(nil), false},
		{"no max bytes", back(decodeBlocksRequest), (&blocksRequest{ID: 1, Count: 1}).append(nil), false},
		{"no last hash", back(decodeBlocksRequest), putUint(putUint(putUint(nil, 1, 1), 3, 1), 5, 1), false},
		{"128 blocks", back(decodeBlocksRequest), (&blocksRequest{ID: 1, Count: 128, MaxBytes: 1}).append(nil), true},
		{"129 blocks", back(decodeBlocksRequest), (&blocksRequest{ID: 1, Count: 129, MaxBytes: 1}).append(nil), false},
		{"128 hashes", back(decodeBlocksRequest), (&blocksRequest{ID: 1, MaxBytes: 1, Hashes: make([]chainhash.Hash, 128)}).append(nil), true},
		{"129 hashes", back(decodeBlocksRequest), (&blocksRequest{ID: 1, MaxBytes: 1, Hashes: make([]chainhash.Hash, 129)}).append(nil), false},
		{"both ways", back(decodeBlocksRequest), (&blocksRequest{ID: 1, Count: 1, MaxBytes: 1, Hashes: make([]chainhash.Hash, 1)}).append(nil), false},
		{"end with a block", back(decodeFrame), (&frame{ID: 1, End: true, Length: 1}).append(nil), false},
		{"empty block", back(decodeFrame), (&frame{ID: 1}).append(nil), false},
		{"20,000 indexes", back(decodeTxsRequest), indexes(MaxTxIndexes), true},
		{"20,001 indexes", back(decodeTxsRequest), indexes(MaxTxIndexes + 1), false},
		{"list and ids", back(decodeTxsRequest), (&txsRequest{List: &ListQuery{}, IDs: make([]chainhash.Hash, 1)}).append(nil), false},
		{"list and indexes", back(decodeTxsRequest), (&txsRequest{List: &ListQuery{}, Indexes: []uint32{1}}).append(nil), false},
		{"list of the most", back(decodeTxsReply), (&txsReply{List: &List{Items: make([]ListItem, MaxListItems)}}).append(nil), true},
		{"list of more", back(decodeTxsReply), (&txsReply{List: &List{Items: make([]ListItem, MaxListItems+1)}}).append(nil), false},
		{"list of half an item", back(decodeTxsReply), putBytes(nil, 3, putBytes(nil, 4, make([]byte, 60))), false},
		{"list twice", back(decodeTxsReply), putBytes(nil, 3, append(putBytes(nil, 4, make([]byte, 40)), putBytes(nil, 4, make([]byte, 40))...)), false},
		{"list behind its end", back(decodeTxsReply), (&txsReply{List: &List{Last: 2, End: 1}}).append(nil), false},
		{"index twice", back(decodeTxsRequest), (&txsRequest{Indexes: []uint32{1, 1}}).append(nil), false},
		{"256 ids", back(decodeTxsRequest), ids(MaxTxIDs), true},
		{"257 ids", back(decodeTxsRequest), ids(MaxTxIDs + 1), false},
	} {
		_, err := tc.f(tc.b)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
		if err != nil && !errors.Is(err, errProtocol) {
			t.Errorf("%s: %v does not blame", tc.name, err)
		}
	}
}

// TestLargestMessagesFit: each limit in bytes has room for what the limits in
// elements allow.
func TestLargestMessagesFit(t *testing.T) {
	work := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))
	tip := TipInfo{Height: 1<<31 - 1, Work: work, Lowest: 1<<31 - 1}
	hello := Hello{Version: 1<<32 - 1, Agent: strings.Repeat("x", maxAgentBytes), Tip: tip, Services: 1<<64 - 1, Nonce: 1}
	indexes := make([]uint32, MaxTxIndexes)
	sizes := make([]uint32, MaxTxIndexes)
	for i := range indexes {
		indexes[i], sizes[i] = uint32(1<<21-1-MaxTxIndexes+i), 4_000_000
	}
	for _, tc := range []struct {
		name string
		b    []byte
		most int
	}{
		{"hello", (&helloMessage{Hello: &hello, Tip: &tip, Bye: &bye{1, strings.Repeat("x", maxReasonBytes)}, Ping: 1, Pong: 1}).append(nil), maxHelloBytes},
		{"headers request", (&headersRequest{Hint: 1<<31 - 1, Locator: make([]chainhash.Hash, MaxLocator), Max: MaxHeaders, Skip: 1<<31 - 1}).append(nil), maxHeadersRequest},
		{"headers reply", (&headersReply{Start: 1<<31 - 1, Count: MaxHeaders, Bytes: 1<<31 - 1, Tip: tip}).append(nil), maxHeadersReply},
		{"blocks request", (&blocksRequest{ID: 1<<64 - 1, MaxBytes: 1<<63 - 1, Hashes: make([]chainhash.Hash, MaxBlocksRequest)}).append(nil), maxBlocksRequest},
		{"frame", (&frame{ID: 1<<64 - 1, End: true, Length: 1<<63 - 1, Status: 1<<32 - 1, Size: 1<<63 - 1}).append(nil), maxFrameHeader},
		{"txs by index", (&txsRequest{Indexes: indexes}).append(nil), maxTxsRequest},
		{"txs by id", (&txsRequest{IDs: make([]chainhash.Hash, MaxTxIDs)}).append(nil), maxTxsRequest},
		{"txs list", (&txsRequest{List: &ListQuery{1<<64 - 1, 1<<64 - 1, 1<<63 - 1}}).append(nil), maxTxsRequest},
		{"txs reply of a list", (&txsReply{Status: 1<<32 - 1, List: &List{make([]ListItem, MaxListItems), 1<<64 - 1, 1<<64 - 1, 1<<64 - 1}}).append(nil), maxTxsReply},
		{"txs reply", (&txsReply{Status: 1<<32 - 1, Sizes: sizes}).append(nil), maxTxsReply},
	} {
		if len(tc.b) > tc.most {
			t.Errorf("%s: %d bytes, the limit is %d", tc.name, len(tc.b), tc.most)
		}
	}
}

func TestReadMessage(t *testing.T) {
	read := func(b []byte, limit int) ([]byte, error) {
		return readMessage(bufio.NewReader(bytes.NewReader(b)), nil, limit)
	}
	if b, err := read([]byte{3, 'a', 'b', 'c'}, 3); err != nil || string(b) != "abc" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := read([]byte{4, 'a', 'b', 'c', 'd'}, 3); !errors.Is(err, errProtocol) {
		t.Errorf("over the limit: %v", err)
	}
	if _, err := read([]byte{3, 'a'}, 3); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: %v", err)
	}
	if _, err := read(nil, 3); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
	if _, err := read([]byte{0x80}, 3); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut length: %v", err)
	}
	if _, err := read([]byte{0x80, 0x80, 0x80, 0x80, 0x80, 1}, 3); !errors.Is(err, errProtocol) {
		t.Errorf("long length: %v", err)
	}
}

func TestHelloIDs(t *testing.T) {
	for id, want := range map[string]bool{
		"/dunlin/regtest-0f9188f1/hello/1":                 true,
		"/dunlin//hello/1":                                 false,
		"/dunlin/a/b/hello/1":                              false,
		"/dunlin/a/hello/2":                                false,
		"/other/a/hello/1":                                 false,
		"/dunlin/" + strings.Repeat("x", 200) + "/hello/1": false,
	} {
		if isHello(protocolID(id)) != want {
			t.Errorf("%s: %v", id, !want)
		}
	}
}

// inBounds runs f on n bytes of input and checks what it allocates: at most 8 times the
// input and 64 KiB.
func inBounds(t testing.TB, n int, f func()) {
	t.Helper()
	most := uint64(8*n + 64<<10)
	for tries := 0; ; tries++ { // others may allocate at the same time
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		got := after.TotalAlloc - before.TotalAlloc
		if got <= most {
			return
		}
		if tries == 4 {
			t.Fatalf("%d bytes took %d of memory, at most %d", n, got, most)
		}
	}
}

// fuzz checks that a decoder neither panics nor blames anybody else than the
// sender, and that what it accepts survives a round trip.
func fuzz[T any](f *testing.F, decode func([]byte) (T, error), encode func(*T) []byte) {
	f.Helper()
	for _, v := range vectors() {
		f.Add(v.msg)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m T
		var err error
		inBounds(t, len(b), func() { m, err = decode(b) })
		if err != nil {
			if !errors.Is(err, errProtocol) {
				t.Fatalf("%v does not blame", err)
			}
			return
		}
		again, err := decode(encode(&m))
		if err != nil {
			t.Fatalf("%+v: its own encoding: %v", m, err)
		}
		if !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v became %+v", m, again)
		}
	})
}

func FuzzHello(f *testing.F) {
	fuzz(f, decodeHelloMessage, func(m *helloMessage) []byte { return m.append(nil) })
}

func FuzzHeadersRequest(f *testing.F) {
	fuzz(f, decodeHeadersRequest, func(m *headersRequest) []byte { return m.append(nil) })
}

func FuzzHeadersReply(f *testing.F) {
	fuzz(f, decodeHeadersReply, func(m *headersReply) []byte { return m.append(nil) })
}

func FuzzBlocksRequest(f *testing.F) {
	fuzz(f, func(b []byte) (blocksRequest, error) {
		r, err := decodeBlocksRequest(b)
		if r.Cancel { // the rest means nothing then
			r = blocksRequest{ID: r.ID, Cancel: true}
		}
		if r.Count == 0 {
			r.Last = chainhash.Hash{}
		}
		return r, err
	}, func(m *blocksRequest) []byte { return m.append(nil) })
}

func FuzzFrame(f *testing.F) {
	fuzz(f, decodeFrame, func(m *frame) []byte { return m.append(nil) })
}

func FuzzTxsRequest(f *testing.F) {
	fuzz(f, func(b []byte) (txsRequest, error) {
		r, err := decodeTxsRequest(b)
		if len(r.Indexes) == 0 {
			r.Block = chainhash.Hash{}
		}
		return r, err
	}, func(m *txsRequest) []byte { return m.append(nil) })
}

func FuzzTxsReply(f *testing.F) {
	fuzz(f, decodeTxsReply, func(m *txsReply) []byte { return m.append(nil) })
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte{3, 'a', 'b', 'c'})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m []byte
		var err error
		inBounds(t, len(b), func() { m, err = readMessage(bufio.NewReader(bytes.NewReader(b)), nil, 64) })
		if err == nil && (len(m) > 64 || len(m) >= len(b)) {
			t.Fatalf("%d bytes of %d", len(m), len(b))
		}
	})
}
