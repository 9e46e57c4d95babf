//go:build linux && slow

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dunlin/config"
	"dunlin/internal/api"
	"dunlin/internal/netlab"
)

// labNode is a daemon on a host of a lab. Its interface listens in there, so it is asked by the command line.
type labNode struct {
	t    *testing.T
	host *netlab.Host
	name string
	home string
	args []string
	cmd  *exec.Cmd
	done chan struct{}
	log  *output
}

// labNetwork writes a network.toml of a public network, on which blocks are made at will.
func labNetwork(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "network.toml")
	spec := config.DefaultNetworkSpec("labnet", time.Now().Add(-time.Hour))
	spec.Private = false
	if _, err := config.WriteNetworkFile(file, spec); err != nil {
		t.Fatal(err)
	}
	return file
}

func startLabNode(t *testing.T, h *netlab.Host, name, network string, args ...string) *labNode {
	t.Helper()
	n := &labNode{t: t, host: h, name: name, home: filepath.Join(t.TempDir(), name), log: newOutput(t)}
	n.args = append([]string{
		"start", "--home", n.home, "--network-file", network, "--listen", "/ip4/0.0.0.0/tcp/9333", "--listen", "/ip4/0.0.0.0/udp/9333/quic-v1",
		"--rpc-listen", "127.0.0.1:9332", "--log-color", "never", "--p2p-nat=false",
	}, args...)
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", n.name, lastPart(n.log.String(), 6000))
		}
	})
	n.start()
	return n
}

func (n *labNode) start() {
	n.t.Helper()
	n.cmd = exec.Command("dunlin", n.args...)
	n.log.of(n.cmd)
	if err := n.host.Start(n.cmd); err != nil {
		n.t.Fatal(err)
	}
	n.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(n.cmd, n.done)
	eventually(n.t, patience, n.name+" runs", func() error {
		select {
		case <-n.done:
			return fatal{fmt.Errorf("it ended: %s", lastPart(n.log.String(), 3000))}
		default:
		}
		var s api.Status
		return n.ask(&s, "status")
	})
}

func (n *labNode) stop() {
	if n.cmd == nil {
		return
	}
	timer := time.AfterFunc(patience, func() { _ = n.cmd.Process.Kill() })
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	<-n.done
	timer.Stop()
	n.cmd = nil
}

// ask runs a command on the node's host and decodes what it prints.
func (n *labNode) ask(into any, args ...string) error {
	out, err := n.host.Run("dunlin", append(args, "--home", n.home, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("%w in %s", err, out)
	}
	return nil
}

func (n *labNode) id() identity {
	n.t.Helper()
	var v identity
	if err := n.ask(&v, "id"); err != nil {
		n.t.Fatal(err)
	}
	return v
}

// at is the address of the node at an IP, for others.
func (n *labNode) at(ip netip.Addr) string {
	return fmt.Sprintf("/ip4/%s/tcp/9333/p2p/%s", ip, n.id().PeerID)
}

// reaches waits for a tip.
func (n *labNode) reaches(height int32) {
	n.t.Helper()
	eventually(n.t, patience, fmt.Sprintf("%s at height %d", n.name, height), func() error {
		var s api.Status
		if err := n.ask(&s, "status"); err != nil {
			return err
		}
		if s.Height != height {
			return fmt.Errorf("at height %d, %+v, %+v", s.Height, s.Sync, s.Peers)
		}
		return nil
	})
}

// homeRouter makes a router that drops what nobody asked for, as home routers do; one that answers a knock with a reset
// spoils the holes.
func homeRouter(t *testing.T, lab *netlab.Lab, wan, lan string) *netlab.Router {
	t.Helper()
	r := lab.Router(wan, lan)
	if _, err := r.Outside.Run("iptables", "-w", "-A", "INPUT", "-i", "eth0", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestNAT has two nodes behind a router each, which lets nobody in, and a seed outside that relays. They find each other by the seed, meet
// through it, and make a direct connection, over which blocks come when the seed is gone.
func TestNAT(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	outside := lab.Host("20.1.0.1")
	left, right := homeRouter(t, lab, "20.2.0.1", "10.0.0.1/24"), homeRouter(t, lab, "20.3.0.1", "10.0.1.1/24")
	network := labNetwork(t)
	seed := startLabNode(t, outside, "seed", network, "--p2p-relay", "--announce", "/ip4/20.1.0.1/tcp/9333", "--announce", "/ip4/20.1.0.1/udp/9333/quic-v1")
	by := seed.at(outside.Addr())
	a := startLabNode(t, left.Host("10.0.0.2"), "a", network, "--bootstrap", by, "--debug")
	b := startLabNode(t, right.Host("10.0.1.2"), "b", network, "--bootstrap", by, "--debug")

	for _, n := range []*labNode{a, b} {
		eventually(t, patience, n.name+" has a place with the relay", func() error {
			r := n.id().Reachability
			if r == nil || r.Verdict != "unreachable" || len(r.Relays) == 0 {
				return fmt.Errorf("%+v", r)
			}
			if r.Reason == "" || !strings.Contains(r.Do, "forward TCP 9333 and UDP 9333 on the router to 10.0.") {
				return fatal{fmt.Errorf("reason %q, do %q", r.Reason, r.Do)}
			}
			return nil
		})
	}
	direct := func(n, other *labNode, ip string) error {
		var peers []api.Peer
		if err := n.ask(&peers, "peers"); err != nil {
			return err
		}
		id := other.id().PeerID
		for _, p := range peers {
			if p.ID == id && strings.HasPrefix(p.Addr, "/ip4/"+ip+"/") && !strings.Contains(p.Addr, "p2p-circuit") && p.Ready {
				return nil
			}
		}
		return fmt.Errorf("%+v", peers)
	}
	eventually(t, patience, "a and b are connected directly", func() error {
		if err := direct(a, b, "20.3.0.1"); err != nil {
			return err
		}
		return direct(b, a, "20.2.0.1")
	})
	if log := a.log.String() + b.log.String(); !strings.Contains(log, "reached through a relay") {
		t.Error("they met without the relay")
	}
	seed.stop()
	if out, err := a.host.Run("dunlin", "miner", "block", "--home", a.home, "--data", "without the seed"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.reaches(1)
}

// TestForwardedPort has a node behind a router. While nothing is forwarded the doctor says what to do; then it says that it works, and a node finds
// out by itself: other nodes confirm the address at which they see it with the port on which it listens, and it announces that.
func TestForwardedPort(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	network := labNetwork(t)
	var args []string
	for _, ip := range []string{"20.1.0.1", "20.4.0.1", "20.5.0.1"} {
		seed := startLabNode(t, lab.Host(ip), "seed-"+ip, network, args...)
		args = append(args, "--bootstrap", seed.at(seed.host.Addr()))
	}
	router := homeRouter(t, lab, "20.2.0.1", "10.0.0.1/24")
	home := router.Host("10.0.0.2")
	doctor := func() (string, error) {
		return home.Run("dunlin", append([]string{
			"doctor", "--home", filepath.Join(t.TempDir(), "none"), "--network-file", network, "--p2p-nat=false", "--listen", "/ip4/0.0.0.0/tcp/9333",
		}, args...)...)
	}
	out, err := doctor()
	if want := "forward TCP 9333 on the router to 10.0.0.2"; err == nil || !strings.Contains(out, "could not connect to it") || !strings.Contains(out, want) {
		t.Errorf("doctor, nothing forwarded: %v\n%s", err, out)
	}
	router.Forward(9333, home)
	if out, err := doctor(); err != nil || !strings.Contains(out, "dial-back  /ip4/20.2.0.1/tcp/9333: ") {
		t.Errorf("doctor, port forwarded: %v\n%s", err, out)
	}
	n := startLabNode(t, home, "home", network, args...)
	want := "/ip4/20.2.0.1/tcp/9333"
	eventually(t, patience, "the forwarded port is confirmed and announced", func() error {
		r := n.id().Reachability
		if r == nil || r.Verdict != "reachable" || !slices.Contains(r.Confirmed, want) || !slices.Contains(r.Announced, want) {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}

// TestSymmetricNAT has two nodes behind routers that choose another port for each destination: no hole can be punched. They know of each other, but
// nothing of ours runs over the relay, and blocks come by the seed.
func TestSymmetricNAT(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	network := labNetwork(t)
	seed := startLabNode(t, lab.Host("20.1.0.1"), "seed", network, "--p2p-relay", "--announce", "/ip4/20.1.0.1/tcp/9333")
	by := seed.at(seed.host.Addr())
	left, right := homeRouter(t, lab, "20.2.0.1", "10.0.0.1/24"), homeRouter(t, lab, "20.3.0.1", "10.0.1.1/24")
	left.Symmetric()
	right.Symmetric()
	a := startLabNode(t, left.Host("10.0.0.2"), "a", network, "--bootstrap", by, "--debug")
	b := startLabNode(t, right.Host("10.0.1.2"), "b", network, "--bootstrap", by, "--debug")
	eventually(t, patience, "they try through the relay", func() error {
		if log := a.log.String() + b.log.String(); !strings.Contains(log, "reached through a relay") {
			return errors.New("no relayed connection")
		}
		return nil
	})
	if out, err := a.host.Run("dunlin", "miner", "block", "--home", a.home, "--data", "by the seed"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.reaches(1)
	var peers []api.Peer
	if err := b.ask(&peers, "peers"); err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		if p.ID == a.id().PeerID {
			t.Errorf("a counts as a peer, at %s", p.Addr)
		}
	}
}

// TestLAN has two nodes on a local network that know nobody.
func TestLAN(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	network := labNetwork(t)
	home := lab.Router("20.2.0.1", "10.0.0.1/24")
	var nodes []*labNode
	for _, ip := range []string{"10.0.0.2", "10.0.0.3"} {
		h := home.Host(ip)
		// Hosts of a lab have an address without a network; this one is on 10.0.0.0/24.
		if _, err := h.Run("ip", "addr", "add", ip+"/24", "dev", "eth0"); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, startLabNode(t, h, "lan-"+ip, network, "--p2p-mdns"))
	}
	eventually(t, patience, "they are connected", func() error {
		var peers []api.Peer
		if err := nodes[0].ask(&peers, "peers"); err != nil {
			return err
		}
		if len(peers) != 1 || !peers[0].Ready || !strings.HasPrefix(peers[0].Addr, "/ip4/10.0.0.3/") {
			return fmt.Errorf("%+v", peers)
		}
		return nil
	})
}
