package mempool

import "time"

// A peer can have us look coins up and run scripts for a transaction that is then
// refused through nobody's fault, for nothing. What that costs, about, is booked
// to the peer; who owes too much is not listened to until it has sunk.
const (
	coinCost   = 15 * time.Microsecond  // a look-up that goes to disk
	scriptCost = 150 * time.Microsecond // a signature
	// signatureWeight is the least weight of a signature: tapscript pays so much
	// for one, and does not count as signature operations.
	signatureWeight = 50

	maxDebt   = 5 * time.Second // then the peer is not listened to
	payback   = 20              // a debt sinks by a second in so many: 5% of a core
	maxDebtor = 1024            // peers in the book

	// All peers together, who may be one with many names, are held to a quarter of
	// a core: while they owe more than maxAllDebt, whoever owes more than smallDebt
	// is not listened to. What honest peers owe by accident is less than that.
	maxAllDebt = 15 * time.Second
	allPayback = 4
	smallDebt  = 100 * time.Millisecond
)

// A debt is what a peer owed at a time.
type debt struct {
	owed time.Duration
	at   time.Time
}

// now is what is left of it; it sinks by a second in so many.
func (d debt) now(now time.Time, payback int) time.Duration {
	return max(0, d.owed-max(0, now.Sub(d.at))/time.Duration(payback))
}

// wasteBook has the debts of peers. It is guarded by Pool.mu.
type wasteBook struct {
	peers map[string]debt
	all   debt // of all that there were
}

func newWasteBook() wasteBook { return wasteBook{peers: make(map[string]debt)} }

// owes is what a peer owes.
func (w *wasteBook) owes(peer string, now time.Time) time.Duration {
	return w.peers[peer].now(now, payback)
}

// over says whether a peer owes too much.
func (w *wasteBook) over(peer string, now time.Time) bool {
	if peer == "" {
		return false
	}
	owed := w.owes(peer, now)
	return owed > maxDebt || owed > smallDebt && w.all.now(now, allPayback) > maxAllDebt
}

// charge books cost to a peer. If the book is full, who owes least is forgotten.
func (w *wasteBook) charge(peer string, cost time.Duration, now time.Time) {
	if peer == "" || cost <= 0 {
		return
	}
	w.all = debt{owed: min(w.all.now(now, allPayback)+cost, 2*maxAllDebt), at: now}
	old, known := w.peers[peer]
	if !known && len(w.peers) >= maxDebtor {
		w.settle(now)
		least, who := time.Duration(-1), ""
		for p := range w.peers {
			if o := w.owes(p, now); least < 0 || o < least {
				least, who = o, p
			}
		}
		if len(w.peers) >= maxDebtor {
			delete(w.peers, who)
		}
	}
	w.peers[peer] = debt{owed: min(old.now(now, payback)+cost, 2*maxDebt), at: now}
}

// settle forgets who owes nothing.
func (w *wasteBook) settle(now time.Time) {
	for peer := range w.peers {
		if w.owes(peer, now) == 0 {
			delete(w.peers, peer)
		}
	}
}

// checkCost estimates what running the scripts of a transaction takes.
func checkCost(sigOpCost int, weight int64) time.Duration {
	return time.Duration(max(int64(sigOpCost), weight/signatureWeight)) * scriptCost
}
