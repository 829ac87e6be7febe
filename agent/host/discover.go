package host

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/track/qemu"
	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
)

const (
	lookEvery = 10 * time.Second
	// lookLimit bounds a look at one machine. A monitor that serves somebody else, such as a replication of ours, does not greet;
	// the machine is then as it was seen before.
	lookLimit = time.Second
	noUUID    = "00000000-0000-0000-0000-000000000000"
	maxFound  = 10_000
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (h *Hypervisor) run(ctx context.Context) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			h.look(ctx)
		}
	}
}

// look finds the machines of this host anew. One whose monitor does not answer stays as it was seen, as long as its socket is there.
func (h *Hypervisor) look(ctx context.Context) {
	h.mu.Lock()
	before := map[string]member{} // by socket
	for _, m := range h.found {
		before[m.socket] = m
	}
	h.mu.Unlock()
	now := map[string]member{}
	twice := map[string]bool{}
	for _, socket := range h.sockets() {
		m, ok := before[socket]
		if info, err := lookAt(ctx, socket); err == nil {
			m, ok = member{socket, info}, true
		} else {
			ok = ok && alive(socket)
		}
		if ctx.Err() != nil {
			return
		}
		if !ok || len(now) == maxFound {
			continue
		}
		uuid := m.info.Machine.ProductUuid
		if uuid == noUUID {
			h.once(before, m, "a machine without a UUID cannot be protected: nothing would tell it from its replica")
			continue
		}
		if _, ok := now[uuid]; ok || twice[uuid] {
			h.once(before, m, "machines with one UUID cannot be protected: nothing tells them apart")
			delete(now, uuid)
			twice[uuid] = true
			continue
		}
		now[uuid] = m
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.found = now
}

// once warns of a machine when it was not seen before.
func (h *Hypervisor) once(before map[string]member, m member, text string) {
	if _, ok := before[m.socket]; !ok {
		h.log.Debug(text, "socket", m.socket, "name", m.info.Machine.Hostname)
	}
}

func (h *Hypervisor) sockets() (out []string) {
	for _, pattern := range h.cfg.Sockets {
		paths, _ := filepath.Glob(pattern) // the pattern was checked
		for _, p := range paths {
			if st, err := os.Stat(p); err == nil && st.Mode()&os.ModeSocket != 0 {
				out = append(out, p)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// alive tells whether somebody listens at a socket. One that others wait for is.
func alive(socket string) bool {
	c, err := net.DialTimeout("unix", socket, lookLimit)
	if err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	return c.Close() == nil
}

// lookAt asks the machine at a socket about itself.
func lookAt(ctx context.Context, socket string) (fleet.HostedMachine, error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	mon, err := qemu.Dial(ctx, socket)
	if err != nil {
		return fleet.HostedMachine{}, err
	}
	defer func() { _ = mon.Close() }()
	in, err := qemu.Describe(ctx, mon)
	if err != nil {
		return fleet.HostedMachine{}, err
	}
	if in.Migrating() {
		return fleet.HostedMachine{}, errors.New("machine is being moved")
	}
	return fleet.HostedMachine{Machine: describe(in, socket), Running: in.On()}, nil
}

// describe tells what can be seen of a machine from outside.
func describe(in qemu.Info, socket string) fleet.Machine {
	m := fleet.Machine{Hostname: in.Name, ProductUuid: in.UUID, Platform: fleet.Vm, Manufacturer: "QEMU", CpuCount: in.CPUs, MemoryBytes: in.MemoryBytes,
		Firmware: fleet.Bios, Disks: []fleet.Disk{}}
	if m.Hostname == "" {
		m.Hostname = strings.TrimSuffix(filepath.Base(socket), filepath.Ext(socket))
	}
	if in.UEFI {
		m.Firmware = fleet.Uefi
	}
	for _, mac := range in.MACs {
		m.Nics = append(m.Nics, fleet.Nic{Name: mac, Mac: mac})
	}
	for i, d := range in.Disks {
		m.Disks = append(m.Disks, fleet.Disk{Id: d.ID, Path: d.Node, SizeBytes: d.Size, SectorSize: 512, IsOsDisk: i == 0})
	}
	return m
}
