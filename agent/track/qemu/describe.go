package qemu

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Info is a machine as its QEMU tells.
type Info struct {
	Name        string
	UUID        string // SMBIOS, in lower case; all zeros when none was given
	Status      string // QEMU's word: running, paused, shutdown and others
	CPUs        int
	MemoryBytes int64
	UEFI        bool
	Disks       []Disk // that can be written to: the one booted from first
	MACs        []string
}

// On tells whether the guest runs, or would if it were not paused.
func (i Info) On() bool {
	return i.Status != StatusShutdown && i.Status != "prelaunch" && i.Status != "preconfig"
}

// Migrating tells whether the machine is on its way to or from another host: its disks are not, or not any more, in this QEMU's hands.
func (i Info) Migrating() bool {
	return i.Status == "inmigrate" || i.Status == "finish-migrate" || i.Status == "postmigrate"
}

// StatusShutdown is the status of a guest that has shut down while its QEMU lives on.
const StatusShutdown = "shutdown"

// Disk is a disk of a machine.
type Disk struct {
	ID   string // its serial number, or else what stays over restarts
	Size int64
	Node string // the block node below its device, or below what a job of somebody put in between
	path string // of its device
	boot int64
}

type blockDevice struct {
	Device    string
	QDev      string
	Removable bool
	Inserted  *struct {
		Node  string `json:"node-name"`
		RO    bool
		Image struct {
			Size int64 `json:"virtual-size"`
		}
	}
}

// Describe asks a machine's QEMU about it.
func Describe(ctx context.Context, m *Monitor) (Info, error) {
	var in Info
	var uuid struct{ UUID string }
	var name struct{ Name string }
	var status struct{ Status string }
	var memory struct {
		Base    int64 `json:"base-memory"`
		Plugged int64 `json:"plugged-memory"`
	}
	var cpus []struct{}
	for _, q := range []struct {
		command string
		result  any
	}{{"query-uuid", &uuid}, {"query-name", &name}, {"query-status", &status}, {"query-memory-size-summary", &memory}, {"query-cpus-fast", &cpus}} {
		if err := m.Do(ctx, q.command, nil, q.result); err != nil {
			return in, err
		}
	}
	in.Name, in.UUID, in.Status = name.Name, strings.ToLower(uuid.UUID), status.Status
	in.CPUs, in.MemoryBytes = len(cpus), memory.Base+memory.Plugged
	var err error
	if in.MACs, err = macs(ctx, m); err != nil {
		return in, err
	}
	in.Disks, in.UEFI, err = disks(ctx, m)
	return in, err
}

// macs returns the addresses of the network cards that tell theirs.
func macs(ctx context.Context, m *Monitor) (out []string, err error) {
	var filters []struct {
		MAC string `json:"main-mac"`
	}
	if err := m.Do(ctx, "query-rx-filter", nil, &filters); err != nil {
		if _, ok := errors.AsType[*RefusedError](err); ok { // no card that tells
			return nil, nil
		}
		return nil, err
	}
	for _, f := range filters {
		out = append(out, f.MAC)
	}
	return out, nil
}

// disks returns what the machine may write to, and whether there is flash memory with UEFI firmware in it.
func disks(ctx context.Context, m *Monitor) (out []Disk, uefi bool, err error) {
	var devices []blockDevice
	if err := m.Do(ctx, "query-block", nil, &devices); err != nil {
		return nil, false, err
	}
	for _, d := range devices {
		if strings.HasPrefix(d.Device, "pflash") || strings.Contains(d.QDev, "flash") {
			uefi = true
			continue
		}
		if d.Removable || d.Inserted == nil || d.Inserted.RO || d.Inserted.Image.Size == 0 || d.QDev == "" {
			continue
		}
		k := Disk{Node: d.Inserted.Node, Size: d.Inserted.Image.Size, path: d.QDev}
		var serial string
		if err := property(ctx, m, d.QDev, "serial", &serial); err != nil {
			return nil, false, err
		}
		k.boot = -1
		if err := property(ctx, m, d.QDev, "bootindex", &k.boot); err != nil {
			return nil, false, err
		}
		for _, name := range []string{serial, d.Device, deviceID(d.QDev), d.Inserted.Node} {
			if k.ID = fit(name); k.ID != "" {
				break
			}
		}
		out = append(out, k)
	}
	slices.SortStableFunc(out, func(a, b Disk) int {
		if (a.boot >= 0) != (b.boot >= 0) {
			return cmp.Compare(b.boot, a.boot)
		}
		return cmp.Or(cmp.Compare(a.boot, b.boot), natural(a.path, b.path))
	})
	seen := map[string]int{}
	for _, d := range out {
		seen[d.ID]++
	}
	for i := range out { // a serial number shared by two disks, or no name at all, names neither
		if out[i].ID == "" || seen[out[i].ID] > 1 {
			out[i].ID = fmt.Sprintf("disk-%d", i)
		}
	}
	return out, uefi, nil
}

// property reads a property of a device; one that it does not have leaves result as it is.
func property(ctx context.Context, m *Monitor, device, name string, result any) error {
	err := m.Do(ctx, "qom-get", map[string]string{"path": device, "property": name}, result)
	if _, ok := errors.AsType[*RefusedError](err); ok {
		return nil
	}
	return err
}

// deviceID returns the id that a device was given on the command line, from its path.
func deviceID(qdev string) string {
	if rest, ok := strings.CutPrefix(qdev, "/machine/peripheral/"); ok {
		id, _, _ := strings.Cut(rest, "/")
		return id
	}
	if !strings.HasPrefix(qdev, "/") {
		return path.Base(qdev)
	}
	return ""
}

var number = regexp.MustCompile(`\d+|\D+`)

// natural compares names so that device 10 comes after device 9.
func natural(a, b string) int {
	x, y := number.FindAllString(a, -1), number.FindAllString(b, -1)
	return slices.CompareFunc(x, y, func(p, q string) int {
		m, merr := strconv.ParseInt(p, 10, 64)
		n, nerr := strconv.ParseInt(q, 10, 64)
		if merr == nil && nerr == nil {
			return cmp.Compare(m, n)
		}
		return cmp.Compare(p, q)
	})
}

// maxID is the length of a virtual disk's serial number: a replica's disks carry the ids as theirs.
const maxID = 20

var unfit = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)

// fit makes an id of what QEMU calls a disk: as it is if it may be, else cleaned, else its hash. Names that QEMU made up give none.
func fit(s string) string {
	if strings.HasPrefix(s, "#") {
		return ""
	}
	s = strings.Trim(unfit.ReplaceAllString(s, "_"), "_.-")
	if len(s) <= maxID {
		return s
	}
	h := sha256.Sum256([]byte(s))
	return "d" + hex.EncodeToString(h[:8])
}
