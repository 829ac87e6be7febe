package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// Types of resources.
const (
	typeVault       = "Microsoft.RecoveryServices/vaults"
	typeFabric      = typeVault + "/replicationFabrics"
	typeProvider    = typeFabric + "/replicationRecoveryServicesProviders"
	typeContainer   = typeFabric + "/replicationProtectionContainers"
	typeProtectable = typeContainer + "/replicationProtectableItems"
	typeItem        = typeContainer + "/replicationProtectedItems"
	typePoint       = typeItem + "/recoveryPoints"
	typeMapping     = typeContainer + "/replicationProtectionContainerMappings"
	typePolicy      = typeVault + "/replicationPolicies"
	typePlan        = typeVault + "/replicationRecoveryPlans"
	typeJob         = typeVault + "/replicationJobs"
	typeEvent       = typeVault + "/replicationEvents"
	typeHealth      = typeVault + "/replicationVaultHealth"
)

// The recovery side of a leg to this server, as the field's service calls it (ref 1).
const (
	azure          = "Microsoft Azure"
	azureFabric    = "d49858f157601230a6ac5862fbbc6e63bf38d23ecd96cf953767945d457fe9d5"
	azureContainer = "d38048d4-b460-4791-8ece-108395ee8478"
)

func vaultPath(k dr.VaultKey) string {
	return "/subscriptions/" + k.Subscription + "/resourceGroups/" + k.ResourceGroup + "/providers/Microsoft.RecoveryServices/vaults/" + k.Name
}

// scope is a vault and what the path names below it. Paths it makes are ids: they hold names as they are, unescaped.
type scope struct {
	vault dr.Vault
	base  string // the vault's id
	names map[string]string
	// origin and version make URLs of answers that clients follow.
	origin, version string
}

func (c *scope) ref(name string) control.Ref {
	return control.Ref{Vault: c.vault.ID, Fabric: c.names["fabricName"], Container: c.names["protectionContainerName"], Name: c.names[name]}
}

func (c *scope) fabric(name string) string { return c.base + "/replicationFabrics/" + name }
func (c *scope) container(fabric, n string) string {
	return c.fabric(fabric) + "/replicationProtectionContainers/" + n
}
func (c *scope) item(i dr.Item) string {
	return c.container(i.Fabric, i.Container) + "/replicationProtectedItems/" + i.Name
}
func (c *scope) point(item, id string) string { return item + "/recoveryPoints/" + id }
func (c *scope) job(name string) string       { return c.base + "/replicationJobs/" + name }
func (c *scope) policy(name string) string    { return c.base + "/replicationPolicies/" + name }
func (c *scope) protectable(fabric, container, name string) string {
	return c.container(fabric, container) + "/replicationProtectableItems/" + name
}

func vaultKey(r *http.Request) dr.VaultKey {
	p := pathParams(r)
	name := p["resourceName"]
	if name == "" {
		name = p["vaultName"]
	}
	return dr.VaultKey{Subscription: p["subscriptionId"], ResourceGroup: p["resourceGroupName"], Name: name}
}

// in runs fn on the vault of the path and answers with the error it returns.
func (s *server) in(w http.ResponseWriter, r *http.Request, fn func(c *scope) error) {
	v, err := s.control.Vault(r.Context(), vaultKey(r))
	if err == nil {
		err = fn(&scope{vault: v, base: vaultPath(v.Key), names: pathParams(r), origin: s.origin(r), version: versionQuery(r)})
	}
	if err != nil {
		s.fail(w, r, err)
	}
}

// get answers with the body that fn makes.
func (s *server) get(w http.ResponseWriter, r *http.Request, fn func(c *scope) (any, error)) {
	s.in(w, r, func(c *scope) error {
		body, err := fn(c)
		if err == nil {
			writeJSON(w, http.StatusOK, body)
		}
		return err
	})
}

// change starts an operation and answers 202 with the two URLs that clients poll, or with the resource when there was nothing
// left to do.
func (s *server) change(w http.ResponseWriter, r *http.Request, start func(c *scope) (string, error), resource func(c *scope) (any, error)) {
	s.in(w, r, func(c *scope) error {
		job, err := start(c)
		if err != nil {
			return err
		}
		if job != "" {
			s.accept(w, r, c, job)
			return nil
		}
		body, err := resource(c)
		if err == nil {
			writeJSON(w, http.StatusOK, body)
		}
		return err
	})
}

// remove starts a removal and answers 202, or 204 when nothing is left.
func (s *server) remove(w http.ResponseWriter, r *http.Request, start func(c *scope) (string, error)) {
	s.in(w, r, func(c *scope) error {
		job, err := start(c)
		if err != nil {
			return err
		}
		if job != "" {
			s.accept(w, r, c, job)
			return nil
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// accept writes the 202 of a long-running operation: no body, and absolute URLs, because clients refuse others.
func (s *server) accept(w http.ResponseWriter, r *http.Request, c *scope, job string) {
	w.Header().Set("Azure-AsyncOperation", s.origin(r)+vaultOf(of(r).path)+"/replicationOperationStatus/"+url.PathEscape(job)+versionQuery(r))
	s.acceptLocation(w, r, c, job)
}

func (s *server) acceptLocation(w http.ResponseWriter, r *http.Request, c *scope, job string) {
	s.acceptAt(w, r, c, resourceOf(r), job)
}

// acceptAt is acceptLocation for an operation whose result is another resource than the one its path names.
func (s *server) acceptAt(w http.ResponseWriter, r *http.Request, c *scope, resource, job string) {
	x := of(r)
	x.job = job
	h := w.Header()
	h.Set("Location", s.origin(r)+resource+"/operationresults/"+url.PathEscape(job)+versionQuery(r))
	s.pollAgain(h)
	h.Set("x-ms-request-id", c.job(job))
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusAccepted)
}

func versionQuery(r *http.Request) string { return "?api-version=" + url.QueryEscape(of(r).apiVersion) }

// vaultOf cuts a path after the vault's name.
func vaultOf(path string) string {
	s := strings.SplitN(path, "/", 10)
	return strings.Join(s[:min(9, len(s))], "/")
}

// resourceOf is the path of the resource a request acts on, as the caller spelled it: an action's name is not part of it.
func resourceOf(r *http.Request) string {
	path := of(r).path
	if r.Method == http.MethodPost {
		path = path[:strings.LastIndexByte(path, '/')]
	}
	return path
}

// page answers with one page of a list. next becomes an absolute nextLink with everything else the caller sent.
func (s *server) paging(r *http.Request) (control.Paging, error) {
	p := control.Paging{Limit: s.cfg.PageSize}
	q := r.URL.Query()
	var err error
	if p.After, err = openSkipToken(of(r).path, q.Get("skipToken")+q.Get("$skipToken")); err != nil {
		return p, err
	}
	for _, name := range []string{"$take", "takeToken"} {
		take := q.Get(name)
		if take == "" {
			continue
		}
		n, err := strconv.Atoi(take)
		if err != nil || n < 1 {
			return p, &refusalError{refusal{Status: http.StatusBadRequest, Code: "InvalidParameter", Target: name, Message: name + " is not a positive number",
				Causes: fmt.Sprintf("%s is %q", name, printable(take)), Action: "send a number such as 100"}}
		}
		p.Limit = min(n, control.MaxPage)
	}
	return p, nil
}

func (s *server) nextLink(r *http.Request, next string) string {
	if next == "" {
		return ""
	}
	q := r.URL.Query()
	q.Del("skipToken")
	q.Del("$skipToken")
	name := "skipToken"
	if t := of(r).template; strings.HasSuffix(t, "/vaults") || strings.HasSuffix(t, "/replicationProtectableItems") {
		name = "$skipToken"
	}
	q.Set(name, skipToken(of(r).path, next))
	return s.origin(r) + of(r).path + "?" + q.Encode()
}

// shown makes the body of one resource from what find returns.
func shown[T, B any](find func(c *scope) (T, error), body func(c *scope, v T) B) func(c *scope) (any, error) {
	return func(c *scope) (any, error) {
		v, err := find(c)
		if err != nil {
			return nil, err
		}
		return body(c, v), nil
	}
}

// list answers with one page of a list.
func list[T, B any](s *server, w http.ResponseWriter, r *http.Request, read func(c *scope, p control.Paging) (control.Page[T], error), body func(c *scope, v T) B) {
	s.get(w, r, func(c *scope) (any, error) {
		p, err := s.paging(r)
		if err != nil {
			return nil, err
		}
		found, err := read(c, p)
		if err != nil {
			return nil, err
		}
		out := collection[B]{Value: make([]B, 0, len(found.Items)), NextLink: s.nextLink(r, found.Next)}
		for _, v := range found.Items {
			out.Value = append(out.Value, body(c, v))
		}
		return out, nil
	})
}

// collection is the shape that all lists share.
type collection[B any] struct {
	Value    []B    `json:"value"`
	NextLink string `json:"nextLink,omitempty"`
}

// operationResult answers what became of an operation: 202 while it runs, then the resource, or nothing when it is gone. The
// job decides, not the resource: after a removal neither it nor its parent need exist.
func (s *server) operationResult(w http.ResponseWriter, r *http.Request, param string, resource func(c *scope) (any, error)) {
	s.succeeded(w, r, param, func(c *scope, result control.OperationResult) error {
		if result.Gone {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		body, err := resource(c)
		if dr.CodeOf(err) == dr.CodeNotFound {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		if err == nil {
			writeJSON(w, http.StatusOK, body)
		}
		return err
	})
}

// succeeded lets then answer for an operation that has succeeded, and answers itself for every other.
func (s *server) succeeded(w http.ResponseWriter, r *http.Request, param string, then func(c *scope, result control.OperationResult) error) {
	s.in(w, r, func(c *scope) error {
		result, err := s.control.OperationResult(r.Context(), c.vault.ID, c.names[param])
		if err != nil {
			return err
		}
		switch result.Status.Status {
		case statusSucceeded:
			return then(c, result)
		case statusFailed, statusCanceled:
			s.refuse(w, r, endedBadly(result.Status))
		default:
			s.stillRunning(w, r)
		}
		return nil
	})
}

// pollAgain tells when to ask again. Retry-After has whole seconds; the official clients prefer the other header.
func (s *server) pollAgain(h http.Header) {
	h.Set("Retry-After", s.retryAfter())
	if s.cfg.RetryAfter%time.Second != 0 {
		h.Set("retry-after-ms", strconv.FormatInt(s.cfg.RetryAfter.Milliseconds(), 10))
	}
}

func (s *server) retryAfter() string {
	return strconv.Itoa(int((s.cfg.RetryAfter + time.Second - 1) / time.Second))
}

func (s *server) stillRunning(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Location", s.origin(r)+of(r).path+versionQuery(r))
	s.pollAgain(w.Header())
	w.WriteHeader(http.StatusAccepted)
}
