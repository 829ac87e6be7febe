package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/replicator/node/program"
)

// config is what lifeboatd can be told. The zero value but DataDir is a complete machine.
type config struct {
	DataDir            string            `koanf:"data-dir"`
	KeyFile            string            `koanf:"key-file"`
	TokenFile          string            `koanf:"token-file"`
	Listen             string            `koanf:"listen"`
	Names              []string          `koanf:"names"`
	ReplicationListen  string            `koanf:"replication-listen"`
	ReplicationAddress []string          `koanf:"replication-address"`
	Redis              string            `koanf:"redis"`
	Database           string            `koanf:"database"`
	Bucket             string            `koanf:"bucket"`
	Datastores         map[string]string `koanf:"datastores"`
	NoReplicator       bool              `koanf:"no-replicator"`
	ForwardPort        int               `koanf:"forward-port"`
	Runner             string            `koanf:"runner-name"`
	Scripts            string            `koanf:"scripts-dir"`
	PruneEvery         time.Duration     `koanf:"prune-every"`
	Compression        string            `koanf:"compression"`
	ControlAddress     string            `koanf:"control-address"`
	TrustedProxies     []string          `koanf:"trusted-proxies"`
	ReadsPerSecond     float64           `koanf:"reads-per-second"`
	WritesPerSecond    float64           `koanf:"writes-per-second"`
	MaxConnections     int               `koanf:"max-connections"`
	Log                string            `koanf:"log"`
	Verbose            bool              `koanf:"verbose"`

	AlertMailServer    string   `koanf:"alert-mail-server"`
	AlertMailFrom      string   `koanf:"alert-mail-from"`
	AlertMailUser      string   `koanf:"alert-mail-user"`
	AlertMailPassword  string   `koanf:"alert-mail-password-file"`
	AlertMailSecurity  string   `koanf:"alert-mail-security"`
	AlertOwners        []string `koanf:"alert-owners"`
	AlertWebhooks      []string `koanf:"alert-webhooks"`
	AlertWebhookSecret string   `koanf:"alert-webhook-secret-file"`

	replicationAsked bool
	proxies          []netip.Prefix // TrustedProxies
}

func (c *config) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.DataDir, "data-dir", "", "directory of all state (required)")
	f.StringVar(&c.KeyFile, "key-file", "", "key that secrets in the database are sealed under, the same for every lifeboatd on it (default: DATA-DIR/secret.key, made when nothing is sealed yet)")
	f.StringVar(&c.TokenFile, "token-file", "", "names, roles and hashes of the API's tokens (default: DATA-DIR/tokens, made with the administrator's)")
	f.StringVar(&c.Listen, "listen", ":8443", "address of the REST API and of the fleet protocol")
	f.StringSliceVar(&c.Names, "name", nil, "further host names and addresses in lifeboatd's certificate")
	f.StringVar(&c.ReplicationListen, "replication-listen", "", "address agents send replication data to (default: port 9443 of the listen address, a free one when that is busy)")
	f.StringSliceVar(&c.ReplicationAddress, "replication-address", nil, "host:port agents are told instead of the address listened on; may be given again, agents try all")
	f.StringVar(&c.Redis, "redis", "", "host:port or redis:// URL of the task queue (default: inside this process, for which it must be the only one on the database)")
	f.StringVar(&c.Database, "database", "", "postgres:// URL, which any number of lifeboatd may share (default: SQLite in the data directory)")
	f.StringVar(&c.Bucket, "bucket", "", "URL of the bucket new vaults are put in (default: file://DATA-DIR/bucket)")
	f.StringToStringVar(&c.Datastores, "datastore", nil, "name=directory of production machines that can be written back to; may be given again")
	f.BoolVar(&c.NoReplicator, "no-replicator", false, "run no replicator in this process")
	program.RunnerFlags(cmd, &c.Runner, &c.Scripts)
	f.IntVar(&c.ForwardPort, "forward-port", 0, "TCP port of recovered machines to make reachable on a free loopback port")
	f.StringVar(&c.Compression, "compression", "zstd", "of stored data: zstd (smaller) or s2 (less processor time)")
	f.DurationVar(&c.PruneEvery, "prune-every", 15*time.Minute, "how often recovery points that the policy does not keep are dropped")
	f.StringVar(&c.ControlAddress, "control-address", "", "host:port at which agents and replicators reach lifeboatd's own TLS, told with registration keys (default: the address that the request for the key came to, which may be a proxy's)")
	f.StringSliceVar(&c.TrustedProxies, "trusted-proxy", nil, "address or network (10.0.0.0/8) of a proxy in front, whose Forwarded or X-Forwarded-Proto, -Host, -Port, -For and -Prefix headers are believed; may be given again")
	f.Float64Var(&c.ReadsPerSecond, "reads-per-second", 1000, "reads of the REST API that a token may do in a subscription before it is answered 429, with ten seconds' worth at once; 0 does not bound")
	f.Float64Var(&c.WritesPerSecond, "writes-per-second", 200, "the same for everything but reads")
	f.IntVar(&c.MaxConnections, "max-connections", maxConnections(), "connections open at once; further ones wait")
	f.StringVar(&c.Log, "log", "text", "format of the log on standard error: text or json")
	f.BoolVar(&c.Verbose, "verbose", false, "log debug messages too")
	c.alertFlags(f)
	f.String("config", "", "YAML file with these settings by their flag names (datastores, names, trusted-proxies, alert-owners and alert-webhooks in the plural); flags win")
}

// plurals are the names in the file of flags that may be given again.
var plurals = map[string]string{"datastore": "datastores", "name": "names", "trusted-proxy": "trusted-proxies", "alert-owner": "alert-owners", "alert-webhook": "alert-webhooks"}

// load lays the configuration file, if any, under the flags that were given, and completes the rest.
func (c *config) load(cmd *cobra.Command) error {
	if err := program.Load(cmd, c, plurals); err != nil {
		return err
	}
	return c.complete()
}

func (c *config) complete() error {
	if c.DataDir == "" {
		return errors.New("--data-dir is required")
	}
	var err error
	if c.DataDir, err = filepath.Abs(c.DataDir); err != nil {
		return err
	}
	for path, name := range map[*string]string{&c.KeyFile: "secret.key", &c.TokenFile: "tokens"} {
		if *path == "" {
			*path = filepath.Join(c.DataDir, name)
		} else if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	c.replicationAsked = c.ReplicationListen != ""
	if !c.replicationAsked {
		c.ReplicationListen = net.JoinHostPort(host, "9443")
	}
	if c.Bucket == "" {
		c.Bucket = (&url.URL{Scheme: "file", Path: filepath.Join(c.DataDir, "bucket")}).String()
	}
	for name, dir := range c.Datastores {
		if c.Datastores[name], err = filepath.Abs(dir); err != nil {
			return err
		}
	}
	if c.ControlAddress != "" {
		if _, _, err := net.SplitHostPort(c.ControlAddress); err != nil {
			return fmt.Errorf("--control-address: %w", err)
		}
	}
	if c.proxies, err = prefixes(c.TrustedProxies); err != nil {
		return fmt.Errorf("--trusted-proxy: %w", err)
	}
	if c.MaxConnections < 1 || c.ReadsPerSecond < 0 || c.WritesPerSecond < 0 {
		return errors.New("--max-connections is at least 1, --reads-per-second and --writes-per-second are not negative")
	}
	if c.Log != "text" && c.Log != "json" {
		return fmt.Errorf("--log is text or json, not %q", c.Log)
	}
	if _, err = program.Scripts(c.Runner, c.Scripts); err != nil {
		return err
	}
	return c.completeAlerts()
}

// prefixes reads networks; an address alone is a network of one.
func prefixes(in []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(in))
	for _, v := range in {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			a, err := netip.ParseAddr(v)
			if err != nil {
				return nil, err
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// warn tells of settings that are fit for one lifeboatd only, while others may share the database.
func (c *config) warn(log *slog.Logger) {
	if c.Database == "" {
		return
	}
	if c.Redis == "" {
		log.Warn("the task queue is inside this process: no other lifeboatd may share the database until all are given the same --redis")
	}
	if strings.HasPrefix(c.Bucket, "file:") {
		log.Warn("new vaults are put in a directory: every lifeboatd and replicator must see it under the same path", "bucket", c.Bucket)
	}
}
