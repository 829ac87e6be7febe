package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	asr "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/recoveryservices/armrecoveryservicessiterecovery/v2"
)

// sdkTypes are the SDK's types of the bodies that the document describes.
var sdkTypes = map[string]any{
	"ReplicationProtectedItem": asr.ReplicationProtectedItem{}, "Fabric": asr.Fabric{}, "Policy": asr.Policy{}, "ProtectionContainer": asr.ProtectionContainer{},
	"ProtectionContainerMapping": asr.ProtectionContainerMapping{}, "ProtectableItem": asr.ProtectableItem{}, "Job": asr.Job{}, "Event": asr.Event{}, "RecoveryPoint": asr.RecoveryPoint{},
	"RecoveryServicesProvider": asr.RecoveryServicesProvider{}, "VaultHealthDetails": asr.VaultHealthDetails{},
	"EnableProtectionInput": asr.EnableProtectionInput{}, "UpdateReplicationProtectedItemInput": asr.UpdateReplicationProtectedItemInput{}, "TestFailoverInput": asr.TestFailoverInput{},
	"TestFailoverCleanupInput": asr.TestFailoverCleanupInput{}, "PlannedFailoverInput": asr.PlannedFailoverInput{}, "UnplannedFailoverInput": asr.UnplannedFailoverInput{},
	"ReverseReplicationInput": asr.ReverseReplicationInput{}, "ApplyRecoveryPointInput": asr.ApplyRecoveryPointInput{}, "DisableProtectionInput": asr.DisableProtectionInput{},
	"AddDisksInput": asr.AddDisksInput{}, "RemoveDisksInput": asr.RemoveDisksInput{}, "ResolveHealthInput": asr.ResolveHealthInput{}, "SwitchProviderInput": asr.SwitchProviderInput{},
	"UpdateApplianceForReplicationProtectedItemInput": asr.UpdateApplianceForReplicationProtectedItemInput{}, "UpdateMobilityServiceRequest": asr.UpdateMobilityServiceRequest{},
	"FabricCreationInput": asr.FabricCreationInput{}, "FailoverProcessServerRequest": asr.FailoverProcessServerRequest{}, "RenewCertificateInput": asr.RenewCertificateInput{},
	"AddRecoveryServicesProviderInput": asr.AddRecoveryServicesProviderInput{}, "CreateProtectionContainerInput": asr.CreateProtectionContainerInput{},
	"SwitchProtectionInput": asr.SwitchProtectionInput{}, "DiscoverProtectableItemRequest": asr.DiscoverProtectableItemRequest{}, "CreatePolicyInput": asr.CreatePolicyInput{},
	"UpdatePolicyInput": asr.UpdatePolicyInput{}, "CreateProtectionContainerMappingInput": asr.CreateProtectionContainerMappingInput{},
	"UpdateProtectionContainerMappingInput": asr.UpdateProtectionContainerMappingInput{}, "RemoveProtectionContainerMappingInput": asr.RemoveProtectionContainerMappingInput{},
	"JobQueryParameter": asr.JobQueryParameter{}, "ResumeJobParams": asr.ResumeJobParams{},
}

// ours are properties that the field does not have; its clients drop them.
var ours = []string{"progress", "generation", "sequence", "changedBytes", "storedBytes", "recoveryTimeInSeconds", "dataLossInSeconds", "waitingFor", "diskIds"}

// What the SDK drops from an example, or refuses, is misspelled or of the wrong type in the document: an example is read into
// the SDK's type and written again, and nothing may be missing.
func TestEveryExampleSurvivesTheAzureSDK(t *testing.T) {
	t.Parallel()
	doc, err := loadDocument()
	if err != nil {
		t.Fatal(err)
	}
	checked := map[string]bool{}
	check := func(at string, media *openapi3.MediaType) {
		schema := media.Schema.Ref[strings.LastIndexByte(media.Schema.Ref, '/')+1:]
		model, ok := sdkTypes[schema]
		if !ok {
			return
		}
		for name, example := range media.Examples {
			raw, err := json.Marshal(example.Value.Value)
			if err != nil {
				t.Fatal(err)
			}
			read := reflect.New(reflect.TypeOf(model))
			if err := json.Unmarshal(raw, read.Interface()); err != nil {
				t.Errorf("%s: example %s of %s: %v", at, name, schema, err)
				continue
			}
			written, err := json.Marshal(read.Interface())
			if err != nil {
				t.Fatal(err)
			}
			var want, got any
			if err := errors.Join(json.Unmarshal(raw, &want), json.Unmarshal(written, &got)); err != nil {
				t.Fatal(err)
			}
			for _, lost := range lossOf("", want, got) {
				t.Errorf("%s: example %s of %s: the SDK loses %s", at, name, schema, lost)
			}
			checked[schema] = true
		}
	}
	for key, op := range doc.operations {
		if b := op.op.RequestBody; b != nil && b.Value.Content.Get("application/json") != nil {
			check(key, b.Value.Content.Get("application/json"))
		}
		if r := op.op.Responses.Value("200"); r != nil && r.Value.Content.Get("application/json") != nil {
			check(key, r.Value.Content.Get("application/json"))
		}
	}
	for name := range sdkTypes {
		if !checked[name] {
			t.Errorf("no example of %s was found", name)
		}
	}
}

// lossOf lists what want has and got has not, or has otherwise. Empty values may be left out.
func lossOf(at string, want, got any) (lost []string) {
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		for k, v := range w {
			if slices.Contains(ours, k) {
				continue
			}
			lost = append(lost, lossOf(at+"."+k, v, g[k])...)
		}
	case []any:
		g, _ := got.([]any)
		if len(w) != len(g) {
			return []string{fmt.Sprintf("%s: %d entries of %d", at, len(w)-len(g), len(w))}
		}
		for i := range w {
			lost = append(lost, lossOf(fmt.Sprintf("%s[%d]", at, i), w[i], g[i])...)
		}
	default:
		if !reflect.DeepEqual(want, got) {
			lost = append(lost, fmt.Sprintf("%s: %v became %v", at, want, got))
		}
	}
	return lost
}
