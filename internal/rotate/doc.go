// Package rotate makes the herd's secrets new while the herd runs: the roles'
// passwords, the hosts' keys and certificates, the authority, the kek.
//
// What there is stands in one record of the store (pki.Vault): the newest
// generation of secrets, in a parcel for each host that only that host can open,
// and how far it has come. Every host's Keeper takes up what is there
// (keeper.go); the leader's Keeper, and no other, takes the next step
// (lead.go), each by compare-and-swap, so that any crash leaves a record from
// which the next leader goes on:
//
//	passwords:     made and spread -> all hosts that are up hold them -> PostgreSQL has them -> hosts use them
//	certificates:  asked for -> each host makes a key, its certificate is registered, then put in place; the old one is taken back
//	authority:     its successor, for which it vouches, signs at once; both are believed until that is finished
//
// A host that was off, or that has no access to the store (a proxy), asks
// another over the peers' port (serve.go): it proves itself with the key of its
// registered certificate, whatever has become of the authority that signed it.
//
// The package deliberately does not: decide who may come in (the list of
// certificates does), or change passwords that people chose.
//
// Start reading at pki.Vault, then Keeper.Run.
package rotate
