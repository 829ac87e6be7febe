package program

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/replicator/worker"
)

// RunnerFlags are the flags that make a replicator a runner of recovery plans' scripts.
func RunnerFlags(cmd *cobra.Command, name, dir *string) {
	cmd.Flags().StringVar(name, "runner-name", "", "name by which recovery plans ask this replicator to run scripts (default: it runs none)")
	cmd.Flags().StringVar(dir, "scripts-dir", "", "directory of the scripts that recovery plans may run here, as this process's user")
}

var runnerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// Scripts is what the two flags say; nil when neither was given. Whoever may write to the directory decides what is run here, so
// that it must not be writable by everyone.
func Scripts(name, dir string) (*worker.Scripts, error) {
	if name == "" && dir == "" {
		return nil, nil
	}
	if !runnerName.MatchString(name) || dir == "" {
		return nil, errors.New("--runner-name (letters, digits, dots, dashes) and --scripts-dir belong together")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("--scripts-dir: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("--scripts-dir %s is no directory", dir)
	case info.Mode().Perm()&0o002 != 0:
		return nil, fmt.Errorf("--scripts-dir %s may be written by everyone; that would let everyone run programs as this user", dir)
	}
	return &worker.Scripts{Runner: name, Dir: dir}, nil
}
