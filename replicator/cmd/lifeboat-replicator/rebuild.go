package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/fleet"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	authority "github.com/lifeboat-dr/lifeboat/service/fleet"
	"github.com/lifeboat-dr/lifeboat/service/keyfile"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

// Where a vault is put whose place in the resource tree was lost with its control plane.
const (
	rebuiltSubscription  = "00000000-0000-0000-0000-000000000000"
	rebuiltResourceGroup = "recovered"
	rebuiltLocation      = "local"
)

// rebuildDataDir makes a data directory for lifeboatd from a catalogue. One that holds a database already is left alone.
func rebuildDataDir(ctx context.Context, dir, bucket string, c catalogue) (err error) {
	database := filepath.Join(dir, "lifeboat.db")
	if _, err := os.Stat(database); err == nil {
		return fmt.Errorf("%s exists: a data directory that is in use is never changed", database)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	seal, err := keyfile.Open(filepath.Join(dir, "secret.key"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, seal.Close()) }()
	db, err := sqlstore.OpenSQLite(ctx, database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	ctl := control.New(control.Config{Store: db, Sealer: seal})
	for _, v := range c.Vaults {
		in, err := importOf(v, bucket)
		if err != nil {
			return err
		}
		if err := ctl.Import(ctx, in); err != nil {
			return fmt.Errorf("vault %s: %w", v.ID, err)
		}
	}
	return nil
}

// importOf is a vault as control imports it: what the bucket holds, and new keys for all that only the lost control plane knew.
func importOf(v catalogueVault, bucket string) (control.VaultImport, error) {
	certificate, key, err := authority.NewAuthority("Lifeboat vault "+v.ID, time.Now())
	if err != nil {
		return control.VaultImport{}, err
	}
	grant := make([]byte, 32)
	_, _ = rand.Read(grant) // never fails (crypto/rand)
	in := control.VaultImport{
		ID:       v.ID,
		Key:      dr.VaultKey{Subscription: rebuiltSubscription, ResourceGroup: rebuiltResourceGroup, Name: "recovered-" + v.ID},
		Location: rebuiltLocation, BucketURL: bucket, RecoveryKey: v.recoveryKey,
		Secrets: control.VaultSecrets{DataKey: v.key[:], VaultFile: v.file, CACertificate: certificate, CAKey: key, GrantKey: grant},
	}
	for _, m := range v.Machines {
		if len(m.Points) > 0 && m.Problem == "" { // half of a log would pass for the whole
			in.Machines = append(in.Machines, machineOf(m))
		}
	}
	return in, nil
}

func machineOf(m catalogueMachine) control.MachineImport {
	out := control.MachineImport{ID: dr.ItemID(m.ID), Machine: machineFrom(m.Hardware), HomeUUID: strings.ToLower(m.homeUUID)}
	out.Machine.Hostname = m.Name
	for _, d := range m.Points[len(m.Points)-1].Disks {
		out.Disks = append(out.Disks, dr.Disk{ID: d.ID, SizeBytes: d.SizeBytes, IsOSDisk: d.OS})
	}
	slices.SortStableFunc(out.Disks, func(a, b dr.Disk) int {
		switch {
		case a.IsOSDisk && !b.IsOSDisk:
			return -1
		case b.IsOSDisk && !a.IsOSDisk:
			return 1
		}
		return 0
	})
	for _, p := range m.Points {
		out.Points = append(out.Points, dr.Point{Item: out.ID, Generation: p.Generation, Sequence: p.Sequence, Time: p.Time,
			Consistency: dr.Consistency(p.Consistency), ChangedBytes: p.ChangedBytes, StoredBytes: p.StoredBytes})
	}
	if n := len(m.Generations); n > 0 {
		out.Generation, out.Closed = m.Generations[n-1].Number, m.Generations[n-1].Closed
	}
	return out
}

func machineFrom(m fleet.Machine) dr.Machine {
	out := dr.Machine{Hostname: m.Hostname, ProductUUID: strings.ToLower(m.ProductUuid), Platform: string(m.Platform), Manufacturer: m.Manufacturer,
		OSType: string(m.OsType), OSName: m.OsName, KernelVersion: m.KernelVersion, CPUs: m.CpuCount, MemoryBytes: m.MemoryBytes,
		Firmware: string(m.Firmware), IPAddresses: m.IpAddresses}
	for _, n := range m.Nics {
		out.NICs = append(out.NICs, dr.NIC{Name: n.Name, MAC: n.Mac, IPAddresses: n.IpAddresses})
	}
	for _, d := range m.Disks {
		out.Disks = append(out.Disks, dr.MachineDisk{ID: d.Id, Path: d.Path, SizeBytes: d.SizeBytes, SectorSize: d.SectorSize, IsOSDisk: d.IsOsDisk, Mounts: d.Mounts})
	}
	return out
}
