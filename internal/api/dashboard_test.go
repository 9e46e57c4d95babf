package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"dunlin/internal/api"
	"dunlin/internal/web"
)

func TestDashboardIsServed(t *testing.T) {
	for _, node := range []api.Node{nil, newFakeNode(1)} { // it is there before the node is, to show how it starts
		s, err := api.New(api.Options{Listen: "127.0.0.1:0", Home: t.TempDir(), Remote: true})
		if err != nil {
			t.Fatal(err)
		}
		if node != nil {
			s.SetNode(node)
		}
		for _, remote := range []string{"127.0.0.1:1", "203.0.113.9:1"} { // the files tell nothing
			for target, want := range map[string]string{"/": "<!doctype html>", "/ui/app.js": "import", "/ui/index.html": "<!doctype html>"} {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
				r.Host, r.RemoteAddr = "127.0.0.1", remote
				w := httptest.NewRecorder()
				s.Handler().ServeHTTP(w, r)
				if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) || w.Header().Get("Content-Security-Policy") != web.Policy {
					t.Errorf("%s from %s: %d %s", target, remote, w.Code, w.Header())
				}
				if got := w.Header().Get("Cache-Control"); got != "no-cache" {
					t.Errorf("%s: Cache-Control %q, want what lets the browser keep it", target, got)
				}
			}
		}
	}
	r := serve(t, newFakeNode(1), nil)
	if got := r.do("GET", "/ui/nothing.js", ""); got.status != 404 {
		t.Errorf("missing file: %d", got.status)
	}
	r.want(r.do("POST", "/ui/app.js", "{}"), 405, `{"status":false,"message":"/ui/app.js takes GET"}`)
	// Another name that leads here is refused the page too.
	if got := r.do("GET", "/", "", "Host: evil.example"); got.status != 403 {
		t.Errorf("foreign host: %d", got.status)
	}
}

func TestWhatAPageMayDo(t *testing.T) {
	home := t.TempDir()
	s, err := api.New(api.Options{Listen: "0.0.0.0:0", Remote: true, Home: home})
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
	const local, far = "127.0.0.1:1", "203.0.113.9:1"
	for _, row := range []struct{ remote, token, want string }{
		{local, "", `{"open":false,"authorised":false,"reads":true}`},
		{local, "Bearer wrong", `{"open":false,"authorised":false,"reads":true}`},
		{local, "Bearer " + token, `{"open":false,"authorised":true,"reads":true}`},
		{far, "", `{"open":false,"authorised":false,"reads":false}`},
		{far, "Bearer wrong", `{"open":false,"authorised":false,"reads":false}`},
		{far, "Bearer " + token, `{"open":false,"authorised":true,"reads":false}`},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/access", nil)
		r.Host, r.RemoteAddr = "127.0.0.1", row.remote
		if row.token != "" {
			r.Header.Set("Authorization", row.token)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != row.want {
			t.Errorf("from %s with %.8q…: %d %s, want %s", row.remote, row.token, w.Code, w.Body, row.want)
		}
	}

	open := serve(t, newFakeNode(1), func(o *api.Options) { o.Open = true })
	open.want(open.do("GET", "/api/v1/access", ""), 200, `{"open":true,"authorised":false,"reads":true}`)
}

func TestJoinAndDisconnect(t *testing.T) {
	r := serve(t, newFakeNode(1), nil)
	r.want(r.do("GET", "/api/v1/join", ""), 200, `{"command":"dunlin start --bootstrap `+peerAddr+`","addrs":[]}`)
	if got := r.do("POST", "/api/v1/peers/disconnect", `{"id":"12D3"}`); got.status != 204 {
		t.Errorf("disconnect: %d %s", got.status, got.body)
	}
	if got := r.do("POST", "/api/v1/peers/disconnect", `{"id":"absent"}`); got.status != 404 {
		t.Errorf("disconnect of nobody: %d %s", got.status, got.body)
	}
	if got := r.do("POST", "/api/v1/peers/disconnect", `{}`); got.status != 422 {
		t.Errorf("disconnect without an id: %d %s", got.status, got.body)
	}
}
