package job

import "time"

// Capabilities that a route names.
const (
	CapabilityRepository = "repository" // reads and writes the vault's bucket
	CapabilityCompute    = "compute"    // starts machines
	CapabilityWriteback  = "writeback"  // reaches the machine's home disks (master target)
	CapabilityScript     = "script"     // runs scripts of recovery plans (runner); At(it, the runner's name) is that one
	CapabilityWebhook    = "webhook"    // calls webhooks of recovery plans
)

// At narrows a capability to one replicator: work on something that lives there, such as a started machine. A replicator that
// leases such routes says so by listing At(c, its id) among its capabilities.
func At(capability, replicator string) string { return capability + "@" + replicator }

// Kinds of task that workers do. The comment names the payload and the output.
const (
	KindGenerationOpen   = "generation.open"   // GenerationOpen -> Empty. Idempotent.
	KindGenerationClose  = "generation.close"  // GenerationClose -> GenerationClosed. Idempotent: the first close wins.
	KindPointPin         = "point.pin"         // PointPin -> Empty
	KindPointUnpin       = "point.unpin"       // PointPin -> Empty
	KindPointVerify      = "point.verify"      // PointVerify -> PointVerified
	KindRepositoryPrune  = "repository.prune"  // Prune -> Pruned
	KindMachineDelete    = "machine.delete"    // MachineDelete -> Empty: drops all points of a machine
	KindInstanceStart    = "instance.start"    // InstanceStart -> InstanceStarted
	KindInstanceStop     = "instance.stop"     // InstanceStop -> Empty: guest shutdown, then power off
	KindInstanceDestroy  = "instance.destroy"  // InstanceDestroy -> Empty: process, overlays and directory are gone
	KindInstanceCapture  = "instance.capture"  // InstanceCapture -> Captured: read the stopped instance's disks into a point
	KindHomeStop         = "home.stop"         // HomeMachine -> Empty: shut the production VM down
	KindHomeCapture      = "home.capture"      // HomeCapture -> Captured: read the stopped production VM's disks into a point
	KindHomeWriteback    = "home.writeback"    // HomeWriteback -> WrittenBack: compare, then write what differs
	KindHomeStart        = "home.start"        // HomeMachine -> InstanceStarted: start the production VM from its own disks
	KindPointExport      = "point.export"      // PointExport -> Exported
	KindScriptRun        = "script.run"        // ScriptRun -> ScriptRan. May run twice when the runner is killed.
	KindWebhookCall      = "webhook.call"      // WebhookCall -> WebhookCalled. May be called twice.
	KindRepositoryReport = "repository.report" // RepositoryReport -> Empty: report all points of a machine to the index
	KindVaultFileWrite   = "vaultFile.write"   // VaultFileWrite -> Empty: replace the bucket's vault.json. Idempotent.
)

// Empty is the output of tasks that have nothing to tell.
type Empty struct{}

// PointRef names a recovery point of a machine: its place in the point log.
type PointRef struct {
	Generation int64 `json:"generation"`
	Sequence   int64 `json:"sequence"`
}

// Machine says whose bucket a task works on. MachineID names the protected machine over its whole life.
type Machine struct {
	VaultID   string `json:"vaultId"`
	MachineID string `json:"machineId"`
}

// VaultFileWrite replaces a vault's vault.json: its data key, wrapped under another recovery key.
type VaultFileWrite struct {
	VaultID string `json:"vaultId"`
	File    []byte `json:"file"`
}

// GenerationOpen opens a generation of the point log on top of Base (nil for the first).
type GenerationOpen struct {
	Machine
	Generation int64     `json:"generation"`
	Base       *PointRef `json:"base,omitempty"`
}

// GenerationClose fences a generation: after it no late writer can add a point.
type GenerationClose struct {
	Machine
	Generation int64  `json:"generation"`
	Reason     string `json:"reason"`
}

// GenerationClosed tells the last point of the generation; nil when it holds none.
type GenerationClosed struct {
	Last *PointRef `json:"last,omitempty"`
}

// PointPin keeps a point while Owner uses it.
type PointPin struct {
	Machine
	Point PointRef `json:"point"`
	Owner string   `json:"owner"`
}

// PointVerify reads every byte of a point.
type PointVerify struct {
	Machine
	Point PointRef `json:"point"`
}

// PointVerified names the first bad extent, if any.
type PointVerified struct {
	Bytes    int64  `json:"bytes"`
	BadDisk  string `json:"badDisk,omitempty"`
	BadStart int64  `json:"badStart,omitempty"`
	BadBytes int64  `json:"badBytes,omitempty"`
}

// Prune drops the points that the retention does not keep, then what no point needs.
type Prune struct {
	Machine
	Retention time.Duration `json:"retention"`
	Now       time.Time     `json:"now"`
}

// Pruned tells what was removed.
type Pruned struct {
	Points int   `json:"points"`
	Bytes  int64 `json:"bytes"`
}

// MachineDelete drops everything the bucket holds of a machine.
type MachineDelete struct{ Machine }

// RepositoryReport asks for a complete PointReport of a machine.
type RepositoryReport struct{ Machine }

// Network says what a started machine may reach.
type Network string

const (
	NetworkIsolated   Network = "isolated"   // nothing outside the instance; drills
	NetworkProduction Network = "production" // the recovery site's network
	NetworkNone       Network = "none"       // no adapter
)

// Hardware is what the started machine gets.
type Hardware struct {
	Name        string   `json:"name"`
	UUID        string   `json:"uuid"` // SMBIOS system UUID; differs from the source's so that an agent can tell which side it is
	CPUs        int      `json:"cpus"`
	MemoryBytes int64    `json:"memoryBytes"`
	Firmware    string   `json:"firmware"` // bios or uefi
	OSDisk      string   `json:"osDisk"`   // disk id to boot from
	Disks       []string `json:"disks"`    // disk ids in order; of a new instance, those of them that its point has, then others that the point has
	MACs        []string `json:"macs,omitempty"`
	Network     Network  `json:"network"`
}

// InstanceStart starts a machine from a point. Idempotent by InstanceID: an instance that runs already is adopted, one that was
// stopped is started again from its own disks, Point notwithstanding.
type InstanceStart struct {
	Machine
	InstanceID string        `json:"instanceId"`
	Point      PointRef      `json:"point"`
	Hardware   Hardware      `json:"hardware"`
	Copied     bool          `json:"copied,omitempty"`  // full images first, instead of lazily served disks
	Hydrate    bool          `json:"hydrate,omitempty"` // fill lazily served disks behind; never for drills
	Probe      Probe         `json:"probe"`
	Deadline   time.Duration `json:"deadline"`
}

// Probe decides when a started machine counts as up. All given conditions must hold.
type Probe struct {
	SerialContains string        `json:"serialContains,omitempty"` // empty: the first line the guest's userspace prints after the kernel's
	Timeout        time.Duration `json:"timeout"`
}

// InstanceStarted tells where the machine runs and how long it took.
type InstanceStarted struct {
	InstanceID   string        `json:"instanceId"`
	Accelerator  string        `json:"accelerator"` // kvm or tcg
	StartTook    time.Duration `json:"startTook"`   // from the task's start until the hypervisor ran
	ProbeTook    time.Duration `json:"probeTook"`   // from there until the probe held
	Address      string        `json:"address,omitempty"`
	Disks        []string      `json:"disks,omitempty"`      // that the machine has, in order
	SerialLog    string        `json:"serialLog,omitempty"`  // artifact name
	Screenshot   string        `json:"screenshot,omitempty"` // artifact name
	RepoRequests int64         `json:"repoRequests,omitempty"`
	RepoBytes    int64         `json:"repoBytes,omitempty"`
}

// InstanceStop shuts an instance's guest down; the disks stay.
type InstanceStop struct {
	Machine
	InstanceID string        `json:"instanceId"`
	Timeout    time.Duration `json:"timeout"` // after it the power is cut, if Force
	Force      bool          `json:"force"`
}

// InstanceDestroy removes an instance and all it wrote.
type InstanceDestroy struct {
	Machine
	InstanceID string `json:"instanceId"`
}

// InstanceCapture reads Disks (empty: all) of a stopped instance and commits what differs from the newest point of Generation (or its
// base) as a point of Generation.
type InstanceCapture struct {
	Machine
	InstanceID string   `json:"instanceId"`
	Generation int64    `json:"generation"`
	Disks      []string `json:"disks,omitempty"`
}

// Captured names the point that a capture made.
type Captured struct {
	Point        PointRef  `json:"point"`
	Time         time.Time `json:"time"`
	ChangedBytes int64     `json:"changedBytes"`
}

// HomeMachine names the production VM by its SMBIOS UUID in a datastore of a master target.
type HomeMachine struct {
	Machine
	UUID      string        `json:"uuid"`
	Datastore string        `json:"datastore"`
	Timeout   time.Duration `json:"timeout,omitempty"`
	// Force cuts the power when the guest has not shut down in time: only to undo a failback, whose machine holds nothing that
	// is not in the bucket.
	Force bool  `json:"force,omitempty"`
	Probe Probe `json:"probe"`
}

// HomeCapture reads the disks of the production VM, which must be off, and commits what differs from the newest point of
// Generation as a point of it.
type HomeCapture struct {
	HomeMachine
	Generation int64      `json:"generation"`
	Disks      []HomeDisk `json:"disks"`
}

// HomeDisk is a protected disk of the production VM.
type HomeDisk struct {
	ID        string `json:"id"`
	SizeBytes int64  `json:"sizeBytes"`
	OS        bool   `json:"os,omitempty"`
}

// HomeWriteback makes the home disks equal to a point, writing only what differs. The VM must be off.
type HomeWriteback struct {
	HomeMachine
	Point PointRef `json:"point"`
}

// WrittenBack tells how much travelled.
type WrittenBack struct {
	ComparedBytes int64 `json:"comparedBytes"`
	WrittenBytes  int64 `json:"writtenBytes"`
}

// Export formats.
const (
	FormatRaw      = "raw"
	FormatVHDFixed = "vhd"
	FormatQCOW2    = "qcow2"
	FormatVHDX     = "vhdx"
	FormatVMDK     = "vmdk"
)

// PointExport writes a disk image of every disk of a point into Directory at the worker.
type PointExport struct {
	Machine
	Point     PointRef `json:"point"`
	Format    string   `json:"format"`
	Directory string   `json:"directory"`
}

// Exported lists the files, by disk id.
type Exported struct {
	Files map[string]string `json:"files"`
}
