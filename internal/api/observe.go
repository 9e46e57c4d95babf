package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of the second, narrow listener of Options.Observe.
const (
	maxObserveConns  = 64 // a quarter of them to one remote address
	observeTimeout   = 10 * time.Second
	maxObserveHeader = 8 << 10
)

// observed is what Options.Observe serves: whether the node lives and is ready, and its metrics. It changes nothing, has no
// credentials to guess, tells nothing private, and no page can read it (no CORS header is ever set), so it may be reached from a network
// on which the interface itself has no business, by a kubelet or a Prometheus.
func (s *Server) observed() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.getLive)
	mux.HandleFunc("GET /readyz", s.getReady)
	if s.o.Metrics != nil {
		mux.Handle("GET /metrics", s.o.Metrics)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if g := observerGate(r.Context()); g != nil {
			g.enters(anonymous)
			defer g.enters(waiting)
		}
		mux.ServeHTTP(w, r)
	})
}

func observerGate(ctx context.Context) *gated {
	if c, ok := ctx.Value(connKey{}).(net.Conn); ok {
		return gateOf(c)
	}
	return nil
}

// observer is the server of Options.Observe; nil if there is none.
func (s *Server) observer(ctx context.Context) *http.Server {
	if s.watched == nil {
		return nil
	}
	return &http.Server{
		Handler:           s.observed(),
		ReadHeaderTimeout: observeTimeout, ReadTimeout: observeTimeout, WriteTimeout: 3 * observeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxObserveHeader,
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ConnContext:    func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// listenToObservers opens the port of Options.Observe, if there is one.
func (s *Server) listenToObservers(ctx context.Context) error {
	if s.o.Observe == "" {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.o.Observe)
	if err != nil {
		return fmt.Errorf("api: listen for probes and metrics (rpc.observe_listen): %w", err)
	}
	s.watched = newGate(l, maxObserveConns)
	return nil
}

// Observed is the address of Options.Observe with the port that the system chose; nil if there is none, and before Listen.
func (s *Server) Observed() net.Addr {
	if s.watched == nil {
		return nil
	}
	return s.watched.Addr()
}

// closeObserved releases the port of Options.Observe.
func (s *Server) closeObserved() error {
	if s.watched == nil {
		return nil
	}
	if err := s.watched.Close(); !errors.Is(err, net.ErrClosed) { // http.Server closes it when it stops
		return err
	}
	return nil
}
