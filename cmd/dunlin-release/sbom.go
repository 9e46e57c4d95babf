package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// A bill is a bill of materials in CycloneDX 1.6, as much of it as is known of a Go binary: the program, what its build information says that is in
// it, hashes and licences. It is made from the binary, not from go.mod, which also lists what tests need.
type bill struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Tools     tools     `json:"tools"`
	Component component `json:"component"`
}

type tools struct {
	Components []component `json:"components"`
}

type component struct {
	Type       string      `json:"type"`
	Ref        string      `json:"bom-ref,omitempty"`
	Name       string      `json:"name"`
	Version    string      `json:"version,omitempty"`
	Hashes     []hash      `json:"hashes,omitempty"`
	Licenses   []licensing `json:"licenses,omitempty"`
	PURL       string      `json:"purl,omitempty"`
	Properties []property  `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type licensing struct {
	License licence `json:"license"`
}

type licence struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

const (
	cyclonedx = "1.6"
	schemaURL = "http://cyclonedx.org/schema/bom-" + cyclonedx + ".schema.json"
)

// newBill makes the bill of one binary. It has no chance and no clock in it: the serial number follows from the binary, the time is the commit's.
func newBill(src source, binary []byte, info *buildinfo.BuildInfo, t *texts) *bill {
	sum := sha256.Sum256(binary)
	root := component{
		Type: "application", Ref: purl("dunlin", src.version), Name: "dunlin", Version: src.version, PURL: purl("dunlin", src.version),
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}}, Licenses: []licensing{{licence{ID: "MIT"}}},
		Properties: []property{{"dunlin:commit", src.commit}, {"dunlin:go", info.GoVersion}},
	}
	for _, name := range []string{"GOOS", "GOARCH", "CGO_ENABLED"} {
		root.Properties = append(root.Properties, property{"dunlin:" + name, setting(info, name)})
	}
	b := &bill{
		Schema: schemaURL, Format: "CycloneDX", SpecVersion: cyclonedx, Serial: serial(sum), Version: 1,
		Metadata: metadata{
			Timestamp: src.time.Format(time.RFC3339), Component: root,
			Tools: tools{[]component{{Type: "application", Name: "dunlin-release", Version: src.version}}},
		},
	}
	needs := dependency{Ref: root.Ref}
	for _, m := range modulesOf(info) {
		c := component{Type: "library", Ref: purl(m.path, m.version), Name: m.path, Version: m.version, PURL: purl(m.path, m.version)}
		for _, id := range t.ids[m.key()] {
			c.Licenses = append(c.Licenses, licensing{licence{ID: id}})
		}
		if len(c.Licenses) == 0 {
			c.Licenses = []licensing{{licence{Name: "see licences/" + m.key()}}}
		}
		if m.sum != "" { // of the tree of files (golang.org/x/mod/sumdb/dirhash), so it is no hash of one file as hashes would be
			c.Properties = append(c.Properties, property{"dunlin:go.sum", m.sum})
		}
		b.Components = append(b.Components, c)
		needs.DependsOn = append(needs.DependsOn, c.Ref)
	}
	b.Dependencies = []dependency{needs}
	return b
}

// setting is what the build information has of a name.
func setting(info *buildinfo.BuildInfo, name string) string {
	for _, s := range info.Settings {
		if s.Key == name {
			return s.Value
		}
	}
	return ""
}

// purl is a package URL of a Go module. Each part of the path is escaped, and so is the version.
func purl(module, version string) string {
	parts := strings.Split(module, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return "pkg:golang/" + strings.Join(parts, "/") + "@" + url.QueryEscape(version)
}

// serial is a UUID (RFC 9562, version 8: of our own making) from a hash.
func serial(sum [sha256.Size]byte) string {
	u := sum[:16]
	u = slices.Clone(u)
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func (b *bill) encode() ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(b); err != nil {
		return nil, fmt.Errorf("bill of materials: %w", err)
	}
	return out.Bytes(), nil
}

//go:embed cyclonedx-1.6/*.schema.json
var schemaFiles embed.FS

// schema is CycloneDX's own, with the formats that it names.
var schema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for _, name := range []string{"bom-" + cyclonedx, "spdx", "jsf-0.82"} {
		text, err := schemaFiles.ReadFile(path.Join("cyclonedx-"+cyclonedx, name+".schema.json"))
		if err != nil {
			return nil, err
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", name, err)
		}
		if err := c.AddResource("http://cyclonedx.org/schema/"+name+".schema.json", doc); err != nil {
			return nil, err
		}
	}
	return c.Compile(schemaURL)
})

// checkSchema holds a bill against CycloneDX's schema.
func checkSchema(raw []byte) error {
	s, err := schema()
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

// readBill reads a bill strictly and checks what CycloneDX's schema and this program ask for.
func readBill(raw []byte) (*bill, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var b bill
	if err := d.Decode(&b); err != nil {
		return nil, fmt.Errorf("bill of materials: %w", err)
	}
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("bill of materials: "+format, args...))
		}
	}
	want(b.Format == "CycloneDX" && b.SpecVersion == cyclonedx && b.Version == 1, "it is %s %s, version %d", b.Format, b.SpecVersion, b.Version)
	want(serialPattern.MatchString(b.Serial), "serial number %q", b.Serial)
	_, err := time.Parse(time.RFC3339, b.Metadata.Timestamp)
	want(err == nil, "time %q", b.Metadata.Timestamp)
	refs := map[string]bool{}
	for _, c := range append([]component{b.Metadata.Component}, b.Components...) {
		want(c.Name != "" && c.Version != "" && c.Ref != "" && strings.HasPrefix(c.PURL, "pkg:golang/"), "component %+v is not named in full", c)
		want(c.Type == "application" || c.Type == "library", "%s is of type %q", c.Name, c.Type)
		want(len(c.Licenses) > 0, "%s has no licence", c.Name)
		for _, l := range c.Licenses {
			want((l.License.ID == "") != (l.License.Name == ""), "%s: a licence has an id or a name: %+v", c.Name, l)
		}
		want(!refs[c.Ref], "%s is there twice", c.Ref)
		refs[c.Ref] = true
	}
	want(len(b.Metadata.Component.Hashes) == 1, "the program has no hash")
	for _, dep := range b.Dependencies {
		for _, ref := range append([]string{dep.Ref}, dep.DependsOn...) {
			want(refs[ref], "dependency %s is no component", ref)
		}
	}
	if err := checkSchema(raw); err != nil {
		errs = append(errs, fmt.Errorf("bill of materials: %w", err))
	}
	return &b, errors.Join(errs...)
}
