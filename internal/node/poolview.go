package node

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"dunlin/chain/mempool"
	"dunlin/internal/api"
)

// poolCopyAge is how long a sorted copy of the mempool serves: pages and histograms of a
// large one would otherwise copy it for every request.
const poolCopyAge = time.Second

// A poolCopy is a sorted copy of the mempool.
type poolCopy struct {
	at     time.Time
	byTime []mempool.Entry // newest first, then by id
	byRate []mempool.Entry // best paid first, then by id; made when it is asked for
}

// poolViews holds the latest copy.
type poolViews struct {
	mu   sync.Mutex // guards view; held while one is made, so that many who ask make one
	view *poolCopy
}

func entryRate(e *mempool.Entry) int64 { return rateOf(e.Fee, int(e.FeeWeight())) }

// get returns a copy that is at most poolCopyAge old; its slices are not to be changed.
func (v *poolViews) get(pool *mempool.Pool, byRate bool) []mempool.Entry {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.view == nil || time.Since(v.view.at) > poolCopyAge {
		v.view = &poolCopy{at: time.Now(), byTime: pool.Entries()}
		slices.SortFunc(v.view.byTime, func(a, b mempool.Entry) int {
			return cmp.Or(b.Added.Compare(a.Added), slices.Compare(a.ID[:], b.ID[:]))
		})
	}
	if !byRate {
		return v.view.byTime
	}
	if v.view.byRate == nil {
		v.view.byRate = slices.Clone(v.view.byTime)
		slices.SortFunc(v.view.byRate, func(a, b mempool.Entry) int {
			return cmp.Or(cmp.Compare(entryRate(&b), entryRate(&a)), slices.Compare(a.ID[:], b.ID[:]))
		})
	}
	return v.view.byRate
}

// MempoolTxs implements api.Explorer. A cursor is the place of the last entry shown,
// which may have gone since: key and id, in hex.
func (f face) MempoolTxs(cursor string, most int, byRate bool) (api.MempoolTxs, error) {
	all := f.poolViews.get(f.pool, byRate)
	key := func(e *mempool.Entry) int64 {
		if byRate {
			return entryRate(e)
		}
		return e.Added.UnixNano()
	}
	first := 0
	if cursor != "" {
		var at int64
		var id chainhash.Hash
		number, text, _ := strings.Cut(cursor, "-")
		_, err1 := fmt.Sscanf(number, "%x", &at)
		raw, err2 := hex.DecodeString(text)
		if err1 != nil || err2 != nil || len(raw) != len(id) {
			return api.MempoolTxs{}, api.Errorf(http.StatusUnprocessableEntity, "cursor: no page gave it")
		}
		copy(id[:], raw)
		// The first entry behind it.
		first, _ = slices.BinarySearchFunc(all, struct{}{}, func(e mempool.Entry, _ struct{}) int {
			if c := cmp.Or(cmp.Compare(at, key(&e)), slices.Compare(e.ID[:], id[:])); c > 0 {
				return 1
			}
			return -1
		})
	}
	out := api.MempoolTxs{Total: len(all), Txs: []api.MempoolTx{}}
	for i := first; i < len(all) && len(out.Txs) < most; i++ {
		out.Txs = append(out.Txs, mempoolTx(&all[i]))
	}
	if end := first + len(out.Txs); end < len(all) {
		last := &all[end-1]
		out.Next = fmt.Sprintf("%x-%x", key(last), last.ID[:])
	}
	return out, nil
}

func mempoolTx(e *mempool.Entry) api.MempoolTx {
	tx := api.MempoolTx{
		TxID: e.ID.String(), WTxID: e.WID.String(), Time: e.Added.UTC(), Fee: e.Fee, VSize: (e.Weight + 3) / 4, Weight: e.Weight,
		FeeRate: entryRate(e), Parents: []string{}, Local: e.Received.IsZero(),
	}
	for _, p := range e.Parents {
		tx.Parents = append(tx.Parents, p.String())
	}
	return tx
}

// forget drops a copy that has had its time: it keeps transactions in memory that the pool may have dropped.
func (v *poolViews) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.view != nil && time.Since(v.view.at) > poolCopyAge {
		v.view = nil
	}
}

// feeSteps are the bounds of the histogram, in satoshi per 1000 virtual bytes: a step
// about every 1.5 times.
var feeSteps = []int64{
	0, 1000, 2000, 3000, 4000, 5000, 6000, 8000, 10_000, 12_000, 15_000, 20_000, 30_000, 40_000, 50_000, 60_000, 70_000, 80_000, 90_000,
	100_000, 125_000, 150_000, 175_000, 200_000, 250_000, 300_000, 350_000, 400_000, 500_000, 600_000, 700_000, 800_000, 900_000, 1_000_000,
}

// FeeHistogram implements api.Explorer.
func (f face) FeeHistogram() api.FeeHistogram {
	buckets := make([]api.FeeBucket, len(feeSteps))
	for i := range buckets {
		buckets[i].From = feeSteps[i]
		if i+1 < len(feeSteps) {
			buckets[i].To = &feeSteps[i+1]
		}
	}
	out := api.FeeHistogram{}
	for _, e := range f.poolViews.get(f.pool, false) {
		i, exact := slices.BinarySearch(feeSteps, entryRate(&e))
		if !exact {
			i--
		}
		b := &buckets[max(0, i)]
		vsize := int64(e.Weight+3) / 4
		b.Txs++
		b.VBytes += vsize
		b.Fees += e.Fee
		out.Txs++
		out.VBytes += vsize
		out.Fees += e.Fee
	}
	empty := func(b api.FeeBucket) bool { return b.Txs == 0 }
	for len(buckets) > 0 && empty(buckets[0]) {
		buckets = buckets[1:]
	}
	for len(buckets) > 0 && empty(buckets[len(buckets)-1]) {
		buckets = buckets[:len(buckets)-1]
	}
	out.Buckets = buckets
	return out
}

// feeTargets are the numbers of blocks for which a fee rate is told.
var feeTargets = []int{1, 2, 3, 6, 12, 24, 144}

// FeeEstimates implements api.Explorer.
func (f face) FeeEstimates() api.FeeEstimates {
	out := api.FeeEstimates{Estimates: []api.FeeEstimate{}, MinFeeRate: f.pool.MinFeeRate(), Basis: "mempool"}
	for i, rate := range f.pool.FeeRates(int64(f.params.MaxBlockWeight), feeTargets...) {
		out.Estimates = append(out.Estimates, api.FeeEstimate{Blocks: feeTargets[i], FeeRate: rate})
	}
	return out
}
