package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// maxSecretBytes bounds what is read as a passphrase or words.
const maxSecretBytes = 4 << 10

// secrets reads what must not be on a command line: from a file, from standard input, or
// from a terminal that does not show it.
type secrets struct {
	cmd  *cobra.Command
	file string        // --passphrase-file; empty: standard input
	in   *bufio.Reader // of standard input
}

func newSecrets(cmd *cobra.Command, file string) *secrets {
	return &secrets{cmd: cmd, file: file, in: bufio.NewReader(io.LimitReader(cmd.InOrStdin(), maxSecretBytes))}
}

// terminal is standard input, if a person types there.
func (s *secrets) terminal() *os.File {
	if f, ok := s.cmd.InOrStdin().(*os.File); ok && isTerminal(f) {
		return f
	}
	return nil
}

// passphrase reads one; twice on a terminal if it is new.
func (s *secrets) passphrase(prompt string, fresh bool) (string, error) {
	if s.file != "" && s.file != "-" {
		raw, err := readFewBytes(s.file)
		if err != nil {
			return "", fmt.Errorf("--passphrase-file: %w", err)
		}
		line, _, _ := strings.Cut(string(raw), "\n")
		return strings.TrimSuffix(line, "\r"), nil
	}
	f := s.terminal()
	if f == nil {
		return s.line(prompt)
	}
	first, err := s.hidden(f, prompt)
	if err != nil || !fresh {
		return first, err
	}
	again, err := s.hidden(f, prompt+" again")
	if err != nil {
		return "", err
	}
	if first != again {
		return "", errors.New("the two are not the same")
	}
	return first, nil
}

// line reads a line of standard input.
func (s *secrets) line(what string) (string, error) {
	if f := s.terminal(); f != nil {
		fmt.Fprintf(s.cmd.ErrOrStderr(), "%s: ", what)
	}
	line, err := s.in.ReadString('\n')
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		if err == nil || errors.Is(err, io.EOF) {
			err = errors.New("nothing came on standard input")
		}
		return "", usage(fmt.Errorf("%s: %w", strings.ToLower(what), err))
	}
	return line, nil
}

// hidden reads a line from a terminal without showing it.
func (s *secrets) hidden(f *os.File, prompt string) (string, error) {
	fmt.Fprintf(s.cmd.ErrOrStderr(), "%s: ", prompt)
	show, err := hideInput(f)
	if err != nil {
		return "", err
	}
	line, err := s.in.ReadString('\n')
	show()
	fmt.Fprintln(s.cmd.ErrOrStderr())
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.ToLower(prompt), err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// agree asks on a terminal whether to go on; what nobody can be asked is agreed to only with --yes.
func (s *secrets) agree(question string) error {
	if s.terminal() == nil {
		return usage(errors.New("nobody is there to be asked: --yes says that it shall be done"))
	}
	fmt.Fprintf(s.cmd.ErrOrStderr(), "%s [y/N] ", question)
	line, err := s.in.ReadString('\n')
	if err != nil && line == "" {
		return fmt.Errorf("not done: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(line)); a != "y" && a != "yes" {
		return errors.New("not done")
	}
	return nil
}

func readFewBytes(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err == nil && len(raw) > maxSecretBytes {
		err = fmt.Errorf("%s has more than %d bytes", name, maxSecretBytes)
	}
	return raw, err
}
