package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/chain/consensus"
)

const (
	// maxPullHeaders bounds one pull; another follows if there is more.
	maxPullHeaders = 4_000_000
	// maxGathered bounds the headers that one pull keeps in memory while they do not show
	// the work that the network wants to see before it stores any: about 120 MB.
	maxGathered = 1 << 20
)

// cleanEnd turns the end of a stream between messages into no error.
func cleanEnd(err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// pulled is how a pull of headers from a peer ended.
type pulled struct {
	from  *remote
	tip   TipInfo        // of the peer, as the last reply said
	last  chainhash.Hash // last header known to be on the peer's chain; zero if none
	added int            // headers that were new to us
	err   error
	blame string // why the peer is to blame; empty if it is not
}

// progress of a pull, told after each reply.
type pullProgress struct {
	from *remote
	tip  TipInfo
	last chainhash.Hash
}

// pull asks r for headers from our best header chain on until it has no more. The next
// request is on its way while a reply is validated. tell is called after each reply.
func (x *Exchange) pull(ctx context.Context, r *remote, tell func(pullProgress)) (res pulled) {
	res.from = r
	open, cancel := context.WithTimeout(ctx, x.o.ReplyTimeout)
	defer cancel()
	s, err := x.o.Host.NewStream(network.WithNoDial(open, "headers"), r.id, HeadersID(x.o.ChainID))
	if err != nil {
		res.err = fmt.Errorf("open headers stream: %w", err)
		return res
	}
	if !r.track(s) {
		_ = s.Reset()
		res.err = errGone
		return res
	}
	defer r.untrack(s)
	stop := context.AfterFunc(ctx, func() { _ = s.ResetWithError(network.StreamShutdown) })
	defer stop()
	defer func() {
		if res.err != nil {
			resetFor(s, res.err)
		} else {
			_ = s.Close()
		}
	}()

	p := x.o.Chain.Params()
	headerBytes := consensus.HeaderBytes + p.SealBytes
	in := bufio.NewReaderSize(&counted{s: s, timeout: x.o.ReplyTimeout, count: &r.in}, maxChunkBytes)
	best, _ := x.o.Chain.BestHeader()
	locator := x.o.Chain.Locator(best.Hash)
	if len(locator) > MaxLocator {
		locator = locator[:MaxLocator]
	}
	ask := func(hint int32, locator []chainhash.Hash) error {
		req := headersRequest{Hint: hint, Locator: locator, Max: MaxHeaders}
		if err := writeMessage(s, x.o.WriteTimeout, &r.out, req.append(nil)); err != nil {
			return fmt.Errorf("ask for headers: %w", err)
		}
		return nil
	}
	if res.err = ask(best.Height, locator); res.err != nil {
		return res
	}
	var buf []byte
	// headers that the chain has not taken yet: of one reply, or of many while
	// they show too little work; then the chain is asked again when they have doubled.
	headers := make([]consensus.Header, 0, MaxHeaders)
	askAgain := 0
	raw := make([]byte, 0, MaxHeaders*headerBytes)
	for total := 0; ; {
		started := time.Now()
		if buf, err = readMessage(in, buf, maxHeadersReply); err != nil {
			res.err = fmt.Errorf("read headers reply: %w", unexpectedEOF(err))
			return res.withBlame()
		}
		reply, err := decodeHeadersReply(buf)
		if err == nil && reply.Bytes != reply.Count*headerBytes {
			err = violation("%d bytes for %d headers", reply.Bytes, reply.Count)
		}
		if err != nil {
			res.err = fmt.Errorf("headers reply: %w", err)
			return res.withBlame()
		}
		res.tip = reply.Tip
		raw = raw[:reply.Bytes]
		if err := readWithin(in, raw, started.Add(2*x.o.ReplyTimeout)); err != nil {
			res.err = fmt.Errorf("read %d headers: %w", reply.Count, err)
			return res
		}
		more := reply.Count == MaxHeaders && total+reply.Count < maxPullHeaders
		if more {
			// Ask for what follows before looking at what came. Our own locator goes
			// along in case the peer changes its branch meanwhile.
			last := chainhash.DoubleHashH(raw[len(raw)-headerBytes:][:consensus.HeaderBytes])
			next := append([]chainhash.Hash{last}, locator[:min(len(locator), MaxLocator-1)]...)
			if res.err = ask(reply.Start+int32(reply.Count)-1, next); res.err != nil {
				return res
			}
		}
		for i := range reply.Count {
			h, err := consensus.DecodeHeader(p, raw[i*headerBytes:][:headerBytes])
			if err != nil {
				res.err = fmt.Errorf("header at height %d: %w", int(reply.Start)+i, err)
				return res.withBlame()
			}
			headers = append(headers, h)
		}
		if len(headers) > 0 && (len(headers) >= askAgain || !more) {
			if _, known := x.o.Chain.Status(headers[0].PrevBlock); !known {
				res.err = violation("headers from height %d do not follow the locator", reply.Start)
				return res.withBlame()
			}
			added, last, err := x.o.Chain.AcceptHeaders(ctx, headers)
			res.added += added
			if last.Hash != (chainhash.Hash{}) {
				res.last = last.Hash
			}
			switch {
			case err == nil:
				headers, askAgain = headers[:0], 0
			case tooLittleWork(err) && more && len(headers) < maxGathered:
				askAgain = 2 * len(headers)
			default:
				res.err = fmt.Errorf("headers up to height %d: %w", int(reply.Start)+reply.Count-1, err)
				return res.withBlame()
			}
		}
		total += reply.Count
		tell(pullProgress{from: r, tip: res.tip, last: res.last})
		if !more {
			return res
		}
	}
}

// tooLittleWork reports whether the chain keeps no headers because they show less
// work than the network wants to see.
func tooLittleWork(err error) bool {
	var rule *consensus.RuleError
	return errors.As(err, &rule) && rule.Rule == "too-little-chainwork"
}

// withBlame says why the peer is to blame for the error, if it is.
func (p pulled) withBlame() pulled {
	var rule *consensus.RuleError
	switch {
	case errors.Is(p.err, errProtocol):
		p.blame = p.err.Error()
	case errors.As(p.err, &rule) && rule.Blame != consensus.BlameNobody:
		p.blame = p.err.Error()
	}
	return p
}

// readWithin fills b, which arrives under per-read deadlines, before the time
// at as a whole: a trickle of headers is as good as none.
func readWithin(in io.Reader, b []byte, at time.Time) error {
	for len(b) > 0 {
		n, err := in.Read(b)
		b = b[n:]
		if err != nil && len(b) > 0 {
			return unexpectedEOF(err)
		}
		if len(b) > 0 && time.Now().After(at) {
			return errSlow
		}
	}
	return nil
}

var (
	errSlow = errors.New("too slow")
	errGone = errors.New("peer gone")
)

// headerKnown reports whether the header is in the tree.
func headerKnown(c Chain, hash chainhash.Hash) bool {
	_, ok := c.Status(hash)
	return ok
}
