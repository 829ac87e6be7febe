package faultbucket

import (
	"context"
	"errors"
	"io"
	"slices"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
)

// NewRangeReader implements driver.Bucket.
func (b *bucket) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	e := b.plan.call(Read, key)
	if err := e.before(ctx); err != nil {
		return nil, err
	}
	r, err := b.inner.NewRangeReader(ctx, key, offset, length, &blob.ReaderOptions{BeforeRead: opts.BeforeRead})
	if err != nil {
		return nil, err
	}
	n := max(r.Size()-offset, 0)
	if length >= 0 {
		n = min(n, length)
	}
	e.read(n)
	return &reader{inner: r, effect: e, left: n, target: e.at(n)}, nil
}

// reader implements driver.Reader. It meets its fault at the byte target of the range it reads.
type reader struct {
	inner  *blob.Reader
	effect *effect
	pos    int64 // in the range
	left   int64 // bytes of the range not yet read
	target int64 // -1 where the range is empty
	done   error // what every further read returns
}

func (r *reader) Read(p []byte) (int, error) {
	if r.done != nil {
		return 0, r.done
	}
	cut := r.effect.is(TornRead) || r.effect.is(ShortRead) && r.target >= 0
	if cut && r.pos >= max(r.target, 0) {
		r.done = io.EOF
		if r.effect.is(TornRead) {
			r.done = r.effect.fail()
		} else {
			r.effect.hit()
		}
		return 0, r.done
	}
	if cut {
		p = p[:min(int64(len(p)), r.target-r.pos)]
	}
	n, err := r.inner.Read(p)
	if i := r.target - r.pos; r.effect.is(FlippedBit) && i >= 0 && i < int64(n) {
		p[i] ^= r.effect.bit
		r.effect.hit()
	}
	r.pos += int64(n)
	if cut && errors.Is(err, io.EOF) {
		err = nil // the cut comes with the next read
	}
	return n, err
}

func (r *reader) Close() error { return r.inner.Close() }

func (r *reader) Attributes() *driver.ReaderAttributes {
	return &driver.ReaderAttributes{ContentType: r.inner.ContentType(), ModTime: r.inner.ModTime(), Size: r.inner.Size()}
}

func (r *reader) As(i any) bool { return r.inner.As(i) }

// NewTypedWriter implements driver.Bucket.
func (b *bucket) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	e := b.plan.call(Write, key)
	if err := e.before(ctx); err != nil {
		return nil, err
	}
	if e.is(FlippedBit) {
		opts.ContentMD5 = nil // else the store would notice: the bit is to flip in it, not before it
	}
	return &writer{ctx: ctx, b: b, key: key, effect: e, opts: blob.WriterOptions{
		BufferSize:                  opts.BufferSize,
		MaxConcurrency:              opts.MaxConcurrency,
		CacheControl:                opts.CacheControl,
		ContentDisposition:          opts.ContentDisposition,
		ContentEncoding:             opts.ContentEncoding,
		ContentLanguage:             opts.ContentLanguage,
		ContentType:                 contentType,
		DisableContentTypeDetection: true,
		ContentMD5:                  opts.ContentMD5,
		Metadata:                    opts.Metadata,
		BeforeWrite:                 opts.BeforeWrite,
		IfNotExist:                  opts.IfNotExist,
	}}, nil
}

// writer implements driver.Writer and driver.Uploader. The wrapped bucket is asked for a writer only when the way of writing
// is known, because drivers take an upload in one piece on another path than a writer.
type writer struct {
	ctx    context.Context // of the call that opened it, as gocloud's contract has it
	b      *bucket
	key    string
	opts   blob.WriterOptions
	effect *effect
	inner  *blob.Writer // nil until the first Write

	uploaded bool  // Upload has done everything
	err      error // of Upload; told by Close, because gocloud gives codes only to errors of Close
}

func (w *writer) Write(p []byte) (int, error) {
	if w.effect.is(Full) {
		return len(p), nil // told at Close, as by a store that has room for a part
	}
	if err := w.open(); err != nil {
		return 0, err
	}
	if w.effect.is(FlippedBit) && len(p) > 0 {
		p = slices.Clone(p)
		p[w.effect.at(int64(len(p)))] ^= w.effect.bit
		w.effect.hit()
		w.effect.fault = Fault{}
	}
	return w.inner.Write(p)
}

func (w *writer) open() (err error) {
	if w.inner == nil {
		w.inner, err = w.b.inner.NewWriter(w.ctx, w.key, &w.opts)
	}
	return err
}

func (w *writer) Upload(r io.Reader) error {
	w.uploaded = true
	if w.effect.is(Full) {
		w.err = w.effect.fail()
		return nil
	}
	if w.effect.is(FlippedBit) {
		r = flip(r, w.effect)
	}
	w.err = w.stored(w.b.inner.Upload(w.ctx, w.key, r, &w.opts))
	return nil
}

func (w *writer) Close() error {
	if w.uploaded {
		return w.err
	}
	if w.effect.is(Full) {
		return w.effect.fail()
	}
	if err := w.open(); err != nil {
		return err
	}
	return w.stored(w.inner.Close())
}

func (w *writer) stored(err error) error {
	if err == nil {
		w.b.plan.created(w.key)
	}
	return w.effect.after(err)
}

// flip returns r with one bit changed: anywhere in it where it tells its length, else in the first piece it gives.
func flip(r io.Reader, e *effect) io.Reader {
	f := &flipped{r: r, effect: e, target: -1}
	if l, ok := r.(interface{ Len() int }); ok {
		f.target = e.at(int64(l.Len()))
	}
	return f
}

type flipped struct {
	r      io.Reader
	effect *effect
	pos    int64
	target int64 // negative: not known yet
	done   bool
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if n > 0 && f.target < 0 {
		f.target = f.effect.at(int64(n))
	}
	if i := f.target - f.pos; !f.done && i >= 0 && i < int64(n) {
		p[i] ^= f.effect.bit
		f.done = true
		f.effect.hit()
	}
	f.pos += int64(n)
	return n, err
}
