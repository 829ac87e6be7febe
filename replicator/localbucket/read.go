package localbucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"gocloud.dev/blob/driver"
)

// object is an object's file, open for reading. It stays readable when the key is replaced or deleted meanwhile.
type object struct {
	f     *os.File
	info  os.FileInfo
	attrs attributes
	size  int64 // of the body
}

func openObject(path string) (*object, error) {
	// O_NONBLOCK: opening a stray FIFO or device in the directory must not hang.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, absent("open", path, err)
	}
	o := &object{f: f}
	if err := o.load(path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return o, nil
}

func (o *object) load(path string) (err error) {
	if o.info, err = o.f.Stat(); err != nil {
		return err
	}
	if !o.info.Mode().IsRegular() {
		return &os.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
	}
	if o.attrs, o.size, err = readTrailer(o.f, o.info.Size()); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// Attributes implements driver.Bucket.
func (b *bucket) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, err := b.path(key)
	if err != nil {
		return nil, err
	}
	o, err := openObject(path)
	if err != nil {
		return nil, err
	}
	if err := o.f.Close(); err != nil {
		return nil, err
	}
	return &driver.Attributes{
		CacheControl:       o.attrs.CacheControl,
		ContentDisposition: o.attrs.ContentDisposition,
		ContentEncoding:    o.attrs.ContentEncoding,
		ContentLanguage:    o.attrs.ContentLanguage,
		ContentType:        o.attrs.ContentType,
		Metadata:           o.attrs.Metadata,
		ModTime:            o.info.ModTime(),
		Size:               o.size,
		ETag:               etag(o.info),
	}, nil
}

// etag changes whenever a key gets another file: each write makes a new inode, and the time tells a reused inode apart.
func etag(info os.FileInfo) string {
	var ino uint64
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		ino = st.Ino
	}
	return fmt.Sprintf("\"%x-%x-%x\"", ino, info.ModTime().UnixNano(), info.Size())
}

// NewRangeReader implements driver.Bucket.
func (b *bucket) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, err := b.path(key)
	if err != nil {
		return nil, err
	}
	o, err := openObject(path)
	if err != nil {
		return nil, err
	}
	if opts.BeforeRead != nil {
		if err := opts.BeforeRead(func(any) bool { return false }); err != nil {
			return nil, errors.Join(err, o.f.Close())
		}
	}
	offset = min(offset, o.size)
	if rest := o.size - offset; length < 0 || length > rest {
		length = rest
	}
	return &reader{
		ctx:  ctx,
		f:    o.f,
		body: io.NewSectionReader(o.f, offset, length),
		attrs: driver.ReaderAttributes{
			ContentType: o.attrs.ContentType,
			ModTime:     o.info.ModTime(),
			Size:        o.size,
		},
	}, nil
}

// reader implements driver.Reader and driver.Downloader.
type reader struct {
	ctx   context.Context // of the call that opened it, as gocloud's contract has it
	f     *os.File
	body  *io.SectionReader
	attrs driver.ReaderAttributes
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.body.Read(p)
}

func (r *reader) Download(w io.Writer) error {
	_, err := io.Copy(w, r)
	return err
}

func (r *reader) Close() error                         { return r.f.Close() }
func (r *reader) Attributes() *driver.ReaderAttributes { return &r.attrs }
func (r *reader) As(any) bool                          { return false }
