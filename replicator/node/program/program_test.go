package program_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/replicator/node/program"
)

type settings struct {
	Name  []string      `koanf:"names"`
	Every time.Duration `koanf:"every"`
	Port  int           `koanf:"port"`
}

// load reads a file with the text under the arguments.
func load(t *testing.T, text string, args ...string) (settings, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var s settings
	cmd := &cobra.Command{Use: "program"}
	cmd.Flags().String("config", "", "")
	cmd.Flags().StringSliceVar(&s.Name, "name", nil, "")
	cmd.Flags().DurationVar(&s.Every, "every", time.Minute, "")
	cmd.Flags().IntVar(&s.Port, "port", 1, "")
	if err := cmd.ParseFlags(append([]string{"--config", path}, args...)); err != nil {
		t.Fatal(err)
	}
	err := program.Load(cmd, &s, map[string]string{"name": "names"})
	return s, err
}

func TestFlagsWinOverTheFileAndTheFileOverDefaults(t *testing.T) {
	t.Parallel()
	s, err := load(t, "names: [a, b]\nevery: 5s\n", "--name", "c")
	if err != nil || len(s.Name) != 1 || s.Name[0] != "c" || s.Every != 5*time.Second || s.Port != 1 {
		t.Fatalf("settings are %+v, %v", s, err)
	}
}

func TestAFileIsRefusedWhole(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"an unknown name": "port: 5\nprot: 6\n", "no YAML": "port: [", "no number": "port: many\n"} {
		s, err := load(t, text)
		if err == nil || !strings.Contains(err.Error(), "c.yaml") || s.Port != 1 {
			t.Errorf("%s: settings are %+v, error %v", name, s, err)
		}
	}
}
