package dr

import (
	"fmt"
	"time"
)

// Health of a resource on the wire.
const (
	HealthNormal   = "Normal"
	HealthWarning  = "Warning"
	HealthCritical = "Critical"
	HealthNone     = "None"
)

// Levels and categories of health errors.
const (
	LevelError          = "Error"
	LevelWarning        = "Warning"
	CategoryReplication = "Replication"
	CategoryFabric      = "FabricInfrastructure"
	CategoryTest        = "TestFailover"
)

// Codes of health errors. They are stable: events and clients refer to them.
const (
	HealthRPOBreach       = "RpoBreach"
	HealthNoHeartbeat     = "NoHeartbeat"
	HealthResync          = "ResyncInProgress"
	HealthStranger        = "StrangerSeen"
	HealthAgentFault      = "AgentFault"
	HealthFenced          = "GenerationClosed"
	HealthNoAppConsistent = "NoApplicationConsistentPoint"
	HealthReplicatorDown  = "ReplicatorDown"
	HealthGroupMissed     = "GroupPointMissed"
	HealthChurn           = "ChurnAboveBandwidth"
	HealthPointsLate      = "PointsLate"
)

// HeartbeatLimit is how long an agent or replicator may be silent before it counts as lost. Their long polls last 30 seconds.
const HeartbeatLimit = 3 * time.Minute

// Evidence is what the health of an item is judged on.
type Evidence struct {
	Item     *Item
	Policy   Policy
	Observed Observed
	// Newest and NewestApp are the newest points of the item; nil when there is none.
	Newest, NewestApp *Point
}

// Judge tells what is wrong with an item and how bad it is. Health is None after failover: nothing replicates.
func Judge(e Evidence, now time.Time) (string, []HealthError) {
	errs := []HealthError{}
	if e.Item.State.Phase == PhaseNone || FailedOver(e.Item.State.Phase) || e.Item.State.Phase == PhaseRemoved {
		if e.Observed.StrangerUUID != "" && now.Sub(e.Observed.StrangerSeen) < HeartbeatLimit {
			errs = append(errs, stranger(e, now))
		}
		return HealthNone, errs
	}
	add := func(h HealthError) { errs = append(errs, finish(h, e.Item, now)) }
	if f := e.Observed.Fault; f != nil && Replicates(e.Item.State.Phase) {
		add(*f)
	}
	if Replicates(e.Item.State.Phase) && !(e.Item.Driven && e.Item.AgentID == "") && now.Sub(lastHeard(e)) > HeartbeatLimit {
		add(HealthError{Code: HealthNoHeartbeat, Level: LevelError, Category: CategoryReplication,
			Message:           fmt.Sprintf("no heartbeat from the machine's agent since %s", lastHeard(e).UTC().Format(time.RFC3339)),
			Summary:           "The agent does not answer.",
			PossibleCauses:    "the machine is down, the agent is stopped, or its way to the configuration server is cut",
			RecommendedAction: "check that the machine runs and that lifeboat-agent is running and can reach its configuration server"})
	}
	if lag, ok := RPOLag(e, now); ok && e.Policy.RPOThreshold > 0 && lag > e.Policy.RPOThreshold {
		b := findBottleneck(e.Observed)
		add(HealthError{Code: HealthRPOBreach, Level: LevelError, Category: CategoryReplication,
			Message:           fmt.Sprintf("the newest recovery point is %s old; the policy allows %s", lag.Round(time.Second), e.Policy.RPOThreshold),
			Summary:           "The recovery point objective is breached.",
			PossibleCauses:    b.causes,
			RecommendedAction: b.action})
	}
	if h, ok := late(e, now); ok {
		add(h)
	}
	if h, ok := groupError(e); ok {
		add(h)
	}
	if e.Item.State.Phase == PhaseProtected && e.Policy.AppConsistentEvery > 0 {
		since := e.Item.State.Since
		if e.NewestApp != nil && e.NewestApp.Time.After(since) {
			since = e.NewestApp.Time
		}
		if now.Sub(since) > 2*e.Policy.AppConsistentEvery {
			add(HealthError{Code: HealthNoAppConsistent, Level: LevelWarning, Category: CategoryReplication,
				Message:           fmt.Sprintf("no application-consistent recovery point since %s", since.UTC().Format(time.RFC3339)),
				Summary:           "Application-consistent points are missing.",
				PossibleCauses:    "a quiesce script fails or takes longer than its deadline",
				RecommendedAction: "read the agent's log for the script that failed, or turn application consistency off in the policy"})
		}
	}
	if e.Item.State.Resync {
		add(ResyncError(e.Item, e.Observed, now))
	}
	if e.Item.Fenced && e.Item.State.PendingJob == "" && Replicates(e.Item.State.Phase) {
		add(HealthError{Code: HealthFenced, Level: LevelError, Category: CategoryReplication,
			Message: "replication is stopped: the point log was closed for a failover that did not complete",
			Summary: "Replication is stopped.", PossibleCauses: "a failover failed after it had fenced the source, and undoing it failed too",
			RecommendedAction: "call repairReplication to open the log again, or fail over once more"})
	}
	if e.Observed.StrangerUUID != "" && now.Sub(e.Observed.StrangerSeen) < HeartbeatLimit {
		errs = append(errs, stranger(e, now))
	}
	health := HealthNormal
	for _, h := range errs {
		switch {
		case h.Level == LevelError:
			health = HealthCritical
		case health == HealthNormal:
			health = HealthWarning
		}
	}
	return health, errs
}

// RPOLag is now minus the capture time of the newest point. ok is false without a point or while nothing replicates.
func RPOLag(e Evidence, now time.Time) (time.Duration, bool) {
	if e.Newest == nil || !Replicates(e.Item.State.Phase) {
		return 0, false
	}
	return max(0, now.Sub(e.Newest.Time)), true
}

// JudgedUntil is when Judge and RPOLag, in whole seconds, may come to tell something else of evidence that stays as it is. It is
// later than now, by a second at most.
func JudgedUntil(e Evidence, now time.Time) time.Time {
	until := now.Add(time.Second)
	at := func(t time.Time) {
		if t.After(now) && t.Before(until) {
			until = t
		}
	}
	const after = time.Nanosecond // what may last as long as a limit ends behind it
	at(lastHeard(e).Add(HeartbeatLimit + after))
	at(e.Observed.StrangerSeen.Add(HeartbeatLimit))
	if lag, ok := RPOLag(e, now); ok {
		whole := e.Newest.Time.Add(lag.Truncate(time.Second))
		at(whole.Add(time.Second / 2)) // a breach tells the lag to the nearest second
		at(whole.Add(time.Second))
		at(e.Newest.Time.Add(e.Policy.RPOThreshold + after))
	}
	for _, since := range []*Point{e.NewestApp, {Time: e.Item.State.Since}} {
		if since != nil {
			at(since.Time.Add(2*e.Policy.AppConsistentEvery + after))
		}
	}
	return until
}

// lastHeard is when the agent was heard last, or since when it should have been.
func lastHeard(e Evidence) time.Time {
	if e.Observed.LastHeartbeat.After(e.Item.State.Since) {
		return e.Observed.LastHeartbeat
	}
	return e.Item.State.Since
}

func stranger(e Evidence, now time.Time) HealthError {
	return finish(HealthError{Code: HealthStranger, Level: LevelWarning, Category: CategoryReplication,
		Message:           fmt.Sprintf("a machine with SMBIOS UUID %s speaks with this item's identity; %s is the active one", e.Observed.StrangerUUID, e.Item.ActiveUUID),
		Summary:           "Another copy of the machine is running. It is fenced and cannot replicate.",
		PossibleCauses:    "the source came back after a failover, or the machine was cloned with its agent",
		RecommendedAction: "shut the other machine down, or enrol a clone's agent anew"}, e.Item, now)
}

// ResyncError tells that an item's disks are compared as a whole, and why.
func ResyncError(item *Item, o Observed, now time.Time) HealthError {
	return finish(HealthError{Code: HealthResync, Level: LevelWarning, Category: CategoryReplication,
		Message:           "the machine's disks are being compared with the newest recovery point",
		Summary:           "Resynchronization is in progress.",
		PossibleCauses:    o.ResyncCause(),
		RecommendedAction: "wait until it is done; only differences are sent"}, item, now)
}

func finish(h HealthError, item *Item, now time.Time) HealthError {
	if h.ID == "" {
		h.ID = NamedGUID("health", string(item.ID), h.Code)
	}
	if h.Created.IsZero() {
		h.Created = now
	}
	if h.Level == "" {
		h.Level = LevelError
	}
	if h.Category == "" {
		h.Category = CategoryReplication
	}
	h.Source, h.EntityID = "Lifeboat", string(item.ID)
	return h
}
