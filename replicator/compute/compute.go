// Package compute starts machines from recovery points and reaches production machines at home. It owns the contract that
// every hypervisor driver meets (the suite is in computetest) and what all of them share: judging from a console whether a
// guest is up.
//
// It never chooses points, never pins them and never decides that a machine may run: whoever calls Start has fenced the other
// side first.
package compute

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Driver runs instances: machines that Lifeboat started from a recovery point. An instance is named by the caller, and its id
// is all that is needed to find it again after any crash of any Lifeboat process.
//
// Every method may be called again after it failed or was killed anywhere: it starts by looking at what is already there.
// Calls for different ids run concurrently; calls for one id wait for each other, also across processes that share the
// driver's directory.
type Driver interface {
	// Start makes the instance run and waits until its probe holds. An instance that runs is adopted: nothing is started,
	// and the probe is asked about what runs; if it is paused because the host's disk was full, it goes on. One that is off or crashed is powered on with the disks as it left them. What
	// a killed Start left half made is finished. On success the machine runs and everything of it has been recorded.
	//
	// Errors: ErrConflict when an instance of that id was made from another point; ErrProbe (a *ProbeError) when the machine
	// runs but the probe did not hold in time, the machine is left running so that its console can be looked at;
	// restore.ErrCorrupt when a byte that the guest asked for before the probe held failed verification, the machine is
	// powered off; restore.ErrFull. After any error Destroy removes what is there.
	Start(ctx context.Context, spec Spec) (Started, error)

	// Stop asks the guest to shut down and powers it off. It returns nil when the machine is off, its disks flushed, and all
	// of it kept. When the guest is still up after timeout: with force the power is cut, else ErrRunning and it runs on.
	// ErrNotFound when there is no such instance; nil when it is off already.
	Stop(ctx context.Context, id string, timeout time.Duration, force bool) error

	// Destroy cuts the power and removes everything the instance owns: processes, overlays, sockets, directory. Nil when
	// there is nothing of that id.
	Destroy(ctx context.Context, id string) error

	// Inspect tells what is true now. ErrNotFound when there is no such instance.
	Inspect(ctx context.Context, id string) (Instance, error)

	// List returns all instances, half-made ones too, ordered by id.
	List(ctx context.Context) ([]Instance, error)

	// Screenshot writes a PNG of the instance's screen to w. ErrNotRunning when it is off.
	Screenshot(ctx context.Context, id string, w io.Writer) error

	// SerialLog opens what the instance printed on its serial console since it was made, over all its boots.
	SerialLog(ctx context.Context, id string) (io.ReadCloser, error)

	// Hydrate starts filling the instance's disks behind it when that does not go on yet, and tells how far it is. It never
	// waits for the end. Once Complete, the instance needs neither the recovery point nor its disk server, which is gone.
	// ErrNotRunning when the instance is off.
	Hydrate(ctx context.Context, id string) (Hydration, error)

	// OpenDisks opens the disks of an instance that is off, for reading them as they are now. The instance cannot be started
	// until they are closed. ErrRunning when it is on. The point behind lazily served disks is reached through server, which
	// may be nil for an instance that needs none.
	OpenDisks(ctx context.Context, id string, server json.RawMessage) (restore.Disks, error)
}

// Home reaches production machines in the datastores of this place: the master target's view of the source site. The machine
// is named by its SMBIOS UUID; datastore may be empty, which searches all that are configured.
type Home interface {
	// FindHome returns the machine. ErrNotFound when no datastore has it.
	FindHome(ctx context.Context, datastore, uuid string) (HomeMachine, error)

	// StartHome powers the machine on from its own disks and waits for the probe; one that runs is adopted. A zero
	// probe.Timeout does not wait at all.
	StartHome(ctx context.Context, datastore, uuid string, probe job.Probe) (Started, error)

	// StopHome asks the guest to shut down, waits until the machine is off and its disks are flushed. ErrRunning when it is
	// still up after timeout and force is not given: then it runs on, nothing has been changed.
	StopHome(ctx context.Context, datastore, uuid string, timeout time.Duration, force bool) error

	// OpenHome opens the disks of a machine that is off for writing back. While they are open nobody can start the machine.
	// ErrRunning when it is on, or when anything else holds one of its images open.
	OpenHome(ctx context.Context, datastore, uuid string) (HomeDisks, error)
}

// HomeDisks are the disks of a home machine that is off, held exclusively until Close.
type HomeDisks interface {
	// Disk returns a disk by its id, else ErrNotFound.
	Disk(id string) (restore.Target, error)
	io.Closer
}

// Spec says what to start. It follows job.InstanceStart.
type Spec struct {
	ID       string // of the instance; letters, digits, dash, underscore and dot
	Machine  string // the machine's name in the repository
	Point    job.PointRef
	Hardware job.Hardware

	// Disks of the point, in the guest's order, all of them. Sizes in bytes.
	Disks []Disk

	// Server is handed to the disk server process, as the opener of restore.ServeDisks in that process wants it. It holds
	// secrets: it travels over a pipe and is never written down. Needed unless Copied.
	Server json.RawMessage

	// Open opens the point in this process. Needed when Copied: every disk becomes a full image first. Progress is told
	// through Progress, which may be nil.
	Copied   bool
	Open     func(ctx context.Context) (restore.Disks, error)
	Progress func(done, total int64)

	// Hydrate fills lazily served disks behind the running machine, so that it comes to need nothing but itself.
	Hydrate bool

	Probe job.Probe // zero Timeout: DefaultProbeTimeout
}

// DefaultProbeTimeout is how long an instance may take to come up when nothing is said about it.
const DefaultProbeTimeout = 5 * time.Minute

// Disk is one disk of a machine.
type Disk struct {
	ID   string `json:"id"`
	Size int64  `json:"size"`
}

// Started is what Start brought about. For an adopted instance it tells about the start that made it run, except for
// ProbeTook, which counts from this call when the probe had not held before.
type Started struct {
	Adopted     bool
	Accelerator string        // kvm or tcg
	StartTook   time.Duration // from the call until the hypervisor ran the guest
	ProbeTook   time.Duration // from there until the probe held
	ProbeLine   string        // the line of the console that made it hold
	Address     string        // where the guest can be reached from here, if anywhere
	Requests    int64         // what the disk server fetched from the bucket until the probe held
	Bytes       int64
}

// State of an instance or a home machine.
type State string

const (
	StateStarting State = "starting" // Start has begun and not finished; a killed Start leaves this
	StateRunning  State = "running"
	StateStopped  State = "stopped" // the guest shut down, or Stop cut its power; the disks are complete
	StateCrashed  State = "crashed" // the hypervisor is gone and the guest had not shut down
)

// Instance is what is known of an instance.
type Instance struct {
	ID          string
	Machine     string
	Point       job.PointRef
	Hardware    job.Hardware
	Disks       []Disk
	State       State
	Accelerator string
	Address     string
	Hydrate     bool // Start was asked to fill the disks behind the machine
	Hydrated    bool // needs no recovery point any more
	Created     time.Time
	ProbeHeld   time.Time // zero while the probe has not held

	// DiskErrors say what is wrong with the disks: that the machine is paused because the host's disk is full, and the reads
	// that the disk server could not answer, oldest first, bounded, for which the guest saw an I/O error.
	DiskErrors []string
	Requests   int64 // bucket traffic of the disk server so far; zero once it is gone
	Bytes      int64
}

// Hydration is the progress of filling an instance's disks. Done <= Total, in bytes; holes count as done when they are passed.
type Hydration struct {
	Done, Total int64
	Complete    bool
	Err         error // why it stopped; the next Hydrate tries again
}

// HomeMachine is a production machine in a datastore.
type HomeMachine struct {
	Datastore   string     `json:"-"`
	Path        string     `json:"-"` // its folder
	Name        string     `json:"name"`
	UUID        string     `json:"uuid"`
	CPUs        int        `json:"cpus"`
	MemoryBytes int64      `json:"memoryBytes"`
	Firmware    string     `json:"firmware"` // bios or uefi; empty is bios
	Disks       []HomeDisk `json:"disks"`
	MACs        []string   `json:"macs,omitempty"`
	Network     string     `json:"network,omitempty"` // as job.Network; empty is production
	State       State      `json:"-"`
}

// HomeDisk is an image of a home machine.
type HomeDisk struct {
	ID     string `json:"id"`     // the disk id that the agent reports: the virtio serial number
	Path   string `json:"path"`   // absolute, or relative to the machine's folder
	Format string `json:"format"` // raw or qcow2; empty is raw
}

var (
	// ErrNotFound says that there is no such instance, home machine or disk.
	ErrNotFound = errors.New("not found")

	// ErrConflict says that the id is taken by an instance of another machine or point.
	ErrConflict = errors.New("instance was made from another point")

	// ErrRunning says that the machine is on.
	ErrRunning = errors.New("machine is running")

	// ErrNotRunning says that the machine is off.
	ErrNotRunning = errors.New("machine is not running")

	// ErrProbe says that a machine runs but did not come up in time. The error is a *ProbeError.
	ErrProbe = errors.New("machine did not come up in time")

	// ErrMemory says that the host has less memory free than the machine needs.
	ErrMemory = errors.New("not enough memory")

	// ErrUnsupported says that this host or driver cannot do what the machine needs, such as a firmware that is not installed.
	ErrUnsupported = errors.New("not supported here")
)
