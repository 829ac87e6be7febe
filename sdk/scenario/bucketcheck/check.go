package bucketcheck

import (
	"errors"
	"fmt"
)

// Report tells what a check of a vault found.
type Report struct {
	Logs  []Log
	Bytes int64 // bytes of disks that were authenticated and compared, all points
}

// Log returns the log of a machine; empty when the vault has none.
func (r Report) Log(machine string) Log {
	for _, l := range r.Logs {
		if l.Machine == machine {
			return l
		}
	}
	return Log{Machine: machine}
}

// Check reads everything that the vault's points need: logs, manifests, maps, frames. All faults are in the error, each
// one an ErrBroken.
func (v *Vault) Check() (Report, error) {
	var rep Report
	var errs []error
	machines, err := v.Machines()
	if err != nil {
		return rep, err
	}
	for _, m := range machines {
		log, err := v.ReadLog(m)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		rep.Logs = append(rep.Logs, log)
		for _, p := range log.Points() {
			for _, d := range p.Disks {
				n, err := v.WriteDisk(p, d.ID, discard{})
				rep.Bytes += n
				if err != nil {
					errs = append(errs, fmt.Errorf("machine %s, point %s: %w", m, p.Ref(), err))
				}
			}
		}
	}
	return rep, errors.Join(errs...)
}

// discard is an io.WriterAt that keeps nothing.
type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
