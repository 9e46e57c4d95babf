package jsonrpc

import (
	"bytes"
	"encoding/json"
)

// Limits of a request's form, checked before anything is decoded.
const (
	// maxDepth is how deep arrays and objects may nest: Core's MAX_JSON_DEPTH.
	maxDepth = 512
	// maxValues bounds the values of a request, of all calls of a batch together: each costs memory far beyond its
	// two bytes. Core has no limit.
	maxValues = 1_000_000
	// maxKeys bounds the keys of a request object beside the four that mean something.
	maxKeys = 64
)

// A request is one call as it came.
type request struct {
	id     json.RawMessage // nil: there is none
	modern bool            // JSON-RPC 2.0, not Core's older mixture of 1.0 and 1.1
	method string
	params json.RawMessage // array or object; nil: none
}

// notification says that no answer is wanted.
func (r *request) notification() bool { return r.modern && r.id == nil }

// A shape is what can be told of a JSON text without decoding it. It means something only if the text is valid.
type shape struct {
	depth  int // of nesting
	values int // at most; at the top and below
	top    int // items or keys of the top value, at most
}

// shapeOf reads a text once, without allocation.
func shapeOf(text []byte) (s shape) {
	depth := 0
	quoted := false
	s.values, s.top = 1, 1
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
			s.values++
			s.depth = max(s.depth, depth)
		case c == ']' || c == '}':
			depth--
		case c == ',':
			s.values++
			if depth == 1 {
				s.top++
			}
		}
	}
	return s
}

var errParse = fault(codeParse, "Parse error")

// read checks a body's form and says whether it is a batch. The faults are those that Core answers with.
func read(body []byte) (batch bool, e *Error) {
	s := shapeOf(body)
	switch {
	case s.depth > maxDepth || !json.Valid(body):
		return false, errParse
	case s.values > maxValues:
		return false, fault(codeInvalidRequest, "more than %d values in a request", maxValues)
	case body[0] == '[' && s.top > maxBatch:
		return false, fault(codeInvalidRequest, "%d calls in a batch, at most %d", s.top, maxBatch)
	case body[0] == '[':
		return true, nil
	case body[0] != '{':
		return false, fault(codeParse, "Top-level object parse error")
	}
	return false, nil
}

// parse takes one call apart, in Core's order: with a fault what was read before it is there, so that the answer has
// the form and the id that the caller expects. raw is valid JSON.
func parse(raw json.RawMessage) (r *request, e *Error) {
	r = new(request)
	raw = bytes.TrimSpace(raw)
	if raw[0] != '{' {
		r.id = null
		return r, fault(codeInvalidRequest, "Invalid Request object")
	}
	if shapeOf(raw).top > maxKeys {
		r.id = null
		return r, fault(codeInvalidRequest, "more than %d keys in a request object", maxKeys)
	}
	var object map[string]json.RawMessage // a struct would take keys in any case
	if err := json.Unmarshal(raw, &object); err != nil {
		r.id = null
		return r, errParse
	}
	r.id = object["id"]
	if v := object["jsonrpc"]; !isNull(v) {
		var version string
		if json.Unmarshal(v, &version) != nil {
			return r, fault(codeInvalidRequest, "jsonrpc field must be a string")
		}
		switch version {
		case "1.0": // never a standard, and in old documentation
		case "2.0":
			r.modern = true
		default:
			return r, fault(codeInvalidRequest, "JSON-RPC version not supported")
		}
	}
	switch v := object["method"]; {
	case isNull(v):
		return r, fault(codeInvalidRequest, "Missing method")
	case json.Unmarshal(v, &r.method) != nil:
		return r, fault(codeInvalidRequest, "Method must be a string")
	}
	switch v := object["params"]; {
	case isNull(v):
	case v[0] != '[' && v[0] != '{':
		return r, fault(codeInvalidRequest, "Params must be an array or object")
	default:
		r.params = v
	}
	return r, nil
}

var null = json.RawMessage("null")

// isNull says that a value is missing or null.
func isNull(v json.RawMessage) bool { return v == nil || bytes.Equal(v, null) }
