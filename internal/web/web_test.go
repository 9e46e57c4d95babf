package web_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"dunlin/internal/web"
)

// each calls f with every file.
func each(t *testing.T, f func(name, text string)) {
	t.Helper()
	err := fs.WalkDir(web.Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(web.Files(), name)
		f(name, string(raw))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r io.Reader) string {
	t.Helper()
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestSize(t *testing.T) {
	all := 0
	each(t, func(_, text string) { all += len(text) })
	if all > web.MaxBytes {
		t.Fatalf("the files have %d bytes, at most %d are allowed", all, web.MaxBytes)
	}
	t.Logf("%d of %d bytes", all, web.MaxBytes)
}

func TestEveryFileIsServed(t *testing.T) {
	kinds := map[string]string{
		".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
		".svg": "image/svg+xml", ".woff2": "font/woff2",
	}
	h := web.Handler()
	each(t, func(name, want string) {
		targets := []string{web.Prefix + name}
		if name == "index.html" {
			targets = append(targets, "/")
		}
		for _, target := range targets {
			plain := ask(t, h, http.MethodGet, target)
			tag := plain.Header.Get("ETag")
			switch {
			case plain.StatusCode != http.StatusOK || text(t, plain.Body) != want:
				t.Errorf("%s: status %d, or not the file", target, plain.StatusCode)
			case plain.Header.Get("Content-Type") != kinds[path.Ext(name)]:
				t.Errorf("%s: Content-Type %q", target, plain.Header.Get("Content-Type"))
			case tag == "" || plain.Header.Get("Cache-Control") != "no-cache":
				t.Errorf("%s: ETag %q, Cache-Control %q", target, tag, plain.Header.Get("Cache-Control"))
			}
			packed := ask(t, h, http.MethodGet, target, "Accept-Encoding", "br, gzip;q=0.8")
			if packed.Header.Get("Content-Encoding") == "gzip" {
				z, err := gzip.NewReader(packed.Body)
				if err != nil {
					t.Fatal(err)
				}
				if text(t, z) != want || packed.Header.Get("ETag") == tag {
					t.Errorf("%s: gzip has another text, or the tag of the plain file", target)
				}
			}
			again := ask(t, h, http.MethodGet, target, "If-None-Match", `"other", W/`+tag)
			if again.StatusCode != http.StatusNotModified || text(t, again.Body) != "" {
				t.Errorf("%s: status %d for the same tag", target, again.StatusCode)
			}
			head := ask(t, h, http.MethodHead, target)
			if head.StatusCode != http.StatusOK || text(t, head.Body) != "" || head.Header.Get("Content-Length") != strconv.Itoa(len(want)) {
				t.Errorf("%s: HEAD gives %d, length %s", target, head.StatusCode, head.Header.Get("Content-Length"))
			}
			for _, r := range []*http.Response{plain, packed, again, head} {
				if got := r.Header.Get("Content-Security-Policy"); got != web.Policy {
					t.Errorf("%s: policy %q", target, got)
				}
			}
		}
	})
	for _, target := range []string{"/ui/", "/ui/nothing.js", "/ui/../web.go", "/ui/vendor", "/index.html"} {
		if r := ask(t, h, http.MethodGet, target); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", target, r.StatusCode)
		}
	}
}

func TestPolicy(t *testing.T) {
	for _, must := range []string{"default-src 'self'", "object-src 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
		if !strings.Contains(web.Policy, must) {
			t.Errorf("the policy lacks %s", must)
		}
	}
	for _, never := range []string{"unsafe", "data:", "blob:", "http", "*"} {
		if strings.Contains(web.Policy, never) {
			t.Errorf("the policy has %s", never)
		}
	}
}

// What the policy forbids would be noticed in a browser only: here it is noticed at once.
func TestNothingInlineAndNothingFromElsewhere(t *testing.T) {
	address := regexp.MustCompile(`(?i)(https?|wss?):(\\?/){2}[^\s'"` + "`" + `)]*`)
	notice := regexp.MustCompile(`(?s)/\*!.*?\*/`)
	markup := regexp.MustCompile(`(?i)innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|javascript:|<script|importScripts|dangerously`)
	style := regexp.MustCompile(`(?i)\sstyle\s*=|\son[a-z]+\s*=\s*["']`)
	each(t, func(name, text string) {
		if path.Ext(name) == ".woff2" {
			return
		}
		for _, a := range address.FindAllString(notice.ReplaceAllString(text, ""), -1) {
			if !strings.HasPrefix(a, "http://www.w3.org/") {
				t.Errorf("%s names %s", name, a)
			}
		}
		own := !strings.HasPrefix(name, "vendor/")
		if own && path.Ext(name) == ".js" && (markup.MatchString(text) || style.MatchString(text)) {
			t.Errorf("%s: %q: text would become markup, or the policy refuses it", name, markup.FindString(text)+style.FindString(text))
		}
		if path.Ext(name) == ".html" && (style.MatchString(text) || regexp.MustCompile(`(?s)<script[^>]*>[^<]`).MatchString(text) || strings.Contains(text, "<style")) {
			t.Errorf("%s has an inline script or style", name)
		}
	})
}

// Every file that another one names is there.
func TestWhatIsNamedIsThere(t *testing.T) {
	names := map[string]bool{}
	each(t, func(name, _ string) { names[name] = true })
	imports := regexp.MustCompile(`(?m)^(?:import|export)\b[^'"]*?from\s*['"]([^'"]+)['"]|from"(\./[^"]+)"`)
	urls := regexp.MustCompile(`(?:href|src)="/ui/([^"]+)"|url\('/ui/([^']+)'\)`)
	used := map[string]bool{"index.html": true}
	each(t, func(name, text string) {
		for _, m := range imports.FindAllStringSubmatch(text, -1) {
			target := path.Join(path.Dir(name), m[1]+m[2])
			used[target] = true
			if path.Ext(name) == ".js" && !names[target] {
				t.Errorf("%s imports %s, which is not there", name, m[1]+m[2])
			}
		}
		for _, m := range urls.FindAllStringSubmatch(text, -1) {
			used[m[1]+m[2]] = true
			if !names[m[1]+m[2]] {
				t.Errorf("%s names %s, which is not there", name, m[1]+m[2])
			}
		}
	})
	for name := range names {
		if !used[name] {
			t.Errorf("nothing uses %s", name)
		}
	}
}

// luminance and contrast are those of WCAG 2.
func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	v, err := strconv.ParseUint(strings.TrimPrefix(colour, "#"), 16, 32)
	if err != nil || len(colour) != 7 {
		t.Fatalf("colour %q", colour)
	}
	part := func(shift uint) float64 {
		c := float64(v>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*part(16) + 0.7152*part(8) + 0.0722*part(0)
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func TestContrast(t *testing.T) {
	css, err := fs.ReadFile(web.Files(), "app.css")
	if err != nil {
		t.Fatal(err)
	}
	themes := [2]map[string]string{{}, {}}
	for _, m := range regexp.MustCompile(`--([a-z0-9]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)`).FindAllStringSubmatch(string(css), -1) {
		themes[0][m[1]], themes[1][m[1]] = m[2], m[3]
	}
	const forText, forShapes = 4.5, 3
	var pairs [][3]string
	for _, ground := range []string{"bg", "raised", "sunk"} {
		for _, ink := range []string{"ink", "muted", "accent", "good", "warn", "bad"} {
			pairs = append(pairs, [3]string{ink, ground, "text"})
		}
	}
	pairs = append(pairs, [][3]string{
		{"onaccent", "accent", "text"},
		{"ink", "tint", "text"},
		{"accent", "tint", "text"},
		{"ink", "badtint", "text"},
		{"bad", "badtint", "text"},
		{"ink", "warntint", "text"},
		{"edge", "bg", ""},
		{"edge", "raised", ""},
		{"line1", "bg", ""},
		{"line2", "bg", ""},
		{"s3", "bg", ""},
		{"s4", "bg", ""},
		{"s5", "bg", ""},
		{"s6", "bg", ""},
	}...)
	for i, theme := range themes {
		for _, p := range pairs {
			least := float64(forShapes)
			if p[2] == "text" {
				least = forText
			}
			if theme[p[0]] == "" || theme[p[1]] == "" {
				t.Fatalf("app.css has no colour %s or %s", p[0], p[1])
			}
			if c := contrast(t, theme[p[0]], theme[p[1]]); c < least {
				t.Errorf("%s: %s on %s has %.2f:1, want %.1f:1", [...]string{"light", "dark"}[i], p[0], p[1], c, least)
			}
		}
	}
}

// The scripts as Node reads them: all parse, and what needs no page does what it says.
func TestScripts(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI needs node to check the scripts of the dashboard")
		}
		t.Skip("no node here to check the scripts of the dashboard")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, web.Files()); err != nil {
		t.Fatal(err)
	}
	// Without it Node takes .js for the older kind of script.
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"type": "module"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	check := "import vm from 'node:vm';\nimport fs from 'node:fs';\n"
	each(t, func(name, _ string) {
		if path.Ext(name) == ".js" {
			check += fmt.Sprintf("new vm.SourceTextModule(fs.readFileSync(%q, 'utf8'), { identifier: %q });\n", name, name)
		}
	})
	unit, err := os.ReadFile(filepath.Join("testdata", "unit.js"))
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{"check.js": check, "unit.js": string(unit)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), node, "--experimental-vm-modules", "--no-warnings", name)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
