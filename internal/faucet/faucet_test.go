package faucet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dunlin/internal/faucet"
)

// A wallet is a fake one.
type wallet struct {
	mu   sync.Mutex
	paid [][]string
	err  error
}

// fail has payments fail from now on; nil: no longer.
func (w *wallet) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// payments is who was paid, by transaction.
func (w *wallet) payments() [][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.paid)
}

func (w *wallet) pay(_ context.Context, to []string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return "", w.err
	}
	w.paid = append(w.paid, to)
	return fmt.Sprintf("tx%d", len(w.paid)), nil
}

func check(a string) error {
	if !strings.HasPrefix(a, "addr") {
		return errors.New("is no address")
	}
	return nil
}

// open starts a faucet that ends with the test's bubble.
func open(t *testing.T, w *wallet, change func(*faucet.Options)) *faucet.Faucet {
	t.Helper()
	o := faucet.Options{Network: "regtest", Amount: 10, Daily: 40, Check: check, Pay: w.pay}
	if change != nil {
		change(&o)
	}
	f, err := faucet.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

// ask makes a request from an address.
func ask(f http.Handler, method, path, from, body string, header ...string) (int, map[string]any) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = from
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	if r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	var v map[string]any
	_ = json.Unmarshal(w.Body.Bytes(), &v) // the page is none
	return w.Code, v
}

func claim(f http.Handler, from, address string) (int, map[string]any) {
	return ask(f, http.MethodPost, "/claims", from, `{"address":"`+address+`"}`)
}

// TestFaucet: people ask, several are paid at once, and the limits hold.
func TestFaucet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &wallet{}
		f := open(t, w, nil)
		code, c := claim(f, "192.0.2.1:5", "addr1")
		if code != http.StatusAccepted || c["state"] != faucet.Queued {
			t.Fatalf("%d %v", code, c)
		}
		for _, tt := range []struct {
			from, address string
			want          int
		}{
			{"192.0.2.1:6", "addr2", http.StatusTooManyRequests},            // the same machine
			{"192.0.2.99:6", "addr2", http.StatusTooManyRequests},           // its network
			{"198.51.100.1:6", "addr1", http.StatusTooManyRequests},         // the same address
			{"198.51.100.1:6", "nonsense", http.StatusUnprocessableEntity},  //
			{"198.51.100.1:6", "addr2", http.StatusAccepted},                //
			{"[2001:db8::1]:6", "addr3", http.StatusAccepted},               //
			{"[2001:db8:0:ffff::1]:6", "addr4", http.StatusTooManyRequests}, // the same /48
			{"[2001:db8:1::1]:6", "addr4", http.StatusAccepted},             //
			{"203.0.113.1:6", "addr5", http.StatusServiceUnavailable},       // the day's sum is promised
		} {
			if got, v := claim(f, tt.from, tt.address); got != tt.want {
				t.Errorf("%s for %s: %d %v, want %d", tt.from, tt.address, got, v, tt.want)
			}
		}
		time.Sleep(10 * time.Second) // in virtual time
		synctest.Wait()
		if fmt.Sprint(w.payments()) != "[[addr1 addr2 addr3 addr4]]" {
			t.Errorf("paid %v", w.payments())
		}
		if code, v := ask(f, http.MethodGet, "/claims/"+c["id"].(string), "192.0.2.1:5", ""); code != 200 || v["state"] != faucet.Paid || v["txid"] != "tx1" {
			t.Errorf("%d %v", code, v)
		}
		if _, v := ask(f, http.MethodGet, "/info", "192.0.2.1:5", ""); v["left"] != 0.0 || v["queue"] != 0.0 || v["amount"] != 10.0 {
			t.Errorf("%v", v)
		}
		// A day later all is as it was.
		time.Sleep(24 * time.Hour)
		if code, v := claim(f, "192.0.2.1:5", "addr1"); code != http.StatusAccepted {
			t.Errorf("%d %v", code, v)
		}
	})
}

// TestPaymentsThatFail: what the wallet refuses waits, and is told; what may have been paid is not paid again.
func TestPaymentsThatFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &wallet{err: fmt.Errorf("%w: the wallet is locked", faucet.ErrRefused)}
		f := open(t, w, nil)
		_, c := claim(f, "192.0.2.1:5", "addr1")
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, v := ask(f, http.MethodGet, "/info", "192.0.2.1:5", ""); v["reason"] != "not paid: the wallet is locked" || v["queue"] != 1.0 || v["left"] != 30.0 {
			t.Errorf("%v", v)
		}
		w.fail(errors.New("no answer"))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if _, v := ask(f, http.MethodGet, "/claims/"+c["id"].(string), "192.0.2.1:5", ""); v["state"] != faucet.Unknown {
			t.Errorf("%v", v)
		}
		w.fail(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, v := ask(f, http.MethodGet, "/info", "192.0.2.1:5", ""); len(w.payments()) != 0 || v["left"] != 30.0 || v["reason"] != nil {
			t.Errorf("paid %v, %v", w.payments(), v)
		}
	})
}

// TestWork: with a proof of work wanted, only a fresh challenge of one's own counts.
func TestWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := open(t, &wallet{}, func(o *faucet.Options) { o.WorkBits = 8 })
		solve := func(challenge, address string) string {
			for i := 0; ; i++ {
				if nonce := fmt.Sprint(i); faucet.Work(challenge, address, nonce) >= 8 {
					return nonce
				}
			}
		}
		_, info := ask(f, http.MethodGet, "/info", "192.0.2.1:5", "")
		challenge := info["challenge"].(string)
		body := func(challenge, address, nonce string) string {
			return fmt.Sprintf(`{"address":%q,"challenge":%q,"nonce":%q}`, address, challenge, nonce)
		}
		good := solve(challenge, "addr1")
		made := "0." + strings.Repeat("0", 32)
		for _, tt := range []struct {
			name, from, body string
			after            time.Duration
			want             int
		}{
			{"none", "192.0.2.1:5", `{"address":"addr1"}`, 0, http.StatusForbidden},
			{"for another address", "192.0.2.1:5", body(challenge, "addr2", good+"x"), 0, http.StatusForbidden},
			{"of somebody else", "198.51.100.1:5", body(challenge, "addr1", good), 0, http.StatusForbidden},
			{"made up", "192.0.2.1:5", body(made, "addr1", solve(made, "addr1")), 0, http.StatusForbidden},
			{"right", "192.0.2.1:5", body(challenge, "addr1", good), 0, http.StatusAccepted},
			{"again", "192.0.2.1:5", body(challenge, "addr1", good), 0, http.StatusTooManyRequests},
			{"old", "192.0.2.1:5", body(challenge, "addr1", good), 11 * time.Minute, http.StatusForbidden},
		} {
			time.Sleep(tt.after)
			if code, v := ask(f, http.MethodPost, "/claims", tt.from, tt.body); code != tt.want {
				t.Errorf("%s: %d %v, want %d", tt.name, code, v, tt.want)
			}
		}
	})
}

// TestRequests: bounds, forms, the page, and who is believed to ask.
func TestRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := open(t, &wallet{}, func(o *faucet.Options) { o.TrustProxy, o.Queue = true, 3 })
		for _, tt := range []struct {
			method, path, body string
			header             []string
			want               int
		}{
			{"GET", "/", "", nil, 200},
			{"GET", "/nothing", "", nil, 404},
			{"GET", "/claims/x", "", nil, 404},
			{"POST", "/claims", "x", nil, 400},
			{"POST", "/claims", `{"address":"` + strings.Repeat("a", 5000) + `"}`, nil, 400},
			{"POST", "/claims", "address=addr1", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
			{"POST", "/claims", `{"address":"addr1"}`, []string{"X-Forwarded-For", "10.0.0.1, 192.0.2.1"}, 202},
			{"POST", "/claims", `{"address":"addr2"}`, []string{"X-Forwarded-For", "10.9.0.1, 192.0.2.2"}, 429},
			{"POST", "/claims", `{"address":"addr2"}`, []string{"X-Forwarded-For", "10.9.0.1", "X-Forwarded-For", "192.0.2.2"}, 429}, // some proxies add a line
			{"POST", "/claims", `{"address":"addr2"}`, []string{"X-Forwarded-For", "198.51.100.1"}, 202},
			{"POST", "/claims", `{"address":"addr3"}`, nil, 202},
			{"POST", "/claims", `{"address":"addr4"}`, []string{"X-Forwarded-For", "203.0.113.1"}, 503}, // the queue is full
		} {
			if code, v := ask(f, tt.method, tt.path, "127.0.0.1:7", tt.body, tt.header...); code != tt.want {
				t.Errorf("%s %s %.40s %v: %d %v, want %d", tt.method, tt.path, tt.body, tt.header, code, v, tt.want)
			}
		}
	})
	_, err := faucet.New(faucet.Options{Daily: -1, WorkBits: 99, Rest: -1})
	for _, want := range []string{"check and pay", "amount 0", "work 99 bits", "must not be negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
