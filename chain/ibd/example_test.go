package ibd_test

import (
	"fmt"
	"time"

	"dunlin/chain/ibd"
)

// A driver in small: it does what the scheduler says, at once, and tells it what came of that. A real one sends the requests, and each event
// has the time at which it happened.
func Example() {
	s, err := ibd.New(ibd.Config{MaxBlockBytes: 1 << 20})
	if err != nil {
		panic(err)
	}
	const best = 1000
	now := time.Unix(0, 0)
	asked := map[ibd.PeerID]bool{}
	delivered, connected := int32(0), int32(0)
	events := []ibd.Event{
		ibd.PeerTip{Peer: "anna", High: best, RTT: 20 * time.Millisecond},
		ibd.PeerTip{Peer: "berta", High: best, RTT: 20 * time.Millisecond},
		ibd.Target{Base: 0, Best: best},
	}
	for connected < best {
		if len(events) == 0 { // nothing happens: time passes
			now = now.Add(100 * time.Millisecond)
			events = append(events, ibd.Tick{})
		}
		event := events[0]
		events = events[1:]
		for _, a := range s.Step(now, event) {
			switch a := a.(type) {
			case ibd.Request: // the peer answers with all of it
				asked[a.Peer] = true
				for i := range a.Count {
					events = append(events, ibd.Block{Peer: a.Peer, ID: a.ID, Height: a.Start + int32(i), Size: 300})
				}
				events = append(events, ibd.Done{Peer: a.Peer, ID: a.ID})
			case ibd.Deliver: // in height order: the chain connects it
				if a.Height != delivered+1 {
					panic("out of order")
				}
				delivered = a.Height
				events = append(events, ibd.Connected{Height: a.Height})
			}
		}
		if c, ok := event.(ibd.Connected); ok {
			connected = c.Height
		}
	}
	fmt.Println("connected", connected, "from", len(asked), "peers")
	// Output: connected 1000 from 2 peers
}
