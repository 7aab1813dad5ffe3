package repo

import (
	"bufio"
	"compress/bzip2"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Compression is pgBackRest's compress-type.
type Compression string

// The compressions of format 5. All are read; bzip2 is not written.
const (
	None Compression = "none"
	Gzip Compression = "gz"
	Bz2  Compression = "bz2"
	LZ4  Compression = "lz4"
	Zstd Compression = "zst"
)

// ParseCompression reads compress-type.
func ParseCompression(s string) (Compression, error) {
	switch c := Compression(s); c {
	case None, Gzip, Bz2, LZ4, Zstd:
		return c, nil
	}
	return "", fmt.Errorf("%w: compress-type %q", ErrUnsupported, s)
}

// Ext is what the names of files so compressed end in.
func (c Compression) Ext() string {
	if c == None || c == "" {
		return ""
	}
	return "." + string(c)
}

// Writable says whether NewCompressor can write it.
func (c Compression) Writable() bool { return c != Bz2 && c != "" }

// DefaultLevel is pgBackRest's default compress-level.
func (c Compression) DefaultLevel() int {
	return map[Compression]int{Gzip: 6, Bz2: 9, LZ4: 1, Zstd: 3}[c]
}

func compressionByExt(ext string) (Compression, bool) {
	for _, c := range []Compression{None, Gzip, Bz2, LZ4, Zstd} {
		if c.Ext() == ext {
			return c, true
		}
	}
	return "", false
}

// Compressor is reused from file to file: Reset, Write, Close, and again.
type Compressor interface {
	io.WriteCloser
	Reset(w io.Writer)
}

type plain struct{ w io.Writer }

func (p *plain) Write(b []byte) (int, error) { return p.w.Write(b) }
func (p *plain) Close() error                { return nil }
func (p *plain) Reset(w io.Writer)           { p.w = w }

// NewCompressor makes one that is not safe for concurrent use and starts no
// goroutines. raw is the manifest's backup-bundle-raw.
func NewCompressor(c Compression, level int, raw bool) (Compressor, error) {
	switch c {
	case None:
		return &plain{}, nil
	case Zstd:
		// Not WithLowerEncoderMem: it halves the speed.
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstdLevel(level)), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	case LZ4:
		w := lz4.NewWriter(nil)
		return w, w.Apply(lz4.ConcurrencyOption(1), lz4.ChecksumOption(!raw), lz4.BlockSizeOption(lz4.Block64Kb))
	case Gzip:
		if raw {
			return zlib.NewWriterLevel(nil, level)
		}
		return gzip.NewWriterLevel(nil, level)
	}
	return nil, fmt.Errorf("%w: writing compress-type %q", ErrUnsupported, c)
}

// zstdLevel maps a level of libzstd to the encoder of about the same ratio.
func zstdLevel(level int) zstd.EncoderLevel {
	switch {
	case level <= 3:
		return zstd.SpeedFastest
	case level <= 7:
		return zstd.SpeedDefault
	case level <= 11:
		return zstd.SpeedBetterCompression
	}
	return zstd.SpeedBestCompression
}

var zstdDecoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}}

type pooledZstd struct{ d *zstd.Decoder }

func (p *pooledZstd) Read(b []byte) (int, error) {
	if p.d == nil {
		return 0, io.ErrClosedPipe
	}
	return p.d.Read(b)
}

func (p *pooledZstd) Close() error {
	if p.d != nil && p.d.Reset(nil) == nil {
		zstdDecoders.Put(p.d)
	}
	p.d = nil
	return nil
}

// NewDecompressor reads what a compressor, or pgBackRest, wrote to r. Closing it
// does not close r. raw is the manifest's backup-bundle-raw.
func NewDecompressor(c Compression, r io.Reader, raw bool) (io.ReadCloser, error) {
	switch c {
	case None:
		return io.NopCloser(r), nil
	case Zstd:
		d := zstdDecoders.Get().(*zstd.Decoder)
		if err := d.Reset(r); err != nil {
			return nil, err
		}
		return &pooledZstd{d}, nil
	case LZ4:
		return io.NopCloser(lz4.NewReader(r)), nil
	case Gzip:
		if raw {
			return zlib.NewReader(bufio.NewReader(r))
		}
		return gzip.NewReader(bufio.NewReader(r))
	case Bz2:
		return io.NopCloser(bzip2.NewReader(bufio.NewReader(r))), nil
	}
	return nil, fmt.Errorf("%w: compress-type %q", ErrUnsupported, c)
}
