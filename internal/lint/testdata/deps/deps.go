// Package deps names the packages that the examples of TestMapOrderObjects
// import, so that their export data can be found.
package deps

import (
	_ "maps"
	_ "slices"
)
