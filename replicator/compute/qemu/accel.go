package qemu

import (
	"context"
	"os"
	"strings"
)

const (
	kvm = "kvm"
	tcg = "tcg"
)

// accelerator finds out what guests run on here. That /dev/kvm exists proves nothing: a host that is itself a guest may offer
// it and not be able to run an ordinary kernel under it.
func (d *Driver) accelerator(ctx context.Context) string {
	if d.cfg.Accelerator != "" {
		return d.cfg.Accelerator
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return tcg
	}
	f.Close()
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !virtualises(string(info)) {
		return tcg
	}
	return kvm
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
