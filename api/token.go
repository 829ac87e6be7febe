package api

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Role is what a caller may do. Each may do what the one before may.
type Role string

const (
	RoleReader      Role = "Reader"      // reads
	RoleOperator    Role = "Operator"    // runs drills, failovers and jobs
	RoleContributor Role = "Contributor" // changes everything
)

var roleRank = map[Role]int{RoleReader: 1, RoleOperator: 2, RoleContributor: 3}

// Covers tells whether the role may do what needs the other.
func (r Role) Covers(needed Role) bool { return roleRank[r] > 0 && roleRank[r] >= roleRank[needed] }

// Token lets its bearer in under a name and a role. Hash is HashToken of the secret, which is kept nowhere.
type Token struct {
	Name string
	Role Role
	Hash string
}

// NewToken returns a fresh secret for a token: 256 random bits.
func NewToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// HashToken returns the hash of a secret as a token file holds it. Secrets are random and long, so that a plain hash suffices.
func HashToken(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// reloadEvery bounds how long a token removed from the file stays valid.
const reloadEvery = time.Second

// Tokens knows who a bearer is. It is safe for concurrent use.
type Tokens struct {
	file string

	mu      sync.Mutex // guards what follows
	byHash  map[string]Token
	checked time.Time
	mtime   time.Time
	size    int64
}

// NewTokens knows the given tokens for ever.
func NewTokens(tokens ...Token) *Tokens {
	t := &Tokens{byHash: map[string]Token{}}
	for _, k := range tokens {
		t.byHash[k.Hash] = k
	}
	return t
}

// LoadTokens reads a token file and follows its changes. A line is a name, a role and a hash; # begins a comment:
//
//	admin Contributor sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
func LoadTokens(file string) (*Tokens, error) {
	t := &Tokens{file: file}
	if err := t.reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// Find returns the token of a secret. While the file cannot be read, what it said last stays valid.
func (t *Tokens) Find(secret string) (Token, bool) {
	hash := HashToken(secret)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != "" && time.Since(t.checked) > reloadEvery {
		_ = t.reloadLocked()
	}
	k, ok := t.byHash[hash]
	return k, ok
}

func (t *Tokens) reload() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reloadLocked()
}

func (t *Tokens) reloadLocked() error {
	t.checked = time.Now()
	f, err := os.Open(t.file)
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	if t.byHash != nil && info.ModTime().Equal(t.mtime) && info.Size() == t.size {
		return nil
	}
	byHash, err := parseTokens(f)
	if err != nil {
		return fmt.Errorf("read tokens from %s: %w", t.file, err)
	}
	t.byHash, t.mtime, t.size = byHash, info.ModTime(), info.Size()
	return nil
}

func parseTokens(r io.Reader) (map[string]Token, error) {
	byHash := map[string]Token{}
	in := bufio.NewScanner(r)
	for n := 1; in.Scan(); n++ {
		line, _, _ := strings.Cut(in.Text(), "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return nil, fmt.Errorf("line %d: want a name, a role and a hash", n)
		}
		role := Role(f[1])
		if roleRank[role] == 0 {
			return nil, fmt.Errorf("line %d: role %q is none of Reader, Operator, Contributor", n, f[1])
		}
		digest, ok := strings.CutPrefix(f[2], "sha256:")
		if b, err := hex.DecodeString(digest); !ok || err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("line %d: the hash is not sha256: and 64 hexadecimal digits", n)
		}
		hash := "sha256:" + strings.ToLower(digest)
		byHash[hash] = Token{Name: f[0], Role: role, Hash: hash}
	}
	return byHash, in.Err()
}
