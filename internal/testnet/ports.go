package testnet

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"strconv"
)

// Ports of nodes lie below those that systems give away by themselves: whoever listens there asked for it. They are taken by the block,
// and the first port of a block is its claim.
const (
	firstPort  = 16_384
	endPort    = 32_768
	blockPorts = 64
)

// ports are ports of loopback for the nodes of one testnet. As long as they are held no other testnet of this machine is
// given any of them, whether or not a node listens there just now: between the choice of a port and its use, and whenever a node is
// started anew, somebody else could have it.
type ports struct {
	list   []int
	claims []net.Listener
}

// take takes n ports that are free now, until they are released, also after an error.
func (p *ports) take(ctx context.Context, n int) error {
	for _, block := range mrand.Perm((endPort - firstPort) / blockPorts) {
		base := firstPort + block*blockPorts
		claim, err := listenOn(ctx, base)
		if err != nil {
			continue
		}
		p.claims = append(p.claims, claim)
		for port := base + 1; port < base+blockPorts && len(p.list) < n; port++ {
			l, err := listenOn(ctx, port)
			if err != nil {
				continue
			}
			if err := l.Close(); err != nil {
				return err
			}
			p.list = append(p.list, port)
		}
		if len(p.list) == n {
			return nil
		}
	}
	return fmt.Errorf("%d free ports: there are not so many", n)
}

func listenOn(ctx context.Context, port int) (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port))
}

// release lets others have the ports.
func (p *ports) release() error {
	var errs []error
	for _, l := range p.claims {
		errs = append(errs, l.Close())
	}
	p.list, p.claims = nil, nil
	return errors.Join(errs...)
}
