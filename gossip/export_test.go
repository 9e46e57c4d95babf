package gossip

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Limits that tests press.
const (
	MaxFrameSubscriptions = maxFrameSubscriptions
	MaxFrameMessages      = maxFrameMessages
	MaxFrameControls      = maxFrameControls
	MaxFrameIDs           = maxFrameIDs
	MaxFramePeers         = maxFramePeers
	MaxControlIDs         = maxControlIDs
	MaxBlamed             = maxBlamed
	MaxAccounts           = maxAccounts
)

// ScanFrames feeds the scanner with a stream, n bytes at a time.
func ScanFrames(stream []byte, n int) error {
	var f frameScan
	for len(stream) > 0 {
		k := min(n, len(stream))
		if err := f.feed(stream[:k]); err != nil {
			return err
		}
		stream = stream[k:]
	}
	return nil
}

// Ledgers fills the maps that peers can make grow and returns their sizes.
func Ledgers(peers int) (blamed, accountsOpen int) {
	var bs blames
	a := newAccounts([]Topic{{Waste: 10}}, time.Minute)
	now := time.Now()
	for i := range peers {
		p := peer.ID([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		bs.add(p, 1+float64(i%100), "test", now)
		a.spend(p, 0)
	}
	return len(bs.m), len(a.m)
}
