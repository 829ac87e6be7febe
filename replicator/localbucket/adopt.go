package localbucket

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Adopter makes a file that is finished into an object without copying it. A bucket of this package fills an *Adopter given to
// its As.
type Adopter interface {
	// Adopt makes the file the object of that key, with the default attributes: it becomes a second name of the same file, as
	// young as if it had been written now, whole and durable when Adopt returns nil. Nobody may write to the file from then on,
	// under either name; removing the first name leaves the object. It is for keys that nobody else writes.
	//
	// Errors: one that wraps errors.ErrUnsupported when the file has to be copied instead: it lies on another filesystem, say,
	// or another object has the key. Then the key is as it was.
	Adopt(ctx context.Context, key, file string) error
}

// As implements driver.Bucket: an *Adopter can be had.
func (b *bucket) As(i any) bool {
	p, ok := i.(*Adopter)
	if ok {
		*p = b
	}
	return ok
}

// Adopt implements Adopter.
func (b *bucket) Adopt(ctx context.Context, key, file string) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	path, err := b.path(key)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("adopt %s, which is no file: %w", file, errors.ErrUnsupported)
	}
	if ambiguous, err := endsInMagic(f, info.Size()); err != nil || ambiguous {
		return errors.Join(err, fmt.Errorf("adopt %s, which needs a trailer: %w", file, errors.ErrUnsupported))
	}
	// Who deletes old objects goes by the time, so it must be that of now before the object can be seen, and stay so.
	now := time.Now()
	if err := errors.Join(os.Chtimes(file, now, now), f.Sync()); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	err = b.link(file, path)
	if errors.Is(err, os.ErrNotExist) {
		b.forgetDirs()
		err = b.link(file, path)
	}
	if errors.Is(err, os.ErrExist) {
		if there, serr := os.Lstat(path); serr == nil && os.SameFile(info, there) {
			return b.syncDir(dir) // it was adopted before
		}
	}
	if err != nil {
		return fmt.Errorf("adopt %s: %w", file, errors.Join(errors.ErrUnsupported, err))
	}
	return b.syncDir(dir)
}

func (b *bucket) link(file, path string) error {
	if err := b.ensureDir(filepath.Dir(path)); err != nil {
		return err
	}
	return os.Link(file, path)
}
