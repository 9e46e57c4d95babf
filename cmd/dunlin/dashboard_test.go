//go:build slow

package main

import (
	"fmt"
	"image"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/chromedp/chromedp"

	"dunlin/internal/api"
)

// hostile is a text that would do harm as markup, and that turns the line it stands in.
const hostile = `<img src=x onerror=alert(1)><script>alert(2)</script>` + "\u202e" + `</td>&lt;`

// views of the dashboard, by their address.
var views = []string{"overview", "peers", "blocks", "explorer", "mempool", "miner", "wallet", "storage", "log"}

// TestE2EDashboard walks through the dashboard in a real browser: a fresh node, sync from
// another, a block found, a ban, a reorganisation watched, the node gone and back.
func TestE2EDashboard(t *testing.T) {
	t.Parallel()
	_ = chromium(t)
	far := startDaemon(t, "far", "--network", "regtest")
	near := startDaemon(t, "near", "--network", "regtest")
	c, p := rpcTo(t, far), newPurse(12)
	for _, b := range p.blocks {
		if err := c.SubmitBlock(btcutil.NewBlock(decoded(t, b.Raw)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := far.client.MineBlock(t.Context(), hostile, 0); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		far.mustSend(p.pay(i+1, int64(1000*(i+1))))
	}
	far.mine(1)

	b := openBrowser(t, near)
	b.scheme("light")

	// A fresh node says what it is and why it waits.
	b.until("the state", `document.getElementById('state')?.innerText === 'Synced'`)
	b.says("no peers yet, and none are known")
	b.goTo("peers")
	b.says("No peers.")
	b.says("sources gave nothing")
	b.goTo("log")
	b.says("Sign in to see the log.")
	b.goTo("wallet")
	b.clean("a fresh node")

	// What changes the node wants the token, and gets no other.
	b.signIn(near)
	b.clean("signing in")

	// Sync from another node, whose address is typed in.
	b.goTo("peers")
	b.click("Add a peer")
	b.fill("Address", "not an address")
	b.click("Add")
	b.says("An address looks like")
	b.fill("Address", far.addr())
	b.click("Add")
	height := far.mustStatus().Height
	b.until("synced", fmt.Sprintf("document.getElementById('height').innerText === '%d'", height))
	b.goTo("overview")
	b.until("the latest block", fmt.Sprintf("document.querySelector('.latest a')?.innerText === '%d'", height))

	// What a miner wrote is text.
	b.goTo("blocks")
	b.says(`<img src=x onerror=alert(1)><script>alert(2)</script>·</td>`)
	made := js[int](b, `document.querySelectorAll('main img, main script').length`)
	if made > 0 {
		t.Errorf("a miner's text became %d elements", made)
	}
	b.clean("hostile text")

	// A wallet is made where its words are seen by nobody else; what is mined from now on is its.
	b.goTo("wallet")
	b.says("This node has no wallet yet.")
	const passphrase = "correct horse"
	secret := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(secret, []byte(passphrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := dunlin(t, nil, "wallet", "create", "--home", near.home, "--passphrase-file", secret); code != 0 {
		t.Fatalf("wallet create: %d %s", code, errs)
	}
	b.until("there is a wallet", `document.getElementById('spendable')`)

	// A block of one's own, with a text.
	b.goTo("miner")
	b.fill("Text (optional)", "made in the browser")
	b.click("Make a block")
	b.until("the block", fmt.Sprintf("document.querySelector('.made')?.innerText.includes('Block %d')", height+1))
	far.reaches(near.mustStatus().TipHash, patience)
	b.click("Not mining")
	b.until("the miner runs", `document.querySelector('[role=switch]').getAttribute('aria-checked') === 'true'`)
	b.click("Mining")
	b.until("the miner has stopped", `document.querySelector('[role=switch]').getAttribute('aria-checked') === 'false'`)
	b.clean("mining")

	// Its reward is ripe a hundred blocks later, and sent.
	tip := far.mine(100)
	near.reaches(tip.Hash, patience)
	b.goTo("wallet/receive")
	b.click("New address")
	b.until("an address with its code", `document.querySelector('#address')?.innerText.startsWith('bcrt1q') && document.querySelector('.qr path')`)
	b.goTo("wallet/send")
	b.until("a ripe reward", `parseFloat(document.getElementById('spendable').innerText) >= 50`)
	b.fill("Address", "bcrt1qnobody")
	b.fill("Amount", "12.345")
	b.click("Review")
	b.until("a refusal", `document.querySelector('main .fault')`)
	b.refused()
	b.fill("Address", asks[api.MinerStatus](t, far, "/miner", http.StatusOK).Address)
	b.click("Review")
	b.says("Is this right?")
	b.says("12.345")
	b.fill("Passphrase", passphrase)
	b.accessible("the review of a payment")
	b.click("Send now")
	b.until("it is sent", `/^[0-9a-f]{64}$/.test(document.querySelector('#sent .mono')?.innerText)`)
	far.holds(1)
	b.goTo("wallet")
	b.until("the payment", `document.querySelector('main tbody tr').innerText.includes('waiting')`)
	js[bool](b, `(document.querySelector('main tbody button').click(), true)`)
	b.until("the payment in full", `document.querySelector('dialog .rows .tag')`)
	b.accessible("a payment")
	b.click("Close")
	b.clean("the wallet")

	// Transactions that wait, and the way from a block to one of its transactions.
	for i := range 8 {
		far.mustSend(p.pay(i+4, int64(700*(i*i+1))))
	}
	near.holds(9)
	b.goTo("mempool")
	b.until("the mempool", `document.querySelectorAll('main tbody tr').length === 9`)
	js[bool](b, `(document.body.focus(), true)`)
	b.run(chromedp.KeyEvent("/"))
	b.until("the search has the focus", `document.activeElement.id === 'search' && (document.activeElement.select(), true)`) // DevTools sends the letter all the same
	b.run(chromedp.KeyEvent(fmt.Sprint(height) + "\r"))
	b.until("the block's page", fmt.Sprintf("location.hash.startsWith('#/explorer/block/') && document.querySelector('.crumb')?.innerText.includes('Block %d')", height))
	b.until("its transactions", `document.querySelectorAll('.txs > li').length === 4`)
	js[bool](b, `(document.querySelectorAll('.txs > li header a')[1].click(), true)`)
	b.until("a transaction", `location.hash.startsWith('#/explorer/tx/') && document.querySelector('.flow details')`)
	b.says("Confirmations")
	b.clean("explorer")

	// Keys.
	js[bool](b, `(document.activeElement.blur(), true)`)
	b.run(chromedp.KeyEvent("gp"))
	b.until("g p", `location.hash === '#/peers' && document.activeElement.id === 'main'`)
	b.run(chromedp.KeyEvent("?"))
	b.until("the keys", `document.querySelector('dialog[open] .keys')`)
	b.accessible("keys")
	b.run(chromedp.KeyEvent("\u001b"))
	b.until("no dialog", `!document.querySelector('dialog')`)

	b.shows(near, p.pay(5, 1400).TxHash().String())

	// A ban ends the connection and keeps it away.
	b.goTo("peers")
	b.click("Peer " + far.info.PeerID)
	b.accessible("a peer")
	b.click("Ban…")
	b.fill("Reason (optional)", "walks through walls")
	b.click("Ban and disconnect")
	b.says("walks through walls")
	b.says("No peers.")
	b.clean("a ban")

	// Each goes its own way; when they meet, one gives up its blocks, and the page tells it.
	near.mine(2)
	tip = far.mine(4)
	b.goTo("blocks")
	b.until("two blocks on", fmt.Sprintf("document.querySelector('main tbody a')?.innerText === '%d'", height+103))
	b.goTo("peers")
	b.click("Unban")
	b.says("Nobody is kept away.")
	b.goTo("blocks")
	if err := near.client.AddPeer(t.Context(), far.addr()); err != nil {
		t.Fatal(err)
	}
	near.reaches(tip.Hash, patience)
	b.until("the reorganisation is told", `document.querySelector('.reorg')?.innerText.includes('2 blocks')`)
	b.until("the fork is drawn", `document.querySelectorAll('.tree .node.valid-fork').length === 2`)
	b.fits("a fork")
	b.window(1100, 700)
	b.both("blocks")
	b.clean("a reorganisation")

	// The node goes away and comes back, as another process with another token.
	b.away(true)
	near.kill9()
	b.until("the loss is told", `document.getElementById('state').innerText === 'Connection lost' && document.querySelector('.away')`)
	b.accessible("connection lost")
	near.start("--rpc-listen", b.base[len("http://"):])
	b.until("it is back", `document.getElementById('state').innerText !== 'Connection lost' && !document.querySelector('.away')`)
	b.says("The node has been started anew")
	b.until("signed out", control+`("Sign in")`)
	b.away(false)
	b.until("the old height", fmt.Sprintf("document.getElementById('height').innerText.startsWith('%d')", tip.Height))
	b.clean("a restart")
}

// shows looks at every view, on a desk and on a telephone, in light and in dark.
func (b *browser) shows(d *daemon, tx string) {
	b.t.Helper()
	b.window(360, 740)
	for _, v := range append(views, "explorer/block/"+d.mustStatus().TipHash, "explorer/search/nothing", "wallet/send", "wallet/receive") {
		b.goTo(v)
		b.fits(v + " on a telephone")
		b.accessible(v + " on a telephone")
	}
	b.window(1100, 700)
	for _, s := range []string{"dark", "light"} {
		b.scheme(s)
		for _, v := range views {
			b.goTo(v)
			b.fits(v)
			b.accessible(v + ", " + s)
		}
	}
	b.clean("all views")
	for _, v := range views {
		b.window(1100, 700)
		switch v {
		case "blocks":
			continue // which has a fork to show, later
		case "explorer":
			b.goTo("explorer/tx/" + tx)
		case "log":
			b.window(1100, 480)
			fallthrough
		default:
			b.goTo(v)
		}
		b.both(v)
	}
	b.window(360, 740)
	var phone []image.Image
	for _, v := range []string{"overview", "wallet/receive", "explorer/tx/" + tx} {
		b.goTo(v)
		phone = append(phone, b.picture())
	}
	keep(b.t, "phone", phone...)
	b.window(1100, 700)
	b.clean("all views")
}
