package wire

import "strings"

// Settings are what start-up parameters set, in their order, with the names as SET
// takes them. It is false when they say something that can only be said at a log-in.
func Settings(params []Param) (list []Param, ok bool) {
	for _, p := range params {
		switch {
		case p.Name == "user", p.Name == "database", strings.HasPrefix(p.Name, "_pq_."):
		case p.Name == "replication":
			return nil, false
		case p.Name == "options":
			words := splitOptions(p.Value)
			for i := 0; i < len(words); i++ {
				set := words[i]
				switch {
				case set == "-c" && i+1 < len(words):
					i++
					set = words[i]
				case strings.HasPrefix(set, "--"), strings.HasPrefix(set, "-c"):
					set = set[2:]
				default:
					return nil, false
				}
				name, value, found := strings.Cut(set, "=")
				if !found {
					return nil, false
				}
				list = append(list, Param{Name: strings.ReplaceAll(name, "-", "_"), Value: value})
			}
		default:
			list = append(list, p)
		}
	}
	return list, true
}
