package api

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"dunlin/internal/web"
)

// Bodies of the routes that the dashboard needs before anything else.
type (
	// AccessAnswer is what GET /api/v1/access gives.
	AccessAnswer struct {
		Open       bool `json:"open" doc:"This server takes changes without a token, from its own machine"`
		Authorised bool `json:"authorised" doc:"The request came with the right token"`
		Reads      bool `json:"reads" doc:"Reads are open to whoever sent the request"`
	}
	// JoinAnswer is what GET /api/v1/join gives.
	JoinAnswer struct {
		Command string   `json:"command" doc:"Starts a node elsewhere that joins this one's network; empty while no address is known"`
		Addrs   []string `json:"addrs" doc:"Full multiaddrs of this node, best first"`
	}
	// PeerIDRequest names a connected peer.
	PeerIDRequest struct {
		ID string `json:"id" minLength:"1" maxLength:"128" doc:"Peer id"`
	}
)

// accessPath answers whoever asks: how else would a page know that it must ask for the
// token? A wrong token learns here what any other route would have told it.
const accessPath = "/api/v1/access"

// isDashboard says whether a path is one of the files of the dashboard, which are the
// same for everybody and tell nothing of the node.
func isDashboard(path string) bool { return path == "/" || strings.HasPrefix(path, web.Prefix) }

// accessKey is the context key of what accessFor found: huma hides the request.
type accessKey struct{}

// accessFor says what the sender of a request may do.
func (s *Server) accessFor(r *http.Request) AccessAnswer {
	local := false
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		local = ap.Addr().Unmap().IsLoopback()
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return AccessAnswer{
		Open: local && s.o.Open, Reads: local,
		Authorised: strings.EqualFold(scheme, "Bearer") && sameToken(s.token, strings.TrimSpace(given)),
	}
}

// routesDashboard registers the pages and what only they ask for.
func (s *Server) routesDashboard(mux *router, api huma.API, read func(id, path, summary string) huma.Operation,
	write func(id, method, path, summary string, status int) huma.Operation,
) {
	pages := web.Handler()
	mux.Handle("GET /{$}", pages)
	mux.Handle("GET "+web.Prefix, pages)

	op := read("access", "/access", "What the sender may do; answers everybody")
	op.Middlewares = huma.Middlewares{func(hc huma.Context, next func(huma.Context)) {
		r, _ := humago.Unwrap(hc)
		next(huma.WithValue(hc, accessKey{}, s.accessFor(r)))
	}}
	huma.Register(api, op, func(ctx context.Context, _ *nothing) (*body[AccessAnswer], error) {
		a, _ := ctx.Value(accessKey{}).(AccessAnswer)
		return answer(a), nil
	})
	huma.Register(api, read("join", "/join", "How another machine joins this node's network"),
		func(context.Context, *nothing) (*body[JoinAnswer], error) {
			n := s.theNode()
			return answer(JoinAnswer{Command: n.JoinLine(), Addrs: orEmpty(n.Addrs())}), nil
		})
	huma.Register(api, write("peers-disconnect", http.MethodPost, "/peers/disconnect", "End the connections of a peer, which may come again", http.StatusNoContent),
		func(_ context.Context, in *body[PeerIDRequest]) (*struct{}, error) {
			if err := s.theNode().Disconnect(in.Body.ID); err != nil {
				return nil, s.problem("peers-disconnect", err)
			}
			return nil, nil //nolint:nilnil // 204
		})
}
