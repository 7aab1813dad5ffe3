// Command manada is PostgreSQL high availability in one binary. Called by the
// name of a program that it stands in for, it answers as that one.
package main

import (
	"os"

	"manada/internal/cli"
	"manada/internal/compat"
)

func main() {
	if face, ok := compat.Face(os.Args[0]); ok {
		os.Exit(face(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	cli.Files = compat.Files()
	os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
