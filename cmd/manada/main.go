// Command manada is PostgreSQL high availability in one binary. Called by the
// name of a program that it stands in for, it answers as that one.
package main

import (
	"os"

	"manada/internal/cli"
	"manada/internal/compat"
)

func main() {
	cli.Files = compat.Files()
	args := os.Args
	if len(args) > 1 && args[1] == cli.OwnName {
		args = args[1:]
	}
	if face, ok := compat.Face(args[0]); ok {
		os.Exit(face(args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(cli.Main(args, os.Stdin, os.Stdout, os.Stderr))
}
