package api

import (
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// Clusters with shared disks are not served: what clients send is checked like any other request, and then refused.

func clusterRefused() error {
	return &dr.Error{Code: dr.CodeUnimplemented, Message: "clusters with shared disks are not replicated", PossibleCauses: "a shared disk is written by several machines at once, and each agent sees the writes of its own only",
		RecommendedAction: "protect each node as an item of its own in one consistency group (multiVmGroupName), and let the application replicate what the nodes share"}
}

func noCluster(what, name string) error {
	return &dr.Error{Code: dr.CodeNotFound, Message: what + " " + printable(name) + " does not exist", PossibleCauses: "Lifeboat replicates no clusters with shared disks, so there are none",
		RecommendedAction: "look for the nodes in replicationProtectedItems"}
}

func (s *server) absentCluster(w http.ResponseWriter, r *http.Request, what, param string) {
	s.get(w, r, func(c *scope) (any, error) { return nil, noCluster(what, c.names[param]) })
}

func (s *server) ReplicationProtectionClustersList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationProtectionClustersListParams) {
	s.emptyList(w, r)
}

func (s *server) ReplicationProtectionClustersListByReplicationProtectionContainers(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationProtectionClustersListByReplicationProtectionContainersParams) {
	s.emptyList(w, r)
}

func (s *server) ReplicationProtectionClustersGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionClustersGetParams) {
	s.absentCluster(w, r, "protection cluster", "replicationProtectionClusterName")
}

func (s *server) ReplicationProtectionClustersGetOperationResults(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _, _ string, _ oas.ReplicationProtectionClustersGetOperationResultsParams) {
	s.absentCluster(w, r, "operation", "jobId")
}

func (s *server) ReplicationProtectionClustersPurge(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionClustersPurgeParams) {
	s.remove(w, r, func(*scope) (string, error) { return "", nil })
}

func (s *server) ReplicationProtectionClustersCreate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionClustersCreateParams) {
	s.refused(w, r, clusterRefused)
}

func (s *server) ReplicationProtectionClustersApplyRecoveryPoint(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionClustersApplyRecoveryPointParams) {
	s.refused(w, r, clusterRefused)
}

func (s *server) ReplicationProtectionClustersFailoverCommit(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionClustersFailoverCommitParams) {
	s.refused(w, r, clusterRefused)
}

func (s *server) ReplicationProtectionClustersRepairReplication(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionClustersRepairReplicationParams) {
	s.refused(w, r, clusterRefused)
}

func (s *server) ReplicationProtectionClustersTestFailover(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionClustersTestFailoverParams) {
	s.refused(w, r, clusterRefused)
}

func (s *server) ReplicationProtectionClustersTestFailoverCleanup(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionClustersTestFailoverCleanupParams) {
	s.refused(w, r, clusterRefused)
}

func (s *server) ReplicationProtectionClustersUnplannedFailover(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationProtectionClustersUnplannedFailoverParams) {
	s.refused(w, r, clusterRefused)
}

func (s *server) ReplicationProtectionContainersSwitchClusterProtection(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationProtectionContainersSwitchClusterProtectionParams) {
	s.refused(w, r, clusterRefused)
}

func (s *server) ClusterRecoveryPointsListByReplicationProtectionCluster(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ClusterRecoveryPointsListByReplicationProtectionClusterParams) {
	s.emptyList(w, r)
}

func (s *server) ClusterRecoveryPointGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _, _ string, _ oas.ClusterRecoveryPointGetParams) {
	s.absentCluster(w, r, "cluster recovery point", "recoveryPointName")
}
