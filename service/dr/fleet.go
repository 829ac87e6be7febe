package dr

import (
	"slices"
	"strings"
	"time"
)

// Machine is what an agent sees of the machine it runs on.
type Machine struct {
	Hostname      string
	ProductUUID   string // SMBIOS system UUID in lower case; tells a source from its replica
	Platform      string // vm or physical
	Hypervisor    bool   // its agent protects the machines that run on it, from outside, and not this one
	Manufacturer  string
	OSType        string // Linux or Windows
	OSName        string
	KernelVersion string
	CPUs          int
	MemoryBytes   int64
	Firmware      string // bios or uefi
	BootID        string
	IPAddresses   []string
	// GroupAddresses are where members of its consistency group reach its agent, host:port.
	GroupAddresses []string
	NICs           []NIC
	Disks          []MachineDisk
}

// HostedMachine is a machine that runs on a hypervisor, as that sees it.
type HostedMachine struct {
	Machine Machine
	Running bool // its guest runs or is paused; else it has shut down
}

// NIC is a network adapter of a machine.
type NIC struct {
	Name        string
	MAC         string
	IPAddresses []string
}

// MachineDisk is a disk that an agent sees. UnsupportedReason tells why it cannot be protected; empty when it can.
type MachineDisk struct {
	ID                string
	Path              string
	SizeBytes         int64
	SectorSize        int
	IsOSDisk          bool
	Mounts            []string
	UnsupportedReason string
}

// Hardware returns the part of the machine that a started replica gets.
func (m Machine) Hardware() Hardware {
	h := Hardware{CPUs: m.CPUs, MemoryBytes: m.MemoryBytes, Firmware: m.Firmware, OSType: m.OSType, OSName: m.OSName}
	for _, n := range m.NICs {
		if n.MAC != "" {
			h.MACs = append(h.MACs, n.MAC)
		}
	}
	return h
}

// Agent is an enrolled agent. Its ID is the common name of its client certificate. A source and the replica started from its
// point carry the same certificate: Machine is the one that spoke last, and its ProductUUID tells which.
type Agent struct {
	Meta
	ID              string
	Vault, Fabric   string
	Hostname        string
	AgentVersion    string
	ProtectableItem string // its name
	Container       string
	Machine         Machine
	Enrolled        time.Time
	LastHeartbeat   time.Time
	Unregistered    bool // removed from the vault: it must stop and forget
}

// Roles of a replicator.
const (
	RoleConfigurationServer = "configurationServer"
	RoleProcessServer       = "processServer"
	RoleMasterTarget        = "masterTarget"
)

// Sites of a replicator.
const (
	SiteHome     = "home"
	SiteRecovery = "recovery"
)

// Replicator is an enrolled replicator and what it last told.
type Replicator struct {
	Meta
	ID             string
	Vault, Fabric  string // the fabric it registered in; empty: it serves all
	Hostname       string
	AgentVersion   string
	Site           string
	Roles          []string
	Capabilities   []string
	DataAddress    string // host:port agents use for replication data
	ControlAddress string // host:port of its relay to lifeboatd; empty when it has none
	Datastores     []Datastore
	VMs            []VM
	Instances      []InstanceReport
	Health         ReplicatorHealth
	Enrolled       time.Time
	LastHeartbeat  time.Time
}

// ReplicatorHealth is a replicator's load.
type ReplicatorHealth struct {
	TotalMemoryBytes, AvailableMemoryBytes int64
	ProcessorPercent                       float64
	TotalSpaceBytes, AvailableSpaceBytes   int64
	SpoolUsedBytes, SpoolLimitBytes        int64
	ThroughputBytesPerSecond               int64
	Sessions                               int
}

// Datastore is where a master target can write disks.
type Datastore struct {
	Name           string
	TotalBytes     int64
	AvailableBytes int64
}

// VM is a machine a master target could write to.
type VM struct {
	UUID       string
	Name       string
	Datastore  string
	PowerState string // on, off or unknown
}

// InstanceReport is a machine that a replicator started from a recovery point.
type InstanceReport struct {
	ID              string
	Item            ItemID
	State           string // running, stopped or missing
	HydratedPercent int    // 100 once the disks no longer need the repository
	Error           string
}

// HasRole tells whether the replicator has the role.
func (r Replicator) HasRole(role string) bool { return slices.Contains(r.Roles, role) }

// Serves tells whether the replicator does tasks of the capability.
func (r Replicator) Serves(capability string) bool {
	return slices.Contains(r.Capabilities, capability)
}

// VM returns the machine with the UUID that the replicator can write to.
func (r Replicator) VM(uuid string) (VM, bool) {
	for _, vm := range r.VMs {
		if strings.EqualFold(vm.UUID, uuid) {
			return vm, true
		}
	}
	return VM{}, false
}

// RegistrationKey lets one agent or replicator enrol, once. The key itself is shown at creation and kept as a hash.
type RegistrationKey struct {
	Meta
	ID            string // first part of the key
	Hash          []byte
	Vault, Fabric string // Fabric is the fabric's name
	Role          string // agent or replicator
	Expires       time.Time
	// UsedBy is the fingerprint of the public key that enrolled: the same caller may repeat a request whose answer was lost.
	UsedBy string
	UsedAs string // the id it got
}
