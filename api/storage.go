package api

import (
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

const (
	typeStorage        = typeFabric + "/replicationStorageClassifications"
	typeStorageMapping = typeStorage + "/replicationStorageClassificationMappings"
)

func (c *scope) storage(fabric, name string) string {
	return c.fabric(fabric) + "/replicationStorageClassifications/" + name
}

func storageBody(c *scope, v dr.StorageClassification) oas.StorageClassification {
	return oas.StorageClassification{Id: c.storage(v.Fabric, v.Name), Name: v.Name, Type: typeStorage, Properties: oas.StorageClassificationProperties{FriendlyName: v.FriendlyName}}
}

func storageMappingBody(c *scope, m dr.StorageMapping) oas.StorageClassificationMapping {
	return oas.StorageClassificationMapping{Id: c.storage(m.Fabric, m.Classification) + "/replicationStorageClassificationMappings/" + m.Name, Name: m.Name, Type: typeStorageMapping,
		Properties: oas.StorageClassificationMappingProperties{TargetStorageClassificationId: c.storage(m.TargetFabric, m.Target)}}
}

func (s *server) listStorage(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[dr.StorageClassification], error) {
		return s.control.StorageClassifications(r.Context(), c.ref(""), p)
	}, storageBody)
}

func (s *server) ReplicationStorageClassificationsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationStorageClassificationsListParams) {
	s.listStorage(w, r)
}

func (s *server) ReplicationStorageClassificationsListByReplicationFabrics(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationStorageClassificationsListByReplicationFabricsParams) {
	s.listStorage(w, r)
}

func (s *server) ReplicationStorageClassificationsGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationStorageClassificationsGetParams) {
	s.get(w, r, shown(func(c *scope) (dr.StorageClassification, error) {
		return s.control.StorageClassification(r.Context(), c.ref("storageClassificationName"))
	}, storageBody))
}

func (s *server) storageMapping(r *http.Request) func(c *scope) (any, error) {
	return shown(func(c *scope) (dr.StorageMapping, error) {
		return s.control.StorageMapping(r.Context(), c.ref("storageClassificationMappingName"), c.names["storageClassificationName"])
	}, storageMappingBody)
}

func (s *server) listStorageMappings(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, func(c *scope, p control.Paging) (control.Page[dr.StorageMapping], error) {
		return s.control.StorageMappings(r.Context(), c.ref(""), c.names["storageClassificationName"], p)
	}, storageMappingBody)
}

func (s *server) ReplicationStorageClassificationMappingsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationStorageClassificationMappingsListParams) {
	s.listStorageMappings(w, r)
}

func (s *server) ReplicationStorageClassificationMappingsListByReplicationStorageClassifications(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationStorageClassificationMappingsListByReplicationStorageClassificationsParams) {
	s.listStorageMappings(w, r)
}

func (s *server) ReplicationStorageClassificationMappingsGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationStorageClassificationMappingsGetParams) {
	s.get(w, r, s.storageMapping(r))
}

func (s *server) ReplicationStorageClassificationMappingsCreate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationStorageClassificationMappingsCreateParams) {
	s.change(w, r, func(c *scope) (string, error) {
		in, err := body[oas.StorageClassificationMappingInput](r)
		if err != nil {
			return "", err
		}
		return s.control.PutStorageMapping(r.Context(), c.ref("storageClassificationMappingName"), c.names["storageClassificationName"], in.Properties.TargetStorageClassificationId)
	}, s.storageMapping(r))
}

func (s *server) ReplicationStorageClassificationMappingsDelete(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationStorageClassificationMappingsDeleteParams) {
	s.remove(w, r, func(c *scope) (string, error) {
		return s.control.RemoveStorageMapping(r.Context(), c.ref("storageClassificationMappingName"), c.names["storageClassificationName"])
	})
}

func (s *server) ReplicationStorageClassificationMappingsOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _, _ string, _ oas.ReplicationStorageClassificationMappingsOperationResultParams) {
	s.operationResult(w, r, "jobId", s.storageMapping(r))
}
