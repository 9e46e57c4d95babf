package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unbundle reads a debug bundle.
func unbundle(t *testing.T, file string) map[string][]byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	items := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return items
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		items[strings.TrimPrefix(h.Name, "dunlin-debug/")] = data
	}
}

const (
	plantedWords = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
	plantedWIF   = "cVpF924EspNh8KjYsfhgY96mmxvT6DgdWiTYMtMjuM74hJaU5psW"
	plantedXPrv  = "tprv8ZgxMBicQKsPeDgjzdC36fs6bMjGApWDNLR9erAXMs5skhMv36j9MV5ecvfavji5khqjWaWSFhN3YcCUUdiKH6isR4Pwy3U5y5egddBr16m"
)

// plant puts secrets of every kind into a home, and returns what must be in no bundle, by name.
func plant(t *testing.T, home string) map[string][]byte {
	t.Helper()
	random := rand.New(rand.NewPCG(7, 11))
	vault := make([]byte, 200)
	for i := range vault {
		vault[i] = byte(random.Uint32())
	}
	pem := "-----BEGIN EC PRIVATE KEY-----\n" + base64.StdEncoding.EncodeToString(vault[:90]) + "\n-----END EC PRIVATE KEY-----\n"
	write := func(name, text string) {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write("wallet/vault.bin", string(vault))
	write("wallet/state.json", `{"seed_hex": "`+hex.EncodeToString(vault[100:132])+`"}`)
	write("tls/server.pem", pem)
	write("config.toml", "# my wallet: "+plantedWords+"\n# WIF "+plantedWIF+" and "+plantedXPrv+"\n# rpcpassword=hunter2-hunter2\n# proxy http://me:topsecretpass@proxy.example:3128\n"+
		"# DUNLIN_WALLET_PASSPHRASE: \"correct horse battery\"\n")
	secrets := map[string][]byte{
		"vault": vault, "vault in hex": []byte(hex.EncodeToString(vault)), "vault in base64": []byte(base64.StdEncoding.EncodeToString(vault)),
		"seed": []byte(hex.EncodeToString(vault[100:132])), "tls key": []byte(base64.StdEncoding.EncodeToString(vault[:90])), "words": []byte(plantedWords), "wif": []byte(plantedWIF),
		"xprv": []byte(plantedXPrv), "password": []byte("hunter2-hunter2"), "url": []byte("topsecretpass"), "passphrase": []byte("correct horse battery"),
	}
	log := "dunlin start --wallet-passphrase sesame-open --rpc-auth bob:pw-of-bob\nAuthorization: Bearer 0123456789abcdef01234567\nGET /ws?token=fedcba9876543210\n" + pem + plantedXPrv + "\n" +
		strings.ReplaceAll(plantedWords, " ", ", ") + "\n" + `{"passphrase":"json-pass-phrase","words":["zoo","zoo"]}` + "\n"
	for name, secret := range secrets {
		log += name + " is " + string(secret) + "\n"
	}
	secrets["flag"], secrets["rpc flag"], secrets["bearer"], secrets["query"], secrets["json"] = []byte("sesame-open"), []byte("pw-of-bob"), []byte("0123456789abcdef01234567"), []byte("fedcba9876543210"), []byte("json-pass-phrase")
	for _, name := range []string{"api.cookie", "identity.key", "mining.key"} {
		raw, err := os.ReadFile(filepath.Join(home, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // a stopped node has no cookie
		}
		if err != nil {
			t.Fatal(err)
		}
		raw = bytes.TrimSpace(raw)
		secrets[name], secrets[name+" in hex"], secrets[name+" in base64"] = raw, []byte(hex.EncodeToString(raw)), []byte(base64.StdEncoding.EncodeToString(raw))
		for _, form := range []string{name, name + " in hex", name + " in base64"} {
			log += "read " + string(secrets[form]) + "\n"
		}
		if _, password, ok := bytes.Cut(raw, []byte(":")); ok && name == "api.cookie" { // a key may have a colon by chance
			secrets[name+"'s password"] = password
			log += "password of it is " + string(password) + "\n"
		}
	}
	write("node.log", log+"the last line\n")
	return secrets
}

// wantNone searches every item of a bundle for every secret.
func wantNone(t *testing.T, items map[string][]byte, secrets map[string][]byte) {
	t.Helper()
	for name, data := range items {
		for what, secret := range secrets {
			if len(secret) < 8 {
				t.Fatalf("%s: %q is no secret", what, secret)
			}
			if i := bytes.Index(data, secret); i >= 0 {
				t.Errorf("%s has %s: %q", name, what, data[max(0, i-60):min(len(data), i+len(secret)+10)])
			}
		}
	}
}

// TestE2EDebugBundle: a bundle of a running node, of one that hangs and of one that is stopped has what a helper wants and no secret.
func TestE2EDebugBundle(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "sick", "--network", "regtest")
	d.mine(1)
	secrets := plant(t, d.home)
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	gather := func(more ...string) (map[string][]byte, []string) {
		t.Helper()
		_ = os.Remove(file) // of the time before
		out, errs, code := dunlin(t, nil, append([]string{"debug", "bundle", file, "--home", d.home, "-o", "json", "--log", filepath.Join(d.home, "node.log")}, more...)...)
		if code != 0 {
			t.Fatalf("exit %d: %s", code, errs)
		}
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 || info.Size() > 8<<20 {
			t.Errorf("%v, %v", info, err)
		}
		var v struct{ Items, Errors []string }
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatal(err)
		}
		items := unbundle(t, file)
		for _, name := range []string{"README.txt", "errors.txt", "config.json", "config.toml", "home.txt", "version.json", "log/node.log"} {
			if len(items[name]) == 0 || !slices.Contains(v.Items, name) {
				t.Errorf("no %s", name)
			}
		}
		if !bytes.HasSuffix(items["log/node.log"], []byte("the last line\n")) || !bytes.Contains(items["config.toml"], []byte("# my wallet: (left out)")) {
			t.Errorf("too much is left out:\n%s\n%s", items["config.toml"], items["log/node.log"])
		}
		wantNone(t, items, secrets)
		return items, v.Errors
	}

	items, _ := gather()
	var status struct{ Height int }
	if err := json.Unmarshal(items["api/status.json"], &status); err != nil || status.Height != 1 {
		t.Errorf("%+v, %v: %s", status, err, items["api/status.json"])
	}
	for name, want := range map[string]string{
		"api/metrics.txt": "go_goroutines", "api/peers.json": `"peers"`, "node.json": d.info.PeerID, "process.txt": "Max open files",
		"system.txt": "MemTotal", "home.txt": "wallet/vault.bin", "config.json": `"p2p.listen"`,
	} {
		if !bytes.Contains(items[name], []byte(want)) {
			t.Errorf("%s lacks %s:\n%.400s", name, want, items[name])
		}
	}

	// It hangs: stopped by a signal, its port takes connections and nobody answers.
	if err := freeze(d.cmd.Process); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "it is stopped", func() error {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
		if err == nil && !bytes.Contains(raw, []byte("State:\tT")) {
			err = errors.New(string(raw))
		}
		return err
	})
	items, faults := gather("--timeout", "300ms")
	if err := thaw(d.cmd.Process); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(faults, "\n"), "api/status.json: no answer within 300ms: the node hangs") || !bytes.Contains(items["process.txt"], []byte("State:\tT")) {
		t.Errorf("faults %q\n%.600s", faults, items["process.txt"])
	}

	d.stop()
	for what := range secrets {
		if strings.HasPrefix(what, "api.cookie") && what != "api.cookie" {
			delete(secrets, what) // the token died with the node: of its forms only the usual one is known
		}
	}
	items, faults = gather()
	if !strings.Contains(strings.Join(faults, "\n"), "no node runs in") || items["node.json"] != nil || len(items["system.txt"]) == 0 {
		t.Errorf("faults %q", faults)
	}

	// Settings that cannot be read are a reason to ask for help, and no file is replaced.
	if err := os.WriteFile(filepath.Join(d.home, "config.toml"), []byte("network = \"regtest\"\n[p2p]\nmax_outbund = 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := dunlin(t, nil, "debug", "bundle", file, "--home", d.home); code != exitUsage || !strings.Contains(errs, "exists: choose another file") {
		t.Errorf("exit %d: %s", code, errs)
	}
	_ = os.Remove(file)
	if _, errs, code := dunlin(t, nil, "debug", "bundle", file, "--home", d.home); code != 0 {
		t.Errorf("exit %d: %s", code, errs)
	}
	if items := unbundle(t, file); !bytes.Contains(items["errors.txt"], []byte("did you mean p2p.max_outbound")) {
		t.Errorf("%s", items["errors.txt"])
	}
}

// TestRedact: what looks like a secret goes, what a helper wants stays.
func TestRedact(t *testing.T) {
	t.Parallel()
	r := &redactor{}
	for in, want := range map[string]string{
		"peer 12D3KooWFTLeUYG4UaSGtADtVLVaTFfEm7Axnf1GLpQDCzhVAv9K left":                            "same",
		"tip 0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206 height 1":             "same",
		"addr bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202 and mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn": "same",
		"the node is starting, and waits for the first of its peers to say hello":                   "same",
		`{"height": 7, "peers": [], "dns_seeds": ["seed.example.org"]}`:                             "same",
		"WIF " + plantedWIF + ".":                          "WIF (left out).",
		plantedXPrv + "/0":                                 "(left out)/0",
		"1. " + plantedWords + "!":                         "1. (left out)!",
		strings.ReplaceAll(plantedWords, " ", "\n"):        "(left out)",
		`"` + strings.ReplaceAll(plantedWords, " ", `","`): `"(left out)`,
		"rpcpassword = x7 # why":                           "rpcpassword = (left out)",
		`"token": "abc def", "height": 3`:                  `"token": "(left out)", "height": 3`,
		"http://bob:pw@host/x":                             "http://(left out)@host/x",
		"Authorization: Basic Ym9iOnB3Ym9iOnB3":            "Authorization: Basic (left out)",
		"--rpc-password=abc --home x":                      "--rpc-password=(left out) --home x",
		"-----BEGIN PRIVATE KEY-----\nabc":                 "(left out)",
	} {
		if want == "same" {
			want = in
		}
		if got := string(r.text([]byte(in))); got != want {
			t.Errorf("%q\n gives %q\n  want %q", in, got, want)
		}
	}
}
