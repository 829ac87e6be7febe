package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lifeboat-dr/lifeboat/agent/profile"
)

// run runs a command line with a state directory of its own and returns what it printed.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	c := command()
	c.SetOut(&out)
	c.SetErr(t.Output())
	c.SetArgs(append(args, "--config", configFile(t, "{}")))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestProfileOfAnImage(t *testing.T) {
	path, state := configFile(t, strings.Repeat("x", 1<<20)), t.TempDir()
	out, err := run(t, "profile", path, "--state-dir", state, "--for", "1s", "--every", "1s", "--bandwidth", "50M", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var r profile.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Disk != path || r.SizeBytes != 1<<20 || r.Tracker != "scan" || r.Seconds < 0.9 || len(r.Links) != 1 || r.Links[0].BytesPerSecond != 50_000_000 || r.Changed.Bytes != 0 {
		t.Errorf("got %+v", r)
	}
	if left, err := os.ReadDir(filepath.Join(state, "profile")); !os.IsNotExist(err) {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if out, err = run(t, "profile", path, "--state-dir", state, "--for", "1s"); err != nil || !strings.Contains(out, "BANDWIDTH") {
		t.Errorf("got %v and %s, want a table", err, out)
	}
}

func TestProfilesThatAreRefused(t *testing.T) {
	t.Parallel()
	path := configFile(t, strings.Repeat("x", 1<<20))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"an odd format":              {[]string{path, "-o", "yaml"}, "table or json"},
		"an odd bandwidth":           {[]string{path, "--bandwidth", "fast"}, "fast"},
		"no bandwidth at all":        {[]string{path, "--bandwidth", "0"}, "sends nothing"},
		"no time at all":             {[]string{path, "--for", "0s"}, "--for"},
		"points within an epoch":     {[]string{path, "--point-every", "1s"}, "--point-every"},
		"a disk that is not there":   {[]string{"/dev/nothing"}, "/dev/nothing"},
		"a directory as a disk":      {[]string{t.TempDir()}, "neither a block device"},
		"two disks at the same time": {[]string{path, path}, "accepts 1 arg"},
	} {
		if _, err := run(t, append([]string{"profile", "--state-dir", t.TempDir()}, c.args...)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
}
