package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// RecoverySite is what clients call this server's recovery site where a fabric's name is expected.
const RecoverySite = "Microsoft Azure"

// NetworkMappingInput is the body of a network mapping PUT or PATCH. A PATCH leaves what is empty as it is.
type NetworkMappingInput struct {
	RecoveryFabric    string // a fabric's name; empty or RecoverySite: this server's
	RecoveryNetworkID string
	Kind              dr.NetworkMappingKind // empty: the fabrics tell
	PrimaryNetworkID  string
}

// NetworkMappingView is a network mapping with the names it refers to. RecoveryFabric is nil for this server's recovery site.
type NetworkMappingView struct {
	Mapping         dr.NetworkMapping
	Network         dr.Network
	Fabric          dr.Fabric
	RecoveryFabric  *dr.Fabric
	RecoveryNetwork string // its friendly name
}

func networkMappingKey(ref Ref, network string) string {
	return fold(ref.Vault, ref.Fabric, network, ref.Name)
}

func networkMappingTarget(ref Ref, network string) target {
	return target{kind: "Other", name: ref.Name, path: ref.fabricPath() + "/replicationNetworks/" + network + "/replicationNetworkMappings/" + ref.Name,
		id: dr.NamedGUID("networkMapping", networkMappingKey(ref, network))}
}

// PutNetworkMapping maps a network of a fabric. ref.Name is the mapping's. A network between regions need not be known: its
// first mapping makes it.
func (s *Service) PutNetworkMapping(ctx context.Context, ref Ref, network string, in NetworkMappingInput) (string, error) {
	if err := checkName("network mapping", ref.Name); err != nil {
		return "", err
	}
	if err := checkName("network", network); err != nil {
		return "", err
	}
	return s.atOnce(ctx, ref.Vault, job.PlanMapNetwork, networkMappingTarget(ref, network), func(tx store.Tx, now time.Time) error {
		f, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		n, known, err := find[dr.Network](tx, KindNetwork, fold(ref.Vault, ref.Fabric, network))
		if err != nil {
			return err
		}
		if !known && f.Kind != dr.FabricAzure {
			return notFound(KindNetwork, network)
		}
		m, ok, err := find[dr.NetworkMapping](tx, KindNetworkMapping, networkMappingKey(ref, network))
		if err != nil {
			return err
		}
		if !ok {
			m = dr.NetworkMapping{Meta: dr.Meta{Name: ref.Name}, Vault: ref.Vault, Fabric: f.Name, Network: network}
		}
		m.RecoveryFabric, m.RecoveryNetworkID, m.PrimaryNetworkID = recoveryFabric(in.RecoveryFabric), in.RecoveryNetworkID, in.PrimaryNetworkID
		if err := s.pairNetwork(tx, &m, f, in.Kind); err != nil {
			return err
		}
		if !known {
			n = dr.Network{Meta: dr.Meta{Name: network}, Vault: ref.Vault, Fabric: f.Name, FriendlyName: lastSegment(or(in.PrimaryNetworkID, network)), Implied: true}
			if err := save(tx, KindNetwork, fold(ref.Vault, ref.Fabric, network), &n, now); err != nil {
				return err
			}
		}
		return save(tx, KindNetworkMapping, networkMappingKey(ref, network), &m, now)
	})
}

// recoveryFabric is the name of the fabric, empty for this server's recovery site.
func recoveryFabric(name string) string {
	if strings.EqualFold(name, RecoverySite) {
		return ""
	}
	return lastSegment(name)
}

// pairNetwork checks a mapping against the fabrics it leads between and completes it.
func (s *Service) pairNetwork(tx store.Tx, m *dr.NetworkMapping, primary dr.Fabric, asked dr.NetworkMappingKind) error {
	var recovery dr.Fabric
	if m.RecoveryFabric != "" {
		f, ok, err := find[dr.Fabric](tx, KindFabric, fold(m.Vault, m.RecoveryFabric))
		if err != nil {
			return err
		}
		if !ok {
			return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("recoveryFabricName %q names no fabric of this vault", m.RecoveryFabric), PossibleCauses: "the fabric was removed, or the name is misspelled",
				RecommendedAction: "use the name of a fabric of the vault, or " + RecoverySite + " for this server's recovery site"}
		}
		recovery, m.RecoveryFabric = f, f.Name
	}
	kind, refusal := dr.MappingKind(primary.Kind, recovery.Kind)
	if refusal != nil {
		return refusal
	}
	if asked != "" && asked != kind {
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("instanceType is %s, but the fabrics make a mapping of kind %s", asked, kind), PossibleCauses: "the input is for other kinds of fabric",
			RecommendedAction: "send fabricSpecificDetails with instanceType " + string(kind) + ", or none"}
	}
	m.Kind = kind
	missing := func(field string) error {
		return &dr.Error{Code: dr.CodeInvalid, Message: field + " is missing", PossibleCauses: "the request does not name the network", RecommendedAction: "send " + field}
	}
	switch {
	case m.RecoveryNetworkID == "":
		return missing("recoveryNetworkId")
	case kind == dr.AzureToAzure && m.PrimaryNetworkID == "":
		return missing("primaryNetworkId")
	case recovery.Name != "" && recovery.ID == primary.ID:
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("fabric %s is on both sides", primary.Name), PossibleCauses: "a network is mapped to another site", RecommendedAction: "name another fabric in recoveryFabricName"}
	case kind == dr.VmmToVmm:
		if _, ok, err := find[dr.Network](tx, KindNetwork, fold(m.Vault, m.RecoveryFabric, lastSegment(m.RecoveryNetworkID))); err != nil || !ok {
			return orRefusal(err, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("recoveryNetworkId %q names no network of fabric %s", m.RecoveryNetworkID, m.RecoveryFabric),
				PossibleCauses: "the network was not discovered, or is in another fabric", RecommendedAction: "list replicationNetworks of the recovery fabric"})
		}
	}
	others, err := all[dr.NetworkMapping](tx, KindNetworkMapping, under(m.Vault, m.Fabric, m.Network))
	if err != nil {
		return err
	}
	for _, o := range others {
		if !strings.EqualFold(o.Name, m.Name) && strings.EqualFold(o.RecoveryFabric, m.RecoveryFabric) {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("network %s is mapped to that fabric by %s already", m.Network, o.Name), PossibleCauses: "a network has one mapping to each fabric",
				RecommendedAction: "change that mapping, or remove it first"}
		}
	}
	return nil
}

func orRefusal(err error, refusal *dr.Error) error {
	if err != nil {
		return err
	}
	return refusal
}

// PatchNetworkMapping changes a mapping. The network stays; the fabric on the other side may be another of the same kind.
func (s *Service) PatchNetworkMapping(ctx context.Context, ref Ref, network string, in NetworkMappingInput) (string, error) {
	return s.atOnce(ctx, ref.Vault, job.PlanRemapNetwork, networkMappingTarget(ref, network), func(tx store.Tx, now time.Time) error {
		m, err := load[dr.NetworkMapping](tx, KindNetworkMapping, networkMappingKey(ref, network))
		if err != nil {
			return err
		}
		f, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		if in.RecoveryFabric != "" {
			m.RecoveryFabric = recoveryFabric(in.RecoveryFabric)
		}
		m.RecoveryNetworkID, m.PrimaryNetworkID = or(in.RecoveryNetworkID, m.RecoveryNetworkID), or(in.PrimaryNetworkID, m.PrimaryNetworkID)
		if err := s.pairNetwork(tx, &m, f, in.Kind); err != nil {
			return err
		}
		return save(tx, KindNetworkMapping, networkMappingKey(ref, network), &m, now)
	})
}

// NetworkMapping returns one mapping.
func (s *Service) NetworkMapping(ctx context.Context, ref Ref, network string) (v NetworkMappingView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		m, err := load[dr.NetworkMapping](tx, KindNetworkMapping, networkMappingKey(ref, network))
		if err != nil {
			return err
		}
		v, err = networkMappingView(tx, m)
		return err
	})
	return v, err
}

// NetworkMappings lists the mappings of a network, or of the vault when network is empty.
func (s *Service) NetworkMappings(ctx context.Context, ref Ref, network string, p Paging) (out Page[NetworkMappingView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if network != "" {
			if _, err := load[dr.Network](tx, KindNetwork, fold(ref.Vault, ref.Fabric, network)); err != nil {
				return err
			}
		}
		out, err = mapped(tx, KindNetworkMapping, under(ref.Vault, ref.Fabric, network), p, func(m dr.NetworkMapping) (NetworkMappingView, error) { return networkMappingView(tx, m) })
		return err
	})
	return out, err
}

func networkMappingView(tx store.Tx, m dr.NetworkMapping) (NetworkMappingView, error) {
	v := NetworkMappingView{Mapping: m, RecoveryNetwork: lastSegment(m.RecoveryNetworkID)}
	var err error
	if v.Network, err = load[dr.Network](tx, KindNetwork, fold(m.Vault, m.Fabric, m.Network)); err != nil {
		return v, err
	}
	if v.Fabric, err = load[dr.Fabric](tx, KindFabric, fold(m.Vault, m.Fabric)); err != nil || m.RecoveryFabric == "" {
		return v, err
	}
	f, ok, err := find[dr.Fabric](tx, KindFabric, fold(m.Vault, m.RecoveryFabric))
	if err != nil || !ok {
		return v, err
	}
	v.RecoveryFabric = &f
	n, ok, err := find[dr.Network](tx, KindNetwork, fold(m.Vault, f.Name, lastSegment(m.RecoveryNetworkID)))
	if ok {
		v.RecoveryNetwork = n.FriendlyName
	}
	return v, err
}

// RemoveNetworkMapping removes a mapping. It returns no job when there is none.
func (s *Service) RemoveNetworkMapping(ctx context.Context, ref Ref, network string) (string, error) {
	t := networkMappingTarget(ref, network)
	t.removed = true
	id, err := s.atOnce(ctx, ref.Vault, job.PlanUnmapNetwork, t, func(tx store.Tx, _ time.Time) error {
		if err := tx.Delete(KindNetworkMapping, networkMappingKey(ref, network), -1); err != nil {
			return err
		}
		return dropImplied(tx, fold(ref.Vault, ref.Fabric, network))
	})
	return unlessAbsent(id, err)
}
