package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Judgement is what PostgreSQL would refuse of a host's file, in its own words.
type Judgement struct {
	Settings map[string]string // by name
	Rules    map[int]string    // of pg_hba.conf, by their place in the list
}

// Judge lets the programs in binDir judge settings and lines of pg_hba.conf:
// values by `postgres -C`, libraries by looking for them, lines by PostgreSQL's
// own parser in a throw-away cluster (about a second, where there are lines).
// Nothing that runs is asked or touched. uid and gid are whom the programs run
// as when root asks: PostgreSQL refuses to be root.
func Judge(ctx context.Context, binDir string, uid, gid int, params map[string]string, rules []string) (Judgement, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	j := Judgement{Rules: map[int]string{}}
	var err error
	if j.Settings, err = CheckValues(ctx, binDir, params); err != nil {
		return j, err
	}
	maps.Copy(j.Settings, missingLibraries(ctx, binDir, params))
	if len(rules) > 0 {
		j.Rules, err = judgeRules(ctx, binDir, uid, gid, rules)
	}
	return j, err
}

// libraryLists are the settings that name libraries; a missing one of most of
// them ends every start or every log-in.
var libraryLists = []string{"shared_preload_libraries", "session_preload_libraries", "local_preload_libraries", "jit_provider"}

// missingLibraries finds the settings that name a library which is not there.
// Where that cannot be told nothing is said.
func missingLibraries(ctx context.Context, binDir string, params map[string]string) map[string]string {
	out := map[string]string{}
	var folders []string
	for name, value := range params {
		if !slices.Contains(libraryLists, strings.ToLower(name)) || strings.TrimSpace(value) == "" {
			continue
		}
		if folders == nil {
			if folders = libraryFolders(ctx, binDir, params); len(folders) == 0 {
				return out
			}
		}
		for lib := range strings.SplitSeq(value, ",") {
			lib = strings.Trim(strings.TrimSpace(lib), `"`)
			if lib != "" && !libraryThere(folders, lib) {
				out[name] = fmt.Sprintf("could not access file %q: no such library in %s", lib, strings.Join(folders, ", "))
				break
			}
		}
	}
	return out
}

func libraryFolders(ctx context.Context, binDir string, params map[string]string) []string {
	b, err := exec.CommandContext(ctx, filepath.Join(binDir, "pg_config"), "--pkglibdir").Output()
	libdir := strings.TrimSpace(string(b))
	if err != nil || libdir == "" {
		return nil
	}
	path := "$libdir"
	for name, value := range params {
		if strings.EqualFold(name, "dynamic_library_path") {
			path = value
		}
	}
	return strings.Split(strings.ReplaceAll(path, "$libdir", libdir), ":")
}

// libraryThere: fmgr/dfmgr.c, expand_dynamic_library_name.
func libraryThere(folders []string, lib string) bool {
	var at []string
	if name, ok := strings.CutPrefix(lib, "$libdir/"); ok {
		lib = name
	}
	if strings.Contains(lib, "/") {
		at = []string{lib}
	} else {
		for _, d := range folders {
			at = append(at, filepath.Join(d, lib))
		}
	}
	return slices.ContainsFunc(at, func(p string) bool {
		for _, name := range []string{p, p + ".so"} {
			if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() {
				return true
			}
		}
		return false
	})
}

// judgeRules asks the view pg_hba_file_rules of a cluster that is made for it
// and never listens.
func judgeRules(ctx context.Context, binDir string, uid, gid int, rules []string) (map[int]string, error) {
	dir, err := os.MkdirTemp("", "manada-hba-")
	if err != nil {
		return nil, fmt.Errorf("check pg_hba.conf: %w", err)
	}
	defer os.RemoveAll(dir)
	run := func(in io.Reader, name string, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, filepath.Join(binDir, name), args...)
		cmd.Env, cmd.Dir, cmd.Stdin = []string{"LC_ALL=C", "TZ=UTC"}, dir, in
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("check pg_hba.conf: %s: %w: %s", name, err, tail(out))
		}
		return out, err
	}
	hba := filepath.Join(dir, "hba.conf")
	err = os.WriteFile(hba, []byte(strings.Join(rules, "\n")+"\n"), 0o644)
	if err == nil && os.Geteuid() == 0 {
		err = os.Chown(dir, uid, gid)
	}
	if err != nil {
		return nil, fmt.Errorf("check pg_hba.conf: %w", err)
	}
	data := filepath.Join(dir, "data")
	if _, err := run(nil, "initdb", "-D", data, "-N", "-A", "reject", "-U", "postgres", "--no-instructions"); err != nil {
		return nil, err
	}
	const ask = "select line_number, error from pg_hba_file_rules where error is not null\n"
	out, err := run(strings.NewReader(ask), "postgres", "--single", "-D", data, "-c", "hba_file="+hba, "-c", "ssl=on", "-c", "fsync=off", "postgres")
	if err != nil {
		return nil, err
	}
	return ruleErrors(out)
}

// A row of single-user mode: `1: line_number = "3" ...` and `2: error = "..." ...`.
var singleRow = regexp.MustCompile(`(?s)1: line_number = "(\d+)"\t[^\n]*\n\t 2: error = "(.*?)"\t\(typeid`)

func ruleErrors(out []byte) (map[int]string, error) {
	if !strings.Contains(string(out), "1: line_number\t") {
		return nil, errors.New("check pg_hba.conf: PostgreSQL did not answer: " + tail(out))
	}
	bad := map[int]string{}
	for _, m := range singleRow.FindAllStringSubmatch(string(out), -1) {
		n, _ := strconv.Atoi(m[1])
		bad[n-1] = m[2]
	}
	return bad, nil
}
