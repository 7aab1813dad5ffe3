package peer

import (
	"cmp"
	"slices"

	"manada/internal/cluster"
)

// Row is one line of GET /v1/view: the newest beat of a speaker as the host
// that answers has heard it.
type Row struct {
	cluster.Beat
	AgeMS  int64 `json:"age_ms"` // since the answering host heard it
	Broken bool  `json:"broken,omitempty"`
}

func sortRows(rows []Row) {
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.From, b.From))
	})
}
