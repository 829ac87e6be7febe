package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/lifeboat-dr/lifeboat/api/oas"
	"github.com/lifeboat-dr/lifeboat/service/dr"
)

func (s *server) RecoveryServicesCheckNameAvailability(w http.ResponseWriter, r *http.Request, _, _, _ string, _ oas.RecoveryServicesCheckNameAvailabilityParams) {
	in, err := body[oas.CheckNameAvailabilityParameters](r)
	var out oas.CheckNameAvailabilityResult
	if err == nil {
		names := pathParams(r)
		var free bool
		free, out.Reason, out.Message, err = s.control.VaultNameFree(r.Context(), dr.VaultKey{Subscription: names["subscriptionId"], ResourceGroup: names["resourceGroupName"], Name: in.Name})
		out.NameAvailable = &free
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *server) RecoveryServicesCapabilities(w http.ResponseWriter, r *http.Request, _, _ string, _ oas.RecoveryServicesCapabilitiesParams) {
	in, err := body[oas.ResourceCapabilities](r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	out := oas.CapabilitiesResponse{Type: in.Type, Properties: oas.CapabilitiesResponseProperties{DnsZones: []oas.DNSZoneResponse{}}}
	for _, z := range in.Properties.DnsZones {
		out.Properties.DnsZones = append(out.Properties.DnsZones, oas.DNSZoneResponse{SubResource: string(z.SubResource), RequiredZoneNames: []string{}})
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *server) OperationsList(w http.ResponseWriter, _ *http.Request, _, _ string, _ oas.OperationsListParams) {
	out := collection[oas.OperationsDiscovery]{Value: []oas.OperationsDiscovery{}}
	for _, o := range s.doc.discovery() {
		out.Value = append(out.Value, oas.OperationsDiscovery{Name: o.name, Origin: "user", Display: oas.Display{Provider: "Lifeboat", Resource: o.resource, Operation: o.summary, Description: o.description}})
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *server) ProviderOperationsList(w http.ResponseWriter, _ *http.Request, _ oas.ProviderOperationsListParams) {
	out := collection[oas.ClientDiscoveryValueForSingleAPI]{Value: []oas.ClientDiscoveryValueForSingleAPI{}}
	for _, o := range s.doc.discovery() {
		out.Value = append(out.Value, oas.ClientDiscoveryValueForSingleAPI{Name: o.name, Origin: "user", Display: oas.ClientDiscoveryDisplay{Provider: "Lifeboat", Resource: o.resource, Operation: o.summary, Description: o.description}})
	}
	writeJSON(w, http.StatusOK, out)
}

// discovered is an operation as role definitions name it.
type discovered struct{ name, resource, summary, description string }

// discovery lists the operations of the namespace by name, each once: getting one and listing all is one operation, read.
func (d *document) discovery() []discovered {
	const namespace = "/providers/Microsoft.RecoveryServices/"
	found := map[string]discovered{}
	for key, op := range d.operations {
		method, _, _ := strings.Cut(key, " ")
		at := strings.LastIndex(op.path, namespace)
		if at < 0 {
			continue
		}
		parts := slices.DeleteFunc(strings.Split(op.path[at+len(namespace):], "/"), func(s string) bool { return strings.HasPrefix(s, "{") })
		verb := map[string]string{http.MethodGet: "read", http.MethodPut: "write", http.MethodPatch: "write", http.MethodDelete: "delete", http.MethodPost: "action"}[method]
		o := discovered{name: "Microsoft.RecoveryServices/" + strings.Join(parts, "/") + "/" + verb, resource: tagOf(op.op), summary: op.op.Summary, description: op.op.Description}
		if o.description == "" {
			o.description = o.summary
		}
		if old, ok := found[o.name]; !ok || o.summary < old.summary {
			found[o.name] = o
		}
	}
	out := make([]discovered, 0, len(found))
	for _, o := range found {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b discovered) int { return strings.Compare(a.name, b.name) })
	return out
}

func tagOf(op *openapi3.Operation) string {
	if len(op.Tags) == 0 {
		return ""
	}
	return op.Tags[0]
}
