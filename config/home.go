package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// DefaultHome is the home of a chain when none is given: dunlin/<chain id> in
// XDG_DATA_HOME if that is an absolute path, else in ~/.local/share. Env is as
// os.Environ gives it.
func DefaultHome(env []string, chainID string) (string, error) {
	var xdg, user string
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "XDG_DATA_HOME="); ok {
			xdg = v
		}
		if v, ok := strings.CutPrefix(e, "HOME="); ok {
			user = v
		}
	}
	// The XDG specification says that a relative path is to be ignored.
	if filepath.IsAbs(xdg) {
		return filepath.Join(xdg, "dunlin", chainID), nil
	}
	if !filepath.IsAbs(user) {
		return "", errors.New("home: neither --home, DUNLIN_HOME, XDG_DATA_HOME nor HOME says where; give --home DIR")
	}
	return filepath.Join(user, ".local", "share", "dunlin", chainID), nil
}

// EnsureHome makes the folder and its parents, 0700, if missing. It leaves the
// mode of an existing folder alone: it may be a mount point or the operator's.
func EnsureHome(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("home: %w", err)
	}
	return nil
}

// WriteFile writes the template as <home>/config.toml, 0600, unless there is one.
// It says whether it did.
func (c *Config) WriteFile() (bool, error) {
	name := filepath.Join(c.Home, FileName)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("config file: %w", err)
	}
	if err := errors.Join(WriteTemplate(f, c), f.Close()); err != nil {
		// A torn file would be taken for the operator's at the next start.
		return false, errors.Join(fmt.Errorf("config file %s: %w", name, err), os.Remove(name))
	}
	return true, nil
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
