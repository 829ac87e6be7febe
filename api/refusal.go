package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// refusal is an error answer before it is written. Causes and Action fill the first detail; Details, when given, stand instead.
type refusal struct {
	Status  int
	Code    string
	Message string
	Target  string
	Causes  string
	Action  string
	Detail  string // code of the first detail; empty: Code
	Details []oas.ErrorDetail
	// RetryAfter is seconds; zero takes the server's own where the status asks for one.
	RetryAfter int
}

// refuse writes the error envelope. Answers about an operation that ended badly come this way too.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, e refusal) {
	x := of(r)
	if e.Details == nil {
		code := e.Detail
		if code == "" {
			code = e.Code
		}
		e.Details = []oas.ErrorDetail{{Code: code, Message: e.Message, Target: e.Target, PossibleCauses: e.Causes, RecommendedAction: e.Action}}
	}
	for i := range e.Details {
		e.Details[i].ClientRequestId, e.Details[i].ActivityId = x.clientID, x.activity
	}
	w.Header().Set("x-ms-error-code", e.Code)
	switch {
	case e.RetryAfter > 0:
		w.Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	case e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", s.retryAfter())
	}
	writeJSON(w, e.Status, oas.ErrorResponse{Error: oas.ErrorBody{Code: e.Code, Message: e.Message, Target: e.Target, Details: e.Details}})
}

const contentJSON = "application/json; charset=utf-8"

// writeJSON writes a body whole or not at all: it is encoded before the status is sent.
func writeJSON(w http.ResponseWriter, status int, body any) {
	raw := encode(body)
	w.Header().Set("Content-Type", contentJSON)
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the caller may have left
}

func encode(body any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		panic(fmt.Errorf("encode %T: %w", body, err)) // generated types always encode; envelope answers 500
	}
	return buf.Bytes()
}

// fail answers with err. What is not a *dr.Error is a fault of ours: it is logged whole and shown without its cause.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return // nobody reads an answer
	}
	if ref, ok := errors.AsType[*refusalError](err); ok {
		s.refuse(w, r, ref.refusal)
		return
	}
	e, ok := errors.AsType[*dr.Error](err)
	if !ok || e.Code == dr.CodeInternal {
		s.log.ErrorContext(r.Context(), "request ended in an internal error", "method", r.Method, "path", of(r).path, "activity", of(r).activity,
			"correlation", of(r).correlation, "client_request", of(r).clientID, "err", err)
		s.refuse(w, r, refusal{Status: http.StatusInternalServerError, Code: "InternalServerError", Message: "the server met an error of its own",
			Causes: "a fault of the server", Action: "look for activityId " + of(r).activity + " in the server's log and report what it says"})
		return
	}
	s.refuse(w, r, fromDomain(e))
}

// refusalError is a refusal on its way through a handler.
type refusalError struct{ refusal }

func (e *refusalError) Error() string { return e.Code + ": " + e.Message }

// domainStatus maps the domain's codes. The detail is what the field's service says beside its outer code (ref 2.6).
// 500 is left to faults of ours, because clients of the field try again after it.
var domainStatus = map[dr.Code]struct {
	status       int
	code, detail string
	action       string
}{
	dr.CodeInvalid:            {http.StatusBadRequest, "BadRequest", "InvalidParameter", "correct the request and send it again"},
	dr.CodeNotFound:           {http.StatusNotFound, "NotFound", "ArmResourceDoesNotExist", "check the path, or list the resources above it"},
	dr.CodeConflict:           {http.StatusConflict, "Conflict", "", "read the resource, and try again when its state allows the operation"},
	dr.CodeFenced:             {http.StatusConflict, "Conflict", "Fenced", "read the resource again"},
	dr.CodePreconditionFailed: {http.StatusPreconditionFailed, "PreconditionFailed", "", "read the resource again and use its etag"},
	dr.CodeUnauthenticated:    {http.StatusUnauthorized, "AuthenticationFailed", "", "send a valid token"},
	dr.CodeForbidden:          {http.StatusForbidden, "AuthorizationFailed", "", "use a token of a higher role"},
	dr.CodeUnavailable:        {http.StatusServiceUnavailable, "ServiceUnavailable", "", "try again later"},
	dr.CodeExhausted:          {http.StatusTooManyRequests, "TooManyRequests", "", "try again later"},
	dr.CodeCorrupt:            {http.StatusConflict, "DataCorrupt", "", "use another recovery point"},
	dr.CodeUnimplemented:      {http.StatusNotImplemented, "NotImplemented", "Unimplemented", "use one of the operations that this server serves"},
}

func fromDomain(e *dr.Error) refusal {
	m := domainStatus[e.Code]
	if m.status == 0 {
		m.status, m.code, m.action = http.StatusConflict, "Conflict", "read the resource again"
	}
	out := refusal{Status: m.status, Code: m.code, Detail: m.detail, Message: e.Message, Causes: e.PossibleCauses, Action: e.RecommendedAction}
	if out.Causes == "" {
		out.Causes = e.Message
	}
	if out.Action == "" {
		out.Action = m.action
	}
	return out
}

func (s *server) notFound(w http.ResponseWriter, r *http.Request) {
	s.refuse(w, r, refusal{Status: http.StatusNotFound, Code: "InvalidResourceType", Message: "nothing is served at " + printable(of(r).path),
		Causes: "the path is misspelled, or the operation is not part of this version", Action: "compare the path with /openapi.json"})
}

func (s *server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	allowed := []string{}
	if item := s.doc.spec.Paths.Find(of(r).template); item != nil && of(r).template != "" {
		for m := range item.Operations() {
			allowed = append(allowed, m)
		}
	}
	slices.Sort(allowed)
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	s.refuse(w, r, refusal{Status: http.StatusMethodNotAllowed, Code: "MethodNotAllowed", Message: fmt.Sprintf("%s is not served at %s", printable(r.Method), printable(of(r).path)),
		Causes: "the operation is asked for with another method", Action: "use one of: " + strings.Join(allowed, ", ")})
}

// badParameter answers for the generated code, which meets only what admit let through.
func (s *server) badParameter(w http.ResponseWriter, r *http.Request, err error) {
	s.refuse(w, r, refusal{Status: http.StatusBadRequest, Code: "InvalidParameter", Message: err.Error(), Causes: "a parameter is of the wrong type", Action: "compare the request with /openapi.json"})
}

// invalidRequest turns what validation found into one answer that names every field.
func invalidRequest(err error) refusal {
	found := map[string]string{} // target to reason
	collect(err, "", found)
	targets := make([]string, 0, len(found))
	for t := range found {
		targets = append(targets, t)
	}
	sort.Strings(targets)
	out := refusal{Status: http.StatusBadRequest, Code: "InvalidRequestContent"}
	messages := make([]string, 0, len(targets))
	for _, t := range targets {
		m := found[t]
		if t != "" {
			m = t + ": " + m
		}
		messages = append(messages, m)
		out.Details = append(out.Details, oas.ErrorDetail{Code: "InvalidParameter", Target: t, Message: m, PossibleCauses: "the field is missing, of the wrong type, or outside its limits",
			RecommendedAction: "compare the field with the schema in /openapi.json"})
	}
	if len(targets) > 0 {
		out.Target = targets[0]
	}
	out.Message = "the request is not valid: " + strings.Join(messages, "; ")
	return out
}

func collect(err error, at string, found map[string]string) {
	switch e := err.(type) { //nolint:errorlint // the tree is walked node by node
	case openapi3.MultiError:
		for _, one := range e {
			collect(one, at, found)
		}
	case *openapi3filter.RequestError:
		switch {
		case e.Parameter != nil:
			reason := e.Reason
			if reason == "" && e.Err != nil {
				reason = e.Err.Error()
			}
			found[e.Parameter.Name] = printable(reason)
		case e.Err == nil || errors.Is(e.Err, openapi3filter.ErrInvalidRequired):
			found["body"] = "a body is required"
		default:
			collect(e.Err, at, found)
		}
	case *openapi3.SchemaError:
		parts, above := e.JSONPointer(), splitPath(at)
		if len(parts) < len(above) || !slices.Equal(parts[:len(above)], above) { // an error inside a union may tell its way from the root already
			parts = append(above, parts...)
		}
		path := strings.Join(parts, ".")
		if e.Origin != nil {
			if m, ok := errors.AsType[openapi3.MultiError](e.Origin); ok {
				collect(m, path, found)
				return
			}
		}
		found[path] = reasonOf(e)
	default:
		found[at] = printable(err.Error())
	}
}

func splitPath(p string) []string {
	if p == "" {
		return nil
	}
	return strings.Split(p, ".")
}

func reasonOf(e *openapi3.SchemaError) string {
	switch {
	case e.SchemaField == "required":
		return "is required"
	case e.SchemaField == "discriminator" && e.Schema != nil && e.Schema.Discriminator != nil:
		known := make([]string, 0, len(e.Schema.Discriminator.Mapping))
		for k := range e.Schema.Discriminator.Mapping {
			known = append(known, k)
		}
		slices.Sort(known)
		return fmt.Sprintf("%s has to be one of: %s", e.Schema.Discriminator.PropertyName, strings.Join(known, ", "))
	default:
		return e.Reason
	}
}
