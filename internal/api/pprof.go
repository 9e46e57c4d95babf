package api

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strings"
	"time"
)

// Limits of profiles that take time.
const (
	maxProfile     = 60 * time.Second
	maxTrace       = 10 * time.Second // a trace grows by megabytes a second
	defaultProfile = 10 * time.Second
	defaultTrace   = time.Second
)

// routesPprof registers what `go tool pprof` and `go tool trace` read. The guard wants the whole token for all of
// /debug. One profile over time is taken at once: others get 409.
func (s *Server) routesPprof(mux *router) {
	const prefix = "/debug/pprof/"
	mux.HandleFunc("GET "+prefix+"{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		names := []string{"profile?seconds=10", "trace?seconds=1"}
		for _, p := range pprof.Profiles() {
			names = append(names, p.Name())
		}
		slices.Sort(names)
		fmt.Fprintln(w, strings.Join(names, "\n"))
	})
	mux.HandleFunc("GET "+prefix+"{name}", func(w http.ResponseWriter, r *http.Request) {
		p := pprof.Lookup(r.PathValue("name"))
		if p == nil {
			fail(w, r, http.StatusNotFound, "no profile %q", clip(r.PathValue("name")))
			return
		}
		debug, err := queryInt(r.URL.Query().Get("debug"), 0, 0, 2)
		if err != nil {
			fail(w, r, http.StatusBadRequest, "debug: %v", err)
			return
		}
		kind := "application/octet-stream"
		if debug > 0 {
			kind = "text/plain; charset=utf-8"
		}
		w.Header().Set("Content-Type", kind)
		_ = p.WriteTo(w, debug) // an error is the caller having gone
	})
	mux.HandleFunc("GET "+prefix+"profile", s.over(defaultProfile, maxProfile, func(b *bytes.Buffer) (func(), error) {
		return pprof.StopCPUProfile, pprof.StartCPUProfile(b)
	}))
	mux.HandleFunc("GET "+prefix+"trace", s.over(defaultTrace, maxTrace, func(b *bytes.Buffer) (func(), error) {
		return trace.Stop, trace.Start(b)
	}))
}

// over serves what is gathered over the time that the query's seconds say.
func (s *Server) over(missing, most time.Duration, start func(*bytes.Buffer) (stop func(), err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		seconds, err := queryInt(r.URL.Query().Get("seconds"), int(missing.Seconds()), 1, int(most.Seconds()))
		if err != nil {
			fail(w, r, http.StatusBadRequest, "seconds: %v", err)
			return
		}
		if !s.profiling.TryLock() {
			fail(w, r, http.StatusConflict, "another profile is being taken")
			return
		}
		defer s.profiling.Unlock()
		var out bytes.Buffer
		stop, err := start(&out)
		if err != nil {
			fail(w, r, http.StatusConflict, "another profile is being taken")
			return
		}
		// The deadline of reading is for the request: later net/http would take it for a caller that has gone. A
		// recorder in a test has no deadline to move, and needs none.
		c := http.NewResponseController(w)
		_ = c.SetReadDeadline(time.Time{})
		_ = c.SetWriteDeadline(time.Now().Add(most + writeTimeout))
		t := time.NewTimer(time.Duration(seconds) * time.Second)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
		}
		stop()
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", `attachment; filename="profile"`)
		_, _ = w.Write(out.Bytes()) // an error is the caller having gone
	}
}
