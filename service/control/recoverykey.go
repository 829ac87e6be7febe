package control

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// WrapKey wraps a vault's data key under a fresh recovery key: the vault's new vault.json, and the key.
type WrapKey func(vaultID string, dataKey []byte) (file []byte, recoveryKey string, err error)

// vaultFile is a document of KindVaultFile: which vault.json the vault's bucket holds since its recovery key was reissued. It is
// no secret; the bucket shows it to everyone who may read there.
type vaultFile struct {
	File []byte // empty: the one that the vault was made with
	// Next is to replace it, and the bucket may hold either by now. NextHash is the SHA-256 of its recovery key.
	Next, NextHash []byte
	Job            string // that writes Next
}

// ReissueRecoveryKey makes a new recovery key for a vault and starts the job that lets the bucket know. The key is in the answer
// and nowhere else. Until the job has succeeded the one before may be the one that opens the bucket; from then on it does not.
func (s *Service) ReissueRecoveryKey(ctx context.Context, vaultID string) (jobID, recoveryKey string, err error) {
	if s.wrapKey == nil {
		return "", "", &dr.Error{Code: dr.CodeUnimplemented, Message: "this server cannot make recovery keys", PossibleCauses: "it was built without", RecommendedAction: "ask lifeboatd"}
	}
	secrets, err := s.VaultSecrets(ctx, vaultID)
	if err != nil {
		return "", "", err
	}
	file, key, err := s.wrapKey(vaultID, secrets.DataKey)
	if err != nil {
		return "", "", fmt.Errorf("wrap the data key of vault %s: %w", vaultID, err)
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		v, err := vaultByID(tx, vaultID)
		if err != nil {
			return err
		}
		doc, err := loadVaultFile(tx, vaultID)
		if err != nil {
			return err
		}
		if _, open, err := LoadOpenJob(tx, doc.Job); err != nil {
			return err
		} else if open { // two writers could end with the first one's file in the bucket
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("job %s is writing a new recovery key to the bucket", doc.Job), PossibleCauses: "someone asked just now, or no replicator reaches the bucket",
				RecommendedAction: "wait until the job has ended; if its key was lost, ask again then"}
		}
		j := newJob(ctx, vaultID, job.PlanReissueKey, target{kind: "Other", id: vaultID, name: v.Name}, now)
		if j.Input, err = json.Marshal(Request{}); err != nil {
			return err
		}
		j.State, jobID = job.InProgress, j.ID
		sum := sha256.Sum256([]byte(key))
		doc.Next, doc.NextHash, doc.Job = file, sum[:], j.ID
		if _, err := tx.Put(KindVaultFile, vaultID, -1, doc); err != nil {
			return err
		}
		if err := vaultEvent(tx, v, j.ID, "RecoveryKeyAsked", dr.SeverityWarning, fmt.Sprintf("A new recovery key of vault %s was given to %s", v.Name, or(callerOf(ctx).Name, "a caller without a name")), now); err != nil {
			return err
		}
		return SaveJob(tx, j)
	})
	if err != nil {
		return "", "", err
	}
	return jobID, key, nil
}

// NextVaultFile is the vault.json that is to replace the bucket's; nil when there is none.
func NextVaultFile(tx store.Tx, vaultID string) ([]byte, error) {
	doc, err := loadVaultFile(tx, vaultID)
	return doc.Next, err
}

// TakeVaultFile records that the bucket holds the next vault.json: the recovery key before it opens the vault no more.
func TakeVaultFile(tx store.Tx, j *job.Job, now time.Time) error {
	v, err := vaultByID(tx, j.Vault)
	if err != nil {
		return err
	}
	doc, err := loadVaultFile(tx, j.Vault)
	if err != nil || doc.Next == nil {
		return err
	}
	v.RecoveryKeyHash = doc.NextHash
	if err := save(tx, KindVault, vaultKey(v.Key), &v, now); err != nil {
		return err
	}
	if _, err := tx.Put(KindVaultFile, j.Vault, -1, vaultFile{File: doc.Next}); err != nil {
		return err
	}
	return vaultEvent(tx, v, j.ID, "RecoveryKeyReissued", dr.SeverityWarning, fmt.Sprintf("Vault %s has a new recovery key; the one before opens its bucket no more", v.Name), now)
}

func vaultEvent(tx store.Tx, v dr.Vault, jobID, code string, severity dr.Severity, text string, now time.Time) error {
	return SaveEvent(tx, &dr.Event{Vault: v.ID, Type: "ServerHealth", Code: dr.NamedGUID("event", code), Severity: severity, Description: text, ObjectName: v.Name, ObjectID: v.ID, JobID: jobID}, now)
}

func loadVaultFile(tx store.Tx, vaultID string) (vaultFile, error) {
	var doc vaultFile
	_, err := tx.Get(KindVaultFile, vaultID, &doc)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return doc, err
}
