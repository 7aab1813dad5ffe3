package backup

import "sort"

// sortItems sorts by less and, among equals, by name: plans are the same for the
// same files.
func sortItems(items []*item, less func(a, b *item) bool) {
	sort.Slice(items, func(i, j int) bool {
		a, b := items[i], items[j]
		switch {
		case less(a, b):
			return true
		case less(b, a):
			return false
		}
		return a.file.Name < b.file.Name
	})
}
