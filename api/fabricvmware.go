package api

import (
	"strconv"
	"time"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// vmwareFabric shows the replicators of a site as the classic system knows them: one configuration server with its process
// servers and master targets. Counts and loads are text there.
func vmwareFabric(v control.FabricView) oas.VMwareDetails {
	out := oas.VMwareDetails{InstanceType: string(dr.FabricVMware), AgentCount: strconv.Itoa(len(v.Agents)), ProtectedServers: strconv.Itoa(v.Items), ReplicationPairCount: strconv.Itoa(v.Items),
		ProcessServers: []oas.ProcessServer{}, MasterTargetServers: []oas.MasterTargetServer{}, RunAsAccounts: []oas.RunAsAccount{}, SwitchProviderBlockingErrorDetails: []oas.RcmErrorDetails{}}
	for _, a := range v.Accounts {
		out.RunAsAccounts = append(out.RunAsAccounts, oas.RunAsAccount{AccountId: a, AccountName: a})
	}
	for _, p := range v.Replicators {
		health, address := partHealth(p.LastHeartbeat), ""
		if host, ok := hostOf(p.DataAddress); ok {
			address = host
		}
		if p.HasRole(dr.RoleConfigurationServer) && out.HostName == "" {
			out.HostName, out.IpAddress, out.AgentVersion, out.LastHeartbeat, out.VersionStatus = p.Hostname, address, p.AgentVersion, p.LastHeartbeat, "Supported"
			out.CsServiceStatus, out.CpuLoad, out.CpuLoadStatus = serviceStatus(p.LastHeartbeat), load(p.Health.ProcessorPercent), healthWord(p.Health.ProcessorPercent)
			out.TotalMemoryInBytes, out.AvailableMemoryInBytes = ptr(p.Health.TotalMemoryBytes), ptr(p.Health.AvailableMemoryBytes)
			out.TotalSpaceInBytes, out.AvailableSpaceInBytes = ptr(p.Health.TotalSpaceBytes), ptr(p.Health.AvailableSpaceBytes)
		}
		if p.HasRole(dr.RoleProcessServer) {
			h := p.Health
			out.ProcessServers = append(out.ProcessServers, oas.ProcessServer{Id: p.ID, HostId: p.ID, FriendlyName: p.Hostname, IpAddress: address, AgentVersion: p.AgentVersion, LastHeartbeat: p.LastHeartbeat,
				PsServiceStatus: serviceStatus(p.LastHeartbeat), VersionStatus: "Supported", OsType: "Linux", MachineCount: strconv.Itoa(v.Items), ReplicationPairCount: strconv.Itoa(v.Items),
				CpuLoad: load(h.ProcessorPercent), CpuLoadStatus: healthWord(h.ProcessorPercent), TotalMemoryInBytes: ptr(h.TotalMemoryBytes), AvailableMemoryInBytes: ptr(h.AvailableMemoryBytes),
				TotalSpaceInBytes: ptr(h.TotalSpaceBytes), AvailableSpaceInBytes: ptr(h.AvailableSpaceBytes), ThroughputInBytes: ptr(h.ThroughputBytesPerSecond),
				ThroughputInMBps: ptr(h.ThroughputBytesPerSecond >> 20), ThroughputUploadPendingDataInBytes: ptr(h.SpoolUsedBytes), PsStatsRefreshTime: p.LastHeartbeat,
				Health: health, HealthErrors: []oas.HealthError{}, MobilityServiceUpdates: []oas.MobilityServiceUpdate{}})
		}
		if p.HasRole(dr.RoleMasterTarget) {
			mt := oas.MasterTargetServer{Id: p.ID, Name: p.Hostname, IpAddress: address, AgentVersion: p.AgentVersion, LastHeartbeat: p.LastHeartbeat, OsType: "Linux", VersionStatus: "Supported",
				DataStores: []oas.DataStore{}, RetentionVolumes: []oas.RetentionVolume{}, HealthErrors: []oas.HealthError{}, ValidationErrors: []oas.HealthError{}}
			for _, d := range p.Datastores {
				mt.DataStores = append(mt.DataStores, oas.DataStore{SymbolicName: d.Name, Uuid: dr.NamedGUID("datastore", p.ID, d.Name), Capacity: strconv.FormatInt(d.TotalBytes, 10),
					FreeSpace: strconv.FormatInt(d.AvailableBytes, 10), Type: "Directory"})
			}
			out.MasterTargetServers = append(out.MasterTargetServers, mt)
		}
	}
	out.ProcessServerCount = strconv.Itoa(len(out.ProcessServers))
	return out
}

func serviceStatus(heartbeat time.Time) string {
	if time.Since(heartbeat) > dr.HeartbeatLimit {
		return "Stopped"
	}
	return "Running"
}

func load(percent float64) string { return strconv.FormatFloat(percent, 'f', 0, 64) }

// healthWord judges a load in percent.
func healthWord(percent float64) string {
	switch {
	case percent >= 95:
		return dr.HealthCritical
	case percent >= 80:
		return dr.HealthWarning
	}
	return dr.HealthNormal
}
