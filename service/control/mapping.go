package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

func (r Ref) mappingPath() string {
	return r.containerPath() + "/replicationProtectionContainerMappings/" + r.Name
}

func mappingTarget(ref Ref) target {
	return target{kind: "Other", name: ref.Name, path: ref.mappingPath(), id: dr.NamedGUID("mapping", ref.itemKey())}
}

// lastSegment is the name that an ARM id ends with; a plain name is its own.
func lastSegment(id string) string {
	id = strings.TrimRight(id, "/")
	return id[strings.LastIndexByte(id, '/')+1:]
}

// PutMapping pairs a container with a target under a policy.
func (s *Service) PutMapping(ctx context.Context, ref Ref, in MappingInput) (string, error) {
	if err := checkName("container mapping", ref.Name); err != nil {
		return "", err
	}
	if in.PolicyID == "" {
		return "", &dr.Error{Code: dr.CodeInvalid, Message: "policyId is missing", PossibleCauses: "the request names no policy", RecommendedAction: "send the ARM id of a replication policy"}
	}
	return s.atOnce(ctx, ref.Vault, job.PlanCreateMapping, mappingTarget(ref), func(tx store.Tx, now time.Time) error {
		c, err := load[dr.Container](tx, KindContainer, fold(ref.Vault, ref.Fabric, ref.Container))
		if err != nil {
			return err
		}
		policy, err := requirePolicy(tx, ref.Vault, in.PolicyID)
		if err != nil {
			return err
		}
		key := ref.itemKey()
		m, ok, err := find[dr.Mapping](tx, KindMapping, key)
		if err != nil {
			return err
		}
		if ok && !strings.EqualFold(m.PolicyName, policy.Name) {
			if items, err := mappingUsers(tx, m); err != nil || len(items) > 0 {
				if err != nil {
					return err
				}
				return inUse("container mapping", m.Name, items, "remove the protected items first, or create another mapping for the policy")
			}
		}
		if !ok {
			m = dr.Mapping{Meta: dr.Meta{Name: ref.Name}, Vault: ref.Vault, Fabric: c.Fabric, Container: c.Name}
		}
		if betweenSites(policy.Provider) {
			if _, err := requireContainer(tx, ref.Vault, in.TargetContainerID); err != nil {
				return err
			}
		}
		m.PolicyID, m.PolicyName, m.TargetContainerID = in.PolicyID, policy.Name, or(in.TargetContainerID, "Microsoft Azure")
		m.ProviderSpecificInput = in.ProviderSpecificInput
		return save(tx, KindMapping, key, &m, now)
	})
}

// requirePolicy finds the policy an ARM id names.
func requirePolicy(tx store.Tx, vault, id string) (dr.Policy, error) {
	p, ok, err := find[dr.Policy](tx, KindPolicy, fold(vault, lastSegment(id)))
	if err != nil {
		return p, err
	}
	if !ok {
		return p, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("policyId %q names no policy of this vault", id), PossibleCauses: "the policy was removed, or is in another vault",
			RecommendedAction: "create the policy first, or list replicationPolicies"}
	}
	return p, nil
}

// betweenSites tells whether both sides of the provider's replication are sites of the vault.
func betweenSites(p dr.ProviderType) bool {
	return p == dr.ProviderA2A || p == dr.ProviderHyperVReplica2012 || p == dr.ProviderHyperVReplica2012R2
}

// requireContainer finds the container of the vault that an ARM id names.
func requireContainer(tx store.Tx, vault, id string) (dr.Container, error) {
	parts := strings.Split(strings.Trim(id, "/"), "/")
	if n := len(parts); n >= 4 && strings.EqualFold(parts[n-4], "replicationFabrics") && strings.EqualFold(parts[n-2], "replicationProtectionContainers") {
		c, ok, err := find[dr.Container](tx, KindContainer, fold(vault, parts[n-3], parts[n-1]))
		if ok || err != nil {
			return c, err
		}
	}
	return dr.Container{}, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("%q names no protection container of this vault", id), PossibleCauses: "the container was not created, or the path is misspelled",
		RecommendedAction: "create the recovery side's fabric and container first, and send the container's id"}
}

// mappingUsers lists the items of the mapping's container that use its policy.
func mappingUsers(tx store.Tx, m dr.Mapping) (out []string, err error) {
	items, err := all[dr.Item](tx, KindItem, under(m.Vault, m.Fabric, m.Container))
	for _, it := range items {
		if strings.EqualFold(it.PolicyName, m.PolicyName) {
			out = append(out, "protected item "+it.Name)
		}
	}
	return out, err
}

// PatchMapping changes a mapping's provider-specific settings.
func (s *Service) PatchMapping(ctx context.Context, ref Ref, in json.RawMessage) (string, error) {
	return s.atOnce(ctx, ref.Vault, job.PlanUpdateMapping, mappingTarget(ref), func(tx store.Tx, now time.Time) error {
		m, err := load[dr.Mapping](tx, KindMapping, ref.itemKey())
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(in)) > 0 {
			m.ProviderSpecificInput = in
		}
		return save(tx, KindMapping, ref.itemKey(), &m, now)
	})
}

// Mapping returns one mapping.
func (s *Service) Mapping(ctx context.Context, ref Ref) (v MappingView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		m, err := load[dr.Mapping](tx, KindMapping, ref.itemKey())
		if err != nil {
			return err
		}
		v, err = mappingView(tx, m)
		return err
	})
	return v, err
}

// Mappings lists the mappings of a container, or of the vault when ref.Container is empty.
func (s *Service) Mappings(ctx context.Context, ref Ref, p Paging) (out Page[MappingView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if err := requireFabric(tx, ref); err != nil {
			return err
		}
		out, err = mapped(tx, KindMapping, under(ref.Vault, ref.Fabric, ref.Container), p, func(m dr.Mapping) (MappingView, error) { return mappingView(tx, m) })
		return err
	})
	return out, err
}

func mappingView(tx store.Tx, m dr.Mapping) (MappingView, error) {
	v := MappingView{Mapping: m}
	var err error
	if v.Policy, err = LoadPolicy(tx, m.Vault, m.PolicyName); err != nil {
		return v, err
	}
	if v.Fabric, err = load[dr.Fabric](tx, KindFabric, fold(m.Vault, m.Fabric)); err != nil {
		return v, err
	}
	v.Container, err = load[dr.Container](tx, KindContainer, fold(m.Vault, m.Fabric, m.Container))
	return v, err
}

// RemoveMapping removes a mapping that no item uses. It serves remove and purge.
func (s *Service) RemoveMapping(ctx context.Context, ref Ref) (string, error) {
	t := mappingTarget(ref)
	t.removed = true
	return s.atOnce(ctx, ref.Vault, job.PlanRemoveMapping, t, func(tx store.Tx, _ time.Time) error {
		m, err := load[dr.Mapping](tx, KindMapping, ref.itemKey())
		if err != nil {
			return err
		}
		items, err := mappingUsers(tx, m)
		if err != nil {
			return err
		}
		if len(items) > 0 {
			return inUse("container mapping", m.Name, items, "remove the protected items, then the mapping")
		}
		return tx.Delete(KindMapping, ref.itemKey(), m.Version)
	})
}
