package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// MachineSpec describes a production machine under QEMU, in a datastore folder as replicator/compute reads it: one folder a
// machine, with vm.json and the disk images.
type MachineSpec struct {
	Name        string // the folder's name
	Datastore   string // the directory of all machines
	UUID        string // SMBIOS system UUID, lower case
	MemoryBytes int64  // default 384 MiB
	MAC         string
	Disks       []MachineDisk // at least one; the first boots
}

// MachineDisk is a raw image in the machine's folder.
type MachineDisk struct {
	ID   string `json:"id"`   // the disk's serial number, which is the id an agent inside reports
	Path string `json:"path"` // relative to the folder
}

// Machine is a production machine. Safe for concurrent use.
type Machine struct {
	Spec    MachineSpec
	Dir     string
	Console *Console // what the first serial port printed, over all lives
	process *Process
}

// CPU is the processor of emulated machines: without AES and AVX, whose emulation is slow, Go programs inside pick ChaCha20 and
// plain code and are twice as fast; rdrand gives the kernel its entropy at once (measured 2025-11, see the commit of the guest).
const CPU = "qemu64,+rdrand,+ssse3,+sse4.1,+sse4.2,+popcnt"

// AddMachine writes the machine's vm.json. The images must be in Dir before it is started.
func (r *Rig) AddMachine(spec MachineSpec) (*Machine, error) {
	if spec.MemoryBytes == 0 {
		spec.MemoryBytes = 384 << 20
	}
	if spec.MAC == "" {
		spec.MAC = "52:54:00:12:34:56"
	}
	dir := filepath.Join(spec.Datastore, spec.Name)
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o755); err != nil {
		return nil, err
	}
	vm, err := json.MarshalIndent(map[string]any{
		"name": spec.Name, "uuid": spec.UUID, "cpus": 1, "memoryBytes": spec.MemoryBytes, "firmware": "bios",
		"disks": spec.Disks, "macs": []string{spec.MAC},
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "vm.json"), append(vm, '\n'), 0o644); err != nil {
		return nil, err
	}
	return &Machine{Spec: spec, Dir: dir}, nil
}

// The files of a running machine are where Lifeboat's own driver has them, so that one console and one monitor serve all lives
// of the machine, whoever started it.
func (m *Machine) serial() string  { return filepath.Join(m.Dir, "run", "serial.log") }
func (m *Machine) monitor() string { return filepath.Join(m.Dir, "run", "qmp.sock") }

// Power starts the machine. Its second serial port carries what services inside it log, to agent.log in its folder.
func (r *Rig) Power(m *Machine) error {
	if m.process != nil {
		return m.process.Restart()
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return fmt.Errorf("apt-get install -y --no-install-recommends qemu-system-x86: %w", err)
	}
	m.Console = Follow(m.serial())
	args := []string{
		"-name", m.Spec.Name, "-accel", "tcg", "-machine", "q35", "-cpu", CPU, "-smp", "1", "-m", strconv.FormatInt(m.Spec.MemoryBytes>>20, 10),
		"-uuid", m.Spec.UUID, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-vga", "std",
		"-chardev", "file,id=s0,append=on,path=" + m.serial(), "-serial", "chardev:s0",
		"-chardev", "file,id=s1,append=on,path=" + filepath.Join(m.Dir, "agent.log"), "-serial", "chardev:s1",
		"-qmp", "unix:" + m.monitor() + ",server=on,wait=off",
		"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile=,mac=" + m.Spec.MAC,
	}
	for i, d := range m.Spec.Disks {
		id := fmt.Sprintf("d%d", i)
		args = append(args, "-drive", fmt.Sprintf("file=%s,format=raw,if=none,id=%s,discard=unmap", filepath.Join(m.Dir, d.Path), id),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s,bootindex=%d", id, d.ID, i))
	}
	m.process, err = r.Start("vm-"+m.Spec.Name, qemu, args, nil)
	return err
}

// Process returns the machine's QEMU; nil before the first Power.
func (m *Machine) Process() *Process { return m.process }

// PowerDown presses the power button and waits until the machine is off.
func (m *Machine) PowerDown(ctx context.Context) error {
	if err := m.command(ctx, "system_powerdown", nil); err != nil {
		return err
	}
	select {
	case <-m.process.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait until %s is off: %w", m.Spec.Name, context.Cause(ctx))
	}
}

// SwitchOff shuts the machine down, whoever started it: Lifeboat's QEMU stays when the guest is off, for its own reasons, and
// is ended here.
func (m *Machine) SwitchOff(ctx context.Context) error {
	if m.process != nil && m.process.Running() {
		return m.PowerDown(ctx)
	}
	if err := m.command(ctx, "system_powerdown", nil); err != nil {
		return err
	}
	if err := Until(ctx, m.Spec.Name+" is off", func() (bool, error) {
		var st struct{ Status string }
		err := m.query(ctx, "query-status", nil, &st)
		return st.Status == "shutdown", err
	}); err != nil {
		return err
	}
	return m.command(ctx, "quit", nil)
}

// Cut ends the machine as a power failure would.
func (m *Machine) Cut() error { return m.process.Kill() }

// Screenshot writes a PNG of the machine's screen to path.
func (m *Machine) Screenshot(ctx context.Context, path string) error {
	return m.command(ctx, "screendump", map[string]any{"filename": path, "format": "png"})
}

func (m *Machine) command(ctx context.Context, name string, arguments map[string]any) error {
	return m.query(ctx, name, arguments, nil)
}

// query runs one QMP command and decodes its answer into out, unless nil.
func (m *Machine) query(ctx context.Context, name string, arguments map[string]any, out any) (err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", m.monitor())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	deadline := time.Now().Add(10 * time.Second)
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	answers := bufio.NewScanner(conn)
	if !answers.Scan() { // the greeting
		return fmt.Errorf("QMP of %s: %w", m.Spec.Name, answers.Err())
	}
	type request struct {
		Execute   string         `json:"execute"`
		Arguments map[string]any `json:"arguments,omitempty"`
	}
	for _, req := range []request{{Execute: "qmp_capabilities"}, {name, arguments}} {
		if err := json.NewEncoder(conn).Encode(req); err != nil {
			return err
		}
		for {
			if !answers.Scan() {
				return fmt.Errorf("QMP %s of %s got no answer: %w", req.Execute, m.Spec.Name, answers.Err())
			}
			var answer struct {
				Return json.RawMessage `json:"return"`
				Error  *struct {
					Desc string `json:"desc"`
				} `json:"error"`
			}
			if err := json.Unmarshal(answers.Bytes(), &answer); err != nil {
				return err
			}
			if answer.Error != nil {
				return fmt.Errorf("QMP %s of %s: %s", req.Execute, m.Spec.Name, answer.Error.Desc)
			}
			if answer.Return != nil {
				if out != nil && req.Execute == name {
					return json.Unmarshal(answer.Return, out)
				}
				break
			}
		}
	}
	return nil
}
