package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/recoveryservices/armrecoveryservices"
	asr "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/recoveryservices/armrecoveryservicessiterecovery/v2"
)

// sweep calls methods of the Azure SDK for Go by their names and remembers what came of each. The names come from the SDK itself:
// a method that was never called fails the test.
type sweep struct {
	t       *testing.T
	clients map[string]reflect.Value // by package and name, such as siterecovery.ReplicationFabrics
	seen    map[string]outcome
	words   map[string]string // what stands for $name in arguments
}

// outcome is what a method led to: the type its result decoded to, or the refusal.
type outcome struct{ how, result, refusal string }

func newSweep(t *testing.T, s *site) *sweep {
	t.Helper()
	cred, opt := s.azure()
	sites, err := asr.NewClientFactory("sub", cred, opt)
	if err != nil {
		t.Fatal(err)
	}
	vaults, err := armrecoveryservices.NewClientFactory("sub", cred, opt)
	if err != nil {
		t.Fatal(err)
	}
	w := &sweep{t: t, clients: map[string]reflect.Value{}, seen: map[string]outcome{}, words: map[string]string{}}
	for pkg, factory := range map[string]reflect.Value{"siterecovery": reflect.ValueOf(sites), "recoveryservices": reflect.ValueOf(vaults)} {
		for i := range factory.NumMethod() {
			name := strings.TrimSuffix(strings.TrimPrefix(factory.Type().Method(i).Name, "New"), "Client")
			w.clients[pkg+"."+name] = factory.Method(i).Call(nil)[0]
		}
	}
	return w
}

// methods are all methods of all clients: each of them makes a request.
func (w *sweep) methods() (out []string) {
	for name, c := range w.clients {
		for i := range c.NumMethod() {
			out = append(out, name+"."+c.Type().Method(i).Name)
		}
	}
	slices.Sort(out)
	return out
}

// ok calls a method that has to succeed. Arguments are those between the context and the options: text as it is, anything else as
// JSON of the SDK's type. What comes back is the decoded result as JSON again; the pages of a list are put together.
func (w *sweep) ok(method string, args ...string) answer {
	w.t.Helper()
	return w.await(w.begin(method, args...))
}

// await is ok for a call that has begun.
func (w *sweep) await(c *call) answer {
	w.t.Helper()
	out, err := c.end()
	if err != nil {
		w.t.Fatalf("%s: %v", c.method, err)
	}
	result := c.result()
	if value, _ := out.at("value").([]any); c.how == "list" && len(value) == 0 {
		result += ", empty"
	}
	if o, ok := w.seen[c.method]; !ok || o.refusal != "" || strings.HasSuffix(o.result, ", empty") {
		w.seen[c.method] = outcome{how: c.how, result: result}
	}
	return out
}

// no calls a method that has to be refused with the status and the code, such as "409 Conflict", and with words that say what to
// do instead.
func (w *sweep) no(want, method string, args ...string) {
	w.t.Helper()
	c := w.begin(method, args...)
	_, err := c.end()
	e, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		w.t.Fatalf("%s: got %v, want %s", method, err, want)
	}
	raw, err := io.ReadAll(e.RawResponse.Body)
	a := answer{status: e.StatusCode, raw: raw}
	if err != nil || json.Unmarshal(raw, &a.body) != nil {
		w.t.Fatalf("%s: got %s, %v", method, a, err)
	}
	if got := fmt.Sprintf("%d %s", e.StatusCode, e.ErrorCode); got != want || a.at("error.details.0.recommendedAction") == nil || a.at("error.details.0.possibleCauses") == nil {
		w.t.Errorf("%s: got %s, want %s with cause and remedy", method, a, want)
	}
	if _, ok := w.seen[method]; !ok {
		w.seen[method] = outcome{how: c.how, refusal: fmt.Sprintf("%s: %s", want, a.at("error.message"))}
	}
}

// call is a method's call under way.
type call struct {
	w      *sweep
	method string
	how    string // request, list or operation
	ctx    context.Context
	raw    *http.Response
	out    []reflect.Value
}

func (w *sweep) begin(method string, args ...string) *call {
	w.t.Helper()
	dot := strings.LastIndexByte(method, '.')
	client, ok := w.clients[method[:dot]]
	if !ok {
		w.t.Fatalf("the SDK has no client %s", method[:dot])
	}
	fn := client.MethodByName(method[dot+1:])
	if !fn.IsValid() {
		w.t.Fatalf("the SDK has no method %s", method)
	}
	c := &call{w: w, method: method}
	c.ctx = policy.WithCaptureResponse(w.t.Context(), &c.raw)
	var in []reflect.Value
	for i := range fn.Type().NumIn() - 1 {
		switch p := fn.Type().In(i); {
		case p == reflect.TypeFor[context.Context]():
			in = append(in, reflect.ValueOf(c.ctx))
		case len(args) == 0:
			w.t.Fatalf("%s needs one more argument, %s", method, p)
		default:
			in = append(in, w.argument(method, p, args[0]))
			args = args[1:]
		}
	}
	if len(args) > 0 {
		w.t.Fatalf("%s takes no argument %q", method, args[0])
	}
	c.out = fn.Call(append(in, reflect.Zero(fn.Type().In(fn.Type().NumIn()-1))))
	switch {
	case len(c.out) == 1:
		c.how = "list"
	case c.out[0].Kind() == reflect.Pointer:
		c.how = "operation"
	default:
		c.how = "request"
	}
	return c
}

// argument makes a value of the SDK's type. JSON that the type would not send again is a mistake of the test.
func (w *sweep) argument(method string, p reflect.Type, text string) reflect.Value {
	w.t.Helper()
	for name, value := range w.words {
		text = strings.ReplaceAll(text, "$"+name, value)
	}
	if p.Kind() == reflect.String {
		return reflect.ValueOf(text).Convert(p)
	}
	v := reflect.New(p)
	if err := json.Unmarshal([]byte(text), v.Interface()); err != nil {
		w.t.Fatalf("%s: %s is no %s: %v", method, text, p, err)
	}
	w.keeps(method+" in", []byte(text), v.Interface())
	return v.Elem()
}

// end waits for what the call began and returns its result.
func (c *call) end() (answer, error) {
	if err := failure(c.out); err != nil {
		return answer{}, err
	}
	switch c.how {
	case "list":
		return c.pages()
	case "operation":
		ctx, cancel := context.WithTimeout(c.ctx, patience)
		defer cancel()
		c.out = c.out[0].MethodByName("PollUntilDone").Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(&runtime.PollUntilDoneOptions{Frequency: 10 * time.Millisecond})})
		if err := failure(c.out); err != nil {
			return answer{}, err
		}
	}
	return c.decoded(), nil
}

func (c *call) pages() (answer, error) {
	pager, value := c.out[0], []any{}
	for pager.MethodByName("More").Call(nil)[0].Bool() {
		c.out = pager.MethodByName("NextPage").Call([]reflect.Value{reflect.ValueOf(c.ctx)})
		if err := failure(c.out); err != nil {
			return answer{}, err
		}
		page, _ := c.decoded().at("value").([]any)
		value = append(value, page...)
	}
	return answer{body: map[string]any{"value": value}}, nil
}

// failure is the error that a call returned beside its result.
func failure(out []reflect.Value) error {
	if len(out) < 2 || out[1].IsNil() {
		return nil
	}
	return out[1].Interface().(error)
}

// result names the type that the method's result decodes to.
func (c *call) result() string {
	r := c.out[0].Type()
	if r.NumField() == 0 {
		return "nothing"
	}
	return r.Field(0).Name
}

// decoded is the result as JSON. What the server sent and the SDK did not keep is a fault.
func (c *call) decoded() (a answer) {
	c.w.t.Helper()
	v := c.out[0].Interface()
	if c.raw != nil && reflect.TypeOf(v).NumField() > 0 {
		raw, err := runtime.Payload(c.raw)
		if err != nil {
			c.w.t.Fatalf("%s: %v", c.method, err)
		}
		c.w.keeps(c.method, raw, v)
	}
	raw, err := json.Marshal(v)
	if err != nil || json.Unmarshal(raw, &a.body) != nil {
		c.w.t.Fatalf("%s: %T cannot be encoded: %v", c.method, v, err)
	}
	a.raw = raw
	return a
}

// own are fields that Lifeboat adds to what the resource model has, by what carries them; the SDK drops them.
var own = map[string][]string{
	"recoveryservices.Operations.":               {"percentComplete"}, // ARM has it, the SDK's type does not
	"siterecovery.ReplicationProtectionIntents.": {"properties.waitingFor"},
	"siterecovery.RecoveryPoints.":               {"properties.generation", "properties.sequence", "properties.storedBytes", "properties.changedBytes"},
	"siterecovery.ReplicationJobs.":              {"protectedItemDetails.dataLossInSeconds", "protectedItemDetails.recoveryTimeInSeconds"},
	"siterecovery.ReplicationRecoveryPlans.":     {"properties.onFailure", "properties.parallelStarts"},
}

// keeps checks that everything in the JSON is in the decoded value, too: a field that the SDK does not know, or whose
// discriminator it does not know, would be missing.
func (w *sweep) keeps(what string, sent []byte, v any) {
	w.t.Helper()
	kept, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	var before, after any
	if err := errors.Join(json.Unmarshal(sent, &before), json.Unmarshal(kept, &after)); err != nil {
		w.t.Fatalf("%s: %v: %s", what, err, sent)
	}
	lost := missing("", before, after)
	slices.Sort(lost)
	for _, path := range slices.Compact(lost) {
		if fields := own[what[:strings.LastIndexByte(what, '.')+1]]; !slices.ContainsFunc(fields, func(f string) bool { return strings.HasSuffix(path, f) }) {
			w.t.Errorf("%s: the SDK loses %s of %.1000s", what, path, sent)
		}
	}
}

// missing are the paths of values that are in the first and not, or otherwise, in the second. Times may be spelled differently.
func missing(path string, before, after any) (out []string) {
	switch b := before.(type) {
	case nil:
		return nil
	case map[string]any:
		a, ok := after.(map[string]any)
		if !ok {
			return []string{path}
		}
		for k, v := range b {
			out = append(out, missing(path+"."+k, v, a[k])...)
		}
		return out
	case []any:
		a, ok := after.([]any)
		if !ok || len(a) != len(b) {
			return []string{path}
		}
		for i := range b {
			out = append(out, missing(path, b[i], a[i])...)
		}
		return out
	case string:
		a, _ := after.(string)
		if x, err := time.Parse(time.RFC3339, b); err == nil {
			if y, err := time.Parse(time.RFC3339, a); err == nil && x.Equal(y) {
				return nil
			}
		}
		if _, err := time.Parse("2006-01-02T15:04:05", b); err == nil {
			return nil // a time without a zone comes back with one
		}
	}
	if before != after {
		return []string{path}
	}
	return nil
}

// table is the document: every method and what came of it.
func (w *sweep) table() []byte {
	var b bytes.Buffer
	b.WriteString("# The Azure SDK for Go, method by method\n\nMade by a test that calls every method of the SDK's clients against a running server; do not edit. Run\n" +
		"`go test ./api -run EveryMethodOfTheAzureSDK -update` to make it again.\n\nA request answers at once, a list comes in pages, an operation is polled to its end. Everything\n" +
		"that the server sent is in the decoded result. What is refused is refused with an ARM error that\nnames cause and remedy.\n")
	for _, part := range []struct{ pkg, module string }{{"recoveryservices", "armrecoveryservices v1.6.0"}, {"siterecovery", "armrecoveryservicessiterecovery v2.4.0"}} {
		fmt.Fprintf(&b, "\n## %s\n\n| method | kind | result | refused with |\n|---|---|---|---|\n", part.module)
		for _, m := range w.methods() {
			if name, ok := strings.CutPrefix(m, part.pkg+"."); ok {
				o := w.seen[m]
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", strings.TrimPrefix(name, "."), o.how, o.result, o.refusal)
			}
		}
	}
	return b.Bytes()
}

// finish wants every method called, and the document to be what came of them.
func (w *sweep) finish(path string) {
	w.t.Helper()
	for _, m := range w.methods() {
		if _, ok := w.seen[m]; !ok {
			w.t.Errorf("%s was never called", m)
		}
	}
	want := w.table()
	if *update && !w.t.Failed() {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	if !bytes.Equal(got, want) && !w.t.Failed() {
		w.t.Errorf("%s is not what the calls led to; run: go test ./api -run EveryMethodOfTheAzureSDK -update", path)
	}
}
