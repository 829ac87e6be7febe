package bench

import (
	"context"
	"io/fs"
	"path/filepath"
)

// Restic is a repository of restic's own below Dir.
type Restic struct {
	Dir      string
	CacheDir string
}

func (r Restic) env() []string {
	return []string{"RESTIC_REPOSITORY=" + r.Dir, "RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR=" + r.CacheDir}
}

// Init makes the repository.
func (r Restic) Init(ctx context.Context) error {
	_, err := Measure(ctx, r.env(), "restic", "init", "--quiet")
	return err
}

// Backup copies the image into the repository.
func (r Restic) Backup(ctx context.Context, image string) (Cost, error) {
	cost, err := Measure(ctx, r.env(), "restic", "backup", "--quiet", image)
	if err != nil {
		return cost, err
	}
	cost.Stored, err = treeBytes(r.Dir)
	return cost, err
}

// Restore writes the newest copy below target.
func (r Restic) Restore(ctx context.Context, target string) (Cost, error) {
	return Measure(ctx, r.env(), "restic", "restore", "latest", "--quiet", "--target", target)
}

// treeBytes adds up the files below dir.
func treeBytes(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
