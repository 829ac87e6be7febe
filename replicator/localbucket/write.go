package localbucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"gocloud.dev/blob/driver"
)

// NewTypedWriter implements driver.Bucket. The object appears, whole and durable, when Close returns nil. After any other
// outcome of Close but one the key is as it was; the one is a failed sync of the directory, after which it is unknown
// whether the object is there.
func (b *bucket) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, err := b.path(key)
	if err != nil {
		return nil, err
	}
	if contentType == "" {
		contentType = plainType
	}
	f, err := b.createTemp()
	if err != nil {
		return nil, err
	}
	w := &writer{
		ctx: ctx, b: b, path: path, f: f, create: opts.IfNotExist,
		attrs: attributes{
			ContentType:        contentType,
			CacheControl:       opts.CacheControl,
			ContentDisposition: opts.ContentDisposition,
			ContentEncoding:    opts.ContentEncoding,
			ContentLanguage:    opts.ContentLanguage,
			Metadata:           opts.Metadata,
		},
	}
	if opts.BeforeWrite != nil {
		if err := opts.BeforeWrite(func(any) bool { return false }); err != nil {
			return nil, errors.Join(err, w.discard())
		}
	}
	return w, nil
}

// Copy implements driver.Bucket. The copy is durable when it returns.
func (b *bucket) Copy(ctx context.Context, dstKey, srcKey string, opts *driver.CopyOptions) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	src, err := b.path(srcKey)
	if err != nil {
		return err
	}
	dst, err := b.path(dstKey)
	if err != nil {
		return err
	}
	o, err := openObject(src)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.f.Close()) }()
	if opts.BeforeCopy != nil {
		if err := opts.BeforeCopy(func(any) bool { return false }); err != nil {
			return err
		}
	}
	f, err := b.createTemp()
	if err != nil {
		return err
	}
	w := &writer{ctx: ctx, b: b, path: dst, f: f, attrs: o.attrs}
	return errors.Join(w.Upload(io.NewSectionReader(o.f, 0, o.size)), w.Close())
}

// writer implements driver.Writer and driver.Uploader over a temp file.
type writer struct {
	ctx    context.Context // of the call that opened it, as gocloud's contract has it
	b      *bucket
	path   string
	f      *os.File
	attrs  attributes
	create bool  // refuse where the key exists
	err    error // of a write: Close must not store what is incomplete
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		w.err = err
		return 0, err
	}
	n, err := w.f.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// Upload leaves its error to Close: gocloud gives a code only to errors of Close.
func (w *writer) Upload(r io.Reader) error {
	if _, err := io.Copy(struct{ io.Writer }{w}, r); err != nil {
		w.err = err
	}
	return nil
}

func (w *writer) Close() error {
	err := w.err
	if err == nil {
		err = w.ctx.Err()
	}
	if err == nil {
		err = w.finish()
	}
	if err == nil {
		err = w.publish()
	}
	return errors.Join(err, w.discard())
}

// finish appends the trailer, if one is needed, and makes the file's bytes durable.
func (w *writer) finish() error {
	size, err := w.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	ambiguous, err := endsInMagic(w.f, size)
	if err != nil {
		return err
	}
	if ambiguous || !w.attrs.plain() {
		p, err := encodeTrailer(&w.attrs)
		if err != nil {
			return err
		}
		if _, err := w.f.Write(p); err != nil {
			return err
		}
	}
	return w.f.Sync()
}

// publish gives the temp file its name and makes the name durable.
func (w *writer) publish() error {
	dir := filepath.Dir(w.path)
	err := w.name(dir)
	if errors.Is(err, os.ErrNotExist) {
		w.b.forgetDirs()
		err = w.name(dir)
	}
	if info, serr := os.Lstat(w.path); err != nil && serr == nil && info.IsDir() || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%w beside those there are: one is a directory of the other: %w", errKey, err)
	}
	if errors.Is(err, os.ErrExist) {
		// The winner may not have synced yet. What we say about its object must hold after a power cut, too.
		return errors.Join(fmt.Errorf("create %s: %w", w.path, errExists), w.b.syncDir(dir))
	}
	if err != nil {
		return err
	}
	return w.b.syncDir(dir)
}

func (w *writer) name(dir string) error {
	if err := w.b.ensureDir(dir); err != nil {
		return err
	}
	if !w.create {
		return os.Rename(w.f.Name(), w.path)
	}
	err := os.Link(w.f.Name(), w.path)
	if errors.Is(err, os.ErrExist) && w.linked() {
		return nil
	}
	return err
}

// linked tells whether the object's file is ours although link said that one exists: over NFS a repeated request is answered
// so when the first answer was lost.
func (w *writer) linked() bool {
	ours, err := w.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(w.path)
	return err == nil && os.SameFile(ours, there)
}

// discard drops the temp name, which after a rename is gone already, and closes the file. The lock goes with it, so the
// order matters: an unlocked temp file is anybody's to sweep.
func (w *writer) discard() error {
	err := os.Remove(w.f.Name())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, w.f.Close())
}

// createTemp makes a locked temp file. The lock says that its writer lives; it ends with the process, however that ends.
func (b *bucket) createTemp() (*os.File, error) {
	for {
		f, err := os.OpenFile(filepath.Join(b.tmp, rand.Text()), os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
		if err != nil {
			return nil, err
		}
		ours, err := lock(f)
		if err != nil {
			return nil, errors.Join(err, os.Remove(f.Name()), f.Close())
		}
		if ours {
			return f, nil
		}
		// A sweep came between create and lock; it takes the file.
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// lock takes the lock of an open temp file; ours is false when another process has it or has removed the file.
func lock(f *os.File) (ours bool, err error) {
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || st.Nlink > 0, nil
}

// sweep removes the temp files of writers that died. Files whose writers live, in whatever process, are locked and stay.
func (b *bucket) sweep() error {
	entries, err := os.ReadDir(b.tmp)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := sweepFile(filepath.Join(b.tmp, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func sweepFile(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	dead, err := lock(f)
	if err != nil || !dead {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
