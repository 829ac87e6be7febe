package api

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Every version that clients are known to send is served, and comes back in every URL that the client is to follow.
func TestEveryVersionComesBackInURLs(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *Config) { c.PageSize = 1 })
	s.must(201, "PUT", vaultURL, vaultIn)
	for i, version := range slices.Concat(apiVersions, []string{"2026-05-31-PREVIEW"}) {
		a := s.send(RoleContributor, "PUT", vaultURL+"/replicationPolicies/p"+string(rune('a'+i%26))+"?API-Version="+version+"&no-version", policyIn)
		if a.status != 202 && a.status != 200 {
			t.Fatalf("%s: got %s", version, a)
		}
		links := []string{}
		if a.status == 202 {
			links = append(links, a.header.Get("Location"), a.header.Get("Azure-AsyncOperation"))
		}
		if list := s.send(RoleReader, "GET", vaultURL+"/replicationJobs?api-version="+version, ""); i > 0 {
			next, _ := list.at("nextLink").(string)
			links = append(links, next)
		}
		for _, link := range links {
			u, err := url.Parse(link)
			if err != nil || !u.IsAbs() || u.Query().Get("api-version") != version {
				t.Errorf("%s: a URL is %q", version, link)
				continue
			}
			if b := s.send(RoleReader, "GET", link, ""); b.status != 200 {
				t.Errorf("%s: %s leads to %s", version, link, b)
			}
		}
	}
}

func TestOtherVersionsAreRefusedWithTheList(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for query, code := range map[string]string{
		"no-version": "MissingApiVersionParameter", "api-version=": "MissingApiVersionParameter", "api-version=2019-05-01": "InvalidApiVersionParameter", "api-version=latest": "InvalidApiVersionParameter",
		"api-version=2025-01-01%20": "InvalidApiVersionParameter", "api-version=2030-01-01": "InvalidApiVersionParameter",
	} {
		a := s.send(RoleReader, "GET", vaultURL+"?"+query, "")
		if a.status != 400 || a.at("error.code") != code {
			t.Errorf("%s: got %s, want %s", query, a, code)
		}
		if text, _ := a.at("error.message").(string); code == "InvalidApiVersionParameter" && !strings.Contains(text, "2025-01-01") {
			t.Errorf("%s: %s names no version that is served", query, text)
		}
	}
}

// Every operation with a $filter takes what clients filter by, and refuses what it cannot understand.
func TestEveryFilterIsUnderstoodOrRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.furnish()
	properties := map[string][]string{
		"replicationJobs":               {"StartTime eq '2026-01-01T00:00:00'", "EndTime eq '2026-01-01'", "JobStatus eq 'Failed'", "AffectedObjectTypes eq 'Server'", "FabricId eq 'x'", "JobName eq 'x'"},
		"replicationEvents":             {"EventCode eq 'x'", "Severity eq 'Critical'", "EventType eq 'VmHealth'", "FabricName eq 'x'", "AffectedObjectFriendlyName eq 'x'", "AffectedObjectCorrelationId eq 'x'", "StartTime eq '2026-01-01'", "EndTime eq '2026-01-01'"},
		"replicationProtectedItems":     {"SourceFabricName eq 'x'", "RecoveryPlanName eq 'x'", "SourceFabricLocation eq 'x'", "FabricObjectId eq 'x'", "VCenterName eq 'x'", "InstanceType eq 'InMageRcm'", "MultiVmGroupCreateOption eq 'AutoCreated'", "ProcessServerId eq 'x'"},
		"replicationProtectableItems":   {"State eq 'Unprotected'"},
		"replicationMigrationItems":     {"SourceFabricName eq 'x'", "SourceContainerName eq 'x'", "InstanceType eq 'VMwareCbt'"},
		"replicationProtectionClusters": {"SourceFabricName eq 'x'", "SourceFabricLocation eq 'x'", "InstanceType eq 'A2A'"},
		"replicationAppliances":         {"ProviderType eq 'InMageRcm'"},
		"{fabricName}":                  {"FetchAgentDetails eq 'true'", "ZoneToZoneMappings eq 'x'", "BiosId eq 'x'", "Fqdn eq 'x'", "DiscoveryType eq 'x'", "OsType eq 'x'", "ExtendedLocationMappings eq 'x'", "LocationDetails eq 'x'"},
	}
	container, found := c[strings.LastIndexByte(c, '/')+1:], 0
	for _, op := range s.server.doc.operations {
		if op.op.Parameters.GetByInAndName("query", "$filter") == nil {
			continue
		}
		found++
		path := real(op.path, container, "web01", "")
		known := properties[op.path[strings.LastIndexByte(op.path, '/')+1:]]
		if len(known) == 0 {
			t.Errorf("%s: what do clients filter by?", op.path)
		}
		for _, one := range append(known, " "+strings.Join(known, " and ")) {
			if a := s.send(RoleReader, "GET", path+"?$filter="+url.QueryEscape(one), ""); a.status != 200 {
				t.Errorf("%s: %q got %s", op.path, one, a)
			}
		}
		for _, bad := range []string{"colour eq 'red'", known[0] + " or", "(((", "x ne 'y'", "'"} {
			if a := s.send(RoleReader, "GET", path+"?$filter="+url.QueryEscape(bad), ""); a.status != 400 || a.at("error.target") != "$filter" {
				t.Errorf("%s: %q got %s", op.path, bad, a)
			}
		}
	}
	if found < 9 {
		t.Errorf("%d operations have a filter, want 9 or more", found)
	}
}
