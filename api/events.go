package api

import (
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func eventBody(c *scope, e dr.Event) oas.Event {
	out := oas.Event{Id: c.base + "/replicationEvents/" + e.Name, Name: e.Name, Type: typeEvent, Properties: oas.EventProperties{
		EventCode: e.Code, Description: e.Description, EventType: e.Type, AffectedObjectFriendlyName: e.ObjectName, AffectedObjectCorrelationId: e.ObjectID,
		Severity: string(e.Severity), TimeOfOccurrence: e.Time, HealthErrors: healthErrors(e.HealthErrors)}}
	if e.Fabric != "" {
		out.Properties.FabricId = c.fabric(e.Fabric)
	}
	if e.JobID != "" {
		must(out.Properties.EventSpecificDetails.FromJobStatusEventDetails(oas.JobStatusEventDetails{InstanceType: "JobStatus", JobId: e.JobID, AffectedObjectType: e.Type}))
	}
	out.Properties.ProviderSpecificDetails = eventDetails(e)
	return out
}

// eventDetails tells about the machine in its provider's words. Events about anything else count as InMageRcm's.
func eventDetails(e dr.Event) (out oas.EventProviderSpecificDetails) {
	kind := string(e.Provider)
	switch e.Provider {
	case dr.ProviderInMageRcm, "":
		must(out.FromInMageRcmEventDetails(oas.InMageRcmEventDetails{InstanceType: string(dr.ProviderInMageRcm), ProtectedItemName: e.ObjectName, VmName: e.ObjectName, FabricName: e.Fabric, JobId: e.JobID}))
	case dr.ProviderInMageRcmFailback:
		must(out.FromInMageRcmFailbackEventDetails(oas.InMageRcmFailbackEventDetails{InstanceType: kind, ProtectedItemName: e.ObjectName, VmName: e.ObjectName}))
	case dr.ProviderInMageAzureV2:
		must(out.FromInMageAzureV2EventDetails(oas.InMageAzureV2EventDetails{InstanceType: kind, EventType: e.Type, Category: "Replication", Component: "ProcessServer", Summary: e.Description,
			Details: e.Description, SiteName: e.Fabric}))
	case dr.ProviderHyperVReplicaAzure:
		must(out.FromHyperVReplicaAzureEventDetails(oas.HyperVReplicaAzureEventDetails{InstanceType: kind, ContainerName: e.Container, FabricName: e.Fabric, RemoteContainerName: azure}))
	case dr.ProviderHyperVReplica2012, dr.ProviderHyperVReplica2012R2:
		must(out.FromHyperVReplicaEventDetails(oas.HyperVReplicaEventDetails{InstanceType: kind, ContainerName: e.Container, FabricName: e.Fabric}))
	case dr.ProviderA2A:
		must(out.FromA2AEventDetails(oas.A2AEventDetails{InstanceType: kind, ProtectedItemName: e.ObjectName, FabricName: e.Fabric}))
	default:
		must(out.FromOtherEventDetails(oas.OtherEventDetails{InstanceType: kind}))
	}
	return out
}

func (s *server) ReplicationEventsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationEventsListParams) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[dr.Event], error) {
		f, err := filterOf(r, "eventCode", "severity", "eventType", "fabricName", "affectedObjectFriendlyName", "affectedObjectCorrelationId", "startTime", "endTime")
		if err != nil {
			return control.Page[dr.Event]{}, err
		}
		in := control.EventFilter{Code: f.one("eventCode"), Type: f.one("eventType"), Severity: f.one("severity"), Fabric: f.one("fabricName"),
			ObjectName: f.one("affectedObjectFriendlyName"), ObjectID: f.one("affectedObjectCorrelationId")}
		if in.From, err = f.timeOf("startTime"); err != nil {
			return control.Page[dr.Event]{}, err
		}
		if in.To, err = f.timeOf("endTime"); err != nil {
			return control.Page[dr.Event]{}, err
		}
		return s.control.Events(r.Context(), c.vault.ID, in, p)
	}, eventBody)
}

func (s *server) ReplicationEventsGet(w http.ResponseWriter, r *http.Request, _, _, _, name string, _ oas.ReplicationEventsGetParams) {
	s.get(w, r, func(c *scope) (any, error) {
		e, err := s.control.Event(r.Context(), c.vault.ID, name)
		return eventBody(c, e), err
	})
}
