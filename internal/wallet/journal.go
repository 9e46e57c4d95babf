package wallet

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The journal is one append-only file of batches (docs/storage.md):
//
//	file  = magic, batch…
//	batch = payload length u32, CRC32C of the payload u32, payload (little-endian)
//	payload = entry…
//	entry = key length uvarint, key, 0 (deleted) or value length + 1 uvarint, value
//
// A batch counts whole or not at all. Keys are in memory with the places of their
// values; values are read from the file. It is not safe for concurrent use.
const (
	journalMagic = "dunlinW1"
	batchHeader  = 8
	// maxBatchBytes bounds what a damaged length can make the reader allocate.
	maxBatchBytes = 64 << 20
	// compactBytes is the size below which a journal is never written anew.
	compactBytes = 4 << 20
	// copyBytes is the size of the batches of a journal that is written anew.
	copyBytes = 1 << 20
	// bigBatch is what is written as one batch at most, if it has more than one entry.
	bigBatch = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A change is a new value of a key, or its removal.
type change struct {
	key   string
	value []byte // nil: deleted
}

// span is where a value lies in the file.
type span struct {
	at int64
	n  int
}

type journal struct {
	path string
	f    *os.File
	end  int64 // of the last whole batch
	live int64 // bytes of the entries that count
	at   map[string]span
	err  error // the first write that failed and could not be taken back
	// tooBig is the size below which writing it anew is not tried again: there was no room.
	tooBig int64
}

// A cut says that the end of a journal could not be read.
type cut struct {
	at    int64  // everything before it counts
	lost  int64  // bytes behind it
	saved string // where they were put; empty: they were the beginning of one batch that was being written
}

// openJournal opens or makes a journal. What a crash left half written at the end is
// cut off. A batch that is damaged with others behind it ends what can be trusted:
// the whole file is kept beside the new one, and the cut says so.
func openJournal(path string) (*journal, *cut, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("wallet journal: %w", err)
	}
	j := &journal{path: path, f: f, at: make(map[string]span)}
	c, err := j.load()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("wallet journal %s: %w", path, err), f.Close())
	}
	return j, c, nil
}

func (j *journal) load() (*cut, error) {
	info, err := j.f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	if size < int64(len(journalMagic)) { // new, or a crash while it was made
		if err := j.f.Truncate(0); err != nil {
			return nil, err
		}
		if _, err := j.f.WriteAt([]byte(journalMagic), 0); err != nil {
			return nil, err
		}
		j.end = int64(len(journalMagic))
		return nil, errors.Join(j.f.Sync(), syncDir(filepath.Dir(j.path)))
	}
	r := bufio.NewReaderSize(io.NewSectionReader(j.f, 0, size), 1<<20)
	magic := make([]byte, len(journalMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, err
	}
	if string(magic) != journalMagic {
		return nil, fmt.Errorf("is no wallet journal of this version (begins with %q)", magic)
	}
	j.end = int64(len(journalMagic))
	for j.end < size {
		var head [batchHeader]byte
		_, err := io.ReadFull(r, head[:])
		n := int64(binary.LittleEndian.Uint32(head[:]))
		whole := err == nil && n <= maxBatchBytes && j.end+batchHeader+n <= size
		if !whole {
			// A length that points behind the end is what a crash leaves, or a damaged
			// length with good batches behind it: the search below tells.
			return j.cutOff(size)
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(r, payload); err != nil {
			return nil, err
		}
		entries, ok := decodeBatch(payload)
		if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(head[4:]) || !ok {
			return j.cutOff(size)
		}
		j.note(j.end+batchHeader, entries)
		j.end += batchHeader + n
	}
	return nil, nil //nolint:nilnil // nothing was cut
}

// cutOff ends the journal at end. A single batch at the end that was not written whole
// is no loss: nobody was told that it was there. Anything else is kept for people.
func (j *journal) cutOff(size int64) (*cut, error) {
	c := &cut{at: j.end, lost: size - j.end}
	good, err := j.batchBehind(size)
	if err != nil {
		return nil, err
	}
	if good {
		for n := 1; ; n++ {
			c.saved = fmt.Sprintf("%s.damaged-%d", j.path, n)
			err := copyFile(j.path, c.saved)
			if errors.Is(err, fs.ErrExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			break
		}
	}
	if err := j.f.Truncate(j.end); err != nil {
		return nil, err
	}
	return c, j.f.Sync()
}

// batchBehind says whether a whole batch lies anywhere behind the first bad one.
func (j *journal) batchBehind(size int64) (bool, error) {
	if size-j.end > maxBatchBytes {
		return true, nil // more than one batch can have
	}
	rest := make([]byte, size-j.end)
	if _, err := j.f.ReadAt(rest, j.end); err != nil {
		return false, err
	}
	for i := 1; i+batchHeader <= len(rest); i++ {
		n := int(binary.LittleEndian.Uint32(rest[i:]))
		if n < 2 || n > len(rest)-i-batchHeader {
			continue
		}
		payload := rest[i+batchHeader : i+batchHeader+n]
		if _, ok := decodeBatch(payload); ok && crc32.Checksum(payload, castagnoli) == binary.LittleEndian.Uint32(rest[i+4:]) {
			return true, nil
		}
	}
	return false, nil
}

// placed is an entry of a batch: where its value begins in the payload.
type placed struct {
	key     string
	at, n   int
	deleted bool
}

func decodeBatch(payload []byte) (entries []placed, ok bool) {
	uvarint := func(at int) (int, int, bool) {
		v, n := binary.Uvarint(payload[at:])
		if n <= 0 || v > math.MaxInt32 {
			return 0, 0, false
		}
		return int(v), at + n, true
	}
	for at := 0; at < len(payload); {
		n, next, ok := uvarint(at)
		if !ok || n > len(payload)-next {
			return nil, false
		}
		e := placed{key: string(payload[next : next+n])}
		n, at, ok = uvarint(next + n)
		if !ok || n-1 > len(payload)-at {
			return nil, false
		}
		e.at, e.n, e.deleted = at, max(0, n-1), n == 0
		at += e.n
		entries = append(entries, e)
	}
	return entries, true
}

// note takes over the entries of a batch whose payload is at base.
func (j *journal) note(base int64, entries []placed) {
	for _, e := range entries {
		if old, ok := j.at[e.key]; ok {
			j.live -= cost(e.key, old.n)
		}
		if e.deleted {
			delete(j.at, e.key)
			continue
		}
		j.at[e.key] = span{base + int64(e.at), e.n}
		j.live += cost(e.key, e.n)
	}
}

func cost(key string, n int) int64 { return int64(len(key) + n + 8) }

// get returns the value of a key, nil if there is none.
func (j *journal) get(key string) ([]byte, error) {
	s, ok := j.at[key]
	if !ok {
		return nil, nil
	}
	value := make([]byte, s.n)
	if _, err := j.f.ReadAt(value, s.at); err != nil {
		return nil, fmt.Errorf("wallet journal: reading %s: %w", key, err)
	}
	return value, nil
}

// keys returns the keys with a prefix, sorted.
func (j *journal) keys(prefix string) []string {
	var out []string
	for k := range j.at {
		if strings.HasPrefix(k, prefix) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// append writes a batch; with durable it is on disk when append returns. After an
// error nothing has changed, or the journal refuses everything from then on.
func (j *journal) append(batch []change, durable bool) error {
	if j.err != nil {
		return j.err
	}
	if len(batch) == 0 {
		if durable {
			return j.sync()
		}
		return nil
	}
	buf := make([]byte, batchHeader)
	for _, c := range batch {
		buf = appendEntry(buf, c)
	}
	if len(buf)-batchHeader > maxBatchBytes {
		return fmt.Errorf("wallet journal: a batch of %d bytes, at most %d", len(buf), maxBatchBytes)
	}
	seal(buf)
	_, err := j.f.WriteAt(buf, j.end)
	if err != nil {
		// What was half written must not be taken for damage at the next start.
		if e := j.f.Truncate(j.end); e != nil {
			j.err = fmt.Errorf("wallet journal cannot be written any more: %w", errors.Join(err, e))
		}
		return fmt.Errorf("wallet journal: %w", err)
	}
	entries, _ := decodeBatch(buf[batchHeader:]) // as it was made
	j.note(j.end+batchHeader, entries)
	j.end += int64(len(buf))
	if durable {
		if err := j.sync(); err != nil {
			return err
		}
	}
	if j.end > compactBytes && j.end > 3*j.live && j.end > j.tooBig {
		// What was to be written is written: that there is no room to write all of it anew is no fault of this batch.
		if err := j.compact(); err != nil {
			j.tooBig = 2 * j.end
		}
	}
	return j.err
}

// order is how the entries of a change that needs several batches follow each other, so that each batch stands by
// itself: what others refer to comes first, and how far the chain was followed last.
func order(key string) int {
	prefixes := []string{prefRaw, prefOut, prefDesc, prefAddr, prefTx, prefLock}
	if i := slices.Index(prefixes, key[:min(2, len(key))]); i >= 0 {
		return i
	}
	return len(prefixes)
}

// appendAll writes changes of any size: as one batch if they fit into it.
func (j *journal) appendAll(all []change, durable bool) error {
	size := func(c change) int { return len(c.key) + len(c.value) + 2*binary.MaxVarintLen32 }
	total := 0
	for _, c := range all {
		total += size(c)
	}
	if total > bigBatch {
		slices.SortStableFunc(all, func(x, y change) int { return cmp.Compare(order(x.key), order(y.key)) })
	}
	for total > bigBatch {
		n, bytes := 1, size(all[0]) // an entry is a block at most
		for n < len(all) && bytes+size(all[n]) <= bigBatch {
			bytes += size(all[n])
			n++
		}
		if err := j.append(all[:n], false); err != nil {
			return err
		}
		all, total = all[n:], total-bytes
	}
	return j.append(all, durable)
}

// sync makes everything durable. After a fault nobody knows what is on disk.
func (j *journal) sync() error {
	if err := j.f.Sync(); err != nil {
		j.err = fmt.Errorf("wallet journal cannot be written any more: %w", err)
		return j.err
	}
	return nil
}

func appendEntry(buf []byte, c change) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(c.key)))
	buf = append(buf, c.key...)
	if c.value == nil {
		return append(buf, 0)
	}
	buf = binary.AppendUvarint(buf, uint64(len(c.value))+1)
	return append(buf, c.value...)
}

// seal fills in the header of a batch.
func seal(buf []byte) {
	payload := buf[batchHeader:]
	binary.LittleEndian.PutUint32(buf, uint32(len(payload)))
	binary.LittleEndian.PutUint32(buf[4:], crc32.Checksum(payload, castagnoli))
}

// compact writes the journal anew without what was overwritten. A crash at any point
// leaves the old or the new one.
func (j *journal) compact() (err error) {
	tmp := j.path + ".new"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("wallet journal: %w", err)
	}
	next := &journal{path: j.path, f: f, end: int64(len(journalMagic)), at: make(map[string]span)}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(tmp)
			err = fmt.Errorf("wallet journal: writing it anew: %w", err)
		}
	}()
	if _, err := f.WriteAt([]byte(journalMagic), 0); err != nil {
		return err
	}
	var batch []change
	size := 0
	flush := func() error {
		err := next.append(batch, false)
		batch, size = batch[:0], 0
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(j.at)) {
		value, err := j.get(key)
		if err != nil {
			return err
		}
		batch = append(batch, change{key, value})
		if size += len(key) + len(value); size > copyBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp, j.path); err != nil {
		return err
	}
	old := j.f
	*j = *next
	_ = old.Close() // it was only read since the last sync
	if err := syncDir(filepath.Dir(j.path)); err != nil {
		j.err = err
		return err
	}
	return nil
}

// close makes everything durable and closes the file.
func (j *journal) close() error {
	return errors.Join(j.f.Sync(), j.f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// copyFile copies a file to one that does not exist yet.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
