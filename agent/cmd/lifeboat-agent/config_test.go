package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	key := configFile(t, "  s3cret\n")
	c, err := readFile(configFile(t, `
server: lifeboat.example:8443
registrationKeyFile: `+key+`
caFile: /etc/lifeboat/ca.pem
disks:
  - {id: data, path: /srv/data.img, stopped: true}
  - {id: sys, path: /dev/sda, os: true}
scripts: {pre: /etc/lifeboat/pre, post: /etc/lifeboat/post, timeout: 90s}
shutdown: [systemctl, poweroff]
noOfflineWrites: true
host: {sockets: ["/run/lifeboat/*.qmp"], fleecingDir: /var/tmp/fleecing, reserveBytes: 5368709120}
throttle:
  zone: Europe/Berlin
  windows:
    - {days: [mon, tue, wed, thu, fri], from: "08:00", to: "18:00", limit: 20Mbit}
    - {limit: 50M}
`), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.override(file{Server: "other:1", Platform: "physical"}, nil); err != nil {
		t.Fatal(err)
	}
	g := c.guest()
	if g.Server.Address != "other:1" || g.RegistrationKey != "s3cret" || g.StateDir != "/var/lib/lifeboat-agent" || g.Scripts.Timeout != 90*time.Second ||
		len(g.Source.Disks) != 2 || !g.Source.Disks[0].Stopped || !g.Source.Disks[1].OS || g.Source.Platform != "physical" || len(g.Shutdown) != 2 || !g.NoOfflineWrites {
		t.Errorf("got %+v", g)
	}
	if h := c.Host; len(h.Sockets) != 1 || h.FleecingDir != "/var/tmp/fleecing" || h.ReserveBytes != 5<<30 {
		t.Errorf("got %+v", h)
	}
	l, err := c.Throttle.limiter()
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Limit().BytesPerSecond; got != 2_500_000 && got != 50_000_000 { // what day it is
		t.Errorf("got a limit of %d bytes/s", got)
	}
	if l, err := (throttleEntry{}).limiter(); l != nil || err != nil {
		t.Errorf("got limiter %v, %v without windows", l, err)
	}
	if err := c.override(file{}, []string{"one=/a/b=c"}); err != nil {
		t.Fatal(err)
	}
	if d := c.guest().Source.Disks; len(d) != 1 || d[0].ID != "one" || d[0].Path != "/a/b=c" {
		t.Errorf("got disks %+v in the place of the file's", d)
	}
}

func TestConfigurationThatIsRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text  string
		flags file
		disks []string
		want  string
	}{
		"a misspelt key":             {text: "servr: x\n", want: "servr"},
		"a misspelt key of a disk":   {text: "disks: [{id: a, paht: /x}]\n", want: "paht"},
		"a timeout without a unit":   {text: "scripts: {timeout: soon}\n", want: "timeout"},
		"no YAML":                    {text: "\t{", want: "agent.yaml"},
		"a missing key file":         {text: "registrationKeyFile: /nowhere\n", want: "/nowhere"},
		"an unknown platform":        {flags: file{Platform: "cloud"}, want: "cloud"},
		"a throttle without a limit": {text: "throttle: {windows: [{from: '08:00'}]}\n", want: "window 1"},
		"a throttle's odd hour":      {text: "throttle: {windows: [{to: '8', limit: 1M}]}\n", want: "time of day"},
		"a throttle's odd day":       {text: "throttle: {windows: [{days: [holiday], limit: 1M}]}\n", want: "holiday"},
		"a throttle's odd zone":      {text: "throttle: {zone: Mars/Olympus, windows: [{limit: 1M}]}\n", want: "Mars/Olympus"},
		"a disk without a path":      {disks: []string{"sda"}, want: "id=/path"},
		"an unknown firmware":        {text: "firmware: coreboot\n", want: "coreboot"},
	} {
		c, err := readFile(configFile(t, tc.text), true)
		if err == nil {
			err = c.override(tc.flags, tc.disks)
		}
		if err == nil {
			_, err = c.Throttle.limiter()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, tc.want)
		}
	}
	if _, err := readFile("/nowhere/agent.yaml", true); err == nil {
		t.Error("a file asked for by name was not missed")
	}
	if _, err := readFile("/nowhere/agent.yaml", false); err != nil {
		t.Errorf("the default file is not there: %v", err)
	}
}

func TestCommandsTellWhatIsMissing(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"guest before it is enrolled":       {[]string{"guest", "--state-dir", state, "--disk", "d=" + configFile(t, strings.Repeat("x", 512))}, "not enrolled"},
		"enroll without a key":              {[]string{"enroll", "--state-dir", state, "--server", "x:1"}, "registration key"},
		"enroll without a way to know whom": {[]string{"enroll", "--state-dir", state, "--server", "127.0.0.1:1", "--key", "k", "--disk", "d=" + configFile(t, strings.Repeat("x", 512))}, "fingerprint"},
	} {
		c := command()
		c.SetArgs(append(tc.args, "--config", configFile(t, "{}")))
		if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, tc.want)
		}
	}
}

func TestAGroupAddressWithoutAPortIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte("group: {listen: '10.0.0.1:20004', addresses: [web01.example]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.override(file{}, nil); err == nil || !strings.Contains(err.Error(), "web01.example") {
		t.Errorf("got %v, want an error that names the address", err)
	}
}
