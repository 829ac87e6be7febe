package api

import (
	"net/http"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/control"
)

// Words of an operation's status. Clients compare them without case.
const (
	statusInProgress = "InProgress"
	statusSucceeded  = "Succeeded"
	statusFailed     = "Failed"
	statusCanceled   = "Canceled"
)

// ReplicationOperationStatusGet answers 200 in every state: the status is in the body.
func (s *server) ReplicationOperationStatusGet(w http.ResponseWriter, r *http.Request, _, _, _, jobID string, _ oas.ReplicationOperationStatusGetParams) {
	s.operationStatus(w, r, jobID)
}

// GetOperationStatus is the same under the path that vault operations use.
func (s *server) GetOperationStatus(w http.ResponseWriter, r *http.Request, _, _, _, operationID string, _ oas.GetOperationStatusParams) {
	s.operationStatus(w, r, operationID)
}

func (s *server) operationStatus(w http.ResponseWriter, r *http.Request, id string) {
	s.get(w, r, func(c *scope) (any, error) {
		st, err := s.control.OperationStatus(r.Context(), c.vault.ID, id)
		if err != nil {
			return nil, err
		}
		out := oas.OperationStatus{Id: c.job(st.JobID), Name: st.JobID, Status: st.Status, StartTime: st.Started, EndTime: st.Ended}
		switch st.Status {
		case statusFailed, statusCanceled:
			e := endedBadly(st)
			out.Error = oas.ErrorBody{Code: e.Code, Message: e.Message, Details: []oas.ErrorDetail{{Code: e.Code, Message: e.Message,
				PossibleCauses: e.Causes, RecommendedAction: e.Action, ActivityId: of(r).activity, ClientRequestId: of(r).clientID}}}
		case statusSucceeded:
			out.PercentComplete = ptr(100.0)
		default:
			s.pollAgain(w.Header())
			out.PercentComplete = ptr(float64(st.Percent))
		}
		return out, nil
	})
}

// endedBadly is the error of an operation that failed or was cancelled. Its HTTP status is one that clients do not try again
// after (ref 2.7): asking again cannot change what happened.
func endedBadly(st control.OperationStatus) refusal {
	out := refusal{Status: http.StatusConflict, Code: "OperationFailed", Message: "the operation failed",
		Causes: "the job's tasks tell which step failed", Action: "read replicationJobs/" + st.JobID + ", remove the cause and restart the job"}
	if st.Status == statusCanceled {
		out.Code, out.Message = "OperationCanceled", "the operation was cancelled"
		out.Causes, out.Action = "someone cancelled the job", "ask for the operation again"
	}
	if e := st.Error; e != nil {
		out.Message = e.Message
		if e.Code != "" {
			out.Code = e.Code
		}
		if e.PossibleCauses != "" {
			out.Causes = e.PossibleCauses
		}
		if e.RecommendedAction != "" {
			out.Action = e.RecommendedAction
		}
	}
	return out
}

func ptr[T any](v T) *T { return &v }
