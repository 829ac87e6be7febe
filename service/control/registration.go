package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Lifetimes of registration keys.
const (
	defaultKeyLifetime = 24 * time.Hour
	maxKeyLifetime     = 30 * 24 * time.Hour
)

// Roles that a registration key is for.
const (
	RoleAgent      = "agent"
	RoleReplicator = "replicator"
)

// CreateRegistrationKey makes a key that lets one agent or replicator enrol before it expires.
func (s *Service) CreateRegistrationKey(ctx context.Context, in RegistrationKeyInput) (RegistrationKey, error) {
	switch {
	case in.Role != RoleAgent && in.Role != RoleReplicator:
		return RegistrationKey{}, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("role is %q", in.Role), PossibleCauses: "it is not a role", RecommendedAction: "send agent or replicator"}
	case in.Role == RoleAgent && in.Fabric == "":
		return RegistrationKey{}, &dr.Error{Code: dr.CodeInvalid, Message: "an agent's key needs a fabric", PossibleCauses: "the request names none", RecommendedAction: "ask for the key at a fabric"}
	case in.Lifetime < 0 || in.Lifetime > maxKeyLifetime:
		return RegistrationKey{}, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("a lifetime of %s is outside the limits", in.Lifetime), PossibleCauses: "it is negative or too long",
			RecommendedAction: fmt.Sprintf("ask for at most %s", maxKeyLifetime)}
	}
	if in.Lifetime == 0 {
		in.Lifetime = defaultKeyLifetime
	}
	// rand.Text is 26 characters of 5 bits.
	id, secret := strings.ToLower(rand.Text()[:10]), rand.Text()
	var out RegistrationKey
	err := s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		if in.Fabric != "" {
			f, err := load[dr.Fabric](tx, KindFabric, fold(in.Vault, in.Fabric))
			if err != nil {
				return err
			}
			in.Fabric = f.Name
		} else if in.Vault != "" {
			if _, err := vaultByID(tx, in.Vault); err != nil {
				return err
			}
		}
		sum := sha256.Sum256([]byte(secret))
		k := dr.RegistrationKey{ID: id, Hash: sum[:], Vault: in.Vault, Fabric: in.Fabric, Role: in.Role, Expires: now.Add(in.Lifetime)}
		out = RegistrationKey{Key: "lbr-" + id + "-" + secret, Expires: k.Expires}
		return save(tx, KindRegistrationKey, id, &k, now)
	})
	return out, err
}

// ConsumeRegistrationKey takes the key for the caller with the fingerprint. used is the id the caller got when it consumed the
// key before: then the request is a repetition. Otherwise the caller saves the key with the new id in UsedAs.
func ConsumeRegistrationKey(tx store.Tx, key, role, fingerprint string, now time.Time) (k dr.RegistrationKey, used string, err error) {
	refused := &dr.Error{Code: dr.CodeUnauthenticated, Message: "the registration key is not valid", PossibleCauses: "it was used, has expired, is for another role, or is misspelled",
		RecommendedAction: "create a new registration key and enrol with it"}
	parts := strings.SplitN(strings.TrimSpace(key), "-", 3)
	if len(parts) != 3 || parts[0] != "lbr" {
		return k, "", refused
	}
	k, ok, err := find[dr.RegistrationKey](tx, KindRegistrationKey, strings.ToLower(parts[1]))
	if err != nil {
		return k, "", err
	}
	sum := sha256.Sum256([]byte(strings.ToUpper(parts[2])))
	if !ok || subtle.ConstantTimeCompare(sum[:], k.Hash) != 1 || k.Role != role || now.After(k.Expires) {
		return k, "", refused
	}
	if k.UsedBy != "" {
		if subtle.ConstantTimeCompare([]byte(k.UsedBy), []byte(fingerprint)) != 1 {
			return k, "", refused
		}
		return k, k.UsedAs, nil
	}
	k.UsedBy = fingerprint
	return k, "", nil
}

// EnrolReplicator consumes a registration key and makes the replicator, and a provider in the key's fabric.
func (s *Service) EnrolReplicator(ctx context.Context, key, fingerprint string, r dr.Replicator) (out Enrolled, err error) {
	err = s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		k, used, err := ConsumeRegistrationKey(tx, key, RoleReplicator, fingerprint, now)
		if err != nil {
			return err
		}
		if used != "" {
			out = Enrolled{ID: used}
			return nil
		}
		r.Meta, r.ID, r.Vault, r.Fabric, r.Enrolled, r.LastHeartbeat = dr.Meta{}, newID(), k.Vault, k.Fabric, now, now
		r.Name = r.ID
		k.UsedAs = r.ID
		if err := save(tx, KindRegistrationKey, k.ID, &k, now); err != nil {
			return err
		}
		if err := save(tx, KindReplicator, r.ID, &r, now); err != nil {
			return err
		}
		out = Enrolled{ID: r.ID}
		if k.Fabric == "" {
			return nil
		}
		p := dr.Provider{Meta: dr.Meta{Name: r.ID}, ID: r.ID, Vault: k.Vault, Fabric: k.Fabric, ReplicatorID: r.ID, Hostname: r.Hostname}
		return save(tx, KindProvider, fold(k.Vault, k.Fabric, p.Name), &p, now)
	})
	return out, err
}

// EnsureReplicator makes the replicator with r.ID unless it exists: the embedded one needs no key.
func (s *Service) EnsureReplicator(ctx context.Context, r dr.Replicator) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		if _, ok, err := find[dr.Replicator](tx, KindReplicator, r.ID); ok || err != nil {
			return err
		}
		r.Meta, r.Enrolled, r.LastHeartbeat = dr.Meta{Name: r.ID}, now, now
		return save(tx, KindReplicator, r.ID, &r, now)
	})
}

// Replicator returns an enrolled replicator.
func (s *Service) Replicator(ctx context.Context, id string) (r dr.Replicator, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		r, err = load[dr.Replicator](tx, KindReplicator, id)
		return err
	})
	return r, err
}

// Replicators lists all replicators.
func (s *Service) Replicators(ctx context.Context) (rs []dr.Replicator, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		rs, err = LoadReplicators(tx)
		return err
	})
	return rs, err
}

// ReplicatorSeen records a replicator's report, which is its heartbeat.
func (s *Service) ReplicatorSeen(ctx context.Context, r dr.Replicator) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		old, err := load[dr.Replicator](tx, KindReplicator, r.ID)
		if err != nil {
			return err
		}
		r.Meta, r.Vault, r.Fabric, r.Enrolled, r.LastHeartbeat = old.Meta, old.Vault, old.Fabric, old.Enrolled, now
		return save(tx, KindReplicator, r.ID, &r, now)
	})
}

// PutArtifact keeps a file with a job. At most MaxArtifact bytes.
func (s *Service) PutArtifact(ctx context.Context, jobID, name string, content []byte) error {
	if len(content) > MaxArtifact {
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("an artifact of %d bytes is too large", len(content)), PossibleCauses: "logs grew beyond the limit", RecommendedAction: fmt.Sprintf("send at most %d bytes", MaxArtifact)}
	}
	return s.store.Update(ctx, func(tx store.Tx) error {
		j, ok, err := LoadOpenJob(tx, jobID)
		if err != nil {
			return err
		}
		if !ok {
			return notFound(KindJob, jobID)
		}
		if _, err := tx.Put(KindArtifact, jobID+"/"+name, -1, content); err != nil {
			return err
		}
		for _, a := range j.Artifacts {
			if a == name {
				return nil
			}
		}
		j.Artifacts = append(j.Artifacts, name)
		return SaveJob(tx, &j)
	})
}

// Artifact returns a job's file.
func (s *Service) Artifact(ctx context.Context, vaultID, jobID, name string) (content []byte, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if _, err := LoadJob(tx, vaultID, jobID); err != nil {
			return err
		}
		_, err := tx.Get(KindArtifact, jobID+"/"+name, &content)
		if errors.Is(err, store.ErrNotFound) {
			return notFound(KindArtifact, name)
		}
		return err
	})
	return content, err
}
