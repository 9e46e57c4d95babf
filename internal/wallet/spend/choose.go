package spend

import (
	"cmp"
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
)

// Bounds on the work of one choice.
const (
	// maxBranches is how many branches the search for an exact match looks at
	// (Bitcoin Core's TOTAL_TRIES).
	maxBranches = 100_000
	// maxSubsets is how many random subsets the knapsack solver tries, and
	// maxSubsetSteps how many lots it looks at for that.
	maxSubsets     = 1000
	maxSubsetSteps = 10_000_000
)

// Change that is made on purpose is between these, in satoshi (Bitcoin Core's
// CHANGE_LOWER and CHANGE_UPPER): less would tell that it is change, and would be
// of little use.
const (
	changeLower = 50_000
	changeUpper = 1_000_000
)

// A lot is what is spent together or not at all: a coin, or all coins of a script.
type lot struct {
	coins []int // indexes into Request.Coins
	value int64
	// effective is the value without the fee for spending it.
	effective int64
	fee       int64 // at the rate asked
	longFee   int64 // at the long-term rate
	weight    int64
}

// A choice is a set of lots that pays for something.
type choice struct {
	method string
	lots   []int // indexes into chooser.lots
	sum    lot   // its coins are not set
	waste  int64
}

// A chooser picks lots whose effective values sum up to a target.
type chooser struct {
	lots   []lot // by effective value, the largest first; all are above 0
	target int64 // what must be paid, with the fee of all but inputs
	// leastChange is the least change that is worth an output; an output costs
	// changeFee now and spendFee when it is spent.
	leastChange, changeFee, spendFee int64
	payment                          int64 // the average that is paid
	maxWeight                        int64 // of inputs
	rand                             *rand.Rand
	// exact: look for a set that needs no change. dear: fees are so high that as
	// little as possible should be spent now.
	exact, dear bool
}

// sort puts the lots into the order that chooser wants. It is deterministic.
func (c *chooser) sort() {
	slices.SortStableFunc(c.lots, func(a, b lot) int {
		return cmp.Or(cmp.Compare(b.effective, a.effective), cmp.Compare(a.fee, b.fee))
	})
}

// choose returns the set with the least waste of those that several ways find, as
// Bitcoin Core's wallet does (wallet/spend.cpp, ChooseSelectionResult). false says
// that none found any.
func (c *chooser) choose() (choice, bool) {
	var best choice
	found := false
	consider := func(method string, lots []int, ok bool) {
		if !ok {
			return
		}
		got := c.sumUp(method, lots)
		if got.sum.effective < c.target || got.sum.weight > c.maxWeight {
			return
		}
		// Of equal ones, more inputs: that many less to spend some day.
		if !found || got.waste < best.waste || got.waste == best.waste && len(got.lots) > len(best.lots) {
			best, found = got, true
		}
	}
	if c.exact {
		lots, ok := c.branchAndBound()
		consider("exact", lots, ok)
	}
	lots, ok := c.knapsack()
	consider("knapsack", lots, ok)
	lots, ok = c.randomDraw()
	consider("random", lots, ok)
	if c.dear {
		lots, ok = c.lightest()
		consider("lightest", lots, ok)
	}
	if !found { // whatever it wastes
		lots, ok = c.fewest(func(a, b *lot) int { return cmp.Compare(b.effective, a.effective) })
		consider("largest", lots, ok)
	}
	if !found {
		lots, ok = c.fewest(func(a, b *lot) int {
			// Both products fit: values are below 2^51, weights below 2^13 a coin
			// and below 2^19 a lot that can be used.
			return cmp.Compare(float64(b.effective)*float64(a.weight), float64(a.effective)*float64(b.weight))
		})
		consider("densest", lots, ok)
	}
	return best, found
}

// sumUp adds up lots and says what using them wastes: what spending them costs now
// rather than in the long term, and what change costs, or what is paid too much
// without (wallet/coinselection.cpp, RecalculateWaste).
func (c *chooser) sumUp(method string, lots []int) choice {
	out := choice{method: method, lots: slices.Clone(lots)}
	slices.Sort(out.lots)
	for _, i := range lots {
		l := &c.lots[i]
		out.sum.value += l.value
		out.sum.effective += l.effective
		out.sum.fee += l.fee
		out.sum.longFee += l.longFee
		out.sum.weight += l.weight
	}
	out.waste = out.sum.fee - out.sum.longFee
	if out.sum.effective-c.target-c.changeFee >= c.leastChange {
		out.waste += c.changeFee + c.spendFee
	} else {
		out.waste += out.sum.effective - c.target
	}
	return out
}

// branchAndBound looks for the set that needs no change and wastes the least:
// depth first, the largest lots first, with what is left out after what is taken.
// It is the algorithm of Mark Erhardt's "An Evaluation of Coin Selection
// Strategies" (2016), as in Bitcoin Core (SelectCoinsBnB).
func (c *chooser) branchAndBound() (best []int, ok bool) {
	rest := make([]int64, len(c.lots)+1) // what the lots from i on are worth
	for i, l := range slices.Backward(c.lots) {
		rest[i] = rest[i+1] + l.effective
	}
	// Paying more than change would cost is no match.
	limit := c.target + c.changeFee + c.spendFee
	var (
		taken     []int
		sum       lot
		bestWaste = int64(math.MaxInt64)
		next      = 0
	)
	for range maxBranches {
		waste := sum.fee - sum.longFee
		switch {
		case sum.effective+rest[next] < c.target, // not even with all that follow
			sum.effective > limit, sum.weight > c.maxWeight,
			waste > bestWaste && sum.fee > sum.longFee: // it only grows
		case sum.effective >= c.target:
			if waste += sum.effective - c.target; waste <= bestWaste {
				best, bestWaste, ok = append(best[:0], taken...), waste, true
			}
		default:
			l := &c.lots[next]
			// One just like the last that was left out would lead to the same sets.
			if left := next > 0 && (len(taken) == 0 || taken[len(taken)-1] != next-1); !left ||
				l.effective != c.lots[next-1].effective || l.fee != c.lots[next-1].fee {
				taken = append(taken, next)
				sum.effective += l.effective
				sum.fee += l.fee
				sum.longFee += l.longFee
				sum.weight += l.weight
			}
			next++
			continue
		}
		if len(taken) == 0 {
			return best, ok // seen all
		}
		last := taken[len(taken)-1]
		taken = taken[:len(taken)-1]
		l := &c.lots[last]
		sum.effective -= l.effective
		sum.fee -= l.fee
		sum.longFee -= l.longFee
		sum.weight -= l.weight
		next = last + 1
	}
	return best, ok
}

// lightest looks for the set of the least weight that pays for the target and change
// of a useful size, depth first, as Bitcoin Core does when fees are high
// (CoinGrinder).
func (c *chooser) lightest() (best []int, ok bool) {
	want := c.target + c.changeFee + max(changeLower, c.leastChange)
	n := len(c.lots)
	rest := make([]int64, n+1)     // what the lots from i on are worth
	lightest := make([]int64, n+1) // and what the lightest of them weighs
	lightest[n] = math.MaxInt64
	for i, l := range slices.Backward(c.lots) {
		rest[i] = rest[i+1] + l.effective
		lightest[i] = min(lightest[i+1], l.weight)
	}
	var (
		taken             []int
		effective, weight int64
		bestWeight        = c.maxWeight + 1
		next              = 0
	)
	for range maxBranches {
		switch {
		case effective >= want:
			if weight < bestWeight {
				best, bestWeight, ok = append(best[:0], taken...), weight, true
			}
		case effective+rest[next] < want: // not even with all that follow
		case weight+(want-effective+c.lots[next].effective-1)/c.lots[next].effective*lightest[next] >= bestWeight: // none of these
		default:
			l := &c.lots[next]
			if left := next > 0 && (len(taken) == 0 || taken[len(taken)-1] != next-1); !left ||
				l.effective != c.lots[next-1].effective || l.weight < c.lots[next-1].weight {
				taken = append(taken, next)
				effective += l.effective
				weight += l.weight
			}
			next++
			continue
		}
		if len(taken) == 0 {
			break // seen all
		}
		last := taken[len(taken)-1]
		taken = taken[:len(taken)-1]
		effective -= c.lots[last].effective
		weight -= c.lots[last].weight
		next = last + 1
	}
	return best, ok
}

// randomDraw takes lots at random until they pay for the target and for change of
// a useful size. Where that would be too heavy, the least of them go again (Bitcoin
// Core's SelectCoinsSRD).
func (c *chooser) randomDraw() ([]int, bool) {
	want := c.target + c.changeFee + max(changeLower, c.leastChange)
	drawn := leastFirst{lots: c.lots}
	var effective, weight int64
	for _, i := range c.rand.Perm(len(c.lots)) {
		heap.Push(&drawn, i)
		effective += c.lots[i].effective
		weight += c.lots[i].weight
		for weight > c.maxWeight {
			out, _ := heap.Pop(&drawn).(int)
			effective -= c.lots[out].effective
			weight -= c.lots[out].weight
		}
		if effective >= want {
			return drawn.taken, true
		}
	}
	return nil, false
}

// leastFirst is a heap of lots, the least effective value on top.
type leastFirst struct {
	lots  []lot
	taken []int
}

func (h *leastFirst) Len() int { return len(h.taken) }
func (h *leastFirst) Less(i, j int) bool {
	return h.lots[h.taken[i]].effective < h.lots[h.taken[j]].effective
}
func (h *leastFirst) Swap(i, j int) { h.taken[i], h.taken[j] = h.taken[j], h.taken[i] }

// Push is heap.Interface.
func (h *leastFirst) Push(x any) { h.taken = append(h.taken, x.(int)) } //nolint:forcetypeassert // only int is pushed

// Pop is heap.Interface.
func (h *leastFirst) Pop() any {
	last := h.taken[len(h.taken)-1]
	h.taken = h.taken[:len(h.taken)-1]
	return last
}

// knapsack looks for the sum that is the closest to the target, or to target and
// change, by trying random subsets of the lots that are not larger; a single
// larger one may be closer (Bitcoin Core's KnapsackSolver).
func (c *chooser) knapsack() ([]int, bool) {
	change := c.changeAim()
	var (
		small   []int
		total   int64
		larger  = -1 // the least that is larger
		withAll = c.target + change
	)
	for i := range c.lots { // the largest first
		switch e := c.lots[i].effective; {
		case e == c.target:
			return []int{i}, true
		case e < withAll:
			small = append(small, i)
			total += e
		default:
			larger = i
		}
	}
	if total == c.target {
		return small, true
	}
	if total < c.target {
		return []int{larger}, larger >= 0
	}
	best, sum := c.closest(small, total, c.target)
	if sum != c.target && total >= withAll {
		best, sum = c.closest(small, total, withAll)
	}
	var weight int64
	for _, i := range best {
		weight += c.lots[i].weight
	}
	if larger >= 0 {
		e := c.lots[larger].effective
		if sum != c.target && sum < withAll || e <= sum || weight > c.maxWeight {
			return []int{larger}, true
		}
	}
	return best, true
}

// changeAim draws how large change should be, so that neither its being so small nor its
// being so round tells that it is change (GenerateChangeTarget).
func (c *chooser) changeAim() int64 {
	if c.payment <= changeLower/2 {
		return c.changeFee + changeLower
	}
	return c.changeFee + changeLower + c.rand.Int64N(min(2*c.payment, changeUpper)-changeLower+1)
}

// closest returns the subset of lots, which sum up to total, whose sum is the least
// that it found to reach target.
func (c *chooser) closest(lots []int, total, target int64) (best []int, bestSum int64) {
	in := make([]bool, len(lots))
	found := make([]bool, len(lots))
	for i := range found {
		found[i] = true
	}
	bestSum = total
	for range min(maxSubsets, maxSubsetSteps/(2*len(lots))+1) {
		if bestSum == target {
			break
		}
		clear(in)
		var sum int64
		reached := false
		// At random first, then whatever is still out.
		for pass := 0; pass < 2 && !reached; pass++ {
			for i, l := range lots {
				if pass == 0 && c.rand.Uint64()&1 == 0 || in[i] {
					continue
				}
				in[i] = true
				if sum += c.lots[l].effective; sum < target {
					continue
				}
				reached = true
				if sum < bestSum {
					bestSum = sum
					copy(found, in)
				}
				sum -= c.lots[l].effective // a smaller one may do
				in[i] = false
			}
		}
	}
	for i, l := range lots {
		if found[i] {
			best = append(best, l)
		}
	}
	return best, bestSum
}

// fewest takes lots in an order until they pay for the target.
func (c *chooser) fewest(order func(a, b *lot) int) (taken []int, ok bool) {
	all := make([]int, len(c.lots))
	for i := range all {
		all[i] = i
	}
	slices.SortStableFunc(all, func(a, b int) int { return order(&c.lots[a], &c.lots[b]) })
	var effective int64
	for i, l := range all {
		if effective += c.lots[l].effective; effective >= c.target {
			return all[:i+1], true
		}
	}
	return nil, false
}
