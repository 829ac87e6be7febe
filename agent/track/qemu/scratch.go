package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fdset is files that QEMU was lent.
type fdset struct {
	ID    int64                     `json:"fdset-id"`
	Files []struct{ Opaque string } `json:"fds"`
}

// scratch makes the image that keeps what the guest overwrites on disk i. QEMU is lent the open file, so that it needs no leave to
// open one here. It is lent once and written anew for each view: QEMU gives back what it was lent only while its guest runs.
func (m *Machine) scratch(ctx context.Context, mon *Monitor, i int, d Disk) error {
	path := m.path(scratchName(i) + ".qcow2")
	out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size="+strconv.Itoa(granularity), path, strconv.FormatInt(d.Size, 10)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a fleecing image: %w: %s", err, out)
	}
	set, err := lendFile(ctx, mon, scratchName(i), path)
	if err != nil {
		return fmt.Errorf("lend a fleecing image to qemu: %w", err)
	}
	return mon.Do(ctx, "blockdev-add", map[string]any{
		"driver": "qcow2", "node-name": scratchName(i), "backing": d.Node, "discard": "unmap",
		"file": map[string]any{"driver": "file", "filename": "/dev/fdset/" + strconv.FormatInt(set, 10), "locking": "off"},
	}, nil)
}

// lendFile returns the set in which QEMU has the file, lending it if need be. What was lent under the name before is taken back.
func lendFile(ctx context.Context, mon *Monitor, name, path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	is := fmt.Sprintf("%s:%d:%d", name, st.Dev, st.Ino)
	var sets []fdset
	if err := mon.Do(ctx, "query-fdsets", nil, &sets); err != nil {
		return 0, err
	}
	for _, s := range sets {
		if len(s.Files) == 1 && s.Files[0].Opaque == is {
			return s.ID, nil
		}
	}
	if err := takeBack(ctx, mon, name+":"); err != nil {
		return 0, err
	}
	return mon.lend(ctx, is, f)
}

// takeBack removes the files that QEMU was lent under names that begin so.
func takeBack(ctx context.Context, mon *Monitor, begin string) error {
	var sets []fdset
	if err := mon.Do(ctx, "query-fdsets", nil, &sets); err != nil {
		return err
	}
	for _, s := range sets {
		if len(s.Files) == 0 || !strings.HasPrefix(s.Files[0].Opaque, begin) {
			continue
		}
		err := mon.Do(ctx, "remove-fd", map[string]int64{"fdset-id": s.ID}, nil)
		if _, refused := errors.AsType[*RefusedError](err); err != nil && !refused { // it may have gone by itself
			return err
		}
	}
	return nil
}

// emptyScratch frees what fleecing images take, between views.
func (m *Machine) emptyScratch() error {
	left, err := filepath.Glob(m.path(prefix + "scratch-*.qcow2"))
	for _, path := range left {
		if terr := os.Truncate(path, 0); !errors.Is(terr, os.ErrNotExist) {
			err = errors.Join(err, terr)
		}
	}
	return err
}

// removeScratch removes them, when there will be no view any more.
func (m *Machine) removeScratch(ctx context.Context, mon *Monitor) error {
	err := takeBack(ctx, mon, prefix)
	left, gerr := filepath.Glob(m.path(prefix + "scratch-*.qcow2"))
	err = errors.Join(err, gerr)
	for _, path := range left {
		if rerr := os.Remove(path); !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}
