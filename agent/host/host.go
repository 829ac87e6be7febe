// Package host is the agent on a hypervisor: it finds the machines that run there under QEMU, tells lifeboatd of them and replicates
// those that it is asked to from outside, with nothing in their guests. It owns how a machine is found and named, and its power
// while it is protected; it never starts a machine that it did not shut down itself.
package host

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/lifeboat-dr/lifeboat/agent/guest"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

// Config of a Hypervisor. StateDir and Sockets are required.
type Config struct {
	StateDir string
	// Sockets are patterns, as of path.Match, of the monitor sockets of the machines. Each must be for this agent alone: QEMU serves
	// one connection at a time, so a machine under libvirt needs a second monitor.
	Sockets []string
	// Dir is for fleecing images. Empty: a directory in the state's.
	Dir string
	// Reserve is how many bytes stay free there. 0 means 1 GiB.
	Reserve int64
	Log     *slog.Logger
}

// Run runs the agent of a hypervisor until ctx ends, and then returns nil, or until the host was removed from its vault.
func Run(ctx context.Context, cfg guest.Config, h *Hypervisor) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	h.look(ctx) // so that the first report tells of them
	wg.Go(func() { h.run(ctx) })
	cfg.Hypervisor = h
	return guest.Run(ctx, cfg)
}

// Hypervisor is the QEMU processes of this host. Safe for concurrent use.
type Hypervisor struct {
	cfg Config
	log *slog.Logger

	mu    sync.Mutex        // guards found
	found map[string]member // by UUID
}

var _ guest.Hypervisor = (*Hypervisor)(nil)

// member is a machine as last seen.
type member struct {
	socket string
	info   fleet.HostedMachine
}

// New returns a hypervisor that was not looked at yet.
func New(cfg Config) (*Hypervisor, error) {
	if len(cfg.Sockets) == 0 {
		return nil, errors.New("the host role needs patterns of monitor sockets")
	}
	for _, p := range cfg.Sockets {
		if _, err := filepath.Match(p, ""); err != nil || !filepath.IsAbs(p) {
			return nil, fmt.Errorf("%q is no pattern of absolute paths", p)
		}
	}
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(cfg.StateDir, "fleecing")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Hypervisor{cfg: cfg, log: cfg.Log, found: map[string]member{}}, nil
}

// Machines implements guest.Hypervisor.
func (h *Hypervisor) Machines() []fleet.HostedMachine {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []fleet.HostedMachine{}
	for _, uuid := range sortedKeys(h.found) {
		out = append(out, h.found[uuid].info)
	}
	return out
}

// Machine implements guest.Hypervisor.
func (h *Hypervisor) Machine(uuid, dir string) (guest.Machine, error) {
	if !validUUID.MatchString(uuid) {
		return nil, fmt.Errorf("machine UUID %q", uuid)
	}
	owner, err := ownerOf(filepath.Join(dir, "owner"))
	if err != nil {
		return nil, err
	}
	return &machine{h: h, uuid: strings.ToLower(uuid), owner: owner, log: h.log.With("machine", uuid), stopped: filepath.Join(dir, "stopped")}, nil
}

var validUUID = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

// ownerOf returns the name under which a protection's bitmaps are kept. It is forgotten together with what the protection knows of
// its newest point, so that bitmaps never count from another one.
func ownerOf(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 8 {
		return string(b), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", err
	}
	owner := hex.EncodeToString(id[:])
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(path+".new", []byte(owner), 0o600); err != nil {
		return "", fmt.Errorf("remember the owner of bitmaps: %w", err)
	}
	return owner, os.Rename(path+".new", path)
}
