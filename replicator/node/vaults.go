package node

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"gocloud.dev/blob"

	"github.com/lifeboat-dr/lifeboat/replicator/chunk"
	"github.com/lifeboat-dr/lifeboat/replicator/ingest"
	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/replicator/worker"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// vaults holds the vaults that are served, open.
type vaults struct {
	codec chunk.Codec
	log   *slog.Logger

	mu     sync.RWMutex
	byID   map[string]*servedVault
	byName map[string]*servedVault
}

type servedVault struct {
	desired fleet.ServedVault
	content string // of desired, to see changes
	bucket  *blob.Bucket
	worker  *worker.Vault
	ingest  *ingest.Vault
}

func newVaults(codec chunk.Codec, log *slog.Logger) *vaults {
	return &vaults{codec: codec, log: log, byID: map[string]*servedVault{}, byName: map[string]*servedVault{}}
}

var _ worker.Vaults = (*vaults)(nil)

// Vault implements worker.Vaults.
func (v *vaults) Vault(_ context.Context, id string) (*worker.Vault, error) {
	v.mu.RLock()
	s := v.byID[id]
	v.mu.RUnlock()
	if s == nil {
		return nil, &worker.Fault{Code: "unavailable", Message: fmt.Sprintf("This replicator does not serve vault %s now.", id),
			PossibleCauses:    "The vault was made a moment ago, or its bucket cannot be opened from here.",
			RecommendedAction: "It is tried again by itself. When it stays so, look at the replicator's log."}
	}
	return s.worker, nil
}

// byServerName is ingest's view of the vaults.
func (v *vaults) byServerName(name string) (*ingest.Vault, error) {
	v.mu.RLock()
	s := v.byName[name]
	v.mu.RUnlock()
	if s == nil {
		return nil, ingest.ErrNotServed
	}
	return s.ingest, nil
}

// all returns the vaults in no particular order.
func (v *vaults) all() []*worker.Vault {
	v.mu.RLock()
	defer v.mu.RUnlock()
	out := make([]*worker.Vault, 0, len(v.byID))
	for _, s := range v.byID {
		out = append(out, s.worker)
	}
	return out
}

// apply makes what is served equal to desired. Vaults that cannot be opened are left out and told in the error; the others are
// served. gone are vaults whose sessions must end, because they are no longer served or with other keys; opened are new.
func (v *vaults) apply(ctx context.Context, desired []fleet.ServedVault) (gone []string, opened []*worker.Vault, err error) {
	var errs []error
	wanted := map[string]bool{}
	for _, d := range desired {
		wanted[d.VaultId] = true
		v.mu.RLock()
		have := v.byID[d.VaultId]
		v.mu.RUnlock()
		content, err := contentOf(d)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if have != nil && have.content == content {
			continue
		}
		fresh, err := openVault(ctx, d, content, have, repo.Options{Codec: v.codec, Logger: v.log})
		if err != nil {
			errs = append(errs, fmt.Errorf("serve vault %s: %w", d.VaultId, err))
			continue
		}
		v.mu.Lock()
		if have != nil {
			delete(v.byName, have.desired.ServerName)
		}
		v.byID[d.VaultId], v.byName[d.ServerName] = fresh, fresh
		v.mu.Unlock()
		if have == nil {
			opened = append(opened, fresh.worker)
			v.log.Info("vault is served", "vault", d.VaultId, "bucket", d.BucketUrl)
		} else if have.bucket != fresh.bucket {
			gone = append(gone, d.VaultId)
			errs = append(errs, have.bucket.Close())
		}
	}
	v.mu.Lock()
	var closing []*servedVault
	for id, s := range v.byID {
		if !wanted[id] {
			delete(v.byID, id)
			delete(v.byName, s.desired.ServerName)
			closing = append(closing, s)
		}
	}
	v.mu.Unlock()
	for _, s := range closing {
		gone = append(gone, s.desired.VaultId)
		errs = append(errs, s.bucket.Close())
		v.log.Info("vault is no longer served", "vault", s.desired.VaultId)
	}
	return gone, opened, errors.Join(errs...)
}

// openVault opens a vault, taking over the repository of have when only certificates changed.
func openVault(ctx context.Context, d fleet.ServedVault, content string, have *servedVault, opt repo.Options) (*servedVault, error) {
	var key repo.Key
	if len(d.DataKey) != len(key) {
		return nil, fmt.Errorf("data key has %d bytes", len(d.DataKey))
	}
	copy(key[:], d.DataKey)
	certificate, err := tls.X509KeyPair([]byte(d.ServerCertificate), []byte(d.ServerKey))
	if err != nil {
		return nil, fmt.Errorf("read server certificate: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM([]byte(d.CaCertificate)) {
		return nil, errors.New("the vault's authority is not a PEM certificate")
	}
	if len(d.GrantPublicKey) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("grant key has %d bytes", len(d.GrantPublicKey))
	}
	s := &servedVault{desired: d, content: content}
	if have != nil && have.desired.BucketUrl == d.BucketUrl && slices.Equal(have.desired.DataKey, d.DataKey) {
		s.bucket, s.worker = have.bucket, have.worker
	} else {
		if s.bucket, err = localbucket.OpenURL(ctx, d.BucketUrl); err != nil {
			return nil, err
		}
		file := d.VaultFile
		if len(file) == 0 {
			file = nil // another one is being written; either may be there
		}
		r, err := repo.Open(ctx, s.bucket, d.VaultId, key, file, opt)
		if err != nil {
			return nil, errors.Join(err, s.bucket.Close())
		}
		s.worker = &worker.Vault{ID: d.VaultId, Repository: r, Source: restore.Point{Bucket: d.BucketUrl, Vault: d.VaultId, DataKey: d.DataKey}}
	}
	s.ingest = &ingest.Vault{ID: d.VaultId, Certificate: certificate, ClientCAs: clients, GrantKey: d.GrantPublicKey, Repository: ingest.FromRepo(s.worker.Repository)}
	return s, nil
}

// contentOf names what is desired of a vault by all its content.
func contentOf(d fleet.ServedVault) (string, error) {
	raw, err := json.Marshal(d)
	return string(raw), err
}

// close closes all buckets. Nothing may use the vaults any more.
func (v *vaults) close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	for _, s := range v.byID {
		errs = append(errs, s.bucket.Close())
	}
	clear(v.byID)
	clear(v.byName)
	return errors.Join(errs...)
}
