package dr

import "time"

// State of an item: (leg, phase, test failover, pending job). Everything clients see of it (protectionState,
// allowedOperations, activeLocation) is a projection.
type State struct {
	Leg          LegName
	Phase        Phase
	TestFailover TestFailover
	PendingJob   string // at most one operation at a time
	Resync       bool   // tracking was lost; the disks are being compared
	Halted       bool   // a failover that did not complete left the point log closed: nothing replicates until a repair
	// Since is when Phase was entered.
	Since time.Time
}

// LegName names a row of the leg table: a provider type and a direction.
type LegName string

// Phase says where in its leg an item is.
type Phase string

// TestFailover says whether a drill is open.
type TestFailover string
