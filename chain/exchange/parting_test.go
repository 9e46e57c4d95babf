package exchange

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
)

// TestWhyEnded: the log tells a peer that left from one that hangs and from a line that broke. The texts
// are those of go-libp2p's TCP and QUIC connections after SIGTERM, kill -9 and SIGSTOP at the other end.
func TestWhyEnded(t *testing.T) {
	reset := func(err error) error {
		return fmt.Errorf("%w: %w", network.ErrReset, fmt.Errorf("stream reset: connection closed: %w", err))
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "it left"},
		{io.EOF, "it left"},
		{&network.StreamError{ErrorCode: network.StreamShutdown, Remote: true, TransportError: errors.New("stream reset by remote")}, "it left"},
		{&network.ConnError{Remote: true}, "it left"},
		{os.ErrDeadlineExceeded, "it was silent for too long"},
		{reset(errors.New("keepalive timeout")), "it was silent for too long"},
		{reset(errors.New("read tcp4 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer")), "the connection broke: read tcp4 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer"},
	} {
		if got := whyEnded(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}
