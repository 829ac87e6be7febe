package restore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
	"github.com/lifeboat-dr/lifeboat/replicator/restore/nbd"
)

// Names in the directory of a disk server. A process that reaches the control socket may read counters and end the server;
// one that reaches the disk socket may read the disks. The directory is for its owner only.
const (
	DiskSocket    = "disks.sock"       // NBD, one export a disk, named by its id
	controlSocket = "disk-server.sock" // one JSON request and answer a line
	serverLock    = "disk-server.lock" // held while the server lives
	serverName    = "disk-server"      // of the pid file
	serverLog     = "disk-server.log"
	serverVerdict = "disk-server.failed"
)

// Opener opens the recovery point that source describes. Source comes from the one who started the disk server, through a
// pipe, and holds what the opener needs: bucket, point, data key.
type Opener func(ctx context.Context, source json.RawMessage, log *slog.Logger) (Disks, error)

// ServerConfig is what a disk server reads from its standard input: one JSON document, then the end. It is never written to
// a file. A disk server that died is started again by whoever holds the key, and QEMU connects again by itself.
type ServerConfig struct {
	Disks  []string        `json:"disks"` // ids to export
	Source json.RawMessage `json:"source"`
}

// ErrServing says that the directory has a disk server already.
var ErrServing = errors.New("a disk server runs there")

// ServeDisks is the life of a disk server process: it serves the disks of one recovery point from the working directory,
// over a unix socket, until it is told to quit through the control socket, or ctx is done, or a signal ends it. Mains call it
// for their hidden disk-server command and pass standard input; standard error is its log.
//
// Nothing of it is needed for the bytes to be right: a guest whose disk server is killed waits for the next one.
func ServeDisks(ctx context.Context, in io.Reader, open Opener) error {
	err := serveDisks(ctx, in, open)
	if err != nil && !errors.Is(err, ErrServing) {
		// For StartServer, which cannot tell errors apart by a log.
		b, merr := json.Marshal(verdict{Error: err.Error(), Corrupt: errors.Is(err, ErrCorrupt)})
		err = errors.Join(err, merr, os.WriteFile(serverVerdict, b, 0o600))
	}
	return err
}

// verdict is why a disk server ended.
type verdict struct {
	Error   string `json:"error"`
	Corrupt bool   `json:"corrupt"`
}

func serveDisks(ctx context.Context, in io.Reader, open Opener) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	// The key is in memory from here on: it must not end up in a core file or swap image that outlives us.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}

	var cfg ServerConfig
	dec := json.NewDecoder(io.LimitReader(in, 1<<20))
	if err := dec.Decode(&cfg); err != nil {
		return fmt.Errorf("read disk server configuration: %w", err)
	}
	lock, err := os.OpenFile(serverLock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open disk server lock: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock directory: %w", errors.Join(ErrServing, err))
	}

	s := &diskServer{log: log, quit: make(chan struct{})}
	disks, err := open(ctx, cfg.Source, log)
	if err != nil {
		return fmt.Errorf("open recovery point: %w", err)
	}
	defer func() { _ = disks.Close() }()
	s.disks = disks
	exports := map[string]nbd.Source{}
	for _, id := range cfg.Disks {
		src, err := disks.Disk(id)
		if err != nil {
			return fmt.Errorf("open disk %s: %w", id, err)
		}
		exports[id] = &patient{src: src, log: log, disk: id}
	}
	return s.serve(ctx, exports)
}

// diskServer is the state of a disk server process.
type diskServer struct {
	log   *slog.Logger
	disks Disks
	quit  chan struct{}
	once  sync.Once

	mu      sync.Mutex // guards the fields below
	errors  []string
	corrupt string
	failed  int64
}

func (s *diskServer) serve(ctx context.Context, exports map[string]nbd.Source) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	disks, err := listen(DiskSocket)
	if err != nil {
		return err
	}
	control, err := listen(controlSocket)
	if err != nil {
		disks.Close()
		return err
	}
	// Whoever started us waits for the control socket: from here on the disks can be attached.
	var wg sync.WaitGroup
	server := nbd.NewServer(exports, nbd.Options{Logger: s.log, OnError: s.onError})
	wg.Go(func() { cancel(server.Serve(ctx, disks)) })
	wg.Go(func() { cancel(s.control(ctx, control)) })
	s.log.Info("disk server started", "disks", len(exports))
	select {
	case <-s.quit:
		cancel(nil)
	case <-ctx.Done():
	}
	wg.Wait()
	requests, bytes := s.disks.Traffic()
	s.log.Info("disk server ended", "requests", requests, "bytes", bytes)
	_ = os.Remove(controlSocket)
	_ = os.Remove(DiskSocket)
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// listen makes a socket in the working directory, taking the place of one that a dead server left.
func listen(name string) (net.Listener, error) {
	tmp := name + ".new"
	_ = os.Remove(tmp)
	l, err := net.Listen("unix", tmp)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Rename(tmp, name); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	return l, nil
}

// maxErrors bounds the errors kept for Status: the first ones tell what is wrong.
const maxErrors = 64

func (s *diskServer) onError(export string, e block.Extent, err error) {
	re := &ReadError{Disk: export, Extent: e, Err: err}
	s.log.Error("disk read failed", "disk", export, "extent", e, "corrupt", errors.Is(err, ErrCorrupt), "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed++
	if s.corrupt == "" && errors.Is(err, ErrCorrupt) {
		s.corrupt = re.Error()
	}
	if len(s.errors) < maxErrors {
		s.errors = append(s.errors, re.Error())
	}
}

// control answers requests on the control socket.
func (s *diskServer) control(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept on control socket: %w", err)
		}
		wg.Go(func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			s.answer(conn)
		})
	}
}

func (s *diskServer) answer(conn net.Conn) {
	line, err := bufio.NewReader(io.LimitReader(conn, 4096)).ReadBytes('\n')
	if err != nil {
		return
	}
	var q struct {
		Command string `json:"command"`
	}
	if err := json.Unmarshal(line, &q); err != nil {
		return
	}
	switch q.Command {
	case "status":
		var st ServerStatus
		st.Requests, st.Bytes = s.disks.Traffic()
		s.mu.Lock()
		st.Errors, st.FailedReads, st.Corrupt = append(st.Errors, s.errors...), s.failed, s.corrupt
		s.mu.Unlock()
		_ = json.NewEncoder(conn).Encode(st)
	case "quit":
		_, _ = conn.Write([]byte("{}\n"))
		s.once.Do(func() { close(s.quit) })
	}
}

// patient asks again while the bucket cannot be reached: a guest that waits for its disk goes on when the bucket is back,
// one that got an I/O error has lost its filesystem. Corruption is passed on at once.
type patient struct {
	src  Source
	log  *slog.Logger
	disk string
}

// patience is how long a read is tried. Guests wait for a disk without end; this bounds what an operator waits for a verdict.
const patience = 2 * time.Minute

func (p *patient) Size() int64 { return p.src.Size() }

func (p *patient) ReadAt(ctx context.Context, b []byte, off int64) error {
	return p.try(ctx, off, func() error { return p.src.ReadAt(ctx, b, off) })
}

func (p *patient) Next(ctx context.Context, off int64) (e block.Extent, ok bool, err error) {
	err = p.try(ctx, off, func() (err error) {
		e, ok, err = p.src.Next(ctx, off)
		return err
	})
	return e, ok, err
}

func (p *patient) try(ctx context.Context, off int64, f func() error) error {
	err := f()
	if err == nil {
		return nil
	}
	deadline := time.Now().Add(patience)
	for wait := 100 * time.Millisecond; err != nil && !errors.Is(err, ErrCorrupt) && ctx.Err() == nil && time.Now().Before(deadline); wait = min(2*wait, 5*time.Second) {
		p.log.Warn("disk read will be tried again", "disk", p.disk, "offset", off, "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
		err = f()
	}
	return err
}

// path returns a path of a socket in dir that is short enough to connect to, and what to close afterwards. A socket address
// holds 107 bytes, a data directory may be longer.
func socketPath(dir, name string) (string, *os.File, error) {
	if full := filepath.Join(dir, name); len(full) < 100 {
		return full, nil, nil
	}
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name), f, nil
}
