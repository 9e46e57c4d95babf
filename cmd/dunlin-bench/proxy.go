package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A line is one direction of a link: how many bytes a second it carries and how
// long each is on its way. All connections through a proxy share its two lines, as
// they would share a real one.
type line struct {
	rate  float64       // bytes a second; 0: no limit
	delay time.Duration // added to each byte's way

	carried atomic.Int64 // bytes handed on

	mu   sync.Mutex // guards free, held for an assignment
	free time.Time  // when the line has sent all that it took
}

// take reserves the line for n bytes that are here now and returns when the last of
// them has left. Bytes that were waiting to be read may have begun to leave before, by
// lateness at most: this process woke late then, the line did not pause.
func (l *line) take(n int, now time.Time, lateness time.Duration) time.Time {
	if l.rate <= 0 {
		return now
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if earliest := now.Add(-lateness); l.free.Before(earliest) {
		l.free = earliest
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	return l.free
}

const (
	// chunkBytes is what is read at once: 3 ms of a line of 5 MB/s.
	chunkBytes = 16 << 10
	// chunksOnWay bounds what is on its way on one connection, beyond any product of
	// rate and delay that is measured here.
	chunksOnWay = 256
	// socketBytes keeps the system's buffers small, so that a sender feels the line.
	socketBytes = 256 << 10
	// A read that took less than atOnce found its bytes waiting.
	atOnce = 200 * time.Microsecond
	// maxLateness is how much time a line makes up for when this process was not
	// given the processor.
	maxLateness = 100 * time.Millisecond
)

// A proxy passes TCP connections on to a target over two lines.
type proxy struct {
	target   string
	listener net.Listener
	up, down line // to the target, from it
}

// newProxy listens on a port of loopback; run serves.
func newProxy(ctx context.Context, target string) (*proxy, error) {
	l, err := listenLoopback(ctx)
	if err != nil {
		return nil, err
	}
	return &proxy{target: target, listener: l}, nil
}

// addr is where the proxy listens, host:port.
func (p *proxy) addr() string { return p.listener.Addr().String() }

// run serves until ctx ends; then it closes the listener and every connection and
// returns when all it started has ended.
func (p *proxy) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel() // also when accepting fails: before the wait
	stop := context.AfterFunc(ctx, func() { _ = p.listener.Close() })
	defer stop()
	for {
		c, err := p.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("proxy of %s: %w", p.target, err)
		}
		all.Go(func() {
			var d net.Dialer
			t, err := d.DialContext(ctx, "tcp", p.target)
			if err != nil { // as if the target itself had refused
				_ = c.Close()
				return
			}
			shrink(c, t)
			p.join(ctx, c, t)
		})
	}
}

// shrink bounds what the system keeps of two connections.
func shrink(conns ...net.Conn) {
	for _, c := range conns {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetReadBuffer(socketBytes) // best effort: larger ones only make the line look longer
			_ = t.SetWriteBuffer(socketBytes)
		}
	}
}

// join carries both directions until both have ended or ctx does, and closes both ends.
func (p *proxy) join(ctx context.Context, client, target net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() { // closing is what wakes a read or a write that waits
		_, _ = client.Close(), target.Close()
		close(closed)
	})
	var halves sync.WaitGroup
	for _, half := range []struct {
		l        *line
		to, from net.Conn
	}{{&p.up, target, client}, {&p.down, client, target}} {
		halves.Go(func() {
			if err := half.l.carry(ctx, half.to, half.from); err != nil {
				cancel() // a connection that broke is broken in both directions
			}
		})
	}
	halves.Wait()
	cancel()
	<-closed
}

// carry copies from one connection to another over the line until from ends, which
// closes to for writing once everything has arrived. It starts one goroutine and joins it.
func (l *line) carry(ctx context.Context, to, from net.Conn) error {
	type chunk struct {
		b  []byte
		at time.Time // of its arrival
	}
	onWay := make(chan chunk, chunksOnWay)
	written := make(chan error, 1)
	go func() { // ends when onWay is closed, which this function does before it waits
		var err error
		for c := range onWay {
			if err != nil {
				continue // drain, so that the reader never blocks
			}
			if err = sleepUntil(ctx, c.at); err == nil {
				_, err = to.Write(c.b)
				l.carried.Add(int64(len(c.b)))
			}
			if err != nil {
				_ = from.Close() // wakes the reader
			}
		}
		written <- err
	}()
	var err error
	var left time.Time // when the chunk before had left
	for err == nil {
		b := make([]byte, chunkBytes)
		asked := time.Now()
		var n int
		n, err = from.Read(b)
		if n == 0 {
			continue
		}
		now, lateness := time.Now(), time.Duration(0)
		if now.Sub(asked) < atOnce && !left.IsZero() {
			lateness = min(now.Sub(left), maxLateness)
		}
		left = l.take(n, now, lateness)
		if e := sleepUntil(ctx, left); e != nil {
			err = e
			break
		}
		onWay <- chunk{b[:n], left.Add(l.delay)}
	}
	close(onWay)
	if e := <-written; e != nil {
		return e
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return to.Close()
}

// sleepUntil waits for a time, unless ctx ends before.
func sleepUntil(ctx context.Context, at time.Time) error {
	d := time.Until(at)
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func listenLoopback(ctx context.Context) (net.Listener, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("a port on loopback: %w", err)
	}
	return l, nil
}

func portOf(a net.Addr) int {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.Port
	}
	return 0
}

var errNoProxy = errors.New("the blocks did not come through the proxies")
