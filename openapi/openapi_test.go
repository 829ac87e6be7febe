package openapi_test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/lifeboat-dr/lifeboat/openapi"
	"github.com/lifeboat-dr/lifeboat/openapi/bundle"
)

func load(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := bundle.Load(filepath.Join("arm", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestTheBundleIsWhatTheSplitDocumentSays(t *testing.T) {
	got, err := bundle.Marshal(load(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, openapi.ARM) {
		t.Error("openapi/arm.bundled.json is stale: run go generate ./openapi")
	}
}

func TestTheFleetDocumentIsValid(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromFile(filepath.Join("fleet", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
}

func TestEveryOperationSaysWhatItIs(t *testing.T) {
	doc := load(t)
	tags := []string{}
	for _, tag := range doc.Tags {
		tags = append(tags, tag.Name)
	}
	seen := map[string]string{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			at := method + " " + path
			if other, dup := seen[strings.ToLower(op.OperationID)]; dup || op.OperationID == "" {
				t.Errorf("%s: operationId %q is missing or also that of %s", at, op.OperationID, other)
			}
			seen[strings.ToLower(op.OperationID)] = at
			if !strings.HasSuffix(op.Summary, ".") {
				t.Errorf("%s: the summary %q is not a sentence", at, op.Summary)
			}
			for _, tag := range op.Tags {
				if !slices.Contains(tags, tag) {
					t.Errorf("%s: tag %s is not declared", at, tag)
				}
			}
			role, _ := op.Extensions["x-lifeboat-role"].(string)
			if !slices.Contains([]string{"Reader", "Operator", "Contributor"}, role) {
				t.Errorf("%s: x-lifeboat-role %q is no role", at, role)
			}
			if method == "GET" != (role == "Reader") {
				t.Errorf("%s: readers read and nothing else, but the role is %s", at, role)
			}
			if op.Responses.Default() == nil {
				t.Errorf("%s: no default response", at)
			}
			if long, _ := op.Extensions["x-ms-long-running-operation"].(bool); long != (op.Responses.Value("202") != nil && method != "GET") {
				t.Errorf("%s: x-ms-long-running-operation is %v", at, long)
			}
			if op.RequestBody != nil {
				if media := op.RequestBody.Value.Content.Get("application/json"); media == nil || media.Example == nil && len(media.Examples) == 0 {
					t.Errorf("%s: the request has no example", at)
				}
			}
		}
	}
}

func TestEveryUnionMapsAllItsVariants(t *testing.T) {
	doc := load(t)
	unions := 0
	for name, ref := range doc.Components.Schemas {
		s := ref.Value
		if len(s.OneOf) == 0 {
			continue
		}
		unions++
		if s.Discriminator == nil || len(s.Discriminator.Mapping) == 0 {
			t.Errorf("%s has variants and no discriminator with a mapping", name)
			continue
		}
		key := s.Discriminator.PropertyName
		for _, v := range s.OneOf {
			mapped := false
			for _, m := range s.Discriminator.Mapping {
				mapped = mapped || m.Ref == v.Ref
			}
			if !mapped {
				t.Errorf("%s: no discriminator leads to %s", name, v.Ref)
			}
			if !slices.Contains(v.Value.Required, key) || v.Value.Properties[key] == nil {
				t.Errorf("%s: variant %s does not require %s", name, v.Ref, key)
			}
		}
	}
	if unions < 20 {
		t.Errorf("found %d unions; the document has lost some", unions)
	}
}

// A schema that nothing refers to is a mistake in a reference, or dead.
func TestEverySchemaIsUsed(t *testing.T) {
	doc := load(t)
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	for name := range doc.Components.Schemas {
		if !bytes.Contains(raw, []byte(`"#/components/schemas/`+name+`"`)) {
			t.Errorf("%s is not used", name)
		}
	}
}

// A property without words leaves its reader guessing. References say what they are where they lead to, and what every resource
// has is said once.
func TestPropertiesOfProvidersAreDescribed(t *testing.T) {
	doc := load(t)
	for name, ref := range doc.Components.Schemas {
		if ref.Value.Properties["instanceType"] == nil {
			continue
		}
		if ref.Value.Description == "" {
			t.Errorf("%s is not described", name)
		}
		for property, p := range ref.Value.Properties {
			if p.Ref == "" && property != "instanceType" && p.Value.Description == "" {
				t.Errorf("%s.%s is not described", name, property)
			}
		}
	}
}

// Booleans that the field writes as text, and numbers that it writes as numbers, are easy to mix up, and clients reject a body
// whole when one is wrong (ref 2.5).
func TestTypesOfTheWireAreKept(t *testing.T) {
	doc := load(t)
	for field, want := range map[string]string{
		"InMageRcmReplicationDetails.initialReplicationProgressPercentage":       "integer",
		"InMageRcmReplicationDetails.lastRpoInSeconds":                           "integer",
		"InMageRcmReplicationDetails.resyncRequired":                             "string",
		"InMageRcmReplicationDetails.allocatedMemoryInMB":                        "number",
		"InMageRcmReplicationDetails.isAgentRegistrationSuccessfulAfterFailover": "boolean",
		"InMageRcmProtectedDiskDetails.isOSDisk":                                 "string",
		"InMageRcmUnplannedFailoverInput.performShutdown":                        "string",
		"InMageRcmPolicyDetails.enableMultiVmSync":                               "string",
		"InMageDiskDetails.diskSizeInMB":                                         "string",
		"DiskDetails.maxSizeMB":                                                  "integer",
		"ProviderError.errorCode":                                                "integer",
		"ServiceError.code":                                                      "string",
		"IPConfigInputDetails.isSeletedForFailover":                              "boolean",
		"OSDetails.oSMajorVersion":                                               "string",
		"RecoveryServicesProviderProperties.lastHeartBeat":                       "string",
		"InMageRcmRecoveryPointDetails.isMultiVmSyncPoint":                       "string",
		"AzureVMDiskDetails.maxSizeMB":                                           "string",
		"InitialReplicationDetails.initialReplicationProgressPercentage":         "string",
		"InMageAzureV2ReplicationDetails.resyncProgressPercentage":               "integer",
		"InMageAzureV2ReplicationDetails.azureVMDiskDetails":                     "array",
		"InMageAzureV2ReplicationDetails.recoveryAzureVMName":                    "string",
		"HyperVReplicaAzureReplicationDetails.azureVmDiskDetails":                "array",
		"HyperVReplicaAzureReplicationDetails.recoveryAzureVmName":               "string",
		"HyperVReplicaReplicationDetails.vMDiskDetails":                          "array",
		"HyperVReplicaAzureReprotectInput.vHDId":                                 "string",
		"A2AReplicationDetails.isReplicationAgentUpdateRequired":                 "boolean",
		"A2AProtectedManagedDiskDetails.resyncRequired":                          "boolean",
		"A2AProtectedManagedDiskDetails.recoveryOrignalTargetDiskId":             "string",
		"InMageAzureV2ProtectedDiskDetails.resyncRequired":                       "string",
		"InMageAzureV2ProtectedDiskDetails.resyncLastDataTransferTimeUTC":        "string",
		"InMageAzureV2SwitchProviderInput.targetApplianceID":                     "string",
		"VMNicDetails.vMNetworkName":                                             "string",
		"IPConfigDetails.isSeletedForFailover":                                   "boolean",
		"VMwareDetails.agentCount":                                               "string",
		"ProcessServer.availableMemoryInBytes":                                   "integer",
		"JobQueryParameter.timezoneOffset":                                       "number",
	} {
		schema, property, _ := strings.Cut(field, ".")
		s := doc.Components.Schemas[schema]
		if s == nil || s.Value.Properties[property] == nil {
			t.Errorf("%s is gone", field)
			continue
		}
		if got := s.Value.Properties[property].Value.Type; !got.Is(want) {
			t.Errorf("%s is %v, want %s", field, got.Slice(), want)
		}
	}
}
