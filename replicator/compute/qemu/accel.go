package qemu

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	kvm = "kvm"
	tcg = "tcg"
)

// trialSector is a boot sector that enters 64-bit mode, takes an exception and says so. Its source is trial.asm.
//
//go:embed trial.bin
var trialSector []byte

const trialWord = "LB64"

// verdict is the cached outcome of the trial. It holds for one boot of the host and one QEMU.
type verdict struct {
	Accelerator string `json:"accelerator"`
	Boot        string `json:"boot"`
	QEMU        string `json:"qemu"`
	Reason      string `json:"reason"`
}

const verdictFile = ".accelerator.json"

// Accelerator tells what guests run on here: kvm where one really starts under it, else tcg, and why. That /dev/kvm exists
// proves nothing: a host that is itself a guest may offer it and hang an ordinary kernel that runs under it.
//
// The first call after a boot of the host tries, which takes a second where KVM works and up to 20 where it hangs; call it
// before a machine has to be started. Later calls, also of other processes, read the cached verdict.
func (d *Driver) Accelerator(ctx context.Context) (accelerator, reason string) {
	if d.cfg.Accelerator != "" {
		return d.cfg.Accelerator, "configured"
	}
	host := verdict{QEMU: d.cfg.QEMU}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		host.Boot = strings.TrimSpace(string(b))
	}
	if st, err := os.Stat(d.cfg.QEMU); err == nil {
		host.QEMU += "@" + st.ModTime().UTC().Format(time.RFC3339Nano)
	}
	path := filepath.Join(d.cfg.Dir, verdictFile)
	var cached verdict
	if readRecord(path, &cached) == nil && cached.Boot == host.Boot && cached.QEMU == host.QEMU && cached.Accelerator != "" {
		return cached.Accelerator, cached.Reason
	}
	host.Accelerator, host.Reason = kvm, "trial guests started"
	if err := d.tryKVM(ctx); err != nil {
		host.Accelerator, host.Reason = tcg, err.Error()
	}
	if ctx.Err() == nil { // else it was not a verdict
		if err := writeRecord(path, host); err != nil {
			d.log.Warn("accelerator verdict not kept", "err", err)
		}
		d.log.Info("accelerator chosen", "accelerator", host.Accelerator, "reason", host.Reason)
	}
	return host.Accelerator, host.Reason
}

// tryKVM returns why guests cannot run under KVM, or nil.
func (d *Driver) tryKVM(ctx context.Context) error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no KVM: %w", err)
	}
	_ = f.Close()
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return fmt.Errorf("no KVM: %w", err)
	}
	if !virtualises(string(info)) {
		return fmt.Errorf("no KVM: the processor shows no hardware virtualisation (vmx or svm)")
	}
	if err := d.trySector(ctx, kvm, 5*time.Second); err != nil {
		return fmt.Errorf("no KVM: %w", err)
	}
	// What a boot sector does is little beside a kernel. The host's own is at hand on most hosts.
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("no KVM: %w", err)
	}
	kernel := "/boot/vmlinuz-" + unix.ByteSliceToString(uts.Release[:])
	if k, err := os.Open(kernel); err == nil {
		_ = k.Close()
		if err := d.tryKernel(ctx, kvm, kernel, 15*time.Second); err != nil {
			return fmt.Errorf("no KVM: %w", err)
		}
	}
	return nil
}

// virtualises tells whether the processor has hardware virtualisation that this host may use.
func virtualises(cpuinfo string) bool {
	for line := range strings.Lines(cpuinfo) {
		if name, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			for _, f := range strings.Fields(flags) {
				if f == "vmx" || f == "svm" {
					return true
				}
			}
		}
	}
	return false
}

// trySector boots the trial sector.
func (d *Driver) trySector(ctx context.Context, accelerator string, timeout time.Duration) error {
	dir, err := os.MkdirTemp("", "lifeboat-trial-")
	if err != nil {
		return fmt.Errorf("trial guest: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	disk := make([]byte, 1<<20) // firmware boots from no disk that is shorter than a cylinder
	copy(disk, trialSector)
	if err := os.WriteFile(filepath.Join(dir, "disk"), disk, 0o600); err != nil {
		return fmt.Errorf("trial guest: %w", err)
	}
	return d.try(ctx, accelerator, dir, trialWord, timeout, "-blockdev", "driver=raw,node-name=d,file.driver=file,file.filename=disk", "-device", "virtio-blk-pci,drive=d,bootindex=0")
}

// tryKernel boots a Linux kernel up to its first message.
func (d *Driver) tryKernel(ctx context.Context, accelerator, kernel string, timeout time.Duration) error {
	dir, err := os.MkdirTemp("", "lifeboat-trial-")
	if err != nil {
		return fmt.Errorf("trial guest: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return d.try(ctx, accelerator, dir, "Linux version", timeout, "-kernel", kernel, "-append", "console=ttyS0 panic=-1", "-no-reboot")
}

// try runs a guest until it prints word on its serial console.
func (d *Driver) try(ctx context.Context, accelerator, dir, word string, timeout time.Duration, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// The trial guest may spin for ever, so it has to end with us. The kernel ties that to the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, d.cfg.QEMU, append(append([]string{"-no-user-config", "-nodefaults", "-machine", "q35", "-m", "256M", "-display", "none",
		"-serial", "file:serial"}, processor(accelerator)...), args...)...)
	cmd.Dir, cmd.Stderr = dir, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("trial guest: %w", err)
	}
	var end error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		end = cmd.Wait()
	}()
	for {
		b, err := os.ReadFile(filepath.Join(dir, "serial"))
		if err == nil && bytes.Contains(b, []byte(word)) {
			cancel()
			<-ended // it was killed: how it ended tells nothing
			return nil
		}
		select {
		case <-ended:
			if ctx.Err() != nil {
				return fmt.Errorf("a trial guest did not start within %v", timeout)
			}
			return fmt.Errorf("a trial guest ended: %w: %s", end, strings.TrimSpace(said.String()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// processor returns the arguments that choose accelerator and CPU.
func processor(accelerator string) []string {
	if accelerator == kvm {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	// max would bring five-level paging, which makes every TLB miss dearer in emulation.
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max,la57=off"}
}
