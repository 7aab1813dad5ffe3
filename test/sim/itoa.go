package sim

import "strconv"

func itoa(x uint32) string { return strconv.FormatUint(uint64(x), 10) }
