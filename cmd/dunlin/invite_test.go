package main

import (
	"slices"
	"testing"

	"dunlin/chain/consensus"
	"dunlin/config"
	"dunlin/internal/api"
)

// TestInviteOfRelayed: a node that may be reached through relays hands out an invitation without those addresses.
func TestInviteOfRelayed(t *testing.T) {
	t.Parallel()
	const id = "/p2p/12D3KooWFTLeUYG4UaSGtADtVLVaTFfEm7Axnf1GLpQDCzhVAv9K"
	network, err := config.Preset("regtest")
	if err != nil {
		t.Fatal(err)
	}
	node := &api.NodeFile{ChainID: consensus.Regtest().ChainID(), ListenAddrs: []string{"/ip4/20.1.0.1/tcp/9333" + id, "/p2p-circuit" + id}}
	text, err := invite(network, node)
	if err != nil {
		t.Fatal(err)
	}
	i, err := config.ParseInvitation(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := i.Network.Bootstrap; !slices.Equal(got, node.ListenAddrs[:1]) {
		t.Errorf("it names %v", got)
	}
}
