package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dunlin/internal/api"
)

// openapi is what of the OpenAPI document the tests look at.
type openapi struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Summary     string
		Parameters  []struct {
			Name, In string
			Required bool
			Example  any
			Schema   struct{ Examples []any }
		}
		Responses map[string]json.RawMessage
	}
}

// TestE2EReadExamples: every route that reads has in the OpenAPI document what it takes to call it, and answers that
// call as the document says; what it refuses is a problem.
func TestE2EReadExamples(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "documented", "--network", "regtest", "--address-index")
	d.mine(3)
	eventually(t, patience, "the index is at the tip", func() error {
		for _, x := range asks[api.IndexesAnswer](t, d, "/indexes", http.StatusOK).Indexes {
			if x.Enabled && !x.Synced {
				return fmt.Errorf("%+v", x)
			}
		}
		return nil
	})
	token, err := os.ReadFile(filepath.Join(d.home, "api.cookie"))
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) (status int, kind string, raw []byte) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.info.RPCAddr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		w, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Body.Close()
		raw, err = io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.StatusCode, w.Header.Get("Content-Type"), raw
	}
	_, _, raw := get("/api/v1/openapi.json")
	var doc openapi
	if err := json.Unmarshal(raw, &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1.") || len(doc.Paths) < 30 {
		t.Fatalf("%v, version %s, %d paths", err, doc.OpenAPI, len(doc.Paths))
	}
	ids := map[string]string{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			at := method + " " + path
			if op.OperationID == "" || op.Summary == "" || len(op.Responses) == 0 || ids[op.OperationID] != "" {
				t.Errorf("%s: operation %q (%s), summary %q, %d responses", at, op.OperationID, ids[op.OperationID], op.Summary, len(op.Responses))
			}
			ids[op.OperationID] = at
			for _, p := range op.Parameters {
				if p.In == "path" && !strings.Contains(path, "{"+p.Name+"}") {
					t.Errorf("%s: no {%s} in the path", at, p.Name)
				}
			}
			if method != "get" || slices.Contains([]string{"events", "events-ws"}, op.OperationID) {
				continue // streams have tests of their own
			}
			target, query := path, url.Values{}
			for _, p := range op.Parameters {
				if p.Example == nil && len(p.Schema.Examples) > 0 {
					p.Example = p.Schema.Examples[0]
				}
				if p.Example == nil {
					if p.Required {
						t.Errorf("%s: no example of %s", at, p.Name)
					}
					continue
				}
				text := fmt.Sprint(p.Example)
				if p.Name == "address" { // the example is one of Bitcoin's
					text = "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn"
				}
				if p.In == "path" {
					target = strings.ReplaceAll(target, "{"+p.Name+"}", url.PathEscape(text))
				} else {
					query.Set(p.Name, text)
				}
			}
			if len(query) > 0 {
				target += "?" + query.Encode()
			}
			status, kind, answer := get(target)
			known := status == http.StatusOK || status == http.StatusNotFound && strings.Contains(path, "{txid}") ||
				strings.HasPrefix(path, "/api/v1/wallet") && status == http.StatusNotFound // there is none yet
			if !known {
				t.Errorf("%s: %s gives %d %.200s", at, target, status, answer)
			}
			if want := "application/json"; status == http.StatusOK && kind != want || status != http.StatusOK && kind != "application/problem+json" {
				t.Errorf("%s: %d of type %s", at, status, kind)
			}
			if !json.Valid(answer) {
				t.Errorf("%s: %.200s", at, answer)
			}
		}
	}
	for path, want := range map[string]int{"/api/v1/nothing": 404, "/api/v1/stop": 405, "/api/v1/chain/blocks?count=0": 422} {
		if status, kind, _ := get(path); status != want || kind != "application/problem+json" {
			t.Errorf("%s: %d of type %s, want %d", path, status, kind, want)
		}
	}
}
