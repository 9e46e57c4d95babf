package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"dunlin/chain/consensus"
	"dunlin/internal/api"
)

// TestE2EShunned: a peer that breaks the protocol again and again is told apart from
// one that does it once, and from others at its address; the log says why, once.
func TestE2EShunned(t *testing.T) {
	t.Parallel()
	p := consensus.Regtest()
	d := startDaemon(t, "a", "--network", "regtest")
	x, bystander := newAttacker(t, p), newAttacker(t, p)
	for i := range 4 {
		id := x.connect(d)
		s, err := x.h.NewStream(t.Context(), id, x.id("hello/1"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte("\x0bnot a hello")) // the answer is a reset
		eventually(t, patience, fmt.Sprint("disconnected, time ", i), func() error {
			if x.h.Network().Connectedness(id) == network.Connected {
				return errors.New("still connected")
			}
			return nil
		})
		bans, err := d.client.Bans(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i < 3 && len(bans) != 0 {
			t.Fatalf("after %d breaches: %+v", i+1, bans)
		}
	}
	eventually(t, patience, "the peer is shunned for an hour", func() error {
		bans, err := d.client.Bans(t.Context())
		if err == nil && !slices.ContainsFunc(bans, func(b api.Ban) bool {
			return b.Auto && b.Target == x.h.ID().String() && strings.Contains(b.Reason, "hello") && b.Until.Sub(b.Since) == time.Hour
		}) {
			err = fmt.Errorf("bans %+v", bans)
		}
		return err
	})
	info, err := peerInfo(d)
	if err != nil {
		t.Fatal(err)
	}
	// An inbound connection is refused when the other end has proved who it is; TLS has
	// then told the dialler that all is well.
	_ = x.h.Connect(t.Context(), info)
	eventually(t, patience, "it is not let in", func() error {
		if x.h.Network().Connectedness(info.ID) == network.Connected {
			return errors.New("connected")
		}
		return nil
	})
	bystander.greet(d, wireTip{hash: p.GenesisHash})
	eventually(t, patience, "a peer at the same address is told to be good", func() error {
		peers, err := d.client.Peers(t.Context())
		if err == nil && !slices.ContainsFunc(peers, func(a api.Peer) bool { return a.ID == bystander.h.ID().String() }) {
			err = fmt.Errorf("peers %+v", peers)
		}
		return err
	})
}

// TestE2EDirect: two that keep one another connected are direct peers in gossip; blocks
// pass between them, and one that is kept but does not keep us gets them as well.
func TestE2EDirect(t *testing.T) {
	t.Parallel()
	a := startDaemon(t, "a", "--network", "regtest")
	b := startDaemon(t, "b", "--network", "regtest", "--persistent", a.addr(), "--log-level", "debug")
	knows(t, b, 1, patience)
	made := a.mine(1) // one-sided
	b.reaches(made.Hash, patience)
	made = b.mine(1)
	a.reaches(made.Hash, patience)
	if strings.Contains(b.log.String(), "direct=true") {
		t.Error("a one-sided peer became a direct one")
	}
	a.stop()
	a.args = append(a.args, "--persistent", b.addr(), "--log-level", "debug")
	a.start()
	knows(t, a, 1, patience)
	eventually(t, patience, "both know that they are direct peers", func() error {
		for _, d := range []*daemon{a, b} {
			if !strings.Contains(d.log.String(), "direct=true") {
				return fmt.Errorf("%s does not", d.name)
			}
		}
		return nil
	})
	made = a.mine(1) // both
	b.reaches(made.Hash, patience)
	made = b.mine(1)
	a.reaches(made.Hash, patience)
}
