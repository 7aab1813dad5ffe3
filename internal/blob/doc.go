// Package blob is where the bytes of a backup repository live: a small storage
// interface and the places that implement it.
//
// It knows nothing of backups or of WAL. Names are slash separated and relative
// to the root of the repository; a name that would leave it is refused before
// any implementation sees it. What a Put has stored is durable and visible as a
// whole, or not at all; nothing else in the repository format depends on more
// than that.
//
// Implementations: [Posix] (a local directory), [Remote] (the HTTP client of
// [Handler], which serves any Storage to other hosts), [Mem] (in memory, with
// faults on demand, for tests of whatever uses a Storage). Object stores and
// SFTP join as further implementations of [Storage]; they have to pass the same
// conformance test.
//
// It deliberately does not: retry (the caller knows what is worth repeating),
// authenticate (the caller hands in an *http.Client, or wraps the handler, with
// mutual TLS), or compress.
//
// Start reading at [Storage].
package blob
