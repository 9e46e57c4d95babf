package exchange

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"

	"github.com/btcsuite/btcd/chainhash/v2"
	"google.golang.org/protobuf/encoding/protowire"
)

// errProtocol marks what a peer sent as a breach of the protocol: it is to
// blame. Errors of the stream itself (reset, deadline) do not wrap it.
var errProtocol = errors.New("protocol violation")

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errProtocol, fmt.Errorf(format, args...))
}

// Services says what a peer offers, one bit each. Unknown bits are kept.
type Services uint64

// The services of this version.
const (
	ServeBlocks Services = 1 << 0 // headers and blocks from its lowest served height on
	ServeTxs    Services = 1 << 1 // transactions of blocks and of its mempool
	// ProbeOnly says that this connection asks for nothing but the hello (a DNS
	// seed's crawler): it is answered and not counted as a peer.
	ProbeOnly Services = 1 << 2
	// KeepsYou says that the sender keeps this peer connected for ever. If both say
	// so of one another, they may send each other everything.
	KeepsYou Services = 1 << 3
	// ServeList says that it lists its mempool.
	ServeList Services = 1 << 4
)

// A TipInfo is what a peer says of the end of its validated chain. Nothing of it is
// proven: it says whom to ask for headers.
type TipInfo struct {
	Height int32
	Hash   chainhash.Hash
	Work   *big.Int // cumulative, at most 256 bits; never nil once decoded; must not be changed
	Lowest int32    // lowest height whose block it serves
	// MinFeeRate is what a transaction must pay, in satoshi per 1000 virtual bytes,
	// to get into its mempool now, about; 0: it does not say.
	MinFeeRate int64
}

// A Hello is the first message each way on a connection.
type Hello struct {
	Version  uint32
	Agent    string // at most 64 printable ASCII characters
	Genesis  chainhash.Hash
	Tip      TipInfo
	Services Services
	Nonce    uint64 // the same in every hello of one run, to recognise oneself
}

// byeCode says why a peer says goodbye.
type byeCode uint32

const (
	byeShutdown     byeCode = 1
	byeWrongNetwork byeCode = 2
	byeVersion      byeCode = 3
	byeSelf         byeCode = 4
	byeMisbehaved   byeCode = 5
	byeProbed       byeCode = 6
)

type bye struct {
	Code byeCode
	Text string
}

// helloMessage is one message on a hello stream; any subset of the fields.
type helloMessage struct {
	Hello *Hello
	Tip   *TipInfo
	Bye   *bye
	Ping  uint64 // 0: none
	Pong  uint64 // 0: none
}

// status is how a server ends a reply.
type status uint32

const (
	statusOK        status = 0
	statusNotFound  status = 1
	statusBusy      status = 2
	statusTooLarge  status = 3 // the first block alone exceeds max bytes; size says how large it is
	statusCancelled status = 4
	statusNotYet    status = 5 // by block hash only: relayed, not completed yet; ask again, nobody is to blame
)

type headersRequest struct {
	Hint    int32 // height of Locator[0], for the server's log; not trusted
	Locator []chainhash.Hash
	Max     int
	Skip    int32 // headers after the locator's to leave out
}

type headersReply struct {
	Start int32 // height of the first header
	Count int
	Bytes int // of the raw headers that follow the message
	Tip   TipInfo
}

// blocksRequest asks for blocks Start … Start+Count-1 of the branch whose block
// at height Start+Count-1 is Last, or for Hashes, or withdraws request ID.
type blocksRequest struct {
	ID       uint64
	Start    int32
	Count    int
	Last     chainhash.Hash
	MaxBytes int64
	Hashes   []chainhash.Hash
	Cancel   bool
}

// frame goes before a raw block (Length > 0) or ends a reply (Length 0).
type frame struct {
	ID     uint64
	End    bool
	Length int64 // of the raw block that follows; not with End
	Status status
	Size   int64 // with statusTooLarge
}

// txsRequest asks for transactions of Block by Indexes (ascending), or for
// transactions of the mempool by IDs, or for a list of them.
type txsRequest struct {
	Block   chainhash.Hash
	Indexes []uint32
	IDs     []chainhash.Hash
	List    *ListQuery
}

// A ListQuery asks what a peer's mempool has.
type ListQuery struct {
	// Run and After say where an earlier list of the same peer ended; a position of
	// another run is the beginning. After beyond the end asks where the end is.
	Run, After uint64
	MinRate    int64 // satoshi per 1000 virtual bytes; leaves out what pays less
}

// A ListItem is what a peer says of a transaction of its mempool. Nothing of it is proven.
type ListItem struct {
	ID    chainhash.Hash
	Rate  uint32 // satoshi per 1000 virtual bytes, with what builds on it if that is more; the most for all above
	Bytes uint32 // serialised, with witness
}

// A List is a part of a peer's mempool, parents before their children.
type List struct {
	Items     []ListItem // at most MaxListItems
	Run       uint64
	Last, End uint64 // position to go on from; that of the newest. The same: there is no more
}

// txsReply goes before the raw transactions: their sizes in the order asked, 0
// for one that is not there.
type txsReply struct {
	Status status
	Sizes  []uint32
	List   *List
}

// field calls f with each field of the message b: v is the content of a
// length-delimited field (aliasing b), n the value of a varint or fixed64 one.
// f ignores numbers that it does not know.
func fields(b []byte, f func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error) error {
	for len(b) > 0 {
		num, typ, k := protowire.ConsumeTag(b)
		if k < 0 {
			return violation("tag: %w", protowire.ParseError(k))
		}
		b = b[k:]
		var v []byte
		var n uint64
		switch typ {
		case protowire.VarintType:
			n, k = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			n, k = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v, k = protowire.ConsumeBytes(b)
		default:
			k = protowire.ConsumeFieldValue(num, typ, b)
		}
		if k < 0 {
			return violation("field %d: %w", num, protowire.ParseError(k))
		}
		b = b[k:]
		if err := f(num, typ, v, n); err != nil {
			return fmt.Errorf("field %d: %w", num, err)
		}
	}
	return nil
}

// want checks the wire type of a field that is known.
func want(got, typ protowire.Type) error {
	if got != typ {
		return violation("wire type %d, want %d", got, typ)
	}
	return nil
}

func getHash(dst *chainhash.Hash, typ protowire.Type, v []byte) error {
	if err := want(typ, protowire.BytesType); err != nil {
		return err
	}
	if len(v) != chainhash.HashSize {
		return violation("hash of %d bytes, want %d", len(v), chainhash.HashSize)
	}
	copy(dst[:], v)
	return nil
}

// getUint stores a varint that may not exceed limit.
func getUint[T ~int | ~int32 | ~int64 | ~uint32 | ~uint64](dst *T, typ protowire.Type, n, limit uint64) error {
	if err := want(typ, protowire.VarintType); err != nil {
		return err
	}
	if n > limit {
		return violation("value %d over the limit of %d", n, limit)
	}
	*dst = T(n)
	return nil
}

func getFixed(dst *uint64, typ protowire.Type, n uint64) error {
	if err := want(typ, protowire.Fixed64Type); err != nil {
		return err
	}
	*dst = n
	return nil
}

// getHashes appends a hash to a list of at most limit.
func getHashes(dst *[]chainhash.Hash, typ protowire.Type, v []byte, limit int) error {
	if len(*dst) >= limit {
		return violation("over %d hashes", limit)
	}
	var h chainhash.Hash
	if err := getHash(&h, typ, v); err != nil {
		return err
	}
	*dst = append(*dst, h)
	return nil
}

// getPacked appends packed or single uint32 values to a list of at most limit.
func getPacked(dst *[]uint32, typ protowire.Type, v []byte, n uint64, limit int) error {
	add := func(n uint64) error {
		if len(*dst) >= limit {
			return violation("over %d values", limit)
		}
		if n > math.MaxUint32 {
			return violation("value %d over 32 bits", n)
		}
		*dst = append(*dst, uint32(n))
		return nil
	}
	if typ == protowire.VarintType {
		return add(n)
	}
	if err := want(typ, protowire.BytesType); err != nil {
		return err
	}
	for len(v) > 0 {
		n, k := protowire.ConsumeVarint(v)
		if k < 0 {
			return violation("packed value: %w", protowire.ParseError(k))
		}
		v = v[k:]
		if err := add(n); err != nil {
			return err
		}
	}
	return nil
}

func putUint(b []byte, num protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), n)
}

func putFixed(b []byte, num protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), n)
}

func putBytes(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

// nonNegative turns a height into its wire form; heights are never negative.
func nonNegative[T ~int | ~int32 | ~int64](n T) uint64 { return uint64(max(n, 0)) }

func appendTip(b []byte, t *TipInfo) []byte {
	b = putUint(b, 1, nonNegative(t.Height))
	b = putBytes(b, 2, t.Hash[:])
	if t.Work != nil && t.Work.Sign() > 0 {
		b = putBytes(b, 3, t.Work.Bytes())
	}
	b = putUint(b, 4, nonNegative(t.Lowest))
	return putUint(b, 5, nonNegative(t.MinFeeRate))
}

func decodeTip(b []byte) (TipInfo, error) {
	t := TipInfo{Work: new(big.Int)}
	var hashed bool
	err := fields(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch num {
		case 1:
			return getUint(&t.Height, typ, n, math.MaxInt32)
		case 2:
			hashed = true
			return getHash(&t.Hash, typ, v)
		case 3:
			if err := want(typ, protowire.BytesType); err != nil {
				return err
			}
			if len(v) > maxWorkBytes {
				return violation("work of %d bytes over the limit of %d", len(v), maxWorkBytes)
			}
			t.Work.SetBytes(v)
		case 4:
			return getUint(&t.Lowest, typ, n, math.MaxInt32)
		case 5:
			return getUint(&t.MinFeeRate, typ, n, math.MaxInt64)
		}
		return nil
	})
	if err == nil && !hashed {
		err = violation("tip without a hash")
	}
	return t, err
}

func appendHello(b []byte, h *Hello) []byte {
	b = putUint(b, 1, uint64(h.Version))
	if h.Agent != "" {
		b = putBytes(b, 2, []byte(h.Agent))
	}
	b = putBytes(b, 3, h.Genesis[:])
	b = putBytes(b, 4, appendTip(nil, &h.Tip))
	b = putUint(b, 5, uint64(h.Services))
	return putFixed(b, 6, h.Nonce)
}

func decodeHello(b []byte) (Hello, error) {
	var h Hello
	var genesis, tip bool
	err := fields(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch num {
		case 1:
			return getUint(&h.Version, typ, n, math.MaxUint32)
		case 2:
			if err := want(typ, protowire.BytesType); err != nil {
				return err
			}
			h.Agent = printable(v, maxAgentBytes)
		case 3:
			genesis = true
			return getHash(&h.Genesis, typ, v)
		case 4:
			if err := want(typ, protowire.BytesType); err != nil {
				return err
			}
			var err error
			tip = true
			h.Tip, err = decodeTip(v)
			return err
		case 5:
			return getUint(&h.Services, typ, n, math.MaxUint64)
		case 6:
			return getFixed(&h.Nonce, typ, n)
		}
		return nil
	})
	switch {
	case err != nil:
	case !genesis:
		err = violation("hello without a genesis")
	case !tip:
		err = violation("hello without a tip")
	}
	return h, err
}

func (m *helloMessage) append(b []byte) []byte {
	if m.Hello != nil {
		b = putBytes(b, 1, appendHello(nil, m.Hello))
	}
	if m.Tip != nil {
		b = putBytes(b, 2, appendTip(nil, m.Tip))
	}
	if m.Bye != nil {
		v := putUint(nil, 1, uint64(m.Bye.Code))
		if m.Bye.Text != "" {
			v = putBytes(v, 2, []byte(m.Bye.Text))
		}
		b = putBytes(b, 3, v)
	}
	b = putFixed(b, 4, m.Ping)
	return putFixed(b, 5, m.Pong)
}

func decodeHelloMessage(b []byte) (helloMessage, error) {
	var m helloMessage
	err := fields(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch num {
		case 1, 2, 3:
			if err := want(typ, protowire.BytesType); err != nil {
				return err
			}
		}
		switch num {
		case 1:
			h, err := decodeHello(v)
			m.Hello = &h
			return err
		case 2:
			t, err := decodeTip(v)
			m.Tip = &t
			return err
		case 3:
			m.Bye = &bye{}
			return fields(v, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
				switch num {
				case 1:
					return getUint(&m.Bye.Code, typ, n, math.MaxUint32)
				case 2:
					if err := want(typ, protowire.BytesType); err != nil {
						return err
					}
					m.Bye.Text = printable(v, maxReasonBytes)
				}
				return nil
			})
		case 4:
			return getFixed(&m.Ping, typ, n)
		case 5:
			return getFixed(&m.Pong, typ, n)
		}
		return nil
	})
	return m, err
}

func (r *headersRequest) append(b []byte) []byte {
	b = putUint(b, 1, nonNegative(r.Hint))
	for i := range r.Locator {
		b = putBytes(b, 2, r.Locator[i][:])
	}
	b = putUint(b, 3, nonNegative(r.Max))
	return putUint(b, 4, nonNegative(r.Skip))
}

func decodeHeadersRequest(b []byte) (headersRequest, error) {
	var r headersRequest
	err := fields(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch num {
		case 1:
			return getUint(&r.Hint, typ, n, math.MaxInt32)
		case 2:
			return getHashes(&r.Locator, typ, v, MaxLocator)
		case 3:
			return getUint(&r.Max, typ, n, math.MaxInt32)
		case 4:
			return getUint(&r.Skip, typ, n, math.MaxInt32)
		}
		return nil
	})
	return r, err
}

func (r *headersReply) append(b []byte) []byte {
	b = putUint(b, 1, nonNegative(r.Start))
	b = putUint(b, 2, nonNegative(r.Count))
	b = putUint(b, 3, nonNegative(r.Bytes))
	return putBytes(b, 4, appendTip(nil, &r.Tip))
}

func decodeHeadersReply(b []byte) (headersReply, error) {
	r := headersReply{Tip: TipInfo{Work: new(big.Int)}}
	var tip bool
	err := fields(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch num {
		case 1:
			return getUint(&r.Start, typ, n, math.MaxInt32)
		case 2:
			return getUint(&r.Count, typ, n, MaxHeaders)
		case 3:
			return getUint(&r.Bytes, typ, n, math.MaxInt32)
		case 4:
			if err := want(typ, protowire.BytesType); err != nil {
				return err
			}
			var err error
			tip = true
			r.Tip, err = decodeTip(v)
			return err
		}
		return nil
	})
	if err == nil && !tip {
		err = violation("headers reply without a tip")
	}
	return r, err
}

func (r *blocksRequest) append(b []byte) []byte {
	b = putUint(b, 1, r.ID)
	if r.Cancel {
		return putUint(b, 7, 1)
	}
	b = putUint(b, 2, nonNegative(r.Start))
	b = putUint(b, 3, nonNegative(r.Count))
	if r.Count > 0 {
		b = putBytes(b, 4, r.Last[:])
	}
	b = putUint(b, 5, nonNegative(r.MaxBytes))
	for i := range r.Hashes {
		b = putBytes(b, 6, r.Hashes[i][:])
	}
	return b
}

func decodeBlocksRequest(b []byte) (blocksRequest, error) {
	var r blocksRequest
	var last bool
	err := fields(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch num {
		case 1:
			return getUint(&r.ID, typ, n, math.MaxUint64)
		case 2:
			return getUint(&r.Start, typ, n, math.MaxInt32-MaxBlocksRequest)
		case 3:
			return getUint(&r.Count, typ, n, MaxBlocksRequest)
		case 4:
			last = true
			return getHash(&r.Last, typ, v)
		case 5:
			return getUint(&r.MaxBytes, typ, n, math.MaxInt64)
		case 6:
			return getHashes(&r.Hashes, typ, v, MaxBlocksRequest)
		case 7:
			if err := want(typ, protowire.VarintType); err != nil {
				return err
			}
			r.Cancel = n != 0
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	switch {
	case r.ID == 0:
		return r, violation("blocks request without an id")
	case r.Cancel:
	case r.Count > 0 && len(r.Hashes) > 0:
		return r, violation("blocks request by height and by hash")
	case r.Count == 0 && len(r.Hashes) == 0:
		return r, violation("blocks request for nothing")
	case r.Count > 0 && !last:
		return r, violation("blocks request by height without the last hash")
	case r.MaxBytes == 0:
		return r, violation("blocks request without max bytes")
	}
	return r, nil
}

func (f *frame) append(b []byte) []byte {
	b = putUint(b, 1, f.ID)
	b = putUint(b, 2, nonNegative(f.Length))
	if f.End {
		b = putUint(b, 3, 1)
	}
	b = putUint(b, 4, uint64(f.Status))
	return putUint(b, 5, nonNegative(f.Size))
}

func decodeFrame(b []byte) (frame, error) {
	var f frame
	err := fields(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch num {
		case 1:
			return getUint(&f.ID, typ, n, math.MaxUint64)
		case 2:
			return getUint(&f.Length, typ, n, math.MaxInt64)
		case 3:
			if err := want(typ, protowire.VarintType); err != nil {
				return err
			}
			f.End = n != 0
		case 4:
			return getUint(&f.Status, typ, n, math.MaxUint32)
		case 5:
			return getUint(&f.Size, typ, n, math.MaxInt64)
		}
		return nil
	})
	switch {
	case err != nil:
	case f.End && f.Length != 0:
		err = violation("end of a reply with a block")
	case !f.End && f.Length == 0:
		err = violation("empty block")
	}
	return f, err
}

func (r *txsRequest) append(b []byte) []byte {
	if len(r.Indexes) > 0 {
		b = putBytes(b, 1, r.Block[:])
		b = putPacked(b, 2, r.Indexes)
	}
	for i := range r.IDs {
		b = putBytes(b, 3, r.IDs[i][:])
	}
	if q := r.List; q != nil {
		var v []byte
		v = putFixed(v, 1, q.Run)
		v = putUint(v, 2, q.After)
		v = putUint(v, 3, uint64(q.MinRate))
		b = putBytes(b, 4, v)
	}
	return b
}

func decodeListQuery(b []byte) (*ListQuery, error) {
	q := &ListQuery{}
	err := fields(b, func(num protowire.Number, typ protowire.Type, _ []byte, n uint64) error {
		switch num {
		case 1:
			return getFixed(&q.Run, typ, n)
		case 2:
			return getUint(&q.After, typ, n, math.MaxUint64)
		case 3:
			return getUint(&q.MinRate, typ, n, math.MaxInt64)
		}
		return nil
	})
	return q, err
}

// listItemBytes is an item on the wire: id ‖ rate 4 ‖ bytes 4, little endian.
const listItemBytes = chainhash.HashSize + 4 + 4

func (l *List) append(b []byte) []byte {
	v := make([]byte, 0, len(l.Items)*listItemBytes)
	for i := range l.Items {
		it := &l.Items[i]
		v = append(v, it.ID[:]...)
		v = binary.LittleEndian.AppendUint32(v, it.Rate)
		v = binary.LittleEndian.AppendUint32(v, it.Bytes)
	}
	b = putFixed(b, 1, l.Run)
	b = putUint(b, 2, l.Last)
	b = putUint(b, 3, l.End)
	if len(v) > 0 {
		b = putBytes(b, 4, v)
	}
	return b
}

func decodeList(b []byte) (*List, error) {
	l := &List{}
	err := fields(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch num {
		case 1:
			return getFixed(&l.Run, typ, n)
		case 2:
			return getUint(&l.Last, typ, n, math.MaxUint64)
		case 3:
			return getUint(&l.End, typ, n, math.MaxUint64)
		case 4:
			if err := want(typ, protowire.BytesType); err != nil {
				return err
			}
			if len(v)%listItemBytes != 0 || len(l.Items) > 0 || len(v) > MaxListItems*listItemBytes {
				return violation("list of %d bytes", len(v))
			}
			if len(v) == 0 {
				return nil
			}
			l.Items = make([]ListItem, len(v)/listItemBytes)
			for i := range l.Items {
				copy(l.Items[i].ID[:], v)
				l.Items[i].Rate = binary.LittleEndian.Uint32(v[chainhash.HashSize:])
				l.Items[i].Bytes = binary.LittleEndian.Uint32(v[chainhash.HashSize+4:])
				v = v[listItemBytes:]
			}
		}
		return nil
	})
	if err == nil && l.Last > l.End {
		err = violation("list up to %d of %d", l.Last, l.End)
	}
	return l, err
}

func putPacked(b []byte, num protowire.Number, ns []uint32) []byte {
	if len(ns) == 0 {
		return b
	}
	v := make([]byte, 0, len(ns)*3)
	for _, n := range ns {
		v = protowire.AppendVarint(v, uint64(n))
	}
	return putBytes(b, num, v)
}

func decodeTxsRequest(b []byte) (txsRequest, error) {
	var r txsRequest
	var block bool
	err := fields(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch num {
		case 1:
			block = true
			return getHash(&r.Block, typ, v)
		case 2:
			return getPacked(&r.Indexes, typ, v, n, MaxTxIndexes)
		case 3:
			return getHashes(&r.IDs, typ, v, MaxTxIDs)
		case 4:
			if err := want(typ, protowire.BytesType); err != nil {
				return err
			}
			var err error
			r.List, err = decodeListQuery(v)
			return err
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	switch {
	case r.List != nil && len(r.Indexes)+len(r.IDs) > 0:
		return r, violation("txs request for a list and for transactions")
	case r.List != nil:
		return r, nil
	case len(r.Indexes) > 0 && len(r.IDs) > 0:
		return r, violation("txs request by index and by id")
	case len(r.Indexes) == 0 && len(r.IDs) == 0:
		return r, violation("txs request for nothing")
	case len(r.Indexes) > 0 && !block:
		return r, violation("txs request by index without a block")
	}
	for i := 1; i < len(r.Indexes); i++ {
		if r.Indexes[i] <= r.Indexes[i-1] {
			return r, violation("txs request with indexes out of order")
		}
	}
	return r, nil
}

func (r *txsReply) append(b []byte) []byte {
	b = putUint(b, 1, uint64(r.Status))
	b = putPacked(b, 2, r.Sizes)
	if r.List != nil {
		b = putBytes(b, 3, r.List.append(nil))
	}
	return b
}

func decodeTxsReply(b []byte) (txsReply, error) {
	var r txsReply
	err := fields(b, func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error {
		switch num {
		case 1:
			return getUint(&r.Status, typ, n, math.MaxUint32)
		case 2:
			return getPacked(&r.Sizes, typ, v, n, MaxTxIndexes)
		case 3:
			if err := want(typ, protowire.BytesType); err != nil {
				return err
			}
			var err error
			r.List, err = decodeList(v)
			return err
		}
		return nil
	})
	return r, err
}

// printable cuts b to limit characters and replaces whatever is not printable ASCII,
// so that a peer's words are safe in a log line and on a terminal.
func printable(b []byte, limit int) string {
	b = b[:min(len(b), limit)]
	out := make([]byte, len(b))
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			c = '?'
		}
		out[i] = c
	}
	return string(out)
}

// byteReader is what messages are read from: a buffered stream.
type byteReader interface {
	io.Reader
	io.ByteReader
}

// readMessage reads one length-delimited message of at most limit bytes into
// buf, which grows as needed. It returns io.EOF only between messages.
func readMessage(r byteReader, buf []byte, limit int) ([]byte, error) {
	n, err := readUvarint(r)
	if err != nil {
		return nil, err
	}
	if n > uint64(limit) {
		return nil, violation("message of %d bytes over the limit of %d", n, limit)
	}
	if uint64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, unexpectedEOF(err)
	}
	return buf, nil
}

// readUvarint reads a length of at most 32 bits: five bytes.
func readUvarint(r io.ByteReader) (uint64, error) {
	var n uint64
	for i := range 5 {
		c, err := r.ReadByte()
		if err != nil {
			if i > 0 {
				err = unexpectedEOF(err)
			}
			return 0, err
		}
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n, nil
		}
	}
	return 0, violation("length over five bytes")
}

func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendDelimited appends the length and the bytes of a message.
func appendDelimited(b, msg []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(msg))), msg...)
}
