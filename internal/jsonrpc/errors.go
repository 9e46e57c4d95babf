package jsonrpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"dunlin/chain"
	"dunlin/chain/consensus"
	"dunlin/internal/api"
)

// Error codes, those of Bitcoin Core (src/rpc/protocol.h).
const (
	codeInvalidRequest    = -32600
	codeMethodNotFound    = -32601
	codeInternal          = -32603
	codeParse             = -32700
	codeMisc              = -1
	codeType              = -3
	codeWallet            = -4
	codeInvalidAddress    = -5 // and: no such block or transaction
	codeInvalidParameter  = -8
	codeNotConnected      = -9
	codeDatabase          = -20
	codeDeserialization   = -22
	codeNodeAlreadyAdded  = -23
	codeNodeNotAdded      = -24
	codeVerify            = -25
	codeVerifyRejected    = -26
	codeAlreadyInChain    = -27
	codeInWarmup          = -28
	codeNodeNotConnected  = -29
	codeInvalidIPOrSubnet = -30
)

// An Error is what a caller is told.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Message) }

func fault(code int, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func parseFault(err error) *Error { return fault(codeParse, "Parse error: %v", err) }

// explain turns an error into what the caller may know of it. Our own trouble is
// logged.
func (h *Handler) explain(method string, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		switch e.Status {
		case http.StatusNotFound:
			return fault(codeInvalidAddress, "%s", e.Reason)
		case http.StatusServiceUnavailable:
			return fault(codeInWarmup, "%s", e.Reason)
		default:
			return fault(codeMisc, "%s", e.Reason)
		}
	}
	if rule, ok := errors.AsType[*consensus.RuleError](err); ok {
		return fault(codeVerifyRejected, "%s", ruleText(rule))
	}
	switch {
	case errors.Is(err, chain.ErrBusy):
		return fault(codeInWarmup, "a deep reorganisation is under way, ask again")
	case errors.Is(err, chain.ErrPruned):
		return fault(codeMisc, "Block not available (pruned data)")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, chain.ErrClosed):
		return fault(codeMisc, "not done in time, or the node is stopping")
	}
	h.o.Logger.Error("json-rpc call", "method", method, "err", err)
	return fault(codeInternal, "Internal error; the node's log has it")
}

// ruleText is a broken rule as Core shows it: its name, then the detail.
func ruleText(r *consensus.RuleError) string {
	if r.Detail == "" {
		return r.Rule
	}
	return r.Rule + ", " + r.Detail
}
