//go:build linux

package netlab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunlin/internal/netlab"
)

// echo listens on a host and tells everybody who connects from where.
func echo(t *testing.T, h *netlab.Host, port uint16) {
	t.Helper()
	var l net.Listener
	err := h.Do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap().String())
			_ = c.Close()
		}
	}()
}

// ask returns where from a host is seen by an echo, or why it is not.
func ask(t *testing.T, from *netlab.Host, to string, patience time.Duration) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := from.DialContext(ctx, "tcp", to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// seen fails the test unless a host is seen by an echo under the address.
func seen(t *testing.T, from *netlab.Host, to, as string) {
	t.Helper()
	if got, err := ask(t, from, to, 2*time.Minute); err != nil || got != as {
		t.Errorf("%s at %s is seen as %q, error %v; want %s", from.Addr(), to, got, err, as)
	}
}

// unseen fails the test if a host reaches an echo.
func unseen(t *testing.T, from *netlab.Host, to string) {
	t.Helper()
	if got, err := ask(t, from, to, 300*time.Millisecond); err == nil {
		t.Errorf("%s reaches %s and is seen as %q", from.Addr(), to, got)
	}
}

func TestHostsReachOneAnother(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a, b := lab.Host("20.1.0.1"), lab.Host("20.2.0.1", "20.2.0.2", "2a01:2::1")
	c := lab.Host("2a01:3::1", "192.168.0.7")
	echo(t, b, 80)
	echo(t, c, 80)
	seen(t, a, "20.2.0.1:80", "20.1.0.1")
	seen(t, a, "20.2.0.2:80", "20.1.0.1")
	seen(t, a, "192.168.0.7:80", "20.1.0.1")
	seen(t, b, "[2a01:3::1]:80", "2a01:2::1")
	unseen(t, a, "20.9.9.9:80") // nobody has it
	if _, err := ask(t, a, "127.0.0.1:80", 2*time.Minute); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a host's loopback is not its own: %v", err)
	}
}

func TestNothingOutsideIsReachedOrTouched(t *testing.T) {
	before, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	lab := netlab.New(t)
	h := lab.Host("20.1.0.1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	unseen(t, h, l.Addr().String())
	out, err := h.Run("ip", "-o", "link")
	if err != nil || strings.Count(out, "\n") != 2 {
		t.Errorf("interfaces of a host: %s%v", out, err)
	}
	after, err := net.Interfaces()
	if err != nil || len(before) != len(after) {
		t.Errorf("the machine's interfaces: %v, before %v, error %v", after, before, err)
	}
	if _, err := h.Run("false"); err == nil {
		t.Error("a command that fails is no error")
	}
	if _, err := h.DialContext(t.Context(), "tcp", "example.org:80"); err == nil {
		t.Error("a name is dialled")
	}
}

func TestCableAndPartition(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a, b, c := lab.Host("20.1.0.1"), lab.Host("20.2.0.1"), lab.Host("20.3.0.1")
	for _, h := range []*netlab.Host{a, b, c} {
		echo(t, h, 80)
	}
	a.Unplug()
	unseen(t, a, "20.2.0.1:80")
	unseen(t, c, "20.1.0.1:80")
	a.Plug()
	seen(t, a, "20.2.0.1:80", "20.1.0.1")

	lab.Partition([]netlab.Node{a, b})
	seen(t, a, "20.2.0.1:80", "20.1.0.1")
	unseen(t, a, "20.3.0.1:80")
	unseen(t, c, "20.2.0.1:80")
	lab.Heal()
	seen(t, a, "20.3.0.1:80", "20.1.0.1")
	lab.Partition([]netlab.Node{a}, []netlab.Node{b, c})
	unseen(t, a, "20.2.0.1:80")
	seen(t, c, "20.2.0.1:80", "20.3.0.1")
	lab.Heal()
	seen(t, a, "20.2.0.1:80", "20.1.0.1")
}

func TestRouter(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	out := lab.Host("20.1.0.1")
	r, other := lab.Router("20.2.0.1", "10.0.0.1/24"), lab.Router("20.3.0.1", "10.0.0.1/24")
	in, same := r.Host("10.0.0.2"), other.Host("10.0.0.2") // the same address in two homes
	echo(t, out, 80)
	echo(t, in, 8080)
	echo(t, r.Host("10.0.0.3"), 80)
	seen(t, in, "20.1.0.1:80", "20.2.0.1")
	seen(t, same, "20.1.0.1:80", "20.3.0.1")
	seen(t, in, "10.0.0.3:80", "10.0.0.2")
	unseen(t, out, "10.0.0.2:8080")
	unseen(t, out, "10.0.0.1:8080")
	unseen(t, out, "20.2.0.1:8080")
	unseen(t, same, "20.2.0.1:8080")
	r.Forward(8080, in)
	seen(t, out, "20.2.0.1:8080", "20.1.0.1")
	seen(t, same, "20.2.0.1:8080", "20.3.0.1")
	r.Symmetric()
	seen(t, in, "20.1.0.1:80", "20.2.0.1")
}

// A megabyte through 20 Mbit/s takes 0.4 s, less what the bucket holds: 64 KB.
func TestBandwidth(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	lab := netlab.New(t)
	a, b := lab.Host("20.1.0.1"), lab.Host("20.2.0.1")
	var l net.Listener
	if err := b.Do(func() (err error) { l, err = net.Listen("tcp", ":80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan error, 2)
	pull := func() time.Duration {
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, err = c.Write(make([]byte, size))
				err = errors.Join(err, c.Close())
			}
			sent <- err
		}()
		start := time.Now()
		b, err := ask(t, a, "20.2.0.1:80", time.Minute)
		if err := errors.Join(err, <-sent); err != nil || len(b) != size {
			t.Fatalf("%d bytes, error %v", len(b), err)
		}
		return time.Since(start)
	}
	b.Bandwidth(20)
	if took := pull(); took < 350*time.Millisecond {
		t.Errorf("a host that sends 20 Mbit/s sent a megabyte in %v", took)
	}
	b.Bandwidth(0)
	a.Bandwidth(20)
	if took := pull(); took < 350*time.Millisecond {
		t.Errorf("a host that is sent 20 Mbit/s got a megabyte in %v", took)
	}
}

// A process on a host is one: it can be waited for, and killed.
func TestProcess(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	h := lab.Host("20.1.0.1")
	c := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := h.Start(c); err != nil {
		t.Fatal(err)
	}
	link := func(pid string) string {
		s, err := os.Readlink("/proc/" + pid + "/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if link(fmt.Sprint(c.Process.Pid)) == link("self") {
		t.Error("the process is not in the host's network")
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil {
		t.Error("it ended by itself")
	}
	if err := h.Start(exec.CommandContext(t.Context(), "/nowhere")); err == nil {
		t.Error("a program that is not there was started")
	}
}
