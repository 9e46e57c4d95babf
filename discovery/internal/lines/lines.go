// Package lines keeps small files of JSON lines that survive damage: each line is a JSON text, a
// space and the CRC32C of the text in eight hex digits. A damaged line costs itself only.
package lines

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Limits of a file and of a line, its checksum included. The largest address book, of 65,536 peers with the eight
// addresses each that they may have, takes some 50 MiB.
const (
	MaxFileBytes = 64 << 20
	MaxLineBytes = 8 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Read returns the intact lines of the file at path and the number of
// damaged ones. A file that does not exist has no lines. Of a file longer than
// MaxFileBytes only the first part is read; the rest counts as one damaged line.
func Read(path string) (lines [][]byte, damaged int, err error) {
	f, err := os.Open(path) //nolint:gosec // The path is the operator's directory and a constant name.
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(io.LimitReader(f, MaxFileBytes), MaxLineBytes+1)
	for {
		line, err := in.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) { // too long: pass over the rest of it
			_, err = in.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, fmt.Errorf("read %s: %w", path, err)
		}
		line = bytes.TrimSuffix(line, []byte{'\n'})
		if text, ok := checkLine(line); ok {
			lines = append(lines, bytes.Clone(text))
		} else if len(line) > 0 {
			damaged++
		}
		if err != nil {
			break
		}
	}
	if info, err := f.Stat(); err == nil && info.Size() > MaxFileBytes {
		damaged++
	}
	return lines, damaged, nil
}

func checkLine(line []byte) (text []byte, ok bool) {
	i := len(line) - 9
	if i < 1 || len(line) > MaxLineBytes || line[i] != ' ' {
		return nil, false
	}
	sum, err := strconv.ParseUint(string(line[i+1:]), 16, 32)
	return line[:i], err == nil && uint32(sum) == crc32.Checksum(line[:i], castagnoli)
}

// Write replaces the file at path by lines: written beside it, synced and
// renamed, so that a crash leaves either the old file or the new one. A line that is too long is left out, and so is what
// no longer fits into MaxFileBytes: the most important lines come first.
func Write(path string, lines [][]byte) error {
	var buf bytes.Buffer
	for _, l := range lines {
		if len(l)+9 > MaxLineBytes {
			continue
		}
		if buf.Len()+len(l)+10 > MaxFileBytes {
			break
		}
		fmt.Fprintf(&buf, "%s %08x\n", l, crc32.Checksum(l, castagnoli))
	}
	tmp := path + ".tmp"                                                  // one name, so that a crash leaves one file at most
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // The operator's directory.
	if err != nil {
		return err
	}
	_, err = f.Write(buf.Bytes())
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(tmp))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // The operator's directory.
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// KeepDamaged leaves a copy of a damaged file for the operator to look at. It
// replaces the copy of an earlier damage.
func KeepDamaged(path string) error {
	err := os.Remove(path + ".damaged")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Link(path, path+".damaged")
}
