package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/replicator/node"
	"github.com/lifeboat-dr/lifeboat/replicator/node/program"
)

// config is what a replicator can be told. A file has the same settings, by the names in the tags.
type config struct {
	Server              string            `koanf:"server"`
	RegistrationKey     string            `koanf:"registration-key"`
	RegistrationKeyFile string            `koanf:"registration-key-file"`
	CAFile              string            `koanf:"ca-file"`
	CASHA256            string            `koanf:"ca-sha256"`
	Site                string            `koanf:"site"`
	Roles               []string          `koanf:"roles"`
	DataListen          string            `koanf:"data-listen"`
	DataAddress         []string          `koanf:"data-address"`
	ControlListen       string            `koanf:"control-listen"`
	ControlAddress      string            `koanf:"control-address"`
	SpoolLimit          int64             `koanf:"spool-limit"`
	Datastores          map[string]string `koanf:"datastores"`
	StateDir            string            `koanf:"state-dir"`
	Runner              string            `koanf:"runner-name"`
	Scripts             string            `koanf:"scripts-dir"`
	ForwardPort         int               `koanf:"forward-port"`
	Compression         string            `koanf:"compression"`
	Hostname            string            `koanf:"hostname"`
	Log                 string            `koanf:"log"`
	Verbose             bool              `koanf:"verbose"`
}

// keyVariable is an environment variable that may hold the registration key.
const keyVariable = "LIFEBOAT_REGISTRATION_KEY"

func (c *config) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("config", "", "YAML file with these settings by their flag names (datastores in the plural); flags win")
	f.StringVar(&c.Server, "server", "", "host:port of lifeboatd, or of a replicator that relays to it")
	f.StringVar(&c.RegistrationKey, "registration-key", "", "one-time key, needed for the first start only; prefer the file or "+keyVariable+": the process list shows flags")
	f.StringVar(&c.RegistrationKeyFile, "registration-key-file", "", "file with the one-time key; - for standard input")
	f.StringVar(&c.CAFile, "ca-file", "", "PEM file of lifeboatd's authority (its ca.pem), for the first start")
	f.StringVar(&c.CASHA256, "ca-sha256", "", "SHA-256 fingerprint of lifeboatd's authority, instead of a file")
	f.StringVar(&c.Site, "site", "recovery", "home or recovery")
	f.StringSliceVar(&c.Roles, "roles", nil, "of "+strings.Join(node.Roles, ", ")+" (default: process server and master target, and configuration server with --control-listen)")
	f.StringVar(&c.DataListen, "data-listen", ":9443", "address agents send replication data to")
	f.StringSliceVar(&c.DataAddress, "data-address", nil, "host:port agents are told instead of the address listened on; may be given again, agents try all")
	f.StringVar(&c.ControlListen, "control-listen", "", "address agents enrol and sync at, relayed to lifeboatd")
	f.StringVar(&c.ControlAddress, "control-address", "", "host:port agents are told instead of the address listened on")
	f.Int64Var(&c.SpoolLimit, "spool-limit", 0, "bytes taken in and not yet in the bucket (default 2 GiB)")
	f.StringToStringVar(&c.Datastores, "datastore", nil, "name=directory of machines that can be written back to; may be given again")
	f.StringVar(&c.StateDir, "state-dir", "/var/lib/lifeboat-replicator", "directory of the replicator's state")
	program.RunnerFlags(cmd, &c.Runner, &c.Scripts)
	f.IntVar(&c.ForwardPort, "forward-port", 0, "TCP port of recovered machines to make reachable on a free loopback port")
	f.StringVar(&c.Compression, "compression", "zstd", "of stored data: zstd (smaller) or s2 (less processor time)")
	f.StringVar(&c.Hostname, "hostname", "", "name shown to people (default: the host's)")
	f.StringVar(&c.Log, "log", "text", "format of the log on standard error: text or json")
	f.BoolVar(&c.Verbose, "verbose", false, "log debug messages too")
}

// plurals are the names in the file of flags that may be given again.
var plurals = map[string]string{"datastore": "datastores"}

// load lays the configuration file, if any, under the flags that were given, and completes the rest.
func (c *config) load(cmd *cobra.Command) error {
	if err := program.Load(cmd, c, plurals); err != nil {
		return err
	}
	return c.complete()
}

func (c *config) complete() error {
	if c.Server == "" {
		return errors.New("--server is required")
	}
	if c.Site != "home" && c.Site != "recovery" {
		return fmt.Errorf("--site is home or recovery, not %q", c.Site)
	}
	if len(c.Roles) == 0 {
		c.Roles = []string{node.RoleProcessServer, node.RoleMasterTarget}
		if c.ControlListen != "" {
			c.Roles = append(c.Roles, node.RoleConfigurationServer)
		}
	}
	if slices.Contains(c.Roles, node.RoleConfigurationServer) && c.ControlListen == "" {
		return errors.New("a configuration server needs --control-listen")
	}
	if c.Log != "text" && c.Log != "json" {
		return fmt.Errorf("--log is text or json, not %q", c.Log)
	}
	var err error
	if c.StateDir, err = filepath.Abs(c.StateDir); err != nil {
		return err
	}
	for name, dir := range c.Datastores {
		if c.Datastores[name], err = filepath.Abs(dir); err != nil {
			return err
		}
	}
	if c.Hostname == "" {
		if c.Hostname, err = os.Hostname(); err != nil {
			return err
		}
	}
	_, err = program.Scripts(c.Runner, c.Scripts)
	return err
}

// registrationKey returns the one-time key from wherever it was given, empty when it was not.
func (c *config) registrationKey() (string, error) {
	if c.RegistrationKey != "" {
		return c.RegistrationKey, nil
	}
	if key := os.Getenv(keyVariable); key != "" {
		return key, nil
	}
	return readSecret(c.RegistrationKeyFile)
}

// readSecret reads one line from a file, or from standard input for -. Empty for no path.
func readSecret(path string) (string, error) {
	var raw []byte
	var err error
	switch path {
	case "":
		return "", nil
	case "-":
		raw, err = io.ReadAll(io.LimitReader(os.Stdin, 4096))
	default:
		raw, err = os.ReadFile(path)
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(raw)), nil
}
