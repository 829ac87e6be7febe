package control

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// VaultImport is a vault as its bucket and recovery key tell of it, when its control plane was lost.
type VaultImport struct {
	ID          string // as in the bucket
	Key         dr.VaultKey
	Location    string
	BucketURL   string
	Secrets     VaultSecrets // DataKey and VaultFile from the bucket, the rest made anew
	RecoveryKey string
	Machines    []MachineImport
}

// MachineImport is a machine of the point log.
type MachineImport struct {
	ID         dr.ItemID
	Machine    dr.Machine // as its newest point describes it
	HomeUUID   string     // SMBIOS UUID in its oldest point
	Disks      []dr.Disk  // of the newest point, OS disk first
	Points     []dr.Point
	Generation int64 // the newest
	Closed     bool  // nothing can be added to it
}

// Names of what an import makes around the machines.
const (
	importFabric  = "recovered"
	importPolicy  = "recovered"
	importMapping = "recovered"
)

// Import brings back a vault whose control plane was lost: the vault under a new set of certificates, an InMageRcm site with
// all its machines, and their points. Each machine can be drilled and failed over from any of its points. Which way it
// replicated last is not in the bucket, so it counts as protected from home; its agent must enrol again, and is then bound to
// it by the machine's UUID. A vault that exists is left alone: CodeConflict.
func (s *Service) Import(ctx context.Context, in VaultImport) error {
	if err := s.importVault(ctx, in); err != nil {
		return err
	}
	ref := Ref{Vault: in.ID, Fabric: importFabric}
	if _, err := s.PutFabric(ctx, ref, FabricInput{Kind: dr.FabricInMageRcm, Input: json.RawMessage(`{"instanceType":"InMageRcm"}`)}); err != nil {
		return fmt.Errorf("import site: %w", err)
	}
	ref.Name = importPolicy
	if _, err := s.PutPolicy(ctx, ref, PolicyInput{ProviderSpecificInput: json.RawMessage(
		`{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":5,"appConsistentFrequencyInMinutes":0,"recoveryPointHistoryInMinutes":1440,"enableMultiVmSync":"false"}`)}); err != nil {
		return fmt.Errorf("import policy: %w", err)
	}
	var container string
	err := s.store.View(ctx, func(tx store.Tx) error {
		containers, err := all[dr.Container](tx, KindContainer, under(in.ID, importFabric))
		if err == nil && len(containers) != 1 {
			err = fmt.Errorf("site %s has %d containers", importFabric, len(containers))
		}
		if err == nil {
			container = containers[0].Name
		}
		return err
	})
	if err != nil {
		return err
	}
	mapping := Ref{Vault: in.ID, Fabric: importFabric, Container: container, Name: importMapping}
	if _, err := s.PutMapping(ctx, mapping, MappingInput{PolicyID: "/replicationPolicies/" + importPolicy, TargetContainerID: "Microsoft Azure"}); err != nil {
		return fmt.Errorf("import mapping: %w", err)
	}
	var errs []error
	for _, m := range in.Machines {
		if err := s.importMachine(ctx, in.ID, container, m); err != nil {
			errs = append(errs, fmt.Errorf("import machine %s: %w", m.ID, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Service) importVault(ctx context.Context, in VaultImport) error {
	plain, err := json.Marshal(in.Secrets)
	if err != nil {
		return err
	}
	sealed, err := s.sealer.Seal(plain, secretsContext(in.ID))
	if err != nil {
		return fmt.Errorf("seal keys of vault %s: %w", in.ID, err)
	}
	sum := sha256.Sum256([]byte(in.RecoveryKey))
	return s.store.Update(ctx, func(tx store.Tx) error {
		v := dr.Vault{Meta: dr.Meta{Name: in.Key.Name}, Key: in.Key, ID: in.ID, Location: in.Location, SKU: "RS0", SKUTier: "Standard",
			BucketURL: in.BucketURL, RecoveryKeyHash: sum[:]}
		if _, ok, err := find[dr.Vault](tx, KindVault, vaultKey(in.Key)); ok || err != nil {
			return errors.Join(err, exists(in.Key.Name, ok))
		}
		if _, err := tx.Put(KindVaultName, v.ID, 0, in.Key); err != nil {
			return errors.Join(exists(in.ID, errors.Is(err, store.ErrConflict)), err)
		}
		if _, err := tx.Put(KindVaultSecrets, v.ID, 0, sealed); err != nil {
			return err
		}
		return save(tx, KindVault, vaultKey(in.Key), &v, s.now())
	})
}

func exists(name string, really bool) error {
	if !really {
		return nil
	}
	return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("vault %s exists already", name), PossibleCauses: "the data directory was not lost, or was rebuilt before",
		RecommendedAction: "import into a new data directory"}
}

func (s *Service) importMachine(ctx context.Context, vault, container string, m MachineImport) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		name := or(m.Machine.Hostname, string(m.ID))
		observed, err := json.Marshal(m.Machine)
		if err != nil {
			return err
		}
		a := dr.Agent{ID: newID(), Vault: vault, Fabric: importFabric, Container: container, Hostname: name, Machine: m.Machine, Enrolled: now}
		p := dr.ProtectableItem{ID: newID(), Vault: vault, Fabric: importFabric, Container: container, FriendlyName: name, AgentID: a.ID,
			OSType: m.Machine.OSType, Physical: m.Machine.Platform == "physical", Observed: observed, ProtectedAs: m.ID}
		if len(m.Machine.IPAddresses) > 0 {
			p.Address = m.Machine.IPAddresses[0]
		}
		p.Name, a.Name, a.ProtectableItem = p.ID, a.ID, p.ID
		itemName, err := freeItemName(tx, Ref{Vault: vault, Fabric: importFabric, Container: container, Name: name}, m.ID)
		if err != nil {
			return err
		}
		it := dr.Item{Meta: dr.Meta{Name: itemName}, ID: m.ID, Vault: vault, Fabric: importFabric, Container: container, FriendlyName: name,
			ProtectableItem: p.Name, AgentID: a.ID, Physical: p.Physical, PolicyName: importPolicy, Disks: m.Disks, Hardware: m.Machine.Hardware(),
			EnableInput: json.RawMessage(`{"instanceType":"InMageRcm"}`), TargetName: name, Generation: m.Generation, Fenced: m.Closed,
			ActiveUUID: m.Machine.ProductUUID, HomeUUID: or(m.HomeUUID, m.Machine.ProductUUID), InternalID: newID(), CorrelationID: newID(), PlannedFailoverStatus: "None",
			State: dr.State{Leg: dr.FirstLeg(dr.ProviderInMageRcm).Name, Phase: dr.PhaseProtected, Since: now}}
		if err := save(tx, KindAgent, a.ID, &a, now); err != nil {
			return err
		}
		if err := save(tx, KindProtectable, fold(vault, importFabric, container, p.Name), &p, now); err != nil {
			return err
		}
		if err := SaveItem(tx, &it, now); err != nil {
			return err
		}
		for _, q := range m.Points {
			if err := recordPoint(tx, &it, q); err != nil {
				return err
			}
		}
		return importEvent(tx, &it, len(m.Points), now)
	})
}

// freeItemName is the machine's name as far as an item can have it, with its id when another machine has it already.
func freeItemName(tx store.Tx, ref Ref, id dr.ItemID) (string, error) {
	if checkName("protected item", ref.Name) != nil {
		return string(id), nil
	}
	_, taken, err := find[dr.Item](tx, KindItem, ref.itemKey())
	if taken {
		return ref.Name + "-" + strings.ToLower(string(id)), err
	}
	return ref.Name, err
}

func importEvent(tx store.Tx, it *dr.Item, points int, now time.Time) error {
	e := ItemEvent(it, "Imported", dr.SeverityInfo, fmt.Sprintf("%s was brought back from its bucket with %d recovery points", it.FriendlyName, points))
	return SaveEvent(tx, &e, now)
}
