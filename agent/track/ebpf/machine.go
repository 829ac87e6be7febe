package ebpf

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	cilium "github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/track/sysblock"
)

// ErrOwned is why Open refuses a directory that another process has open.
var ErrOwned = errors.New("ebpf: another process tracks from this directory")

// Config of a Machine.
type Config struct {
	// Dir is a directory of the agent's own that outlives it, on a filesystem that is there before the agent: below it a bpffs
	// is mounted and stays mounted. Required.
	Dir string
	// Logger gets what is found at Open and Track, and nothing at a capture. Empty: nobody.
	Logger *slog.Logger
}

// Machine is the programs at work in the kernel, once for all disks. Safe for concurrent use; a Tracker is used by one goroutine.
type Machine struct {
	dir, fs string
	log     *slog.Logger
	lock    *os.File
	cpus    int
	resumed bool

	mu       sync.Mutex
	maps     map[string]*cilium.Map // by the name of their pin
	links    map[string]link.Link   // the same; a link that nobody refers to would be detached
	queue    *cilium.Program        // for disks without a request queue, attached when there is one
	trackers map[int]*Tracker       // by slot

	sides   *cilium.Map
	numbers []bucket
	disks   []diskState
	tallies []tally
}

// Open attaches the programs to the kernel's block layer, or adopts those that an earlier process with the same directory, kernel
// and programs left at work. It returns ErrOwned while another process does the same, and ErrUnsupported on kernels that cannot.
func Open(c Config) (_ *Machine, err error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Machine{
		dir: c.Dir, fs: filepath.Join(c.Dir, "bpf"), log: c.Logger,
		maps: map[string]*cilium.Map{}, links: map[string]link.Link{}, trackers: map[int]*Tracker{},
	}
	if m.cpus, err = cilium.PossibleCPU(); err != nil {
		return nil, fmt.Errorf("count processors: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.release())
		}
	}()
	if err := m.own(); err != nil {
		return nil, err
	}
	if err := m.mount(); err != nil {
		return nil, err
	}
	aerr := m.adopt()
	if aerr == nil {
		m.resumed = true
		m.log.Info("adopted the tracking of an earlier process")
	} else {
		if !errors.Is(aerr, os.ErrNotExist) {
			m.log.Warn("what an earlier process tracked cannot be vouched for", "err", aerr)
		}
		if err := m.clean(); err != nil {
			return nil, err
		}
		if err := m.attach(); err != nil {
			return nil, errors.Join(err, m.clean())
		}
	}
	if err := m.look(); err != nil {
		return nil, err
	}
	return m, m.sweep()
}

// own takes the lock that only one process holds.
func (m *Machine) own() (err error) {
	if err := os.MkdirAll(m.fs, 0o700); err != nil {
		return fmt.Errorf("open tracking directory: %w", err)
	}
	if m.lock, err = os.OpenFile(filepath.Join(m.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return fmt.Errorf("open tracking directory: %w", err)
	}
	if err := unix.Flock(int(m.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: %s", ErrOwned, m.dir)
	}
	return nil
}

// mount makes sure that the directory of pins is a bpffs.
func (m *Machine) mount() error {
	var st unix.Statfs_t
	if err := unix.Statfs(m.fs, &st); err != nil {
		return fmt.Errorf("look at %s: %w", m.fs, err)
	}
	if st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("lifeboat", m.fs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("%w: mount a bpffs on %s: %w", ErrUnsupported, m.fs, err)
	}
	return nil
}

func (m *Machine) pin(name string) string { return filepath.Join(m.fs, name) }

// fingerprint is what must be the same for pins to be adopted: the boot, the kernel, the programs, the layout of their maps.
func (m *Machine) fingerprint() ([32]byte, error) {
	var sum [32]byte
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return sum, fmt.Errorf("read the boot's id: %w", err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return sum, fmt.Errorf("ask for the kernel: %w", err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s %d %d %d\n", boot, u.Release[:], u.Version[:], m.cpus, maxDisks, format)
	h.Write(object)
	return [32]byte(h.Sum(nil)), nil
}

// shared are the maps.
var shared = []string{"numbers", "disks", "tallies", "sides"}

// always are the links without which nothing is tracked.
var always = []string{"issue", "complete", "requeue"}

// adopt takes over what is pinned. It fails with os.ErrNotExist when nothing is.
func (m *Machine) adopt() error {
	meta, err := cilium.LoadPinnedMap(m.pin("meta"), nil)
	if err != nil {
		return err
	}
	defer func() { _ = meta.Close() }()
	want, err := m.fingerprint()
	if err != nil {
		return err
	}
	var got [32]byte
	if err := meta.Lookup(uint32(0), &got); err != nil {
		return fmt.Errorf("read the pinned fingerprint: %w", err)
	}
	if got != want {
		return errors.New("it belongs to another boot, kernel or version of the programs")
	}
	for _, name := range shared {
		if m.maps[name], err = cilium.LoadPinnedMap(m.pin(name), nil); err != nil {
			return fmt.Errorf("adopt map %s: %w", name, err)
		}
	}
	for _, name := range always {
		if m.links[name], err = link.LoadPinnedLink(m.pin("link_"+name), nil); err != nil {
			return fmt.Errorf("adopt link %s: %w", name, err)
		}
	}
	if m.queue, err = cilium.LoadPinnedProgram(m.pin("queue"), nil); err != nil {
		return fmt.Errorf("adopt the program of bios: %w", err)
	}
	l, err := link.LoadPinnedLink(m.pin("link_queue"), nil)
	if err == nil {
		m.links["queue"] = l
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("adopt link queue: %w", err)
	}
	return nil
}

// clean takes everything off the bpffs, which also stops the programs.
func (m *Machine) clean() error {
	var errs []error
	for name, l := range m.links {
		errs = append(errs, l.Close())
		delete(m.links, name)
	}
	for name, p := range m.maps {
		errs = append(errs, p.Close())
		delete(m.maps, name)
	}
	entries, err := os.ReadDir(m.fs)
	errs = append(errs, err)
	for _, e := range entries {
		if !strings.Contains(e.Name(), ".") { // the kernel's own have a dot and stay
			errs = append(errs, os.Remove(m.pin(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// attach loads the programs and pins everything, the fingerprint last: what is pinned without it was begun only.
func (m *Machine) attach() error {
	if err := rlimit.RemoveMemlock(); err != nil { // kernels before 5.11 count maps so
		return fmt.Errorf("%w: raise the limit of locked memory: %w", ErrUnsupported, err)
	}
	s, err := spec(m.cpus)
	if err != nil {
		return err
	}
	coll, err := cilium.NewCollection(s)
	if err != nil {
		return fmt.Errorf("%w: load programs: %w", ErrUnsupported, err)
	}
	defer coll.Close()
	for _, name := range shared {
		m.maps[name] = coll.DetachMap(name)
		if err := m.maps[name].Pin(m.pin(name)); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	for _, name := range always {
		if err := m.link(name, coll.Programs[name]); err != nil {
			return err
		}
	}
	m.queue = coll.DetachProgram("queue")
	if err := m.queue.Pin(m.pin("queue")); err != nil {
		return fmt.Errorf("pin the program of bios: %w", err)
	}
	meta, err := cilium.NewMap(&cilium.MapSpec{Name: "meta", Type: cilium.Array, KeySize: 4, ValueSize: 32, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("make map meta: %w", err)
	}
	defer func() { _ = meta.Close() }()
	sum, err := m.fingerprint()
	if err != nil {
		return err
	}
	if err := errors.Join(meta.Put(uint32(0), sum), meta.Pin(m.pin("meta"))); err != nil {
		return fmt.Errorf("pin the fingerprint: %w", err)
	}
	return nil
}

func (m *Machine) link(name string, p *cilium.Program) error {
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		return fmt.Errorf("%w: attach program %s: %w", ErrUnsupported, name, err)
	}
	m.links[name] = l
	if err := l.Pin(m.pin("link_" + name)); err != nil {
		return fmt.Errorf("pin link %s: %w", name, err)
	}
	return nil
}

// look maps what programs and agent share into memory.
func (m *Machine) look() (err error) {
	m.sides = m.maps["sides"]
	if m.numbers, err = mapped[bucket](m.maps["numbers"]); err != nil {
		return err
	}
	if m.disks, err = mapped[diskState](m.maps["disks"]); err != nil {
		return err
	}
	m.tallies, err = mapped[tally](m.maps["tallies"])
	return err
}

// sweep gives back the slots of disks that are gone, and those whose taking was begun only.
func (m *Machine) sweep() error {
	for i := range m.disks {
		s := &m.disks[i]
		if s.dev == 0 {
			continue
		}
		if s.used.Load() == 1 {
			d, err := sysblock.Open(s.dev)
			same := err == nil && d.Is(s.disk)
			if err == nil {
				err = d.Close()
			}
			if same && err == nil {
				continue
			}
			m.log.Info("a tracked disk is gone", "disk", s.dev.String())
		}
		if err := m.free(i); err != nil {
			return err
		}
	}
	return nil
}

// Resumed tells whether Open adopted what an earlier process left at work.
func (m *Machine) Resumed() bool { return m.resumed }

// Close lets go of the programs, which go on marking for the process that opens the directory next. Trackers are closed first.
func (m *Machine) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for slot, t := range m.trackers {
		errs = append(errs, t.let())
		delete(m.trackers, slot)
	}
	return errors.Join(append(errs, m.release())...)
}

// Destroy stops the programs and forgets what they marked: nothing is left of them. The Machine is closed then.
func (m *Machine) Destroy() error {
	m.mu.Lock()
	for slot, t := range m.trackers {
		_ = t.let()
		delete(m.trackers, slot)
	}
	err := m.clean()
	m.mu.Unlock()
	return errors.Join(err, unix.Unmount(m.fs, 0), os.Remove(m.fs), m.Close())
}

func (m *Machine) release() error {
	errs := []error{unmap(m.numbers), unmap(m.disks), unmap(m.tallies)}
	m.numbers, m.disks, m.tallies = nil, nil, nil
	for _, l := range m.links {
		errs = append(errs, l.Close())
	}
	for _, p := range m.maps {
		errs = append(errs, p.Close())
	}
	if m.queue != nil {
		errs = append(errs, m.queue.Close())
	}
	clear(m.links)
	clear(m.maps)
	if m.lock != nil {
		errs = append(errs, m.lock.Close())
		m.lock = nil
	}
	runtime.KeepAlive(m)
	return errors.Join(errs...)
}
