package api_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dunlin/internal/api"
)

// coreAuth and corePassword are the user of Bitcoin Core's own test of rpcauth (test/functional/rpc_users.py).
const (
	coreAuth     = "rt:93648e835a54c573682c2eb19f882535$7681e9c5b74bdd85e78166031d2058e1069b3ed7ed967c93fc63abba06f31144"
	corePassword = "cA773lm788buwYe4g4WT+05pKyNruVKjQ25x3n0DQcM="
)

// fakeRPC says who called.
var fakeRPC = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	c, known := api.CallerOf(r.Context())
	fmt.Fprintf(w, "%s %v stop=%v getblockcount=%v", c.Name(), known, c.MayCall("stop", false), c.MayCall("getblockcount", true))
})

// users makes users with the password "right".
func users(t *testing.T, whitelist, readOnly []string, names ...string) []api.User {
	t.Helper()
	var entries []string
	for _, name := range names {
		entry, _, err := api.NewUser(name, "right")
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry)
	}
	out, err := api.ParseUsers(entries, whitelist, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The matrix: every route that the server has, with every kind of credentials, Host and Origin.

// kind is what a route is to the guard.
type kind string

const (
	kindProbe   kind = "probe"  // everybody
	kindRead    kind = "read"   // everybody on this machine
	kindPrivate kind = "know"   // reads of what is private
	kindWrite   kind = "write"  // changes something
	kindCall    kind = "rpc"    // calls of JSON-RPC: which, the calls decide
	kindSocket  kind = "socket" // a WebSocket: its answers tell what it may
	kindDebug   kind = "debug"  // profiles
)

// special are the routes that are not what their method says (GET read, others write).
var special = map[string]kind{
	"GET /livez": kindProbe, "GET /readyz": kindProbe, "POST /{$}": kindCall, "GET /ws": kindSocket,
	"GET /api/v1/ws": kindSocket, // of all but the log
	"GET /{$}":       kindProbe, "GET /ui/": kindProbe, "GET /api/v1/access": kindProbe, "GET /api/v1/log/records": kindPrivate,
}

func kindOf(r api.Route) kind {
	if k, ok := special[r.Method+" "+r.Pattern]; ok {
		return k
	}
	switch {
	case strings.HasPrefix(r.Pattern, "/debug/"):
		return kindDebug
	case r.Method != http.MethodGet:
		return kindWrite
	case strings.HasPrefix(r.Pattern, "/api/v1/wallet"):
		return kindPrivate
	}
	return kindRead
}

// The expected table. A cell is what the guard answers; 0: it lets the request through to the route, whatever that says.
// The columns are the credentials.
var credentials = []string{"none", "wrong token", "wrong password", "wrong user", "token", "cookie", "user", "reader", "caller"}

var allowed = map[string]map[kind][]int{
	// On loopback.                none wrong wrongpw wronguser token cookie user reader caller
	"local": {
		kindProbe:   {0, 0, 0, 0, 0, 0, 0, 0, 0},
		kindRead:    {0, 0, 0, 0, 0, 0, 0, 0, 0},
		kindPrivate: {401, 401, 401, 401, 0, 0, 0, 403, 403},
		kindWrite:   {401, 401, 401, 401, 0, 0, 0, 403, 403},
		kindCall:    {401, 401, 401, 401, 0, 0, 0, 0, 0},
		kindSocket:  {0, 401, 401, 401, 0, 0, 0, 0, 403},
		kindDebug:   {401, 401, 401, 401, 0, 0, 403, 403, 403},
	},
	// From another machine.
	"remote": {
		kindProbe:   {0, 0, 0, 0, 0, 0, 0, 0, 0},
		kindRead:    {401, 401, 401, 401, 0, 0, 0, 0, 403},
		kindPrivate: {401, 401, 401, 401, 0, 0, 0, 403, 403},
		kindWrite:   {401, 401, 401, 401, 0, 0, 0, 403, 403},
		kindCall:    {401, 401, 401, 401, 0, 0, 0, 0, 0},
		kindSocket:  {401, 401, 401, 401, 0, 0, 0, 0, 403},
		kindDebug:   {401, 401, 401, 401, 0, 0, 403, 403, 403},
	},
	// On loopback of a server that is open.
	"open": {
		kindProbe:   {0, 0, 0, 0, 0, 0, 0, 0, 0},
		kindRead:    {0, 0, 0, 0, 0, 0, 0, 0, 0},
		kindPrivate: {0, 0, 0, 0, 0, 0, 0, 0, 0},
		kindWrite:   {0, 0, 0, 0, 0, 0, 0, 0, 0},
		kindCall:    {0, 0, 0, 0, 0, 0, 0, 0, 0},
		kindSocket:  {0, 0, 0, 0, 0, 0, 0, 0, 0},
		kindDebug:   {401, 401, 401, 401, 0, 0, 403, 403, 403},
	},
}

func TestAuthMatrix(t *testing.T) {
	for _, where := range []string{"local", "remote", "open"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			s, err := api.New(api.Options{
				Listen: "127.0.0.1:0", Home: home, Test: true, Open: where == "open", Pprof: true, RPC: fakeRPC, AuthDelay: time.Nanosecond,
				Metrics: fakeRPC, Users: users(t, []string{"user:*", "reader:*", "caller:getblockcount"}, []string{"reader"}, "user", "reader", "caller"),
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Listen(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			token, err := api.ReadToken(home)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Routes()) < 40 {
				t.Fatalf("%d routes: the registry is not what is served", len(s.Routes()))
			}
			// Without a node nothing happens behind the guard: routes say 503 or what they say while it starts.
			for i, route := range s.Routes() {
				k := kindOf(route)
				for column, who := range credentials {
					for _, host := range []string{"127.0.0.1:9332", "evil.example.org"} {
						for _, origin := range []string{"", "http://127.0.0.1:9332", "https://evil.example.org"} {
							r := httptest.NewRequestWithContext(done(t), cmp.Or(route.Method, http.MethodGet), "/", nil)
							r.URL = &url.URL{Path: strings.NewReplacer("{$}", "", "{name}", "heap", "{", "", "}", "", "...", "").Replace(route.Pattern)}
							r.Host = host
							r.RemoteAddr = "127.0.0.1:1"
							if where == "remote" {
								// An address of its own: passwords are wrong here more often than one may be.
								r.RemoteAddr = fmt.Sprintf("203.0.%d.%d:1", i, column)
							} else if who == "wrong password" || who == "wrong user" {
								r.RemoteAddr = fmt.Sprintf("127.%d.%d.1:1", i, column)
							}
							if origin != "" {
								r.Header.Set("Origin", origin)
							}
							switch who {
							case "none":
							case "wrong token":
								r.Header.Set("Authorization", "Bearer "+token[:len(token)-1]+"x")
							case "wrong password":
								r.SetBasicAuth("user", "wrong")
							case "wrong user":
								r.SetBasicAuth("nobody", "right")
							case "token":
								r.Header.Set("Authorization", "Bearer "+token)
							case "cookie":
								name, password, _ := strings.Cut(token, ":")
								r.SetBasicAuth(name, password)
							default:
								r.SetBasicAuth(who, "right")
							}
							want := allowed[where][k][column]
							foreign := origin == "https://evil.example.org" && (where != "open" || route.Pattern != "/ws")
							if host == "evil.example.org" || foreign {
								want = http.StatusForbidden
							}
							w := httptest.NewRecorder()
							s.Handler().ServeHTTP(w, r)
							cell := fmt.Sprintf("%s %s %s (%s), %s, Host %s, Origin %q", where, route.Method, r.URL.Path, k, who, host, origin)
							refused := refusedByGuard(w)
							if (want == 0) == refused || want != 0 && w.Code != want {
								t.Errorf("%s: %d %.100s, want %d", cell, w.Code, w.Body, want)
							}
							checkRefusal(t, cell, w, r)
						}
					}
				}
			}
		})
	}
}

// done is a context that has ended, so that no profile is waited for.
func done(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func refusedByGuard(w *httptest.ResponseRecorder) bool {
	return slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests}, w.Code)
}

// checkRefusal looks at what every refusal has.
func checkRefusal(t *testing.T, cell string, w *httptest.ResponseRecorder, r *http.Request) {
	t.Helper()
	h := w.Header()
	if h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s: no nosniff", cell)
	}
	if !refusedByGuard(w) {
		return
	}
	if got := h.Get("WWW-Authenticate"); (got != "") != (w.Code == http.StatusUnauthorized) ||
		w.Code == http.StatusUnauthorized && strings.HasPrefix(got, "Basic") != (r.Method == http.MethodPost && r.URL.Path == "/") {
		t.Errorf("%s: challenge %q with %d", cell, got, w.Code)
	}
	if api := strings.HasPrefix(r.URL.Path, "/api/"); api != (h.Get("Content-Type") == "application/problem+json") {
		t.Errorf("%s: %d of type %s", cell, w.Code, h.Get("Content-Type"))
	}
	if !json.Valid(w.Body.Bytes()) {
		t.Errorf("%s: %s", cell, w.Body)
	}
}

func TestParseUsers(t *testing.T) {
	us, err := api.ParseUsers([]string{coreAuth}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		if got := fmt.Sprintf(form, us[0]); got != "rpc user rt" {
			t.Errorf("%s prints %s", form, got)
		}
	}
	r := serve(t, newFakeNode(1), func(o *api.Options) { o.Users, o.RPC, o.AuthDelay = us, fakeRPC, time.Nanosecond })
	r.want(r.do("POST", "/", "{}", "Authorization: Basic "+basic("rt:"+corePassword)), 200, "rt true stop=true getblockcount=true")
	r.want(r.do("POST", "/", "{}"), 200, "cookie true stop=true getblockcount=true")
	for _, wrong := range []string{"rt:", "rt:" + corePassword + "x", "rt:" + corePassword[1:], ":" + corePassword, "RT:" + corePassword, "rt:" + strings.Repeat("x", 2000)} {
		if got := r.do("POST", "/", "{}", "Authorization: Basic "+basic(wrong)); got.status != 401 || got.header.Get("WWW-Authenticate") != `Basic realm="jsonrpc"` {
			t.Errorf("%.30s: %d %v", wrong, got.status, got.header)
		}
	}
	for _, row := range []struct {
		auth, whitelist, readOnly []string
		want                      []string
	}{
		{[]string{"rt"}, nil, nil, []string{"rpc user 1: want user:salt$hash"}},
		{[]string{coreAuth[:len(coreAuth)-1]}, nil, nil, []string{"want user:salt$hash"}},
		{[]string{coreAuth, coreAuth}, nil, nil, []string{"rt is there twice"}},
		{[]string{"__cookie__" + coreAuth[2:]}, nil, nil, []string{"the name is the cookie's"}},
		{nil, []string{"rt:stop", "x"}, []string{"y"}, []string{`whitelist "rt"`, `whitelist "x"`, `read-only user "y"`}},
	} {
		_, err := api.ParseUsers(row.auth, row.whitelist, row.readOnly)
		for _, want := range row.want {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), coreAuth[40:80]) {
				t.Errorf("%v: %v, want %q", row, err, want)
			}
		}
	}
}

// What a user may call is Core's rpcwhitelist: with any, a user without one may call nothing.
func TestWhitelist(t *testing.T) {
	us := users(t, []string{"a:getblockcount,uptime", "a:stop", "c:*"}, []string{"a"}, "a", "b", "c")
	r := serve(t, newFakeNode(1), func(o *api.Options) { o.Users, o.RPC = us, fakeRPC })
	for name, want := range map[string]string{
		"a": "a true stop=false getblockcount=true", // read-only is stronger
		"b": "b true stop=false getblockcount=false",
		"c": "c true stop=true getblockcount=true",
	} {
		r.want(r.do("POST", "/", "{}", "Authorization: Basic "+basic(name+":right")), 200, want)
	}
	if (api.Caller{}).Name() != "" {
		t.Error("nobody has a name")
	}
}

func TestNewUser(t *testing.T) {
	entry, password, err := api.NewUser("alice", "")
	if err != nil || len(password) != 43 || strings.Contains(entry, password) {
		t.Errorf("%s %s %v", entry, password, err)
	}
	other, second, err := api.NewUser("alice", "")
	if err != nil || second == password || other == entry {
		t.Errorf("%s twice, %v", password, err)
	}
	for _, name := range []string{"", "a:b", "a b", strings.Repeat("x", 65), "__cookie__", "é"} {
		if _, _, err := api.NewUser(name, "x"); err == nil {
			t.Errorf("user %q", name)
		}
	}
	if _, _, err := api.NewUser("a", strings.Repeat("x", 1025)); err == nil {
		t.Error("a password that is never looked at")
	}
}

// Whoever guesses is slowed down, and shut out where it comes from; the operator's cookie is never, nor are others.
func TestGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		home := t.TempDir()
		s, err := api.New(api.Options{Listen: "127.0.0.1:0", Home: home, RPC: fakeRPC, Users: users(t, nil, nil, "user")})
		if err != nil {
			t.Fatal(err)
		}
		s.SetNode(newFakeNode(1))
		ask := func(remote, name, password string) (code int, took time.Duration) {
			start := time.Now()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1/", nil)
			r.RemoteAddr = remote
			r.SetBasicAuth(name, password)
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
			return w.Code, time.Since(start)
		}
		for _, remote := range []string{"127.0.0.1:1", "203.0.113.9:1", "[2001:db8::1]:1"} {
			shut := 0
			for i := range 40 {
				code, took := ask(remote, "user", fmt.Sprint(i))
				if took != 250*time.Millisecond {
					t.Fatalf("attempt %d took %v", i, took)
				}
				if code == http.StatusTooManyRequests {
					shut++
				} else if code != http.StatusUnauthorized {
					t.Fatalf("attempt %d: %d", i, code)
				}
			}
			if shut < 10 || shut > 20 {
				t.Errorf("%s: %d of 40 not looked at", remote, shut)
			}
			if code, _ := ask(remote, "user", "right"); code != http.StatusTooManyRequests {
				t.Errorf("%s: the right one after too many wrong ones: %d", remote, code)
			}
		}
		token := tokenOf(t, s, home)
		if code, took := ask("127.0.0.1:1", "__cookie__", strings.TrimPrefix(token, "__cookie__:")); code != http.StatusOK || took != 0 {
			t.Errorf("the operator, meanwhile: %d after %v", code, took)
		}
		if code, took := ask("203.0.113.10:1", "user", "right"); code != http.StatusOK || took != 0 {
			t.Errorf("another address, meanwhile: %d after %v", code, took)
		}
		if code, _ := ask("[2001:db8::2]:1", "user", "right"); code != http.StatusTooManyRequests {
			t.Errorf("the same network of IPv6: %d", code)
		}
		time.Sleep(4 * time.Second) // in the bubble
		if code, _ := ask("203.0.113.9:1", "user", "right"); code != http.StatusOK {
			t.Errorf("after a while: %d", code)
		}
		// However many addresses guess, what is kept of them is bounded; see maxTriesKept.
		for i := range 3000 {
			ask(fmt.Sprintf("10.1.%d.%d:1", i/256, i%256), "user", "wrong")
		}
		if code, _ := ask("198.51.100.1:1", "user", "right"); code != http.StatusOK {
			t.Errorf("after many: %d", code)
		}
	})
}

// tokenOf listens for a moment, which writes the cookie.
func tokenOf(t *testing.T, s *api.Server, home string) string {
	t.Helper()
	if _, err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	token, err := api.ReadToken(home)
	if err != nil || token == "" {
		t.Fatalf("%q, %v", token, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return token
}

// A cookie that others can read is no secret: the command line says so and does not send it.
func TestCookieThatOthersRead(t *testing.T) {
	r := serve(t, newFakeNode(1), nil)
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o620: false, 0o601: false} {
		if err := os.Chmod(filepath.Join(r.home, api.CookieFile), mode); err != nil {
			t.Fatal(err)
		}
		token, err := api.ReadToken(r.home)
		if ok != (err == nil) || ok != (token != "") || !ok && !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// A body's form: what Core's and btcd's clients send passes, and what a page of a foreign site could send does not.
func TestContentTypes(t *testing.T) {
	closed := serve(t, newFakeNode(1), func(o *api.Options) { o.RPC = fakeRPC })
	open := serve(t, newFakeNode(1), func(o *api.Options) { o.RPC, o.Open = fakeRPC, true })
	for _, row := range []struct {
		r       *running
		path    string
		headers []string
		want    int
	}{
		{closed, "/", []string{"Content-Type: application/json"}, 200},
		{closed, "/", []string{"Content-Type: text/plain"}, 200},
		{closed, "/", []string{"Content-Type: text/plain;"}, 200},
		{closed, "/", []string{"Content-Type: "}, 200},
		{closed, "/", []string{"Content-Type: application/x-www-form-urlencoded"}, 415},
		{closed, "/", []string{"Content-Type: multipart/form-data; boundary=x"}, 415},
		{closed, "/", []string{"Content-Type: text/plain", "Content-Encoding: gzip"}, 415},
		{closed, "/", []string{"Content-Encoding: gzip"}, 415},
		{closed, "/", []string{"Content-Encoding: identity"}, 200},
		{closed, "/mineBlock", []string{"Content-Type: text/plain"}, 415},
		{closed, "/mineBlock", []string{"Content-Encoding: deflate"}, 415},
		{open, "/", []string{"Authorization: ", "Content-Type: application/json"}, 200},
		{open, "/", []string{"Authorization: ", "Content-Type: text/plain"}, 415},
		{open, "/", []string{"Authorization: ", "Content-Type: "}, 415},
		{open, "/", []string{"Content-Type: text/plain"}, 200},
		{open, "/", []string{"Authorization: Bearer x", "Content-Type: text/plain"}, 415},
	} {
		if got := row.r.do("POST", row.path, `{"data":"x"}`, row.headers...); got.status != row.want {
			t.Errorf("%s %v: %d %s, want %d", row.path, row.headers, got.status, got.body, row.want)
		}
	}
}

func TestPprof(t *testing.T) {
	off := serve(t, newFakeNode(1), nil)
	on := serve(t, newFakeNode(1), func(o *api.Options) { o.Pprof, o.AuthDelay = true, time.Nanosecond })
	token := "Authorization: Bearer " + on.token
	for _, row := range []struct {
		r    *running
		path string
		auth string
		want int
		body string
	}{
		{off, "/debug/pprof/", "", 401, "token missing"},
		{off, "/debug/pprof/", "Authorization: Bearer " + off.token, 404, "no such route"},
		{off, "/debug/vars", "Authorization: Bearer " + off.token, 404, "no such route"},
		{on, "/debug/pprof/", "", 401, "token missing"},
		{on, "/debug/pprof/", token, 200, "goroutine"},
		{on, "/debug/pprof/goroutine?debug=1", token, 200, "goroutine profile:"},
		{on, "/debug/pprof/heap", token, 200, "\x1f\x8b"},
		{on, "/debug/pprof/nothing", token, 404, "no profile"},
		{on, "/debug/pprof/cmdline", token, 404, "no profile"},
		{on, "/debug/pprof/heap?debug=9", token, 400, "debug"},
		{on, "/debug/pprof/profile?seconds=61", token, 400, "from 1 to 60"},
		{on, "/debug/pprof/trace?seconds=11", token, 400, "from 1 to 10"},
		{on, "/debug/pprof/trace?seconds=0", token, 400, "from 1 to 10"},
		{on, "/debug/pprof/trace?seconds=1", token, 200, "go 1."},
	} {
		var headers []string
		if row.auth != "" {
			headers = []string{row.auth}
		}
		if got := row.r.do("GET", row.path, "", headers...); got.status != row.want || !strings.Contains(got.body, row.body) {
			t.Errorf("%s: %d %.100s, want %d with %q", row.path, got.status, got.body, row.want, row.body)
		}
	}
	// One at a time; the first ends with its caller.
	ctx, cancel := context.WithCancel(t.Context())
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+on.addr+"/debug/pprof/profile?seconds=60", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+on.token)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil { // the other one may have been first
			if w, err := http.DefaultClient.Do(q); err == nil {
				w.Body.Close()
			}
		}
	}()
	until(t, "a second profile is refused", func() bool {
		return on.do("GET", "/debug/pprof/trace?seconds=1", "", token).status == 409
	})
	cancel()
	<-ended
	until(t, "the profile ends with its caller", func() bool {
		return on.do("GET", "/debug/pprof/trace?seconds=1", "", token).status == 200
	})
}

// TestProfileOutlastsTheReadTimeout: that is for requests to arrive, and a profile takes as long as it was asked to.
func TestProfileOutlastsTheReadTimeout(t *testing.T) {
	t.Parallel()
	r := serve(t, newFakeNode(1), func(o *api.Options) { o.Pprof, o.ReadTimeout = true, 2*time.Second }) // the machine may have other work
	// TestPprof's may be under way.
	until(t, "a profile is taken", func() bool {
		began := time.Now()
		a := r.do("GET", "/debug/pprof/trace?seconds=3", "", "Authorization: Bearer "+r.token)
		if took := time.Since(began); a.status == 200 && took < 3*time.Second {
			t.Errorf("3 s of a trace took %v", took)
		}
		return a.status == 200
	})
}

// until polls a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		<-tick.C
	}
}
