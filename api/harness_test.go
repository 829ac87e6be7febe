package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

// site is a served control plane on a store of its own. Every answer it gives is checked against the document.
type site struct {
	t       *testing.T
	control *control.Service
	server  *server
	web     *httptest.Server
}

const (
	testVersion = "2025-01-01"
	groupPath   = "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.RecoveryServices/vaults"
	vaultURL    = groupPath + "/v1"
)

var secrets = map[Role]string{RoleContributor: "contributor-secret", RoleOperator: "operator-secret", RoleReader: "reader-secret"}

func newSite(t *testing.T, change ...func(*Config)) *site {
	t.Helper()
	return newDrivenSite(t, nil, change...)
}

// newDrivenSite is a site whose workers have drivers for the providers.
func newDrivenSite(t *testing.T, drivers []dr.ProviderType, change ...func(*Config)) *site {
	t.Helper()
	db, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "lifeboat.db"))
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := control.NewKeySealer([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	ctl := control.New(control.Config{Store: db, Sealer: sealer, Drivers: drivers, BucketURL: func(id string) string { return "mem://" + id },
		MakeVault: func(string) (control.VaultSecrets, string, error) {
			return control.VaultSecrets{DataKey: make([]byte, 32), GrantKey: make([]byte, 32)}, "RECOVERY-KEY", nil
		},
		WrapKey: func(string, []byte) ([]byte, string, error) { return []byte("{}"), "ANOTHER-KEY", nil }})
	cfg := Config{Control: ctl, RetryAfter: 5 * time.Millisecond, Enrolment: Enrolment{CASHA256: strings.Repeat("ab", 32)}}
	tokens := []Token{}
	for role, secret := range secrets {
		tokens = append(tokens, Token{Name: strings.ToLower(string(role)), Role: role, Hash: HashToken(secret)})
	}
	cfg.Tokens = NewTokens(tokens...)
	for _, c := range change {
		c(&cfg)
	}
	s, err := newServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	site := &site{t: t, control: ctl, server: s}
	site.web = httptest.NewTLSServer(site.checked(s.handler()))
	t.Cleanup(func() {
		site.web.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return site
}

// checked compares every answer with the document: an answer that the document does not allow fails the test.
func (s *site) checked(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Accept-Encoding") // compression has a test of its own
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())

		_, template := s.server.doc.paths.find(strings.Split(strings.Trim(r.URL.EscapedPath(), "/"), "/"))
		op, ok := s.server.doc.operations[r.Method+" "+template]
		if !ok {
			return
		}
		err := openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, Route: &routers.Route{Spec: s.server.doc.spec, Path: op.path, PathItem: op.item, Method: r.Method, Operation: op.op}},
			Status:                 rec.Code, Header: rec.Header(), Body: io.NopCloser(bytes.NewReader(rec.Body.Bytes())),
			Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true}})
		if err != nil {
			s.t.Errorf("%s %s answered %d, which the document does not allow: %v\n%s", r.Method, r.URL.Path, rec.Code, err, rec.Body)
		}
		if op.op.Responses.Status(rec.Code) == nil && rec.Code < 400 {
			s.t.Errorf("%s %s answered %d, which the document does not list", r.Method, r.URL.Path, rec.Code)
		}
	})
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.raw) }

// at returns the value at a path of keys and indices such as error.details.0.message; nil when there is none.
func (a answer) at(path string) any {
	var v any = a.body
	for _, k := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[k]
		case []any:
			var i int
			if _, err := fmt.Sscan(k, &i); err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// send makes a request as the role. The path may hold a query; api-version is added unless it is there.
func (s *site) send(role Role, method, path, body string, headers ...string) answer {
	s.t.Helper()
	if !strings.Contains(path, "api-version") && !strings.Contains(path, "no-version") {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		path += sep + "api-version=" + testVersion
	}
	if !strings.HasPrefix(path, "http") {
		path = s.web.URL + path
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if secret := secrets[role]; secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := s.web.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, raw: raw}
	_ = json.Unmarshal(raw, &a.body) // not every answer is an object
	return a
}

// must makes a request that has to succeed with one of the codes.
func (s *site) must(want int, method, path, body string) answer {
	s.t.Helper()
	a := s.send(RoleContributor, method, path, body)
	if a.status != want {
		s.t.Fatalf("%s %s: got %s, want %d", method, path, a, want)
	}
	return a
}

// Bodies that tests need more than once.
const (
	vaultIn  = `{"location":"here","sku":{"name":"Standard"},"properties":{}}`
	fabricIn = `{"properties":{"customDetails":{"instanceType":"InMageRcm"}}}`
	policyIn = `{"properties":{"providerSpecificInput":{"instanceType":"InMageRcm","crashConsistentFrequencyInMinutes":5,"recoveryPointHistoryInMinutes":1440}}}`
)

func mappingIn() string {
	return `{"properties":{"policyId":"` + vaultURL + `/replicationPolicies/p1","targetProtectionContainerId":"Microsoft Azure"}}`
}

const fabricURL = vaultURL + "/replicationFabrics/site1"

// containerURL finds the one container of the fabric.
func (s *site) containerURL() string {
	s.t.Helper()
	a := s.must(200, "GET", fabricURL+"/replicationProtectionContainers", "")
	name, ok := a.at("value.0.name").(string)
	if !ok {
		s.t.Fatalf("the fabric has no container: %s", a)
	}
	return fabricURL + "/replicationProtectionContainers/" + url.PathEscape(name)
}

// furnish makes a vault, a fabric, a policy and a mapping, and returns the container's URL.
func (s *site) furnish() string {
	s.t.Helper()
	s.must(201, "PUT", vaultURL, vaultIn)
	s.must(202, "PUT", fabricURL, fabricIn)
	s.must(202, "PUT", vaultURL+"/replicationPolicies/p1", policyIn)
	c := s.containerURL()
	s.must(202, "PUT", c+"/replicationProtectionContainerMappings/m1", mappingIn())
	return c
}

var testMachine = dr.Machine{Hostname: "web01", ProductUUID: "11111111-2222-3333-4444-555555555555", Platform: "vm", OSType: "Linux", OSName: "Debian 13", CPUs: 2,
	MemoryBytes: 1 << 30, Firmware: "bios", IPAddresses: []string{"192.0.2.10"}, NICs: []dr.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01", IPAddresses: []string{"192.0.2.10"}}},
	Disks: []dr.MachineDisk{{ID: "vda", Path: "/dev/vda", SizeBytes: 1 << 30, SectorSize: 512, IsOSDisk: true, Mounts: []string{"/"}}, {ID: "vdb", Path: "/dev/vdb", SizeBytes: 2 << 30, SectorSize: 512}}}

// enrol lets an agent of the machine enrol with a key from the API, and returns the machine's protectable item.
func (s *site) enrol(container string) (item string, agent string) {
	s.t.Helper()
	key := s.must(200, "POST", fabricURL+"/generateRegistrationKey", `{"properties":{"role":"agent"}}`)
	e, err := s.control.EnrolAgent(s.t.Context(), key.at("registrationKey").(string), "fingerprint", testMachine)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.control.AgentSeen(s.t.Context(), e.ID, "0.1.0", testMachine, nil); err != nil {
		s.t.Fatal(err)
	}
	a := s.must(200, "GET", container+"/replicationProtectableItems", "")
	id, ok := a.at("value.0.id").(string)
	if !ok {
		s.t.Fatalf("the container has no machine: %s", a)
	}
	return id, e.ID
}

func enableIn(machine string) string {
	return `{"properties":{"policyId":"` + vaultURL + `/replicationPolicies/p1","protectableItemId":"` + machine + `","providerSpecificDetails":{"instanceType":"InMageRcm","fabricDiscoveryMachineId":"` +
		machine + `","processServerId":"any","targetResourceGroupId":"/subscriptions/sub/resourceGroups/rg","targetVmName":"web01-dr"}}}`
}
