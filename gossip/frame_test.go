package gossip_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	"dunlin/gossip"
)

// pipe is a stream that is read.
type pipe struct {
	network.Stream
	end net.Conn
}

func (p pipe) Read(b []byte) (int, error)         { return p.end.Read(b) }
func (p pipe) SetReadDeadline(at time.Time) error { return p.end.SetReadDeadline(at) }

// frameOf has one message of so many bytes.
func frameOf(tb testing.TB, payload int) []byte {
	tb.Helper()
	raw, err := proto.Marshal(&pb.RPC{Publish: []*pb.Message{{Topic: new(blocks), Data: bytes.Repeat([]byte{7}, payload)}}})
	if err != nil {
		tb.Fatal(err)
	}
	return append(binary.AppendUvarint(nil, uint64(len(raw))), raw...)
}

// Frames of all lengths come through as they were sent, however they are cut.
func TestFramesComeThrough(t *testing.T) {
	short := slices.Concat([]byte{0}, frameOf(t, 0), frameOf(t, 10), frameOf(t, 66_000), frameOf(t, 3))
	long := slices.Concat(short, frameOf(t, 64<<10), frameOf(t, 1<<20), frameOf(t, 200_000), frameOf(t, 65_536-10))
	for _, cut := range []int{1, 3, 1000, 70_000, len(long)} {
		stream := long
		if cut < 10 {
			stream = short
		}
		in, out := net.Pipe()
		go func() {
			for rest := stream; len(rest) > 0; {
				n, err := out.Write(rest[:min(cut, len(rest))])
				if err != nil {
					return
				}
				rest = rest[n:]
			}
			out.Close()
		}()
		r := gossip.Frames(pipe{end: in})
		if cut == 3 {
			r = iotest.HalfReader(r)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, stream) {
			t.Errorf("cut into %d bytes: %d of %d bytes, %v", cut, len(got), len(stream), err)
		}
	}
}

// The length of a long frame is handed on when the frame is here: who reads it makes room for all of it.
func TestLengthAloneTakesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := net.Pipe()
		defer out.Close()
		frame := frameOf(t, 1<<20)
		read := make(chan []byte, 16)
		go func() {
			r, head := gossip.Frames(pipe{end: in}), make([]byte, 1)
			for {
				if _, err := io.ReadFull(r, head); err != nil {
					close(read)
					return
				}
				if read <- slices.Clone(head); head[0] < 0x80 {
					rest, err := io.ReadAll(r)
					if err != nil {
						t.Error(err)
					}
					read <- rest
				}
			}
		}()
		if _, err := out.Write(frame[:2]); err != nil { // of three bytes of the length
			t.Fatal(err)
		}
		<-read
		<-read
		if _, err := out.Write(frame[2 : len(frame)-1]); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case b := <-read:
			t.Fatalf("%d bytes of a frame that is not here were handed on", len(b))
		default:
		}
		if _, err := out.Write(frame[len(frame)-1:]); err != nil {
			t.Fatal(err)
		}
		<-read
		out.Close()
		if got := <-read; !bytes.Equal(got, frame[3:]) {
			t.Errorf("%d bytes, want %d", len(got), len(frame)-3)
		}
		<-read
	})
}

// A frame that was begun must come; between frames there is all the time in the world.
func TestFrameDeadline(t *testing.T) {
	for _, payload := range []int{100, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			in, out := net.Pipe()
			defer out.Close()
			ended := make(chan error, 1)
			got := 0
			go func() {
				r, b := gossip.Frames(pipe{end: in}), make([]byte, 4096)
				for {
					n, err := r.Read(b)
					if got += n; err != nil {
						ended <- err
						return
					}
				}
			}()
			frame := frameOf(t, payload)
			for range 3 {
				if _, err := out.Write(frame); err != nil {
					t.Fatal(err)
				}
				time.Sleep(24 * time.Hour)
			}
			start := time.Now()
			if _, err := out.Write(frame[:len(frame)-1]); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
			if took := time.Since(start); took != time.Minute {
				t.Errorf("after %s", took)
			}
			if got < 3*len(frame) {
				t.Errorf("%d bytes of three frames of %d", got, len(frame))
			}
		})
	}
}

// When Run returns it leaves nothing on a host that goes on: no handler, no stream, no goroutine.
func TestRunLeavesTheHost(t *testing.T) {
	hosts := realHosts(t, 2)
	start := func(ctx context.Context, i int) (*gossip.Gossip, chan error) {
		g, err := gossip.New(gossip.Options{Host: hosts[i], Private: true, Topics: []gossip.Topic{{Name: blocks, MaxBytes: 100, Validate: new(inbox).validate}}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		return g, done
	}
	ctx, cancel := context.WithCancel(t.Context())
	one, oneDone := start(ctx, 0)
	two, twoDone := start(ctx, 1)
	<-one.Ready()
	<-two.Ready()
	connect(t, hosts[0], hosts[1])
	eventually(t, "both know of each other", func() bool { return len(one.Peers(blocks)) == 1 && len(two.Peers(blocks)) == 1 })
	cancel()
	for _, done := range []chan error{oneDone, twoDone} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	left := func() string {
		stacks := make([]byte, 16<<20)
		return string(stacks[:runtime.Stack(stacks, true)])
	}
	eventually(t, "pubsub's goroutines end", func() bool { return !strings.Contains(left(), "go-libp2p-pubsub.") })
	for _, h := range hosts {
		if len(h.Network().Peers()) != 1 {
			t.Error("the connection has ended too")
		}
		for _, id := range gossip.Protocols() {
			if slices.Contains(h.Mux().Protocols(), id) {
				t.Errorf("%s is still served", id)
			}
		}
	}
	// One whose context has ended before it began.
	g, done := start(ctx, 0)
	if err := <-done; err != nil {
		t.Error(err)
	}
	select {
	case <-g.Ready():
		t.Log("was ready for a moment")
	default:
	}
	for _, id := range gossip.Protocols() {
		if slices.Contains(hosts[0].Mux().Protocols(), id) {
			t.Errorf("%s is still served", id)
		}
	}
}
