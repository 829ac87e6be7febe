package control

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

func containerTarget(ref Ref) target {
	return target{kind: "Other", name: ref.Container, path: ref.containerPath(), id: dr.NamedGUID("container", fold(ref.Vault, ref.Fabric, ref.Container))}
}

// PutContainer creates a container in a region. providers are the instanceTypes of the request. The same request again changes
// nothing.
func (s *Service) PutContainer(ctx context.Context, ref Ref, providers []string) (string, error) {
	if err := checkName("protection container", ref.Container); err != nil {
		return "", err
	}
	for _, p := range providers {
		if strings.EqualFold(p, "VMwareCbt") || strings.EqualFold(p, "A2ACrossClusterMigration") {
			return "", &dr.Error{Code: dr.CodeUnimplemented, Message: fmt.Sprintf("containers for %s cannot be created", p), PossibleCauses: "this server has no driver for the provider",
				RecommendedAction: "protect the machines with the guest agent (InMageRcm); a failover that is committed migrates them"}
		}
	}
	return s.atOnce(ctx, ref.Vault, job.PlanCreateContainer, containerTarget(ref), func(tx store.Tx, now time.Time) error {
		f, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		key := fold(ref.Vault, ref.Fabric, ref.Container)
		if _, ok, err := find[dr.Container](tx, KindContainer, key); ok || err != nil {
			return err
		}
		if f.Kind != dr.FabricAzure {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("fabric %s is of kind %s, whose containers are made by discovery", f.Name, f.Kind),
				PossibleCauses: "only regions take containers from clients", RecommendedAction: "list replicationProtectionContainers of the fabric and use what is there"}
		}
		c := dr.Container{Meta: dr.Meta{Name: ref.Container}, ID: newID(), Vault: f.Vault, Fabric: f.Name, FriendlyName: ref.Container}
		return save(tx, KindContainer, key, &c, now)
	})
}

// RemoveContainer removes a region's container that holds nothing.
func (s *Service) RemoveContainer(ctx context.Context, ref Ref) (string, error) {
	t := containerTarget(ref)
	t.removed = true
	return s.atOnce(ctx, ref.Vault, job.PlanRemoveContainer, t, func(tx store.Tx, _ time.Time) error {
		key := fold(ref.Vault, ref.Fabric, ref.Container)
		c, err := load[dr.Container](tx, KindContainer, key)
		if err != nil {
			return err
		}
		f, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		if f.Kind != dr.FabricAzure {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("container %s belongs to fabric %s as long as it exists", c.Name, f.Name),
				PossibleCauses: "fabrics of this kind make their containers themselves", RecommendedAction: "remove the fabric"}
		}
		prefix := under(c.Vault, c.Fabric, c.Name)
		for _, k := range []store.Kind{KindItem, KindMapping} {
			names, err := namesUnder(tx, k, prefix)
			if err != nil {
				return err
			}
			if len(names) > 0 {
				return inUse("protection container", c.Name, names, "remove the protected items and the container mappings, then the container")
			}
		}
		if err := deleteUnder(tx, KindProtectable, prefix); err != nil {
			return err
		}
		return tx.Delete(KindContainer, key, c.Version)
	})
}

// SwitchProtection turns round the replication of an item of a container: what reProtect is for providers other than A2A.
func (s *Service) SwitchProtection(ctx context.Context, ref Ref, item string, in json.RawMessage) (string, error) {
	ref.Name = lastSegment(item)
	if ref.Name == "" {
		return "", &dr.Error{Code: dr.CodeInvalid, Message: "replicationProtectedItemName is missing", PossibleCauses: "the request names no machine", RecommendedAction: "send the name of a protected item of the container"}
	}
	err := s.store.View(ctx, func(tx store.Tx) error {
		it, err := load[dr.Item](tx, KindItem, ref.itemKey())
		if err != nil {
			return err
		}
		if dr.Project(it.State).Provider != dr.ProviderA2A {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("%s is not replicated between regions", it.FriendlyName), PossibleCauses: "only A2A switches protection at the container",
				RecommendedAction: "call reProtect on the protected item"}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return s.Reprotect(ctx, ref, ReprotectInput{ProviderInput: in})
}
