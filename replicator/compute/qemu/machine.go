package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/restore"
	"github.com/lifeboat-dr/lifeboat/replicator/restore/process"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

// Names in the directory of a machine.
const (
	processName   = "qemu"
	qmpSocket     = "qmp.sock"
	qemuLog       = "qemu.log"
	serialLog     = "serial.log"
	firmwareVars  = "firmware-vars.fd"
	networkDevice = "net"
)

// machine is a QEMU process and its working directory. It is all that an instance and a home machine share.
type machine struct{ dir string }

// boot is the record of one power-on. It is written before QEMU is started, so a machine that was killed in between counts
// as crashed, never as off.
type boot struct {
	Accelerator string        `json:"accelerator"`
	Address     string        `json:"address,omitempty"`
	Serial      int64         `json:"serial"` // where in the serial log this boot begins
	Up          bool          `json:"up"`     // the guest ran
	StartTook   time.Duration `json:"startTook"`
	ProbeTook   time.Duration `json:"probeTook"`
	ProbeHeld   time.Time     `json:"probeHeld"`
	ProbeLine   string        `json:"probeLine"`
	Requests    int64         `json:"requests"`
	Bytes       int64         `json:"bytes"`
}

func (b *boot) started(adopted bool) compute.Started {
	return compute.Started{
		Adopted: adopted, Accelerator: b.Accelerator, StartTook: b.StartTook, ProbeTook: b.ProbeTook, ProbeLine: b.ProbeLine,
		Address: b.Address, Requests: b.Requests, Bytes: b.Bytes,
	}
}

// drive is a disk as the guest sees it.
type drive struct {
	id    string
	nodes []map[string]any // block nodes, the lowest first; the last one is what the guest gets
	boot  bool
}

// power is what a QEMU process says.
type power int

const (
	off    power = iota // no process
	halted              // the guest has shut down; QEMU waits to be ended, its disks may hold unflushed data until then
	on
)

// power tells whether the machine runs. A QEMU that does not answer is on.
func (m machine) power(ctx context.Context) (power, error) {
	p, err := process.Find(m.dir, processName)
	if err != nil {
		return off, err
	}
	if !p.Running() {
		return off, nil
	}
	status, err := m.status(ctx)
	switch {
	case err == nil && status == "shutdown":
		return halted, nil
	case err == nil:
		return on, nil
	case !p.Running():
		return off, nil
	case ctx.Err() != nil:
		return on, err
	}
	return on, nil
}

// status is QEMU's own word for what the guest does.
func (m machine) status(ctx context.Context) (string, error) {
	var st struct{ Status string }
	err := ask(ctx, m.dir, qmpSocket, "query-status", nil, &st)
	return st.Status, err
}

// statusIOError is the status of a guest that QEMU has paused because a write to its overlay or image failed: the host's disk
// is full. The guest has seen nothing of it and goes on where it was once there is room.
const statusIOError = "io-error"

// resume lets a guest go on that was paused by a full disk.
func (m machine) resume(ctx context.Context) error {
	status, err := m.status(ctx)
	if err != nil || status != statusIOError {
		return err
	}
	return ask(ctx, m.dir, qmpSocket, "cont", nil, nil)
}

// launch starts QEMU and returns when the guest runs. b tells where the console of this boot begins; launch fills in the rest.
// When it fails, no QEMU is left.
func (d *Driver) launch(ctx context.Context, m machine, hw job.Hardware, drives []drive, b *boot) (err error) {
	args, err := d.arguments(m, hw, drives, b)
	if err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(m.dir, qmpSocket)) // of an earlier boot: its presence must mean that this one listens
	child, err := process.Start(process.Command{
		Name: processName, Path: d.cfg.QEMU, Args: args, Dir: m.dir, Log: qemuLog,
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + m.dir, "TMPDIR=" + m.dir, "LC_ALL=C"},
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.kill(context.WithoutCancel(ctx)))
		}
	}()
	for {
		var st struct{ Running bool }
		if err := ask(ctx, m.dir, qmpSocket, "query-status", nil, &st); err == nil {
			b.Up = true
			return nil
		} else if !errors.Is(err, errNoMonitor) {
			return err
		}
		select {
		case <-child.Done():
			return fmt.Errorf("qemu ended: %s", process.LogTail(filepath.Join(m.dir, qemuLog), 2048))
		case <-ctx.Done():
			return fmt.Errorf("wait for qemu: %w", context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// arguments builds QEMU's command line. It holds no secrets.
func (d *Driver) arguments(m machine, hw job.Hardware, drives []drive, b *boot) ([]string, error) {
	memory := (max(hw.MemoryBytes, 128<<20) + 1<<20 - 1) >> 20
	if err := memoryFor(memory << 20); err != nil {
		return nil, err
	}
	args := []string{
		"-name", "guest=" + strings.ReplaceAll(hw.Name, ",", ",,"),
		"-no-user-config", "-nodefaults",
		"-machine", "q35",
		"-smp", fmt.Sprint(max(hw.CPUs, 1)), "-m", fmt.Sprintf("%dM", memory),
		"-rtc", "base=utc", "-display", "none", "-vga", "std",
		"-msg", "timestamp=on",
		// The process stays when the guest has shut down, so that this can be told from a crash.
		"-no-shutdown",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-chardev", "socket,id=qmp,path=" + qmpSocket + ",server=on,wait=off", "-mon", "chardev=qmp,mode=control",
		"-chardev", "file,id=serial,path=" + serialLog + ",append=on", "-serial", "chardev:serial",
		"-device", "virtio-rng-pci",
	}
	args = append(args, processor(b.Accelerator)...)
	if hw.UUID != "" {
		args = append(args, "-uuid", hw.UUID)
	}
	firmware, err := d.firmware(m, hw.Firmware)
	if err != nil {
		return nil, err
	}
	args = append(args, firmware...)
	network, err := d.network(hw, b)
	if err != nil {
		return nil, err
	}
	args = append(args, network...)
	for i, dr := range drives {
		for _, node := range dr.nodes {
			j, err := json.Marshal(node)
			if err != nil {
				return nil, fmt.Errorf("encode block node: %w", err)
			}
			args = append(args, "-blockdev", string(j))
		}
		device := map[string]any{
			"driver": "virtio-blk-pci", "id": fmt.Sprintf("drive-%d", i), "drive": dr.nodes[len(dr.nodes)-1]["node-name"],
			"serial": diskSerial(dr.id), "werror": "stop", "rerror": "report",
		}
		if dr.boot {
			device["bootindex"] = 0
		}
		j, err := json.Marshal(device)
		if err != nil {
			return nil, fmt.Errorf("encode disk device: %w", err)
		}
		args = append(args, "-device", string(j))
	}
	return args, nil
}

// diskSerial is the serial number under which the guest sees a disk: what virtio can carry of its id.
func diskSerial(id string) string { return id[:min(len(id), 20)] }

// network gives the guest its adapters. An isolated one reaches nothing: QEMU's own user-mode network, with nothing behind it.
func (d *Driver) network(hw job.Hardware, b *boot) ([]string, error) {
	if hw.Network == job.NetworkNone || hw.Network == "" {
		return nil, nil
	}
	macs := hw.MACs
	if len(macs) == 0 {
		macs = []string{""}
	}
	var args []string
	for i, mac := range macs {
		netdev := fmt.Sprintf("user,id=%s%d", networkDevice, i)
		switch hw.Network {
		case job.NetworkIsolated:
			netdev += ",restrict=on"
		case job.NetworkProduction:
			if i == 0 && d.cfg.ForwardPort != 0 {
				port, err := freePort()
				if err != nil {
					return nil, err
				}
				b.Address = fmt.Sprintf("127.0.0.1:%d", port)
				netdev += fmt.Sprintf(",hostfwd=tcp:%s-:%d", b.Address, d.cfg.ForwardPort)
			}
		default:
			return nil, fmt.Errorf("%w: network %q", compute.ErrUnsupported, hw.Network)
		}
		device := fmt.Sprintf("virtio-net-pci,netdev=%s%d,romfile=", networkDevice, i)
		if mac != "" {
			hw, err := net.ParseMAC(mac)
			if err != nil {
				return nil, fmt.Errorf("network adapter %d: %w", i, err)
			}
			device += ",mac=" + hw.String()
		}
		args = append(args, "-netdev", netdev, "-device", device)
	}
	return args, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// ovmf lists where distributions put the UEFI firmware, code and template of its variables.
var ovmf = [][2]string{
	{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
	{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
	{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
	{"/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd"},
}

// firmware returns the arguments for BIOS or UEFI. A machine keeps its UEFI variables in its directory.
func (d *Driver) firmware(m machine, kind string) ([]string, error) {
	switch strings.ToLower(kind) {
	case "", "bios":
		return nil, nil
	case "uefi", "efi":
	default:
		return nil, fmt.Errorf("%w: firmware %q", compute.ErrUnsupported, kind)
	}
	for _, f := range ovmf {
		if _, err := os.Stat(f[0]); err != nil {
			continue
		}
		vars := filepath.Join(m.dir, firmwareVars)
		if _, err := os.Stat(vars); errors.Is(err, os.ErrNotExist) {
			template, err := os.ReadFile(f[1])
			if err != nil {
				return nil, fmt.Errorf("read firmware variables: %w", err)
			}
			if err := os.WriteFile(vars+".tmp", template, 0o600); err != nil {
				return nil, fmt.Errorf("write firmware variables: %w", err)
			}
			if err := os.Rename(vars+".tmp", vars); err != nil {
				return nil, fmt.Errorf("write firmware variables: %w", err)
			}
		}
		return []string{
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + f[0],
			"-drive", "if=pflash,unit=1,format=raw,file=" + firmwareVars,
		}, nil
	}
	return nil, fmt.Errorf("%w: the machine has UEFI firmware and none is installed; install the package ovmf", compute.ErrUnsupported)
}

// shutdown asks the guest to power off and ends QEMU when it has. ErrRunning when the guest is up after timeout and force is
// not given. clean tells whether the guest itself shut down.
func (m machine) shutdown(ctx context.Context, timeout time.Duration, force bool) (clean bool, err error) {
	deadline := time.Now().Add(timeout)
	for asked := (time.Time{}); ; {
		p, err := m.power(ctx)
		if err != nil {
			return false, err
		}
		switch p {
		case off:
			return false, nil
		case halted:
			return true, m.quit(ctx)
		case on:
		}
		if time.Now().After(deadline) {
			break
		}
		// A guest that is still booting does not hear the button: press it again now and then.
		if time.Since(asked) > 3*time.Second {
			if err := ask(ctx, m.dir, qmpSocket, "system_powerdown", nil, nil); err != nil && !errors.Is(err, errNoMonitor) {
				return false, err
			}
			asked = time.Now()
		}
		select {
		case <-time.After(25 * time.Millisecond):
		case <-ctx.Done():
			return false, fmt.Errorf("wait for the guest to shut down: %w", context.Cause(ctx))
		}
	}
	if !force {
		return false, fmt.Errorf("%w: the guest did not shut down within %v", compute.ErrRunning, timeout)
	}
	return false, m.quit(ctx)
}

// quit ends QEMU with its disks flushed, and kills it when it does not end: then what the guest had flushed is on disk, as
// after a power cut.
func (m machine) quit(ctx context.Context) error {
	p, err := process.Find(m.dir, processName)
	if err != nil {
		return err
	}
	_ = ask(ctx, m.dir, qmpSocket, "quit", nil, nil) // it may end before it answers
	grace, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := p.Wait(grace); err != nil && ctx.Err() != nil {
		return err
	}
	return m.kill(ctx)
}

// kill makes sure that no QEMU of this machine is left, at once.
func (m machine) kill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, process.StopDeadline)
	defer cancel()
	p, err := process.Find(m.dir, processName)
	if err != nil {
		return err
	}
	if err := p.Kill(ctx); err != nil {
		return fmt.Errorf("end qemu: %w", err)
	}
	_ = os.Remove(filepath.Join(m.dir, qmpSocket))
	return process.Forget(m.dir, processName)
}

// awaitProbe waits until the probe holds for this boot. watch is called now and then and may end the wait.
func (m machine) awaitProbe(ctx context.Context, name string, b *boot, probe job.Probe, watch func(context.Context) error) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, probe.Timeout, errProbeTimeout)
	defer cancel()
	f, err := os.Open(filepath.Join(m.dir, serialLog))
	if err != nil {
		return fmt.Errorf("open serial log: %w", err)
	}
	defer func() { _ = f.Close() }()
	fail := func(reason string) error {
		return &compute.ProbeError{Instance: name, Probe: probe, Waited: time.Since(begin), Reason: reason, Console: m.consoleTail(b, 1500)}
	}
	var line []byte // what was printed and not yet judged
	pos := b.Serial
	buf := make([]byte, 16<<10)
	for looked := time.Now(); ; {
		n, _ := f.ReadAt(buf, pos)
		pos += int64(n)
		if line = append(line, buf[:n]...); len(line) > 1<<20 {
			line = line[len(line)-64<<10:] // a guest that prints no line ends
		}
		if found, ok := compute.ProbeLine(line, probe); ok {
			b.ProbeLine, b.ProbeHeld, b.ProbeTook = found, time.Now().UTC(), time.Since(begin)
			return nil
		}
		line = line[lastLine(line):]
		if n == len(buf) {
			continue
		}
		if time.Since(looked) > 200*time.Millisecond {
			looked = time.Now()
			if err := watch(ctx); err != nil {
				return err
			}
			p, err := m.power(ctx)
			switch {
			case err != nil && ctx.Err() == nil:
				return err
			case err == nil && p != on && n == 0:
				return fail(map[power]string{off: "the hypervisor ended", halted: "the machine powered itself off"}[p])
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errProbeTimeout) {
				return fail("the machine still runs")
			}
			return fmt.Errorf("wait for machine %s to come up: %w", name, context.Cause(ctx))
		}
	}
}

var errProbeTimeout = errors.New("probe timeout")

// lastLine returns where the unfinished last line begins.
func lastLine(b []byte) int {
	for i := len(b); i > 0; i-- {
		if b[i-1] == '\n' {
			return i
		}
	}
	return 0
}

func (m machine) consoleTail(b *boot, n int) string {
	return compute.ConsoleTail([]byte(process.LogTail(filepath.Join(m.dir, serialLog), min(int64(4*n), max(m.serialSize()-b.Serial, 0)))), n)
}

// serialSize returns the length of the serial log, 0 when there is none yet.
func (m machine) serialSize() int64 {
	st, err := os.Stat(filepath.Join(m.dir, serialLog))
	if err != nil {
		return 0
	}
	return st.Size()
}

// corruption returns an error that is restore.ErrCorrupt when the machine's disk server met bytes that do not verify.
func (m machine) corruption(ctx context.Context) error {
	st, err := restore.Status(ctx, m.dir)
	if err != nil || st.Corrupt == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", restore.ErrCorrupt, st.Corrupt)
}
