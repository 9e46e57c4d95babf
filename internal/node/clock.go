package node

import (
	"errors"
	"fmt"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"dunlin/config"
)

// MaxClockOffset is the furthest that a test may set the clock of a node off.
const MaxClockOffset = 90 * time.Second

// CheckClockOffset says why a node with these settings may not have its clock set off, nil if it may. It is
// for tests alone, so that it takes more than a slip to have a node of a real network with a wrong clock: the
// network must be one for tests, and the node must listen on loopback, and nowhere else. No setting, only a
// flag of the command line leads here.
func CheckClockOffset(c *config.Config, offset time.Duration) error {
	if offset == 0 {
		return nil
	}
	var errs []error
	if offset.Abs() > MaxClockOffset {
		errs = append(errs, fmt.Errorf("clock offset %v: must be within %v", offset, MaxClockOffset))
	}
	if !c.Chain.Params.Test {
		errs = append(errs, fmt.Errorf("clock offset %v: network %s is not for tests", offset, c.Chain.Params.Name))
	}
	if len(c.P2P.Listen) == 0 {
		errs = append(errs, fmt.Errorf("clock offset %v: the node must listen on loopback", offset))
	}
	for _, s := range c.P2P.Listen {
		if a, err := ma.NewMultiaddr(s); err != nil || !manet.IsIPLoopback(a) {
			errs = append(errs, fmt.Errorf("clock offset %v: the node listens on %s, which is not loopback", offset, s))
		}
	}
	return errors.Join(errs...)
}

// now is the time by which chain and miner go.
func (n *Node) now() time.Time { return time.Now().Add(n.o.ClockOffset) }
