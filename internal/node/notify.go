package node

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"dunlin/internal/api"
)

const (
	// notifyEvery is how often systemd's status line is renewed while it changes.
	notifyEvery = 5 * time.Second
	// stopAllowance is what systemd is asked to wait for the last commit.
	stopAllowance = 60 * time.Second
)

// notify tells systemd, if it started the node (Type=notify), that it is there, how its
// sync goes on, and, if the unit has a watchdog, that it lives: the status is asked for
// each time, so a node whose locks are stuck is not said to live. sd_notify(3).
func (n *Node) notify(ctx context.Context) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("systemd's watchdog is off", "err", err)
	}
	sent, err := daemon.SdNotify(false, daemon.SdNotifyReady+"\n"+statusText(face{n}.Status()))
	if err != nil {
		n.log.Warn("systemd not told", "err", err)
	}
	if !sent {
		return nil // not started by systemd
	}
	every := notifyEvery
	if interval > 0 {
		every = min(every, interval/2) // as sd_watchdog_enabled(3) recommends
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			state := statusText(face{n}.Status())
			if interval > 0 {
				state += "\n" + daemon.SdNotifyWatchdog
			}
			// Lost messages do not matter: the next one comes soon.
			_, _ = daemon.SdNotify(false, state)
		case <-ctx.Done():
			_, _ = daemon.SdNotify(false, fmt.Sprintf("%s\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, stopAllowance.Microseconds()))
			return ctx.Err()
		}
	}
}

// statusText is the line that systemctl status shows.
func statusText(s api.Status) string {
	peers := s.Peers.Inbound + s.Peers.Outbound
	switch s.Sync.State {
	case api.StateHeaders, api.StateBlocks, api.StateStalled:
		eta := "unknown"
		if s.Sync.ETAS != nil {
			eta = (time.Duration(*s.Sync.ETAS) * time.Second).String()
		}
		return fmt.Sprintf("STATUS=%s: %.1f%%, height %d of %d, %.0f blocks/s, eta %s, %d peers", s.Sync.State, s.Sync.Percent, s.Height, s.TargetHeight, s.Sync.BlocksPerS, eta, peers)
	}
	return fmt.Sprintf("STATUS=%s: height %d, %d peers", s.Sync.State, s.Height, peers)
}
