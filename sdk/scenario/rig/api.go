package rig

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// apiVersion is sent with every request.
const apiVersion = "2025-01-01"

// API speaks to lifeboatd's REST interface with nothing but HTTP and JSON. Requests that meet no server, or one that is not
// ready, are repeated until ctx ends: rigs kill servers. Safe for concurrent use.
type API struct {
	base  string // https://host:port
	token string
	http  *http.Client
}

// Object is a JSON object.
type Object = map[string]any

// StatusError is an answer that refuses.
type StatusError struct {
	Method, Path string
	Status       int
	Code         string
	Message      string
	Body         string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: %d %s: %s\n%s", e.Method, e.Path, e.Status, e.Code, e.Message, e.Body)
}

// OpenAPI reads the token and the authority that lifeboatd leaves in its data directory.
func OpenAPI(dataDir, address string) (*API, error) {
	token, err := os.ReadFile(filepath.Join(dataDir, "admin.token"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dataDir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s/ca.pem holds no certificate", dataDir)
	}
	return &API{
		base: "https://" + address, token: strings.TrimSpace(string(token)),
		http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}},
	}, nil
}

// Close drops idle connections.
func (a *API) Close() { a.http.CloseIdleConnections() }

// Do makes one request. body is sent as JSON unless nil; a JSON answer is decoded into out unless nil. Refusals are
// *StatusError.
func (a *API) Do(ctx context.Context, method, path string, body, out any) (http.Header, error) {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	for {
		header, answer, err := a.once(ctx, method, path, payload)
		if err == nil && out != nil {
			if raw, ok := out.(*[]byte); ok {
				*raw = answer
			} else if err = json.Unmarshal(answer, out); err != nil {
				err = fmt.Errorf("%s %s: %w: %.300s", method, path, err, answer)
			}
			return header, err
		}
		refused, isRefused := errors.AsType[*StatusError](err)
		if err == nil || isRefused && refused.Status != http.StatusServiceUnavailable && refused.Status != http.StatusTooManyRequests {
			return header, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (a *API) once(ctx context.Context, method, path string, payload []byte) (http.Header, []byte, error) {
	url := a.base + path
	if strings.HasPrefix(path, "https://") {
		url = path
	}
	if !strings.Contains(url, "api-version=") {
		sep := "?"
		if strings.Contains(url, "?") {
			sep = "&"
		}
		url += sep + "api-version=" + apiVersion
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(payload))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode >= 400 {
		refused := &StatusError{Method: method, Path: path, Status: resp.StatusCode, Body: string(answer)}
		var envelope struct {
			Error struct{ Code, Message string }
		}
		if json.Unmarshal(answer, &envelope) == nil {
			refused.Code, refused.Message = envelope.Error.Code, envelope.Error.Message
		}
		return resp.Header, nil, refused
	}
	return resp.Header, answer, nil
}

// Get reads a resource.
func (a *API) Get(ctx context.Context, path string) (Object, error) {
	var o Object
	_, err := a.Do(ctx, http.MethodGet, path, nil, &o)
	return o, err
}

// List reads all pages of a collection.
func (a *API) List(ctx context.Context, path string) ([]Object, error) {
	var all []Object
	for path != "" {
		var page struct {
			Value    []Object `json:"value"`
			NextLink string   `json:"nextLink"`
		}
		if _, err := a.Do(ctx, http.MethodGet, path, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Value...)
		path = page.NextLink
	}
	return all, nil
}

// Job is a job as far as scenarios look at it.
type Job struct {
	Name       string
	Scenario   string
	State      string
	Started    time.Time
	Ended      time.Time
	Properties Object
}

// Start begins a long-running operation and returns the name of its job.
func (a *API) Start(ctx context.Context, method, path string, body any) (string, error) {
	header, err := a.Do(ctx, method, path, body, nil)
	if err != nil {
		return "", err
	}
	location := header.Get("Location")
	_, rest, ok := strings.Cut(location, "/operationresults/")
	if !ok {
		return "", fmt.Errorf("%s %s: no operation in Location %q", method, path, location)
	}
	name, _, _ := strings.Cut(rest, "?")
	return name, nil
}

// At picks a nested value: keys of objects, parted by dots. Nil when something on the way is missing.
func At(o Object, path string) any {
	var v any = o
	for key := range strings.SplitSeq(path, ".") {
		m, ok := v.(Object)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

// Text is At for text; empty when there is none.
func Text(o Object, path string) string {
	s, _ := At(o, path).(string)
	return s
}

// Number is At for numbers; 0 when there is none.
func Number(o Object, path string) float64 {
	n, _ := At(o, path).(float64)
	return n
}
