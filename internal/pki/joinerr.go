package pki

import "errors"

// Why a join was refused. A *JoinError matches these with errors.Is.
var (
	ErrWrongSecret   = errors.New("the join secret is not one of this herd")
	ErrTokenUsed     = errors.New("the join token was used already")
	ErrTokenExpired  = errors.New("the join token has expired")
	ErrTokenNarrow   = errors.New("the join token is for another host")
	ErrWrongCluster  = errors.New("the host belongs to another herd")
	ErrBusy          = errors.New("the host is busy with other newcomers")
	ErrNotAllowed    = errors.New("the herd does not take this host")
	ErrSecretExposed = errors.New("a host that was removed from the herd knows this join secret, so nobody joins with it any more")
	ErrNotNow        = errors.New("the host cannot sign newcomers now")
)

// JoinError is a refused join: what, and what to type next.
type JoinError struct {
	Err    error  // one of the above
	Detail string // may be empty
	Hint   string
}

// Error is the sentence with its hint.
func (e *JoinError) Error() string {
	s := e.Err.Error()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap makes errors.Is work.
func (e *JoinError) Unwrap() error { return e.Err }

// joinRefusal is how a refusal travels, the same shape as every error of the
// peer port.
type joinRefusal struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
	Code  string `json:"code"`
}

type joinCode struct {
	code   string
	err    error
	status int
	hint   string
}

const hintNewToken = "make a new one on a data or witness host: manada node token"

var joinCodes = []joinCode{
	{"wrong_secret", ErrWrongSecret, 403, "copy the token again, or compare join_secret_file with that of a member; a token that expired long ago is forgotten, and one that was made before a host was removed is worthless: manada node token. If the secret is right, somebody may be in between who passes the exchange on: compare the address with the one that ss -ltn shows on the member"},
	{"token_used", ErrTokenUsed, 403, hintNewToken},
	{"token_expired", ErrTokenExpired, 403, hintNewToken},
	{"token_narrow", ErrTokenNarrow, 403, hintNewToken},
	{"wrong_cluster", ErrWrongCluster, 403, "compare `cluster` in manada.yaml of this host and of the member, and the address that was given"},
	{"busy", ErrBusy, 503, "try again in a few seconds"},
	{"not_allowed", ErrNotAllowed, 403, "choose another name (node in manada.yaml); a host of that name that is gone for good is removed first, on a member: manada node remove NAME"},
	{"secret_exposed", ErrSecretExposed, 403, "put a new secret into join.secret_file of every host (in containers: REPMGR_PASSWORD), or use a token: manada node token"},
	{"not_now", ErrNotNow, 503, "try again when the store has a quorum: manada status"},
}

func codeOf(err error) joinCode {
	for _, c := range joinCodes {
		if errors.Is(err, c.err) {
			return c
		}
	}
	return joinCodes[len(joinCodes)-1]
}

// refuse makes a JoinError with the usual hint.
func refuse(err error, detail string) *JoinError {
	return &JoinError{Err: err, Detail: detail, Hint: codeOf(err).hint}
}

// ErrorOf is a refusal with its usual hint, for AuthorityConfig.Allow.
func ErrorOf(err error) *JoinError { return refuse(err, "") }
