// Package upgrade takes a herd of the release before, built from git, to this
// one host by host, as docs/how-to.md says, while clients write.
package upgrade
