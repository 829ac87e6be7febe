package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

func nothing(store.Tx, time.Time) error { return nil }

// PutFabric creates a fabric, with its container when the kind has exactly one. The same request again changes nothing.
func (s *Service) PutFabric(ctx context.Context, ref Ref, in FabricInput) (string, error) {
	if err := checkName("fabric", ref.Fabric); err != nil {
		return "", err
	}
	kind := in.Kind
	if kind == "" {
		kind = dr.FabricHyperVSite
	}
	t := target{kind: "Server", name: ref.Fabric, path: ref.fabricPath(), id: dr.NamedGUID("fabric", ref.Vault, fold(ref.Fabric))}
	return s.atOnce(ctx, ref.Vault, job.PlanCreateFabric, t, func(tx store.Tx, now time.Time) error {
		if _, err := vaultByID(tx, ref.Vault); err != nil {
			return err
		}
		f, ok, err := find[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		if ok && f.Kind != kind {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("fabric %s exists as %s and cannot become %s", f.Name, f.Kind, kind),
				PossibleCauses: "the name is taken by another kind of fabric", RecommendedAction: "choose another name, or remove the fabric first"}
		}
		if !ok {
			f = dr.Fabric{Meta: dr.Meta{Name: ref.Fabric}, ID: t.id, Vault: ref.Vault, Kind: kind}
		}
		f.Input = in.Input
		if err := save(tx, KindFabric, fold(ref.Vault, ref.Fabric), &f, now); err != nil {
			return err
		}
		return ensureContainer(tx, f, now)
	})
}

// ensureContainer makes the first container of a fabric, which is the only one but under a management server. Regions get theirs
// from clients.
func ensureContainer(tx store.Tx, f dr.Fabric, now time.Time) error {
	var name string
	switch f.Kind {
	case dr.FabricInMageRcm:
		name = f.Name + "-container"
	case dr.FabricHyperVSite, dr.FabricVMware, dr.FabricVMM:
		name = "cloud_" + f.ID
	default:
		return nil // made by discovery
	}
	key := fold(f.Vault, f.Name, name)
	if _, ok, err := find[dr.Container](tx, KindContainer, key); ok || err != nil {
		return err
	}
	c := dr.Container{Meta: dr.Meta{Name: name}, ID: newID(), Vault: f.Vault, Fabric: f.Name, FriendlyName: f.Name}
	return save(tx, KindContainer, key, &c, now)
}

// Fabric returns one fabric.
func (s *Service) Fabric(ctx context.Context, ref Ref) (v FabricView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		f, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		v, err = s.fabricView(tx, f)
		return err
	})
	return v, err
}

// Fabrics lists a vault's fabrics by name.
func (s *Service) Fabrics(ctx context.Context, vaultID string, p Paging) (out Page[FabricView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		out, err = mapped(tx, KindFabric, vaultID+"/", p, func(f dr.Fabric) (FabricView, error) { return s.fabricView(tx, f) })
		return err
	})
	return out, err
}

// mapped lists resources as views.
func mapped[T, V any, P resource[T]](tx store.Tx, kind store.Kind, prefix string, p Paging, view func(T) (V, error)) (Page[V], error) {
	page, err := list[T, P](tx, kind, prefix, p)
	out := Page[V]{Items: []V{}, Next: page.Next}
	if err != nil {
		return out, err
	}
	for _, it := range page.Items {
		v, err := view(it)
		if err != nil {
			return out, err
		}
		out.Items = append(out.Items, v)
	}
	return out, nil
}

func (s *Service) fabricView(tx store.Tx, f dr.Fabric) (FabricView, error) {
	v, err := s.fabricParts(tx, f)
	if err != nil {
		return v, err
	}
	if v.Items, err = countedItems(tx, under(f.Vault, f.Name)); err != nil {
		return v, err
	}
	if v.Accounts, err = accountsOf(tx, f); err != nil {
		return v, err
	}
	err = tx.List(KindAgent, "", "", 0, func(_ string, _ int64, decode func(any) error) error {
		var a dr.Agent
		if err := decode(&a); err != nil {
			return err
		}
		if a.Vault == f.Vault && fold(a.Fabric) == fold(f.Name) && !a.Unregistered {
			v.Agents = append(v.Agents, a)
		}
		return nil
	})
	return v, err
}

// fabricParts is the view of a fabric as far as its health goes.
func (s *Service) fabricParts(tx store.Tx, f dr.Fabric) (FabricView, error) {
	v := FabricView{Fabric: f, Health: dr.HealthNormal, Errors: []dr.HealthError{}}
	var err error
	if v.Providers, err = all[dr.Provider](tx, KindProvider, under(f.Vault, f.Name)); err != nil {
		return v, err
	}
	reps, err := LoadReplicators(tx)
	if err != nil {
		return v, err
	}
	own := map[string]bool{}
	for _, p := range v.Providers {
		own[p.ReplicatorID] = true
	}
	now := s.now()
	for _, r := range reps {
		// One that registered nowhere serves all.
		if !own[r.ID] && r.Fabric != "" {
			continue
		}
		v.Replicators = append(v.Replicators, r)
		if now.Sub(r.LastHeartbeat) > dr.HeartbeatLimit {
			v.Health = dr.HealthCritical
			v.Errors = append(v.Errors, replicatorDown(r, now))
		}
	}
	return v, nil
}

func replicatorDown(r dr.Replicator, now time.Time) dr.HealthError {
	return dr.HealthError{ID: dr.NamedGUID("health", r.ID, dr.HealthReplicatorDown), Code: dr.HealthReplicatorDown, Level: dr.LevelError, Category: dr.CategoryFabric, Created: now,
		Message: fmt.Sprintf("no heartbeat from replicator %s since %s", r.Hostname, r.LastHeartbeat.UTC().Format(time.RFC3339)), Summary: "A replicator does not answer.",
		PossibleCauses: "the process is stopped, its host is down, or its way to lifeboatd is cut", RecommendedAction: "check that lifeboat-replicator runs on the host and reaches lifeboatd",
		Source: "Lifeboat", EntityID: r.ID}
}

// RemoveFabric removes a fabric that protects nothing. It serves remove, purge and removeInfra.
func (s *Service) RemoveFabric(ctx context.Context, ref Ref) (string, error) {
	t := target{kind: "Server", name: ref.Fabric, path: ref.fabricPath(), id: dr.NamedGUID("fabric", ref.Vault, fold(ref.Fabric)), removed: true}
	return s.atOnce(ctx, ref.Vault, job.PlanRemoveFabric, t, func(tx store.Tx, now time.Time) error {
		f, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		prefix := under(f.Vault, f.Name)
		for _, k := range []store.Kind{KindItem, KindMapping} {
			names, err := namesUnder(tx, k, prefix)
			if err != nil {
				return err
			}
			if len(names) > 0 {
				return inUse("fabric", f.Name, names, "remove the protected items and the container mappings, then the fabric")
			}
		}
		if err := unregisterAgents(tx, f, now); err != nil {
			return err
		}
		for _, k := range append([]store.Kind{KindProtectable, KindContainer, KindProvider}, belowFabric...) {
			if err := deleteUnder(tx, k, prefix); err != nil {
				return err
			}
		}
		return tx.Delete(KindFabric, fold(f.Vault, f.Name), f.Version)
	})
}

// unregisterAgents tells the agents of a fabric to stop and forget.
func unregisterAgents(tx store.Tx, f dr.Fabric, now time.Time) error {
	agents, err := all[dr.Agent](tx, KindAgent, "")
	if err != nil {
		return err
	}
	for _, a := range agents {
		if a.Vault == f.Vault && fold(a.Fabric) == fold(f.Name) && !a.Unregistered {
			a.Unregistered = true
			if err := save(tx, KindAgent, a.ID, &a, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// CheckFabricConsistency asks for a complete report of every machine of the fabric.
func (s *Service) CheckFabricConsistency(ctx context.Context, ref Ref) (string, error) {
	t := target{kind: "Server", name: ref.Fabric, path: ref.fabricPath(), id: dr.NamedGUID("fabric", ref.Vault, fold(ref.Fabric))}
	return s.atOnce(ctx, ref.Vault, job.PlanCheckConsistency, t, func(tx store.Tx, now time.Time) error {
		if _, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric)); err != nil {
			return err
		}
		items, err := all[dr.Item](tx, KindItem, under(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		for _, it := range items {
			j, err := NewItemJob(&it, job.PlanCheckConsistency, "", Request{}, now)
			if err != nil {
				return err
			}
			j.Internal = true
			if err := SaveJob(tx, j); err != nil {
				return err
			}
		}
		return nil
	})
}

// Containers lists the containers of a fabric, or of the vault when ref.Fabric is empty.
func (s *Service) Containers(ctx context.Context, ref Ref, p Paging) (out Page[ContainerView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if err := requireFabric(tx, ref); err != nil {
			return err
		}
		out, err = mapped(tx, KindContainer, under(ref.Vault, ref.Fabric), p, func(c dr.Container) (ContainerView, error) { return containerView(tx, c) })
		return err
	})
	return out, err
}

// requireFabric refuses lists below a fabric or container that does not exist.
func requireFabric(tx store.Tx, ref Ref) error {
	if ref.Fabric == "" {
		return nil
	}
	if _, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric)); err != nil {
		return err
	}
	if ref.Container == "" {
		return nil
	}
	_, err := load[dr.Container](tx, KindContainer, fold(ref.Vault, ref.Fabric, ref.Container))
	return err
}

// Container returns one container.
func (s *Service) Container(ctx context.Context, ref Ref) (v ContainerView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		c, err := load[dr.Container](tx, KindContainer, fold(ref.Vault, ref.Fabric, ref.Container))
		if err != nil {
			return err
		}
		v, err = containerView(tx, c)
		return err
	})
	return v, err
}

func containerView(tx store.Tx, c dr.Container) (ContainerView, error) {
	v := ContainerView{Container: c}
	var err error
	if v.Fabric, err = load[dr.Fabric](tx, KindFabric, fold(c.Vault, c.Fabric)); err != nil {
		return v, err
	}
	if v.Items, err = countedItems(tx, under(c.Vault, c.Fabric, c.Name)); err != nil {
		return v, err
	}
	v.Paired, err = some(tx, KindMapping, under(c.Vault, c.Fabric, c.Name))
	return v, err
}

// Protectables lists a container's protectable items; state Protected or Unprotected narrows.
func (s *Service) Protectables(ctx context.Context, ref Ref, state string, p Paging) (out Page[ProtectableView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if err := requireFabric(tx, ref); err != nil {
			return err
		}
		page, err := list[dr.ProtectableItem](tx, KindProtectable, under(ref.Vault, ref.Fabric, ref.Container), p)
		if err != nil {
			return err
		}
		out = Page[ProtectableView]{Items: []ProtectableView{}, Next: page.Next}
		for _, it := range page.Items {
			if state != "" && (it.ProtectedAs != "") != (fold(state) == "protected") {
				continue
			}
			v, err := protectableView(tx, it)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, v)
		}
		return nil
	})
	return out, err
}

// Protectable returns one protectable item.
func (s *Service) Protectable(ctx context.Context, ref Ref) (v ProtectableView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		p, err := load[dr.ProtectableItem](tx, KindProtectable, ref.itemKey())
		if err != nil {
			return err
		}
		v, err = protectableView(tx, p)
		return err
	})
	return v, err
}

func protectableView(tx store.Tx, p dr.ProtectableItem) (ProtectableView, error) {
	v := ProtectableView{Item: p, Problems: []string{}}
	var err error
	if v.Fabric, err = load[dr.Fabric](tx, KindFabric, fold(p.Vault, p.Fabric)); err != nil {
		return v, err
	}
	if p.AgentID == "" {
		v.Problems = append(v.Problems, "no agent has enrolled from this machine")
	} else {
		a, ok, err := find[dr.Agent](tx, KindAgent, p.AgentID)
		if err != nil {
			return v, err
		}
		if ok {
			if a.Machine, err = machineOf(p, a); err != nil {
				return v, err
			}
			v.Agent = &a
			for _, d := range a.Machine.Disks {
				if d.UnsupportedReason != "" {
					v.Problems = append(v.Problems, fmt.Sprintf("disk %s cannot be protected: %s", d.ID, d.UnsupportedReason))
				}
			}
		}
	}
	if p.ProtectedAs != "" {
		it, err := LoadItem(tx, p.ProtectedAs)
		if err != nil {
			return v, err
		}
		v.Protected = &it
	}
	return v, nil
}

// DiscoverProtectable adds a machine by address to a container. The agent that enrols from that address or with that host name
// is bound to it.
func (s *Service) DiscoverProtectable(ctx context.Context, ref Ref, in DiscoverInput) (string, error) {
	if in.FriendlyName == "" && in.Address == "" {
		return "", &dr.Error{Code: dr.CodeInvalid, Message: "friendlyName and ipAddress are missing", PossibleCauses: "the request names no machine", RecommendedAction: "send the machine's host name or address"}
	}
	t := target{kind: "Server", name: or(in.FriendlyName, in.Address), path: ref.containerPath()}
	return s.atOnce(ctx, ref.Vault, job.PlanDiscover, t, func(tx store.Tx, now time.Time) error {
		c, err := load[dr.Container](tx, KindContainer, fold(ref.Vault, ref.Fabric, ref.Container))
		if err != nil {
			return err
		}
		known, err := all[dr.ProtectableItem](tx, KindProtectable, under(c.Vault, c.Fabric, c.Name))
		if err != nil {
			return err
		}
		for _, k := range known {
			if in.Address != "" && k.Address == in.Address || in.FriendlyName != "" && fold(k.FriendlyName) == fold(in.FriendlyName) {
				if k.AgentID != "" || k.Address == in.Address {
					return nil // known already
				}
				k.Address, k.OSType = in.Address, or(in.OSType, k.OSType)
				return save(tx, KindProtectable, fold(k.Vault, k.Fabric, k.Container, k.Name), &k, now)
			}
		}
		id := newID()
		p := dr.ProtectableItem{Meta: dr.Meta{Name: id}, ID: id, Vault: c.Vault, Fabric: c.Fabric, Container: c.Name, FriendlyName: or(in.FriendlyName, in.Address),
			Address: in.Address, OSType: in.OSType}
		return save(tx, KindProtectable, fold(p.Vault, p.Fabric, p.Container, p.Name), &p, now)
	})
}

// firstField reads the first of the fields that is not empty: providers name the same thing differently.
func firstField(obj json.RawMessage, names ...string) string {
	for _, n := range names {
		if v := jsonField(obj, n); v != "" {
			return v
		}
	}
	return ""
}

// jsonField reads one text field of an object; empty when it is not there. Booleans and numbers come as their text.
func jsonField(obj json.RawMessage, name string) string {
	var m map[string]json.RawMessage
	if json.Unmarshal(obj, &m) != nil {
		return ""
	}
	raw := m[name]
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	if string(raw) == "null" {
		return ""
	}
	return string(raw)
}
