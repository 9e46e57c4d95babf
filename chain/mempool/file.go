package mempool

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"dunlin/chain/consensus"
)

// FileVersion is the newest form of Options.File that this version reads, and
// the one that it writes. docs/storage.md has every byte. Version 1 did not say
// what was made here.
const FileVersion = 2

const (
	fileMagic = "dunlinmp"
	// fileHead is magic 8 ‖ version 4 ‖ genesis 32 ‖ time of writing 8 ‖ CRC32C 4.
	fileHead = 8 + 4 + 32 + 8 + 4
	// recordHead and recordTail are what a record has around its payload.
	recordHead = 1 + 4
	recordTail = 4

	// Kinds of records.
	recordEnd  = 0
	recordTx   = 1
	recordFate = 2

	txHead   = 8 + 1 // time added ‖ flags
	txUnsent = 1     // others must still be told of it
	txOwn    = 2     // it was made or handed in here
	// maxTxBytes is the most that a standard transaction takes: its weight is at
	// most 400,000.
	maxTxBytes = 400_000
	fateBytes  = 32 + 1 + 32 + 32 + 4 + 32 + 32 + 4 + 8
	maxRule    = 64

	fileBuffer = 16 << 10
)

// maxPayload is the longest payload of each kind.
var maxPayload = map[byte]int{recordEnd: 4, recordTx: txHead + maxTxBytes, recordFate: fateBytes + maxRule}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errFile is wrapped by what makes a file of no use: it is damaged, of another
// chain, or newer than this version.
var errFile = errors.New("mempool file")

func damaged(at int64, format string, args ...any) error {
	return fmt.Errorf("%w: damage at byte %d: %s", errFile, at, fmt.Sprintf(format, args...))
}

// A saving is a transaction to be saved.
type saving struct {
	tx    *wire.MsgTx
	added time.Time
	flags byte
}

// A saved transaction is what a record of a file gives back.
type saved struct {
	raw   []byte
	added time.Time
	flags byte
}

// A fileReader reads a file of a size known before, record by record. It
// allocates nothing that the remaining bytes do not pay for.
type fileReader struct {
	r       *bufio.Reader
	at, end int64
	records uint32
}

func newFileReader(r io.Reader, size int64) *fileReader {
	return &fileReader{r: bufio.NewReaderSize(r, fileBuffer), end: size}
}

func (f *fileReader) read(b []byte) error {
	if int64(len(b)) > f.end-f.at {
		return damaged(f.at, "it ends where %d more bytes should be", len(b))
	}
	n, err := io.ReadFull(f.r, b)
	f.at += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged(f.at, "it ends before its size")
	}
	return err
}

// head reads and checks the beginning.
func (f *fileReader) head(genesis chainhash.Hash) error {
	var b [fileHead]byte
	// What comes after the version may be otherwise in another one.
	if err := f.read(b[:12]); err != nil {
		return err
	}
	if string(b[:8]) != fileMagic {
		return damaged(0, "it does not begin with %q", fileMagic)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v == 0 || v > FileVersion {
		return fmt.Errorf("%w: of version %d, this dunlin knows 1 to %d", errFile, v, FileVersion)
	}
	if err := f.read(b[12:]); err != nil {
		return err
	}
	if got, want := crc32.Checksum(b[:fileHead-4], castagnoli), binary.LittleEndian.Uint32(b[fileHead-4:]); got != want {
		return damaged(0, "CRC32C of the head is %08x, not %08x", got, want)
	}
	if !bytes.Equal(b[12:44], genesis[:]) {
		return fmt.Errorf("%w: of another chain: genesis %s", errFile, chainhash.Hash(b[12:44]))
	}
	return nil
}

// next reads a record. The end of the file is the end record, with nothing behind.
func (f *fileReader) next() (kind byte, payload []byte, err error) {
	start := f.at
	var h [recordHead]byte
	if err := f.read(h[:]); err != nil {
		return 0, nil, err
	}
	kind = h[0]
	n := int64(binary.LittleEndian.Uint32(h[1:]))
	most, known := maxPayload[kind]
	if !known || n > int64(most) {
		return 0, nil, damaged(start, "no record of kind %d with %d bytes", kind, n)
	}
	if n+recordTail > f.end-f.at {
		return 0, nil, damaged(start, "it ends in a record of %d bytes", n)
	}
	payload = make([]byte, n) // kept: a transaction's scripts stay in it
	if err := f.read(payload); err != nil {
		return 0, nil, err
	}
	var tail [recordTail]byte
	if err := f.read(tail[:]); err != nil {
		return 0, nil, err
	}
	sum := crc32.Update(crc32.Checksum(h[:], castagnoli), castagnoli, payload)
	if want := binary.LittleEndian.Uint32(tail[:]); sum != want {
		return 0, nil, damaged(start, "CRC32C of a record is %08x, not %08x", sum, want)
	}
	if kind != recordEnd {
		f.records++
		return kind, payload, nil
	}
	switch {
	case n != 4 || binary.LittleEndian.Uint32(payload) != f.records:
		return 0, nil, damaged(start, "the end counts other than %d records", f.records)
	case f.at != f.end:
		return 0, nil, damaged(f.at, "%d bytes behind the end", f.end-f.at)
	}
	return kind, payload, nil
}

func txFlags(unsent, own bool) (flags byte) {
	if unsent {
		flags |= txUnsent
	}
	if own {
		flags |= txOwn
	}
	return flags
}

// parseTx takes a transaction record apart; it keeps b.
func parseTx(b []byte) (saved, bool) {
	if len(b) <= txHead || b[8]&^(txUnsent|txOwn) != 0 {
		return saved{}, false
	}
	return saved{raw: b[txHead:], added: time.Unix(int64(binary.LittleEndian.Uint64(b)), 0), flags: b[8]}, true
}

func appendFate(b []byte, f *Fate) []byte {
	b = append(b, f.ID[:]...)
	b = append(b, byte(f.Cause))
	b = append(b, f.By[:]...)
	b = append(b, f.Block[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(f.Height))
	b = append(b, f.Via[:]...)
	b = append(b, f.Was[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(f.WasHeight))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.At.Unix()))
	return append(b, f.Rule[:min(len(f.Rule), maxRule)]...)
}

func parseFate(b []byte) (f Fate, ok bool) {
	if len(b) < fateBytes || causeNames[Cause(b[32])] == "" {
		return f, false
	}
	take := func(n int) []byte {
		out := b[:n]
		b = b[n:]
		return out
	}
	f.ID = chainhash.Hash(take(32))
	f.Cause = Cause(take(1)[0])
	f.By = chainhash.Hash(take(32))
	f.Block = chainhash.Hash(take(32))
	f.Height = int32(binary.LittleEndian.Uint32(take(4)))
	f.Via = chainhash.Hash(take(32))
	f.Was = chainhash.Hash(take(32))
	f.WasHeight = int32(binary.LittleEndian.Uint32(take(4)))
	f.At = time.Unix(int64(binary.LittleEndian.Uint64(take(8))), 0)
	f.Rule = string(bytes.ToValidUTF8(b, nil))
	return f, true
}

// A fileWriter writes a file.
type fileWriter struct {
	w       *bufio.Writer
	buf     []byte
	n       int64
	records uint32
}

func (f *fileWriter) write(b []byte) error {
	n, err := f.w.Write(b)
	f.n += int64(n)
	return err
}

func (f *fileWriter) head(genesis chainhash.Hash, now time.Time) error {
	b := append([]byte(fileMagic), FileVersion, 0, 0, 0)
	b = append(b, genesis[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(now.Unix()))
	return f.write(binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)))
}

// record writes a record whose payload fill appends.
func (f *fileWriter) record(kind byte, fill func([]byte) ([]byte, error)) error {
	b, err := fill(append(f.buf[:0], kind, 0, 0, 0, 0))
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(b[1:], uint32(len(b)-recordHead))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	f.buf = b
	if kind != recordEnd {
		f.records++
	}
	return f.write(b)
}

// Save writes the fates and the entries, parents before children; once Run has
// ended, also what was on its way back in after a reorganisation. It returns the
// bytes written. It holds up nobody while it writes.
func (p *Pool) Save(ctx context.Context, w io.Writer) (int64, error) {
	now := p.o.Now()
	p.mu.RLock()
	entries, left, unsent := slices.Clone(p.order), p.left, make(map[*entry]bool)
	for _, t := range p.turns {
		if t.told == 0 {
			unsent[t.e] = true
		}
	}
	fates := slices.Concat(p.fates.other, p.fates.lost)
	fates = slices.DeleteFunc(fates, func(f *Fate) bool { return p.fates.byID[f.ID] != f })
	p.mu.RUnlock()
	// What is in an entry does not change: the rest needs no lock.
	slices.SortFunc(entries, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	list := make([]saving, 0, len(entries)+len(left))
	for _, e := range entries {
		list = append(list, saving{e.Tx, e.Added, txFlags(unsent[e], e.own)})
	}
	for _, c := range left {
		if c.returned && !c.settled {
			added := c.added
			if added.IsZero() {
				added = now
			}
			list = append(list, saving{c.tx, added, txFlags(c.relay, c.own)})
		}
	}
	slices.SortStableFunc(fates, func(a, b *Fate) int { return cmp.Compare(a.Seq, b.Seq) })

	f := &fileWriter{w: bufio.NewWriterSize(w, 64<<10)}
	if err := f.head(p.params.GenesisHash, now); err != nil {
		return f.n, err
	}
	for _, fate := range fates {
		if err := f.record(recordFate, func(b []byte) ([]byte, error) { return appendFate(b, fate), nil }); err != nil {
			return f.n, err
		}
	}
	for _, s := range list {
		if err := ctx.Err(); err != nil {
			return f.n, err
		}
		err := f.record(recordTx, func(b []byte) ([]byte, error) {
			b = binary.LittleEndian.AppendUint64(b, uint64(s.added.Unix()))
			buf := bytes.NewBuffer(append(b, s.flags))
			err := s.tx.Serialize(buf)
			return buf.Bytes(), err
		})
		if err != nil {
			return f.n, err
		}
	}
	err := f.record(recordEnd, func(b []byte) ([]byte, error) {
		return binary.LittleEndian.AppendUint32(b, f.records), nil
	})
	return f.n, errors.Join(err, f.w.Flush())
}

// A LoadReport says what Load did.
type LoadReport struct {
	Accepted int // transactions
	Expired  int
	Refused  int // mined since, or not valid or wanted any more
	LeftOut  bool
}

// Load reads what Save wrote, size bytes, and submits each transaction as if it
// were new, with the age that it had; what does not get in is counted. It reads
// at most as many bytes as a full pool can have (or 300 MB); what is behind them
// is left out. An error that is not ctx's or the pool's own says that the file is
// damaged, newer, or of another chain; what came before the damage is kept.
func (p *Pool) Load(ctx context.Context, r io.Reader, size int64) (LoadReport, error) {
	return p.load(ctx, r, size, max(p.o.MaxBytes, defaultMaxBytes))
}

// load is Load of at most so many bytes, and a record.
func (p *Pool) load(ctx context.Context, r io.Reader, size, most int64) (report LoadReport, err error) {
	f := newFileReader(r, size)
	if err := f.head(p.params.GenesisHash); err != nil {
		return report, err
	}
	for {
		if f.at > most {
			report.LeftOut = true
			return report, nil
		}
		start := f.at
		kind, payload, err := f.next()
		if err != nil {
			return report, err
		}
		switch kind {
		case recordFate:
			fate, ok := parseFate(payload)
			if !ok {
				return report, damaged(start, "a fate that cannot be")
			}
			p.recall(fate)
		case recordTx:
			s, ok := parseTx(payload)
			if !ok {
				return report, damaged(start, "a transaction record that cannot be")
			}
			if err := p.readmit(ctx, s, start, &report); err != nil {
				return report, err
			}
		default:
			return report, nil
		}
	}
}

// recall takes a fate over from a file, unless there is a later one.
func (p *Pool) recall(f Fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID[f.ID] == nil && p.fates.byID[f.ID] == nil {
		p.fates.keep(f)
	}
}

// readmit submits a saved transaction.
func (p *Pool) readmit(ctx context.Context, s saved, at int64, report *LoadReport) error {
	tx, err := consensus.DecodeTx(s.raw)
	if err != nil {
		return damaged(at, "a transaction: %v", err)
	}
	now := p.o.Now()
	if s.added.After(now) { // the clock was wrong then, or is now
		s.added = now
	}
	if now.Sub(s.added) > p.o.Expiry {
		report.Expired++
		return nil
	}
	if err := checkAlone(tx); err != nil {
		report.Refused++
		return nil //nolint:nilerr // a refusal
	}
	c := newCandidate(tx, "")
	c.added, c.relay, c.own = s.added, s.flags&txUnsent != 0, s.flags&txOwn != 0
	for {
		_, err := p.admitAll(ctx, c)
		rule, refused := errors.AsType[*consensus.RuleError](err)
		switch {
		case err == nil:
			report.Accepted++
			return nil
		case !refused:
			return err
		case rule.Rule != "tip-moving":
			report.Refused++
			return nil
		}
		if !pause(ctx, retryBusy) { // the chain is on its way: ask again
			return ctx.Err()
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
