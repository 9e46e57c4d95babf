package exchange

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// chunks writes to a stream in pieces of at most maxChunkBytes, each under a
// deadline of its own: only progress keeps a slow reader's stream alive.
type chunks struct {
	s       network.Stream
	timeout time.Duration
	count   *atomic.Int64
	parcel  *parcel // told of progress; nil: none
}

func (c *chunks) Write(b []byte) (int, error) {
	var n int
	for n < len(b) {
		if err := c.s.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return n, err
		}
		k, err := c.s.Write(b[n:min(len(b), n+maxChunkBytes)])
		n += k
		c.count.Add(int64(k))
		if err != nil {
			return n, err
		}
		c.parcel.touch()
	}
	return n, nil
}

// writeMessage sends one small message at once.
func writeMessage(s network.Stream, timeout time.Duration, count *atomic.Int64, msg []byte) error {
	_, err := (&chunks{s: s, timeout: timeout, count: count}).Write(appendDelimited(nil, msg))
	return err
}

// counted counts the bytes read from a stream. With timeout set, each read must
// bring something within it.
type counted struct {
	s       network.Stream
	timeout time.Duration // 0: the owner sets deadlines
	count   *atomic.Int64
	// progress is called when something has arrived; nil: nothing is.
	progress func()
}

func (c *counted) Read(b []byte) (int, error) {
	if c.timeout > 0 {
		if err := c.s.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
			return 0, err
		}
	}
	n, err := c.s.Read(b)
	c.count.Add(int64(n))
	if n > 0 && c.progress != nil {
		c.progress()
	}
	return n, err
}

// resetFor ends a stream with the code that fits err.
func resetFor(s network.Stream, err error) {
	code := network.StreamNoError
	if errors.Is(err, errProtocol) {
		code = network.StreamProtocolViolation
	}
	_ = s.ResetWithError(code)
}
