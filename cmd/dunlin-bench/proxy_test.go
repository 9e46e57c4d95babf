package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestLineRateAndDelay: bytes come as fast as the line carries them and after its
// delay, to the millisecond of virtual time, and the end of one side is told to the other.
func TestLineRateAndDelay(t *testing.T) {
	for _, c := range []struct {
		name        string
		rate        float64
		delay       time.Duration
		size        int
		first, last time.Duration // of the first and the last byte
	}{
		{"free", 0, 0, 1 << 20, 0, 0},
		{"delay", 0, 25 * time.Millisecond, 1 << 20, 25 * time.Millisecond, 25 * time.Millisecond},
		{"rate", 1 << 20, 0, 1 << 20, 15625 * time.Microsecond, time.Second},
		{"both", 1 << 20, 25 * time.Millisecond, 1 << 20, 40625 * time.Microsecond, 1025 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &line{rate: c.rate, delay: c.delay}
				sender, from := net.Pipe()
				to, receiver := net.Pipe()
				sent := make([]byte, c.size)
				for i := range sent {
					sent[i] = byte(i * 7)
				}
				start := time.Now()
				go func() {
					_, _ = sender.Write(sent)
					_ = sender.Close()
				}()
				carried := make(chan error, 1)
				go func() { carried <- l.carry(t.Context(), to, from) }()
				got := make([]byte, 1)
				if _, err := io.ReadFull(receiver, got); err != nil {
					t.Fatal(err)
				}
				first := time.Since(start)
				rest, err := io.ReadAll(receiver)
				last := time.Since(start)
				if err := errors.Join(err, <-carried); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(slices.Concat(got, rest), sent) {
					t.Error("other bytes than were sent")
				}
				if near := time.Millisecond; (first-c.first).Abs() > near || (last-c.last).Abs() > near {
					t.Errorf("first byte after %v, last after %v; want %v and %v", first, last, c.first, c.last)
				}
				if l.carried.Load() != int64(c.size) {
					t.Errorf("counted %d bytes", l.carried.Load())
				}
			})
		})
	}
}

// TestLineIsShared: two connections have one line's rate together, not each.
func TestLineIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 1 << 20
		l := &line{rate: size}
		start := time.Now()
		ended := make(chan error, 2)
		for range 2 {
			sender, from := net.Pipe()
			to, receiver := net.Pipe()
			go func() {
				_, _ = sender.Write(make([]byte, size/2))
				_ = sender.Close()
			}()
			go func() { _ = l.carry(t.Context(), to, from) }()
			go func() {
				_, err := io.Copy(io.Discard, receiver)
				ended <- err
			}()
		}
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); (took - time.Second).Abs() > time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// TestLineAfterIdling: a line that had nothing to carry has saved nothing up, and one
// whose process woke late makes up for it, but not for more than maxLateness.
func TestLineAfterIdling(t *testing.T) {
	l := &line{rate: 1000}
	at := func(ms int) time.Time { return time.UnixMilli(int64(1_000_000 + ms)) }
	for _, c := range []struct {
		now      int
		lateness time.Duration
		want     int
	}{
		{0, 0, 100},
		{100, 0, 200},
		{250, maxLateness, 300},   // 50 ms late: the line went on
		{1000, maxLateness, 1000}, // more than it makes up for
		{2000, 0, 2100},           // idle
	} {
		if got := l.take(100, at(c.now), c.lateness); !got.Equal(at(c.want)) {
			t.Errorf("100 bytes at %d ms with lateness %v leave at %v, want %v", c.now, c.lateness, got, at(c.want))
		}
	}
}

// TestProxyEndsWithItsContext: connections through a real one work both ways and
// are closed when it ends, which waits for all of them.
func TestProxyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	echo, err := listenLoopback(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = echo.Close() })
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	p, err := newProxy(ctx, echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	for range 2 {
		c, err := net.Dial("tcp", p.addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		t.Cleanup(func() { _ = c.Close() })
		defer func() {
			if _, err := c.Read(got); err == nil {
				t.Error("the connection outlives the proxy")
			}
		}()
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if p.up.carried.Load() != 10 || p.down.carried.Load() != 10 {
		t.Errorf("carried %d and %d bytes", p.up.carried.Load(), p.down.carried.Load())
	}
}

// TestProxyOfNobody: a target that refuses is a connection that ends.
func TestProxyOfNobody(t *testing.T) {
	ports, err := freePorts(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProxy(t.Context(), loopback(ports[0]))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	c, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("something answers")
	}
	cancel()
	<-ended
}
