package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"dunlin/internal/api"
	"dunlin/internal/command"
	"dunlin/internal/wallet"
	"dunlin/internal/wallet/keys"
)

// walletCommand is what the commands of the wallet have in common.
type walletCommand struct {
	g    *global
	file string // --passphrase-file
	yes  bool
}

func newWallet(g *global) *cobra.Command {
	w := &walletCommand{g: g}
	cmd := group("wallet", "Keep and send coins: the wallet of the running node",
		w.info(), w.create(), w.restore(), w.receive(), w.addresses(), w.balance(), w.utxos(), w.history(), w.tx(), w.send(), w.bump(), w.abandon(),
		w.psbt(), w.imports(), w.descriptors(), w.lock(), w.unlock(), w.passwd(), w.backup(), w.rescan(),
		w.coins(true), w.coins(false), w.label(), w.fee())
	cmd.Long = `wallet keeps the coins of the node's owner. Its keys come from words that create prints once, and are encrypted on disk by a passphrase.
Passphrases are asked for on a terminal, or read from --passphrase-file or standard input; never from the command line.`
	return cmd
}

// call asks the running node.
func (w *walletCommand) call(cmd *cobra.Command, method, path string, in, out any) error {
	c, err := w.g.client(cmd)
	if err != nil {
		return err
	}
	return unreachable(c.Call(cmd.Context(), method, "/api/v1/wallet"+path, in, out))
}

func (w *walletCommand) passphraseFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.file, "passphrase-file", "", "read the passphrase from the first line of a file; - is standard input")
}

func (w *walletCommand) yesFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&w.yes, "yes", "y", false, "do not ask")
}

// leaf makes a command that takes no arguments.
func leaf(use, short string, run func(cmd *cobra.Command) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd) },
	}
}

func (w *walletCommand) info() *cobra.Command {
	return leaf("info", "Print whether there is a wallet, whether it is locked, and how far it has followed the chain", func(cmd *cobra.Command) error {
		var i api.WalletInfo
		if err := w.call(cmd, http.MethodGet, "", nil, &i); err != nil {
			return err
		}
		return w.printInfo(cmd, &i)
	})
}

func (w *walletCommand) printInfo(cmd *cobra.Command, i *api.WalletInfo) error {
	return w.g.print(cmd, i, func(out io.Writer) {
		if !i.Exists {
			fmt.Fprintln(out, "no wallet: dunlin wallet create makes one, dunlin wallet restore brings one back")
			return
		}
		t := newTable(out)
		state := "unlocked"
		switch {
		case i.WatchOnly:
			state = "watches only"
		case !i.Encrypted:
			state = "not encrypted"
		case i.Locked && i.Staking:
			state = "locked, but for staking"
			if i.UnlockedUntil != nil {
				state += " until " + i.UnlockedUntil.Format(time.DateTime)
			}
		case i.Locked:
			state = "locked"
		case i.UnlockedUntil != nil:
			state = "unlocked until " + i.UnlockedUntil.Format(time.DateTime)
		}
		fmt.Fprintf(t, "wallet\t%s\n", state)
		fmt.Fprintf(t, "height\t%d of %d\n", i.Height, i.TipHeight)
		scan := i.Scan.State
		if scan == wallet.ScanSearching || scan == wallet.ScanFollowing {
			scan += fmt.Sprintf(" %.1f%%, at %d of %d", i.Scan.Percent, i.Scan.Next, i.Scan.To)
			if i.Scan.BlocksPerS > 0 {
				scan += fmt.Sprintf(", %.0f blk/s", i.Scan.BlocksPerS)
			}
			if i.Scan.ETAS != nil {
				scan += ", eta " + (time.Duration(*i.Scan.ETAS) * time.Second).String()
			}
		}
		if i.Scan.Trouble != "" {
			scan += ": " + i.Scan.Trouble
		}
		fmt.Fprintf(t, "scan\t%s\n", scan)
		fmt.Fprintf(t, "addresses\t%d of %d descriptors, gap %d\n", i.Addresses, i.Descriptors, i.Gap)
		fmt.Fprintf(t, "payments\t%d\n", i.Payments)
		for _, warning := range i.Warnings {
			fmt.Fprintf(t, "warning\t%s\n", warning)
		}
		t.Flush()
	})
}

// created is what create prints: the one place where words come out.
type created struct {
	Words string `json:"words"`
	api.WalletInfo
}

func (w *walletCommand) create() *cobra.Command {
	var count, gap int
	cmd := &cobra.Command{
		Use: "create", Short: "Make a wallet, and print its words once", Args: args(cobra.NoArgs),
		Long: `create makes the node's wallet. It prints the words from which all its keys come: whoever has them has the coins, and whoever loses them and
the passphrase has lost them. They are printed once and never again by any command but this; write them down on paper.

The passphrase encrypts the keys on this machine. It is asked for twice on a terminal, or read from --passphrase-file or the first line of
standard input.`,
		Example: "  dunlin wallet create\n  dunlin wallet create --passphrase-file secret.txt > words.txt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var i api.WalletInfo
			if err := w.call(cmd, http.MethodGet, "", nil, &i); err != nil {
				return err
			}
			if i.Exists {
				return wallet.ErrExists
			}
			words, err := keys.NewWords(count)
			if err != nil {
				return usage(fmt.Errorf("--words: %w", err))
			}
			defer words.Wipe()
			phrase, err := newSecrets(cmd, w.file).passphrase("New passphrase", true)
			if err != nil {
				return err
			}
			if err := wallet.CheckPassphrase([]byte(phrase)); err != nil {
				return err
			}
			if err := w.call(cmd, http.MethodPost, "", api.WalletCreate{Words: words.Reveal(), Passphrase: phrase, Gap: gap}, &i); err != nil {
				return err
			}
			return w.g.print(cmd, created{words.Reveal(), i}, func(out io.Writer) {
				fmt.Fprintf(out, "%s\n", words.Reveal())
				fmt.Fprintln(cmd.ErrOrStderr(), "These words are the wallet. Write them down on paper, now: they are not shown again. Nobody can help whoever loses them.")
			})
		},
	}
	cmd.Flags().IntVar(&count, "words", 12, "number of words: 12, 15, 18, 21 or 24")
	cmd.Flags().IntVar(&gap, "gap", wallet.DefaultGap, "unpaid addresses in a row that end a search for payments")
	w.passphraseFlag(cmd)
	return cmd
}

func (w *walletCommand) restore() *cobra.Command {
	var from int32
	var gap int
	var wordsFile string
	var extra bool
	cmd := &cobra.Command{
		Use: "restore [BACKUP]", Short: "Bring a wallet back from its words or from a backup", Args: args(cobra.MaximumNArgs(1)),
		Long: `restore makes the node's wallet from a file that dunlin wallet backup wrote, or from its words, and looks through the chain for its coins. There must
be no wallet: none is ever overwritten.

Words are asked for on a terminal, or read from --words-file or the first line of standard input; then the passphrase that shall encrypt
the keys here. Of a backup the passphrase is that of the wallet when it was backed up.`,
		Example: "  dunlin wallet restore\n  dunlin wallet restore --words-file words.txt --passphrase-file secret.txt --from-height 120000\n  dunlin wallet restore dunlin-wallet.backup",
		RunE: func(cmd *cobra.Command, a []string) error {
			s := newSecrets(cmd, w.file)
			var i api.WalletInfo
			if len(a) == 1 {
				data, err := readBackup(a[0])
				if err != nil {
					return err
				}
				phrase, err := s.passphrase("Passphrase of the backup", false)
				if err != nil {
					return err
				}
				height := int32(-1)
				if cmd.Flags().Changed("from-height") {
					height = from
				}
				if err := w.call(cmd, http.MethodPost, "/restore", api.WalletRestore{Data: data, Passphrase: phrase, FromHeight: height}, &i); err != nil {
					return err
				}
				return w.printInfo(cmd, &i)
			}
			var text string
			var err error
			if wordsFile != "" {
				var raw []byte
				if raw, err = readFewBytes(wordsFile); err != nil {
					return fmt.Errorf("--words-file: %w", err)
				}
				text = strings.Join(strings.Fields(string(raw)), " ")
			} else if f := s.terminal(); f != nil {
				text, err = s.hidden(f, "Words (not shown)")
			} else {
				text, err = s.line("Words")
			}
			if err != nil {
				return err
			}
			words, err := keys.ParseWords(text)
			if err != nil {
				return fmt.Errorf("words: %w", err)
			}
			defer words.Wipe()
			r := api.WalletCreate{Words: text, Restore: true, FromHeight: from, Gap: gap}
			if extra {
				if r.WordPassphrase, err = s.passphrase("BIP39 passphrase of the words", false); err != nil {
					return err
				}
			}
			if r.Passphrase, err = s.passphrase("New passphrase", true); err != nil {
				return err
			}
			if err := wallet.CheckPassphrase([]byte(r.Passphrase)); err != nil {
				return err
			}
			if err := w.call(cmd, http.MethodPost, "", r, &i); err != nil {
				return err
			}
			return w.printInfo(cmd, &i)
		},
	}
	cmd.Flags().Int32Var(&from, "from-height", 0, "height of the first block that may have paid the wallet (a backup knows it)")
	cmd.Flags().IntVar(&gap, "gap", wallet.DefaultGap, "unpaid addresses in a row that end the search")
	cmd.Flags().StringVar(&wordsFile, "words-file", "", "read the words from a file")
	cmd.Flags().BoolVar(&extra, "word-passphrase", false, "ask for the BIP39 passphrase that the words need too")
	w.passphraseFlag(cmd)
	return cmd
}

func (w *walletCommand) receive() *cobra.Command {
	var kind, label string
	cmd := leaf("receive", "Print a new address", func(cmd *cobra.Command) error {
		var a api.WalletAddress
		if err := w.call(cmd, http.MethodPost, "/addresses", api.WalletAddressRequest{Kind: kind, Label: label}, &a); err != nil {
			return err
		}
		if a.Warning != "" && w.g.output == "table" {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", a.Warning)
		}
		return w.g.print(cmd, a, func(out io.Writer) { fmt.Fprintln(out, a.Address) })
	})
	cmd.Flags().StringVar(&kind, "kind", wallet.DefaultKind, "kind of address: p2wpkh, p2tr, p2sh-p2wpkh, or p2pkh (1…)")
	cmd.Flags().StringVar(&label, "label", "", "name for it")
	return cmd
}

func (w *walletCommand) addresses() *cobra.Command {
	var change bool
	var limit, offset int
	cmd := leaf("addresses", "List addresses that were handed out or paid, newest first", func(cmd *cobra.Command) error {
		var a api.WalletAddresses
		if err := w.call(cmd, http.MethodGet, fmt.Sprintf("/addresses?change=%t&limit=%d&offset=%d", change, limit, offset), nil, &a); err != nil {
			return err
		}
		return w.g.print(cmd, a.Addresses, func(out io.Writer) {
			t := newTable(out, "ADDRESS", "KIND", "PATH", "RECEIVED", "LABEL")
			for _, x := range a.Addresses {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", x.Address, x.Kind, x.Path, wallet.FormatAmount(x.Received), x.Label)
			}
			t.Flush()
		})
	})
	cmd.Flags().BoolVar(&change, "change", false, "those for change")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many")
	cmd.Flags().IntVar(&offset, "offset", 0, "leave so many out")
	return cmd
}

func (w *walletCommand) balance() *cobra.Command {
	return leaf("balance", "Print what the coins are worth", func(cmd *cobra.Command) error {
		var b api.WalletBalances
		if err := w.call(cmd, http.MethodGet, "/balance", nil, &b); err != nil {
			return err
		}
		return w.g.print(cmd, b, func(out io.Writer) {
			printBalance(out, &b.WalletBalance)
			if b.WatchOnly.Total != 0 {
				fmt.Fprintln(out, "watched, keys elsewhere:")
				printBalance(out, &b.WatchOnly)
			}
		})
	})
}

func printBalance(out io.Writer, b *api.WalletBalance) {
	t := newTable(out)
	fmt.Fprintf(t, "spendable\t%s\n", wallet.FormatAmount(b.Spendable))
	for _, part := range []struct {
		name string
		n    int64
	}{
		{"confirmed", b.Confirmed}, {"own change", b.Trusted}, {"unconfirmed", b.Untrusted}, {"immature", b.Immature}, {"locked", b.Locked},
	} {
		if part.n != 0 {
			fmt.Fprintf(t, "%s\t%s\n", part.name, wallet.FormatAmount(part.n))
		}
	}
	fmt.Fprintf(t, "total\t%s\n", wallet.FormatAmount(b.Total))
	t.Flush()
}

func (w *walletCommand) utxos() *cobra.Command {
	var minConf int
	cmd := leaf("utxos", "List unspent coins", func(cmd *cobra.Command) error {
		var c api.WalletCoins
		if err := w.call(cmd, http.MethodGet, "/utxos?min_conf="+strconv.Itoa(minConf), nil, &c); err != nil {
			return err
		}
		return w.g.print(cmd, c.UTXOs, func(out io.Writer) {
			t := newTable(out, "AMOUNT", "CONFIRMATIONS", "STATE", "ADDRESS", "COIN")
			for _, x := range c.UTXOs {
				state := "spendable"
				switch {
				case x.Locked:
					state = "locked"
				case x.MatureIn > 0:
					state = fmt.Sprintf("immature for %d", x.MatureIn)
				case x.WatchOnly:
					state = "watched"
				case !x.Spendable:
					state = "unconfirmed"
				}
				fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", wallet.FormatAmount(x.Amount), x.Confirmations, state, x.Address, x.Coin)
			}
			t.Flush()
		})
	})
	cmd.Flags().IntVar(&minConf, "min-conf", 0, "least confirmations")
	return cmd
}

func (w *walletCommand) history() *cobra.Command {
	var limit int
	var after string
	cmd := leaf("history", "List payments, newest first", func(cmd *cobra.Command) error {
		var h api.WalletHistory
		if err := w.call(cmd, http.MethodGet, fmt.Sprintf("/history?limit=%d&after=%s", limit, url.QueryEscape(after)), nil, &h); err != nil {
			return err
		}
		if w.g.output == "jsonl" {
			return w.g.print(cmd, h.Payments, nil)
		}
		return w.g.print(cmd, h, func(out io.Writer) {
			t := newTable(out, "TIME", "KIND", "AMOUNT", "FEE", "STATE", "HEIGHT", "TXID", "LABEL")
			for i := range h.Payments {
				p := &h.Payments[i]
				fee, height := "-", "-"
				if p.Fee != nil {
					fee = wallet.FormatAmount(*p.Fee)
				}
				if p.Height >= 0 {
					height = strconv.Itoa(int(p.Height))
				}
				state := p.Text
				if p.Conflicting != "" {
					state += " by " + p.Conflicting[:12] + "…"
				} else if p.MatureIn > 0 {
					state += fmt.Sprintf(", immature for %d", p.MatureIn)
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Time.Format(time.DateTime), p.Kind, wallet.FormatAmount(p.Amount), fee, state, height, p.TxID, p.Label)
			}
			t.Flush()
			if h.Next != "" {
				fmt.Fprintf(out, "%d of %d; more: --after %s\n", len(h.Payments), h.Total, h.Next)
			}
		})
	})
	cmd.Flags().IntVar(&limit, "limit", 50, "at most so many, up to 1000")
	cmd.Flags().StringVar(&after, "after", "", "go on where the page before ended")
	return cmd
}

func (w *walletCommand) tx() *cobra.Command {
	return &cobra.Command{
		Use: "tx TXID", Short: "Print one payment in full, and why it is in its state", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			var p api.WalletTx
			if err := w.call(cmd, http.MethodGet, "/tx/"+url.PathEscape(a[0]), nil, &p); err != nil {
				return err
			}
			return w.g.print(cmd, p, func(out io.Writer) {
				t := newTable(out)
				fmt.Fprintf(t, "txid\t%s\n", p.TxID)
				fmt.Fprintf(t, "state\t%s\n", p.Text)
				fmt.Fprintf(t, "why\t%s\n", p.Explain)
				fmt.Fprintf(t, "kind\t%s\n", p.Kind)
				fmt.Fprintf(t, "amount\t%s\n", wallet.FormatAmount(p.Amount))
				if p.Fee != nil {
					fmt.Fprintf(t, "fee\t%s, %s sat/vB\n", wallet.FormatAmount(*p.Fee), wallet.FormatRate(p.FeeRate))
				}
				fmt.Fprintf(t, "time\t%s\n", p.Time.Format(time.DateTime))
				for _, line := range [][2]string{{"label", p.Label}, {"block", p.BlockHash}, {"conflicts with", p.Conflicting}, {"replaces", p.Replaces}} {
					if line[1] != "" {
						fmt.Fprintf(t, "%s\t%s\n", line[0], line[1])
					}
				}
				printSides(t, p.Inputs, p.Outputs)
				t.Flush()
			})
		},
	}
}

// printSides writes inputs and outputs as rows of a table.
func printSides(t io.Writer, ins []api.WalletInput, outs []api.WalletOutput) {
	for _, in := range ins {
		amount := "?"
		if in.Amount != nil {
			amount = wallet.FormatAmount(*in.Amount)
		}
		own := ""
		if in.Own {
			own = " (own)"
		}
		fmt.Fprintf(t, "from\t%s %s%s\n", amount, cmp.Or(in.Address, in.Coin), own)
	}
	for _, o := range outs {
		own := ""
		switch {
		case o.Change:
			own = " (change)"
		case o.Own:
			own = " (own)"
		}
		fmt.Fprintf(t, "to\t%s %s%s\n", wallet.FormatAmount(o.Amount), cmp.Or(o.Address, "script "+o.Script), own)
	}
}

// payFlags are those of commands that plan a payment.
type payFlags struct {
	rate     string
	target   int
	all      bool
	subtract bool
	coins    []string
	label    string
	maxFee   string
	loose    bool
	final    bool
}

func (p *payFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.rate, "fee-rate", "", "fee rate in satoshi per virtual byte, as 1.5 (default: by --target)")
	f.IntVar(&p.target, "target", wallet.DefaultTarget, "blocks within which it shall be mined, by what the mempool holds")
	f.BoolVar(&p.all, "all", false, "send all there is; the one address without an amount gets it")
	f.BoolVar(&p.subtract, "subtract-fee", false, "take the fee from what is sent")
	f.StringSliceVar(&p.coins, "coin", nil, "spend this coin and no others, TXID:N; may be repeated")
	f.StringVar(&p.label, "label", "", "name for the payment")
	f.StringVar(&p.maxFee, "max-fee", "", "refuse to pay a higher fee, in coins (default 0.1)")
	f.BoolVar(&p.loose, "unconfirmed", false, "spend unconfirmed coins of others too")
	f.BoolVar(&p.final, "final", false, "do not signal that it may be replaced")
}

// request reads addresses and amounts.
func (p *payFlags) request(a []string) (api.WalletSend, error) {
	r := api.WalletSend{All: p.all, Target: p.target, SubtractFee: p.subtract, Coins: p.coins, Label: p.label, Unconfirmed: p.loose, Final: p.final}
	var err error
	if p.rate != "" {
		r.Target = 0
		if r.FeeRate, err = wallet.ParseRate(p.rate); err != nil {
			return r, usage(fmt.Errorf("--fee-rate: %w", err))
		}
	}
	if p.maxFee != "" {
		if r.MaxFee, err = wallet.ParseAmount(p.maxFee); err != nil {
			return r, usage(fmt.Errorf("--max-fee: %w", err))
		}
	}
	for len(a) > 0 {
		pay := api.WalletPay{Address: a[0]}
		switch {
		case len(a) > 1:
			if pay.Amount, err = wallet.ParseAmount(a[1]); err != nil {
				return r, usage(err)
			}
			a = a[2:]
		case p.all:
			a = a[1:]
		default:
			return r, usage(fmt.Errorf("%s: how much? An amount in coins follows each address, or --all", a[0]))
		}
		r.Outputs = append(r.Outputs, pay)
	}
	return r, nil
}

func (w *walletCommand) send() *cobra.Command {
	var p payFlags
	var dry bool
	cmd := &cobra.Command{
		Use: "send ADDRESS AMOUNT [ADDRESS AMOUNT…]", Short: "Pay one or several addresses", Args: args(cobra.MinimumNArgs(1)),
		Long: `send pays. AMOUNT is in coins, with up to eight digits behind the point. Before anything is signed it shows the fee and asks; --yes does not ask,
--dry-run only shows.`,
		Example: "  dunlin wallet send bcrt1q… 0.5\n  dunlin wallet send bcrt1q… --all --fee-rate 2\n  dunlin wallet send bcrt1q… 1 bcrt1p… 0.25 --target 2 --yes --passphrase-file secret.txt",
		RunE: func(cmd *cobra.Command, a []string) error {
			r, err := p.request(a)
			if err != nil {
				return err
			}
			return w.pay(cmd, dry, r.MaxFee, func(dry bool, maxFee int64, phrase string) (s api.WalletSent, err error) {
				again := r
				again.DryRun, again.Passphrase, again.MaxFee = dry, phrase, cmp.Or(maxFee, r.MaxFee)
				return s, w.call(cmd, http.MethodPost, "/send", again, &s)
			})
		},
	}
	p.add(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what it would be")
	w.passphraseFlag(cmd)
	w.yesFlag(cmd)
	return cmd
}

// pay shows what do would do, asks, and has it done. do gets the fee that was shown as a cap, limit (if it is not 0) at most.
func (w *walletCommand) pay(cmd *cobra.Command, dry bool, limit int64, do func(dry bool, maxFee int64, phrase string) (api.WalletSent, error)) error {
	s := newSecrets(cmd, w.file)
	ask := !w.yes && s.terminal() != nil
	if dry || ask {
		plan, err := do(true, 0, "")
		if err != nil {
			return err
		}
		if dry {
			return w.g.print(cmd, plan, func(out io.Writer) { printSent(out, &plan) })
		}
		printSent(cmd.ErrOrStderr(), &plan)
		if err := s.agree("Send it?"); err != nil {
			return err
		}
		most := plan.Fee + plan.Fee/5 // other coins may cost a little more
		if limit > 0 {
			most = min(most, limit)
		}
		return w.paySigned(cmd, s, most, do)
	}
	if !w.yes {
		return usage(errors.New("nobody is there to be asked: --yes sends it, --dry-run shows what it would be"))
	}
	return w.paySigned(cmd, s, 0, do)
}

func (w *walletCommand) paySigned(cmd *cobra.Command, s *secrets, maxFee int64, do func(bool, int64, string) (api.WalletSent, error)) error {
	phrase, err := w.unlocking(cmd, s)
	if err != nil {
		return err
	}
	sent, err := do(false, maxFee, phrase)
	if err != nil {
		return maybeSent(err)
	}
	return w.g.print(cmd, sent, func(out io.Writer) {
		fmt.Fprintln(out, sent.TxID)
		printWarnings(cmd, sent.Warnings)
	})
}

// maybeSent says of a payment without an answer that nobody knows: whoever sends it again may pay twice.
func maybeSent(err error) error {
	coded, ok := errors.AsType[*command.Error](err)
	if !ok || !errors.Is(err, api.ErrUnreachable) || errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return command.Exit(coded.Code, fmt.Errorf("%w\nthe payment may have been stored, and is sent then as soon as the node runs: look at dunlin wallet history before you send it again", coded.Err))
}

// unlocking returns the passphrase if the wallet is locked and one is to be had.
func (w *walletCommand) unlocking(cmd *cobra.Command, s *secrets) (string, error) {
	var i api.WalletInfo
	if err := w.call(cmd, http.MethodGet, "", nil, &i); err != nil {
		return "", err
	}
	if !i.Locked || w.file == "" && s.terminal() == nil {
		return "", nil // the node says what is wrong
	}
	return s.passphrase("Passphrase", false)
}

func printWarnings(cmd *cobra.Command, warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
	}
}

func printSent(out io.Writer, s *api.WalletSent) {
	t := newTable(out)
	printSides(t, s.Inputs, s.Outputs)
	fmt.Fprintf(t, "amount\t%s\n", wallet.FormatAmount(s.Amount))
	fmt.Fprintf(t, "fee\t%s, %s sat/vB for %d vB\n", wallet.FormatAmount(s.Fee), wallet.FormatRate(s.FeeRate), s.VSize)
	if s.Replaces != "" {
		fmt.Fprintf(t, "replaces\t%s\n", s.Replaces)
	}
	for _, warning := range s.Warnings {
		fmt.Fprintf(t, "warning\t%s\n", warning)
	}
	t.Flush()
}

func (w *walletCommand) bump() *cobra.Command {
	var rate, maxFee string
	var target int
	var dry bool
	cmd := &cobra.Command{
		Use: "bump TXID", Short: "Replace an unconfirmed payment by one that pays a higher fee", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			r := api.WalletBump{TxID: a[0], Target: target}
			var err error
			if rate != "" {
				r.Target = 0
				if r.FeeRate, err = wallet.ParseRate(rate); err != nil {
					return usage(fmt.Errorf("--fee-rate: %w", err))
				}
			}
			if maxFee != "" {
				if r.MaxFee, err = wallet.ParseAmount(maxFee); err != nil {
					return usage(fmt.Errorf("--max-fee: %w", err))
				}
			}
			return w.pay(cmd, dry, r.MaxFee, func(dry bool, maxFee int64, phrase string) (s api.WalletSent, err error) {
				again := r
				again.DryRun, again.Passphrase, again.MaxFee = dry, phrase, cmp.Or(maxFee, r.MaxFee)
				return s, w.call(cmd, http.MethodPost, "/bump", again, &s)
			})
		},
	}
	cmd.Flags().StringVar(&rate, "fee-rate", "", "fee rate in satoshi per virtual byte (default: by --target, and enough to replace it)")
	cmd.Flags().IntVar(&target, "target", wallet.DefaultTarget, "blocks within which it shall be mined")
	cmd.Flags().StringVar(&maxFee, "max-fee", "", "refuse to pay a higher fee, in coins (default 0.1)")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what it would be")
	w.passphraseFlag(cmd)
	w.yesFlag(cmd)
	return cmd
}

func (w *walletCommand) abandon() *cobra.Command {
	return &cobra.Command{
		Use: "abandon TXID", Short: "Give an unconfirmed payment up that is not in the mempool; its coins are free again", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			var p api.WalletPayment
			if err := w.call(cmd, http.MethodPost, "/abandon", api.WalletTxRequest{TxID: a[0]}, &p); err != nil {
				return err
			}
			return w.g.print(cmd, p, func(out io.Writer) { fmt.Fprintln(out, p.Explain) })
		},
	}
}

func (w *walletCommand) lock() *cobra.Command {
	return leaf("lock", "Seal the keys", func(cmd *cobra.Command) error {
		var i api.WalletInfo
		if err := w.call(cmd, http.MethodPost, "/lock", nil, &i); err != nil {
			return err
		}
		return w.g.print(cmd, i, func(out io.Writer) { fmt.Fprintln(out, "locked") })
	})
}

func (w *walletCommand) unlock() *cobra.Command {
	var how time.Duration
	var staking bool
	cmd := leaf("unlock", "Let the wallet sign for a time", func(cmd *cobra.Command) error {
		switch {
		case staking && !cmd.Flags().Changed("for"):
			how = 0
		case how < time.Second:
			return usage(fmt.Errorf("--for %s: at least 1s", how))
		}
		phrase, err := newSecrets(cmd, w.file).passphrase("Passphrase", false)
		if err != nil {
			return err
		}
		var i api.WalletInfo
		if err := w.call(cmd, http.MethodPost, "/unlock", api.WalletUnlock{Passphrase: phrase, ForS: how.Seconds(), Staking: staking}, &i); err != nil {
			return err
		}
		return w.g.print(cmd, i, func(out io.Writer) {
			switch {
			case !staking:
				fmt.Fprintf(out, "unlocked for %s\n", how)
			case how == 0:
				fmt.Fprintln(out, "unlocked for staking only, until it is locked")
			default:
				fmt.Fprintf(out, "unlocked for staking only, for %s\n", how)
			}
		})
	})
	cmd.Flags().DurationVar(&how, "for", 5*time.Minute, "how long; with --staking by default until it is locked")
	cmd.Flags().BoolVar(&staking, "staking", false, "let it seal blocks of a proof-of-stake network, and spend nothing")
	w.passphraseFlag(cmd)
	return cmd
}

func (w *walletCommand) passwd() *cobra.Command {
	var newFile string
	cmd := leaf("passwd", "Change the passphrase", func(cmd *cobra.Command) error {
		s := newSecrets(cmd, w.file)
		current, err := s.passphrase("Present passphrase", false)
		if err != nil {
			return err
		}
		fresh := s
		if newFile != "" {
			fresh = newSecrets(cmd, newFile)
		} else if s.file != "" {
			fresh = &secrets{cmd: cmd, in: s.in}
		}
		next, err := fresh.passphrase("New passphrase", true)
		if err != nil {
			return err
		}
		if err := wallet.CheckPassphrase([]byte(next)); err != nil {
			return err
		}
		var i api.WalletInfo
		if err := w.call(cmd, http.MethodPost, "/passphrase", api.WalletPassphrase{Old: current, New: next}, &i); err != nil {
			return err
		}
		return w.g.print(cmd, i, func(out io.Writer) {
			fmt.Fprintln(out, "changed; copies and backups made before still open by the old one")
		})
	})
	w.passphraseFlag(cmd)
	cmd.Flags().StringVar(&newFile, "new-passphrase-file", "", "read the new passphrase from the first line of a file")
	return cmd
}

func (w *walletCommand) rescan() *cobra.Command {
	var from int32
	var stop, wait bool
	cmd := leaf("rescan", "Look through the chain again for payments", func(cmd *cobra.Command) error {
		var i api.WalletInfo
		method, in := http.MethodPost, any(api.WalletRescan{FromHeight: from})
		if stop {
			method, in = http.MethodDelete, nil
		}
		if err := w.call(cmd, method, "/rescan", in, &i); err != nil {
			return err
		}
		for wait && i.Scan.State != wallet.ScanIdle && i.Scan.State != wallet.ScanStopped && pause(cmd.Context(), time.Second/5) {
			if err := w.call(cmd, http.MethodGet, "", nil, &i); err != nil {
				return err
			}
		}
		return w.printInfo(cmd, &i)
	})
	cmd.Flags().Int32Var(&from, "from-height", 0, "height of the first block to look at")
	cmd.Flags().BoolVar(&stop, "stop", false, "give the search up that is under way")
	cmd.Flags().BoolVar(&wait, "wait", false, "return when it is done")
	return cmd
}

func (w *walletCommand) coins(lock bool) *cobra.Command {
	name, short, path := "lockcoin", "Set coins aside: no payment takes them unless they are named", "/coins/lock"
	if !lock {
		name, short, path = "unlockcoin", "Free coins that were set aside", "/coins/unlock"
	}
	var all bool
	cmd := &cobra.Command{
		Use: name + " TXID:N…", Short: short,
		Args: args(func(cmd *cobra.Command, a []string) error {
			if !lock && all {
				return cobra.NoArgs(cmd, a)
			}
			return cobra.MinimumNArgs(1)(cmd, a)
		}),
		RunE: func(cmd *cobra.Command, a []string) error {
			var l api.WalletLocked
			if err := w.call(cmd, http.MethodPost, path, api.WalletCoinsRequest{Coins: append([]string{}, a...)}, &l); err != nil {
				return err
			}
			return w.g.print(cmd, l.Locked, func(out io.Writer) {
				for _, c := range l.Locked {
					fmt.Fprintln(out, c)
				}
			})
		},
	}
	if !lock {
		cmd.Flags().BoolVar(&all, "all", false, "all of them")
	}
	return cmd
}

func (w *walletCommand) label() *cobra.Command {
	return &cobra.Command{
		Use: "label ADDRESS|TXID TEXT", Short: "Name an address or a payment; an empty text removes the name", Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			r := api.WalletLabel{Label: a[1]}
			if _, err := wallet.ParseTxID(a[0]); err == nil {
				r.TxID = a[0]
			} else {
				r.Address = a[0]
			}
			return w.call(cmd, http.MethodPut, "/label", r, nil)
		},
	}
}

func (w *walletCommand) fee() *cobra.Command {
	var target int
	cmd := leaf("fee", "Print the fee rate to be mined within so many blocks, by what the mempool holds", func(cmd *cobra.Command) error {
		var f api.WalletFee
		if err := w.call(cmd, http.MethodGet, "/fee?target="+strconv.Itoa(target), nil, &f); err != nil {
			return err
		}
		return w.g.print(cmd, f, func(out io.Writer) { fmt.Fprintf(out, "%s sat/vB\n", wallet.FormatRate(f.FeeRate)) })
	})
	cmd.Flags().IntVar(&target, "target", wallet.DefaultTarget, "blocks")
	return cmd
}

func (w *walletCommand) imports() *cobra.Command {
	var r api.WalletImport
	var wif bool
	cmd := &cobra.Command{
		Use: "import [DESCRIPTOR|XPUB]", Short: "Watch a descriptor or an account, or take over a private key", Args: args(cobra.MaximumNArgs(1)),
		Long: `import has the wallet watch what a descriptor (BIP380) or an account's extended public key pays. Private keys, in a descriptor or in the wallet
import format (--wif), are read from standard input or typed on a terminal, never taken from the command line, and sealed in the vault.
The chain is looked through from --from-height on.`,
		Example: "  dunlin wallet import 'wsh(sortedmulti(2,[…]tpub…/<0;1>/*,[…]tpub…/<0;1>/*))' --from-height 1000\n  dunlin wallet import tpub…\n  dunlin wallet import --wif < key.txt",
		RunE: func(cmd *cobra.Command, a []string) error {
			s := newSecrets(cmd, w.file)
			var text string
			switch {
			case len(a) == 1 && wif:
				return usage(errors.New("a private key is not taken from the command line, where others can read it: type it, or give it on standard input"))
			case len(a) == 1:
				text = a[0]
			default:
				var err error
				if f := s.terminal(); f != nil {
					text, err = s.hidden(f, "Descriptor or key (not shown)")
				} else {
					text, err = s.line("Descriptor or key")
				}
				if err != nil {
					return err
				}
			}
			switch text = strings.TrimSpace(text); {
			case wif:
				r.WIF = text
			case strings.Contains(text, "("):
				r.Descriptor = text
			default:
				r.XPub = text
			}
			if len(a) == 1 && strings.Contains(text, "prv") {
				return usage(errors.New("a private key is not taken from the command line, where others can read it: type it, or give it on standard input"))
			}
			if wif || strings.Contains(text, "prv") {
				phrase, err := w.unlocking(cmd, s)
				if err != nil {
					return err
				}
				r.Passphrase = phrase
			}
			var d api.WalletDescriptors
			if err := w.call(cmd, http.MethodPost, "/import", r, &d); err != nil {
				return err
			}
			return w.g.print(cmd, d.Descriptors, func(out io.Writer) { printDescriptors(out, d.Descriptors) })
		},
	}
	cmd.Flags().BoolVar(&wif, "wif", false, "a private key in the wallet import format")
	cmd.Flags().StringVar(&r.Label, "label", "", "name for it")
	cmd.Flags().Int32Var(&r.FromHeight, "from-height", 0, "look through the chain from there on; -1: do not")
	cmd.Flags().BoolVar(&r.Active, "active", false, "new addresses come from it")
	cmd.Flags().BoolVar(&r.Change, "change", false, "it is for change")
	w.passphraseFlag(cmd)
	return cmd
}

func (w *walletCommand) descriptors() *cobra.Command {
	return leaf("descriptors", "List where addresses come from, without keys", func(cmd *cobra.Command) error {
		var d api.WalletDescriptors
		if err := w.call(cmd, http.MethodGet, "/descriptors", nil, &d); err != nil {
			return err
		}
		return w.g.print(cmd, d.Descriptors, func(out io.Writer) { printDescriptors(out, d.Descriptors) })
	})
}

func printDescriptors(out io.Writer, list []api.WalletDescriptor) {
	t := newTable(out, "ID", "KIND", "USE", "NEXT", "DESCRIPTOR")
	for _, d := range list {
		use := "receive"
		if d.Change {
			use = "change"
		}
		if d.WatchOnly {
			use += ", watched"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", d.ID, d.Kind, use, d.Next, d.Descriptor)
	}
	t.Flush()
}
