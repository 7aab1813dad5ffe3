package backup

import (
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

const (
	pageSize     = 8192
	segmentPages = (1 << 30) / pageSize // pages in a file of a relation
)

// The checksum of src/include/storage/checksum_impl.h: FNV-1a over 32 lanes.
const fnvPrime = 16777619

var checksumBase = [32]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

// pageChecksum is the checksum that the page should carry as the given block of
// its relation. The one that it carries is taken as zero.
func pageChecksum(page []byte, block uint32) uint16 {
	page = page[:pageSize]
	var result uint32
	// Eight lanes at a time stay in registers; lane 2 of the first row holds
	// pd_checksum in its low half.
	for lane := 0; lane < 32; lane += 8 {
		s := [8]uint32(checksumBase[lane : lane+8])
		s0, s1, s2, s3, s4, s5, s6, s7 := s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
		mask := uint32(0xFFFFFFFF)
		if lane == 0 {
			mask = 0xFFFF0000
		}
		for at := lane * 4; at < pageSize; at += 128 {
			row := page[at : at+32 : at+32]
			s0 = fnv(s0, binary.LittleEndian.Uint32(row[0:]))
			s1 = fnv(s1, binary.LittleEndian.Uint32(row[4:]))
			s2 = fnv(s2, binary.LittleEndian.Uint32(row[8:])&mask)
			s3 = fnv(s3, binary.LittleEndian.Uint32(row[12:]))
			s4 = fnv(s4, binary.LittleEndian.Uint32(row[16:]))
			s5 = fnv(s5, binary.LittleEndian.Uint32(row[20:]))
			s6 = fnv(s6, binary.LittleEndian.Uint32(row[24:]))
			s7 = fnv(s7, binary.LittleEndian.Uint32(row[28:]))
			mask = 0xFFFFFFFF
		}
		for _, v := range [8]uint32{s0, s1, s2, s3, s4, s5, s6, s7} {
			result ^= fnv(fnv(v, 0), 0)
		}
	}
	return uint16((result^block)%65535 + 1)
}

func fnv(sum, value uint32) uint32 {
	t := sum ^ value
	return t*fnvPrime ^ t>>17
}

// pageChecker looks at the pages of one relation file as they pass by.
type pageChecker struct {
	again io.ReaderAt // to look at a page again that looks wrong
	first uint32      // number of the file's first page in the relation
	page  uint32      // number of the next page in the file
	bad   []uint32    // numbers in the relation, ascending
	retry []byte
}

// newPageChecker checks the file of that name; it may be a later segment of a
// relation.
func newPageChecker(name string, again io.ReaderAt) *pageChecker {
	c := &pageChecker{again: again}
	if _, n, ok := strings.Cut(path.Base(name), "."); ok {
		if seg, err := strconv.ParseUint(n, 10, 32); err == nil {
			c.first = uint32(seg) * segmentPages
		}
	}
	return c
}

// write takes the next bytes of the file; only the last call may have a length
// that is not a multiple of the page size.
func (c *pageChecker) write(b []byte) {
	for ; len(b) >= pageSize; b = b[pageSize:] {
		if !c.valid(b[:pageSize], c.first+c.page) && !c.excused(b[:pageSize]) {
			c.bad = append(c.bad, c.first+c.page)
		}
		c.page++
	}
	if len(b) > 0 && !c.grown() {
		c.bad = append(c.bad, c.first+c.page) // the file does not end with a page
	}
}

// grown says whether the page at the end is whole by now: PostgreSQL was
// extending the file when it was listed.
func (c *pageChecker) grown() bool {
	if c.again == nil {
		return false
	}
	n, err := c.again.ReadAt(make([]byte, pageSize), int64(c.page)*pageSize)
	return n == pageSize && (err == nil || err == io.EOF)
}

func (c *pageChecker) valid(p []byte, block uint32) bool {
	if binary.LittleEndian.Uint16(p[14:]) == 0 { // pd_upper: a new page, all zero
		for i := 0; i < pageSize; i += 8 {
			if binary.LittleEndian.Uint64(p[i:]) != 0 {
				return false
			}
		}
		return true
	}
	return binary.LittleEndian.Uint16(p[8:]) == pageChecksum(p, block)
}

// excused says whether a page looked wrong only because PostgreSQL was writing
// it: then it has changed by now, and replay repairs it from a full page image.
func (c *pageChecker) excused(p []byte) bool {
	if c.again == nil {
		return false
	}
	if c.retry == nil {
		c.retry = make([]byte, pageSize)
	}
	n, err := c.again.ReadAt(c.retry, int64(c.page)*pageSize)
	return (err != nil && err != io.EOF) || n < pageSize || string(c.retry) != string(p)
}

// ok says that all was right; errors lists what was not in pgBackRest's form,
// [n,[from,to]].
func (c *pageChecker) ok() bool { return len(c.bad) == 0 }

func (c *pageChecker) errors() []byte {
	if len(c.bad) == 0 {
		return nil
	}
	b := []byte("[")
	for i := 0; i < len(c.bad); {
		j := i
		for j+1 < len(c.bad) && c.bad[j+1] == c.bad[j]+1 {
			j++
		}
		if i > 0 {
			b = append(b, ',')
		}
		if i == j {
			b = fmt.Appendf(b, "%d", c.bad[i])
		} else {
			b = fmt.Appendf(b, "[%d,%d]", c.bad[i], c.bad[j])
		}
		i = j + 1
	}
	return append(b, ']')
}
