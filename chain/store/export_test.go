package store

import (
	"github.com/cockroachdb/pebble/v2/vfs"

	"dunlin/chain/consensus"
)

// Decoders and encoders for the fuzz targets.
var (
	DecodeCoin         = decodeCoin
	DecodeHeaderRecord = decodeHeaderRecord
	DecodeTip          = decodeTip
	ParseCoinKey       = parseCoinKey
	ParseHeaderKey     = parseHeaderKey
	PutCoinKey         = putCoinKey
	HeaderKey          = headerKey
	EncodeInvalidated  = encodeInvalidated
	DecodeInvalidated  = decodeInvalidated
)

// EncodeCoin is appendCoin with its size.
func EncodeCoin(c consensus.Coin) ([]byte, int) { return appendCoin(nil, &c), coinBytes(&c) }

// EncodeHeaderRecord is appendHeaderRecord.
func EncodeHeaderRecord(r HeaderRecord) []byte { return appendHeaderRecord(nil, &r) }

// RingSlots is how many commits are checked on open.
const RingSlots = ringSlots

// Blocks is the series of block files alone, in the folder "blocks" of fs.
func Blocks(fs vfs.FS, magic uint32, maxRecord int) *Series {
	o := Options{FS: fs, Dir: "", Magic: magic, MaxFileBytes: 1 << 20, MaxRecordBytes: maxRecord}
	return &Series{o.series("blocks", ".blk", 'b')}
}

// A Series is a series for tests.
type Series struct{ s *series }

// Scan scans the first file without a known end.
func (s *Series) Scan(f func(Pos, []byte) error, damaged func(*DamageError) error) error {
	return s.s.scanFile(0, 0, false, f, damaged)
}

// RecoverTail recovers from the start of the first file.
func (s *Series) RecoverTail(f func(Pos, []byte) error) error {
	_, err := s.s.recoverTail(f)
	return err
}

// Read reads a record.
func (s *Series) Read(p Pos) ([]byte, error) { return s.s.read(p) }

// Close closes the files.
func (s *Series) Close() error { return s.s.close() }

// RecodeWritten decodes write positions and encodes them again.
func RecodeWritten(v []byte) ([]byte, bool) {
	w, err := decodeWritten(v)
	return appendWritten(nil, w), err == nil
}
