package fleet

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/queue"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Documents of this package. Keys in them are sealed.
const (
	KindAuthority         store.Kind = "fleetAuthority"         // key "fleet"
	KindServerCertificate store.Kind = "fleetServerCertificate" // key <replicator id>/<vault id>
)

// Control is what this package needs of the use cases; *control.Service has it.
type Control interface {
	EnrolAgent(ctx context.Context, key, fingerprint string, m dr.Machine) (control.Enrolled, error)
	EnrolReplicator(ctx context.Context, key, fingerprint string, r dr.Replicator) (control.Enrolled, error)
	EnsureReplicator(ctx context.Context, r dr.Replicator) error
	Agent(ctx context.Context, id string) (dr.Agent, error)
	AgentSeen(ctx context.Context, agentID string, version string, m dr.Machine, observed []dr.Observed, hosted ...dr.HostedMachine) error
	AgentItems(ctx context.Context, agentID string) ([]control.AgentItem, error)
	GroupMembers(ctx context.Context, it dr.Item) ([]control.GroupMember, error)
	Replicator(ctx context.Context, id string) (dr.Replicator, error)
	Replicators(ctx context.Context) ([]dr.Replicator, error)
	ReplicatorSeen(ctx context.Context, r dr.Replicator) error
	RecordPoints(ctx context.Context, vaultID string, item dr.ItemID, points []dr.Point, complete bool) error
	RecordDamage(ctx context.Context, vaultID string, item dr.ItemID, places []dr.PointRef) error
	AllVaults(ctx context.Context) ([]dr.Vault, error)
	VaultSecrets(ctx context.Context, vaultID string) (control.VaultSecrets, error)
	PutArtifact(ctx context.Context, jobID, name string, content []byte) error
}

// Sealer keeps secrets at rest, as control.Sealer.
type Sealer = control.Sealer

// Config wires a Service. Log may be nil, all else but RedisAddress is required.
type Config struct {
	Control Control
	Store   store.Store
	Sealer  Sealer
	Workers queue.Workers
	// RedisAddress is told to replicators at the recovery site, which then take tasks from there. Empty: they lease them here.
	RedisAddress string
	// Watched are the kinds of documents whose change may change what is desired of someone.
	Watched []store.Kind
	Log     *slog.Logger
}

// Service is safe for concurrent use.
type Service struct {
	control  Control
	store    store.Store
	sealer   Sealer
	workers  queue.Workers
	redis    string
	watched  []store.Kind
	log      *slog.Logger
	now      func() time.Time
	fleetCA  *Authority
	draining chan struct{}
	drain    sync.Once

	mu       sync.Mutex
	vaultCAs map[string]*Authority // by vault id; a vault's authority never changes
}

// Open returns a Service. The first one on a store makes the fleet's authority.
func Open(ctx context.Context, c Config) (*Service, error) {
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Service{control: c.Control, store: c.Store, sealer: c.Sealer, workers: c.Workers, redis: c.RedisAddress, watched: c.Watched, log: log,
		now: func() time.Time { return time.Now().UTC() }, draining: make(chan struct{}), vaultCAs: map[string]*Authority{}}
	var err error
	if s.fleetCA, err = s.openFleetAuthority(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Drain makes running and later long polls answer at once, so that a server can end its connections.
func (s *Service) Drain() { s.drain.Do(func() { close(s.draining) }) }

// Authority is the fleet's certificate authority.
func (s *Service) Authority() *Authority { return s.fleetCA }

// storedAuthority is a document of KindAuthority.
type storedAuthority struct {
	Certificate string
	SealedKey   []byte
}

const (
	fleetAuthorityKey  = "fleet"
	fleetAuthoritySeal = "fleet authority"
)

// ErrOtherKey means that the sealer is not the one that the store's secrets were sealed with.
var ErrOtherKey = errors.New("fleet: secrets are sealed under another key")

// Founded tells whether a store has a fleet's authority already, and with it sealed secrets.
func Founded(ctx context.Context, db store.Store) (founded bool, err error) {
	err = db.View(ctx, func(tx store.Tx) error {
		n, err := tx.Count(KindAuthority, "", 1)
		founded = n > 0
		return err
	})
	return founded, err
}

func (s *Service) openFleetAuthority(ctx context.Context) (*Authority, error) {
	var a storedAuthority
	err := s.store.Update(ctx, func(tx store.Tx) error {
		_, err := tx.Get(KindAuthority, fleetAuthorityKey, &a)
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		certificate, key, err := NewAuthority("Lifeboat fleet", s.now())
		if err != nil {
			return err
		}
		sealed, err := s.sealer.Seal([]byte(key), fleetAuthoritySeal)
		if err != nil {
			return err
		}
		a = storedAuthority{Certificate: certificate, SealedKey: sealed}
		_, err = tx.Put(KindAuthority, fleetAuthorityKey, 0, a)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open fleet authority: %w", err)
	}
	key, err := s.sealer.Open(a.SealedKey, fleetAuthoritySeal)
	if err != nil {
		return nil, fmt.Errorf("open fleet authority: %w: %w", ErrOtherKey, err)
	}
	return LoadAuthority(a.Certificate, string(key))
}

// vaultAuthority returns a vault's certificate authority.
func (s *Service) vaultAuthority(ctx context.Context, vaultID string) (*Authority, error) {
	s.mu.Lock()
	a := s.vaultCAs[vaultID]
	s.mu.Unlock()
	if a != nil {
		return a, nil
	}
	secrets, err := s.control.VaultSecrets(ctx, vaultID)
	if err != nil {
		return nil, err
	}
	if a, err = LoadAuthority(secrets.CACertificate, secrets.CAKey); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.vaultCAs[vaultID] = a
	s.mu.Unlock()
	return a, nil
}

// Role of a caller.
type Role string

const (
	RoleAgent      Role = "agent"
	RoleReplicator Role = "replicator"
)

// Caller is who holds a client certificate.
type Caller struct {
	ID    string
	Role  Role
	Vault string // of an agent
}

// Authenticate tells who a client certificate belongs to: a replicator when the fleet's authority signed it, an agent when
// its own vault's did. Whoever was removed is refused. Errors: CodeUnauthenticated, or what kept it from looking.
func (s *Service) Authenticate(ctx context.Context, cert *x509.Certificate) (Caller, error) {
	if cert == nil {
		return Caller{}, unauthenticated("No client certificate was shown.", nil)
	}
	id, now := cert.Subject.CommonName, s.now()
	if err := s.fleetCA.Verify(cert, now); err == nil {
		if _, err := s.control.Replicator(ctx, id); err != nil {
			return Caller{}, unknownCaller(err)
		}
		return Caller{ID: id, Role: RoleReplicator}, nil
	}
	agent, err := s.control.Agent(ctx, id)
	if err != nil {
		return Caller{}, unknownCaller(err)
	}
	ca, err := s.vaultAuthority(ctx, agent.Vault)
	if err != nil {
		return Caller{}, unknownCaller(err)
	}
	if err := ca.Verify(cert, now); err != nil {
		return Caller{}, unauthenticated("The client certificate was not signed by the vault's authority or is no longer valid.", err)
	}
	return Caller{ID: id, Role: RoleAgent, Vault: agent.Vault}, nil
}

// unknownCaller keeps errors that say nothing about the caller, such as a store that is down.
func unknownCaller(err error) error {
	if dr.CodeOf(err) != dr.CodeNotFound {
		return err
	}
	return unauthenticated("The caller is not registered here.", err)
}

func unauthenticated(message string, err error) error {
	return &dr.Error{Code: dr.CodeUnauthenticated, Message: message, PossibleCauses: "It never enrolled, was removed, or its certificate expired.",
		RecommendedAction: "Enrol it again with a new registration key.", Err: err}
}

// allow refuses callers of another role.
func (c Caller) allow(role Role) error {
	if c.Role != role {
		return &dr.Error{Code: dr.CodeForbidden, Message: fmt.Sprintf("This is for %ss; the caller is not one.", role)}
	}
	return nil
}
