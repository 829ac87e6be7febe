package control

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

func policyTarget(ref Ref) target {
	return target{kind: "ProtectionProfile", name: ref.Name, path: "replicationPolicies/" + ref.Name, id: dr.NamedGUID("policy", ref.Vault, fold(ref.Name))}
}

// PutPolicy creates or replaces a policy.
func (s *Service) PutPolicy(ctx context.Context, ref Ref, in PolicyInput) (string, error) {
	if err := checkName("replication policy", ref.Name); err != nil {
		return "", err
	}
	parsed, refusal := dr.ParsePolicy(in.ProviderSpecificInput)
	if refusal != nil {
		return "", refusal
	}
	return s.atOnce(ctx, ref.Vault, job.PlanCreatePolicy, policyTarget(ref), func(tx store.Tx, now time.Time) error {
		if _, err := vaultByID(tx, ref.Vault); err != nil {
			return err
		}
		old, ok, err := find[dr.Policy](tx, KindPolicy, fold(ref.Vault, ref.Name))
		if err != nil {
			return err
		}
		if ok {
			return replacePolicy(tx, old, parsed, now)
		}
		parsed.Meta = dr.Meta{Name: ref.Name}
		parsed.ID, parsed.Vault = policyTarget(ref).id, ref.Vault
		p := parsed
		if err := save(tx, KindPolicy, fold(ref.Vault, ref.Name), &p, now); err != nil {
			return err
		}
		return ensureFailbackPolicy(tx, p, now)
	})
}

// ensureFailbackPolicy makes the policy for the way home that the classic provider's policies come with (ref 5.3). One that a
// client made under the name is left alone.
func ensureFailbackPolicy(tx store.Tx, p dr.Policy, now time.Time) error {
	if p.Provider != dr.ProviderInMageAzureV2 {
		return nil
	}
	ref := Ref{Vault: p.Vault, Name: p.Name + failbackSuffix}
	key := fold(ref.Vault, ref.Name)
	if _, ok, err := find[dr.Policy](tx, KindPolicy, key); ok || err != nil || checkName("replication policy", ref.Name) != nil {
		return err
	}
	back, refusal := dr.ParsePolicy(json.RawMessage(`{"instanceType":"InMage","recoveryPointThresholdInMinutes":15,"recoveryPointHistory":1440,"appConsistentFrequencyInMinutes":60,"multiVmSyncStatus":"Enable"}`))
	if refusal != nil {
		return refusal
	}
	back.Meta, back.ID, back.Vault, back.DerivedFrom = dr.Meta{Name: ref.Name}, policyTarget(ref).id, p.Vault, p.Name
	return save(tx, KindPolicy, key, &back, now)
}

const failbackSuffix = "-failback"

// PatchPolicy changes a policy: fields left out keep their values.
func (s *Service) PatchPolicy(ctx context.Context, ref Ref, in PolicyInput) (string, error) {
	return s.atOnce(ctx, ref.Vault, job.PlanUpdatePolicy, policyTarget(ref), func(tx store.Tx, now time.Time) error {
		old, err := load[dr.Policy](tx, KindPolicy, fold(ref.Vault, ref.Name))
		if err != nil {
			return err
		}
		if old.DerivedFrom != "" {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("policy %s was made beside %s and cannot be changed", old.Name, old.DerivedFrom),
				PossibleCauses: "the classic provider's failback policies have fixed settings", RecommendedAction: "create an InMage policy of your own and name it in the reprotect"}
		}
		merged, err := mergeObjects(old.ProviderSpecificInput, in.ProviderSpecificInput)
		if err != nil {
			return &dr.Error{Code: dr.CodeInvalid, Message: "replicationProviderSettings is not an object", PossibleCauses: "the body is malformed",
				RecommendedAction: "send an object with an instanceType", Err: err}
		}
		parsed, refusal := dr.ParsePolicy(merged)
		if refusal != nil {
			return refusal
		}
		return replacePolicy(tx, old, parsed, now)
	})
}

func replacePolicy(tx store.Tx, old, parsed dr.Policy, now time.Time) error {
	if old.Provider != parsed.Provider {
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("policy %s is for %s and cannot become one for %s", old.Name, old.Provider, parsed.Provider),
			PossibleCauses: "instanceType differs from the policy's", RecommendedAction: "create another policy for that provider"}
	}
	parsed.Meta, parsed.ID, parsed.Vault = old.Meta, old.ID, old.Vault
	return save(tx, KindPolicy, fold(old.Vault, old.Name), &parsed, now)
}

// mergeObjects lays the fields of b over those of a.
func mergeObjects(a, b json.RawMessage) (json.RawMessage, error) {
	var x, y map[string]json.RawMessage
	if err := json.Unmarshal(a, &x); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &y); err != nil {
		return nil, err
	}
	if x == nil {
		x = map[string]json.RawMessage{}
	}
	maps.Copy(x, y)
	return json.Marshal(x)
}

// Policy returns one policy.
func (s *Service) Policy(ctx context.Context, ref Ref) (p dr.Policy, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		p, err = load[dr.Policy](tx, KindPolicy, fold(ref.Vault, ref.Name))
		return err
	})
	return p, err
}

// Policies lists a vault's policies by name.
func (s *Service) Policies(ctx context.Context, vaultID string, p Paging) (out Page[dr.Policy], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		out, err = list[dr.Policy](tx, KindPolicy, vaultID+"/", p)
		return err
	})
	return out, err
}

// DeletePolicy removes a policy that nothing uses.
func (s *Service) DeletePolicy(ctx context.Context, ref Ref) (string, error) {
	t := policyTarget(ref)
	t.removed = true
	return s.atOnce(ctx, ref.Vault, job.PlanDeletePolicy, t, func(tx store.Tx, _ time.Time) error {
		p, err := load[dr.Policy](tx, KindPolicy, fold(ref.Vault, ref.Name))
		if err != nil {
			return err
		}
		in, err := policyUsers(tx, p)
		if err != nil {
			return err
		}
		if len(in) > 0 {
			return inUse("policy", p.Name, in, "remove the protected items and the mappings that use it, then the policy")
		}
		if err := dropFailbackPolicy(tx, p); err != nil {
			return err
		}
		return tx.Delete(KindPolicy, fold(ref.Vault, ref.Name), p.Version)
	})
}

// dropFailbackPolicy removes the policy that was made beside p, unless something uses it.
func dropFailbackPolicy(tx store.Tx, p dr.Policy) error {
	key := fold(p.Vault, p.Name+failbackSuffix)
	back, ok, err := find[dr.Policy](tx, KindPolicy, key)
	if err != nil || !ok || !strings.EqualFold(back.DerivedFrom, p.Name) {
		return err
	}
	in, err := policyUsers(tx, back)
	if err != nil || len(in) > 0 {
		return err
	}
	return tx.Delete(KindPolicy, key, back.Version)
}

// policyUsers lists the mappings and items that use a policy.
func policyUsers(tx store.Tx, p dr.Policy) (in []string, err error) {
	mappings, err := all[dr.Mapping](tx, KindMapping, p.Vault+"/")
	if err != nil {
		return nil, err
	}
	for _, m := range mappings {
		if strings.EqualFold(m.PolicyName, p.Name) {
			in = append(in, "protection container mapping "+m.Name)
		}
	}
	items, err := all[dr.Item](tx, KindItem, p.Vault+"/")
	if err != nil {
		return nil, err
	}
	for _, it := range items {
		if strings.EqualFold(it.PolicyName, p.Name) {
			in = append(in, "protected item "+it.Name)
		}
	}
	return in, nil
}
