// Package config reads the one YAML file of a host: it is strict (an unknown
// key is an error with file, line and suggestion), applies environment
// overrides (MANADA_ and the key's path, _ for .), fills in defaults, remembers
// where every value came from and checks what can be checked before anything
// starts. It reports every problem it finds, not only the first.
//
// It starts nothing, opens no connection and holds no secret: keys that need
// one name a file.
//
// Start reading at Config (config.go), then Load (load.go). Where the file of a
// command is found is in find.go.
package config
