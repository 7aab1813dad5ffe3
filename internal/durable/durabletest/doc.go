// Package durabletest is the twin of a disk that loses power: it is told what
// package durable does, and makes every folder that a power loss could have left
// after each step, where content and names that were not written to the disk are
// there, or are not.
//
// The model is POSIX's: a file's content lasts once the file was synced, a
// folder's names once the folder was, and the names of one folder in the order
// in which they were made. As in pebble's CrashClone and in Pillai et al., "All
// File Systems Are Not Created Equal" (OSDI 2014), what was not synced may well
// have got there all the same.
package durabletest
