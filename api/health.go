package api

import (
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// healthErrors is never nil: clients of the field get an empty array.
func healthErrors(in []dr.HealthError) []oas.HealthError {
	out := make([]oas.HealthError, 0, len(in))
	for _, e := range in {
		out = append(out, oas.HealthError{CreationTimeUtc: e.Created, CustomerResolvability: "NotAllowed", EntityId: e.EntityID, ErrorCategory: e.Category,
			ErrorCode: e.Code, ErrorId: e.ID, ErrorLevel: e.Level, ErrorMessage: e.Message, ErrorSource: e.Source, InnerHealthErrors: []oas.InnerHealthError{},
			PossibleCauses: e.PossibleCauses, RecommendedAction: e.RecommendedAction, SummaryMessage: e.Summary})
	}
	return out
}

func summaryBody(h control.HealthSummary) oas.ResourceHealthSummary {
	out := oas.ResourceHealthSummary{ResourceCount: ptr(int32(h.Count)), Issues: []oas.HealthErrorSummary{}, CategorizedResourceCounts: map[string]int32{}}
	for k, n := range h.Categorized {
		out.CategorizedResourceCounts[k] = int32(n)
	}
	for _, i := range h.Issues {
		out.Issues = append(out.Issues, oas.HealthErrorSummary{SummaryCode: i.Code, Category: i.Category, Severity: i.Severity, SummaryMessage: i.Message,
			AffectedResourceType: i.ResourceType, AffectedResourceCorrelationIds: orEmpty(i.CorrelationIDs)})
	}
	return out
}

func (s *server) vaultHealth(r *http.Request) func(c *scope) (any, error) {
	return func(c *scope) (any, error) {
		h, err := s.control.VaultHealth(r.Context(), c.vault.ID)
		return oas.VaultHealthDetails{Id: c.base + "/replicationVaultHealth/Default", Name: "Default", Type: typeHealth, Properties: oas.VaultHealthProperties{
			VaultErrors: healthErrors(h.Errors), ProtectedItemsHealth: summaryBody(h.Items), FabricsHealth: summaryBody(h.Fabrics), ContainersHealth: summaryBody(h.Containers)}}, err
	}
}

func (s *server) ReplicationVaultHealthGet(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationVaultHealthGetParams) {
	s.get(w, r, s.vaultHealth(r))
}

func (s *server) ReplicationVaultHealthRefresh(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.ReplicationVaultHealthRefreshParams) {
	s.change(w, r, func(c *scope) (string, error) { return s.control.RefreshVaultHealth(r.Context(), c.vault.ID) }, s.vaultHealth(r))
}

func (s *server) ReplicationVaultHealthOperationResult(w http.ResponseWriter, r *http.Request, _, _, _, _ string, _ oas.ReplicationVaultHealthOperationResultParams) {
	s.operationResult(w, r, "jobId", s.vaultHealth(r))
}
