package main

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"strings"
	"testing"
)

// TestSchema: a bill is what CycloneDX's schema says, and the schema sees what is not.
func TestSchema(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary := read(t, program)
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string][]string{}
	for i, m := range modulesOf(info) {
		ids[m.key()] = [][]string{{"MIT"}, {"Apache-2.0", "BSD-3-Clause"}, nil}[i%3]
	}
	src := source{commit: strings.Repeat("ab", 20), version: "v1.2.3-rc.1", time: someTime}
	make1 := func(edit func(*bill)) []byte {
		b := newBill(src, binary, info, &texts{ids: ids})
		if len(b.Components) < 3 {
			t.Fatalf("%d components of this program: too few to try licences with", len(b.Components))
		}
		edit(b)
		raw, err := b.encode()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	if err := checkSchema(make1(func(*bill) {})); err != nil {
		t.Error(err)
	}
	for what, edit := range map[string]func(*bill){
		"time":         func(b *bill) { b.Metadata.Timestamp = "yesterday" },
		"serialNumber": func(b *bill) { b.Serial = "1" },
		"licenses":     func(b *bill) { b.Components[0].Licenses = []licensing{{licence{ID: "Beerware-ish"}}} },
		"hashes":       func(b *bill) { b.Metadata.Component.Hashes[0].Content = "00" },
		"type":         func(b *bill) { b.Components[1].Type = "module" },
		"dependsOn":    func(b *bill) { r := b.Components[0].Ref; b.Dependencies[0].DependsOn = []string{r, r} },
	} {
		if err := checkSchema(make1(edit)); err == nil {
			t.Errorf("a bill with a bad %s passes", what)
		}
	}
}
