package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// ReplicatorReport is what a replicator observes.
type ReplicatorReport struct {
	Revision   int64
	Replicator dr.Replicator // all but ID, Meta, Enrolled and LastHeartbeat
}

// ReplicatorDesired is what a replicator should serve. Revision changes with the content.
type ReplicatorDesired struct {
	Revision     int64 `json:"-"`
	RedisAddress string
	Vaults       []ServedVault
}

// ServedVault is all a replicator needs to serve a vault. It holds secrets.
type ServedVault struct {
	ID                string
	BucketURL         string
	VaultFile         []byte // empty while another one is being written
	DataKey           []byte
	CACertificate     string
	ServerName        string
	ServerCertificate string
	ServerKey         string
	GrantPublicKey    []byte
}

// SyncReplicator records a report and returns what is desired, as SyncAgent does.
func (s *Service) SyncReplicator(ctx context.Context, c Caller, r ReplicatorReport, wait time.Duration) (ReplicatorDesired, error) {
	if err := c.allow(RoleReplicator); err != nil {
		return ReplicatorDesired{}, err
	}
	r.Replicator.ID = c.ID
	if err := s.control.ReplicatorSeen(ctx, r.Replicator); err != nil {
		return ReplicatorDesired{}, err
	}
	return longPoll(ctx, s, wait, func(ctx context.Context) (ReplicatorDesired, bool, error) {
		d, err := s.replicatorDesired(ctx, c, r.Replicator.Site)
		return d, d.Revision != r.Revision, err
	})
}

func (s *Service) replicatorDesired(ctx context.Context, c Caller, site string) (ReplicatorDesired, error) {
	d := ReplicatorDesired{Vaults: []ServedVault{}}
	if site == dr.SiteRecovery { // Redis and SQL are reached only inside the recovery place
		d.RedisAddress = s.redis
	}
	vaults, err := s.control.AllVaults(ctx)
	if err != nil {
		return ReplicatorDesired{}, err
	}
	for _, v := range vaults {
		served, err := s.servedVault(ctx, c.ID, v)
		if err != nil {
			return ReplicatorDesired{}, fmt.Errorf("serve vault %s: %w", v.ID, err)
		}
		d.Vaults = append(d.Vaults, served)
	}
	d.Revision, err = revisionOf(d)
	return d, err
}

func (s *Service) servedVault(ctx context.Context, replicatorID string, v dr.Vault) (ServedVault, error) {
	secrets, err := s.control.VaultSecrets(ctx, v.ID)
	if err != nil {
		return ServedVault{}, err
	}
	name := ServerName(replicatorID, v.ID)
	certificate, key, err := s.serverCertificate(ctx, replicatorID, v.ID, name)
	if err != nil {
		return ServedVault{}, err
	}
	file := secrets.VaultFile
	if file == nil {
		file = []byte{} // it is being replaced: nobody compares it now
	}
	return ServedVault{ID: v.ID, BucketURL: v.BucketURL, VaultFile: file, DataKey: secrets.DataKey, CACertificate: secrets.CACertificate,
		ServerName: name, ServerCertificate: certificate, ServerKey: key, GrantPublicKey: GrantPublicKey(secrets.GrantKey)}, nil
}

// ServerName is the TLS server name under which a replicator serves a vault.
func ServerName(replicatorID, vaultID string) string {
	return "r-" + strings.ToLower(replicatorID) + ".v-" + strings.ToLower(vaultID) + ".lifeboat"
}

// storedServer is a document of KindServerCertificate.
type storedServer struct {
	Certificate string
	SealedKey   []byte
	Expires     time.Time
}

// serverCertificate returns the data-plane certificate of a replicator for a vault, made when there is none or when the last
// third of its life began.
func (s *Service) serverCertificate(ctx context.Context, replicatorID, vaultID, name string) (certificate, key string, err error) {
	doc, seal := replicatorID+"/"+vaultID, "server certificate "+replicatorID+"/"+vaultID
	var have storedServer
	err = s.store.View(ctx, func(tx store.Tx) error {
		_, err := tx.Get(KindServerCertificate, doc, &have)
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return "", "", err
	}
	now := s.now()
	if err == nil && have.Expires.Sub(now) > serverLifetime/3 {
		plain, err := s.sealer.Open(have.SealedKey, seal)
		if err != nil {
			return "", "", fmt.Errorf("open server key: %w", err)
		}
		return have.Certificate, string(plain), nil
	}
	ca, err := s.vaultAuthority(ctx, vaultID)
	if err != nil {
		return "", "", err
	}
	var fresh storedServer
	if fresh.Certificate, key, fresh.Expires, err = ca.IssueServer([]string{name}, now); err != nil {
		return "", "", err
	}
	if fresh.SealedKey, err = s.sealer.Seal([]byte(key), seal); err != nil {
		return "", "", fmt.Errorf("seal server key: %w", err)
	}
	// Two that make one at a time both get a valid certificate; the next sync tells the one that was saved last.
	err = s.store.Update(ctx, func(tx store.Tx) error {
		_, err := tx.Put(KindServerCertificate, doc, -1, fresh)
		return err
	})
	return fresh.Certificate, key, err
}

// RecordPoints puts points that a replicator found in a bucket into the index. With complete they are all points of item, and
// damaged the places of its log that cannot be read.
func (s *Service) RecordPoints(ctx context.Context, c Caller, vaultID string, item dr.ItemID, points []dr.Point, complete bool, damaged ...dr.PointRef) error {
	if err := c.allow(RoleReplicator); err != nil {
		return err
	}
	if complete {
		if item == "" {
			return &dr.Error{Code: dr.CodeInvalid, Message: "A complete list of points must name its machine."}
		}
		for _, p := range points {
			if p.Item != item {
				return &dr.Error{Code: dr.CodeInvalid, Message: "A complete list of points holds a point of another machine."}
			}
		}
		if err := s.control.RecordDamage(ctx, vaultID, item, damaged); err != nil {
			return err
		}
		return s.control.RecordPoints(ctx, vaultID, item, points, true)
	}
	byItem := map[dr.ItemID][]dr.Point{}
	for _, p := range points {
		byItem[p.Item] = append(byItem[p.Item], p)
	}
	var errs []error
	for id, ps := range byItem {
		errs = append(errs, s.control.RecordPoints(ctx, vaultID, id, ps, false))
	}
	return errors.Join(errs...)
}

// PutArtifact keeps a file of a task with its job.
func (s *Service) PutArtifact(ctx context.Context, c Caller, jobID, name string, content []byte) error {
	if err := c.allow(RoleReplicator); err != nil {
		return err
	}
	return s.control.PutArtifact(ctx, jobID, name, content)
}
