package discovery

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// whoTimeout bounds one question of who is at an address: a TCP connection and a handshake. All of an answer are asked at once.
const whoTimeout = 5 * time.Second

// errItself says that we are at an address ourselves.
var errItself = errors.New("this node itself")

// askable leaves out those bare addresses that may not be dialled, and counts the private ones.
func (a *seedAnswer) askable(private bool) (hidden int) {
	var all []ma.Multiaddr
	for i := range a.bare {
		keep, n := usable(a.bare[i:i+1], private)
		all, hidden = append(all, keep...), hidden+n
	}
	a.bare = all
	return hidden
}

// ask asks at the bare addresses who is there, and makes them addresses of those peers. It blocks for whoTimeout at most. It returns
// nil if there is a peer, else without, and why one of them did not answer.
func (a *seedAnswer) ask(ctx context.Context, h host.Host, without error) error {
	ids, errs := make([]peer.ID, len(a.bare)), make([]error, len(a.bare))
	var asked sync.WaitGroup
	for i, addr := range a.bare {
		asked.Go(func() { ids[i], errs[i] = whoIsAt(ctx, h, addr) })
	}
	asked.Wait()
	var reason error
	for i, id := range ids {
		if errs[i] == nil {
			a.peers[id] = append(a.peers[id], a.bare[i])
			a.found++
		} else if reason == nil && !errors.Is(errs[i], errItself) {
			_, text := dialReason(errs[i], a.bare[i:i+1])
			reason = errors.New(text)
		}
	}
	switch {
	case a.found > 0:
		return nil
	case reason != nil:
		return fmt.Errorf("%w; %w", without, reason)
	}
	return without
}

// whoIsAt returns the peer that answers at an address. A libp2p handshake proves the answerer's id before it tells ours, and fails unless that is
// the one that was meant: one that nobody has is meant, so every answer fails and names the right one. The connection that is used
// afterwards is an ordinary one with that id. The answer is as good as the address: whoever gave that decides who is met, as with dnsaddr records.
func whoIsAt(ctx context.Context, h host.Host, addr ma.Multiaddr) (peer.ID, error) {
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("key: %w", err)
	}
	nobody, err := peer.IDFromPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("peer id: %w", err)
	}
	ctx, cancel := context.WithTimeout(network.WithForceDirectDial(network.WithDialPeerTimeout(ctx, whoTimeout), "who is there"), whoTimeout)
	defer cancel()
	h.Peerstore().AddAddr(nobody, addr, whoTimeout)
	defer func() {
		h.Peerstore().ClearAddrs(nobody)
		h.Peerstore().RemovePeer(nobody)
	}()
	conn, err := h.Network().DialPeer(ctx, nobody)
	if err == nil { // a transport without security
		return "", errors.Join(errors.New("answers without a proof of its peer id"), conn.Close())
	}
	var mismatch sec.ErrPeerIDMismatch
	switch {
	case errors.Is(err, swarm.ErrDialToSelf), errors.As(err, &mismatch) && mismatch.Actual == h.ID():
		return "", errItself
	case mismatch.Actual == "":
		return "", err
	}
	return mismatch.Actual, nil
}
