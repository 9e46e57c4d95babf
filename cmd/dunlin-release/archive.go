package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// An entry is a file of an archive.
type entry struct {
	data       []byte
	executable bool
}

func (e entry) mode() int64 {
	if e.executable {
		return 0o755
	}
	return 0o644
}

// pack makes the archive that the platform's people expect, with everything below one folder. The bytes follow from content and time alone: entries
// are sorted, belong to nobody, and have the time given.
func pack(goos, folder string, content map[string]entry, at time.Time) (archive []byte, extension string, err error) {
	if goos == "windows" {
		archive, err = packZip(folder, content, at)
		return archive, ".zip", err
	}
	archive, err = packTar(folder, content, at)
	return archive, ".tar.gz", err
}

func packTar(folder string, content map[string]entry, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression) // its header has no time and no name
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(content)) {
		e := content[name]
		h := &tar.Header{Typeflag: tar.TypeReg, Name: folder + "/" + name, Size: int64(len(e.data)), Mode: e.mode(), ModTime: at}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func packZip(folder string, content map[string]entry, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	w.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) { return flate.NewWriter(out, flate.BestCompression) })
	for _, name := range slices.Sorted(maps.Keys(content)) {
		e := content[name]
		h := &zip.FileHeader{Name: folder + "/" + name, Method: zip.Deflate, Modified: at.UTC()}
		h.SetMode(os.FileMode(e.mode())) //nolint:gosec // nine bits
		f, err := w.CreateHeader(h)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, err := f.Write(e.data); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// maxEntryBytes and maxEntries bound what unpack takes: it also reads what was downloaded.
const (
	maxEntryBytes = 256 << 20
	maxEntries    = 10_000
)

// unpack reads an archive of a release: its one folder, and the files below it.
func unpack(name string, archive []byte) (folder string, content map[string]entry, err error) {
	content = map[string]entry{}
	add := func(path string, mode int64, from io.Reader) error {
		top, rest, below := strings.Cut(path, "/")
		switch {
		case !below || !filepath.IsLocal(top) || !filepath.IsLocal(rest):
			return fmt.Errorf("%q does not belong into the archive's folder", path)
		case folder != "" && folder != top:
			return fmt.Errorf("two folders, %q and %q", folder, top)
		case len(content) == maxEntries:
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		folder = top
		data, err := io.ReadAll(io.LimitReader(from, maxEntryBytes+1))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if len(data) > maxEntryBytes {
			return fmt.Errorf("%s is larger than %d bytes", path, maxEntryBytes)
		}
		if _, twice := content[rest]; twice {
			return fmt.Errorf("%s is there twice", path)
		}
		content[rest] = entry{data, mode&0o100 != 0}
		return nil
	}
	if strings.HasSuffix(name, ".zip") {
		z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
		if err != nil {
			return "", nil, err
		}
		for _, f := range z.File {
			from, err := f.Open()
			if err != nil {
				return "", nil, fmt.Errorf("%s: %w", f.Name, err)
			}
			if err := errors.Join(add(f.Name, int64(f.Mode()), from), from.Close()); err != nil {
				return "", nil, err
			}
		}
		return folder, content, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return "", nil, err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return folder, content, nil
		}
		if err != nil {
			return "", nil, err
		}
		if h.Typeflag != tar.TypeReg {
			return "", nil, fmt.Errorf("%s is no plain file", h.Name)
		}
		if err := add(h.Name, h.Mode, r); err != nil {
			return "", nil, err
		}
	}
}

// untar writes what git archive gives into a folder.
func untar(from io.Reader, dir string) error {
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("git archive: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if !filepath.IsLocal(h.Name) {
			return fmt.Errorf("git archive: path %q", h.Name)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755) //nolint:gosec // sources
		case tar.TypeReg:
			mode := os.FileMode(0o644)
			if h.Mode&0o100 != 0 {
				mode = 0o755
			}
			err = writeFrom(path, r, mode)
		default:
			err = fmt.Errorf("git archive: %s is neither file nor folder", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

func writeFrom(path string, from io.Reader, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
