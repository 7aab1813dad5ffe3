package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// SystemFile is where the file of a real host stands.
const SystemFile = "/etc/manada/manada.yaml"

// FileName is the file's name inside a folder.
const FileName = "manada.yaml"

// HerdFileName is the file in the folder of a herd made by `manada up` that
// says where its hosts are.
const HerdFileName = "herd.json"

// HerdFile is that file's contents.
type HerdFile struct {
	Schema  int      `json:"schema"` // 1
	Cluster string   `json:"cluster"`
	Data    string   `json:"data"`  // absolute; holds one folder per host
	Hosts   []string `json:"hosts"` // in the order in which they start
	Ready   bool     `json:"ready"` // a write has committed synchronously at least once
}

// HostFile is the configuration of one host of the herd.
func (h HerdFile) HostFile(host string) string { return filepath.Join(h.Data, host, FileName) }

// ReadHerdFile reads the pointer in a herd's folder.
func ReadHerdFile(dir string) (HerdFile, error) {
	var h HerdFile
	b, err := os.ReadFile(filepath.Join(dir, HerdFileName))
	if err != nil {
		return h, fmt.Errorf("read herd: %w", err)
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return h, fmt.Errorf("read herd %s: %w", filepath.Join(dir, HerdFileName), err)
	}
	return h, nil
}

// Where says where a command looks for its herd: the two flags; the rest is
// looked for in a fixed order.
type Where struct {
	File string // -c FILE
	Dir  string // --dir DIR
	// Getenv and Root are os.Getenv and "" outside tests; Root is put before
	// ./herd and SystemFile.
	Getenv func(string) string
	Root   string
}

// Place is a herd that was found: the files of those of its hosts that are on
// this machine. Any of them answers for the whole herd.
type Place struct {
	How   string   // what named it: "-c", "--dir", "$MANADA_CONFIG", "./herd", SystemFile
	Dir   string   // folder of a herd made by `manada up`, else ""
	Files []string // at least one
}

// ErrNoHerd says that nothing named a herd.
var ErrNoHerd = errors.New("no herd found")

// Find looks for the herd: -c FILE, --dir DIR, $MANADA_CONFIG (a file or a
// folder), ./herd, /etc/manada/manada.yaml, in this order. The first that is
// named must be right; only the last two may be absent.
func Find(w Where) (Place, error) {
	getenv := w.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	switch {
	case w.File != "":
		return placeOfFile("-c", w.File)
	case w.Dir != "":
		return placeOfDir("--dir", w.Dir)
	}
	if v := getenv("MANADA_CONFIG"); v != "" {
		if st, err := os.Stat(v); err == nil && st.IsDir() {
			return placeOfDir("$MANADA_CONFIG", v)
		}
		return placeOfFile("$MANADA_CONFIG", v)
	}
	herd := filepath.Join(w.Root, "herd")
	if _, err := os.Stat(filepath.Join(herd, HerdFileName)); err == nil {
		return placeOfDir("./herd", herd)
	}
	system := filepath.Join(w.Root, SystemFile)
	if w.Root == "" {
		system = SystemFile
	}
	if _, err := os.Stat(system); err == nil {
		return placeOfFile(SystemFile, system)
	}
	return Place{}, ErrNoHerd
}

func placeOfFile(how, file string) (Place, error) {
	st, err := os.Stat(file)
	if err != nil {
		return Place{}, fmt.Errorf("find configuration named by %s: %w", how, err)
	}
	if st.IsDir() {
		return placeOfDir(how, file)
	}
	return Place{How: how, Files: []string{file}}, nil
}

// placeOfDir takes the folder of a herd, or of one host.
func placeOfDir(how, dir string) (Place, error) {
	h, err := ReadHerdFile(dir)
	if err == nil {
		p := Place{How: how, Dir: dir}
		for _, host := range h.Hosts {
			if _, err := os.Stat(h.HostFile(host)); err == nil {
				p.Files = append(p.Files, h.HostFile(host))
			}
		}
		if len(p.Files) == 0 {
			return Place{}, fmt.Errorf("the herd in %s was only half made: no host in %s has its configuration", dir, h.Data)
		}
		return p, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return Place{}, err
	}
	file := filepath.Join(dir, FileName)
	if _, err := os.Stat(file); err != nil {
		return Place{}, fmt.Errorf("%w in %s (%s): it holds neither %s nor %s", ErrNoHerd, dir, how, HerdFileName, FileName)
	}
	return Place{How: how, Files: []string{file}}, nil
}
