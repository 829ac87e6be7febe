package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	kfile "github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/lifeboat-dr/lifeboat/agent/guest"
	"github.com/lifeboat-dr/lifeboat/agent/identity"
	"github.com/lifeboat-dr/lifeboat/agent/quiesce"
	"github.com/lifeboat-dr/lifeboat/agent/source"
)

// file is the configuration file. A key it does not know is an error: a misspelt setting must not be taken for the default.
type file struct {
	Server              string      `koanf:"server"`
	RegistrationKey     string      `koanf:"registrationKey"`
	RegistrationKeyFile string      `koanf:"registrationKeyFile"`
	CAFile              string      `koanf:"caFile"`
	CASHA256            string      `koanf:"caSha256"`
	StateDir            string      `koanf:"stateDir"`
	LogLevel            string      `koanf:"logLevel"`
	Hostname            string      `koanf:"hostname"`
	Platform            string      `koanf:"platform"`
	ProductUUID         string      `koanf:"productUuid"`
	CPUs                int         `koanf:"cpus"`
	MemoryBytes         int64       `koanf:"memoryBytes"`
	Firmware            string      `koanf:"firmware"`
	Disks               []diskEntry `koanf:"disks"`
	// NoOfflineWrites states that nothing writes to the disks while this system does not run: no rescue system, no reverted snapshot,
	// no disk attached elsewhere. docs/wire.md tells what it spares, and for which platforms it may be said.
	NoOfflineWrites bool          `koanf:"noOfflineWrites"`
	Scripts         scriptEntries `koanf:"scripts"`
	Throttle        throttleEntry `koanf:"throttle"`
	Group           groupEntry    `koanf:"group"`
	Host            hostEntry     `koanf:"host"`
	// Shutdown is the command by which a fenced machine shuts itself down, when lifeboatd says that it shall.
	Shutdown []string `koanf:"shutdown"`
}

type diskEntry struct {
	ID      string `koanf:"id"`
	Path    string `koanf:"path"`
	OS      bool   `koanf:"os"`
	Stopped bool   `koanf:"stopped"`
}

// hostEntry makes the agent that of a hypervisor.
type hostEntry struct {
	Sockets      []string `koanf:"sockets"`
	FleecingDir  string   `koanf:"fleecingDir"`
	ReserveBytes int64    `koanf:"reserveBytes"`
}

// groupEntry is where members of the machine's consistency group reach its agent.
type groupEntry struct {
	Listen    string   `koanf:"listen"`
	Addresses []string `koanf:"addresses"`
}

type scriptEntries struct {
	Pre     string        `koanf:"pre"`
	Post    string        `koanf:"post"`
	Timeout time.Duration `koanf:"timeout"`
}

// readFile reads the configuration. A file that is not there is empty, unless it was asked for by name.
func readFile(path string, named bool) (file, error) {
	c := file{StateDir: "/var/lib/lifeboat-agent", LogLevel: "info", Shutdown: []string{"poweroff"}}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && !named {
		return c, nil
	}
	k := koanf.New(".")
	if err := k.Load(kfile.Provider(path), yaml.Parser()); err != nil {
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{Tag: "koanf", DecoderConfig: &mapstructure.DecoderConfig{
		Result: &c, TagName: "koanf", ErrorUnused: true, WeaklyTypedInput: true, DecodeHook: mapstructure.StringToTimeDurationHookFunc(),
	}})
	if err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	if c.RegistrationKeyFile != "" {
		if c.RegistrationKey, err = readKey(c.RegistrationKeyFile); err != nil {
			return c, err
		}
	}
	return c, nil
}

func readKey(path string) (string, error) {
	var b []byte
	var err error
	if path == "-" {
		b, err = io.ReadAll(io.LimitReader(os.Stdin, 4096))
	} else {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return "", fmt.Errorf("read registration key: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// override puts what flags say in the place of what the file says.
func (c *file) override(flags file, disks []string) error {
	for _, o := range []struct {
		to   *string
		from string
	}{
		{&c.Server, flags.Server}, {&c.CAFile, flags.CAFile}, {&c.CASHA256, flags.CASHA256}, {&c.StateDir, flags.StateDir},
		{&c.Platform, flags.Platform}, {&c.ProductUUID, flags.ProductUUID},
	} {
		if o.from != "" {
			*o.to = o.from
		}
	}
	if len(disks) > 0 {
		c.Disks = nil
	}
	for _, d := range disks {
		id, path, ok := strings.Cut(d, "=")
		if !ok {
			return fmt.Errorf("--disk %q: write id=/path", d)
		}
		c.Disks = append(c.Disks, diskEntry{ID: id, Path: path})
	}
	switch c.Platform {
	case "", "vm", "physical":
	default:
		return fmt.Errorf("platform %q is neither vm nor physical", c.Platform)
	}
	switch c.Firmware {
	case "", "bios", "uefi":
	default:
		return fmt.Errorf("firmware %q is neither bios nor uefi", c.Firmware)
	}
	return c.guest().Group.Check()
}

func (c *file) guest() guest.Config {
	g := guest.Config{
		StateDir: c.StateDir, RegistrationKey: c.RegistrationKey, Shutdown: c.Shutdown, NoOfflineWrites: c.NoOfflineWrites,
		Server:  identity.Server{Address: c.Server, CAFile: c.CAFile, CASHA256: c.CASHA256},
		Source:  source.Config{Platform: c.Platform, ProductUUID: c.ProductUUID, Hostname: c.Hostname, CPUs: c.CPUs, MemoryBytes: c.MemoryBytes, Firmware: c.Firmware},
		Scripts: quiesce.Scripts{Pre: c.Scripts.Pre, Post: c.Scripts.Post, Timeout: c.Scripts.Timeout},
	}
	g.Group = guest.Group{Listen: c.Group.Listen, Addresses: c.Group.Addresses}
	for _, d := range c.Disks {
		g.Source.Disks = append(g.Source.Disks, source.Named{ID: d.ID, Path: d.Path, OS: d.OS, Stopped: d.Stopped})
	}
	return g
}
