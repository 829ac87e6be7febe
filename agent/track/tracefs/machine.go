package tracefs

import (
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/track/sysblock"
)

// Errors of Open and Track.
var (
	// ErrUnsupported is a kernel without tracefs or block events, or a disk whose writes they do not show. Scan it.
	ErrUnsupported = errors.New("tracefs: not supported here")
	// ErrOwned is a directory that another process tracks from.
	ErrOwned = errors.New("tracefs: another process tracks from this directory")
)

const (
	instance = "lifeboat-"
	buffer   = 8 << 10 // KiB for each CPU: some 80,000 events
	nap      = 200     // milliseconds that a reader waits before it looks whether it should end
)

// Config of a Machine.
type Config struct {
	// Dir is a directory of the agent's own: tracefs is mounted below it. Required.
	Dir string
	// Logger gets what is found at Open and Track, and nothing at a capture. Empty: nobody.
	Logger *slog.Logger
}

// Machine reads the events of all tracked disks. Safe for concurrent use; a Tracker is used by one goroutine.
type Machine struct {
	root, dir string // of tracefs, of the instance in it
	log       *slog.Logger
	lock      *os.File
	formats   map[uint16]*kind
	cpus      []*cpu
	readers   sync.WaitGroup

	mu     sync.Mutex // guards what follows; never held together with a cpu's, but inside it
	closed bool
	disks  map[sysblock.Number]*Tracker
	broken error  // why nothing can be believed any more
	missed uint64 // times that events were lost
}

// kind is what an event means.
type kind struct {
	format
	complete bool
}

// cpu is the trace buffer of one CPU.
type cpu struct {
	mu    sync.Mutex
	pipe  int // file descriptor of trace_pipe_raw
	stats *os.File
	page  []byte
	over  uint64 // events lost, as counted by the kernel
}

var events = map[string]bool{"block_rq_issue": false, "block_rq_complete": true}

// Open begins to trace. An instance that a killed process left is taken away first.
func Open(c Config) (_ *Machine, err error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Machine{root: filepath.Join(c.Dir, "tracefs"), log: c.Logger, formats: map[uint16]*kind{}, disks: map[sysblock.Number]*Tracker{}}
	m.dir = filepath.Join(m.root, "instances", instance+strconv.FormatUint(name(c.Dir), 36)) // all mounts share the instances
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if err := os.MkdirAll(m.root, 0o700); err != nil {
		return nil, fmt.Errorf("open tracking directory: %w", err)
	}
	if m.lock, err = os.OpenFile(filepath.Join(c.Dir, "trace.lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("open tracking directory: %w", err)
	}
	if err := unix.Flock(int(m.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		m.root = "" // not ours to take away
		return nil, fmt.Errorf("%w: %s", ErrOwned, c.Dir)
	}
	if err := m.mount(); err != nil {
		return nil, err
	}
	if err := m.begin(); err != nil {
		return nil, err
	}
	for _, c := range m.cpus {
		m.readers.Go(func() { m.follow(c) })
	}
	return m, nil
}

func name(dir string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(dir))
	return h.Sum64()
}

func (m *Machine) mount() error {
	var st unix.Statfs_t
	if err := unix.Statfs(m.root, &st); err != nil {
		return fmt.Errorf("look at %s: %w", m.root, err)
	}
	if st.Type != unix.TRACEFS_MAGIC {
		if err := unix.Mount("lifeboat", m.root, "tracefs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("%w: mount tracefs: %w", ErrUnsupported, err)
		}
	}
	if err := os.Remove(m.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("%w: its trace buffers are in use", ErrOwned)
		}
		return fmt.Errorf("%w: take an old instance away: %w", ErrUnsupported, err)
	}
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return fmt.Errorf("%w: make a tracing instance: %w", ErrUnsupported, err)
	}
	return nil
}

func (m *Machine) set(value string, path ...string) error {
	p := filepath.Join(append([]string{m.dir}, path...)...)
	if err := os.WriteFile(p, []byte(value), 0); err != nil {
		return fmt.Errorf("%w: set %s: %w", ErrUnsupported, strings.TrimPrefix(p, m.dir+"/"), err)
	}
	return nil
}

// begin turns the events on, for no disk as yet.
func (m *Machine) begin() error {
	if err := m.set(strconv.Itoa(buffer), "buffer_size_kb"); err != nil {
		return err
	}
	for name, complete := range events {
		text, err := os.ReadFile(filepath.Join(m.dir, "events/block", name, "format"))
		if err != nil {
			return fmt.Errorf("%w: event %s: %w", ErrUnsupported, name, err)
		}
		f, err := parseFormat(string(text))
		if err != nil {
			return fmt.Errorf("%w: event %s: %w", ErrUnsupported, name, err)
		}
		m.formats[f.id] = &kind{f, complete}
	}
	if err := m.filter(nil); err != nil {
		return err
	}
	for name := range events {
		if err := m.set("1", "events/block", name, "enable"); err != nil {
			return err
		}
	}
	dirs, err := filepath.Glob(filepath.Join(m.dir, "per_cpu/cpu*"))
	if err != nil || len(dirs) == 0 {
		return fmt.Errorf("%w: the instance has no buffers", ErrUnsupported)
	}
	for _, dir := range dirs {
		c := &cpu{page: make([]byte, 64<<10)} // the largest page of any machine
		m.cpus = append(m.cpus, c)
		if c.stats, err = os.Open(filepath.Join(dir, "stats")); err != nil {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		if c.pipe, err = unix.Open(filepath.Join(dir, "trace_pipe_raw"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			c.pipe = -1
			return fmt.Errorf("%w: read trace buffers: %w", ErrUnsupported, err)
		}
	}
	return nil
}

// filter lets through the events of these disks, without reads.
func (m *Machine) filter(numbers []sysblock.Number) error {
	var disks []string
	for _, n := range append(numbers, ^sysblock.Number(0)) { // no disk at all has that number
		disks = append(disks, fmt.Sprintf("dev == %d", uint32(n)))
	}
	text := "(" + strings.Join(disks, " || ") + ")"
	for _, reads := range []string{"R", "RA", "RM", "RS", "RAM", "RSM"} {
		text += fmt.Sprintf(` && rwbs != "%s"`, reads)
	}
	for name := range events {
		if err := m.set(text, "events/block", name, "filter"); err != nil {
			return err
		}
	}
	return nil
}

// follow reads the events of a CPU as they come, until Close.
func (m *Machine) follow(c *cpu) {
	for {
		poll := []unix.PollFd{{Fd: int32(c.pipe), Events: unix.POLLIN}}
		_, _ = unix.Poll(poll, nap)
		m.mu.Lock()
		end := m.closed || m.broken != nil
		m.mu.Unlock()
		if end {
			return
		}
		m.read(c)
	}
}

// catchUp reads all events that were traced before the call, of all CPUs.
func (m *Machine) catchUp() {
	for _, c := range m.cpus {
		m.read(c)
		lost := c.lost()
		m.mu.Lock()
		if lost != c.over {
			m.missed++
			c.over = lost
		}
		m.mu.Unlock()
	}
}

// lost returns how many events the kernel says it did not keep.
func (c *cpu) lost() (n uint64) {
	var b [1024]byte
	size, _ := c.stats.ReadAt(b[:], 0)
	for line := range strings.Lines(string(b[:size])) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "overrun", "commit overrun", "dropped events":
			v, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			n += v
		}
	}
	return n
}

// read empties the buffer of a CPU.
func (m *Machine) read(c *cpu) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		n, err := unix.Read(c.pipe, c.page)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			return
		case err != nil:
			m.fail(fmt.Errorf("read trace buffers: %w", err))
			return
		}
		m.mu.Lock()
		lost, err := walk(c.page[:n], m.take)
		if lost {
			m.missed++
		}
		m.mu.Unlock()
		if err != nil {
			m.fail(err)
			return
		}
	}
}

func (m *Machine) fail(err error) {
	m.mu.Lock()
	m.broken = errors.Join(m.broken, err)
	m.mu.Unlock()
}

// take marks what an event did. m.mu is held.
func (m *Machine) take(p []byte) error {
	if len(p) < 2 {
		return nil
	}
	k := m.formats[uint16(p[0])|uint16(p[1])<<8]
	if k == nil {
		return nil // something that writes to every instance
	}
	e, err := k.decode(p)
	if err != nil {
		return err
	}
	if t := m.disks[e.number]; t != nil {
		t.take(&e, k.complete)
	}
	return nil
}

// Close ends the tracing and takes everything away.
func (m *Machine) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.readers.Wait()
	var errs []error
	for _, c := range m.cpus {
		if c.pipe >= 0 {
			errs = append(errs, unix.Close(c.pipe))
		}
		if c.stats != nil {
			errs = append(errs, c.stats.Close())
		}
	}
	m.cpus = nil
	if m.root != "" {
		if err := os.Remove(m.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		if err := unix.Unmount(m.root, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.root, err))
		}
		m.root = ""
	}
	if m.lock != nil {
		errs = append(errs, m.lock.Close())
		m.lock = nil
	}
	return errors.Join(errs...)
}
