// Package notify tells a command of what happens to a node: events.command. It
// runs one after the other, each with a deadline, and never makes the agent
// wait. The command is no shell line: words are taken apart once, placeholders
// are filled in inside a word, and nothing that an event says is interpreted.
//
// It does not decide what an event is (package agent does) and keeps none: the
// herd's history is in the store.
//
// Start reading in Notifier (notify.go); config.ParseCommand takes the command apart.
package notify
