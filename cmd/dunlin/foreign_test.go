//go:build slow

package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// jsPeer is a js-libp2p node (testdata/js), which knows dunlin by its documents only.
type jsPeer struct {
	t     *testing.T
	id    string
	addr  string
	stdin io.WriteCloser

	mu      sync.Mutex
	calls   int
	answers map[int]jsLine
	events  []jsLine
}

// jsLine is what it writes: an answer or an event.
type jsLine struct {
	ID    int
	OK    json.RawMessage
	Error string

	Event     string
	Direction string
	Peer      string
	Hash      string
	Height    int32
	Bytes     int
	Encoding  int
	Agent     string
	Text      string
}

// jsPrograms finds node and the folder of the programs for it. Without them the test is skipped, in CI it fails.
func jsPrograms(t *testing.T) (node, dir string) {
	t.Helper()
	dir = filepath.Join("testdata", "js")
	missing := ""
	node, err := exec.LookPath("node")
	if err != nil {
		missing = "node is missing (Debian: apt-get install nodejs npm)"
	} else if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		missing = "the packages are not installed: npm ci --prefix cmd/dunlin/testdata/js"
	}
	if missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	return node, dir
}

// startJS runs a js-libp2p node of regtest.
func startJS(t *testing.T, genesis, security string, speaksHello bool) *jsPeer {
	t.Helper()
	node, dir := jsPrograms(t)
	cmd := exec.Command(node, "peer.mjs")
	cmd.Dir = dir
	log := newOutput(t)
	cmd.Stderr = log.file
	p := &jsPeer{t: t, answers: map[int]jsLine{}}
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var l jsLine
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				t.Errorf("js-libp2p wrote %q: %v", lines.Text(), err)
				continue
			}
			p.mu.Lock()
			if l.Event != "" {
				p.events = append(p.events, l)
			} else {
				p.answers[l.ID] = l
			}
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = p.stdin.Close() // ends it
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("js-libp2p ended with %v", err)
		}
		kill.Stop()
		if t.Failed() {
			t.Logf("js-libp2p: events %+v\nlog: %s", p.events, log)
		}
	})
	var me struct {
		Peer  string
		Addrs []string
	}
	p.call("start", map[string]any{"chainId": regtestChain, "genesisHash": genesis, "security": security, "speaksHello": speaksHello}, &me)
	if len(me.Addrs) == 0 {
		t.Fatal("js-libp2p listens nowhere")
	}
	p.id, p.addr = me.Peer, me.Addrs[0]
	return p
}

const regtestChain = "regtest-0f9188f1"

// call asks the node to do something and waits for the answer.
func (p *jsPeer) call(op string, args map[string]any, out any) {
	p.t.Helper()
	if err := p.try(op, args, out); err != nil {
		p.t.Fatalf("js-libp2p: %s: %v", op, err)
	}
}

func (p *jsPeer) try(op string, args map[string]any, out any) error {
	p.t.Helper()
	p.mu.Lock()
	p.calls++
	id := p.calls
	p.mu.Unlock()
	m := map[string]any{"id": id, "op": op}
	maps.Copy(m, args)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := p.stdin.Write(append(b, '\n')); err != nil {
		return err
	}
	var l jsLine
	eventually(p.t, patience, "js-libp2p answers "+op, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		var ok bool
		if l, ok = p.answers[id]; !ok {
			return errors.New("no answer")
		}
		return nil
	})
	if l.Error != "" {
		return errors.New(l.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(l.OK, out)
}

// seen waits for an event.
func (p *jsPeer) seen(what string, is func(jsLine) bool) jsLine {
	p.t.Helper()
	var found jsLine
	eventually(p.t, patience, "js-libp2p: "+what, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		i := slices.IndexFunc(p.events, is)
		if i < 0 {
			return errors.New("no such event")
		}
		found = p.events[i]
		return nil
	})
	return found
}

// sees fails unless a peer is connected.
func (d *daemon) sees(id string) error {
	peers, err := d.client.Peers(d.t.Context())
	if err != nil {
		return err
	}
	for _, p := range peers {
		if p.ID == id {
			return nil
		}
	}
	return fmt.Errorf("%d peers, none is %s", len(peers), id)
}

// A node of another implementation joins our network: it is greeted, finds ours through the DHT and is found
// by ours, gets headers and blocks, hears of new ones, and what it sends that is no block is rejected, for which
// nobody else is blamed.
func TestForeignPeer(t *testing.T) {
	t.Parallel()
	for _, security := range []string{"noise", "tls"} {
		t.Run(security, func(t *testing.T) {
			t.Parallel()
			first := startDaemon(t, "first", "--network", "regtest")
			second := startDaemon(t, "second", "--network", "regtest", "--bootstrap", first.addr())
			tip := first.mine(5)
			second.reaches(tip.Hash, patience)

			js := startJS(t, first.mustStatus().Genesis, security, true)
			js.call("dial", map[string]any{"addr": first.addr()}, nil)
			hello := js.seen("first says hello", func(l jsLine) bool { return l.Event == "hello" && l.Peer == first.info.PeerID })
			if hello.Height != 5 || hello.Hash != tip.Hash || !strings.HasPrefix(hello.Agent, "dunlin/") {
				t.Errorf("hello %+v", hello)
			}
			eventually(t, patience, "first counts it as a peer", func() error { return first.sees(js.id) })

			// It finds ours and is found by one that was told of it by nobody but the DHT.
			eventually(t, patience, "the rendezvous has both", func() error {
				var found []struct{ Peer string }
				js.call("find", nil, &found)
				for _, d := range []*daemon{first, second} {
					if !slices.ContainsFunc(found, func(f struct{ Peer string }) bool { return f.Peer == d.info.PeerID }) {
						return fmt.Errorf("found %v, not %s", found, d.name)
					}
				}
				return nil
			})
			js.call("provide", nil, nil)
			late := startDaemon(t, "late", "--network", "regtest", "--bootstrap", second.addr())
			eventually(t, patience, "late has found it", func() error { return late.sees(js.id) })

			var headers struct {
				Start, Count int
				Hash         string
			}
			js.call("headers", map[string]any{"peer": first.info.PeerID}, &headers)
			if headers.Start != 1 || headers.Count != 5 || headers.Hash != tip.Hash {
				t.Errorf("headers %+v, want 5 up to %s", headers, tip.Hash)
			}
			var blocks struct {
				Hashes []string
				Status int
			}
			js.call("blocks", map[string]any{"peer": first.info.PeerID, "start": 1, "count": 5, "last": tip.Hash}, &blocks)
			if len(blocks.Hashes) != 5 || blocks.Hashes[4] != tip.Hash || blocks.Status != 0 {
				t.Errorf("blocks %+v", blocks)
			}

			// Blocks come to it, whole.
			eventually(t, patience, "it is in the mesh", func() error {
				var mesh []string
				js.call("neighbours", nil, &mesh)
				if len(mesh) == 0 {
					return errors.New("no neighbour")
				}
				return nil
			})
			b := second.mine(1)
			got := js.seen("the block", func(l jsLine) bool { return l.Event == "block" && l.Hash == b.Hash })
			if got.Encoding != 0 || got.Bytes < 81 {
				t.Errorf("the block came as %+v", got)
			}

			// What is no block is rejected, with blame, and does not get further.
			prev, err := hex.DecodeString(b.Hash)
			if err != nil {
				t.Fatal(err)
			}
			slices.Reverse(prev)
			for i := range 20 {
				data := []byte{0, 1, 0, byte(i)} // too short for a header
				if i%2 == 0 {                    // or one without work
					data = slices.Concat([]byte{0, 1, 0, 0, 0}, prev, bytes.Repeat([]byte{byte(i)}, 100))
				}
				js.call("publish", map[string]any{"topic": "/block/1", "data": hex.EncodeToString(data)}, nil)
			}
			some := []*daemon{first, second, late}
			eventually(t, patience, "a daemon rejects it", func() error {
				for _, d := range some {
					for line := range strings.Lines(d.log.String()) {
						if strings.Contains(line, "message rejected") && strings.Contains(line, js.id) {
							return nil
						}
					}
				}
				return errors.New("no line about it")
			})
			last := first.mine(1)
			for _, d := range some {
				d.reaches(last.Hash, patience)
				for line := range strings.Lines(d.log.String()) {
					if strings.Contains(line, "message rejected") && !strings.Contains(line, js.id) {
						t.Errorf("%s blames somebody else: %s", d.name, line)
					}
				}
			}
		})
	}
}

// A node that speaks our DHT but no hello is no peer: it is sent away, told of once, and not dialled.
func TestForeignPeerWithoutHello(t *testing.T) {
	t.Parallel()
	first := startDaemon(t, "first", "--network", "regtest")
	js := startJS(t, first.mustStatus().Genesis, "noise", false)
	for range 2 { // it comes again
		eventually(t, patience, "it is connected", func() error {
			return js.try("dial", map[string]any{"addr": first.addr()}, nil)
		})
		eventually(t, patience, "it is sent away", func() error {
			var peers []string
			js.call("peers", nil, &peers)
			if len(peers) > 0 {
				return errors.New("still there")
			}
			return nil
		})
	}
	first.logged("peer does not speak this chain's protocols", js.id, "agent=\"js-libp2p/")

	// A peer of ours that is lost is dialled at once and again after 1, 2, 4 … s. This one is not.
	before := js.opened(first.info.PeerID, "inbound")
	quiet := time.NewTimer(5 * time.Second)
	<-quiet.C
	if n := js.opened(first.info.PeerID, "inbound") - before; n > 0 {
		t.Errorf("it was dialled %d times after it was told of", n)
	}
	if n := strings.Count(first.log.String(), "peer does not speak"); n != 1 {
		t.Errorf("told of %d times", n)
	}
}

// opened counts the connections with a peer that were opened so far, in or outbound.
func (p *jsPeer) opened(id, direction string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Event == "connection:open" && e.Peer == id && e.Direction == direction {
			n++
		}
	}
	return n
}
