package dr

import (
	"encoding/json"
	"strings"
	"time"
)

// Item is a protected machine: one leg after another, from enable until it is removed.
type Item struct {
	Meta
	ID                       ItemID
	Vault, Fabric, Container string
	FriendlyName             string
	ProtectableItem          string // name of the protectable item
	// RecoveryFabric and RecoveryContainer name the site of this vault that the machine replicates to; empty: this server's
	// recovery site.
	RecoveryFabric, RecoveryContainer string
	AgentID                           string
	Physical                          bool

	State State
	// Driven tells that the legs of the machine have a driver of their own, which does what the control plane does for others.
	Driven bool

	PolicyName     string // policy of the running leg
	Disks          []Disk // protected disks, OS disk first
	Hardware       Hardware
	EnableInput    json.RawMessage // providerSpecificDetails of the enable request, echoed in details
	UpdateInput    json.RawMessage // providerSpecificDetails of all updates, the last one over the others
	UpdateCommon   json.RawMessage // the other properties of all updates, likewise
	TargetName     string
	TestNetwork    string
	TargetNetwork  string
	ReprotectInput json.RawMessage
	// ProcessServer is the replicator that the user wants to take the machine's data; empty: any. Others stand in while it is
	// silent.
	ProcessServer string

	// Generation is the open generation of the machine's point log; 0 before the first. ActiveUUID is the SMBIOS UUID of the
	// machine that may write to it: an agent on any other machine with the same identity is fenced.
	Generation int64
	ActiveUUID string
	HomeUUID   string // SMBIOS UUID of the production machine
	CaptureID  string // asks the agent for a capture now
	ResyncID   string // asks the agent to compare the whole disk
	// StopSource asks the agent of a hypervisor to shut the machine down for the capture that CaptureID asks for, and to start it
	// again when that is withdrawn.
	StopSource bool

	// Fenced tells that Generation is closed and no other is open: nobody may ship, whoever it is.
	Fenced bool
	// Acknowledged is the newest generation that an agent said it works on.
	Acknowledged int64

	TestInstance     *Instance
	FailoverInstance *Instance // the replica at the recovery site, from failover until the way back is committed
	// HomeInstance is set from a failback until its commit: the production machine was started again from its own disks.
	HomeInstance *Instance
	// FailoverPoint is the point that the last failover used; zero before the first.
	FailoverPoint PointRef
	// BasePoint is what Generation builds on; zero for the first one.
	BasePoint PointRef

	// LastPoint is the last point of Generation, known once it is closed.
	LastPoint PointRef

	// The master target and its datastore that a reprotect to home chose.
	ReprotectAgent string
	Datastore      string

	PlannedFailoverStarted time.Time
	PlannedFailoverStatus  string // None, Succeeded, Failed, Cancelled, Unknown
	ResyncSince            time.Time
	SourceShutdownNote     string // what became of the attempt to shut the source down at the last failover
	SourceMustStop         bool   // the last failover asked for the source's shutdown; see MustStop

	LastFailover     time.Time
	LastTestFailover time.Time
	CurrentScenario  Scenario
	HealthErrors     []HealthError
	InternalID       string // internalIdentifier: a GUID, new on every leg
	CorrelationID    string // eventCorrelationId
	MultiVMGroup     string
	EnableJob        string // the job of the enable request
	EnableRequest    []byte // the enable request in one spelling: the same again is no new one
}

// PointRef names a recovery point of an item: its place in the point log. The zero value names none.
type PointRef struct {
	Generation int64
	Sequence   int64
}

// IsZero tells whether r names no point.
func (r PointRef) IsZero() bool { return r == PointRef{} }

// MayShip tells whether a machine with the SMBIOS UUID may add points to the item's log now.
func (i *Item) MayShip(uuid string) bool {
	return i.Generation > 0 && !i.Fenced && strings.EqualFold(uuid, i.ActiveUUID)
}

// MustStop tells whether the machine with that SMBIOS UUID shall shut itself down: it is the source, a replica runs in its place,
// and the failover asked for the source's shutdown, which did not reach it then.
func (i *Item) MustStop(uuid string) bool {
	return i.SourceMustStop && strings.EqualFold(uuid, i.HomeUUID) && !strings.EqualFold(i.HomeUUID, i.ActiveUUID)
}

// Scenario is the operation that runs on a resource. The zero value means none.
type Scenario struct {
	Name    string
	JobID   string
	Started time.Time
}

// Disk is one protected disk.
type Disk struct {
	ID        string
	SizeBytes int64
	IsOSDisk  bool
	// Seeding tells that the disk was added to a protected machine and no point has it yet.
	Seeding bool `json:",omitempty"`
	// Input is what the request that added the disk said about it; nil: the enable request did, if any.
	Input json.RawMessage `json:",omitempty"`
}

// Hardware is what the machine looked like when last observed.
type Hardware struct {
	CPUs        int
	MemoryBytes int64
	Firmware    string
	OSType      string
	OSName      string
	MACs        []string
}

// Instance is a machine started from a point of the item.
type Instance struct {
	ID         string
	UUID       string
	Generation int64
	Sequence   int64
	Site       string
	Replicator string // where it runs, as far as known
	Address    string
	Pinned     bool // its point is held for it
	// Disks are those of its point, as far as its worker told.
	Disks   []string `json:",omitempty"`
	Started time.Time
}

// Observed is what the item's agent and replicators last told. It is kept apart from Item because it changes every few seconds
// and nobody decides on it.
type Observed struct {
	Item             ItemID
	AgentVersion     string
	LastHeartbeat    time.Time
	Phase            string // ProtectionStatus.phase of the fleet protocol
	Generation       int64
	ProgressPercent  int
	TotalBytes       int64
	ProcessedBytes   int64
	TransferredBytes int64
	Disks            []DiskProgress
	Group            *GroupObserved // nil: it is in none, or has not met it yet
	LastCaptureID    string
	FreezeTook       time.Duration
	Dirty            int64  // bytes written to tracked disks since they were last read
	SelfDirty        int64  // bytes the agent itself wrote to the disks between the newest two points
	Changed, Shipped int64  // bytes since the agent started: found different, and sent
	Churn            int64  // bytes per second that differed between the newest two points
	Throttle         *int64 // bytes per second; nil: none is in force
	// Shares of the last minutes in which sending waited for a throttle, and for the replicator or the network.
	ThrottledPercent, BlockedPercent int
	// ResyncReason is why the disks were last compared as a whole, at ResyncTime.
	ResyncReason string
	ResyncTime   time.Time
	Fault        *HealthError
	// A machine other than ActiveUUID that spoke with this item's identity, such as a source that came back.
	StrangerUUID string
	StrangerSeen time.Time
}

// ResyncCause is why the disks are, or were last, compared as a whole.
func (o Observed) ResyncCause() string {
	if o.ResyncReason != "" {
		return o.ResyncReason
	}
	return "change tracking was lost (an unclean shutdown, a full change log), or a repair was asked for"
}

// DiskProgress is the running pass over one disk.
type DiskProgress struct {
	ID               string
	ProgressPercent  int
	ProcessedBytes   int64
	TransferredBytes int64
}
