// Package faucet gives coins of a test network away: a page and a small HTTP interface, a queue, and limits.
//
// It is no wallet: who hands the coins out is a function of its caller. It knows nothing of who asks but the address that the request comes from.
//
// Invariants: an address and an IP prefix are paid at most once in a rest; no more than the daily sum leaves in 24 hours; everything that asking can make grow is
// bounded; a payment of which it is not known whether it was made is never made again.
package faucet

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options configure New. Zero means the default given.
type Options struct {
	Network string // for the page; no default
	Amount  int64  // satoshi a claim; no default
	Daily   int64  // satoshi in 24 hours; no default
	// Check says what is wrong with an address. No default.
	Check func(address string) error
	// Pay sends Amount to each address in one transaction and returns its id. An error that is ErrRefused says that nothing was sent; after
	// any other nobody knows. No default.
	Pay func(ctx context.Context, addresses []string) (txid string, err error)

	Rest       time.Duration // until an address or an IP prefix is paid again; default 24 h
	Queue      int           // claims that wait; default 100
	Interval   time.Duration // between two payments; default 10 s
	WorkBits   int           // leading zero bits of a claim's proof of work; default 0: none is asked for
	TrustProxy bool          // a proxy on this machine says who asks (X-Forwarded-For)
	Logger     *slog.Logger  // default: silent
	Now        func() time.Time
}

// ErrRefused says that a payment was not made.
var ErrRefused = errors.New("not paid")

const (
	maxBatch     = 50      // addresses in one transaction
	maxKnown     = 100_000 // addresses and prefixes that are remembered, and claims
	maxBody      = 4 << 10
	maxWorkBits  = 40
	workFor      = 10 * time.Minute // a challenge is good
	day          = 24 * time.Hour
	maxRetry     = 5 * time.Minute
	defaultQueue = 100
)

// States of a claim.
const (
	Queued  = "queued"
	Paid    = "paid"
	Unknown = "unknown" // the node did not say whether it paid
)

// A Claim is one wish and what became of it.
type Claim struct {
	ID      string    `json:"id"`
	Address string    `json:"address"`
	State   string    `json:"state"`
	TxID    string    `json:"txid,omitempty"`
	At      time.Time `json:"at"`
}

// A Faucet is an http.Handler; Run pays.
type Faucet struct {
	o      Options
	secret [32]byte
	mux    *http.ServeMux
	wake   chan struct{} // capacity 1: there is something to pay

	mu     sync.Mutex
	rests  map[string]time.Time // address or IP prefix → when it may ask again
	claims map[string]*Claim
	queue  []*Claim
	given  []gift // of the last 24 hours, oldest first
	reason string // why nothing is paid now
}

type gift struct {
	at  time.Time
	sum int64
}

// New checks the options, reporting every fault.
func New(o Options) (*Faucet, error) {
	var faults []error
	if o.Check == nil || o.Pay == nil {
		faults = append(faults, errors.New("faucet: check and pay are required"))
	}
	if o.Amount <= 0 {
		faults = append(faults, fmt.Errorf("amount %d: must be above 0", o.Amount))
	}
	if o.Daily < o.Amount {
		faults = append(faults, fmt.Errorf("daily %d: must be at least the amount %d", o.Daily, o.Amount))
	}
	if o.WorkBits < 0 || o.WorkBits > maxWorkBits {
		faults = append(faults, fmt.Errorf("work %d bits: must be 0 to %d", o.WorkBits, maxWorkBits))
	}
	if o.Rest < 0 || o.Queue < 0 || o.Queue > maxKnown || o.Interval < 0 {
		faults = append(faults, fmt.Errorf("rest %v, queue %d, interval %v: must not be negative, the queue at most %d", o.Rest, o.Queue, o.Interval, maxKnown))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if o.Rest == 0 {
		o.Rest = day
	}
	if o.Queue == 0 {
		o.Queue = defaultQueue
	}
	if o.Interval == 0 {
		o.Interval = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	f := &Faucet{o: o, mux: http.NewServeMux(), wake: make(chan struct{}, 1), rests: map[string]time.Time{}, claims: map[string]*Claim{}}
	_, _ = rand.Read(f.secret[:]) // it never fails
	f.mux.HandleFunc("GET /{$}", f.page)
	f.mux.HandleFunc("GET /info", f.info)
	f.mux.HandleFunc("POST /claims", f.claim)
	f.mux.HandleFunc("GET /claims/{id}", f.look)
	return f, nil
}

//go:embed page.html
var page []byte

// ServeHTTP implements http.Handler.
func (f *Faucet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	f.mux.ServeHTTP(w, r)
}

func (f *Faucet) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page) // an error is the caller having gone
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error is the caller having gone
}

func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	answer(w, status, map[string]string{"error": fmt.Sprintf(format, args...)})
}

// An Info is what GET /info gives.
type Info struct {
	Network   string `json:"network"`
	Amount    int64  `json:"amount"` // satoshi
	Left      int64  `json:"left"`   // of today's sum
	Queue     int    `json:"queue"`
	Reason    string `json:"reason,omitempty"` // why nothing is paid now
	WorkBits  int    `json:"work_bits"`
	Challenge string `json:"challenge,omitempty"`
}

func (f *Faucet) info(w http.ResponseWriter, r *http.Request) {
	now := f.o.Now()
	f.mu.Lock()
	i := Info{Network: f.o.Network, Amount: f.o.Amount, Left: f.left(now), Queue: len(f.queue), Reason: f.reason, WorkBits: f.o.WorkBits}
	f.mu.Unlock()
	if f.o.WorkBits > 0 {
		i.Challenge = f.challenge(now, f.asker(r))
	}
	answer(w, http.StatusOK, i)
}

// left is what may still be promised today.
func (f *Faucet) left(now time.Time) int64 {
	for len(f.given) > 0 && now.Sub(f.given[0].at) >= day {
		f.given = f.given[1:]
	}
	left := f.o.Daily - f.o.Amount*int64(len(f.queue))
	for _, g := range f.given {
		left -= g.sum
	}
	return max(0, left)
}

// asker is the IP prefix that a request comes from: what one person commonly has.
func (f *Faucet) asker(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return "?"
	}
	if f.o.TrustProxy && ip.Unmap().IsLoopback() {
		// The last one is what our proxy saw; what stands before it, in this line or in one of its own, the caller may
		// have made up.
		list := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if said, err := netip.ParseAddr(strings.TrimSpace(list[len(list)-1])); err == nil {
			ip = said
		}
	}
	ip = ip.Unmap().WithZone("")
	length := 48
	if ip.Is4() {
		length = 24
	}
	prefix, _ := ip.Prefix(length) // the length is right
	return prefix.String()
}

// challenge is what a proof of work is made for: the time, and a seal by which it is known again, for this asker only.
func (f *Faucet) challenge(now time.Time, asker string) string {
	t := strconv.FormatInt(now.Unix(), 16)
	m := hmac.New(sha256.New, f.secret[:])
	_, _ = m.Write([]byte(t + " " + asker)) // into memory
	return t + "." + hex.EncodeToString(m.Sum(nil)[:16])
}

// Work says how many leading zero bits a proof has.
func Work(challenge, address, nonce string) int {
	sum := sha256.Sum256([]byte(challenge + ":" + address + ":" + nonce))
	n := 0
	for _, b := range sum {
		n += bits.LeadingZeros8(b)
		if b != 0 {
			break
		}
	}
	return n
}

// worked checks a proof; what is wrong with it, or "".
func (f *Faucet) worked(now time.Time, asker, challenge, address, nonce string) string {
	if f.o.WorkBits == 0 {
		return ""
	}
	text, _, _ := strings.Cut(challenge, ".")
	at, err := strconv.ParseInt(text, 16, 64)
	switch age := now.Sub(time.Unix(at, 0)); {
	case err != nil, !hmac.Equal([]byte(challenge), []byte(f.challenge(time.Unix(at, 0), asker))):
		return "the challenge is none of ours: GET /info gives one"
	case age > workFor || age < -time.Minute:
		return "the challenge is too old: GET /info gives another"
	case len(nonce) > 64 || Work(challenge, address, nonce) < f.o.WorkBits:
		return fmt.Sprintf("the proof of work is missing or too small: sha256(challenge:address:nonce) must begin with %d zero bits", f.o.WorkBits)
	}
	return ""
}

// claim takes a wish, if its limits let it.
func (f *Faucet) claim(w http.ResponseWriter, r *http.Request) {
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind != "application/json" { // a page of others cannot send that
		refuse(w, http.StatusUnsupportedMediaType, "the body must be JSON and say so")
		return
	}
	var wish struct{ Address, Challenge, Nonce string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&wish); err != nil {
		refuse(w, http.StatusBadRequest, "the body must be {\"address\": …}")
		return
	}
	wish.Address = strings.TrimSpace(wish.Address)
	if err := f.o.Check(wish.Address); err != nil {
		refuse(w, http.StatusUnprocessableEntity, "address: %v", err)
		return
	}
	now, asker := f.o.Now(), f.asker(r)
	if fault := f.worked(now, asker, wish.Challenge, wish.Address, wish.Nonce); fault != "" {
		refuse(w, http.StatusForbidden, "%s", fault)
		return
	}
	f.mu.Lock()
	c, status, fault := f.enqueue(now, asker, wish.Address)
	f.mu.Unlock()
	if fault != "" {
		refuse(w, status, "%s", fault)
		return
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
	answer(w, http.StatusAccepted, c)
}

// enqueue is called with mu held.
func (f *Faucet) enqueue(now time.Time, asker, address string) (c Claim, status int, fault string) {
	f.forget(now)
	for _, key := range []string{address, asker} {
		if until, ok := f.rests[key]; ok {
			return c, http.StatusTooManyRequests, fmt.Sprintf("%s was served: again in %v", key, until.Sub(now).Round(time.Second))
		}
	}
	switch {
	case len(f.queue) >= f.o.Queue:
		return c, http.StatusServiceUnavailable, "the queue is full: try again later"
	case f.left(now) < f.o.Amount:
		return c, http.StatusServiceUnavailable, "today's sum is given away: try again tomorrow"
	case len(f.rests)+2 > maxKnown || len(f.claims) >= maxKnown:
		return c, http.StatusServiceUnavailable, "too many have asked: try again later"
	}
	one := &Claim{ID: rand.Text(), Address: address, State: Queued, At: now.UTC()}
	f.claims[one.ID] = one
	f.queue = append(f.queue, one)
	f.rests[address], f.rests[asker] = now.Add(f.o.Rest), now.Add(f.o.Rest)
	return *one, 0, ""
}

// forget drops what is over. It is called with mu held.
func (f *Faucet) forget(now time.Time) {
	for key, until := range f.rests {
		if !now.Before(until) {
			delete(f.rests, key)
		}
	}
	for id, c := range f.claims {
		if c.State != Queued && now.Sub(c.At) > max(day, f.o.Rest) {
			delete(f.claims, id)
		}
	}
}

func (f *Faucet) look(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	c, ok := f.claims[r.PathValue("id")]
	var v Claim
	if ok {
		v = *c
	}
	f.mu.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "no such claim: it may be forgotten")
		return
	}
	answer(w, http.StatusOK, v)
}

// Run pays what is queued until ctx ends, and returns its error. Claims that wait then are not paid.
func (f *Faucet) Run(ctx context.Context) error {
	wait := f.o.Interval
	for {
		if err := f.ready(ctx, wait); err != nil {
			return err
		}
		err := f.pay(ctx)
		wait = f.o.Interval
		if err != nil && ctx.Err() == nil {
			wait = min(max(2*wait, time.Second), maxRetry)
			f.o.Logger.Warn("not paid", "err", err, "again_in", wait)
		}
	}
}

// ready waits for the time between two payments, and then for something to pay.
func (f *Faucet) ready(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		f.mu.Lock()
		n := len(f.queue)
		f.mu.Unlock()
		if n > 0 {
			return nil
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pay makes one transaction for those that wait longest.
func (f *Faucet) pay(ctx context.Context) error {
	f.mu.Lock()
	batch := append([]*Claim(nil), f.queue[:min(len(f.queue), maxBatch)]...)
	f.mu.Unlock()
	addresses := make([]string, len(batch))
	for i, c := range batch {
		addresses[i] = c.Address
	}
	txid, err := f.o.Pay(ctx, addresses)
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(err, ErrRefused) { // they wait on
		f.reason = err.Error()
		return err
	}
	f.reason = ""
	f.queue = f.queue[len(batch):]
	for _, c := range batch {
		c.State, c.TxID = Paid, txid
		if err != nil {
			c.State = Unknown
		}
	}
	f.given = append(f.given, gift{f.o.Now(), f.o.Amount * int64(len(batch))})
	if err == nil {
		f.o.Logger.Info("paid", "txid", txid, "claims", len(batch))
	}
	return err
}
