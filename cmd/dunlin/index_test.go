package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcjson"
	"github.com/btcsuite/btcd/btcutil/v2"

	"dunlin/internal/api"
)

// TestE2EIndexes: with the indexes, any transaction is found and addresses have a history,
// over a kill and a reorganisation; btcd's client, written for Core, finds what Core's
// -txindex would.
func TestE2EIndexes(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "indexed", "--network", "regtest", "--tx-index", "--address-index")
	c := rpcTo(t, d)
	p := newPurse(10)
	for _, b := range p.blocks {
		if err := c.SubmitBlock(btcutil.NewBlock(decoded(t, b.Raw)), nil); err != nil {
			t.Fatal(err)
		}
	}
	tx := p.pay(1, 10_000)
	child := p.spend(tx, 20_000)
	for _, raw := range [][]byte{serialised(tx), serialised(child)} {
		if got := rpcRaw(t, d, fmt.Sprintf(`{"method":"sendrawtransaction","params":["%x"],"id":1}`, raw)); strings.Contains(got, `"code"`) {
			t.Fatal(got)
		}
	}
	b := d.mine(1)
	id := tx.TxHash()
	indexed := func(height int32) {
		t.Helper()
		eventually(t, patience, "the indexes at the tip", func() error {
			for _, x := range asks[api.IndexesAnswer](t, d, "/indexes", http.StatusOK).Indexes {
				if !x.Enabled || !x.Synced || x.Height != height || x.Error != "" {
					return fmt.Errorf("%+v", x)
				}
			}
			return nil
		})
	}
	indexed(111)
	d.holds(0) // the mempool follows

	// All outputs of tx are spent: only the index knows it.
	found := func(confirmations int32) {
		t.Helper()
		x := asks[api.TxDetails](t, d, "/tx/"+id.String()+"/details", http.StatusOK)
		if x.Status != api.TxConfirmed || x.BlockHash != b.Hash || x.Index != 1 || x.Confirmations != confirmations || *x.Fee != 10_000 {
			t.Errorf("%+v", x)
		}
		short := asks[api.Tx](t, d, "/tx/"+id.String(), http.StatusOK)
		if short.Status != api.TxConfirmed || short.BlockHash != b.Hash || short.Height != 111 || short.Confirmations != confirmations || short.WasHeight != -1 {
			t.Errorf("%+v", short)
		}
	}
	found(1)
	raw := must[*btcjson.TxRawResult](t)(c.GetRawTransactionVerbose(&id))
	if raw.BlockHash != b.Hash || raw.Confirmations != 1 || raw.Txid != id.String() {
		t.Errorf("getrawtransaction: %+v", raw)
	}
	if got := rpcRaw(t, d, `{"method":"getrawtransaction","params":["`+id.String()+`",2],"id":1}`); !strings.Contains(got, `"prevout"`) || !strings.Contains(got, `"fee":0.00010000`) {
		t.Errorf("getrawtransaction 2: %s", got)
	}
	if got := rpcRaw(t, d, `{"method":"getindexinfo","id":1}`); !strings.Contains(got, `"txindex":{"synced":true,"best_block_height":111}`) {
		t.Errorf("getindexinfo: %s", got)
	}
	unknown := strings.Repeat("12", 32)
	if got := rpcRaw(t, d, `{"method":"getrawtransaction","params":["`+unknown+`"],"id":1}`); !strings.Contains(got, "No such mempool or blockchain transaction") {
		t.Errorf("an unknown transaction: %s", got)
	}
	asks[problem](t, d, "/tx/"+unknown+"/details", http.StatusNotFound)
	asks[problem](t, d, "/tx/"+unknown, http.StatusNotFound)

	// The address that was paid.
	addr := asks[api.TxDetails](t, d, "/tx/"+child.TxHash().String()+"/details", http.StatusOK).Outputs[0].Address
	if addr == "" {
		t.Fatal("no address")
	}
	a := asks[api.Address](t, d, "/address/"+addr, http.StatusOK)
	utxos, sum, pages := 0, int64(0), 0
	for cursor := ""; ; pages++ {
		page := asks[api.AddressCoins](t, d, "/address/"+addr+"/utxos?limit=50&cursor="+cursor, http.StatusOK)
		for _, u := range page.UTXOs {
			utxos++
			sum += u.Value
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if a.Balance != sum || a.Balance != a.Received-a.Sent || a.Balance == 0 || utxos == 0 || a.LastHeight != 111 || a.Unconfirmed.Txs != 0 {
		t.Errorf("%+v, %d unspent outputs of %d satoshi", a, utxos, sum)
	}
	scan := rpcRaw(t, d, `{"method":"scantxoutset","params":["start",["addr(`+addr+`)"]],"id":1}`)
	if !strings.Contains(scan, `"success":true`) || strings.Count(scan, `"vout"`) != utxos {
		t.Errorf("scantxoutset finds %d of %d: %.300s", strings.Count(scan, `"vout"`), utxos, scan)
	}
	if got := rpcRaw(t, d, `{"method":"scantxoutset","params":["status"],"id":1}`); !strings.Contains(got, `"result":null`) {
		t.Errorf("no scan: %s", got)
	}
	history := asks[api.AddressTxs](t, d, "/address/"+addr+"/txs?limit=2", http.StatusOK)
	if len(history.Txs) != 2 || history.Txs[0].Height != 111 || history.Next == "" {
		t.Errorf("history: %+v", history)
	}

	// Whatever happens to the process and to the chain.
	d.kill9()
	d.start()
	indexed(111)
	found(1)
	rpcRaw(t, d, `{"method":"invalidateblock","params":["`+b.Hash+`"],"id":1}`)
	eventually(t, patience, "the transactions back in the mempool", func() error {
		if waiting := asks[api.Address](t, d, "/address/"+addr, http.StatusOK); waiting.Unconfirmed.Txs == 0 || waiting.Balance == a.Balance {
			return fmt.Errorf("%+v", waiting)
		}
		return nil
	})
	rpcRaw(t, d, `{"method":"reconsiderblock","params":["`+b.Hash+`"],"id":1}`)
	d.mine(1)
	indexed(112)
	d.holds(0)
	found(2)

	// Switched off.
	plain := startDaemon(t, "plain", "--network", "regtest")
	if got := asks[problem](t, plain, "/address/"+addr, http.StatusConflict); !strings.Contains(got.Detail, "storage.address_index") {
		t.Errorf("%+v", got)
	}
	for _, path := range []string{"/tx/" + unknown, "/tx/" + unknown + "/details"} {
		if got := asks[problem](t, plain, path, http.StatusNotFound); !strings.Contains(got.Detail, "storage.tx_index") {
			t.Errorf("%+v", got)
		}
	}
	if got := rpcRaw(t, plain, `{"method":"getrawtransaction","params":["`+unknown+`"],"id":1}`); !strings.Contains(got, "storage.tx_index") {
		t.Errorf("without the index: %s", got)
	}
}
