package control

import (
	"context"
	"slices"
	"strings"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Item returns one protected item.
func (s *Service) Item(ctx context.Context, ref Ref) (v ItemView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		it, err := load[dr.Item](tx, KindItem, ref.itemKey())
		if err != nil {
			return err
		}
		v, err = s.itemView(newItemReader(tx), it)
		shown(ctx, v.RPOAt, v.until)
		return err
	})
	return v, err
}

// ItemByID returns the item as stored.
func (s *Service) ItemByID(ctx context.Context, id dr.ItemID) (it dr.Item, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		it, err = LoadItem(tx, id)
		return err
	})
	return it, err
}

// Items lists the protected items of a container, or of the vault when ref.Container is empty.
func (s *Service) Items(ctx context.Context, ref Ref, f ItemFilter, p Paging) (out Page[ItemView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if err := requireFabric(tx, ref); err != nil {
			return err
		}
		var of []dr.ItemID
		if f.RecoveryPlan != "" {
			plan, ok, err := find[dr.RecoveryPlan](tx, KindRecoveryPlan, fold(ref.Vault, lastSegment(f.RecoveryPlan)))
			if err != nil {
				return err
			}
			if !ok {
				out = Page[ItemView]{Items: []ItemView{}}
				return nil
			}
			of = plan.Items()
		}
		page, err := list[dr.Item](tx, KindItem, under(ref.Vault, ref.Fabric, ref.Container), p)
		if err != nil {
			return err
		}
		out = Page[ItemView]{Items: []ItemView{}, Next: page.Next}
		r := newItemReader(tx)
		for _, it := range page.Items {
			if !f.takes(it) || f.RecoveryPlan != "" && !slices.Contains(of, it.ID) {
				continue
			}
			v, err := s.itemView(r, it)
			if err != nil {
				return err
			}
			if f.shows(v) {
				out.Items = append(out.Items, v)
			}
		}
		return nil
	})
	return out, err
}

func (f ItemFilter) takes(it dr.Item) bool {
	if f.Fabric != "" && !strings.EqualFold(f.Fabric, it.Fabric) {
		return false
	}
	if f.FabricObject != "" && !strings.EqualFold(f.FabricObject, jsonField(it.EnableInput, "fabricObjectId")) {
		return false
	}
	if f.GroupOption != "" && (dr.Project(it.State).Provider != dr.ProviderA2A || !strings.EqualFold(f.GroupOption, groupOption(it))) {
		return false
	}
	return f.InstanceType == "" || strings.EqualFold(f.InstanceType, string(dr.Project(it.State).Provider))
}

// shows is what takes cannot see of the item alone.
func (f ItemFilter) shows(v ItemView) bool {
	if f.ProcessServer != "" && (v.ProcessServer == nil || !strings.EqualFold(lastSegment(f.ProcessServer), v.ProcessServer.ID)) {
		return false
	}
	return f.Location == "" || strings.EqualFold(f.Location, jsonField(v.Fabric.Input, "location"))
}

// groupOption tells who made the group whose machines share points with this one.
func groupOption(it dr.Item) string {
	if it.MultiVMGroup != "" {
		return "UserSpecified"
	}
	return "AutoCreated"
}

// itemReader reads what views of items show. What items have in common it reads once.
type itemReader struct {
	tx          store.Tx
	fabrics     map[string]dr.Fabric
	containers  map[string]dr.Container
	policies    map[string]dr.Policy
	replicators *[]dr.Replicator // nil: not read yet
}

func newItemReader(tx store.Tx) *itemReader {
	return &itemReader{tx: tx, fabrics: map[string]dr.Fabric{}, containers: map[string]dr.Container{}, policies: map[string]dr.Policy{}}
}

// once returns what is known under key, reading it the first time.
func once[T any](known map[string]T, key string, read func() (T, error)) (T, error) {
	v, ok := known[key]
	if ok {
		return v, nil
	}
	v, err := read()
	if err == nil {
		known[key] = v
	}
	return v, err
}

func (s *Service) itemView(r *itemReader, it dr.Item) (ItemView, error) {
	tx := r.tx
	v := ItemView{Item: it, Projection: dr.Project(it.State), FailoverHealth: dr.HealthNormal}
	var err error
	fabric, container := fold(it.Vault, it.Fabric), fold(it.Vault, it.Fabric, it.Container)
	if v.Fabric, err = once(r.fabrics, fabric, func() (dr.Fabric, error) { return load[dr.Fabric](tx, KindFabric, fabric) }); err != nil {
		return v, err
	}
	if v.Container, err = once(r.containers, container, func() (dr.Container, error) { return load[dr.Container](tx, KindContainer, container) }); err != nil {
		return v, err
	}
	if it.RecoveryContainer != "" {
		if v.TargetFabric, _, err = find[dr.Fabric](tx, KindFabric, fold(it.Vault, it.RecoveryFabric)); err != nil {
			return v, err
		}
		if v.TargetContainer, _, err = find[dr.Container](tx, KindContainer, fold(it.Vault, it.RecoveryFabric, it.RecoveryContainer)); err != nil {
			return v, err
		}
	}
	e, err := evidence(tx, &it, r.policies)
	if err != nil {
		return v, err
	}
	v.Policy, v.Observed, v.LatestPoint = e.Policy, e.Observed, e.Newest
	now := s.now()
	v.Health, v.HealthErrors = dr.Judge(e, now)
	v.RPO, v.RPOValid = dr.RPOLag(e, now)
	v.RPOAt, v.until = now, dr.JudgedUntil(e, now)
	if !it.FailoverPoint.IsZero() {
		v.FailoverPointID = dr.PointID(it.ID, it.FailoverPoint)
	}
	switch {
	case it.State.Phase == dr.PhaseInitialReplication && e.Observed.Generation == it.Generation:
		v.InitialPercent = e.Observed.ProgressPercent
	case it.State.Phase == dr.PhaseFirstPointPending, it.State.Phase == dr.PhaseProtected, dr.FailedOver(it.State.Phase):
		v.InitialPercent = 100
	}
	if it.State.Resync {
		v.ResyncPercent = e.Observed.ProgressPercent
	}
	if a, ok, err := find[dr.Agent](tx, KindAgent, it.AgentID); err != nil {
		return v, err
	} else if ok {
		v.Agent = &a
		for _, d := range a.Machine.Disks {
			if !slices.ContainsFunc(it.Disks, func(p dr.Disk) bool { return p.ID == d.ID }) && it.Generation > 0 {
				v.UnprotectedDisks = append(v.UnprotectedDisks, d)
			}
		}
	}
	v.ProcessServer, err = r.processServer(&it)
	return v, err
}

// processServer is the one the user chose, or the first there is.
func (r *itemReader) processServer(it *dr.Item) (*dr.Replicator, error) {
	if r.replicators == nil {
		all, err := LoadReplicators(r.tx)
		if err != nil {
			return nil, err
		}
		r.replicators = &all
	}
	reps := *r.replicators
	var first *dr.Replicator
	for i := range reps {
		if strings.EqualFold(reps[i].ID, it.ProcessServer) {
			return &reps[i], nil
		}
		if first == nil && reps[i].HasRole(dr.RoleProcessServer) {
			first = &reps[i]
		}
	}
	return first, nil
}

// EvidenceFor collects what an item's health is judged on.
func EvidenceFor(tx store.Tx, it *dr.Item) (dr.Evidence, error) {
	return evidence(tx, it, map[string]dr.Policy{})
}

// evidence is EvidenceFor with the policies that are known.
func evidence(tx store.Tx, it *dr.Item, policies map[string]dr.Policy) (e dr.Evidence, err error) {
	e.Item = it
	if e.Policy, err = once(policies, fold(it.Vault, it.PolicyName), func() (dr.Policy, error) { return LoadPolicy(tx, it.Vault, it.PolicyName) }); err != nil {
		return e, err
	}
	if e.Observed, err = LoadObserved(tx, it.ID); err != nil {
		return e, err
	}
	return e, newestPoints(tx, &e)
}

// newestPoints finds the points that health is judged on.
func newestPoints(tx store.Tx, e *dr.Evidence) (err error) {
	if e.Newest, err = NewestPoint(tx, e.Item.ID, nil); err != nil || e.Policy.AppConsistentEvery <= 0 {
		return err
	}
	e.NewestApp, err = NewestPoint(tx, e.Item.ID, func(p dr.Point) bool { return p.Consistency == dr.ApplicationConsistent })
	return err
}
