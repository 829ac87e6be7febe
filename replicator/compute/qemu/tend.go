package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
)

// Revive makes sure that the lazily served disks of an instance that is on are served, and never touches its power: the guest
// of a disk server that died waits, and goes on when the next one answers. Nothing happens to an instance that is off or
// stands alone.
func (d *Driver) Revive(ctx context.Context, id string, server json.RawMessage) error {
	i, r, l, err := d.open(ctx, id)
	if err != nil {
		return err
	}
	defer l.unlock()
	p, err := i.power(ctx)
	if err != nil {
		return err
	}
	if p != on || r.standsAlone() {
		return nil
	}
	if err := d.serveDisks(ctx, i, r, server); err != nil {
		return fmt.Errorf("serve disks of instance %s: %w", id, err)
	}
	return nil
}

// Homes lists the home machines of all datastores, by name and UUID. Machines whose description cannot be read are left out
// and told in the error.
func (d *Driver) Homes(ctx context.Context) ([]compute.HomeMachine, error) {
	names := make([]string, 0, len(d.cfg.Datastores))
	for name := range d.cfg.Datastores {
		names = append(names, name)
	}
	slices.Sort(names)
	var out []compute.HomeMachine
	var broken []error
	for _, name := range names {
		files, err := filepath.Glob(filepath.Join(globQuote(d.cfg.Datastores[name]), "*", homeFile))
		if err != nil {
			broken = append(broken, fmt.Errorf("search datastore %s: %w", name, err))
			continue
		}
		for _, file := range files {
			h, err := readHome(name, file)
			if err == nil {
				var m compute.HomeMachine
				if m, err = d.FindHome(ctx, name, h.UUID); err == nil {
					out = append(out, m)
				}
			}
			if err != nil {
				broken = append(broken, err)
			}
		}
	}
	return out, errors.Join(broken...)
}
