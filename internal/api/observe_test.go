package api_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"dunlin/internal/api"
)

// The narrow listener tells a kubelet and a Prometheus what they want, under whatever name they come, and nobody anything else.
func TestObserve(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "dunlin_up 1\n") })
	node := newFakeNode(3)
	s := serve(t, node, func(o *api.Options) {
		o.Observe, o.Metrics, o.Pprof, o.RPC = "127.0.0.1:0", metrics, true, http.NotFoundHandler()
	})
	at := "http://" + s.server.Observed().String()
	ask := func(method, path string, change func(*http.Request)) (int, string, http.Header) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, at+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(r)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body), resp.Header
	}
	for path, want := range map[string]string{"/livez": "ok", "/readyz?verbose": "[+]synced ok", "/metrics": "dunlin_up 1"} {
		code, body, h := ask(http.MethodGet, path, func(r *http.Request) {
			r.Host = "dunlin-0.dunlin.default.svc.cluster.local"
			r.Header.Set("Origin", "https://evil.example.org")
		})
		if code != http.StatusOK || !strings.Contains(body, want) || h.Get("Access-Control-Allow-Origin") != "" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %q %v", path, code, body, h)
		}
	}
	// Not even with the token.
	for _, path := range []string{"/", "/api/v1/status", "/peers", "/blocks", "/api/v1/wallet", "/api/v1/log", "/debug/pprof/", "/ws", "/livez/../api/v1/status"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions} {
			code, body, _ := ask(method, path, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+s.token) })
			if code != http.StatusNotFound {
				t.Errorf("%s %s: %d %q", method, path, code, body)
			}
		}
	}
	if code, _, _ := ask(http.MethodPost, "/readyz", nil); code != http.StatusMethodNotAllowed {
		t.Errorf("POST /readyz: %d", code)
	}
	node.mu.Lock()
	node.state = api.StateStalled
	node.mu.Unlock()
	if code, _, _ := ask(http.MethodGet, "/readyz", nil); code != http.StatusServiceUnavailable {
		t.Errorf("a stalled node is ready: %d", code)
	}
}

func TestObservePort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s, err := api.New(api.Options{Listen: "127.0.0.1:0", Home: t.TempDir(), Observe: taken.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "rpc.observe_listen") {
		t.Errorf("error %v", err)
	}
	if _, err := api.New(api.Options{Listen: "127.0.0.1:0", Home: t.TempDir(), Observe: "9331"}); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("error %v", err)
	}
}
