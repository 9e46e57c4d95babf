// Package web is the dashboard: the files that a browser loads from the node, and
// the handler that serves them. It knows nothing of the node; the pages ask the
// HTTP API for all that they show.
//
// Invariants: everything a page loads comes from this package, so that a node
// without the internet shows the same; the policy that each answer carries allows
// no inline script, no other origin and no text that becomes markup; all files
// together are at most [MaxBytes].
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

// MaxBytes is the most that all files may have together, uncompressed.
const MaxBytes = 250 << 10

// Prefix is where the files are served; the page itself is at "/" too.
const Prefix = "/ui/"

// Policy is the Content-Security-Policy of every answer. Scripts come from files
// of this origin only, and nothing may turn a string into markup.
const Policy = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; " +
	"object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

//go:embed files
var embedded embed.FS

// Files are the files as a browser sees them, index.html at the root. The tree is
// read-only.
func Files() fs.FS {
	sub, err := fs.Sub(embedded, "files")
	if err != nil {
		panic("web: " + err.Error()) // the name is a constant
	}
	return sub
}

// types of the files by their extension: the system's table may lack them or be wrong.
var types = map[string]string{
	".html":  "text/html; charset=utf-8",
	".js":    "text/javascript; charset=utf-8",
	".css":   "text/css; charset=utf-8",
	".svg":   "image/svg+xml",
	".woff2": "font/woff2",
	"":       "text/plain; charset=utf-8", // NOTICE
}

// A file is ready to be sent.
type file struct {
	kind   string // Content-Type
	plain  []byte
	packed []byte // gzip; nil if it would not be smaller
	tag    string // ETag of plain
}

// Handler serves the dashboard: GET and HEAD of "/" and of what lies below
// [Prefix]. Another path is answered with 404. It holds the files in memory, plain
// and compressed (under 400 KB), and is safe for concurrent use. It asks for no
// token: the files are the same for everybody and tell nothing of the node.
func Handler() http.Handler {
	// Compressing takes some ten milliseconds, which a node that nobody looks at need not spend.
	files := sync.OnceValue(load)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := files()[r.URL.Path]; f != nil {
			f.serve(w, r)
			return
		}
		http.NotFound(w, r)
	})
}

// load prepares all files, by the path of their URL.
func load() map[string]*file {
	files := map[string]*file{}
	err := fs.WalkDir(Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(Files(), name)
		if err != nil {
			return err
		}
		files[Prefix+name], err = prepare(name, raw)
		return err
	})
	if err != nil {
		panic("web: " + err.Error()) // what the compiler put in reads without error
	}
	files["/"] = files[Prefix+"index.html"]
	return files
}

func prepare(name string, raw []byte) (*file, error) {
	sum := sha256.Sum256(raw)
	f := &file{kind: types[path.Ext(name)], plain: raw, tag: hex.EncodeToString(sum[:12])}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(raw); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	if b.Len() < len(raw)*9/10 {
		f.packed = b.Bytes()
	}
	return f, nil
}

func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Content-Security-Policy", Policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	// A page of an older version must not meet files of a newer one: the browser
	// asks each time, and the tag makes the answer short.
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept-Encoding")
	body, tag := f.plain, `"`+f.tag+`"`
	if f.packed != nil && acceptsGzip(r) {
		body, tag = f.packed, `"`+f.tag+`-gz"`
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", tag)
	if matches(r.Header.Get("If-None-Match"), tag) {
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client has gone
	}
}

// acceptsGzip reads what browsers and curl send; a weight of zero is a refusal.
func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			weight = strings.ReplaceAll(weight, " ", "")
			return weight != "q=0" && !strings.HasPrefix(weight, "q=0.000")
		}
	}
	return false
}

// matches says whether one of the tags of an If-None-Match is ours.
func matches(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if part == tag || part == "*" {
			return true
		}
	}
	return false
}
