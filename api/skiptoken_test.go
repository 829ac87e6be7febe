package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// names are those on one page.
func (a answer) names() (out []string) {
	for i := 0; a.at(fmt.Sprintf("value.%d.name", i)) != nil; i++ {
		out = append(out, a.at(fmt.Sprintf("value.%d.name", i)).(string))
	}
	return out
}

func TestPagesStayInPlaceWhenTheListChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *Config) { c.PageSize = 2 })
	s.must(201, "PUT", vaultURL, vaultIn)
	list := vaultURL + "/replicationPolicies"
	for _, name := range []string{"b", "d", "f", "h"} {
		s.must(202, "PUT", list+"/"+name, policyIn)
	}
	first := s.must(200, "GET", list, "")
	next := first.at("nextLink").(string)
	// What comes before the place, at it, and after it changes: the next page begins after d all the same.
	s.must(202, "PUT", list+"/a", policyIn)
	s.must(202, "PUT", list+"/e", policyIn)
	s.must(202, "DELETE", list+"/d", "")
	s.must(202, "DELETE", list+"/f", "")
	second := s.must(200, "GET", next, "")
	if got := append(first.names(), second.names()...); !slices.Equal(got, []string{"b", "d", "e", "h"}) || second.at("nextLink") != nil {
		t.Errorf("got %v, then %v", got, second.at("nextLink"))
	}
	if again := s.must(200, "GET", next, ""); string(again.raw) != string(second.raw) {
		t.Errorf("the same link shows another page: %s", again)
	}
}

func TestSkipTokensOfOthersAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *Config) { c.PageSize = 1 })
	s.must(201, "PUT", vaultURL, vaultIn)
	list := vaultURL + "/replicationPolicies"
	for _, name := range []string{"p1", "p2"} {
		s.must(202, "PUT", list+"/"+name, policyIn)
	}
	u, err := url.Parse(s.must(200, "GET", list, "").at("nextLink").(string))
	if err != nil {
		t.Fatal(err)
	}
	token := u.Query().Get("skipToken")
	if token == "" || strings.Contains(token, "p1") {
		t.Fatalf("the token is %q", token)
	}
	for name, path := range map[string]string{
		"in another case":     strings.ToLower(list) + "?SKIPTOKEN=" + token,
		"with another name":   list + "?%24skipToken=" + token,
		"escaped by a client": strings.Replace(list, "replicationPolicies", "replication%50olicies", 1) + "?skipToken=" + token,
	} {
		if a := s.send(RoleReader, "GET", path, ""); a.status != 200 || !slices.Equal(a.names(), []string{"p2"}) {
			t.Errorf("%s: got %s", name, a)
		}
	}
	for name, path := range map[string]string{
		"cut":                    list + "?skipToken=" + token[:len(token)-2],
		"changed":                list + "?skipToken=" + strings.Repeat("A", 4) + token[4:],
		"no token at all":        list + "?skipToken=cDE",
		"not even base64":        list + "?skipToken=%00%ff",
		"of another list":        vaultURL + "/replicationJobs?skipToken=" + token,
		"of another vault":       groupPath + "?$skipToken=" + token,
		"given in two spellings": list + "?skipToken=" + token + "&$skipToken=" + token,
	} {
		if a := s.send(RoleReader, "GET", path, ""); a.status != 400 || a.at("error.target") != "skipToken" {
			t.Errorf("%s: got %s", name, a)
		}
	}
}
