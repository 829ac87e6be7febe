package control

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// RecoveryPlanInput is the body of a recovery plan PUT or PATCH. A PATCH leaves alone what is zero.
type RecoveryPlanInput struct {
	PrimaryFabricID, RecoveryFabricID string // ARM ids
	DeploymentModel                   string
	ProviderInput                     json.RawMessage // list as sent
	Groups                            []RecoveryPlanGroup
	OnFailure                         dr.OnFailure
	ParallelStarts                    int
}

// RecoveryPlanGroup is a group as a client names it. Of the actions Complete derives what was not sent.
type RecoveryPlanGroup struct {
	Kind          dr.GroupKind
	Items         []RecoveryPlanItem
	Before, After []dr.PlanAction
}

// RecoveryPlanItem names a machine by the ARM id of its protected item, or by its GUID.
type RecoveryPlanItem struct{ ID, GUID string }

// RecoveryPlanView is a recovery plan with what belongs to it.
type RecoveryPlanView struct {
	Plan dr.RecoveryPlan
	// Items are those of the plan that are still protected.
	Items     map[dr.ItemID]dr.Item
	Allowed   []string // never nil
	Providers []string // never nil
	// Status and Description tell how the last operation stands; empty before the first.
	Status, Description string
}

// azureSide is what clients call this server's own recovery site.
const azureSide = "Microsoft Azure"

func planKey(ref Ref) string { return fold(ref.Vault, ref.Name) }

func planTarget(ref Ref) target {
	return target{kind: "RecoveryPlan", id: planID(ref), name: ref.Name, path: "replicationRecoveryPlans/" + ref.Name}
}

// planID is the plan's GUID. It follows from the name, so that it is known before the plan is made.
func planID(ref Ref) string {
	return dr.NamedGUID("recoveryPlan", ref.Vault, strings.ToLower(ref.Name))
}

// PutRecoveryPlan creates a plan or replaces it.
func (s *Service) PutRecoveryPlan(ctx context.Context, ref Ref, in RecoveryPlanInput) (string, error) {
	return s.atOnce(ctx, ref.Vault, job.PlanCreateRecoveryPlan, planTarget(ref), func(tx store.Tx, now time.Time) error {
		p, ok, err := find[dr.RecoveryPlan](tx, KindRecoveryPlan, planKey(ref))
		if err != nil {
			return err
		}
		if err := unusedPlan(p, "changed"); err != nil {
			return err
		}
		if !ok {
			p = dr.RecoveryPlan{Meta: dr.Meta{Name: ref.Name}, ID: planID(ref), Vault: ref.Vault}
		}
		p.PrimaryFabricID, p.RecoveryFabricID, p.DeploymentModel, p.ProviderInput = in.PrimaryFabricID, in.RecoveryFabricID, in.DeploymentModel, in.ProviderInput
		p.OnFailure, p.ParallelStarts = in.OnFailure, in.ParallelStarts
		if p.PrimaryFabric, err = planFabric(tx, ref.Vault, "primaryFabricId", in.PrimaryFabricID); err != nil {
			return err
		}
		if !strings.EqualFold(in.RecoveryFabricID, azureSide) {
			if _, err := planFabric(tx, ref.Vault, "recoveryFabricId", in.RecoveryFabricID); err != nil {
				return err
			}
		}
		return savePlanGroups(tx, &p, in.Groups, now)
	})
}

// PatchRecoveryPlan replaces the groups of a plan, or its settings.
func (s *Service) PatchRecoveryPlan(ctx context.Context, ref Ref, in RecoveryPlanInput) (string, error) {
	return s.atOnce(ctx, ref.Vault, job.PlanUpdateRecoveryPlan, planTarget(ref), func(tx store.Tx, now time.Time) error {
		p, err := load[dr.RecoveryPlan](tx, KindRecoveryPlan, planKey(ref))
		if err != nil {
			return err
		}
		if err := unusedPlan(p, "changed"); err != nil {
			return err
		}
		if in.OnFailure != "" {
			p.OnFailure = in.OnFailure
		}
		if in.ParallelStarts > 0 {
			p.ParallelStarts = in.ParallelStarts
		}
		if in.Groups == nil {
			return save(tx, KindRecoveryPlan, planKey(ref), &p, now)
		}
		return savePlanGroups(tx, &p, in.Groups, now)
	})
}

// DeleteRecoveryPlan removes a plan. Its machines are left as they are.
func (s *Service) DeleteRecoveryPlan(ctx context.Context, ref Ref) (string, error) {
	t := planTarget(ref)
	t.removed = true
	return s.atOnce(ctx, ref.Vault, job.PlanDeleteRecoveryPlan, t, func(tx store.Tx, _ time.Time) error {
		p, err := load[dr.RecoveryPlan](tx, KindRecoveryPlan, planKey(ref))
		if err != nil {
			return err
		}
		if err := unusedPlan(p, "deleted"); err != nil {
			return err
		}
		return tx.Delete(KindRecoveryPlan, planKey(ref), p.Version)
	})
}

func unusedPlan(p dr.RecoveryPlan, done string) error {
	if p.PendingJob == "" {
		return nil
	}
	return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("recovery plan %s cannot be %s: job %s is running on it", p.Name, done, p.PendingJob),
		PossibleCauses: "an operation of the plan has not ended", RecommendedAction: "wait for the job, or cancel it, and try again"}
}

// planFabric returns the name of the fabric that an ARM id names.
func planFabric(tx store.Tx, vault, field, id string) (string, error) {
	f, ok, err := find[dr.Fabric](tx, KindFabric, fold(vault, lastSegment(id)))
	if err != nil {
		return "", err
	}
	if !ok {
		return "", &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("%s %q names no fabric of this vault", field, id), PossibleCauses: "the id is misspelled, or belongs to another vault",
			RecommendedAction: "send the ARM id of a fabric; recoveryFabricId may be " + azureSide}
	}
	return f.Name, nil
}

func savePlanGroups(tx store.Tx, p *dr.RecoveryPlan, groups []RecoveryPlanGroup, now time.Time) error {
	p.Groups = nil
	for _, g := range groups {
		out := dr.PlanGroup{Kind: g.Kind, Before: g.Before, After: g.After}
		for _, named := range g.Items {
			it, err := planItem(tx, p, named)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, it.ID)
		}
		p.Groups = append(p.Groups, out)
	}
	if err := p.Complete(); err != nil {
		return err
	}
	return save(tx, KindRecoveryPlan, fold(p.Vault, p.Name), p, now)
}

// planItem finds a machine of the plan's fabric.
func planItem(tx store.Tx, p *dr.RecoveryPlan, named RecoveryPlanItem) (dr.Item, error) {
	var it dr.Item
	var err error
	if named.ID != "" {
		names := map[string]string{}
		parts := strings.Split(strings.Trim(named.ID, "/"), "/")
		for i := 0; i+1 < len(parts); i += 2 {
			names[strings.ToLower(parts[i])] = parts[i+1]
		}
		it, err = load[dr.Item](tx, KindItem, fold(p.Vault, names["replicationfabrics"], names["replicationprotectioncontainers"], names["replicationprotecteditems"]))
	} else {
		it, err = LoadItem(tx, dr.ItemID(strings.ToLower(named.GUID)))
	}
	if dr.CodeOf(err) == dr.CodeNotFound || err == nil && it.Vault != p.Vault {
		return it, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("%q names no protected item of this vault", or(named.ID, named.GUID)), PossibleCauses: "the id is misspelled, or its protection was removed",
			RecommendedAction: "send ARM ids of the vault's replicationProtectedItems"}
	}
	if err != nil {
		return it, err
	}
	if !strings.EqualFold(it.Fabric, p.PrimaryFabric) {
		return it, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("machine %s is of fabric %s, the plan of fabric %s", it.FriendlyName, it.Fabric, p.PrimaryFabric),
			PossibleCauses: "all machines of a plan share their source", RecommendedAction: "make a plan for each fabric"}
	}
	return it, nil
}

// RecoveryPlan returns one plan.
func (s *Service) RecoveryPlan(ctx context.Context, ref Ref) (v RecoveryPlanView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		p, err := load[dr.RecoveryPlan](tx, KindRecoveryPlan, planKey(ref))
		if err != nil {
			return err
		}
		v, err = planView(tx, p)
		return err
	})
	return v, err
}

// RecoveryPlans lists a vault's plans by name.
func (s *Service) RecoveryPlans(ctx context.Context, vaultID string, p Paging) (out Page[RecoveryPlanView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		page, err := list[dr.RecoveryPlan](tx, KindRecoveryPlan, vaultID+"/", p)
		if err != nil {
			return err
		}
		out = Page[RecoveryPlanView]{Items: []RecoveryPlanView{}, Next: page.Next}
		for _, plan := range page.Items {
			v, err := planView(tx, plan)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, v)
		}
		return nil
	})
	return out, err
}

func planView(tx store.Tx, p dr.RecoveryPlan) (RecoveryPlanView, error) {
	v := RecoveryPlanView{Plan: p, Allowed: []string{}, Providers: []string{}}
	var err error
	if v.Items, err = planItems(tx, &p); err != nil {
		return v, err
	}
	var states []dr.State
	drilled := false
	for _, id := range p.Items() {
		it, ok := v.Items[id]
		if !ok {
			continue
		}
		states = append(states, it.State)
		drilled = drilled || it.State.TestFailover == dr.DrillOpen
		if provider := string(dr.Project(it.State).Provider); !slices.Contains(v.Providers, provider) {
			v.Providers = append(v.Providers, provider)
		}
	}
	if p.PendingJob == "" {
		v.Allowed = dr.PlanAllows(states)
	}
	if p.LastScenario.JobID == "" {
		return v, nil
	}
	j, err := LoadJob(tx, p.Vault, p.LastScenario.JobID)
	if dr.CodeOf(err) == dr.CodeNotFound {
		return v, nil
	}
	v.Status, v.Description = string(j.State), describe(j.State, j.Description)
	if drilled && j.State == job.Succeeded && j.Plan == job.PlanRecoveryTestFailover {
		v.Status, v.Description = string(job.Suspended), "WaitingForStopTestFailover"
	}
	return v, err
}

// planItems reads those of the plan's items that are still protected.
func planItems(tx store.Tx, p *dr.RecoveryPlan) (map[dr.ItemID]dr.Item, error) {
	out := map[dr.ItemID]dr.Item{}
	for _, id := range p.Items() {
		it, err := LoadItem(tx, id)
		switch {
		case err == nil:
			out[id] = it
		case dr.CodeOf(err) != dr.CodeNotFound:
			return nil, err
		}
	}
	return out, nil
}
