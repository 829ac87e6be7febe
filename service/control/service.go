package control

import (
	"context"
	"log/slog"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Sealer keeps secrets at rest. Open returns what Seal was given with the same context string, or an error.
type Sealer interface {
	Seal(plain []byte, context string) ([]byte, error)
	Open(sealed []byte, context string) ([]byte, error)
}

// VaultSecrets are a vault's keys. They are stored sealed and never leave the control plane but to replicators.
type VaultSecrets struct {
	DataKey []byte // 32 bytes
	// VaultFile is the content of the bucket's vault.json: the data key wrapped under the recovery key. Nil while another one is
	// being written, when either may be there.
	VaultFile     []byte
	CACertificate string // PEM, signs the vault's agents and replicators' data-plane servers
	CAKey         string // PEM
	GrantKey      []byte // Ed25519 seed (32 bytes); signs grants
}

// VaultMaker makes the keys of a new vault and the recovery key that is shown once.
type VaultMaker func(vaultID string) (VaultSecrets, string, error)

// QueueReader is what the service needs of the queue.
type QueueReader interface {
	Progress(ctx context.Context, taskIDs []string) (map[string]queue.Progress, error)
}

// Config wires a Service. All fields but Log, Progress and WrapKey are required.
type Config struct {
	Store     store.Store
	Sealer    Sealer
	MakeVault VaultMaker
	WrapKey   WrapKey // nil: recovery keys cannot be reissued
	// BucketURL tells where the vault's objects live, a gocloud.dev URL.
	BucketURL func(vaultID string) string
	Progress  QueueReader // nil: job views carry no live progress
	// Drivers are providers whose legs have drivers of their own among the workers (job.CapabilityLeg), besides those that the
	// control plane drives itself. Machines cannot be protected with any other.
	Drivers []dr.ProviderType
	Log     *slog.Logger
}

// Service is safe for concurrent use.
type Service struct {
	store     store.Store
	sealer    Sealer
	makeVault VaultMaker
	wrapKey   WrapKey
	bucketURL func(string) string
	progress  QueueReader
	drivers   []dr.ProviderType
	log       *slog.Logger
	now       func() time.Time
}

// New returns a Service.
func New(c Config) *Service {
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Service{store: outages{c.Store}, sealer: c.Sealer, makeVault: c.MakeVault, wrapKey: c.WrapKey, bucketURL: c.BucketURL, progress: c.Progress, drivers: c.Drivers, log: log,
		now: func() time.Time { return time.Now().UTC() }}
}

// Store is the one truth that the service works on.
func (s *Service) Store() store.Store { return s.store }

// Caller is who asks. It travels in the context and ends up in jobs and events.
type Caller struct {
	Name string
	// RequestID is the client's own id of the request (x-ms-client-request-id). The same action with the same id on the same
	// resource is the same request: it returns the first one's job.
	RequestID     string
	CorrelationID string
}

type callerKey struct{}

// WithCaller returns ctx with the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

func callerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Ref names a resource below a vault. Vault is the vault's ID (not its name); the names compare without case. Which of the
// others are set depends on the kind: a fabric has Fabric and nothing more, a container Fabric and Container, a protected item
// all three and Name; a policy has only Name.
type Ref struct {
	Vault     string
	Fabric    string
	Container string
	Name      string
}

// Page is a part of a list. Next is the value of after for the next part, empty at the end.
type Page[T any] struct {
	Items []T
	Next  string
}

// Paging of lists: after is the Next of the page before, limit at most MaxPage (0: MaxPage).
type Paging struct {
	After string
	Limit int
}

// MaxPage bounds a page of a list.
const MaxPage = 500
