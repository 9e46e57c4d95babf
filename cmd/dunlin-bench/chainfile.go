package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/klauspost/compress/zstd"

	"dunlin/chain/consensus"
)

// A chainFile is a file of blocks in bootstrap.dat form, plain or zstd: heights in
// order, genesis there or not.
type chainFile struct {
	path   string
	params *consensus.Params
	// network is the network.toml; "": params are a preset's.
	network string
	blocks  int            // without genesis: what a fresh node has to download
	bytes   int64          // of those blocks, without the file's own framing
	last    chainhash.Hash // of the last block
}

// flags say which network it is.
func (c *chainFile) flags() []string {
	if c.network != "" {
		return []string{"--network-file", c.network}
	}
	return []string{"--network", c.params.Name}
}

// maxZstdWindow bounds what a compressed file makes its reader allocate.
const maxZstdWindow = 128 << 20

var zstdMagic = [4]byte{0x28, 0xb5, 0x2f, 0xfd}

// scanChain reads the frames of a file: how many blocks, how many bytes, of which
// network. It checks no block; the import does.
func scanChain(path string) (*chainFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<20)
	if head, err := in.Peek(4); err == nil && [4]byte(head) == zstdMagic {
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		defer z.Close()
		in = bufio.NewReaderSize(z, 1<<20)
	}
	c := &chainFile{path: path}
	if err := c.read(in); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (c *chainFile) read(in *bufio.Reader) error {
	var head [8 + consensus.HeaderBytes]byte
	for offset := int64(0); ; {
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) && c.params != nil {
			if c.blocks == 0 {
				return errors.New("holds no block but genesis")
			}
			return nil
		} else if err != nil {
			return fmt.Errorf("not a file of blocks in bootstrap.dat form: at byte %d: %w", offset, err)
		}
		magic, size := binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint32(head[4:])
		if c.params == nil {
			if c.params = networkOf(magic); c.params == nil {
				return fmt.Errorf("not a file of blocks in bootstrap.dat form, or of a network unknown here: magic %08x", magic)
			}
		}
		if magic != c.params.Magic || size < consensus.HeaderBytes || int64(size) > int64(c.params.MaxBlockBytes()) {
			return fmt.Errorf("at byte %d: magic %08x, block of %d bytes", offset, magic, size)
		}
		hash := chainhash.DoubleHashH(head[8:])
		if _, err := in.Discard(int(size) - consensus.HeaderBytes); err != nil {
			return fmt.Errorf("ends in the middle of the block at byte %d", offset)
		}
		if hash != c.params.GenesisHash {
			c.blocks++
			c.bytes += int64(size)
			c.last = hash
		}
		offset += 8 + int64(size)
	}
}

// networkOf finds the network of a magic, nil if it is none of ours.
func networkOf(magic uint32) *consensus.Params {
	for _, p := range []*consensus.Params{consensus.Simnet(), consensus.Regtest(), consensus.Bitcoin(), consensus.Testnet()} {
		if p.Magic == magic {
			return p
		}
	}
	return nil
}
