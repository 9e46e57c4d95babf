package discovery

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"
)

// kad-dht takes 4 MiB of anything for a message, before it has arrived, and whatever is in it for peer ids and keys. It writes ids as
// base58, which takes time that grows with the square of their length: one id of 4 MB keeps a core busy for hours, which nothing
// interrupts. So messages are looked at before it sees them.
const (
	// A question has a key of at most 80 bytes, and an advert its sender's addresses, which kad-dht bounds to 8 KiB.
	maxKadAskBytes   = 64 << 10
	maxKadReplyBytes = network.MessageSizeMax // kad-dht's own limit
	// A reply of kad-dht's has 20 peers and as many providers as fit; some 256 of ours.
	maxKadPeers = 4096
	// The longest id that libp2p makes of a key has 44 bytes.
	maxIDBytes = 64
)

var errKad = errors.New("a message of the dht against the limits")

// validID reports whether an id is one that a key can have, so that an address can be made of it. Ids that come with a connection, in a
// multiaddr or in a signed record are; those that the DHT tells are any bytes.
func validID(id peer.ID) bool {
	if len(id) > maxIDBytes {
		return false
	}
	h, err := multihash.Decode([]byte(id))
	return err == nil && (h.Code == multihash.IDENTITY || h.Code == multihash.SHA2_256 && h.Length == 32)
}

// kadStreams are the streams of the DHT's that are open. kad-dht leaves them to the host when it ends; we do not.
type kadStreams struct {
	mu     sync.Mutex // guards what follows, held for a map access
	closed bool
	all    map[*kadStream]struct{}
	served sync.WaitGroup // handlers
}

// add notes a stream, or resets it and reports false. With served, the caller has a handler run and calls served.Done after it.
func (k *kadStreams) add(s *kadStream, served bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		_ = s.Stream.Reset()
		return false
	}
	if k.all == nil {
		k.all = map[*kadStream]struct{}{}
	}
	k.all[s] = struct{}{}
	if served {
		k.served.Add(1)
	}
	return true
}

func (k *kadStreams) remove(s *kadStream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.all, s)
}

// close resets all streams, lets none be added and waits for the handlers.
func (k *kadStreams) close() {
	k.mu.Lock()
	k.closed = true
	open := slices.Collect(maps.Keys(k.all))
	k.mu.Unlock()
	for _, s := range open {
		_ = s.Reset()
	}
	k.served.Wait()
}

// kadStream is a stream of the DHT's, of which only whole messages are read that keep to the limits. What it holds of one grows as it arrives.
type kadStream struct {
	network.Stream
	d    *Discovery
	most uint64 // bytes of a message
	in   *bufio.Reader
	out  []byte // what is left of a message, its length before it
	err  error
}

func (d *Discovery) kadStream(s network.Stream, most int) *kadStream {
	return &kadStream{Stream: s, d: d, most: uint64(most), in: bufio.NewReaderSize(s, 1024)} //nolint:gosec // a constant
}

// Close implements network.Stream.
func (s *kadStream) Close() error {
	s.d.kadStreams.remove(s)
	return s.Stream.Close()
}

// Reset implements network.Stream.
func (s *kadStream) Reset() error {
	s.d.kadStreams.remove(s)
	return s.Stream.Reset()
}

// ResetWithError implements network.Stream.
func (s *kadStream) ResetWithError(code network.StreamErrorCode) error {
	s.d.kadStreams.remove(s)
	return s.Stream.ResetWithError(code)
}

// Read implements network.Stream.
func (s *kadStream) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.out, s.err = readKad(s.in, s.most); errors.Is(s.err, errKad) {
			s.d.mu.Lock()
			s.d.badKad++
			s.d.mu.Unlock()
			s.d.log.Debug("stream of the dht reset", slog.String("peer", s.Conn().RemotePeer().String()), slog.Any("error", s.err))
			_ = s.ResetWithError(network.StreamProtocolViolation)
		}
	}
	n := copy(p, s.out)
	if s.out = s.out[n:]; len(s.out) == 0 {
		s.out = nil
	}
	return n, nil
}

// readKad reads one message, and returns it with its length before it. io.EOF: there is none.
func readKad(in *bufio.Reader, most uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(in)
	switch {
	case err != nil:
		return nil, err
	case n > most:
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errKad, n, most)
	}
	b := bytes.NewBuffer(binary.AppendUvarint(nil, n))
	head := b.Len()
	if _, err := io.CopyN(b, in, int64(n)); err != nil { //nolint:gosec // at most most
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if err := checkKad(b.Bytes()[head:]); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// checkKad looks at the peers of a message (fields 8 and 9 of kad-dht's dht.proto) and their ids (field 1 of Peer).
func checkKad(b []byte) error {
	peers := 0
	return eachField(b, func(num protowire.Number, v []byte) error {
		if num != 8 && num != 9 {
			return nil
		}
		if peers++; peers > maxKadPeers {
			return fmt.Errorf("%w: over %d peers", errKad, maxKadPeers)
		}
		return eachField(v, func(num protowire.Number, v []byte) error {
			if num == 1 && len(v) > maxIDBytes {
				return fmt.Errorf("%w: a peer id of %d bytes", errKad, len(v))
			}
			return nil
		})
	})
}

// eachField calls f with the fields of b that have a length.
func eachField(b []byte, f func(num protowire.Number, v []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", errKad, protowire.ParseError(n))
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return fmt.Errorf("%w: %w", errKad, protowire.ParseError(n))
		}
		if typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b)
			if err := f(num, v); err != nil {
				return err
			}
		}
		b = b[n:]
	}
	return nil
}
