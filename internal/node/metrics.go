package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dunlin/internal/api"
)

// meter turns what the parts count into metrics when it is asked: nothing is
// counted twice and nothing is stale. No label holds what a peer chooses.
type meter struct{ n *Node }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("dunlin_"+name, help, labels, nil)
}

var (
	descHeight    = desc("chain_height", "Height of the validated tip.")
	descLowDisk   = desc("chain_low_disk", "1 while no block is accepted because the disk is almost full.")
	descHeaders   = desc("chain_header_height", "Height of the best header chain.")
	descTarget    = desc("sync_target_height", "Greatest height that a peer told.")
	descState     = desc("sync_state", "1 for the present state of sync.", "state")
	descInFlight  = desc("sync_in_flight_requests", "Block requests that wait for an answer.")
	descLimit     = desc("sync_in_flight_requests_limit", "Most block requests in flight.")
	descFlying    = desc("sync_in_flight_bytes", "Bytes promised by peers and not here yet.")
	descBuffered  = desc("sync_buffered_bytes", "Bytes received and not yet validated.")
	descServed    = desc("serve_bytes_total", "Bytes of blocks, headers and transactions sent to those who asked.")
	descBusy      = desc("serve_busy_total", "Requests answered with busy.")
	descDropped   = desc("serve_dropped_total", "Streams reset because their peer did not read while others waited.")
	descWaiting   = desc("serve_waiting_requests", "Requests of peers that wait for their turn.")
	descOut       = desc("serve_buffered_bytes", "Memory of replies on their way out.")
	descPeers     = desc("p2p_peers", "Connected peers.", "direction")
	descGreeted   = desc("p2p_peers_ready", "Peers whose hello is complete.")
	descTurned    = desc("p2p_inbound_refused_total", "Inbound connections refused: full (nobody had to make room), share (of an address or IP group), rate (too many or too fast for the resource limits).", "reason")
	descEvicted   = desc("p2p_inbound_evicted_total", "Inbound connections ended to make room for others.")
	descRouting   = desc("discovery_routing_table", "Peers in the DHT's routing table.")
	descBook      = desc("discovery_book", "Entries of the address book.")
	descPool      = desc("mempool_transactions", "Unconfirmed transactions.")
	descPoolBytes = desc("mempool_bytes", "Memory that they take.")
	descPoolVSize = desc("mempool_vbytes", "Their virtual bytes.")
	descPoolFloor = desc("mempool_min_fee_rate", "Satoshi for 1000 virtual bytes that let a transaction in now.")
	descUnsent    = desc("mempool_unsent", "Transactions that others are still to be told of.")
	descPeerFloor = desc("mempool_peers_min_fee_rate", "Least satoshi for 1000 virtual bytes that any peer takes.")
	descListed    = desc("mempool_listed_total", "Transactions read in the lists of peers' mempools.")
	descAsked     = desc("mempool_asked_total", "Transactions asked for because a list had them and gossip had not brought them.")
	descPulled    = desc("mempool_pulled_total", "Of those, the ones that came and were accepted.")
	descOrphans   = desc("mempool_orphans", "Transactions kept whose inputs are unknown.")
	descLost      = desc("mempool_lost_total", "Transactions lost to a double spend in a block, or to a reorganisation.")
	descMined     = desc("miner_blocks_total", "Blocks made here.")
	descMsgs      = desc("gossip_messages_total", "Messages by topic and what became of them.", "topic", "result")
	descSlots     = desc("slots_since_block", "Slots since that of the validated tip, where stake makes blocks.")
	descOnline    = desc("stake_online_satoshi", "Estimate, from the target of the next block, of the stake that takes part.")
	descSupply    = desc("stake_supply_satoshi", "Most money that there can be, where stake makes blocks.")
	descAside     = desc("chain_aside_bytes", "Disk that blocks take which were never connected, where stake makes blocks.")
	descDoubles   = desc("stake_doubles_total", "Cases of a stake that signed two blocks for one slot, over restarts.")
	descStaking   = desc("staking_enabled", "1 if this node was told to stake.")
	descStakes    = desc("staking_active", "1 while it stakes; 0: it was not told to, or something is in the way.")
	descWeight    = desc("staking_weight_satoshi", "Mature stake of this node.")
	descShare     = desc("staking_share", "Part of the stake that takes part, 0 to 1, that this is.")
	descWins      = desc("staking_blocks_total", "Blocks made here by stake.")
	descRefused   = desc("gossip_refused_total", "Messages that were not passed on, by topic, result and reason.", "topic", "result", "reason")
)

// Describe implements prometheus.Collector.
func (*meter) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descHeight, descLowDisk, descHeaders, descTarget, descState, descInFlight, descLimit, descFlying, descBuffered, descPeers,
		descServed, descBusy, descDropped, descWaiting, descOut,
		descGreeted, descTurned, descEvicted, descRouting, descBook, descPool, descPoolBytes, descPoolVSize,
		descPoolFloor, descUnsent, descPeerFloor, descListed, descAsked, descPulled, descOrphans, descLost, descMined, descMsgs, descRefused,
	} {
		ch <- d
	}
	for _, d := range floodDescs {
		ch <- d
	}
	for _, d := range slotDescs {
		ch <- d
	}
}

// slotDescs are told only where stake makes blocks.
var slotDescs = []*prometheus.Desc{descSlots, descOnline, descSupply, descAside, descDoubles, descStaking, descStakes, descWeight, descShare, descWins}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Collect implements prometheus.Collector.
func (m *meter) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	total := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	st := face{m.n}.Status()
	gauge(descHeight, float64(st.Height))
	gauge(descLowDisk, oneIf(m.n.chain.LowDisk()))
	gauge(descHeaders, float64(st.HeaderHeight))
	gauge(descTarget, float64(st.TargetHeight))
	for _, s := range []string{api.StateStarting, api.StateConnecting, api.StateHeaders, api.StateBlocks, api.StateSynced, api.StateStalled} {
		gauge(descState, oneIf(s == st.Sync.State), s)
	}
	sync := m.n.exchange.Sync()
	gauge(descInFlight, float64(sync.InFlight))
	gauge(descLimit, float64(sync.InFlightLimit))
	gauge(descFlying, float64(sync.InFlightBytes))
	gauge(descBuffered, float64(sync.BufferedBytes))
	serving := m.n.exchange.Serving()
	total(descServed, float64(serving.Bytes))
	total(descBusy, float64(serving.Busy))
	total(descDropped, float64(serving.Dropped))
	gauge(descWaiting, float64(serving.Waiting))
	gauge(descOut, float64(serving.OutBytes))
	gauge(descPeers, float64(st.Peers.Inbound), "inbound")
	gauge(descPeers, float64(st.Peers.Outbound), "outbound")
	gauge(descGreeted, float64(len(m.n.exchange.Peers())))
	turned := m.n.host.Refused()
	total(descTurned, float64(turned.Full), "full")
	total(descTurned, float64(turned.Share), "share")
	total(descTurned, float64(turned.Connections-min(turned.Connections, turned.Full+turned.Share)), "rate")
	total(descEvicted, float64(turned.Evicted))
	d := m.n.disc.Stats()
	gauge(descRouting, float64(d.RoutingTable))
	gauge(descBook, float64(d.Book))
	count, vbytes, memory := m.n.pool.Size()
	gauge(descPool, float64(count))
	gauge(descPoolBytes, float64(memory))
	gauge(descPoolVSize, float64(vbytes))
	gauge(descPoolFloor, float64(m.n.pool.MinFeeRate()))
	gauge(descUnsent, float64(m.n.pool.UnsentCount()))
	gauge(descPeerFloor, float64(m.n.floor.least(time.Now())))
	total(descListed, float64(m.n.pools.count.listed.Load()))
	total(descAsked, float64(m.n.pools.count.fetched.Load()))
	total(descPulled, float64(m.n.pools.count.accepted.Load()))
	orphans, _ := m.n.pool.Orphans()
	gauge(descOrphans, float64(orphans))
	total(descLost, float64(m.n.pool.LostCount()))
	total(descMined, float64(m.n.miner.Status().Blocks))
	for _, s := range m.n.gossip.Stats().Topics {
		name := "block"
		if s.Name == m.n.txTopic() {
			name = "tx"
		}
		total(descMsgs, float64(s.Accepted), name, "accepted")
		var ignored, rejected uint64
		for reason, v := range s.Ignored {
			ignored += v
			total(descRefused, float64(v), name, "ignored", reason)
		}
		for reason, v := range s.Rejected {
			rejected += v
			total(descRefused, float64(v), name, "rejected", reason)
		}
		total(descMsgs, float64(ignored), name, "ignored")
		total(descMsgs, float64(rejected), name, "rejected")
		total(descMsgs, float64(s.Duplicates), name, "duplicate")
		total(descMsgs, float64(s.Throttled), name, "throttled")
		total(descMsgs, float64(s.Limited), name, "limited")
		gauge(descMesh, float64(s.Mesh), name)
		gauge(descTopicPeers, float64(s.Peers), name)
		total(descTopicBytes, float64(s.BytesIn), name, "in")
		total(descTopicBytes, float64(s.BytesOut), name, "out")
	}
	if s := st.Slots; s != nil {
		gauge(descSlots, float64(s.SinceBlock))
		gauge(descOnline, float64(s.Online))
		gauge(descSupply, float64(s.Supply))
		_, doubles, _ := m.n.chain.DoubleStakes()
		total(descDoubles, float64(doubles))
		_, aside := m.n.chain.Aside()
		gauge(descAside, float64(aside))
	}
	if s := st.Staking; s != nil {
		gauge(descStaking, oneIf(s.Enabled))
		gauge(descStakes, oneIf(s.State == "staking"))
		gauge(descWeight, float64(s.Weight))
		gauge(descShare, s.Share)
		total(descWins, float64(m.n.miner.Status().Blocks))
	}
	m.collectFlood(ch)
}
