package api

import (
	"encoding/csv"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// fieldOperation is a row of testdata/operations.csv: an operation as the field's clients know it.
type fieldOperation struct {
	id, method, path string
	codes            []int
	long             bool
	request, answer  string // names of the types; empty: none
	query            []string
}

func fieldOperations(t *testing.T) (out []fieldOperation) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "operations.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		o := fieldOperation{id: row[0], method: row[1], path: row[2], long: row[3] == "yes", request: row[5], answer: row[6], query: strings.Fields(row[7])}
		for _, c := range strings.Split(row[4], "|") {
			n, err := strconv.Atoi(c)
			if err != nil {
				t.Fatalf("%s: %v", o.id, err)
			}
			o.codes = append(o.codes, n)
		}
		out = append(out, o)
	}
	if len(out) != 176 {
		t.Fatalf("the table has %d rows, want 176", len(out))
	}
	return out
}

// documented finds the operation of the document at the row's path, whose parameters may have other names.
func documented(s *server, o fieldOperation) (operation, bool) {
	_, template := s.doc.paths.find(strings.Split(strings.Trim(o.path, "/"), "/"))
	op, ok := s.doc.operations[o.method+" "+template]
	return op, ok
}

// Rows in parentheses are facts of the wire that the field's own specification leaves out. The provider's list has the same id
// there as the resource group's.
func idIs(op operation, row string) bool {
	return strings.HasPrefix(row, "(") || strings.HasSuffix(row, "(provider level)") || strings.EqualFold(op.op.OperationID, row)
}

// Every operation of the field is in the document under its own id, takes and answers the same types, knows the same query
// parameters, and lists no success code that clients would not accept.
func TestEveryOperationOfTheFieldIsDocumented(t *testing.T) {
	t.Parallel()
	s := newSite(t).server
	for _, o := range fieldOperations(t) {
		if strings.HasPrefix(o.path, "{url of the resource") {
			continue // TestEveryLongOperationHasItsResult
		}
		op, ok := documented(s, o)
		if !ok {
			t.Errorf("%s: no %s %s", o.id, o.method, o.path)
			continue
		}
		if !idIs(op, o.id) {
			t.Errorf("%s is called %s", o.id, op.op.OperationID)
		}
		succeeds := false
		for code := range op.op.Responses.Map() {
			n, err := strconv.Atoi(code)
			if err != nil {
				continue // default
			}
			succeeds = true
			if !slices.Contains(o.codes, n) {
				t.Errorf("%s answers %d, clients take %v", o.id, n, o.codes)
			}
		}
		if !succeeds {
			t.Errorf("%s never succeeds", o.id)
		}
		request := ""
		if op.op.RequestBody != nil {
			request = path.Base(op.op.RequestBody.Value.Content.Get("application/json").Schema.Ref)
		}
		if request != o.request {
			t.Errorf("%s takes %q, want %q", o.id, request, o.request)
		}
		answer := ""
		if ok := op.op.Responses.Status(http.StatusOK); ok != nil && len(ok.Value.Content) > 0 {
			answer = path.Base(ok.Value.Content.Get("application/json").Schema.Ref)
		}
		if !strings.HasPrefix(o.id, "(") && answer != o.answer && answersAs[o.answer] != answer {
			t.Errorf("%s answers %q, want %q", o.id, answer, o.answer)
		}
		for _, q := range o.query {
			known := op.op.Parameters.GetByInAndName("query", q) != nil || op.item.Parameters.GetByInAndName("query", q) != nil
			if !known {
				t.Errorf("%s does not know the query parameter %s", o.id, q)
			}
		}
	}
}

// Types that have another name here.
var answersAs = map[string]string{"OperationResource": "OperationStatus"}

// Whoever gets a 202 is told to ask at operationresults below the resource: that has to be served for each. The result of an
// export is its job.
func TestEveryLongOperationHasItsResult(t *testing.T) {
	t.Parallel()
	s := newSite(t).server
	for key, op := range s.doc.operations {
		if long, _ := op.op.Extensions["x-ms-long-running-operation"].(bool); !long || refusedAlways(op.path) || strings.HasSuffix(op.path, "/replicationJobs/export") {
			continue
		}
		method, at, _ := strings.Cut(key, " ")
		if method == http.MethodPost {
			at = path.Dir(at)
		}
		_, template := s.doc.paths.find(strings.Split(strings.Trim(at+"/operationresults/job", "/"), "/"))
		if _, ok := s.doc.operations["GET "+template]; !ok || !strings.EqualFold(path.Base(path.Dir(template)), "operationresults") {
			t.Errorf("%s: no operationresults below %s", key, at)
		}
	}
}

// refusedAlways tells what is checked and refused, and so never answers 202.
func refusedAlways(path string) bool {
	return strings.Contains(path, "/replicationMigrationItems") || strings.Contains(path, "/replicationProtectionClusters") || strings.HasSuffix(path, "/switchClusterProtection")
}

// Every operation of the field reaches its handler on a furnished vault with the document's own example. What it names may not
// exist: then the answer is a refusal with an ARM error that says why, and never one of the router, of validation, or a fault.
func TestEveryOperationOfTheFieldIsServed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	container := s.furnish()
	inPath := strings.NewReplacer("{subscriptionId}", "sub", "{resourceGroupName}", "rg", "{resourceName}", "v1", "{vaultName}", "v1", "{fabricName}", "site1",
		"{protectionContainerName}", container[strings.LastIndexByte(container, '/')+1:], "{location}", "here", "{alertSettingName}", "defaultAlertSetting", "{vaultSettingName}", "default")
	removals := func(o fieldOperation) bool {
		return o.method == http.MethodDelete || strings.HasSuffix(o.path, "/remove") || strings.HasSuffix(o.path, "/removeInfra")
	}
	rows := fieldOperations(t)
	slices.SortStableFunc(rows, func(a, b fieldOperation) int { // what removes comes last, from the leaves to the vault
		if removals(a) != removals(b) {
			if removals(a) {
				return 1
			}
			return -1
		}
		if removals(a) {
			return len(b.path) - len(a.path)
		}
		return 0
	})
	for _, o := range rows {
		if strings.HasPrefix(o.path, "{url of the resource") {
			continue
		}
		op, ok := documented(s.server, o)
		if !ok {
			continue // TestEveryOperationOfTheFieldIsDocumented
		}
		at := replaceParams([]byte(inPath.Replace(o.path)))
		a := s.send(RoleContributor, o.method, string(at), exampleOf(t, op))
		code := a.header.Get("x-ms-error-code")
		switch {
		case slices.Contains(o.codes, a.status) || a.status == http.StatusCreated && o.id == "Vaults_CreateOrUpdate":
			if refusedAlways(o.path) && o.method != http.MethodGet && o.method != http.MethodDelete {
				t.Errorf("%s succeeded: %s", o.id, a)
			}
		case code == "" || code == "InvalidResourceType" || code == "MethodNotAllowed" || code == "InvalidRequestContent" || a.status == http.StatusInternalServerError:
			t.Errorf("%s: got %s", o.id, a)
		case a.at("error.details.0.possibleCauses") == nil || a.at("error.details.0.recommendedAction") == nil:
			t.Errorf("%s: the refusal does not say why and what to do: %s", o.id, a)
		}
		if refusedAlways(o.path) && o.method != http.MethodGet && o.method != http.MethodDelete && a.status != http.StatusNotImplemented {
			t.Errorf("%s: got %s, want a refusal that says what to use instead", o.id, a)
		}
	}
}
