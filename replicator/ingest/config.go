// Package ingest is the process server's side of replication: it takes sessions of agents in, verifies their grants offline,
// hands what they ship to a writer of the repository and answers only for what is safe. It never keeps a disk's bytes in memory
// beyond its window, never acknowledges what a crash could lose, and never tells Durable before the point log holds the point.
package ingest

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// ErrNotServed is what Config.Vault returns for a server name that belongs to no vault served here.
var ErrNotServed = errors.New("ingest: no vault is served under this name")

// Config is what a Server needs to know. Vault and Dir are required.
type Config struct {
	// Vault returns the vault served under a TLS server name, or ErrNotServed. It is called for each connection, from many
	// goroutines, and must be quick: it looks up what the replicator already opened.
	Vault func(serverName string) (*Vault, error)
	// Dir is the spool: each (vault, machine) gets a directory below it that survives a crash of the process.
	Dir string
	// SpoolLimit bounds the bytes, over all sessions, that were taken in and are not in a bucket yet. When it is reached,
	// sessions bring theirs to the bucket before they read on, so agents wait. 0 means 2 GiB.
	SpoolLimit int64
	// Window is how many bytes an agent may have in flight without acknowledgement. 0 means 64 MiB.
	Window int64
	// Committed is told every point after its log entry is durable and before the agent hears of it. It must not block: it
	// runs on the session's goroutine. May be nil.
	Committed func(vault string, p Point)
	// Logger may be nil.
	Logger *slog.Logger
	// Now may be nil, for time.Now. It decides whether a grant is alive.
	Now func() time.Time
}

// Vault is one vault as the data plane serves it.
type Vault struct {
	ID          string
	Certificate tls.Certificate   // server certificate for the vault's server name
	ClientCAs   *x509.CertPool    // the vault's authority; agents' certificates must chain to it
	GrantKey    ed25519.PublicKey // verifies grants
	Repository  Repository        // FromRepo(r) for a *repo.Repository
}

// Stats is a snapshot of a Server's work.
type Stats struct {
	Sessions       int
	SpoolBytes     int64 // taken in, not in a bucket yet
	SpoolLimit     int64
	BytesPerSecond int64 // data taken in, averaged over the last seconds
	TotalBytes     int64 // data taken in since the server was made
	Points         int64 // points committed since the server was made
}

// Consistencies of a point, as the fleet protocol spells them.
const (
	crashConsistent = string(fleet.CrashConsistent)
	appConsistent   = string(fleet.ApplicationConsistent)
)
