package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/lifeboat-dr/lifeboat/replicator/localbucket"
)

// traffic counts what was asked of the bucket.
type traffic struct{ requests, bytes atomic.Int64 }

// store is the one place from which the bucket is called: every call has a deadline, is tried again when that may help, and
// is counted. Names are below the vault's prefix.
type store struct {
	b      *blob.Bucket
	prefix string
	log    *slog.Logger
	t      *traffic
}

// counted returns the store with a counter of its own.
func (s store) counted(t *traffic) store {
	s.t = t
	return s
}

const (
	attempts     = 5
	firstDelay   = 40 * time.Millisecond
	maxDelay     = 2 * time.Second
	smallTimeout = 30 * time.Second // of one attempt on up to 16 MiB
	largeTimeout = 10 * time.Minute // of one attempt to upload a pack or map
)

// retryable tells whether trying again may help. Errors without a code count as such: drivers return them for broken
// connections.
func retryable(err error) bool {
	if errors.Is(err, ErrCorrupt) {
		return false
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound, gcerrors.AlreadyExists, gcerrors.InvalidArgument, gcerrors.Unimplemented, gcerrors.FailedPrecondition,
		gcerrors.PermissionDenied:
		return false
	}
	return true
}

func (s store) try(ctx context.Context, what, name string, timeout time.Duration, f func(context.Context) error) error {
	delay := firstDelay
	for n := 1; ; n++ {
		s.t.requests.Add(1)
		attempt, cancel := context.WithTimeout(ctx, timeout)
		err := f(attempt)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s %s: %w", what, name, errors.Join(ctx.Err(), err))
		case gcerrors.Code(err) == gcerrors.NotFound:
			return fmt.Errorf("%s %s: %w", what, name, errors.Join(ErrNotFound, err))
		case !retryable(err) || n == attempts:
			return fmt.Errorf("%s %s: %w", what, name, err)
		}
		s.log.Debug("bucket call tried again", "call", what, "object", name, "attempt", n, "err", err)
		select {
		case <-time.After(delay/2 + rand.N(delay)):
		case <-ctx.Done():
		}
		delay = min(2*delay, maxDelay)
	}
}

// get reads a whole object of at most limit bytes. It returns ErrNotFound if there is none.
func (s store) get(ctx context.Context, name string, limit int64) (p []byte, err error) {
	err = s.try(ctx, "read", name, smallTimeout, func(ctx context.Context) error {
		r, err := s.b.NewReader(ctx, s.prefix+name, nil)
		if err != nil {
			return err
		}
		defer r.Close()
		if r.Size() > limit {
			p = nil
			return &CorruptError{Object: name, Err: fmt.Errorf("%d bytes are more than the limit of %d", r.Size(), limit)}
		}
		p = make([]byte, r.Size())
		return s.fill(r, p)
	})
	return p, err
}

// read fills p with the bytes at off. Fewer are an error.
func (s store) read(ctx context.Context, name string, off int64, p []byte) error {
	return s.try(ctx, "read", name, smallTimeout, func(ctx context.Context) error {
		r, err := s.b.NewRangeReader(ctx, s.prefix+name, off, int64(len(p)), nil)
		if err != nil {
			return err
		}
		defer r.Close()
		return s.fill(r, p)
	})
}

func (s store) fill(r io.Reader, p []byte) error {
	n, err := io.ReadFull(r, p)
	s.t.bytes.Add(int64(n))
	if errors.Is(err, io.EOF) { // nothing came, though something was promised
		return io.ErrUnexpectedEOF
	}
	return err
}

const contentType = "application/octet-stream"

// put stores a small object. With create it returns FailedPrecondition if there is one already, which may be this very one
// when an attempt failed after it was stored.
func (s store) put(ctx context.Context, name string, p []byte, create bool) error {
	return s.try(ctx, "write", name, smallTimeout, func(ctx context.Context) error {
		s.t.bytes.Add(int64(len(p)))
		return s.b.Upload(ctx, s.prefix+name, bytes.NewReader(p), &blob.WriterOptions{ContentType: contentType, IfNotExist: create,
			DisableContentTypeDetection: true})
	})
}

// upload stores the file, which must never be changed afterwards, as an object. A local bucket takes it over as it is: what
// arrives is then written to disk once and not twice.
func (s store) upload(ctx context.Context, name, file string) error {
	var local localbucket.Adopter
	adopts := s.b.As(&local)
	return s.try(ctx, "upload", name, largeTimeout, func(ctx context.Context) error {
		if adopts {
			if err := local.Adopt(ctx, s.prefix+name, file); !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
		}
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // it was only read
		st, err := f.Stat()
		if err != nil {
			return err
		}
		s.t.bytes.Add(st.Size())
		return s.b.Upload(ctx, s.prefix+name, f, &blob.WriterOptions{ContentType: contentType, DisableContentTypeDetection: true})
	})
}

// remove deletes an object. One that is not there is no error.
func (s store) remove(ctx context.Context, name string) error {
	err := s.try(ctx, "delete", name, smallTimeout, func(ctx context.Context) error { return s.b.Delete(ctx, s.prefix+name) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// list calls f for every object, or with a delimiter also for every directory, whose name begins with root. Names are below
// the vault's prefix. The list may be stale: what was just written may be missing, what was just deleted may be there.
func (s store) list(ctx context.Context, root, delimiter string, f func(name string, o *blob.ListObject) error) error {
	const page = 1000
	for token := blob.FirstPageToken; ; {
		var objects []*blob.ListObject
		var next []byte
		err := s.try(ctx, "list", root, smallTimeout, func(ctx context.Context) (err error) {
			objects, next, err = s.b.ListPage(ctx, token, page, &blob.ListOptions{Prefix: s.prefix + root, Delimiter: delimiter})
			return err
		})
		if err != nil {
			return err
		}
		for _, o := range objects {
			if err := f(o.Key[len(s.prefix):], o); err != nil {
				return err
			}
		}
		if len(next) == 0 {
			return nil
		}
		token = next
	}
}

func (s store) names(ctx context.Context, root, delimiter string) (names []string, err error) {
	err = s.list(ctx, root, delimiter, func(name string, _ *blob.ListObject) error {
		names = append(names, name)
		return nil
	})
	return names, err
}

// removeAll deletes everything whose name begins with root. It lists until nothing was there twice, because a list may miss what
// is new, but not for ever, because a list may also show what is gone.
func (s store) removeAll(ctx context.Context, root string) error {
	empty := 0
	for round := 0; round < 5 && empty < 2; round++ {
		names, err := s.names(ctx, root, "")
		if err != nil {
			return err
		}
		if len(names) == 0 {
			empty++
		}
		for _, n := range names {
			if err := s.remove(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}
