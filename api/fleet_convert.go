package api

import (
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/api/fleetoas"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
)

func enrolmentToWire(e fleet.Enrolment) fleetoas.Enrollment {
	return fleetoas.Enrollment{Id: e.ID, VaultId: e.Vault, Certificate: e.Certificate, CaCertificate: e.CACertificate, Expires: e.Expires}
}

func machineFromWire(m fleetoas.Machine) dr.Machine {
	out := dr.Machine{Hypervisor: m.Hypervisor, Hostname: m.Hostname, ProductUUID: strings.ToLower(m.ProductUuid), Platform: string(m.Platform), Manufacturer: m.Manufacturer,
		OSType: string(m.OsType), OSName: m.OsName, KernelVersion: m.KernelVersion, CPUs: m.CpuCount, MemoryBytes: m.MemoryBytes,
		Firmware: string(m.Firmware), BootID: m.BootId, IPAddresses: m.IpAddresses}
	for _, n := range m.Nics {
		out.NICs = append(out.NICs, dr.NIC{Name: n.Name, MAC: n.Mac, IPAddresses: n.IpAddresses})
	}
	for _, d := range m.Disks {
		out.Disks = append(out.Disks, dr.MachineDisk{ID: d.Id, Path: d.Path, SizeBytes: d.SizeBytes, SectorSize: d.SectorSize, IsOSDisk: d.IsOsDisk,
			Mounts: d.Mounts, UnsupportedReason: d.UnsupportedReason})
	}
	return out
}

func agentReportFromWire(r fleetoas.AgentReport) fleet.AgentReport {
	out := fleet.AgentReport{Version: r.Version, Revision: r.Revision, Machine: machineFromWire(r.Machine)}
	out.Machine.GroupAddresses = r.GroupAddresses[:min(len(r.GroupAddresses), maxGroupAddresses)]
	for _, m := range r.Machines {
		out.Hosted = append(out.Hosted, dr.HostedMachine{Machine: machineFromWire(m.Machine), Running: m.Running})
	}
	for _, p := range r.Protections {
		o := dr.Observed{Item: dr.ItemID(p.MachineId), AgentVersion: r.Version, Phase: string(p.Phase), Generation: p.Generation,
			ProgressPercent: p.ProgressPercent, TotalBytes: p.TotalBytes, ProcessedBytes: p.ProcessedBytes, TransferredBytes: p.TransferredBytes,
			LastCaptureID: p.LastCaptureId, FreezeTook: time.Duration(p.FreezeMicros) * time.Microsecond,
			Dirty: p.DirtyBytes, SelfDirty: p.SelfDirtyBytes, Changed: p.ChangedBytes, Shipped: p.ShippedBytes, Churn: p.ChurnBytesPerSecond,
			ThrottledPercent: p.ThrottledPercent, BlockedPercent: p.BlockedPercent, Throttle: p.ThrottleBytesPerSecond,
			ResyncReason: p.ResyncReason, ResyncTime: p.ResyncTime}
		for _, d := range p.Disks {
			o.Disks = append(o.Disks, dr.DiskProgress{ID: d.DiskId, ProgressPercent: d.ProgressPercent, ProcessedBytes: d.ProcessedBytes, TransferredBytes: d.TransferredBytes})
		}
		o.Group = groupStatusFromWire(p.Group)
		if p.Error != (fleetoas.Error{}) {
			o.Fault = &dr.HealthError{Code: p.Error.Code, Level: "Error", Category: "Replication", Message: p.Error.Message, Summary: p.Error.Message,
				PossibleCauses: p.Error.PossibleCauses, RecommendedAction: p.Error.RecommendedAction, Source: "Agent", EntityID: p.MachineId}
		}
		out.Observed = append(out.Observed, o)
	}
	return out
}

func agentDesiredToWire(d fleet.AgentDesired) fleetoas.AgentDesired {
	out := fleetoas.AgentDesired{Revision: d.Revision, Unregistered: d.Unregistered, Protections: []fleetoas.Protection{}}
	for _, p := range d.Protections {
		w := fleetoas.Protection{MachineId: string(p.Machine), Generation: p.Generation, Disks: p.Disks,
			CrashConsistentSeconds: int(p.CrashConsistentEvery / time.Second), AppConsistentSeconds: int(p.AppConsistentEvery / time.Second),
			FreezeTimeoutSeconds: int(p.FreezeTimeout / time.Second), Grant: p.Grant, GrantExpires: p.GrantExpires,
			CaptureId: p.CaptureID, ResyncId: p.ResyncID, Fenced: p.Fenced, MachineUuid: p.MachineUUID, Shutdown: p.Shutdown, Throttle: fleetoas.Throttle{Zone: p.Throttle.Zone}}
		for _, t := range p.Throttle.Windows {
			x := fleetoas.ThrottleWindow{From: t.From, To: t.To, BytesPerSecond: t.BytesPerSecond}
			for _, d := range t.Days {
				x.Days = append(x.Days, fleetoas.ThrottleWindowDays(d))
			}
			w.Throttle.Windows = append(w.Throttle.Windows, x)
		}
		if p.Fenced {
			w.FencedAction = "none"
		}
		if p.Stop {
			w.FencedAction = "shutdown"
		}
		for _, a := range p.Replicators {
			w.Replicators = append(w.Replicators, fleetoas.ReplicatorAddress{Address: a.Address, ServerName: a.ServerName})
		}
		w.Group = groupToWire(p.Group)
		out.Protections = append(out.Protections, w)
	}
	return out
}

func replicatorReportFromWire(r fleetoas.ReplicatorReport) fleet.ReplicatorReport {
	rep := dr.Replicator{Hostname: r.Hostname, AgentVersion: r.Version, Site: r.Site, Capabilities: r.Capabilities, DataAddress: r.DataAddress,
		ControlAddress: r.ControlAddress, Health: dr.ReplicatorHealth{
			TotalMemoryBytes: r.Health.TotalMemoryBytes, AvailableMemoryBytes: r.Health.AvailableMemoryBytes, ProcessorPercent: r.Health.ProcessorPercent,
			TotalSpaceBytes: r.Health.TotalSpaceBytes, AvailableSpaceBytes: r.Health.AvailableSpaceBytes, SpoolUsedBytes: r.Health.SpoolUsedBytes,
			SpoolLimitBytes: r.Health.SpoolLimitBytes, ThroughputBytesPerSecond: r.Health.ThroughputBytesPerSecond, Sessions: r.Health.Sessions}}
	for _, x := range r.Roles {
		rep.Roles = append(rep.Roles, string(x))
	}
	for _, d := range r.Datastores {
		rep.Datastores = append(rep.Datastores, dr.Datastore{Name: d.Name, TotalBytes: d.TotalBytes, AvailableBytes: d.AvailableBytes})
	}
	for _, v := range r.VirtualMachines {
		rep.VMs = append(rep.VMs, dr.VM{UUID: strings.ToLower(v.Uuid), Name: v.Name, Datastore: v.Datastore, PowerState: string(v.PowerState)})
	}
	for _, i := range r.Instances {
		rep.Instances = append(rep.Instances, dr.InstanceReport{ID: i.InstanceId, Item: dr.ItemID(i.MachineId), State: string(i.State), HydratedPercent: i.HydratedPercent, Error: i.Error})
	}
	return fleet.ReplicatorReport{Revision: r.Revision, Replicator: rep}
}

func replicatorDesiredToWire(d fleet.ReplicatorDesired) fleetoas.ReplicatorDesired {
	out := fleetoas.ReplicatorDesired{Revision: d.Revision, RedisAddress: d.RedisAddress, Vaults: []fleetoas.ServedVault{}}
	for _, v := range d.Vaults {
		out.Vaults = append(out.Vaults, fleetoas.ServedVault{VaultId: v.ID, BucketUrl: v.BucketURL, VaultFile: v.VaultFile, DataKey: v.DataKey,
			CaCertificate: v.CACertificate, ServerName: v.ServerName, ServerCertificate: v.ServerCertificate, ServerKey: v.ServerKey, GrantPublicKey: v.GrantPublicKey})
	}
	return out
}

func pointFromWire(p fleetoas.Point) dr.Point {
	out := dr.Point{ID: p.Id, Item: dr.ItemID(p.MachineId), Generation: p.Generation, Sequence: p.Sequence, Time: p.Time.UTC(),
		Consistency: dr.Consistency(p.Consistency), ChangedBytes: p.ChangedBytes, StoredBytes: p.StoredBytes, GroupID: p.GroupId}
	for _, d := range p.Disks {
		out.Disks = append(out.Disks, d.Id)
	}
	return out
}
