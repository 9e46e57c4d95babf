package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

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
		Responses map[string]struct{ Content map[string]json.RawMessage }
	}
	Components struct{ Schemas map[string]json.RawMessage }
}

// A contract is an OpenAPI document that answers are held against.
type contract struct {
	schemas *jsonschema.Compiler
	doc     openapi
}

// newContract checks the document by the official schema of OpenAPI 3.1, and what schemas it has by that of JSON Schema
// 2020-12.
func newContract(t *testing.T, raw []byte, doc openapi) *contract {
	t.Helper()
	c := jsonschema.NewCompiler() // 2020-12 is its default, and OpenAPI 3.1's base
	official := must[[]byte](t)(os.ReadFile("testdata/openapi-3.1/schema.json"))
	for name, text := range map[string][]byte{"official.json": official, "openapi.json": raw} {
		if err := c.AddResource(name, must[any](t)(jsonschema.UnmarshalJSON(bytes.NewReader(text)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := must[*jsonschema.Schema](t)(c.Compile("official.json")).Validate(must[any](t)(jsonschema.UnmarshalJSON(bytes.NewReader(raw)))); err != nil {
		t.Errorf("the OpenAPI document: %v", err)
	}
	for name := range doc.Components.Schemas {
		if _, err := c.Compile("openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
	return &contract{c, doc}
}

// check holds an answer against what the document says of that status.
func (c *contract) check(t *testing.T, path, method string, status int, kind string, answer []byte) {
	t.Helper()
	responses := c.doc.Paths[path][method].Responses
	code := strconv.Itoa(status)
	if _, ok := responses[code]; !ok {
		code = "default"
	}
	if _, ok := responses[code].Content[kind]; !ok {
		t.Errorf("%s %s: %d of type %s is not documented", method, path, status, kind)
		return
	}
	at := "openapi.json#"
	for _, part := range []string{"paths", path, method, "responses", code, "content", kind, "schema"} {
		at += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(part))
	}
	schema, err := c.schemas.Compile(at)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
		return
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(answer))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		t.Errorf("%s %s: %d is not as documented: %v: %.300s", method, path, status, err, answer)
	}
}

// TestE2EReadExamples: every route that reads has in the OpenAPI document what it takes to call it, and answers that
// call as the document says, by its own schema; what it refuses is a problem. The document is valid OpenAPI 3.1.
func TestE2EReadExamples(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "documented", "--network", "regtest", "--address-index")
	d.mine(3)
	readExamples(t, d)
}

// readExamples holds a daemon's document and its answers against each other.
func readExamples(t *testing.T, d *daemon) {
	t.Helper()
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
	agreed := newContract(t, raw, doc)
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
				strings.HasPrefix(path, "/api/v1/wallet") && status == http.StatusNotFound || // there is none yet
				strings.HasPrefix(path, "/api/v1/staking") && status == http.StatusConflict && d.mustStatus().Slots == nil // work makes the blocks
			if !known {
				t.Errorf("%s: %s gives %d %.200s", at, target, status, answer)
			}
			if want := "application/json"; status == http.StatusOK && kind != want || status != http.StatusOK && kind != "application/problem+json" {
				t.Errorf("%s: %d of type %s", at, status, kind)
			}
			agreed.check(t, path, method, status, kind, answer)
		}
	}
	for path, want := range map[string]int{"/api/v1/nothing": 404, "/api/v1/stop": 405, "/api/v1/chain/blocks?count=0": 422} {
		if status, kind, _ := get(path); status != want || kind != "application/problem+json" {
			t.Errorf("%s: %d of type %s, want %d", path, status, kind, want)
		}
	}
}
