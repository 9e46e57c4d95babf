package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coder/websocket"
)

// Limits of asking a registered URL for its node's addresses.
const (
	askTimeout    = 5 * time.Second
	askReplyBytes = 16 << 10
	maxAsked      = 8   // addresses taken from one node
	askQueue      = 100 // URLs that wait to be asked; more are asked at the next start
)

// askURLs asks the nodes behind registered WebSocket URLs for their multiaddrs
// and has those dialled: those kept from earlier runs first, then each that is
// registered, one at a time, until ctx ends. A node that tells none stays listed.
func (s *Server) askURLs(ctx context.Context) {
	pending := s.book.list()
	for {
		for _, u := range pending {
			if !isURL(u) || ctx.Err() != nil {
				continue
			}
			n := s.node.Load()
			if n == nil {
				continue
			}
			if err := s.ask(ctx, *n, u); err != nil && ctx.Err() == nil {
				s.log.Debug("registered url tells no address", "url", u, "err", err)
			}
		}
		select {
		case u := <-s.urls:
			pending = []string{u}
		case <-ctx.Done():
			return
		}
	}
}

// ask opens a WebSocket to u, sends {"op":"addrs"} and dials what the answer lists.
func (s *Server) ask(ctx context.Context, n Node, u string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, u, nil)
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(askReplyBytes)
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"op":"addrs"}`)); err != nil {
		return err
	}
	_, raw, err := conn.Read(ctx)
	if err != nil {
		return err
	}
	var reply struct {
		Status   int `json:"status"`
		Response struct {
			Addrs []string `json:"addrs"`
		} `json:"response"`
	}
	if err := json.Unmarshal(raw, &reply); err != nil || reply.Status != 200 {
		return fmt.Errorf("answer %q", clip(string(raw)))
	}
	var faults []error
	for i, a := range reply.Response.Addrs {
		if i == maxAsked {
			break
		}
		if err := CheckPeerAddr(a); err != nil {
			faults = append(faults, err)
		} else if err := n.AddPeer(a); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
