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

// act runs a use case on an item that a job carries out: load, prepare (which may refuse and fills the request), let the state
// machine decide, save item and job together.
func (s *Service) act(ctx context.Context, ref Ref, op dr.Operation, plan func(*dr.Item) string, prepare func(store.Tx, *dr.Item, *Request) error) (string, error) {
	var id string
	err := s.store.Update(ctx, func(tx store.Tx) error {
		now := s.now()
		it, err := load[dr.Item](tx, KindItem, ref.itemKey())
		if err != nil {
			return err
		}
		path := itemRef(&it).itemPath()
		if id, err = repeated(ctx, tx, it.Vault, string(op), path, now); err != nil || id != "" {
			return err
		}
		j := newJob(ctx, it.Vault, planFor(&it, op, plan), itemTarget(&it), now)
		j.Removed = op == dr.OpRemove || op == dr.OpPurge
		next, refusal := dr.Apply(it.State, dr.Signal{Kind: dr.Requested, Op: op, Job: j.ID, Driven: it.Driven}, now)
		if refusal != nil {
			if id, err = s.sameRequest(tx, &it, op, prepare); err != nil || id != "" {
				return err
			}
			return refusal
		}
		var r Request
		if prepare != nil {
			if err := prepare(tx, &it, &r); err != nil {
				return err
			}
		}
		if j.Removed {
			if _, err := SupersedeJobs(tx, &it, j, now); err != nil {
				return err
			}
		}
		it.State, id = next, j.ID
		if err := remember(ctx, tx, string(op), j, now); err != nil {
			return err
		}
		return saveStarted(tx, j, &it, op, r, now)
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

// sameRequest finds the running job when it does just what is asked for: a client repeats a request whose answer it did not get.
func (s *Service) sameRequest(tx store.Tx, it *dr.Item, op dr.Operation, prepare func(store.Tx, *dr.Item, *Request) error) (string, error) {
	if it.State.PendingJob == "" {
		return "", nil
	}
	running, ok, err := LoadOpenJob(tx, it.State.PendingJob)
	if err != nil || !ok || running.Operation != string(op) || running.UndoOf != "" {
		return "", err
	}
	var r Request
	if prepare != nil {
		if err := prepare(tx, it, &r); err != nil {
			return "", nil // not the same; the refusal of the state machine tells more
		}
	}
	in, err := json.Marshal(r)
	if err != nil || !bytes.Equal(in, running.Input) {
		return "", err
	}
	return running.ID, nil
}

// planFor is the plan of an operation: the driver's where the machine's legs have one, else own.
func planFor(it *dr.Item, op dr.Operation, own func(*dr.Item) string) string {
	if it.Driven {
		return job.LegPlan(string(op))
	}
	return own(it)
}

func fixed(plan string) func(*dr.Item) string { return func(*dr.Item) string { return plan } }

// TestFailover opens a drill.
func (s *Service) TestFailover(ctx context.Context, ref Ref, in TestFailoverInput) (string, error) {
	return s.act(ctx, ref, dr.OpTestFailover, fixed(job.PlanTestFailover), func(tx store.Tx, it *dr.Item, r *Request) error {
		if err := checkDirection(in.Direction); err != nil {
			return err
		}
		if err := refuseGuestChanges(in.ProviderInput); err != nil {
			return err
		}
		r.Network = or(in.NetworkID, jsonField(in.ProviderInput, "networkId"))
		r.NoNetwork = strings.EqualFold(in.NetworkType, "NoNetworkAttachAsInput")
		return choosePoint(tx, it, jsonField(in.ProviderInput, "recoveryPointId"), jsonField(in.ProviderInput, "recoveryPointType"), r)
	})
}

// TestFailoverCleanup ends a drill and leaves nothing of it.
func (s *Service) TestFailoverCleanup(ctx context.Context, ref Ref, in CleanupInput) (string, error) {
	return s.act(ctx, ref, dr.OpTestCleanup, fixed(job.PlanTestCleanup), func(_ store.Tx, _ *dr.Item, r *Request) error {
		r.Comments = in.Comments
		return nil
	})
}

// PlannedFailover moves the machine without loss.
func (s *Service) PlannedFailover(ctx context.Context, ref Ref, in FailoverInput) (string, error) {
	return s.act(ctx, ref, dr.OpPlannedFailover, plannedPlan, func(tx store.Tx, it *dr.Item, r *Request) error {
		if err := checkDirection(in.Direction); err != nil {
			return err
		}
		if err := refuseGuestChanges(in.ProviderInput); err != nil {
			return err
		}
		// The last capture is taken from the stopped disks, so it is at least as good as either type that may be asked for.
		switch t := jsonField(in.ProviderInput, "recoveryPointType"); strings.ToLower(t) {
		case "", "crashconsistent", "applicationconsistent":
		default:
			return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("recoveryPointType is %q", t), PossibleCauses: "it is not a type of this provider",
				RecommendedAction: "send ApplicationConsistent or CrashConsistent"}
		}
		if id := jsonField(in.ProviderInput, "recoveryPointId"); id != "" && !it.Driven && it.State.Leg == dr.LegHyperVAzure {
			return choosePoint(tx, it, id, "", r) // an older one, which loses what came after it
		}
		return nil
	})
}

// UnplannedFailover starts the machine from a point, the source presumed lost.
func (s *Service) UnplannedFailover(ctx context.Context, ref Ref, in FailoverInput) (string, error) {
	return s.act(ctx, ref, dr.OpUnplannedFailover, fixed(job.PlanUnplannedFailover), func(tx store.Tx, it *dr.Item, r *Request) error {
		if err := checkDirection(in.Direction); err != nil {
			return err
		}
		if err := refuseGuestChanges(in.ProviderInput); err != nil {
			return err
		}
		switch v := jsonField(in.ProviderInput, "performShutdown"); strings.ToLower(v) {
		case "true":
			r.Shutdown = true
		case "false", "":
			r.Shutdown = strings.EqualFold(in.SourceSiteOperations, "Required")
		default:
			return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("performShutdown is %q", v), PossibleCauses: "it is neither true nor false", RecommendedAction: `send "true" or "false"`}
		}
		return choosePoint(tx, it, jsonField(in.ProviderInput, "recoveryPointId"), jsonField(in.ProviderInput, "recoveryPointType"), r)
	})
}

// ApplyRecoveryPoint starts a failed-over machine from another point.
func (s *Service) ApplyRecoveryPoint(ctx context.Context, ref Ref, in ApplyPointInput) (string, error) {
	return s.act(ctx, ref, dr.OpApplyRecoveryPoint, fixed(job.PlanApplyPoint), func(tx store.Tx, it *dr.Item, r *Request) error {
		if err := refuseGuestChanges(in.ProviderInput); err != nil {
			return err
		}
		id := or(in.RecoveryPointID, jsonField(in.ProviderInput, "recoveryPointId"))
		if id == "" {
			return &dr.Error{Code: dr.CodeInvalid, Message: "recoveryPointId is missing", PossibleCauses: "the request names no point", RecommendedAction: "send the id of one of the item's recoveryPoints"}
		}
		return choosePoint(tx, it, id, "", r)
	})
}

// choosePoint resolves which point a request asks for.
func choosePoint(tx store.Tx, it *dr.Item, id, kind string, r *Request) error {
	if id != "" {
		p, err := LoadPointByID(tx, it.ID, lastSegment(id))
		if dr.CodeOf(err) == dr.CodeNotFound {
			return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("recoveryPointId %q names no recovery point of %s", id, it.FriendlyName),
				PossibleCauses: "the point was pruned, or belongs to another machine", RecommendedAction: "list the item's recoveryPoints and choose one"}
		}
		if err != nil {
			return err
		}
		r.Point = p.Ref()
		return nil
	}
	var accept func(dr.Point) bool
	switch strings.ToLower(kind) {
	case "", "latest", "latesttime":
		r.PointChoice = PointLatest
	case "latestprocessed":
		r.PointChoice = PointProcessed
	case "latestcrashconsistent":
		r.PointChoice = PointCrashConsistent
		accept = func(p dr.Point) bool { return p.Consistency == dr.CrashConsistent }
	case "latestapplicationconsistent", "latesttag":
		r.PointChoice = PointAppConsistent
		accept = func(p dr.Point) bool { return p.Consistency == dr.ApplicationConsistent }
	default:
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("recoveryPointType is %q", kind), PossibleCauses: "it is not a known type",
			RecommendedAction: "send Latest, LatestProcessed, LatestCrashConsistent or LatestApplicationConsistent, or a recoveryPointId"}
	}
	newest, err := NewestPoint(tx, it.ID, accept)
	if err != nil {
		return err
	}
	if newest == nil {
		return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("%s has no such recovery point", it.FriendlyName), PossibleCauses: "none was taken yet, or all were pruned",
			RecommendedAction: "wait for a recovery point, or ask for Latest"}
	}
	if r.PointChoice != PointLatest {
		r.Point = newest.Ref()
	}
	return nil
}

// refuseGuestChanges refuses what a failover could be asked to do to the machine on its way and this server does not.
func refuseGuestChanges(in json.RawMessage) error {
	if v := jsonField(in, "osUpgradeVersion"); v != "" {
		return &dr.Error{Code: dr.CodeUnimplemented, Message: fmt.Sprintf("the guest cannot be upgraded to %s on the way", v), PossibleCauses: "upgrading a guest's operating system is missing in this version",
			RecommendedAction: "leave osUpgradeVersion out, and upgrade the guest in a test failover or after the failover"}
	}
	if firstField(in, "primaryKekCertificatePfx", "secondaryKekCertificatePfx") != "" {
		return &dr.Error{Code: dr.CodeUnimplemented, Message: "certificates for encrypted replicas are not used", PossibleCauses: "recovery points are encrypted with the vault's key, which this server has",
			RecommendedAction: "leave the certificates out"}
	}
	return nil
}

func checkDirection(d string) error {
	for _, ok := range []string{"", string(dr.PrimaryToRecovery), string(dr.RecoveryToPrimary)} {
		if strings.EqualFold(d, ok) {
			return nil
		}
	}
	return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("failoverDirection is %q", d), PossibleCauses: "it is not a direction", RecommendedAction: "send PrimaryToRecovery or RecoveryToPrimary"}
}

// FailoverCommit accepts a failover.
func (s *Service) FailoverCommit(ctx context.Context, ref Ref) (string, error) {
	return s.act(ctx, ref, dr.OpCommit, commitPlan, nil)
}

// plannedPlan is the way to the recovery site, where there is a planned one, or the way home.
func plannedPlan(it *dr.Item) string {
	if it.State.Leg == dr.LegHyperVAzure {
		return job.PlanPlannedFromHost
	}
	return job.PlanPlannedFailover
}

func commitPlan(it *dr.Item) string {
	if it.State.Leg == dr.LegInMageRcmFailback {
		return job.PlanCommitFailback
	}
	return job.PlanCommit
}

// FailoverCancel undoes a planned failover that was not committed.
func (s *Service) FailoverCancel(ctx context.Context, ref Ref) (string, error) {
	return s.act(ctx, ref, dr.OpCancelFailover, fixed(job.PlanCancelFailover), nil)
}

// RepairReplication compares the machine's disks with the newest point and sends what differs.
func (s *Service) RepairReplication(ctx context.Context, ref Ref) (string, error) {
	return s.act(ctx, ref, dr.OpRepair, fixed(job.PlanRepair), nil)
}

// RemoveItem stops protecting a machine and drops its points.
func (s *Service) RemoveItem(ctx context.Context, ref Ref, in RemoveInput) (string, error) {
	return s.act(ctx, ref, dr.OpRemove, fixed(job.PlanRemove), func(_ store.Tx, _ *dr.Item, r *Request) error {
		r.Reason = in.Reason
		return nil
	})
}

// PurgeItem removes an item whatever its state.
func (s *Service) PurgeItem(ctx context.Context, ref Ref) (string, error) {
	return s.act(ctx, ref, dr.OpPurge, fixed(job.PlanPurge), nil)
}

// UpdateItem changes what a failover will use.
func (s *Service) UpdateItem(ctx context.Context, ref Ref, in UpdateInput) (string, error) {
	return s.atOnce(ctx, ref.Vault, job.PlanUpdateItem, target{kind: "ProtectionEntity", name: ref.Name, path: ref.itemPath()}, func(tx store.Tx, now time.Time) error {
		it, err := load[dr.Item](tx, KindItem, ref.itemKey())
		if err != nil {
			return err
		}
		if _, refusal := dr.Apply(it.State, dr.Signal{Kind: dr.Requested, Op: dr.OpUpdate, Job: "update", Driven: it.Driven}, now); refusal != nil {
			return refusal
		}
		size := or(jsonField(in.ProviderInput, sizeField), jsonField(in.Properties, "recoveryAzureVMSize"))
		if refusal := dr.CheckSize(size); refusal != nil {
			return refusal
		}
		it.TargetName = or(or(jsonField(in.ProviderInput, "targetVmName"), jsonField(in.Properties, "recoveryAzureVMName")), it.TargetName)
		it.TargetNetwork = or(or(jsonField(in.ProviderInput, "targetNetworkId"), jsonField(in.Properties, "selectedRecoveryAzureNetworkId")), it.TargetNetwork)
		it.TestNetwork = or(or(jsonField(in.ProviderInput, "testNetworkId"), jsonField(in.Properties, "selectedTfoAzureNetworkId")), it.TestNetwork)
		if it.UpdateInput, err = overlay(it.UpdateInput, in.ProviderInput, size); err != nil {
			return err
		}
		if it.UpdateCommon, err = overlay(it.UpdateCommon, in.Properties, ""); err != nil {
			return err
		}
		return SaveItem(tx, &it, now)
	})
}

// sizeField is where providers' settings have the size of the replica.
const sizeField = "targetVmSize"

// overlay returns the settings of earlier updates with those of the newest one over them: what an update leaves out stays.
func overlay(old, newest json.RawMessage, size string) (json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	for _, settings := range []json.RawMessage{old, newest} {
		if len(settings) == 0 {
			continue
		}
		var set map[string]json.RawMessage
		if err := json.Unmarshal(settings, &set); err != nil {
			return nil, &dr.Error{Code: dr.CodeInvalid, Message: "providerSpecificDetails is not an object", PossibleCauses: "the body is malformed", RecommendedAction: "send an object with an instanceType", Err: err}
		}
		for name, value := range set {
			if string(value) != "null" {
				all[name] = value
			}
		}
	}
	if size != "" {
		all[sizeField], _ = json.Marshal(size) // a string
	}
	if len(all) == 0 {
		return nil, nil
	}
	return json.Marshal(all)
}
