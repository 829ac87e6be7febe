package sdk

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

// Codes that this package itself gives to errors; all others are the server's.
const (
	// CodeUnreachable: nothing answered at the endpoint.
	CodeUnreachable = "Unreachable"
	// CodeUntrusted: what answers is not signed by an authority that Config trusts.
	CodeUntrusted = "UntrustedServer"
	// CodeNotFound: a name that was looked up among the resources of a vault is not there.
	CodeNotFound = "NotFound"
	// CodeAmbiguous: a choice was left to this package, and there is more than one.
	CodeAmbiguous = "Ambiguous"
)

// Error is a request that was refused, or could not be made. It has three readers: Code is for programs, PossibleCauses and
// RecommendedAction for who operates, RequestID finds the request in the server's log.
type Error struct {
	Status            int // of HTTP; 0 when no answer came
	Code              string
	Message           string
	Target            string // the field or resource that the error is about
	PossibleCauses    string
	RecommendedAction string
	RequestID         string
	Err               error // below this one, if any
}

// Error implements error: code and message, without cause and remedy.
func (e *Error) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return e.Message + " (" + e.Code + ")"
}

// Unwrap gives what went wrong below.
func (e *Error) Unwrap() error { return e.Err }

// IsNotFound reports whether err says that a resource is not there.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Status == http.StatusNotFound || e.Code == CodeNotFound)
}

// OperationError is a job that ended in another way than asked for. The request itself had been accepted.
type OperationError struct {
	JobID  string
	Status string // Failed or Canceled
	Err    *Error
}

// Error implements error.
func (e *OperationError) Error() string {
	return fmt.Sprintf("job %s %s: %v", e.JobID, strings.ToLower(e.Status), e.Err)
}

// Unwrap gives what the job says.
func (e *OperationError) Unwrap() error { return e.Err }

// maxAnswer bounds what is read of an answer: bytes.
const maxAnswer = 64 << 20

// decode ends a request: v is the answer's body, or the zero value when there is none.
func decode[T any](resp *http.Response, err error) (v T, _ error) {
	if err != nil {
		return v, err
	}
	body, err := answer(resp)
	if err != nil || len(body) == 0 {
		return v, err
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("read the answer to %s %s: %w", resp.Request.Method, resp.Request.URL.Path, err)
	}
	return v, nil
}

// answer reads and closes the body. Refusals are *Error.
func answer(resp *http.Response) ([]byte, error) {
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer to %s %s: %w", resp.Request.Method, resp.Request.URL.Path, err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("the answer to %s %s is longer than %d bytes", resp.Request.Method, resp.Request.URL.Path, maxAnswer)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return nil, refused(resp, body)
	}
	return body, nil
}

// refused reads the ARM envelope. An answer without one, as proxies send, is told by its status.
func refused(resp *http.Response, body []byte) *Error {
	var envelope oas.ErrorResponse
	if json.Unmarshal(body, &envelope) != nil || envelope.Error.Message == "" {
		envelope.Error = oas.ErrorBody{Code: or(resp.Header.Get("x-ms-error-code"), http.StatusText(resp.StatusCode)),
			Message: fmt.Sprintf("%s %s was answered with %s", resp.Request.Method, resp.Request.URL.Path, resp.Status)}
	}
	e := errorOf(envelope.Error)
	e.Status, e.RequestID = resp.StatusCode, or(e.RequestID, resp.Header.Get("x-ms-correlation-request-id"))
	return e
}

// errorOf joins the details, of which a request with several wrong fields has several.
func errorOf(b oas.ErrorBody) *Error {
	e := &Error{Code: b.Code, Message: b.Message, Target: b.Target}
	for _, d := range b.Details {
		e.PossibleCauses = addSentence(e.PossibleCauses, d.PossibleCauses)
		e.RecommendedAction = addSentence(e.RecommendedAction, d.RecommendedAction)
		e.RequestID = or(e.RequestID, d.ActivityId)
	}
	return e
}

func addSentence(all, one string) string {
	switch {
	case one == "" || strings.Contains(all, one):
		return all
	case all == "":
		return one
	}
	return all + "; " + one
}

func unreachable(at *url.URL, err error) *Error {
	cause := err
	if u, ok := errors.AsType[*url.Error](err); ok {
		cause = u.Err
	}
	e := &Error{Code: CodeUnreachable, Message: "no answer from " + at.String(), PossibleCauses: cause.Error(), Err: err,
		RecommendedAction: "check that lifeboatd runs and that the endpoint is its address"}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		e.Code, e.Message = CodeUntrusted, at.String()+" is not trusted"
		e.RecommendedAction = "give the CA certificate that lifeboatd left in its data directory as ca.pem, and a host name that its certificate has"
	}
	return e
}

func notFound(what, name, where, action string) *Error {
	return &Error{Code: CodeNotFound, Message: fmt.Sprintf("%s %q is not in %s", what, name, where), PossibleCauses: "the name is misspelled, or it is elsewhere", RecommendedAction: action}
}

func ambiguous(message, cause, action string) *Error {
	return &Error{Code: CodeAmbiguous, Message: message, PossibleCauses: cause, RecommendedAction: action}
}
