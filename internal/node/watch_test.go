package node

import (
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are compressed for who is elsewhere and wants it, and for nobody on this machine.
func TestPlainHere(t *testing.T) {
	h := plainHere(promhttp.HandlerFor(prometheus.NewRegistry(), promhttp.HandlerOpts{}))
	for from, want := range map[string]string{
		"127.0.0.1:4000": "", "[::1]:4000": "", "[::ffff:127.0.0.1]:4000": "", "192.0.2.1:4000": "gzip", "[2001:db8::1]:4000": "gzip", "@": "gzip",
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
		r.RemoteAddr = from
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Result().Header.Get("Content-Encoding"); got != want {
			t.Errorf("from %s: %q, want %q", from, got, want)
		}
	}
}
