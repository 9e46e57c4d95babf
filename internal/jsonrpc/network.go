package jsonrpc

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"dunlin/internal/api"
)

var networkMethods = []method{
	{name: "getpeerinfo", help: "Connected peers.", run: getPeerInfo},
	{name: "getconnectioncount", help: "Number of connected peers.", run: func(c *call) (any, error) {
		st := c.o.Node.Status()
		return st.Peers.Inbound + st.Peers.Outbound, nil
	}},
	{name: "getnetworkinfo", help: "State of the network.", run: getNetworkInfo},
	{name: "addnode", params: "node command v2transport?", help: "Keeps (add) or dials once (onetry) a peer, by its multiaddr.", run: addNode},
	{name: "disconnectnode", params: "address? nodeid?", help: "Ends the connections to a peer: its address, its peer id or its number.", run: disconnectNode},
	{name: "setban", params: "subnet command bantime? absolute?", help: "Bans (add) an address, a CIDR or a peer id, or lifts that (remove).", run: setBan},
	{name: "listbanned", help: "Bans in force.", run: listBanned},
	{name: "clearbanned", help: "Lifts all bans.", run: func(c *call) (any, error) {
		for _, b := range c.o.Node.Bans() {
			if err := c.o.Node.Unban(b.Target); err != nil && !isNotFound(err) {
				return nil, err
			}
		}
		return nil, nil //nolint:nilnil // null is the answer
	}},
}

// coreVersion and coreAgent name the version of Bitcoin Core that this interface is
// shaped after: clients (btcd's rpcclient among them) choose by it how to call. Our own
// name follows, as BIP14 has it.
const (
	coreVersion = 280_000
	coreAgent   = "/Satoshi:28.0.0/"
)

// protocolVersion is Bitcoin's, for clients that look; peers speak libp2p.
const protocolVersion = 70016

// defaultBan is Core's, a day.
const defaultBan = 24 * time.Hour

// peerNumbers gives connected peers the small numbers that Core's clients expect.
type peerNumbers struct {
	mu   sync.Mutex // guards what follows
	next int
	byID map[string]int
}

// of numbers the peers; those that are gone are forgotten.
func (p *peerNumbers) of(peers []api.Peer) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, out := make(map[string]int, len(peers)), make([]int, len(peers))
	for i := range peers {
		n, ok := p.byID[peers[i].ID]
		if !ok {
			n = p.next
			p.next++
		}
		now[peers[i].ID], out[i] = n, n
	}
	p.byID = now
	return out
}

func isNotFound(err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	return ok && e.Status == http.StatusNotFound
}

type peerInfo struct {
	ID         int      `json:"id"`
	Addr       string   `json:"addr"`
	PeerID     string   `json:"peer_id"`
	Multiaddr  string   `json:"multiaddr"`
	Network    string   `json:"network"`
	Services   string   `json:"services"`
	Names      []string `json:"servicesnames"`
	RelayTxs   bool     `json:"relaytxes"`
	LastSend   int64    `json:"lastsend"`
	LastRecv   int64    `json:"lastrecv"`
	Sent       int64    `json:"bytessent"`
	Received   int64    `json:"bytesrecv"`
	ConnTime   int64    `json:"conntime"`
	TimeOffset int64    `json:"timeoffset"`
	Ping       float64  `json:"pingtime,omitempty"`
	MinPing    float64  `json:"minping,omitempty"`
	Version    int      `json:"version"`
	SubVersion string   `json:"subver"`
	Inbound    bool     `json:"inbound"`
	Height     int32    `json:"startingheight"`
	Headers    int32    `json:"synced_headers"`
	Blocks     int32    `json:"synced_blocks"`
	InFlight   []int32  `json:"inflight"`
	Kind       string   `json:"connection_type"`
	Transport  string   `json:"transport_protocol_type"`
}

// Bitcoin's service bits of a full node with witnesses.
const services = "0000000000000409"

var serviceNames = []string{"NETWORK", "WITNESS", "NETWORK_LIMITED"}

func getPeerInfo(c *call) (any, error) {
	peers := c.o.Node.Peers()
	numbers := c.peerIDs.of(peers)
	out := []peerInfo{}
	for i, p := range peers {
		kind := "outbound-full-relay"
		if p.Inbound {
			kind = "inbound"
		}
		out = append(out, peerInfo{
			ID: numbers[i], Addr: p.Endpoint, PeerID: p.ID, Multiaddr: p.Addr, Network: networkOf(p.Endpoint),
			Services: services, Names: serviceNames, RelayTxs: true, LastSend: p.Since.Unix(), LastRecv: p.Since.Unix(),
			Sent: p.BytesOut, Received: p.BytesIn, ConnTime: p.Since.Unix(), Ping: p.RTTMS / 1000, MinPing: p.RTTMS / 1000,
			Version: protocolVersion, SubVersion: "/" + p.Agent + "/", Inbound: p.Inbound,
			Height: p.Height, Headers: p.Height, Blocks: p.Height, InFlight: []int32{}, Kind: kind, Transport: "libp2p",
		})
	}
	return out, nil
}

// networkOf is Core's name for the kind of an address.
func networkOf(endpoint string) string {
	ap, err := netip.ParseAddrPort(endpoint)
	switch {
	case err != nil:
		return "not_publicly_routable"
	case ap.Addr().Unmap().Is4():
		return "ipv4"
	default:
		return "ipv6"
	}
}

func getNetworkInfo(c *call) (any, error) {
	st := c.o.Node.Status()
	type local struct {
		Address string `json:"address"`
		Port    int    `json:"port"`
		Score   int    `json:"score"`
	}
	type network struct {
		Name        string `json:"name"`
		Limited     bool   `json:"limited"`
		Reachable   bool   `json:"reachable"`
		Proxy       string `json:"proxy"`
		Credentials bool   `json:"proxy_randomize_credentials"`
	}
	addrs := []local{}
	for i, a := range c.o.Node.Addrs() {
		if host, port, ok := splitMultiaddr(a); ok {
			addrs = append(addrs, local{host, port, max(1, 10-i)})
		}
	}
	least := feeRate(c.o.Pool.MinRelayFeeRate())
	return struct {
		Version      int       `json:"version"`
		SubVersion   string    `json:"subversion"`
		Protocol     int       `json:"protocolversion"`
		Services     string    `json:"localservices"`
		ServiceNames []string  `json:"localservicesnames"`
		Relay        bool      `json:"localrelay"`
		TimeOffset   int64     `json:"timeoffset"`
		Active       bool      `json:"networkactive"`
		Connections  int       `json:"connections"`
		In           int       `json:"connections_in"`
		Out          int       `json:"connections_out"`
		Networks     []network `json:"networks"`
		RelayFee     amount    `json:"relayfee"`
		Incremental  amount    `json:"incrementalfee"`
		Local        []local   `json:"localaddresses"`
		Warnings     []string  `json:"warnings"`
	}{
		coreVersion, coreAgent + strings.Replace(c.o.Agent, "/", ":", 1) + "/", protocolVersion, services, serviceNames, true, 0, true,
		st.Peers.Inbound + st.Peers.Outbound, st.Peers.Inbound, st.Peers.Outbound,
		[]network{{Name: "ipv4", Reachable: true}, {Name: "ipv6", Reachable: true}},
		least, least, addrs, c.warnings(),
	}, nil
}

// splitMultiaddr takes the IP address and the port out of "/ip4/1.2.3.4/tcp/9333/…".
func splitMultiaddr(a string) (host string, port int, ok bool) {
	parts := strings.Split(a, "/")
	if len(parts) < 5 || parts[1] != "ip4" && parts[1] != "ip6" {
		return "", 0, false
	}
	port, err := strconv.Atoi(parts[4])
	return parts[2], port, err == nil
}

func addNode(c *call) (any, error) {
	node, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	command, err := arg(c, 1, "")
	if err != nil {
		return nil, err
	}
	switch command {
	case "add", "onetry":
		if err := api.CheckPeerAddr(node); err != nil {
			return nil, fault(codeInvalidParameter, "%v", err)
		}
		return nil, c.o.Node.AddPeer(node)
	case "remove":
		return nil, fault(codeNodeNotAdded, "nodes are removed with dunlin peers remove")
	}
	return nil, fault(codeMisc, "command %q: want add or onetry", clip(command))
}

func disconnectNode(c *call) (any, error) {
	addr, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	number, err := arg(c, 1, -1)
	if err != nil {
		return nil, err
	}
	if (addr == "") == (number < 0) {
		return nil, fault(codeInvalidParameter, "Only one of address and nodeid should be provided.")
	}
	peers := c.o.Node.Peers()
	numbers := c.peerIDs.of(peers)
	for i, p := range peers {
		if addr != "" && (addr == p.Endpoint || addr == p.ID || addr == p.Addr) || addr == "" && numbers[i] == number {
			return nil, c.o.Node.Disconnect(p.ID)
		}
	}
	return nil, fault(codeNodeNotConnected, "Node not found in connected nodes")
}

func setBan(c *call) (any, error) {
	target, err := arg(c, 0, "")
	if err != nil {
		return nil, err
	}
	command, err := arg(c, 1, "")
	if err != nil {
		return nil, err
	}
	seconds, err := intArg(c, 2, 0, 0, 1<<40)
	if err != nil {
		return nil, err
	}
	absolute, err := arg(c, 3, false)
	if err != nil {
		return nil, err
	}
	if host, _, err := net.SplitHostPort(target); err == nil {
		target = host // Core's clients send what getpeerinfo shows
	}
	known := false
	for _, b := range c.o.Node.Bans() {
		known = known || b.Target == target || b.Target == strings.TrimSuffix(strings.TrimSuffix(target, "/32"), "/128")
	}
	switch command {
	case "add":
		if known {
			return nil, fault(codeNodeAlreadyAdded, "Error: IP/Subnet already banned")
		}
		how := defaultBan
		switch {
		case absolute:
			how = time.Unix(seconds, 0).Sub(c.o.Now())
			if how <= 0 {
				return nil, fault(codeInvalidParameter, "Error: Absolute timestamp is in the past")
			}
		case seconds > 0:
			how = time.Duration(min(seconds, int64(100*365*24*time.Hour/time.Second))) * time.Second
		}
		if _, err := c.o.Node.Ban(target, how, "setban"); err != nil {
			if e, ok := errors.AsType[*api.Error](err); ok {
				return nil, fault(codeInvalidIPOrSubnet, "Error: Invalid IP/Subnet: %s", e.Reason)
			}
			return nil, err
		}
		return nil, nil //nolint:nilnil // null is the answer
	case "remove":
		if err := c.o.Node.Unban(target); err != nil {
			return nil, fault(codeInvalidIPOrSubnet, "Error: Unban failed. Requested address/subnet was not previously manually banned.")
		}
		return nil, nil //nolint:nilnil // as above
	}
	return nil, fault(codeMisc, "command %q: want add or remove", clip(command))
}

func listBanned(c *call) (any, error) {
	type ban struct {
		Address  string `json:"address"`
		Created  int64  `json:"ban_created"`
		Until    int64  `json:"banned_until"`
		Duration int64  `json:"ban_duration"`
		Left     int64  `json:"time_remaining"`
		Reason   string `json:"ban_reason"`
	}
	out := []ban{}
	for _, b := range c.o.Node.Bans() {
		address := b.Target
		if ip, err := netip.ParseAddr(address); err == nil { // Core writes all as subnets
			address += "/" + strconv.Itoa(ip.BitLen())
		}
		out = append(out, ban{
			address, b.Since.Unix(), b.Until.Unix(), int64(b.Until.Sub(b.Since).Seconds()),
			int64(b.Until.Sub(c.o.Now()).Seconds()), b.Reason,
		})
	}
	return out, nil
}
