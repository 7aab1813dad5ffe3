// Package pki is the herd's own certificate authority and the one package that
// makes the program's tls.Config values.
//
// A herd has one CA, made by its first host (Found). Each host keeps an
// identity directory: the CA's certificate, its own certificate and key, and,
// unless it is a proxy, the key-encryption key (kek) that opens the CA's
// private key. That private key lies encrypted in the store, so any data or
// witness host with a quorum behind it can sign a newcomer's certificate
// (Authority, Join) and renew its own, and no host has to be the special one.
//
// Who a host is stands in its certificate's subject and nowhere else: CN is the
// node, O the cluster, OU the kind. The alternative names (host names and
// addresses) are only there for PostgreSQL's and etcd's own checks; our
// processes compare the CN, because every certificate also says "localhost".
//
// A certificate of the authority opens a port only while the herd's list names
// it (Registry): what is removed from the list, or was minted with a copy of the
// authority's key, opens nothing.
//
// The package deliberately does not: talk to the store (callers pass sealed
// keys, token records and the list in and out), listen (package peer mounts
// Authority), or hold any password rule of PostgreSQL.
//
// Start reading at Found (found.go), then Identity (identity.go, tls.go), then
// the join exchange (join.go for the newcomer, authority.go for the member).
package pki
