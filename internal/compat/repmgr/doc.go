// Package repmgr answers to the name repmgr: `cluster show` and `node status`
// print what repmgr 5.3 prints, byte for byte; what else repmgr can do is
// refused by name, with what to type in Manada. It also says what a repmgr.conf
// means in Manada's own keys.
//
// It holds no logic of its own: it asks the herd as the command line does. There
// is no schema repmgr, no repmgrd and nothing to register.
//
// Start reading in Main (face.go); Translate (conf.go) is for repmgr.conf.
package repmgr
