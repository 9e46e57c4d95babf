//go:build slow

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// A browser is a real one with the dashboard of a node open. Whatever it says on its
// console, whatever the page's policy refuses and every request that leaves the node is a
// fault of the test.
type browser struct {
	t    *testing.T
	ctx  context.Context //nolint:containedctx // chromedp keeps the browser in it
	base string

	mu     sync.Mutex // guards faults and deaf
	faults []string
	deaf   bool // the node is away on purpose: what the browser says of that is no fault
}

// chromium is the path of a browser; without one the test is skipped, in CI it fails.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("CI needs Chromium for the test of the dashboard (apt-get install chromium)")
	}
	t.Skip("no Chromium here for the test of the dashboard (apt-get install chromium)")
	return ""
}

// open starts a browser and loads the dashboard of a daemon.
func openBrowser(t *testing.T, d *daemon) *browser {
	t.Helper()
	o := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 800),
		chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("hide-scrollbars", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.WSURLReadTimeout(patience),
	)
	alloc, endAlloc := chromedp.NewExecAllocator(context.Background(), o...)
	ctx, end := chromedp.NewContext(alloc)
	b := &browser{t: t, ctx: ctx, base: "http://" + d.info.RPCAddr}
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the process
		end()
		endAlloc()
	})
	// The first call starts the browser, which lives as long as the context that it is given.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("browser: %v", err)
	}
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	_, err2 := chromedp.Call(ctx, runtime.Enable, cdp.Empty{})
	_, err3 := chromedp.Call(ctx, cdplog.Enable, cdp.Empty{})
	if err := errors.Join(err, err2, err3, chromedp.Listen(ctx, b.hear)); err != nil {
		t.Fatalf("browser: %v", err)
	}
	b.run(chromedp.Navigate(b.base + "/"))
	return b
}

// hear notes faults. It runs in chromedp's goroutine and must not call it.
func (b *browser) hear(event any) {
	fault := ""
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			var words []string
			for _, a := range e.Args {
				words = append(words, string(a.Value), a.Description)
			}
			fault = "console: " + strings.Join(words, " ")
		}
	case *runtime.EventExceptionThrown:
		fault = "exception: " + e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			fault += " " + x.Description
		}
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Level == cdplog.EntryLevelWarning {
			fault = fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, b.base+"/") {
			fault = "request to " + e.Request.URL
		}
		if strings.Contains(e.Request.URL, "token") {
			fault = "a token in a URL: " + e.Request.URL
		}
	}
	if fault == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deaf && strings.Contains(fault, "net::ERR") {
		return
	}
	b.faults = append(b.faults, fault)
}

// clean fails the test if anything was heard since the last time.
func (b *browser) clean(when string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		b.t.Errorf("%s: %s", when, f)
	}
	b.faults = nil
}

// refused waits until the browser has said of an answer that it refuses something, 4xx, which is what the test asked
// for: the page may show it before.
func (b *browser) refused() {
	b.t.Helper()
	eventually(b.t, patience, "the browser speaks of a refusal", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		i := slices.IndexFunc(b.faults, func(f string) bool { return strings.Contains(f, "with a status of 4") })
		if i < 0 {
			return errors.New("it does not")
		}
		b.faults = slices.Delete(b.faults, i, i+1)
		return nil
	})
}

// away says that the node is gone on purpose, or back.
func (b *browser) away(gone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deaf = gone
}

func (b *browser) run(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// js evaluates an expression.
func js[T any](b *browser, expression string, how ...chromedp.EvaluateOption) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, how...))
	if err != nil {
		b.t.Fatalf("browser: %s: %v", expression, err)
	}
	return v
}

// until waits for an expression to be true.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	eventually(b.t, patience, what, func() error {
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err != nil || ok {
			return err
		}
		text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText.slice(0, 1500)"))
		if err != nil {
			return err
		}
		return errors.New("the page says: " + text)
	})
}

// says waits until the page shows a text.
func (b *browser) says(text string) {
	b.t.Helper()
	b.until("the page says "+text, "document.body.innerText.includes("+quoted(text)+")")
}

// quoted is a string of JavaScript.
func quoted(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string can be marshalled
	}
	return string(raw)
}

// control finds a button or link that can be used by its text or label: what is open in
// front comes first.
const control = `((text) => [...(document.querySelector('dialog[open]') || document).querySelectorAll('button, a, summary')]
	.find((e) => !e.disabled && e.checkVisibility() && (e.getAttribute('aria-label') || e.innerText).trim() === text))`

// click presses a button or link, as a mouse does.
func (b *browser) click(text string) {
	b.t.Helper()
	found := control + "(" + quoted(text) + ")"
	b.until("there is a "+text, found)
	box := js[[]float64](b, `(() => { const e = `+found+`; e.scrollIntoView({ block: 'center' }); const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`)
	b.run(chromedp.MouseClickXY(box[0], box[1]))
}

// fill writes into the field with a label.
func (b *browser) fill(label, text string) {
	b.t.Helper()
	field := `(() => { const root = document.querySelector('dialog[open]') || document;
		const l = [...root.querySelectorAll('label')].find((l) => l.innerText.trim() === ` + quoted(label) + `);
		return l && (l.control || root.querySelector('#' + CSS.escape(l.htmlFor))); })()`
	b.until("there is a field "+label, field)
	js[bool](b, "("+field+".focus(), "+field+".select?.(), true)") // what is there is replaced
	b.run(chromedp.KeyEvent(text))
}

// goTo opens a view and waits until it has its answers.
func (b *browser) goTo(view string) {
	b.t.Helper()
	js[bool](b, "(location.hash = "+quoted("#/"+view)+", true)")
	b.until("view "+view, `document.querySelector('main .view h1') && document.title.toLowerCase().startsWith(`+quoted(strings.Split(view, "/")[0])+`) && !document.querySelector('main .waiting, main .boot')`)
}

// signIn gives the page the token of a daemon.
func (b *browser) signIn(d *daemon) {
	b.t.Helper()
	raw, err := os.ReadFile(filepath.Join(d.home, "api.cookie"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.click("Sign in")
	b.fill("Token", "wrong")
	b.run(chromedp.KeyEvent("\r"))
	b.says("The node does not know this token")
	b.fill("Token", string(raw))
	b.run(chromedp.KeyEvent("\r"))
	b.until("signed in", control+`("Sign out")`)
	kept := js[[]string](b, `[localStorage.getItem('dunlin.token') || '', document.cookie, location.href.includes(sessionStorage.getItem('dunlin.token')) ? 'url' : '']`)
	if strings.Join(kept, "") != "" {
		b.t.Errorf("the token is kept elsewhere than in the tab: %q", kept)
	}
}

// fits fails if the page is wider than the window, and names what is.
func (b *browser) fits(what string) {
	b.t.Helper()
	wide := js[[]string](b, `document.documentElement.scrollWidth <= innerWidth ? [] : [document.documentElement.scrollWidth + ' of ' + innerWidth, ...[...document.querySelectorAll('main *, header *, footer *')]
		.filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5 && !e.closest('.tablebox')).slice(0, 4).map((e) => e.outerHTML.slice(0, 160))]`)
	if len(wide) > 0 {
		b.t.Errorf("%s is wider than the window: %s", what, strings.Join(wide, "\n\t"))
	}
}

// accessible fails for what a screen reader or a keyboard could not use.
func (b *browser) accessible(what string) {
	b.t.Helper()
	faults := js[[]string](b, `(() => {
		const out = [];
		const show = (e) => e.outerHTML.slice(0, 140);
		const seen = [...document.querySelectorAll('*')].filter((e) => e.checkVisibility({ visibilityProperty: true }));
		const ids = new Set();
		for (const e of document.querySelectorAll('[id]')) { if (ids.has(e.id)) out.push('id twice: ' + e.id); ids.add(e.id); }
		for (const e of document.querySelectorAll('[aria-labelledby], [aria-describedby]')) {
			for (const a of ['aria-labelledby', 'aria-describedby']) for (const id of (e.getAttribute(a) || '').split(' ').filter(Boolean)) if (!ids.has(id)) out.push(a + ' names nothing: ' + show(e));
		}
		for (const e of seen) {
			const name = (e.getAttribute('aria-label') || '').trim() || [...(e.labels || [])].map((l) => l.innerText).join('').trim() || (e.innerText || '').trim() || (e.getAttribute('aria-labelledby') && 'x') || '';
			if (e.matches('button, a[href], summary, [role=switch]') && !name && !e.querySelector('title')) out.push('no name: ' + show(e));
			if (e.matches('input, select, textarea') && !(e.getAttribute('aria-label') || [...e.labels].some((l) => l.innerText.trim()))) out.push('no label: ' + show(e));
			if (e.matches('[role=img], [role=progressbar], dialog, nav, table, .tablebox') && !name && !e.closest('.tablebox')) out.push('no name: ' + show(e));
			if (e.matches('svg') && !e.closest('[aria-hidden=true]') && !e.getAttribute('aria-label') && !e.closest('[role=img]')) out.push('a drawing neither named nor hidden: ' + show(e));
			if (e.matches('[tabindex]') && +e.getAttribute('tabindex') > 0) out.push('tabindex: ' + show(e));
			if (e.matches('button, select, input:not([type=checkbox]), [role=switch]')) { const r = e.getBoundingClientRect(); if (r.width < 24 || r.height < 24) out.push('smaller than 24 pixels: ' + r.width + '×' + r.height + ' ' + show(e)); }
		}
		const levels = seen.filter((e) => /^H[1-6]$/.test(e.tagName) && !e.closest('dialog')).map((e) => +e.tagName[1]);
		if (levels.filter((l) => l === 1).length !== 1) out.push('headings of level 1: ' + levels);
		levels.forEach((l, i) => { if (i && l > levels[i - 1] + 1) out.push('a level of headings is left out: ' + levels); });
		if (document.querySelectorAll('main').length !== 1 || !document.documentElement.lang || !document.title) out.push('no main, language or title');
		// The colours of what is written, as they come out.
		const luminance = (c) => { const f = c.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
		const parse = (s) => (s.match(/[\d.]+/g) || []).map(Number);
		const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
		const bad = new Set();
		for (const e of seen) {
			if (e.closest('svg, [aria-hidden=true], :disabled, .u-over')) continue;
			if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
			const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(ground(e))];
			const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
			if (ratio < 4.5) bad.add(ratio.toFixed(2) + ':1 ' + show(e));
		}
		return [...out, ...bad].slice(0, 12);
	})()`)
	for _, f := range faults {
		b.t.Errorf("%s: %s", what, f)
	}
}

// scheme sets what the system is said to prefer.
func (b *browser) scheme(name string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}}); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// picture is what the window shows.
func (b *browser) picture() image.Image {
	b.t.Helper()
	raw, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatalf("browser: %v", err)
	}
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		b.t.Fatal(err)
	}
	return img
}

// pictureFiles is where the pictures of the documentation go, with DUNLIN_PICTURES=1.
const pictureFiles = "../../docs/screenshots"

// keep writes pictures side by side into one file, with 256 colours, of at most 120 KB.
func keep(t *testing.T, name string, pictures ...image.Image) {
	t.Helper()
	if os.Getenv("DUNLIN_PICTURES") == "" {
		return
	}
	all := image.Rectangle{}
	for _, p := range pictures {
		all.Max = image.Pt(all.Max.X+p.Bounds().Dx(), max(all.Max.Y, p.Bounds().Dy()))
	}
	whole := image.NewRGBA(all)
	x := 0
	for _, p := range pictures {
		draw.Draw(whole, image.Rect(x, 0, x+p.Bounds().Dx(), p.Bounds().Dy()), p, p.Bounds().Min, draw.Src)
		x += p.Bounds().Dx()
	}
	count := map[color.RGBA]int{}
	for i := 0; i < len(whole.Pix); i += 4 {
		count[color.RGBA{whole.Pix[i] &^ 3, whole.Pix[i+1] &^ 3, whole.Pix[i+2] &^ 3, 255}]++
	}
	colours := make([]color.RGBA, 0, len(count))
	for c := range count {
		colours = append(colours, c)
	}
	slices.SortFunc(colours, func(a, b color.RGBA) int { return count[b] - count[a] })
	var palette color.Palette
	for _, c := range colours[:min(len(colours), 256)] {
		palette = append(palette, c)
	}
	small := image.NewPaletted(all, palette)
	nearest := map[color.RGBA]uint8{}
	for y := range all.Dy() {
		for x := range all.Dx() {
			c := whole.RGBAAt(x, y)
			at, ok := nearest[c]
			if !ok {
				at = uint8(palette.Index(c))
				nearest[c] = at
			}
			small.SetColorIndex(x, y, at)
		}
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, small); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 120<<10 {
		t.Errorf("picture %s has %d bytes, at most %d are allowed", name, out.Len(), 120<<10)
	}
	if err := os.MkdirAll(pictureFiles, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pictureFiles, name+".png"), out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// window sets its size in pixels of the page.
func (b *browser) window(width, height int64) {
	b.t.Helper()
	b.run(chromedp.EmulateViewport(width, height))
}

// both keeps a picture of the window in light and in dark.
func (b *browser) both(name string) {
	b.t.Helper()
	var pictures []image.Image
	for _, s := range []string{"light", "dark"} {
		b.scheme(s)
		// Charts are drawn anew in the next frames.
		js[bool](b, `new Promise((f) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => f(true), 150))))`, chromedp.EvalAwaitPromise)
		pictures = append(pictures, b.picture())
	}
	b.scheme("light")
	keep(b.t, name, pictures...)
}
