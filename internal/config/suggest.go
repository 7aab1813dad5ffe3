package config

import "slices"

// Nearest finds the candidate that s was probably meant to be, or "".
func Nearest(s string, candidates []string) string {
	limit := max(2, len(s)/3)
	if len(s) <= 3 {
		limit = 1 // two edits make any short word of any other
	}
	best, dist := "", limit+1
	for _, c := range candidates {
		if d := distance(s, c); d < dist {
			best, dist = c, d
		}
	}
	return best
}

func didYouMean(s string, candidates []string) string {
	if n := Nearest(s, candidates); n != "" {
		return `, did you mean "` + n + `"?`
	}
	return ""
}

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// distance counts edits, a swap of neighbours as one (optimal string alignment).
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
