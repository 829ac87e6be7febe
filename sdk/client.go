package sdk

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

// APIVersion is the version of the resource model that this package speaks.
const APIVersion = "2025-01-01"

// attemptTimeout bounds one attempt at a request, its body included.
const attemptTimeout = 2 * time.Minute

// Config says where the server is and who asks. Endpoint and one of Token and TokenFile are required.
type Config struct {
	// Endpoint is the server's URL, such as https://dr.example.org:8443. A path before the resource model's is kept.
	Endpoint string
	// Token is the bearer token; TokenFile is a file that holds it, read once by New.
	Token, TokenFile string
	// CA verifies the server; CAFile is a PEM file added to it. With neither the system's authorities do.
	CA     *x509.CertPool
	CAFile string
	// Subscription and ResourceGroup are namespaces of vaults; empty means "default". Vault is the vault that the methods
	// work on; only methods about vaults themselves do without.
	Subscription, ResourceGroup, Vault string
	// UserAgent is told to the server; empty means "lifeboat-sdk".
	UserAgent string
	// Transport replaces the connection to the server, CA and CAFile with it. Retries stay.
	Transport http.RoundTripper
}

// Client is a client of one server, for one vault. It is safe for concurrent use.
type Client struct {
	api                    *oas.Client
	http                   *retrier
	endpoint               *url.URL
	subscription, group, v string
}

// New returns a client. It reads the files that cfg names and makes no request.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("endpoint %q is no URL such as https://host:8443", cfg.Endpoint)
	}
	token := cfg.Token
	if token == "" && cfg.TokenFile != "" {
		text, err := os.ReadFile(cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read token: %w", err)
		}
		token = string(text)
	}
	if token = strings.TrimSpace(token); token == "" {
		return nil, fmt.Errorf("no token: Config.Token or Config.TokenFile is required")
	}
	transport := cfg.Transport
	if transport == nil {
		if transport, err = dialer(cfg); err != nil {
			return nil, err
		}
	}
	agent := cfg.UserAgent
	if agent == "" {
		agent = "lifeboat-sdk"
	}
	c := &Client{endpoint: u, subscription: or(cfg.Subscription, "default"), group: or(cfg.ResourceGroup, "default"), v: cfg.Vault,
		http: &retrier{http: &http.Client{Transport: transport, Timeout: attemptTimeout}, endpoint: u, token: token, agent: agent}}
	c.api, err = oas.NewClient(strings.TrimSuffix(cfg.Endpoint, "/"), oas.WithHTTPClient(c.http), oas.WithRequestEditorFn(completeQuery))
	return c, err
}

func dialer(cfg Config) (http.RoundTripper, error) {
	pool := cfg.CA
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA: %w", err)
		}
		if pool == nil {
			pool = x509.NewCertPool()
		} else {
			pool = pool.Clone()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA: %s holds no certificate", cfg.CAFile)
		}
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       90 * time.Second,
		ForceAttemptHTTP2:     true,
	}, nil
}

// completeQuery adds the api-version and leaves out parameters without a value.
func completeQuery(_ context.Context, req *http.Request) error {
	q := req.URL.Query()
	for name, values := range q {
		if len(values) == 1 && values[0] == "" {
			delete(q, name)
		}
	}
	q.Set("api-version", APIVersion)
	req.URL.RawQuery = q.Encode()
	return nil
}

// WithVault returns a client of the same server for another vault.
func (c *Client) WithVault(name string) *Client {
	out := *c
	out.v = name
	return &out
}

// VaultName is the vault that the client works on; empty when none was chosen.
func (c *Client) VaultName() string { return c.v }

// Close drops idle connections.
func (c *Client) Close() { c.http.http.CloseIdleConnections() }

// follow makes a GET of a URL that the server sent. Only its path and query are taken: the token goes nowhere but to the
// endpoint, also when a proxy makes the server believe that it has another name.
func (c *Client) follow(ctx context.Context, link string) (*http.Response, error) {
	u, err := url.Parse(link)
	if err != nil {
		return nil, fmt.Errorf("follow %q: %w", link, err)
	}
	to := *c.endpoint
	prefix := strings.TrimSuffix(to.EscapedPath(), "/")
	escaped := u.EscapedPath()
	if !strings.HasPrefix(escaped, prefix+"/") {
		escaped = prefix + escaped
	}
	if to.Path, err = url.PathUnescape(escaped); err != nil {
		return nil, fmt.Errorf("follow %q: %w", link, err)
	}
	to.RawPath, to.RawQuery = escaped, u.RawQuery
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return nil, err
	}
	if err := completeQuery(ctx, req); err != nil {
		return nil, err
	}
	return c.http.Do(req)
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}
