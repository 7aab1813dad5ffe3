package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// env looks a variable up.
func (a *app) env(name string) string {
	for _, e := range a.environ {
		if n, v, ok := strings.Cut(e, "="); ok && n == name {
			return v
		}
	}
	return ""
}

// isTerminal says whether a person reads the data.
func (a *app) isTerminal() bool {
	f, ok := a.out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// asks says whether a person can answer.
func (a *app) asks() bool {
	f, ok := a.in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm wants a word typed before something is destroyed; yes stands for it.
func (a *app) confirm(yes bool, word, what string) error {
	if yes {
		return nil
	}
	if !a.asks() {
		return usage("add --yes if you are sure", "%s, and nobody is there to confirm it", strings.TrimSuffix(what, "."))
	}
	fmt.Fprintf(a.err, "%s\nType %s to go on: ", what, word)
	line, _ := bufio.NewReader(a.in).ReadString('\n')
	if strings.TrimSpace(line) != word {
		return fail(exitFailed, "", "not confirmed: nothing was changed")
	}
	return nil
}

// readSecret reads a line that is not shown while it is typed.
func (a *app) readSecret(prompt string) (string, error) {
	if f, ok := a.in.(*os.File); ok && a.asks() {
		fmt.Fprint(a.err, prompt)
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		return strings.TrimSpace(string(b)), err
	}
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if line = strings.TrimSpace(line); line != "" {
		return line, nil
	}
	if err == nil {
		err = fmt.Errorf("an empty line")
	}
	return "", fmt.Errorf("read secret from standard input: %w", err)
}
