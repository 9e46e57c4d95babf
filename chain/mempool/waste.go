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
)

// A debt is what a peer owed at a time.
type debt struct {
	owed time.Duration
	at   time.Time
}

func (d debt) now(now time.Time) time.Duration {
	return max(0, d.owed-max(0, now.Sub(d.at))/payback)
}

// wasteBook has the debts of peers. It is guarded by Pool.mu.
type wasteBook map[string]debt

// over says whether a peer owes too much.
func (w wasteBook) over(peer string, now time.Time) bool {
	return peer != "" && w[peer].now(now) > maxDebt
}

// charge books cost to a peer. If the book is full, who owes least is forgotten.
func (w wasteBook) charge(peer string, cost time.Duration, now time.Time) {
	if peer == "" || cost <= 0 {
		return
	}
	old, known := w[peer]
	if !known && len(w) >= maxDebtor {
		w.settle(now)
		least, who := time.Duration(-1), ""
		for p, d := range w {
			if o := d.now(now); least < 0 || o < least {
				least, who = o, p
			}
		}
		if len(w) >= maxDebtor {
			delete(w, who)
		}
	}
	w[peer] = debt{owed: min(old.now(now)+cost, 2*maxDebt), at: now}
}

// settle forgets who owes nothing.
func (w wasteBook) settle(now time.Time) {
	for peer, d := range w {
		if d.now(now) == 0 {
			delete(w, peer)
		}
	}
}

// checkCost estimates what running the scripts of a transaction takes.
func checkCost(sigOpCost int, weight int64) time.Duration {
	return time.Duration(max(int64(sigOpCost), weight/signatureWeight)) * scriptCost
}
