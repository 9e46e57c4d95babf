package api

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of what guesses passwords.
const (
	authDelay = 250 * time.Millisecond // before wrong credentials are refused, as in Bitcoin Core
	// A source of connections may be wrong about passwords triesBurst times in a row and
	// then once a triesRefill; until then its passwords are not looked at. The cookie's
	// 256 random bits need no such limit, so nobody can keep the operator out.
	triesBurst   = 20
	triesRefill  = 3 * time.Second
	maxTriesKept = 1024 // sources remembered
)

// maxPasswordBytes bounds what is hashed for a guess.
const maxPasswordBytes = 1024

// A User may call the interface with a name and a password (HTTP Basic), beside the cookie. Make one with
// [ParseUsers]. Nothing that prints a User shows more than its name.
type User struct {
	name     string
	salt     string // as it stands in the entry: its text is the key
	hash     [sha256.Size]byte
	readOnly bool
	methods  []string // JSON-RPC calls that it may make, and nothing else; nil: whatever its kind may
}

// Format implements fmt.Formatter.
func (u User) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "rpc user %s", u.name) }

var userForm = regexp.MustCompile(`^([A-Za-z0-9._@-]{1,64}):([0-9A-Za-z]{1,128})\$([0-9a-fA-F]{64})$`)

// ParseUsers reads entries in the form of Bitcoin Core's rpcauth, `user:salt$hash`, where the hash is the HMAC-SHA256
// of the password, in hex, with the text of salt as its key; of its rpcwhitelist, `user:call,call` (spaces separate
// too, `user:*` is all calls, several entries of a user add up); and names of users that may only read. As in Core,
// with any whitelist a user without one may call nothing. It reports every fault and none of the hashes.
func ParseUsers(auth, whitelist, readOnly []string) ([]User, error) {
	var users []User
	var faults []error
	find := func(name string) *User {
		if i := slices.IndexFunc(users, func(u User) bool { return u.name == name }); i >= 0 {
			return &users[i]
		}
		return nil
	}
	for i, entry := range auth {
		parts := userForm.FindStringSubmatch(entry)
		switch {
		case parts == nil:
			faults = append(faults, fmt.Errorf("rpc user %d: want user:salt$hash, as dunlin config rpcauth prints it", i+1))
			continue
		case parts[1] == strings.TrimSuffix(cookiePrefix, ":"):
			faults = append(faults, fmt.Errorf("rpc user %s: the name is the cookie's", parts[1]))
			continue
		case find(parts[1]) != nil:
			faults = append(faults, fmt.Errorf("rpc user %s is there twice", parts[1]))
			continue
		}
		u := User{name: parts[1], salt: parts[2]}
		_, _ = hex.Decode(u.hash[:], []byte(parts[3])) // the form was checked
		users = append(users, u)
	}
	for _, entry := range whitelist {
		name, calls, ok := strings.Cut(entry, ":")
		u := find(name)
		if !ok || u == nil {
			faults = append(faults, fmt.Errorf("rpc whitelist %q: no such user", clip(name)))
			continue
		}
		u.methods = append(orEmpty(u.methods), strings.FieldsFunc(calls, func(r rune) bool { return r == ',' || r == ' ' })...)
	}
	for _, name := range readOnly {
		if u := find(name); u != nil {
			u.readOnly = true
		} else {
			faults = append(faults, fmt.Errorf("rpc read-only user %q: no such user", clip(name)))
		}
	}
	for i := range users {
		switch u := &users[i]; {
		case slices.Contains(u.methods, "*"):
			u.methods = nil
		case u.methods == nil && len(whitelist) > 0:
			u.methods = []string{}
		}
	}
	return users, errors.Join(faults...)
}

// NewUser makes an entry for [ParseUsers] with a random salt. An empty password is replaced by a random one of
// 256 bits, which is returned and kept nowhere.
func NewUser(name, password string) (entry, given string, err error) {
	if password == "" {
		var b [32]byte
		_, _ = rand.Read(b[:]) // never fails, says crypto/rand
		password = base64.RawURLEncoding.EncodeToString(b[:])
	}
	var salt [16]byte
	_, _ = rand.Read(salt[:])
	u := User{name: name, salt: hex.EncodeToString(salt[:])}
	mac := u.digest(password)
	entry = name + ":" + u.salt + "$" + hex.EncodeToString(mac)
	if len(password) > maxPasswordBytes {
		return "", "", fmt.Errorf("password of %d bytes, at most %d", len(password), maxPasswordBytes)
	}
	if _, err := ParseUsers([]string{entry}, nil, nil); err != nil {
		return "", "", fmt.Errorf("user name %q: want 1 to 64 letters, digits and ._@-", clip(name))
	}
	return entry, password, nil
}

func (u *User) digest(password string) []byte {
	mac := hmac.New(sha256.New, []byte(u.salt))
	mac.Write([]byte(password))
	return mac.Sum(nil)
}

// nobody is compared with when there is no user of a name, so that the time taken does not tell.
var nobody = User{salt: strings.Repeat("0", 32)}

// A Caller is who sent a request that the guard let through.
type Caller struct {
	name     string
	readOnly bool
	methods  []string // nil: any
}

// Name is the RPC user's name, "cookie" for whoever has the token, and empty for those who gave no credentials.
func (c Caller) Name() string { return c.name }

// MayCall says whether the caller may make a JSON-RPC call. reads says that the call changes nothing.
func (c Caller) MayCall(method string, reads bool) bool {
	return (reads || !c.readOnly) && (c.methods == nil || slices.Contains(c.methods, method))
}

type callerKey struct{}

// Caller is what a user is once its password was right.
func (u User) Caller() Caller { return Caller{name: u.name, readOnly: u.readOnly, methods: u.methods} }

// WithCaller returns a context of a request of c.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns who sent the request that ctx is of; false: no guard has looked at it.
func CallerOf(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

const cookieCaller = "cookie"

// access is what a request wants.
type access int

const (
	toProbe access = iota // whether the node lives, and the dashboard's files: told to everybody
	toRead                // open to this machine
	toKnow                // reads that want credentials everywhere
	toWrite
	toCall  // JSON-RPC
	toDebug // the whole token, always
)

// accessOf sorts requests. What a route's handler does must fit its method: GET changes nothing.
func accessOf(r *http.Request) access {
	p := r.URL.Path
	switch {
	case p == "/debug" || strings.HasPrefix(p, "/debug/"):
		return toDebug
	case p == "/" && r.Method == http.MethodPost:
		return toCall
	case !isRead(r):
		return toWrite
	case p == "/livez" || p == "/readyz" || p == accessPath || isDashboard(p):
		return toProbe
	case tellsLog(r) || p == "/api/v1/wallet" || strings.HasPrefix(p, "/api/v1/wallet/"):
		return toKnow
	}
	return toRead
}

// A verdict is what the guard says to a request: status 0 lets it through.
type verdict struct {
	caller Caller
	status int
	reason string
	wrong  bool // it gave credentials, and they were refused
}

// judge decides who a request is of and whether it may go on.
func (s *Server) judge(r *http.Request, socket bool) verdict {
	want := accessOf(r)
	from := source(r.RemoteAddr)
	local := from.Addr().IsLoopback()
	credentials := givesToken(r, socket)
	open := want == toProbe || local && (s.o.Open && want != toDebug || want == toRead && (!socket || !credentials))
	if !credentials {
		if open {
			return verdict{} // over a socket so opened nothing can be written, see mayWrite
		}
		return verdict{status: http.StatusUnauthorized, reason: "token missing or wrong; " + howToAsk(socket)}
	}
	caller, status := s.whoIs(r, socket, from)
	switch {
	case status == 0 && caller.may(want):
		return verdict{caller: caller}
	case open: // credentials that are stale or too weak are none
		return verdict{}
	case status == http.StatusTooManyRequests:
		return verdict{status: status, reason: "too many wrong passwords from this address; wait, or use the content of " + CookieFile, wrong: true}
	case status == 0:
		return verdict{caller: caller, status: http.StatusForbidden, reason: "rpc user " + caller.name + " may not do this"}
	}
	return verdict{status: status, reason: "token missing or wrong; " + howToAsk(socket), wrong: true}
}

func howToAsk(socket bool) string {
	if socket {
		return "add ?token= with the content of " + CookieFile + " in the node's home"
	}
	return "send Authorization: Bearer with the content of " + CookieFile + " in the node's home"
}

// may says whether a known caller may have what a request wants. Which calls it may make is for the JSON-RPC to ask.
func (c Caller) may(want access) bool {
	switch {
	case want == toCall || want == toProbe:
		return true
	case c.methods != nil:
		return false
	case c.readOnly:
		return want == toRead
	}
	return want != toDebug || c.name == cookieCaller
}

// whoIs finds the caller whose credentials a request has. status is 0, 401 or 429.
func (s *Server) whoIs(r *http.Request, socket bool, from netip.Prefix) (c Caller, status int) {
	whole := Caller{name: cookieCaller}
	if socket {
		if token := r.URL.Query().Get("token"); token != "" {
			if sameToken(s.token, token) {
				return whole, 0
			}
			return c, http.StatusUnauthorized
		}
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		if sameToken(s.token, strings.TrimSpace(given)) {
			return whole, 0
		}
		return c, http.StatusUnauthorized
	}
	name, password, ok := r.BasicAuth()
	switch {
	case !ok || len(password) > maxPasswordBytes:
		return c, http.StatusUnauthorized
	case sameToken(s.token, name+":"+password):
		return whole, 0
	case len(s.o.Users) == 0:
		return c, http.StatusUnauthorized
	case !s.tries.allowed(from, s.o.Now()):
		return c, http.StatusTooManyRequests
	}
	user := &nobody
	for i := range s.o.Users {
		if s.o.Users[i].name == name {
			user = &s.o.Users[i]
		}
	}
	if right := hmac.Equal(user.digest(password), user.hash[:]); !right || user == &nobody {
		s.tries.failed(from, s.o.Now())
		return c, http.StatusUnauthorized
	}
	return user.Caller(), 0
}

// challenge is what WWW-Authenticate asks for: Core's clients know Basic; elsewhere it would make browsers ask
// the user for a password.
func challenge(r *http.Request) string {
	if accessOf(r) == toCall {
		return `Basic realm="jsonrpc"`
	}
	return `Bearer realm="dunlin"`
}

// deter makes whoever gave wrong credentials wait, and has it logged, at most once in ten seconds.
func (s *Server) deter(r *http.Request) {
	if n, tell := s.tries.count(s.o.Now()); tell {
		s.log.Warn("wrong credentials", "from", r.RemoteAddr, "path", clip(r.URL.Path), "attempts", n)
	}
	t := time.NewTimer(s.o.AuthDelay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

// source is where a connection comes from, as limits count: an address, of IPv6 its /64. It is invalid if the
// address is no IP address.
func source(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is6() && !a.IsLoopback() {
		return netip.PrefixFrom(a, 64).Masked()
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// tries counts wrong passwords by where they come from.
type tries struct {
	mu     sync.Mutex // guards what follows
	by     map[netip.Prefix]*bucket
	wrong  uint64 // since toldAt
	toldAt time.Time
}

type bucket struct {
	left float64
	at   time.Time
}

func (b *bucket) fill(now time.Time) {
	b.left = min(triesBurst, b.left+now.Sub(b.at).Seconds()/triesRefill.Seconds())
	b.at = now
}

// allowed says whether a source may try a password now.
func (t *tries) allowed(from netip.Prefix, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.by[from]
	if b == nil {
		return true
	}
	b.fill(now)
	return b.left >= 1
}

// failed notes a wrong password.
func (t *tries) failed(from netip.Prefix, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.by[from]
	if b == nil {
		if t.by == nil {
			t.by = make(map[netip.Prefix]*bucket)
		}
		if len(t.by) >= maxTriesKept {
			t.forget(now)
		}
		b = &bucket{left: triesBurst, at: now}
		t.by[from] = b
	}
	b.fill(now)
	b.left = max(0, b.left-1)
}

// forget makes room: of those who have been quiet, else of the one that may try most.
func (t *tries) forget(now time.Time) {
	var most netip.Prefix
	best := -1.0
	for from, b := range t.by {
		b.fill(now)
		if b.left > best {
			most, best = from, b.left
		}
		if b.left >= triesBurst {
			delete(t.by, from)
		}
	}
	delete(t.by, most)
}

// count counts refused credentials of all kinds; tell says that it is time to log the number.
func (t *tries) count(now time.Time) (n uint64, tell bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wrong++
	if now.Sub(t.toldAt) < 10*time.Second {
		return 0, false
	}
	n, t.wrong, t.toldAt = t.wrong, 0, now
	return n, true
}
