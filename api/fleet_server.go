package api

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/go-chi/chi/v5"

	"github.com/lifeboat-dr/lifeboat/api/fleetoas"
	"github.com/lifeboat-dr/lifeboat/openapi"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/fleet"
)

const (
	maxFleetBody = 16 << 20 // a complete list of points is the longest
	maxArtifact  = 8 << 20
)

// NewFleetHandler serves the fleet control protocol (openapi/fleet) under /fleet/v1. Callers show their client certificate in
// the TLS handshake; the listener must ask for one (tls.RequestClientCert) and need not verify it, because who signed it depends
// on whose it is.
//
// Requests are checked against the document before anything else looks at them. It panics when the document that is compiled in
// cannot be read.
func NewFleetHandler(svc *fleet.Service, log *slog.Logger) http.Handler {
	h := fleetErrors{log: log}
	spec, err := openapi3.NewLoader().LoadFromData(openapi.Fleet)
	if err != nil {
		panic(fmt.Sprintf("api: the fleet document cannot be read: %v", err))
	}
	strict := fleetoas.NewStrictHandlerWithOptions(&fleetServer{svc: svc}, []fleetoas.StrictMiddlewareFunc{authenticateFleet(svc), newGuesses().limit},
		fleetoas.StrictHTTPServerOptions{RequestErrorHandlerFunc: h.request, ResponseErrorHandlerFunc: h.response})
	r := chi.NewRouter()
	r.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxFleetBody)
			next.ServeHTTP(w, r)
		})
	})
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		h.response(w, r, &dr.Error{Code: dr.CodeNotFound, Message: "There is no such call in the fleet protocol."})
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		writeFleetError(w, http.StatusMethodNotAllowed, fleetoas.Error{Code: string(dr.CodeInvalid), Message: "The method is not allowed here."})
	})
	return fleetoas.HandlerWithOptions(strict, fleetoas.ChiServerOptions{BaseRouter: r, ErrorHandlerFunc: h.request, Middlewares: []fleetoas.MiddlewareFunc{h.validate(spec)}})
}

// validate refuses requests that do not fit the document. It runs after routing: the router alone decides which operation a
// request is.
func (f fleetErrors) validate(spec *openapi3.T) fleetoas.MiddlewareFunc {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			route := chi.RouteContext(r.Context())
			item := spec.Paths.Value(route.RoutePattern())
			if item == nil || item.GetOperation(r.Method) == nil {
				f.response(w, r, fmt.Errorf("%s %s is served and not in the document", r.Method, route.RoutePattern()))
				return
			}
			params := map[string]string{}
			for i, k := range route.URLParams.Keys {
				params[k] = route.URLParams.Values[i]
			}
			err := openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
				Request: r, PathParams: params, QueryParams: r.URL.Query(),
				Route: &routers.Route{Spec: spec, Path: route.RoutePattern(), PathItem: item, Method: r.Method, Operation: item.GetOperation(r.Method)},
				// An artifact's body is bytes and is bounded where it is read.
				Options: &openapi3filter.Options{MultiError: true, SkipSettingDefaults: true, ExcludeRequestBody: r.Method == http.MethodPut,
					AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
			})
			if _, long := errors.AsType[*http.MaxBytesError](err); long {
				f.request(w, r, err)
				return
			}
			if err != nil {
				f.response(w, r, &dr.Error{Code: dr.CodeInvalid, Message: invalidRequest(err).Message, PossibleCauses: "The caller is of another version.",
					RecommendedAction: "Use agents and replicators of lifeboatd's version."})
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

type fleetCallerKey struct{}

// authenticateFleet puts the caller into the context of every call but enrol.
func authenticateFleet(svc *fleet.Service) fleetoas.StrictMiddlewareFunc {
	return func(next fleetoas.StrictHandlerFunc, operation string) fleetoas.StrictHandlerFunc {
		if operation == "Enroll" {
			return next
		}
		return func(ctx context.Context, w http.ResponseWriter, r *http.Request, request any) (any, error) {
			var cert *x509.Certificate
			if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
				cert = r.TLS.PeerCertificates[0]
			}
			caller, err := svc.Authenticate(ctx, cert)
			if err != nil {
				return nil, err
			}
			return next(context.WithValue(ctx, fleetCallerKey{}, caller), w, r, request)
		}
	}
}

func fleetCaller(ctx context.Context) fleet.Caller {
	c, _ := ctx.Value(fleetCallerKey{}).(fleet.Caller)
	return c
}

// fleetErrors writes refusals as the protocol's ErrorBody. A cause is logged and never shown.
type fleetErrors struct{ log *slog.Logger }

// request handles what could not be read as the operation's request.
func (f fleetErrors) request(w http.ResponseWriter, r *http.Request, err error) {
	e := &dr.Error{Code: dr.CodeInvalid, Message: "The request cannot be read: " + err.Error()}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		e = &dr.Error{Code: dr.CodeExhausted, Message: "The request is too long."}
	}
	f.response(w, r, e)
}

func (f fleetErrors) response(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return // the caller left; nobody reads an answer
	}
	body := fleetoas.Error{Code: string(dr.CodeInternal), Message: "The server met an error of its own."}
	if e, ok := errors.AsType[*dr.Error](err); ok {
		body = fleetoas.Error{Code: string(e.Code), Message: e.Message, PossibleCauses: e.PossibleCauses, RecommendedAction: e.RecommendedAction}
	}
	status := fleetStatus(dr.Code(body.Code))
	if status >= http.StatusInternalServerError && f.log != nil {
		f.log.ErrorContext(r.Context(), "fleet call ended in an error", "path", r.URL.Path, "err", err)
	}
	writeFleetError(w, status, body)
}

func writeFleetError(w http.ResponseWriter, status int, e fleetoas.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(fleetoas.ErrorBody{Error: e}) // the caller may have left
}

func fleetStatus(c dr.Code) int {
	switch c {
	case dr.CodeInvalid:
		return http.StatusBadRequest
	case dr.CodeUnauthenticated:
		return http.StatusUnauthorized
	case dr.CodeForbidden:
		return http.StatusForbidden
	case dr.CodeNotFound:
		return http.StatusNotFound
	case dr.CodeConflict, dr.CodeFenced:
		return http.StatusConflict
	case dr.CodePreconditionFailed:
		return http.StatusPreconditionFailed
	case dr.CodeExhausted:
		return http.StatusTooManyRequests
	case dr.CodeUnavailable:
		return http.StatusServiceUnavailable
	case dr.CodeUnimplemented:
		return http.StatusNotImplemented
	default:
		return http.StatusInternalServerError
	}
}

// fleetServer implements the protocol's operations on fleet.Service.
type fleetServer struct{ svc *fleet.Service }

func seconds(n int) time.Duration { return time.Duration(min(max(n, 0), 60)) * time.Second }

func (s *fleetServer) Enroll(ctx context.Context, r fleetoas.EnrollRequestObject) (fleetoas.EnrollResponseObject, error) {
	e, err := s.svc.Enrol(ctx, fleet.EnrolRequest{RegistrationKey: r.Body.RegistrationKey, Role: fleet.Role(r.Body.Role), CSR: r.Body.Csr,
		Hostname: r.Body.Hostname, Site: r.Body.Site, Machine: machineFromWire(r.Body.Machine)})
	if err != nil {
		return nil, err
	}
	return fleetoas.Enroll200JSONResponse(enrolmentToWire(e)), nil
}

func (s *fleetServer) Renew(ctx context.Context, r fleetoas.RenewRequestObject) (fleetoas.RenewResponseObject, error) {
	e, err := s.svc.Renew(ctx, fleetCaller(ctx), r.Body.Csr)
	if err != nil {
		return nil, err
	}
	return fleetoas.Renew200JSONResponse(enrolmentToWire(e)), nil
}

func (s *fleetServer) SyncAgent(ctx context.Context, r fleetoas.SyncAgentRequestObject) (fleetoas.SyncAgentResponseObject, error) {
	d, err := s.svc.SyncAgent(ctx, fleetCaller(ctx), agentReportFromWire(*r.Body), seconds(r.Params.WaitSeconds))
	if err != nil {
		return nil, err
	}
	return fleetoas.SyncAgent200JSONResponse(agentDesiredToWire(d)), nil
}

func (s *fleetServer) SyncReplicator(ctx context.Context, r fleetoas.SyncReplicatorRequestObject) (fleetoas.SyncReplicatorResponseObject, error) {
	d, err := s.svc.SyncReplicator(ctx, fleetCaller(ctx), replicatorReportFromWire(*r.Body), seconds(r.Params.WaitSeconds))
	if err != nil {
		return nil, err
	}
	return fleetoas.SyncReplicator200JSONResponse(replicatorDesiredToWire(d)), nil
}

func (s *fleetServer) ReportPoints(ctx context.Context, r fleetoas.ReportPointsRequestObject) (fleetoas.ReportPointsResponseObject, error) {
	points := make([]dr.Point, 0, len(r.Body.Points))
	for _, p := range r.Body.Points {
		points = append(points, pointFromWire(p))
	}
	damaged := make([]dr.PointRef, 0, len(r.Body.Damaged))
	for _, d := range r.Body.Damaged {
		damaged = append(damaged, dr.PointRef{Generation: d.Generation, Sequence: d.Sequence})
	}
	if err := s.svc.RecordPoints(ctx, fleetCaller(ctx), r.Body.VaultId, dr.ItemID(r.Body.MachineId), points, r.Body.Complete, damaged...); err != nil {
		return nil, err
	}
	return fleetoas.ReportPoints204Response{}, nil
}

func (s *fleetServer) LeaseTask(ctx context.Context, r fleetoas.LeaseTaskRequestObject) (fleetoas.LeaseTaskResponseObject, error) {
	routes := make([]fleet.Route, 0, len(r.Body.Routes))
	for _, x := range r.Body.Routes {
		routes = append(routes, fleet.Route{Site: x.Site, Capability: x.Capability})
	}
	d, err := s.svc.Lease(ctx, fleetCaller(ctx), routes, seconds(r.Params.WaitSeconds))
	if err != nil {
		return nil, err
	}
	if d == nil {
		return fleetoas.LeaseTask204Response{}, nil
	}
	payload := d.Payload
	if len(payload) == 0 {
		payload = json.RawMessage("{}")
	}
	return fleetoas.LeaseTask200JSONResponse{TaskId: d.TaskID, JobId: d.JobID, Kind: d.Kind, Token: d.Token, LeaseMillis: d.Lease.Milliseconds(),
		Attempt: d.Attempt, Route: fleetoas.Route{Site: d.Route.Site, Capability: d.Route.Capability}, Cancelled: d.Cancelled, Payload: payload}, nil
}

func (s *fleetServer) RenewTask(ctx context.Context, r fleetoas.RenewTaskRequestObject) (fleetoas.RenewTaskResponseObject, error) {
	p := fleet.Progress{DoneBytes: r.Body.Progress.DoneBytes, TotalBytes: r.Body.Progress.TotalBytes, Note: r.Body.Progress.Note}
	cancelled, err := s.svc.RenewTask(ctx, fleetCaller(ctx), r.TaskId, r.Body.Token, p)
	if err != nil {
		return nil, err
	}
	return fleetoas.RenewTask200JSONResponse{Cancelled: cancelled}, nil
}

func (s *fleetServer) FinishTask(ctx context.Context, r fleetoas.FinishTaskRequestObject) (fleetoas.FinishTaskResponseObject, error) {
	res := fleet.Result{Output: r.Body.Result}
	if e := r.Body.Error; e != (fleetoas.Error{}) {
		res.Failure = &fleet.Failure{Code: e.Code, Message: e.Message, PossibleCauses: e.PossibleCauses, RecommendedAction: e.RecommendedAction}
	}
	if err := s.svc.FinishTask(ctx, fleetCaller(ctx), r.TaskId, r.Body.Token, res); err != nil {
		return nil, err
	}
	return fleetoas.FinishTask204Response{}, nil
}

func (s *fleetServer) PutArtifact(ctx context.Context, r fleetoas.PutArtifactRequestObject) (fleetoas.PutArtifactResponseObject, error) {
	content, err := io.ReadAll(io.LimitReader(r.Body, maxArtifact+1))
	if err != nil {
		return nil, &dr.Error{Code: dr.CodeInvalid, Message: "The file cannot be read.", Err: err}
	}
	if len(content) > maxArtifact {
		return nil, &dr.Error{Code: dr.CodeExhausted, Message: "The file is longer than 8 MiB."}
	}
	if err := s.svc.PutArtifact(ctx, fleetCaller(ctx), r.JobId, r.ArtifactName, content); err != nil {
		return nil, err
	}
	return fleetoas.PutArtifact204Response{}, nil
}
