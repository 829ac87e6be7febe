package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
)

// ImageBytes is the size of the benchmark's disk image.
const ImageBytes = 4 << 30

// MakeImage makes the image that first copies and restores are measured on, unless path is there already: 4 GiB raw, ext4,
// about 60 % real files (this machine's /usr and Go modules), about 10 % incompressible bytes from seed, the rest never
// written. It needs root for the loop mount.
func MakeImage(ctx context.Context, path string, seed uint64) (err error) {
	if info, err := os.Stat(path); err == nil && info.Size() == ImageBytes {
		return nil
	}
	tmp := path + ".making"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }()
	if err := errors.Join(f.Truncate(ImageBytes), f.Close()); err != nil {
		return err
	}
	if err := run(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", tmp); err != nil {
		return err
	}
	mount, err := os.MkdirTemp("", "lifeboat-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(mount) }()
	if err := run(ctx, "mount", "-o", "loop", tmp, mount); err != nil {
		return err
	}
	err = fill(mount, seed)
	if err := errors.Join(err, run(context.WithoutCancel(ctx), "umount", mount)); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// fill copies real files up to 60 % of the image, then writes a tenth of it at random.
func fill(mount string, seed uint64) error {
	noise, err := os.Create(filepath.Join(mount, "noise"))
	if err != nil {
		return err
	}
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	_, err = io.CopyN(noise, rand.NewChaCha8(key), ImageBytes/10)
	if err := errors.Join(err, noise.Sync(), noise.Close()); err != nil {
		return err
	}
	modules, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return fmt.Errorf("ask go for its module cache: %w", err)
	}
	left := int64(ImageBytes) * 6 / 10
	for i, source := range []string{"/usr/share", "/usr/local/go", "/usr/lib", string(bytes.TrimSpace(modules))} {
		if left, err = copyTree(filepath.Join(mount, fmt.Sprint(i)), source, left); err != nil {
			return err
		}
	}
	if left > 0 {
		return fmt.Errorf("this machine has too few files: %d bytes short", left)
	}
	return nil
}

// copyTree copies regular files below source until budget bytes are copied and returns what is left of the budget.
func copyTree(target, source string, budget int64) (int64, error) {
	err := filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || budget <= 0 {
			return fs.SkipAll
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		n, err := copyFile(filepath.Join(target, rel), path)
		budget -= n
		return err
	})
	return budget, err
}

func copyFile(target, source string) (int64, error) {
	in, err := os.Open(source)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return 0, err
	}
	out, err := os.Create(target)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, in)
	return n, errors.Join(err, out.Close())
}

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
