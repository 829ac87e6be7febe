package api

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func trustLoopback(c *Config) {
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

func TestURLsAreThoseOfTheProxyInFront(t *testing.T) {
	t.Parallel()
	s := newSite(t, trustLoopback)
	s.must(201, "PUT", vaultURL, vaultIn)
	own, _ := url.Parse(s.web.URL)
	for _, test := range []struct {
		name    string
		headers []string
		want    string
	}{
		{"nothing", nil, s.web.URL},
		{"the first of several proxies met the caller", []string{"X-Forwarded-Proto", "https, http", "X-Forwarded-Host", "dr.example.org, inner"}, "https://dr.example.org"},
		{"a path of the proxy", []string{"X-Forwarded-Host", "dr.example.org", "X-Forwarded-Prefix", "/arm/"}, "https://dr.example.org/arm"},
		{"plain text outside", []string{"X-Forwarded-Proto", "http"}, "http://" + own.Host},
		{"a port", []string{"X-Forwarded-Host", "dr.example.org", "X-Forwarded-Port", "8443"}, "https://dr.example.org:8443"},
		{"the port of the scheme", []string{"X-Forwarded-Host", "dr.example.org:8443", "X-Forwarded-Port", "443"}, "https://dr.example.org"},
		{"a port of the sixth version", []string{"X-Forwarded-Host", "[2001:db8::1]", "X-Forwarded-Port", "8443"}, "https://[2001:db8::1]:8443"},
		{"the standard's header", []string{"Forwarded", `for=192.0.2.60;proto=HTTP;by=203.0.113.43;host="dr.example.org:8080", for=198.51.100.17;host=inner`}, "http://dr.example.org:8080"},
		{"the standard's header over the older ones", []string{"Forwarded", "host=new.example.org", "X-Forwarded-Host", "old.example.org"}, "https://new.example.org"},
		{"words that are no part of a URL", []string{"X-Forwarded-Host", "evil.example.org/path?", "X-Forwarded-Proto", "javascript", "X-Forwarded-Port", "99999", "X-Forwarded-Prefix", "/a b"}, s.web.URL},
		{"a broken header", []string{"Forwarded", `host="unclosed`}, s.web.URL},
	} {
		a := s.send(RoleContributor, "PUT", fabricURL, fabricIn, test.headers...)
		for _, name := range []string{"Location", "Azure-AsyncOperation"} {
			if got := a.header.Get(name); !strings.HasPrefix(got, test.want+"/subscriptions/") {
				t.Errorf("%s: %s is %s, want %s in front", test.name, name, got, test.want)
			}
		}
	}
	one := s.send(RoleContributor, "GET", vaultURL+"/replicationJobs?skipToken=", "", "X-Forwarded-Host", "dr.example.org")
	if one.status != 200 {
		t.Errorf("got %s", one)
	}
}

func TestHeadersThatNobodyVouchesForAreNotBelieved(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"nobody is trusted":       func(*Config) {},
		"somebody else is":        func(c *Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")} },
		"a network that is no IP": func(c *Config) { c.TrustedProxies = []netip.Prefix{{}} },
	} {
		s := newSite(t, change)
		s.must(201, "PUT", vaultURL, vaultIn)
		a := s.send(RoleContributor, "PUT", fabricURL, fabricIn, "X-Forwarded-Host", "evil.example.org", "Forwarded", "host=evil.example.org", "X-Forwarded-Proto", "http")
		if got := a.header.Get("Location"); !strings.HasPrefix(got, s.web.URL) {
			t.Errorf("%s: Location is %s", name, got)
		}
	}
}

// Every link of a page leads through the proxy, too.
func TestNextLinkLeadsThroughTheProxy(t *testing.T) {
	t.Parallel()
	s := newSite(t, trustLoopback, func(c *Config) { c.PageSize = 1 })
	s.must(201, "PUT", vaultURL, vaultIn)
	for _, name := range []string{"a", "b"} {
		s.must(202, "PUT", vaultURL+"/replicationPolicies/"+name, policyIn)
	}
	a := s.send(RoleReader, "GET", vaultURL+"/replicationPolicies", "", "X-Forwarded-Host", "dr.example.org", "X-Forwarded-Port", "444")
	if next, _ := a.at("nextLink").(string); !strings.HasPrefix(next, "https://dr.example.org:444/subscriptions/") {
		t.Errorf("nextLink is %q", next)
	}
}

func TestTheCallerIsTheLastWhomATrustedProxyMet(t *testing.T) {
	t.Parallel()
	s := &server{cfg: Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	for _, test := range []struct{ peer, forwardedFor, want string }{
		{"192.0.2.1:99", "198.51.100.1", "192.0.2.1:99"},
		{"10.0.0.1:99", "", "10.0.0.1:99"},
		{"10.0.0.1:99", "198.51.100.1", "198.51.100.1"},
		{"10.0.0.1:99", "6.6.6.6, 198.51.100.1, 10.9.9.9", "198.51.100.1"},
		{"10.0.0.1:99", "6.6.6.6, nonsense", "10.0.0.1:99"},
		{"[::ffff:10.0.0.1]:99", "[2001:db8::1]:5", "2001:db8::1"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = test.peer
		r.Header.Set("X-Forwarded-For", test.forwardedFor)
		if got := s.remote(r); got != test.want {
			t.Errorf("%s for %q: got %s, want %s", test.peer, test.forwardedFor, got, test.want)
		}
	}
}

func FuzzForwarded(f *testing.F) {
	f.Add(`for="[2001:db8::1]:4711";proto=https;host="a\"b"`, "a.example, b", "443")
	f.Fuzz(func(t *testing.T, standard, host, port string) {
		got := forwardedOf(http.Header{"Forwarded": {standard}, "X-Forwarded-Host": {host}, "X-Forwarded-Port": {port}, "X-Forwarded-Prefix": {host}})
		text := "https://" + got.host + got.prefix + "/x"
		if got.port != "" {
			text = "https://" + withPort(got.host, got.port, "https") + got.prefix + "/x"
		}
		if u, err := url.Parse(text); err != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			t.Errorf("%q became %q: %v", got, text, err)
		}
	})
}
