package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/chain/exchange"
	"dunlin/chain/mining"
	"dunlin/discovery"
	"dunlin/internal/api"
	"dunlin/internal/host"
)

// face shows the node to the API: the one place where chain, peers and sync
// become api.Status, which log, command line and HTTP all use.
type face struct{ *Node }

var _ api.Node = face{}

// sync is what the exchange says of the sync, corrected by what it cannot know.
func (f face) sync(tip, best chain.Tip) exchange.SyncStatus {
	n := f.Node
	s := n.exchange.Sync()
	if s.State == exchange.Connecting && n.alone() {
		// The first node of a network waits for nobody: it is synced with all there is.
		s.State, s.Reason = exchange.Synced, "no peers yet, and none are known"
	}
	if s.State == exchange.Blocks && tip.Hash == best.Hash && tip.Height >= s.Target {
		// The last block is connected and the loop has not looked yet: say what
		// is true of the height told here.
		s.State, s.Reason, s.Percent, s.ETAS, s.BehindS = exchange.Synced, "", 100, nil, 0
	}
	if why := n.held(); why != "" { // also where nothing is missing
		s.State, s.Reason, s.ETAS = exchange.Stalled, why, nil
	}
	return s
}

// Sync implements api.Node.
func (f face) Sync() api.Sync {
	tip, _ := f.chain.Tip()
	best, _ := f.chain.BestHeader()
	s := f.sync(tip, best)
	out := api.Sync{
		SyncStatus: syncStatus(&s), Height: tip.Height, HeaderHeight: best.Height, TargetHeight: max(s.Target, best.Height),
		Since: s.Since.UTC(), Peers: s.Peers, Serving: s.Serving,
		InFlightBytes: s.InFlightBytes, BufferedBytes: s.BufferedBytes, ByteLimit: s.ByteLimit, Stalls: s.Stalls,
	}
	if l := s.LastStall; l != nil {
		out.LastStall = &api.Stall{
			At: l.At.UTC(), WaitedS: l.Waited.Seconds(), Height: l.Height, Holder: l.Holder, Asked: l.Asked, Attempt: l.Attempt,
		}
	}
	return out
}

func syncStatus(s *exchange.SyncStatus) api.SyncStatus {
	return api.SyncStatus{
		State: string(s.State), Percent: s.Percent, BlocksPerS: s.BlocksPerS, BytesPerS: s.BytesPerS,
		ETAS: s.ETAS, BehindS: s.BehindS, InFlight: s.InFlight, InFlightLimit: s.InFlightLimit, Reason: s.Reason,
	}
}

// Status implements api.Node.
func (f face) Status() api.Status {
	n := f.Node
	tip, _ := n.chain.Tip()
	best, _ := n.chain.BestHeader()
	s := f.sync(tip, best)
	count, vbytes, _ := n.pool.Size()
	out := api.Status{
		Network: n.params.Name, ChainID: n.params.ChainID(), Genesis: n.params.GenesisHash.String(),
		PeerID: n.host.ID().String(), Agent: n.agent,
		Height: tip.Height, HeaderHeight: best.Height, TargetHeight: max(s.Target, best.Height),
		TipHash: tip.Hash.String(), TipTime: tip.Time.UTC(), Work: hexWork(tip.Work),
		Sync:    syncStatus(&s),
		Mempool: api.MempoolStatus{Count: count, Bytes: vbytes},
		Gossip:  n.gossipStatus(),
		Slots:   n.slots(tip, n.now()),
	}
	if n.stake != nil {
		summary := n.stakingSummary(n.miner.Status().Mining)
		out.Staking = &summary
	}
	for _, c := range n.connected() {
		if c.inbound {
			out.Peers.Inbound++
		} else {
			out.Peers.Outbound++
		}
	}
	return out
}

// alone says that this node knows nobody to connect to: no address, no seed, no
// entry of the book.
func (n *Node) alone() bool {
	d := n.disc.Stats()
	return d.Peers == 0 && d.Static == 0 && d.Added == 0 && d.Book == 0 && len(d.Names) == 0 &&
		len(n.c.P2P.Bootstrap) == 0 && len(n.c.P2P.Persistent) == 0
}

// connection is one connected peer, whether or not it has greeted.
type connection struct {
	id      peer.ID
	addr    ma.Multiaddr
	inbound bool
}

// connected lists a connection for each connected peer, one that we dialled if
// there is one, sorted by peer id. Whoever is reached through a relay only is no peer.
func (n *Node) connected() []connection {
	var out []connection
	for _, id := range sortedPeers(n.host.Network().Peers()) {
		conns := slices.DeleteFunc(n.host.Network().ConnsToPeer(id), host.OverRelay)
		if len(conns) == 0 {
			continue
		}
		// Two that dial each other at once keep both connections. The peer is then
		// one that we chose, as discovery counts it.
		ours := func(c network.Conn) bool { return c.Stat().Direction == network.DirOutbound }
		c := conns[max(slices.IndexFunc(conns, ours), 0)]
		out = append(out, connection{id: id, addr: c.RemoteMultiaddr(), inbound: !ours(c)})
	}
	return out
}

// Addrs implements api.Node.
func (f face) Addrs() []string {
	var out []string
	for _, a := range f.host.JoinAddrs() {
		out = append(out, a.String())
	}
	return out
}

// Reachability implements api.Node.
func (f face) Reachability() api.Reachability {
	r := f.host.Reachability()
	out := api.Reachability{
		Verdict: r.Verdict, Reason: r.Reason(), Do: r.Advice(), Listen: texts(r.Listen), Announced: texts(r.Announced),
		Observed: []api.Observed{}, Confirmed: texts(r.Confirmed), Unreachable: texts(r.Unreachable), Unchecked: texts(r.Unchecked),
		Mapped: texts(r.Mapped), Relays: texts(r.Relays), NAT: r.NAT, Inbound: r.Inbound, Relaying: r.Relaying,
	}
	for _, o := range r.Observed {
		out.Observed = append(out.Observed, api.Observed{Addr: o.Addr.String(), By: o.By})
	}
	return out
}

func texts(addrs []ma.Multiaddr) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}

// Peers implements api.Node.
func (f face) Peers() []api.Peer {
	greeted := make(map[peer.ID]exchange.Peer)
	for _, p := range f.exchange.Peers() {
		greeted[p.ID] = p
	}
	out := []api.Peer{}
	for _, c := range f.connected() {
		a := api.Peer{ID: c.id.String(), Addr: c.addr.String(), Endpoint: endpoint(c.addr), Group: discovery.IPGroup(c.addr), Inbound: c.inbound, Height: -1, Claimed: api.PeerClaim{Height: -1}}
		if p, ok := greeted[c.id]; ok {
			a.Agent, a.Ready = p.Agent, true
			a.Claimed = api.PeerClaim{Height: p.Height, TipHash: p.Hash.String(), Work: hexWork(p.Work)}
			if p.Proven.Work != nil {
				a.Height, a.TipHash, a.Work = p.Proven.Height, p.Proven.Hash.String(), hexWork(p.Proven.Work)
			}
			a.RTTMS, a.Since = float64(p.RTT.Microseconds())/1000, p.Since.UTC()
			a.BytesIn, a.BytesOut, a.InFlight = p.BytesIn, p.BytesOut, p.InFlight
		}
		if s, ok := f.gossip.Standing(c.id); ok {
			a.Score, a.Standing, a.Reasons = math.Round(s.Score*10)/10, string(s.Level), s.Reasons
		}
		out = append(out, a)
	}
	return out
}

// endpoint is the ip:port of a multiaddr.
func endpoint(a ma.Multiaddr) string {
	addr, err := manet.ToNetAddr(ma.StringCast(tcpLike(a)))
	if err != nil {
		return a.String()
	}
	return addr.String()
}

// tcpLike strips what follows ip and port, such as quic-v1.
func tcpLike(a ma.Multiaddr) string {
	var b strings.Builder
	for i, c := range a {
		if i == 2 {
			break
		}
		b.WriteString(c.String())
	}
	return b.String()
}

// Tip implements api.Node.
func (f face) Tip() (int32, string, <-chan struct{}) {
	tip, changed := f.chain.Tip()
	return tip.Height, tip.Hash.String(), changed
}

// BlockAt implements api.Node.
func (f face) BlockAt(_ context.Context, height int32) (api.Block, error) {
	hash, ok := f.chain.HashAt(height)
	if !ok {
		tip, _ := f.chain.Tip()
		return api.Block{}, api.Errorf(http.StatusNotFound, "no block at height %d: the tip is at %d", height, tip.Height)
	}
	return f.block(hash)
}

// BlockByHash implements api.Node.
func (f face) BlockByHash(_ context.Context, hash string) (api.Block, error) {
	h, err := chainhash.NewHashFromStr(hash)
	if err != nil {
		return api.Block{}, api.Errorf(http.StatusBadRequest, "hash %q: must be 64 hex digits", hash)
	}
	return f.block(*h)
}

// RawBlock implements api.Node.
func (f face) RawBlock(_ context.Context, hash string) ([]byte, error) {
	h, err := chainhash.NewHashFromStr(hash)
	if err != nil {
		return nil, api.Errorf(http.StatusBadRequest, "hash %q: must be 64 hex digits", hash)
	}
	raw, err := f.chain.Block(*h)
	if errors.Is(err, chain.ErrNotFound) {
		return nil, api.Errorf(http.StatusNotFound, "block %s is not on disk", hash)
	}
	return raw, err
}

func (n *Node) block(hash chainhash.Hash) (api.Block, error) {
	raw, err := n.chain.Block(hash)
	if errors.Is(err, chain.ErrNotFound) {
		return api.Block{}, api.Errorf(http.StatusNotFound, "block %s is not on disk", hash)
	}
	if err != nil {
		return api.Block{}, err
	}
	b, err := consensus.DecodeBlock(n.params, raw)
	if err != nil {
		return api.Block{}, fmt.Errorf("block %s on disk: %w", hash, err)
	}
	return n.describe(b), nil
}

// describe turns a block into what the API shows.
func (n *Node) describe(b *consensus.Block) api.Block {
	out := api.Block{
		Height: -1, Hash: b.Hash.String(), PreviousHash: b.Header.PrevBlock.String(), MerkleRoot: b.Header.MerkleRoot.String(),
		Time: b.Header.Timestamp.UTC(), Version: b.Header.Version, Bits: fmt.Sprintf("%08x", b.Header.Bits), Nonce: b.Header.Nonce,
		Txs: len(b.Txs), Size: len(b.Raw), Weight: b.Weight,
		Data: strings.ToValidUTF8(consensus.CoinbaseData(b), "\ufffd"), CoinbaseText: strings.ToValidUTF8(consensus.CoinbaseText(b), "\ufffd"),
	}
	if s, ok := n.chain.Status(b.Hash); ok {
		out.Height, out.Active, out.Work = s.Height, s.Active, hexWork(s.Work)
	}
	out.BySlot = bySlot(n.params, &b.Header, out.Height)
	return out
}

// Tips implements api.Node.
func (f face) Tips() []api.ChainTip {
	out := []api.ChainTip{}
	for _, t := range f.chain.Tips() {
		out = append(out, api.ChainTip{
			Height: t.Tip.Height, Hash: t.Tip.Hash.String(), Branch: t.Branch, Status: t.Status, Work: hexWork(t.Tip.Work),
		})
	}
	return out
}

// lowDiskReason is what the status and a refused /mineBlock say of a full disk.
const lowDiskReason = "the disk is almost full: no block is accepted until there is space (storage.min_free_mb)"

// held says why the chain lets blocks wait; empty: it does not.
func (n *Node) held() string {
	if n.chain.LowDisk() {
		return lowDiskReason
	}
	return ""
}

// MineBlock implements api.Node.
func (f face) MineBlock(ctx context.Context, data string) (api.Block, error) {
	if !f.params.Test {
		return api.Block{}, api.Errorf(http.StatusConflict, "network %s needs more work than this node has: blocks at will are for test networks", f.params.Name)
	}
	if len(data) > mining.MaxDataBytes {
		return api.Block{}, api.Errorf(http.StatusUnprocessableEntity, "data has %d bytes, at most %d fit into a block", len(data), mining.MaxDataBytes)
	}
	if f.chain.LowDisk() {
		return api.Block{}, api.Errorf(http.StatusServiceUnavailable, "%s", lowDiskReason)
	}
	if err := f.cannotStake(); err != nil {
		return api.Block{}, err
	}
	b, _, err := f.miner.MineOne(ctx, data)
	if err != nil && f.stake != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return api.Block{}, api.Errorf(http.StatusGatewayTimeout, "no block was made in time: %s", f.notStaked())
	}
	if err != nil {
		return api.Block{}, err
	}
	return f.describe(b), nil
}

// Miner implements api.Node.
func (f face) Miner() api.MinerStatus {
	s := f.miner.Status()
	return api.MinerStatus{Running: s.Mining, Address: *f.payTo.Load(), Blocks: s.Blocks, Reason: s.Reason}
}

// StartMiner implements api.Node.
func (f face) StartMiner() error {
	if f.stake != nil {
		return api.Errorf(http.StatusConflict, "blocks of %s are made with stake, not by mining: dunlin stake start", f.params.Name)
	}
	if !f.params.Test { // as the setting mining.enabled
		return api.Errorf(http.StatusConflict, "network %s needs more work than this node has: mining is for test networks", f.params.Name)
	}
	f.payWallet()
	if f.miner.Start() {
		f.log.Info("miner started", "by", "rpc", "address", *f.payTo.Load())
	}
	return nil
}

// StopMiner implements api.Node.
func (f face) StopMiner() error {
	if f.miner.Stop() {
		f.log.Info("miner stopped", "by", "rpc")
	}
	return nil
}

// AddPeer implements api.Node.
func (f face) AddPeer(addr string) error {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return api.Errorf(http.StatusBadRequest, "peer %q: must be a multiaddr that ends in /p2p/<peer id>", addr)
	}
	if err := f.disc.AddPeer(*info, false); err != nil {
		return api.Errorf(http.StatusUnprocessableEntity, "peer %q: %v", addr, err)
	}
	return nil
}

// RemovePeer implements api.Node.
func (f face) RemovePeer(id string) error {
	p, err := peer.Decode(id)
	if err != nil {
		return api.Errorf(http.StatusUnprocessableEntity, "peer id %q: want one such as 12D3KooW…, as dunlin peers prints it", id)
	}
	switch err := f.disc.RemovePeer(p); {
	case errors.Is(err, discovery.ErrNotAdded):
		return api.Errorf(http.StatusNotFound, "%v", err)
	case err != nil:
		return err
	}
	return nil
}

// AddedPeers implements api.Node.
func (f face) AddedPeers() []string {
	var out []string
	for _, a := range f.disc.Added() {
		out = append(out, a.String())
	}
	return out
}

// Book implements api.Node.
func (f face) Book(proven bool) []api.BookPeer {
	known := f.disc.Export(proven)
	out := make([]api.BookPeer, len(known))
	for i, k := range known {
		out[i] = api.BookPeer(k)
	}
	return out
}

// ImportBook implements api.Node.
func (f face) ImportBook(list string) (api.BookImport, error) {
	report, err := f.disc.Import(strings.NewReader(list))
	f.log.Info("peers imported", "by", "rpc", "peers", report.Peers, "added", report.Added, "damaged_lines", report.Damaged)
	if err != nil {
		return api.BookImport{}, api.Errorf(http.StatusUnprocessableEntity, "%v", err)
	}
	return api.BookImport(report), nil
}

// Bans implements api.Node.
func (f face) Bans() []api.Ban {
	var out []api.Ban
	for _, b := range f.bans.List() {
		out = append(out, apiBan(b))
	}
	return out
}

func apiBan(b host.Ban) api.Ban {
	return api.Ban{Target: b.Target, Reason: b.Reason, Since: b.Since, Until: b.Until, Auto: b.Auto}
}

// Ban implements api.Node.
func (f face) Ban(target string, how time.Duration, reason string) (api.Ban, error) {
	if target == f.host.ID().String() {
		return api.Ban{}, api.Errorf(http.StatusUnprocessableEntity, "ban %s: this is the node itself", target)
	}
	b, err := f.bans.Add(target, how, reason)
	if err != nil && b.Target == "" {
		return api.Ban{}, api.Errorf(http.StatusUnprocessableEntity, "%v", err)
	}
	ended := f.host.Enforce(f.bans)
	f.log.Info("banned", "target", b.Target, "until", b.Until, "reason", b.Reason, "connections_ended", ended)
	return apiBan(b), err
}

// Unban implements api.Node.
func (f face) Unban(target string) error {
	err := f.bans.Remove(target)
	switch {
	case errors.Is(err, host.ErrNotBanned):
		return api.Errorf(http.StatusNotFound, "%v", err)
	case err != nil:
		return api.Errorf(http.StatusUnprocessableEntity, "%v", err)
	}
	f.log.Info("ban lifted", "target", target)
	// Each dial that the ban forbade has made the next one later, up to a minute.
	f.disc.DialStaticNow()
	return nil
}

// SubmitBlock implements api.Node.
func (f face) SubmitBlock(ctx context.Context, raw []byte) (api.SubmittedBlock, error) {
	v, err := rpcFace{f}.SubmitBlock(ctx, raw)
	if err != nil {
		return api.SubmittedBlock{}, err
	}
	names := map[chain.Outcome]string{
		chain.Connected: "connected", chain.SideChain: "side-chain", chain.Stored: "stored", chain.Duplicate: "duplicate",
	}
	if name, ok := names[v.Outcome]; ok {
		return api.SubmittedBlock{Hash: v.Hash.String(), Height: v.Height, Outcome: name}, nil
	}
	if rule, ok := blame(v.Err); ok {
		return api.SubmittedBlock{}, api.Errorf(http.StatusUnprocessableEntity, "block refused: %v", rule)
	}
	if v.Outcome == chain.Orphan {
		return api.SubmittedBlock{}, api.Errorf(http.StatusUnprocessableEntity, "the parent of block %s is unknown", v.Hash)
	}
	return api.SubmittedBlock{}, v.Err
}

// Invalidate implements api.Node.
func (f face) Invalidate(ctx context.Context, hash string) error {
	return f.mark(ctx, hash, "invalidate", f.chain.Invalidate)
}

// Reconsider implements api.Node.
func (f face) Reconsider(ctx context.Context, hash string) error {
	return f.mark(ctx, hash, "reconsider", f.chain.Reconsider)
}

// AcceptReorg implements api.Node.
func (f face) AcceptReorg(ctx context.Context, hash string) error {
	err := f.mark(ctx, hash, "accept", f.chain.AcceptReorg)
	if errors.Is(err, chain.ErrNotRefused) {
		return api.Errorf(http.StatusConflict, "block %s is on no branch that is refused for its depth", hash)
	}
	var status *api.Error
	if errors.As(err, &status) && status.Status == http.StatusNotFound {
		return api.Errorf(http.StatusNotFound, "block %s is on no branch that this node remembers: `dunlin chain tips` lists those that it refuses, by their last block; "+
			"if yours is not there, connect a peer that is on it (`dunlin peers add`), wait until it is, and say this again with the hash shown", hash)
	}
	return err
}

func (f face) mark(ctx context.Context, hash, what string, do func(context.Context, chainhash.Hash) error) error {
	h, err := chainhash.NewHashFromStr(hash)
	if err != nil || len(hash) != 2*chainhash.HashSize {
		return api.Errorf(http.StatusBadRequest, "hash %q: must be 64 hex digits", hash)
	}
	if *h == f.params.GenesisHash {
		return api.Errorf(http.StatusUnprocessableEntity, "%s %s: genesis stays", what, hash)
	}
	before, _ := f.chain.Tip()
	switch err := do(ctx, *h); {
	case errors.Is(err, chain.ErrNotFound):
		return api.Errorf(http.StatusNotFound, "block %s is unknown", hash)
	case errors.Is(err, chain.ErrPruned), errors.Is(err, chain.ErrDamaged):
		return api.Errorf(http.StatusConflict, "%v", err)
	case err != nil:
		return err
	}
	after, _ := f.chain.Tip()
	f.log.Warn("block "+strings.TrimSuffix(what, "e")+"ed", "by", "rpc", "hash", hash, "height", after.Height, "tip", after.Hash, "moved", before.Hash != after.Hash) //nolint:sloglint // one of three texts
	return nil
}

// Stop implements api.Node.
func (f face) Stop() {
	f.log.Info("stopping", "by", "rpc")
	f.o.Stop()
}

// hexWork is work as a hex string, as Bitcoin Core writes it.
func hexWork(w *big.Int) string {
	if w == nil {
		return ""
	}
	return fmt.Sprintf("%064x", w)
}
