package exchange

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"dunlin/chain"
	"dunlin/chain/consensus"
)

// maxMempoolReply bounds the transactions of one reply by id: what is past it is
// left out and can be asked for again.
const maxMempoolReply = 4 << 20

// poolBytesPerSecond and poolBurst bound what one peer may have of the mempool, by
// id or as lists: a newcomer takes a full one at once, which it needs no second
// time. Beyond, it is told to come back later.
const (
	poolBytesPerSecond = 512 << 10
	poolBurst          = 32 << 20
	// leastListCost is what a list costs at least: for one in which nothing pays enough
	// to be shown, thousands of transactions were looked at all the same.
	leastListCost = 64 << 10
)

// Errors of the fetches. Test with errors.Is.
var (
	ErrNotReady = errors.New("exchange: no hello with this peer")
	ErrNotFound = errors.New("exchange: the peer does not have it")
	ErrBusy     = errors.New("exchange: the peer is busy")
	ErrNotYet   = errors.New("exchange: the peer does not have it yet")
	// ErrViolation says that the peer broke the protocol (a wrong number, what does
	// not decode, more than was asked for): it has been disconnected and OnBlame was
	// told.
	ErrViolation = errProtocol
)

// serveTxs answers one request for transactions on one stream.
func (x *Exchange) serveTxs(ctx context.Context, r *remote, s network.Stream) error {
	in := bufio.NewReaderSize(&counted{s: s, timeout: x.o.HelloTimeout, count: &r.in}, 4<<10)
	buf, err := readMessage(in, nil, maxTxsRequest)
	if err != nil {
		return cleanEnd(err)
	}
	req, err := decodeTxsRequest(buf)
	if err != nil {
		return err
	}
	if err := r.requests.Wait(ctx); err != nil {
		return err
	}
	reply, parcel, err := x.findTxs(ctx, r, s, &req)
	if parcel != nil {
		defer x.outbox.give(parcel)
	}
	if err != nil {
		return err
	}
	w := &chunks{s: s, timeout: x.o.WriteTimeout, count: &r.out, parcel: parcel}
	out := bufio.NewWriterSize(w, 4<<10)
	if _, err := out.Write(appendDelimited(nil, reply.append(nil))); err != nil {
		return err
	}
	for _, tx := range reply.txs {
		if _, err := out.Write(tx); err != nil {
			return err
		}
		x.sent.bytes.Add(int64(len(tx)))
	}
	return out.Flush()
}

// foundTxs is a reply with its transactions.
type foundTxs struct {
	txsReply
	txs [][]byte
}

func (f *foundTxs) add(tx []byte) {
	f.txs = append(f.txs, tx)
	f.Sizes = append(f.Sizes, uint32(len(tx)))
}

func (f *foundTxs) total() (n int64) {
	for _, tx := range f.txs {
		n += int64(len(tx))
	}
	if f.List != nil {
		n += int64(len(f.List.Items)) * listItemBytes
	}
	return n
}

// decodesAtOnce bounds the memory of blocks that are read to pick transactions
// out of them.
const decodesAtOnce = 2

// findTxs gathers what req asks for. The parcel is what its memory takes, the
// caller's to give back; nil if there is none.
func (x *Exchange) findTxs(ctx context.Context, r *remote, s network.Stream, req *txsRequest) (reply foundTxs, p *parcel, err error) {
	if len(req.Indexes) > 0 {
		txs, known, err := x.pendingTxs(ctx, r, req)
		switch {
		case errors.Is(err, errNotYet):
			reply.Status = statusNotYet
			return reply, nil, nil
		case errors.Is(err, errNoIndex):
			reply.Status = statusNotFound
			return reply, nil, nil
		case err != nil:
			return reply, nil, err
		case known:
			for _, tx := range txs {
				reply.add(tx)
			}
		case x.o.Chain.BlockSize(req.Block) == 0:
			reply.Status = lacking(x.o.Chain, req.Block)
			return reply, nil, nil
		}
	}
	if len(reply.txs) == 0 {
		p, err = x.gatherTxs(ctx, r, s, req, &reply)
	} else {
		p, err = x.takeRoom(ctx, r, s, &reply)
	}
	if p != nil && err == nil {
		if err = x.gate.acquire(ctx, r.gone, &r.account, p.n, x.o.BusyAfter); err == nil {
			x.gate.release(&r.account, 0)
		}
	}
	if errors.Is(err, errBusy) {
		x.sent.busy.Add(1)
		return foundTxs{txsReply: txsReply{Status: statusBusy}}, p, nil
	}
	return reply, p, err
}

// gatherTxs reads what req asks for from disk or from the mempool, when it is its
// turn.
func (x *Exchange) gatherTxs(ctx context.Context, r *remote, s network.Stream, req *txsRequest, reply *foundTxs) (*parcel, error) {
	if err := x.decodes.acquire(ctx, r.gone, &r.searches, 1, x.o.BusyAfter); err != nil {
		return nil, err
	}
	defer x.decodes.release(&r.searches, 0)
	switch {
	case req.List != nil && x.o.List == nil:
		return nil, violation("request for a list that is not offered")
	case len(req.Indexes) == 0 && r.pool.TokensAt(x.o.Now()) < maxMempoolReply:
		return nil, errBusy
	case req.List != nil:
		l := x.o.List(*req.List)
		l.Items = l.Items[:min(len(l.Items), MaxListItems)]
		reply.List = &l
	case len(req.IDs) > 0:
		x.findByID(reply, req)
	default:
		if err := x.findByIndex(reply, req); err != nil {
			return nil, err
		}
	}
	if len(req.Indexes) == 0 {
		cost := reply.total()
		if req.List != nil {
			cost = max(cost, leastListCost)
		}
		r.pool.ReserveN(x.o.Now(), int(cost)) // it had so much left, unless several came at once
	}
	return x.takeRoom(ctx, r, s, reply)
}

// takeRoom waits for room for a reply; nil: it needs none.
func (x *Exchange) takeRoom(ctx context.Context, r *remote, s network.Stream, reply *foundTxs) (*parcel, error) {
	total := reply.total()
	if total == 0 {
		return nil, nil //nolint:nilnil // no parcel is an answer
	}
	return x.outbox.take(ctx, r.gone, total, x.o.BusyAfter, func() { _ = s.ResetWithError(network.StreamResourceLimitExceeded) })
}

// lacking is how a request for transactions of a block ends that is not here.
func lacking(c Chain, block chainhash.Hash) status {
	if headerKnown(c, block) {
		return statusNotYet
	}
	return statusNotFound
}

// findByID gathers transactions of the mempool, up to the first that does not fit: what
// is past it is not even looked up, for that serialises it.
func (x *Exchange) findByID(reply *foundTxs, req *txsRequest) {
	var total int
	full := false
	for _, id := range req.IDs {
		var tx []byte
		if !full {
			tx, _ = x.o.TxByID(id)
		}
		if full = full || total+len(tx) > maxMempoolReply; full {
			tx = nil
		}
		total += len(tx)
		reply.add(tx)
	}
}

// findByIndex gathers transactions of a block.
func (x *Exchange) findByIndex(reply *foundTxs, req *txsRequest) error {
	raw, err := x.o.Chain.Block(req.Block)
	if errors.Is(err, chain.ErrNotFound) {
		reply.Status = lacking(x.o.Chain, req.Block)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read block %v: %w", req.Block, err)
	}
	at, err := consensus.TxOffsets(x.o.Chain.Params(), raw)
	if err != nil {
		return fmt.Errorf("block %v on disk: %w", req.Block, err)
	}
	// Copies, so that the block is not kept for the sake of a few of its transactions
	// while the peer takes its time.
	for _, i := range req.Indexes {
		if int64(i) >= int64(len(at)-1) {
			// Nobody's fault: whoever asks may hold a false compact block.
			*reply = foundTxs{txsReply: txsReply{Status: statusNotFound}}
			return nil
		}
		reply.add(bytes.Clone(raw[at[i]:at[i+1]]))
	}
	return nil
}

// FetchBlockTxs asks a peer for the transactions of a block at ascending
// indexes, at most MaxTxIndexes, and returns them in that order, serialised with
// witness: each is one transaction by its encoding, nothing else is known of them. It
// fails with ErrNotReady, ErrNotFound, ErrNotYet, ErrBusy or ErrViolation; every
// other error is of the stream or of ctx: nobody is at fault. The peer may take 1 s
// to answer that it does not have them yet. While bytes come in, progress is
// called, if it is not nil.
func (x *Exchange) FetchBlockTxs(ctx context.Context, from peer.ID, block chainhash.Hash, indexes []uint32, progress func()) ([][]byte, error) {
	return x.fetchTxs(ctx, from, &txsRequest{Block: block, Indexes: indexes}, len(indexes), x.o.Limits.MaxBlockBytes, progress)
}

// FetchTxs asks a peer for transactions of its mempool by id, at most MaxTxIDs, and
// returns them in that order, nil for those it does not have, serialised with witness and not
// validated.
func (x *Exchange) FetchTxs(ctx context.Context, from peer.ID, ids []chainhash.Hash) ([][]byte, error) {
	return x.fetchTxs(ctx, from, &txsRequest{IDs: ids}, len(ids), maxMempoolReply, nil)
}

// FetchList asks a peer what its mempool has. It fails with ErrNotReady, ErrNotFound if the
// peer does not list it, or ErrBusy.
func (x *Exchange) FetchList(ctx context.Context, from peer.ID, q ListQuery) (List, error) {
	r := x.remote(from)
	if r == nil {
		return List{}, ErrNotReady
	}
	if r.hello.Services&ServeList == 0 {
		return List{}, ErrNotFound
	}
	reply, err := x.askTxs(ctx, from, &txsRequest{List: &q}, 0, 0, nil)
	if err != nil {
		return List{}, err
	}
	return *reply.List, nil
}

func (x *Exchange) fetchTxs(ctx context.Context, from peer.ID, req *txsRequest, n int, limit int64, progress func()) ([][]byte, error) {
	if n == 0 || len(req.Indexes) > MaxTxIndexes || len(req.IDs) > MaxTxIDs {
		return nil, fmt.Errorf("fetch %d transactions: want 1 to %d by index or %d by id", n, MaxTxIndexes, MaxTxIDs)
	}
	reply, err := x.askTxs(ctx, from, req, n, limit, progress)
	return reply.txs, err
}

// askTxs asks for n transactions of at most limit bytes, or a list.
func (x *Exchange) askTxs(ctx context.Context, from peer.ID, req *txsRequest, n int, limit int64, progress func()) (reply foundTxs, err error) {
	r := x.remote(from)
	if r == nil {
		return reply, ErrNotReady
	}
	open, cancel := context.WithTimeout(ctx, x.o.ReplyTimeout)
	defer cancel()
	s, err := x.o.Host.NewStream(network.WithNoDial(open, "txs"), from, TxsID(x.o.ChainID))
	if err != nil {
		return reply, fmt.Errorf("open txs stream: %w", err)
	}
	defer func() { _ = s.Reset() }()
	stop := atEnd(ctx, func() { _ = s.Reset() })
	defer stop()
	if !r.track(s) {
		return reply, ErrNotReady
	}
	defer r.untrack(s)

	reply, err = x.readTxs(r, s, req, n, limit, progress)
	if errors.Is(err, errProtocol) {
		x.blame(from, "txs: "+err.Error())
	}
	if err != nil {
		return foundTxs{}, fmt.Errorf("fetch transactions: %w", err)
	}
	return reply, nil
}

func (x *Exchange) readTxs(r *remote, s network.Stream, req *txsRequest, n int, limit int64, progress func()) (out foundTxs, err error) {
	if err := writeMessage(s, x.o.WriteTimeout, &r.out, req.append(nil)); err != nil {
		return out, err
	}
	in := bufio.NewReaderSize(&counted{s: s, timeout: x.o.ReplyTimeout, count: &r.in, progress: progress}, maxChunkBytes)
	buf, err := readMessage(in, nil, maxTxsReply)
	if err != nil {
		return out, unexpectedEOF(err)
	}
	reply, err := decodeTxsReply(buf)
	if err != nil {
		return out, err
	}
	switch reply.Status {
	case statusOK:
	case statusNotFound:
		return out, ErrNotFound
	case statusNotYet:
		return out, ErrNotYet
	case statusBusy:
		return out, ErrBusy
	default:
		return out, violation("txs status %d", reply.Status)
	}
	if req.List != nil {
		if reply.List == nil || len(reply.Sizes) > 0 {
			return out, violation("no list, and %d transactions", len(reply.Sizes))
		}
		out.List = reply.List
		return out, nil
	}
	if len(reply.Sizes) != n {
		return out, violation("%d transactions, asked for %d", len(reply.Sizes), n)
	}
	var total int64
	for _, size := range reply.Sizes {
		if total += int64(size); total > limit {
			return out, violation("transactions over %d bytes", limit)
		}
	}
	out.txs = make([][]byte, n)
	for i, size := range reply.Sizes {
		if size == 0 {
			if len(req.IDs) == 0 {
				return out, violation("transaction of no bytes")
			}
			continue
		}
		out.txs[i] = make([]byte, size)
		if _, err := io.ReadFull(in, out.txs[i]); err != nil {
			return out, unexpectedEOF(err)
		}
		if err := consensus.CheckTxEncoding(out.txs[i]); err != nil {
			return out, violation("transaction %d: %w", i, err)
		}
	}
	return out, nil
}
