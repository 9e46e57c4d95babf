package jsonrpc_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"dunlin/internal/api"
	"dunlin/internal/jsonrpc"
)

func post(t testing.TB, h http.Handler, body string) (status int, answer string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body)))
	return w.Code, strings.TrimSuffix(w.Body.String(), "\n")
}

// TestRequests: answers and HTTP statuses are those of Bitcoin Core 28 (src/rpc/request.cpp, src/httprpc.cpp; its
// test/functional/interface_rpc.py asks most of these).
func TestRequests(t *testing.T) {
	const (
		parseError = `{"result":null,"error":{"code":-32700,"message":"Parse error"},"id":null}`
		topLevel   = `{"result":null,"error":{"code":-32700,"message":"Top-level object parse error"},"id":null}`
		noMethod   = `{"code":-32600,"message":"Missing method"}`
		badParams  = `{"code":-32600,"message":"Params must be an array or object"}`
		unknown    = `{"code":-32601,"message":"Method not found"}`
		notThere   = `{"code":-5,"message":"not there"}`
	)
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, row := range []struct {
		name, body string
		status     int
		answer     string
	}{
		// What is no request.
		{"empty", ``, 500, parseError},
		{"white space", " \n", 500, parseError},
		{"no JSON", `this is bad`, 500, parseError},
		{"cut off", `{"method":"echo"`, 500, parseError},
		{"more after it", `{"method":"echo"} x`, 500, parseError},
		{"null", `null`, 500, topLevel},
		{"number", `1`, 500, topLevel},
		{"text", `"getblockcount"`, 500, topLevel},
		{"object", `{}`, 400, `{"result":null,"error":` + noMethod + `}`},
		{"too deep", `{"method":"echo","params":` + deep(jsonrpc.MaxDepth) + `}`, 500, parseError},
		{"just deep enough", `{"method":"echo","params":` + deep(jsonrpc.MaxDepth-1) + `,"id":1}`, 200, `{"result":` + deep(jsonrpc.MaxDepth-2) + `,"error":null,"id":1}`},
		{"depth in a text", `{"method":"echo","params":["` + strings.Repeat("[", 600) + `\""],"id":1}`, 200, `{"result":"` + strings.Repeat("[", 600) + `\"","error":null,"id":1}`},

		// 1.0 and 1.1.
		{"1.1", `{"method":"getblockcount","id":1}`, 200, `{"result":7,"error":null,"id":1}`},
		{"1.0", `{"jsonrpc":"1.0","method":"getblockcount","id":"curltest","params":[]}`, 200, `{"result":7,"error":null,"id":"curltest"}`},
		{"null version", `{"jsonrpc":null,"method":"getblockcount","id":1}`, 200, `{"result":7,"error":null,"id":1}`},
		{"id null", `{"method":"getblockcount","id":null}`, 200, `{"result":7,"error":null,"id":null}`},
		{"id of any kind", `{"method":"getblockcount","id":{"a":[1]}}`, 200, `{"result":7,"error":null,"id":{"a":[1]}}`},
		{"no id", `{"method":"getblockcount"}`, 200, `{"result":7,"error":null}`},
		{"unknown method", `{"method":"nothing","id":1}`, 404, `{"result":null,"error":` + unknown + `,"id":1}`},
		{"failing method", `{"method":"missing","id":1}`, 500, `{"result":null,"error":` + notThere + `,"id":1}`},
		{"method null", `{"method":null,"id":1}`, 400, `{"result":null,"error":` + noMethod + `,"id":1}`},
		{"method no text", `{"method":5,"id":1}`, 400, `{"result":null,"error":{"code":-32600,"message":"Method must be a string"},"id":1}`},
		{"keys have one case", `{"Method":"echo","id":1}`, 400, `{"result":null,"error":` + noMethod + `,"id":1}`},
		{"params text", `{"method":"echo","params":"x","id":1}`, 400, `{"result":null,"error":` + badParams + `,"id":1}`},
		{"params number", `{"method":"echo","params":0,"id":1}`, 400, `{"result":null,"error":` + badParams + `,"id":1}`},
		{"params null", `{"method":"echo","params":null,"id":1}`, 200, `{"result":null,"error":null,"id":1}`},
		{"by name", `{"method":"echo","params":{"first":[2]},"id":1}`, 200, `{"result":[2],"error":null,"id":1}`},
		{"too many", `{"method":"echo","params":[1,2,3],"id":1}`, 500, `{"result":null,"error":{"code":-1,"message":"echo takes ( first ) ( second ), not 3 arguments"},"id":1}`},
		{"no such name", `{"method":"echo","params":{"third":1},"id":1}`, 500, `{"result":null,"error":{"code":-8,"message":"Unknown named parameter third"},"id":1}`},

		// 2.0.
		{"2.0", `{"jsonrpc":"2.0","method":"getblockcount","id":1}`, 200, `{"jsonrpc":"2.0","result":7,"id":1}`},
		{"2.0 id null is no notification", `{"jsonrpc":"2.0","method":"getblockcount","id":null}`, 200, `{"jsonrpc":"2.0","result":7,"id":null}`},
		{"2.0 unknown method", `{"jsonrpc":"2.0","method":"nothing","id":1}`, 200, `{"jsonrpc":"2.0","error":` + unknown + `,"id":1}`},
		{"2.0 failing method", `{"jsonrpc":"2.0","method":"missing","id":1}`, 200, `{"jsonrpc":"2.0","error":` + notThere + `,"id":1}`},
		{"2.0 notification", `{"jsonrpc":"2.0","method":"getblockcount"}`, 204, ``},
		{"2.0 notification that fails", `{"jsonrpc":"2.0","method":"nothing"}`, 204, ``},
		{"2.0 without method", `{"jsonrpc":"2.0","id":1}`, 400, `{"jsonrpc":"2.0","error":` + noMethod + `,"id":1}`},
		{"version number", `{"jsonrpc":2,"method":"getblockcount"}`, 400, `{"result":null,"error":{"code":-32600,"message":"jsonrpc field must be a string"}}`},
		{"version 3.0", `{"jsonrpc":"3.0","method":"getblockcount"}`, 400, `{"result":null,"error":{"code":-32600,"message":"JSON-RPC version not supported"}}`},

		// Batches.
		{"empty batch", `[]`, 200, `[]`},
		{
			"batch", `[{"method":"getblockcount","id":1},{"method":"nothing","id":2},{"method":"missing","id":3},{"pizza":"sausage"}]`, 200,
			`[{"result":7,"error":null,"id":1},{"result":null,"error":` + unknown + `,"id":2},{"result":null,"error":` + notThere + `,"id":3},{"result":null,"error":` + noMethod + `}]`,
		},
		{
			"batch of what is no request", `[1,null,"x",[]]`, 200,
			`[` + strings.TrimSuffix(strings.Repeat(`{"result":null,"error":{"code":-32600,"message":"Invalid Request object"},"id":null},`, 4), ",") + `]`,
		},
		{"batch of both versions", `[{"jsonrpc":"2.0","method":"getblockcount","id":1},{"method":"getblockcount","id":2}]`, 200, `[{"jsonrpc":"2.0","result":7,"id":1},{"result":7,"error":null,"id":2}]`},
		{"batch with notifications", `[{"jsonrpc":"2.0","method":"stop"},{"jsonrpc":"2.0","method":"getblockcount","id":1}]`, 200, `[{"jsonrpc":"2.0","result":7,"id":1}]`},
		{"batch of notifications", `[{"jsonrpc":"2.0","method":"stop"},{"jsonrpc":"2.0","method":"nothing"}]`, 204, ``},
		{"batch, cut off", `[{"method":"getblockcount","id":1}`, 500, parseError},
		{"batch, version 3.0", `[{"jsonrpc":"3.0","method":"getblockcount","id":1}]`, 200, `[{"result":null,"error":{"code":-32600,"message":"JSON-RPC version not supported"},"id":1}]`},

		// Our own limits.
		{"too many calls", `[` + strings.Repeat("{},", jsonrpc.MaxBatch) + `{}]`, 400, `{"result":null,"error":{"code":-32600,"message":"10001 calls in a batch, at most 10000"},"id":null}`},
		{"too many values", `{"method":"echo","params":[` + strings.Repeat("1,", jsonrpc.MaxValues) + `1]}`, 400, `{"result":null,"error":{"code":-32600,"message":"more than 1000000 values in a request"},"id":null}`},
		{"too many keys", `{` + strings.Repeat(`"a":1,`, jsonrpc.MaxKeys) + `"method":"echo"}`, 400, `{"result":null,"error":{"code":-32600,"message":"more than 64 keys in a request object"},"id":null}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			status, answer := post(t, jsonrpc.Bare(), row.body)
			if status != row.status || answer != row.answer {
				t.Errorf("%.200s\ngot  %d %.300s\nwant %d %.300s", row.body, status, answer, row.status, row.answer)
			}
		})
	}
	status, answer := post(t, jsonrpc.Bare(), `[`+strings.Repeat(`{"method":"getblockcount","id":1},`, jsonrpc.MaxBatch-1)+`{}]`)
	if status != 200 || strings.Count(answer, `"result":7`) != jsonrpc.MaxBatch-1 {
		t.Errorf("the largest batch: %d %.100s", status, answer)
	}
}

// TestForbiddenCalls: whoever may not make a call gets 403 and no word, for a batch with such a call too, none of which
// is done: as in Core.
func TestForbiddenCalls(t *testing.T) {
	entry, _, err := api.NewUser("u", "p")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		whitelist, readOnly []string
		body                string
		status              int
		answer              string
	}{
		{nil, nil, `{"method":"stop","id":1}`, 200, `{"result":"stopping","error":null,"id":1}`},
		{nil, []string{"u"}, `{"method":"stop","id":1}`, 403, ""},
		{nil, []string{"u"}, `{"method":"getblockcount","id":1}`, 200, `{"result":7,"error":null,"id":1}`},
		{nil, []string{"u"}, `{"method":"echo","id":1}`, 403, ""}, // nobody has said that it only reads
		{[]string{"u:stop"}, nil, `{"method":"stop","id":1}`, 200, `{"result":"stopping","error":null,"id":1}`},
		{[]string{"u:stop"}, nil, `{"method":"getblockcount","id":1}`, 403, ""},
		{[]string{"u:stop"}, nil, `{"method":"nothing","id":1}`, 403, ""},
		{[]string{"u:stop"}, nil, `{"method":"getblockcount","method":"stop","id":1}`, 200, `{"result":"stopping","error":null,"id":1}`}, // what is checked is what is called
		{[]string{"u:stop"}, nil, `{"METHOD":"getblockcount","method":"stop","id":1}`, 200, `{"result":"stopping","error":null,"id":1}`},
		{[]string{"u:stop"}, nil, `[{"method":"stop","id":1},{"method":"getblockcount","id":2}]`, 403, ""},
		{[]string{"u:stop"}, nil, `[{"method":"stop","id":1}]`, 200, `[{"result":"stopping","error":null,"id":1}]`},
	} {
		users, err := api.ParseUsers([]string{entry}, row.whitelist, row.readOnly)
		if err != nil {
			t.Fatal(err)
		}
		ctx := api.WithCaller(t.Context(), users[0].Caller())
		w := httptest.NewRecorder()
		jsonrpc.Bare().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(row.body)))
		if got := strings.TrimSuffix(w.Body.String(), "\n"); w.Code != row.status || got != row.answer {
			t.Errorf("%v %v %s: %d %s, want %d %s", row.whitelist, row.readOnly, row.body, w.Code, got, row.status, row.answer)
		}
	}
}

// TestReadingCalls: what read-only users may call exists, and nothing of it changes anything.
func TestReadingCalls(t *testing.T) {
	names := jsonrpc.CallNames()
	for name := range jsonrpc.ReadingCalls {
		if !slices.Contains(names, name) {
			t.Errorf("no call %s", name)
		}
	}
	for _, name := range []string{
		"stop", "sendrawtransaction", "submitblock", "submitheader", "generatetoaddress", "generatetodescriptor", "addnode", "disconnectnode",
		"setban", "clearbanned", "invalidateblock", "reconsiderblock",
		"getnewaddress", "getbalance", "listunspent", "sendtoaddress", // private or worse, if they are there
	} {
		if jsonrpc.ReadingCalls[name] {
			t.Errorf("%s changes something, or tells what is private", name)
		}
	}
}

// FuzzRequest: whatever comes, the answer is JSON of the right form, and a valid request of one call gets one answer
// with its id.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"method":"getblockcount","id":1}`, `[{"jsonrpc":"2.0","method":"echo","params":{"args":[1],"second":2},"id":"x"}]`, `null`, `[]`, `{}`, `[[]]`,
		`{"jsonrpc":"2.0","method":"stop"}`, `{"method":"echo","params":["\ud800",1e999,{"a":null}],"id":{"b":[]}}`, "\xef\xbb\xbf{}", `{"id":1,"id":2}`,
	} {
		f.Add([]byte(seed))
	}
	h := jsonrpc.Bare()
	f.Fuzz(func(t *testing.T, body []byte) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body)))
		answer := bytes.TrimSpace(w.Body.Bytes())
		switch w.Code {
		case http.StatusNoContent:
			if len(answer) > 0 {
				t.Fatalf("%q: 204 with %q", body, answer)
			}
			return
		case http.StatusOK, http.StatusBadRequest, http.StatusNotFound, http.StatusInternalServerError:
		default:
			t.Fatalf("%q: %d", body, w.Code)
		}
		if !json.Valid(answer) {
			t.Fatalf("%q: %q", body, answer)
		}
		if answer[0] == '[' {
			if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("[")) || w.Code != http.StatusOK {
				t.Fatalf("%q: %d %q", body, w.Code, answer)
			}
			return
		}
		var a struct {
			Version string
			Result  json.RawMessage
			Error   *jsonrpc.Error
			ID      json.RawMessage
		}
		if err := json.Unmarshal(answer, &a); err != nil {
			t.Fatalf("%q: %q: %v", body, answer, err)
		}
		if (w.Code == http.StatusOK) == (a.Error != nil) && !bytes.Contains(answer, []byte(`"jsonrpc":"2.0"`)) {
			t.Fatalf("%q: %d %q", body, w.Code, answer)
		}
	})
}
