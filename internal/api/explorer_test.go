package api_test

import (
	"net/http"
	"strings"
	"testing"

	"dunlin/internal/api"
)

// TestExplorerPages walks through lists page by page: nothing is left out, nothing
// comes twice, and a cursor stays right when blocks come on top.
func TestExplorerPages(t *testing.T) {
	n := newFakeNode(7)
	r := serve(t, n, nil)

	var heights []int32
	cursor := ""
	for page := 0; ; page++ {
		a := decode[api.RecentBlocks](t, r.do(http.MethodGet, "/api/v1/chain/recent?limit=3&cursor="+cursor, "").body)
		for _, b := range a.Blocks {
			heights = append(heights, b.Height)
		}
		if page == 0 {
			n.grow("on top")
		}
		if cursor = a.Next; cursor == "" {
			break
		}
	}
	if len(heights) != 7 {
		t.Fatalf("heights %v", heights)
	}
	for i, h := range heights {
		if int(h) != 6-i {
			t.Errorf("place %d: height %d", i, h)
		}
	}

	var places []int
	cursor = ""
	for {
		a := decode[api.BlockTxs](t, r.do(http.MethodGet, "/api/v1/chain/blocks/1/txs?limit=3&cursor="+cursor, "").body)
		for _, tx := range a.Txs {
			places = append(places, tx.Index)
		}
		if cursor = a.Next; cursor == "" {
			break
		}
	}
	if len(places) != 7 || places[6] != 6 {
		t.Errorf("places %v", places)
	}
}

// TestExplorerRoutes asks every route, and for what it refuses.
func TestExplorerRoutes(t *testing.T) {
	n := newFakeNode(3)
	r := serve(t, n, nil)
	tx, unknown := n.hash(5), n.hash(9)
	for _, c := range []struct {
		path   string
		status int
		holds  string
	}{
		{"/chain/recent", 200, `"miner":"genesis <text>"`},
		{"/chain/recent?limit=0", 422, `expected number >= 1`},
		{"/chain/recent?limit=101", 422, `expected number <= 100`},
		{"/chain/recent?cursor=nothash", 422, `cursor \"nothash\": no page gave it`},
		{"/chain/recent?cursor=" + strings.Repeat("f", 64), 404, `is unknown`},
		{"/chain/recent?page=2", 422, `unknown query parameter`},
		{"/chain/blocks/2/details", 200, `"have_block":true`},
		{"/chain/blocks/" + n.hash(1) + "/details", 200, `"height":1`},
		{"/chain/blocks/9/details", 404, `no block at height 9`},
		{"/chain/blocks/x/details", 422, `neither a height nor a block hash`},
		{"/chain/blocks/1/txs?cursor=7", 200, `"txs":[]`},
		{"/chain/blocks/1/txs?cursor=-1", 422, `no page gave it`},
		{"/staking/holders?limit=2", 200, `"next":"2"`},
		{"/staking/holders?cursor=2", 200, `"address":"holder 2"`},
		{"/staking/holders?cursor=9", 422, `no page gave it`},
		{"/staking/doubles", 200, `{"total":0,"doubles":[]}`},
		{"/staking/doubles?limit=257", 422, `expected number <= 256`},
		{"/staking/holders?limit=0", 422, `expected number >= 1`},
		{"/staking/holders?limit=1001", 422, `expected number <= 1000`},
		{"/chain/tree?depth=5", 200, `"from_height":5`},
		{"/chain/tree?depth=201", 422, `expected number <= 200`},
		{"/tx/" + tx + "/details", 200, `"status":"confirmed"`},
		{"/tx/" + tx + "/details?block=" + n.hash(1), 200, `"block_hash":"` + n.hash(1)},
		{"/tx/" + tx + "/details?block=1", 422, `validation failed`},
		{"/tx/" + unknown + "/details", 404, `is unknown`},
		{"/search?q=1", 200, `"kind":"block"`},
		{"/search?q=nothing", 200, `"results":[]`},
		{"/search?q=", 422, ``},
		{"/search?q=" + strings.Repeat("1", 129), 422, `expected length <= 128`},
		{"/mempool/txs", 200, `"total":50`},
		{"/mempool/txs?sort=fee_rate&limit=2", 200, `"next":"rate"`},
		{"/mempool/txs?sort=size", 422, `expected value to be one of`},
		{"/mempool/txs?cursor=bad", 422, `no page gave it`},
		{"/mempool/histogram", 200, `"from":1000,"to":null`},
		{"/fees/estimate", 200, `"estimates":[{"blocks":1,"fee_rate":1000}]`},
		{"/address/x", 200, `"balance":5`},
		{"/address/off", 409, `storage.address_index`},
		{"/address/building", 503, `still building, 41%`},
		{"/address/x/txs?limit=2", 200, `"next":"more"`},
		{"/address/x/txs?cursor=more", 200, `{"txs":[]}`},
		{"/address/x/utxos?limit=1", 200, `{"utxos":[{"txid":""`},
		{"/indexes", 200, `"percent":41.2`},
		{"/storage", 200, `"blocks_bytes":1`},
		{"/discovery", 200, `"names":[]`},
		{"/gossip", 200, `"buckets":[{"le_s":0.1,"count":1}]`},
		{"/sync/history", 200, `"interval_s":2`},
		{"/miner/history", 200, `"hashes_per_s":5`},
	} {
		got := r.do(http.MethodGet, "/api/v1"+c.path, "")
		if got.status != c.status || !strings.Contains(got.body, c.holds) {
			t.Errorf("%s: got %d, want %d with %s:\n%s", c.path, got.status, c.status, c.holds, got.body)
		}
		kind := "application/json"
		if c.status >= 400 {
			kind = "application/problem+json"
		}
		if !strings.HasPrefix(got.header.Get("Content-Type"), kind) {
			t.Errorf("%s: content type %q", c.path, got.header.Get("Content-Type"))
		}
	}
}
