// Package localbucket owns the blob bucket over a local directory: a gocloud.dev/blob driver whose writes are durable when
// they return and whose create-if-absent is atomic across goroutines, processes and hosts that share the directory.
//
// An object is one file. Its bytes are the file's bytes; only an object whose attributes differ from the default (see
// trailer.go) carries them in a trailer of the same file, so that a body and its attributes can never part.
// It must never answer a write before file and directory entry are synced, never show a partly written object, and never
// let two creators of one key both win.
//
// Limits: a key may not be a directory of another key ("a" beside "a/b"), a path element may be 255 bytes long after
// escaping, and a directory stays when its last object goes, because removing it would race with another process's create.
package localbucket

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"
)

const (
	dirMode  = 0o700
	fileMode = 0o600
)

// Open opens the bucket in dir, creating the directory if needed, and removes what writers that died left behind. Several
// processes may have the same bucket open. Closing the bucket ends its use, not the reads and writes under way.
func Open(dir string) (*blob.Bucket, error) {
	drv, err := OpenDriver(dir)
	if err != nil {
		return nil, err
	}
	return blob.NewBucket(drv), nil
}

// OpenDriver is Open for callers that stack another driver on top of this one.
func OpenDriver(dir string) (driver.Bucket, error) {
	return open(dir)
}

// OpenURL opens a bucket by its URL. file:///absolute/directory is the bucket of this package; mem:// is a fresh, private
// bucket in memory, for tests. Other schemes are refused, and so are parameters, so that a misspelt one is not ignored.
func OpenURL(_ context.Context, rawURL string) (*blob.Bucket, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("open bucket %s: a %s URL takes no user, parameters or fragment", u.Redacted(), u.Scheme)
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || !filepath.IsAbs(u.Path) {
			return nil, fmt.Errorf("open bucket %s: want file:///absolute/directory", rawURL)
		}
		return Open(u.Path)
	case "mem":
		return memblob.OpenBucket(nil), nil
	default:
		return nil, fmt.Errorf("open bucket %s: scheme %q is not supported, want file or mem", u.Redacted(), u.Scheme)
	}
}

func open(dir string) (*bucket, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", dir, err)
	}
	b := &bucket{root: root, tmp: filepath.Join(root, tempName), made: make(map[string]bool), syncDir: syncDir}
	if err := b.create(); err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", dir, err)
	}
	if err := b.sweep(); err != nil {
		return nil, fmt.Errorf("open bucket %s: sweep: %w", dir, err)
	}
	return b, nil
}

// bucket implements driver.Bucket.
type bucket struct {
	root string
	tmp  string // root/.tmp: files not yet objects; on the same filesystem, so that link and rename work

	// syncDir makes a directory's entries durable. A field so that a test can count and fail it.
	syncDir func(dir string) error

	mu   sync.Mutex
	made map[string]bool // guarded by mu: directories whose own entry this process knows to be durable
}

// create makes the root and the temp directory and makes both durable, up to the first directory that was there before.
func (b *bucket) create() error {
	var missing []string
	for dir := b.tmp; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return &os.PathError{Op: "open", Path: dir, Err: syscall.ENOTDIR}
		}
		if err == nil || dir == filepath.Dir(dir) {
			break
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], dirMode); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := b.syncDir(filepath.Dir(missing[i])); err != nil {
			return err
		}
	}
	return nil
}

// path returns the file of a key.
func (b *bucket) path(key string) (string, error) {
	rel, err := escapeKey(key)
	if err != nil {
		return "", err
	}
	return filepath.Join(b.root, rel), nil
}

var (
	errExists = errors.New("the object exists")
	errKey    = errors.New("the key cannot be a file name")
	errSigned = errors.New("signed URLs are not supported by a local bucket")
)

// ErrorCode implements driver.Bucket.
func (b *bucket) ErrorCode(err error) gcerrors.ErrorCode {
	switch {
	case errors.Is(err, errExists):
		return gcerrors.FailedPrecondition
	case errors.Is(err, errKey), errors.Is(err, syscall.ENAMETOOLONG):
		return gcerrors.InvalidArgument
	case errors.Is(err, errSigned):
		return gcerrors.Unimplemented
	case errors.Is(err, os.ErrNotExist):
		return gcerrors.NotFound
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return gcerrors.ResourceExhausted
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return gcerrors.PermissionDenied
	case errors.Is(err, context.Canceled):
		return gcerrors.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return gcerrors.DeadlineExceeded
	default:
		return gcerrors.Unknown
	}
}

// ErrorAs implements driver.Bucket: a *os.PathError can be had.
func (b *bucket) ErrorAs(err error, target any) bool {
	if want, ok := target.(**os.PathError); ok {
		return errors.As(err, want)
	}
	return false
}

// Delete implements driver.Bucket. It returns when the deletion is durable.
func (b *bucket) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path, err := b.path(key)
	if err != nil {
		return err
	}
	// Not os.Remove: it would remove an empty directory of that name.
	if err := syscall.Unlink(path); err != nil {
		return absent("unlink", path, err)
	}
	return b.syncDir(filepath.Dir(path))
}

// SignedURL implements driver.Bucket; there is no server that could honour one.
func (b *bucket) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", errSigned
}

// Close implements driver.Bucket.
func (b *bucket) Close() error { return nil }

// absent turns what a file system says where a directory stands in for an object, or an object for a directory, into "not
// found": no object has that key.
func absent(op, path string, err error) error {
	if errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTDIR) {
		err = syscall.ENOENT
	}
	if errors.Is(err, syscall.EPERM) {
		if info, serr := os.Lstat(path); serr == nil && info.IsDir() { // unlink of a directory, as POSIX has it
			err = syscall.ENOENT
		}
	}
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = pe.Err
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

func syncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// ensureDir makes the directory of an object, and the ones above it up to the root, present and durable. A directory that
// another process made counts as durable only once this process has synced its parent.
func (b *bucket) ensureDir(dir string) error {
	if dir == b.root || !strings.HasPrefix(dir, b.root+string(filepath.Separator)) {
		return nil
	}
	b.mu.Lock()
	known := b.made[dir]
	b.mu.Unlock()
	if known {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := b.ensureDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := b.syncDir(parent); err != nil {
		return err
	}
	b.mu.Lock()
	b.made[dir] = true
	b.mu.Unlock()
	return nil
}

// forgetDirs drops what is known of directories after one turned out to be gone: somebody tidied up by hand.
func (b *bucket) forgetDirs() {
	b.mu.Lock()
	clear(b.made)
	b.mu.Unlock()
}
