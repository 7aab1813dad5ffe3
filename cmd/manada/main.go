// Command manada is PostgreSQL high availability in one binary.
package main

import (
	"os"

	"manada/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) }
