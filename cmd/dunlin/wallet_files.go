package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"dunlin/internal/api"
	"dunlin/internal/wallet"
)

// maxWalletFile bounds a backup or a PSBT that is read.
const maxWalletFile = 24 << 20

func readWalletFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxWalletFile+1))
	if err == nil && len(raw) > maxWalletFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxWalletFile)
	}
	return raw, err
}

func readBackup(name string) (string, error) {
	raw, err := readWalletFile(name)
	return base64.StdEncoding.EncodeToString(raw), err
}

// writeNewFile writes a file that must not be there yet, whole or not at all, for its owner only.
func writeNewFile(name string, data []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".dunlin-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Chmod(0o600), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, never takes the place of what is there.
	if err := os.Link(tmp.Name(), name); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; it is never overwritten", name)
	} else if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (w *walletCommand) backup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write an encrypted copy of keys, labels and payments", Args: args(cobra.ExactArgs(1)),
		Long: `backup writes a file that dunlin wallet restore brings the wallet back from, with its labels and history. It is encrypted by the wallet's passphrase,
which is asked for. The words alone bring all coins back too, but no labels and no descriptors that were imported. A file that
is there is never overwritten.`,
		RunE: func(cmd *cobra.Command, a []string) error {
			if _, err := os.Lstat(a[0]); err == nil {
				return fmt.Errorf("%s is there already; it is never overwritten", a[0])
			}
			phrase, err := newSecrets(cmd, w.file).passphrase("Passphrase", false)
			if err != nil {
				return err
			}
			var b api.WalletBackup
			if err := w.call(cmd, http.MethodPost, "/backup", api.WalletBackupRequest{Passphrase: phrase}, &b); err != nil {
				return err
			}
			raw, err := base64.StdEncoding.DecodeString(b.Data)
			if err != nil {
				return fmt.Errorf("backup: %w", err)
			}
			if err := writeNewFile(a[0], raw); err != nil {
				return err
			}
			v := struct {
				File   string `json:"file"`
				Bytes  int    `json:"bytes"`
				SHA256 string `json:"sha256"`
			}{a[0], len(raw), b.SHA256}
			return w.g.print(cmd, v, func(out io.Writer) { fmt.Fprintf(out, "%s: %d bytes, sha256 %s\n", v.File, v.Bytes, v.SHA256) })
		},
	}
	w.passphraseFlag(cmd)
	return cmd
}

func (w *walletCommand) psbt() *cobra.Command {
	return group("psbt", "Transactions on their way between signers (BIP174)",
		w.psbtCreate(), w.psbtSign(), w.psbtCombine(), w.psbtFinalise(), w.psbtShow(), w.psbtSend())
}

// readPSBT reads a packet: the text itself, a file of text or bytes, or - for standard input.
func readPSBT(cmd *cobra.Command, arg string) (string, error) {
	var raw []byte
	var err error
	switch {
	case arg == "-":
		raw, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxWalletFile))
	case strings.HasPrefix(arg, "cHNidP"):
		return arg, nil
	default:
		raw, err = readWalletFile(arg)
	}
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(string(raw), "psbt\xff") {
		return base64.StdEncoding.EncodeToString(raw), nil
	}
	return strings.TrimSpace(string(raw)), nil
}

// outFlag is where a packet is written.
func outFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "file", "", "write the PSBT into a new file, as bytes, in place of printing it")
}

// givePSBT prints a packet or writes it.
func (w *walletCommand) givePSBT(cmd *cobra.Command, file, psbt string, v any, more func(io.Writer)) error {
	if file != "" {
		raw, err := base64.StdEncoding.DecodeString(psbt)
		if err != nil {
			return fmt.Errorf("psbt: %w", err)
		}
		if err := writeNewFile(file, raw); err != nil {
			return err
		}
	}
	return w.g.print(cmd, v, func(out io.Writer) {
		if file == "" {
			fmt.Fprintln(out, psbt)
		}
		more(cmd.ErrOrStderr())
	})
}

func (w *walletCommand) psbtCreate() *cobra.Command {
	var p payFlags
	var file string
	cmd := &cobra.Command{
		Use: "create ADDRESS AMOUNT [ADDRESS AMOUNT…]", Short: "Plan a payment for others to sign", Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			r, err := p.request(a)
			if err != nil {
				return err
			}
			var s api.WalletSent
			if err := w.call(cmd, http.MethodPost, "/psbt/create", r, &s); err != nil {
				return err
			}
			return w.givePSBT(cmd, file, s.PSBT, s, func(out io.Writer) { printSent(out, &s) })
		},
	}
	p.add(cmd)
	outFlag(cmd, &file)
	return cmd
}

func (w *walletCommand) psbtSign() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "sign PSBT|FILE|-", Short: "Add this wallet's signatures", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			text, err := readPSBT(cmd, a[0])
			if err != nil {
				return err
			}
			phrase, err := w.unlocking(cmd, newSecrets(cmd, w.file))
			if err != nil {
				return err
			}
			var p api.WalletPSBT
			if err := w.call(cmd, http.MethodPost, "/psbt/sign", api.WalletPSBTRequest{PSBT: text, Passphrase: phrase}, &p); err != nil {
				return err
			}
			return w.givePSBT(cmd, file, p.PSBT, p, func(out io.Writer) {
				fmt.Fprintf(out, "%d signatures added; %s\n", p.Signed, map[bool]string{true: "complete", false: "more are needed"}[p.Complete])
			})
		},
	}
	outFlag(cmd, &file)
	w.passphraseFlag(cmd)
	return cmd
}

func (w *walletCommand) psbtCombine() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "combine PSBT|FILE…", Short: "Gather the signatures of several copies", Args: args(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			var r api.WalletPSBTs
			for _, arg := range a {
				text, err := readPSBT(cmd, arg)
				if err != nil {
					return err
				}
				r.PSBTs = append(r.PSBTs, text)
			}
			var p api.WalletPSBT
			if err := w.call(cmd, http.MethodPost, "/psbt/combine", r, &p); err != nil {
				return err
			}
			return w.givePSBT(cmd, file, p.PSBT, p, func(io.Writer) {})
		},
	}
	outFlag(cmd, &file)
	return cmd
}

func (w *walletCommand) psbtFinalise() *cobra.Command {
	return &cobra.Command{
		Use: "finalise PSBT|FILE|-", Aliases: []string{"finalize"}, Short: "Make the transaction, and print it as hex", Args: args(cobra.ExactArgs(1)), //nolint:misspell // Core's spelling
		RunE: func(cmd *cobra.Command, a []string) error {
			text, err := readPSBT(cmd, a[0])
			if err != nil {
				return err
			}
			var p api.WalletPSBT
			if err := w.call(cmd, http.MethodPost, "/psbt/finalise", api.WalletPSBTRequest{PSBT: text}, &p); err != nil {
				return err
			}
			if !p.Complete {
				return errors.New("signatures are missing: dunlin wallet psbt show says which")
			}
			return w.g.print(cmd, p, func(out io.Writer) { fmt.Fprintln(out, p.Hex) })
		},
	}
}

func (w *walletCommand) psbtShow() *cobra.Command {
	return &cobra.Command{
		Use: "show PSBT|FILE|-", Short: "Print what it would do and what it lacks", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			text, err := readPSBT(cmd, a[0])
			if err != nil {
				return err
			}
			var v api.WalletPSBTView
			if err := w.call(cmd, http.MethodPost, "/psbt/show", api.WalletPSBTRequest{PSBT: text}, &v); err != nil {
				return err
			}
			return w.g.print(cmd, v, func(out io.Writer) {
				t := newTable(out)
				printSides(t, v.Inputs, v.Outputs)
				if v.Fee != nil {
					fmt.Fprintf(t, "fee\t%s, %s sat/vB\n", wallet.FormatAmount(*v.Fee), wallet.FormatRate(v.FeeRate))
				}
				fmt.Fprintf(t, "for this wallet\t%s\n", wallet.FormatAmount(v.Amount))
				fmt.Fprintf(t, "complete\t%t\n", v.Complete)
				for i, why := range v.Missing {
					if why != "" {
						fmt.Fprintf(t, "input %d\t%s\n", i, why)
					}
				}
				t.Flush()
			})
		},
	}
}

func (w *walletCommand) psbtSend() *cobra.Command {
	var label string
	cmd := &cobra.Command{
		Use: "send PSBT|FILE|-", Short: "Finalise it and send the transaction", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			text, err := readPSBT(cmd, a[0])
			if err != nil {
				return err
			}
			if s := newSecrets(cmd, ""); !w.yes && a[0] != "-" && s.terminal() != nil {
				var v api.WalletPSBTView
				if err := w.call(cmd, http.MethodPost, "/psbt/show", api.WalletPSBTRequest{PSBT: text}, &v); err != nil {
					return err
				}
				t := newTable(cmd.ErrOrStderr())
				printSides(t, v.Inputs, v.Outputs)
				if v.Fee != nil {
					fmt.Fprintf(t, "fee\t%s\n", wallet.FormatAmount(*v.Fee))
				}
				t.Flush()
				if err := s.agree("Send it?"); err != nil {
					return err
				}
			}
			var sent api.WalletSent
			if err := w.call(cmd, http.MethodPost, "/psbt/send", api.WalletPSBTRequest{PSBT: text, Label: label}, &sent); err != nil {
				return err
			}
			return w.g.print(cmd, sent, func(out io.Writer) { fmt.Fprintln(out, sent.TxID) })
		},
	}
	cmd.Flags().StringVar(&label, "label", "", "name for the payment")
	w.yesFlag(cmd)
	return cmd
}
