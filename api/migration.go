package api

import (
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// Migration without an agent is not served: what clients send is checked like any other request, and then refused.

func migrationRefused() error {
	return &dr.Error{Code: dr.CodeUnimplemented, Message: "machines are not migrated without an agent (VMwareCbt)", PossibleCauses: "Lifeboat replicates VMware machines through the agent in the guest",
		RecommendedAction: "protect the machine with instanceType InMageRcm, run a test failover, fail it over with performShutdown, and commit"}
}

func noMigration(what, name string) error {
	return &dr.Error{Code: dr.CodeNotFound, Message: what + " " + printable(name) + " does not exist", PossibleCauses: "Lifeboat migrates no machines without an agent, so there are none",
		RecommendedAction: "look for the machine in replicationProtectedItems"}
}

// emptyList answers with a page of nothing when what the path names exists.
func (s *server) emptyList(w http.ResponseWriter, r *http.Request) {
	s.get(w, r, func(c *scope) (any, error) {
		if _, err := s.paging(r); err != nil {
			return nil, err
		}
		if _, err := filterOf(r, "sourceFabricName", "sourceContainerName", "sourceFabricLocation", "instanceType"); err != nil {
			return nil, err
		}
		if c.names["protectionContainerName"] != "" {
			if _, err := s.control.Container(r.Context(), c.ref("")); err != nil {
				return nil, err
			}
		}
		return collection[struct{}]{Value: []struct{}{}}, nil
	})
}

// refused answers with the refusal when what the path names, but for the resource itself, exists.
func (s *server) refused(w http.ResponseWriter, r *http.Request, refusal func() error) {
	s.get(w, r, func(c *scope) (any, error) {
		if _, err := s.control.Container(r.Context(), c.ref("")); err != nil {
			return nil, err
		}
		return nil, refusal()
	})
}

func (s *server) ReplicationMigrationItemsList(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationMigrationItemsListParams) {
	s.emptyList(w, r)
}

func (s *server) ReplicationMigrationItemsListByReplicationProtectionContainers(w http.ResponseWriter, r *http.Request, _, _, _, _, _ string, _ oas.ReplicationMigrationItemsListByReplicationProtectionContainersParams) {
	s.emptyList(w, r)
}

func (s *server) noMigrationItem(w http.ResponseWriter, r *http.Request) {
	s.get(w, r, func(c *scope) (any, error) { return nil, noMigration("migration item", c.names["migrationItemName"]) })
}

func (s *server) ReplicationMigrationItemsGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationMigrationItemsGetParams) {
	s.noMigrationItem(w, r)
}

func (s *server) ReplicationMigrationItemsDelete(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationMigrationItemsDeleteParams) {
	s.remove(w, r, func(*scope) (string, error) { return "", nil })
}

func (s *server) ReplicationMigrationItemsCreate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationMigrationItemsCreateParams) {
	s.refused(w, r, migrationRefused)
}

func (s *server) ReplicationMigrationItemsUpdate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationMigrationItemsUpdateParams) {
	s.refused(w, r, migrationRefused)
}

func (s *server) ReplicationMigrationItemsMigrate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationMigrationItemsMigrateParams) {
	s.refused(w, r, migrationRefused)
}

func (s *server) ReplicationMigrationItemsPauseReplication(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationMigrationItemsPauseReplicationParams) {
	s.refused(w, r, migrationRefused)
}

func (s *server) ReplicationMigrationItemsResumeReplication(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationMigrationItemsResumeReplicationParams) {
	s.refused(w, r, migrationRefused)
}

func (s *server) ReplicationMigrationItemsResync(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationMigrationItemsResyncParams) {
	s.refused(w, r, migrationRefused)
}

func (s *server) ReplicationMigrationItemsTestMigrate(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationMigrationItemsTestMigrateParams) {
	s.refused(w, r, migrationRefused)
}

func (s *server) ReplicationMigrationItemsTestMigrateCleanup(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.ReplicationMigrationItemsTestMigrateCleanupParams) {
	s.refused(w, r, migrationRefused)
}

func (s *server) MigrationRecoveryPointsListByReplicationMigrationItems(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _ string, _ oas.MigrationRecoveryPointsListByReplicationMigrationItemsParams) {
	s.emptyList(w, r)
}

func (s *server) MigrationRecoveryPointsGet(w http.ResponseWriter, r *http.Request, _, _, _, _, _, _, _ string, _ oas.MigrationRecoveryPointsGetParams) {
	s.get(w, r, func(c *scope) (any, error) {
		return nil, noMigration("migration recovery point", c.names["migrationRecoveryPointName"])
	})
}
