// Package faultbucket owns the injection of faults between a user of a blob bucket and any bucket: errors before and after
// the fact, torn and short reads, flipped bits, stale lists, slowness and a full store, planned by call or by seeded chance.
//
// Without faults it behaves as the bucket beneath. It must never fail in a way that was not planned, and a plan says of
// every fault whether it had an effect: a test that never met its fault must not pass.
package faultbucket

import (
	"context"
	"errors"
	"slices"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// Wrap returns b with the faults of a plan. It takes b over: closing the returned bucket closes b.
func Wrap(b *blob.Bucket, plan *Plan) *blob.Bucket {
	return blob.NewBucket(&bucket{inner: b, plan: plan})
}

// Share is Wrap for one of several users of b: closing the returned bucket leaves b open.
func Share(b *blob.Bucket, plan *Plan) *blob.Bucket {
	return blob.NewBucket(&bucket{inner: b, plan: plan, shared: true})
}

// pageSize is used where a caller leaves it to the driver; the wrapped bucket's type wants a number.
const pageSize = 1000

// bucket implements driver.Bucket on a *blob.Bucket.
type bucket struct {
	inner  *blob.Bucket
	plan   *Plan
	shared bool
}

// ErrorCode implements driver.Bucket.
func (b *bucket) ErrorCode(err error) gcerrors.ErrorCode {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.code
	}
	return gcerrors.Code(err)
}

// As implements driver.Bucket. What the bucket beneath offers would go around the faults.
func (b *bucket) As(any) bool { return false }

// ErrorAs implements driver.Bucket.
func (b *bucket) ErrorAs(err error, i any) bool { return b.inner.ErrorAs(err, i) }

// Attributes implements driver.Bucket.
func (b *bucket) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	e := b.plan.call(Attributes, key)
	if err := e.before(ctx); err != nil {
		return nil, err
	}
	a, err := b.inner.Attributes(ctx, key)
	if err != nil {
		return nil, err
	}
	return &driver.Attributes{
		CacheControl:       a.CacheControl,
		ContentDisposition: a.ContentDisposition,
		ContentEncoding:    a.ContentEncoding,
		ContentLanguage:    a.ContentLanguage,
		ContentType:        a.ContentType,
		Metadata:           a.Metadata,
		CreateTime:         a.CreateTime,
		ModTime:            a.ModTime,
		Size:               a.Size,
		MD5:                a.MD5,
		ETag:               a.ETag,
		AsFunc:             a.As,
	}, nil
}

// ListPaged implements driver.Bucket.
func (b *bucket) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	e := b.plan.call(List, opts.Prefix)
	if err := e.before(ctx); err != nil {
		return nil, err
	}
	token, size := opts.PageToken, opts.PageSize
	if len(token) == 0 {
		token = blob.FirstPageToken
	}
	if size == 0 {
		size = pageSize
	}
	objects, next, err := b.inner.ListPage(ctx, token, size, &blob.ListOptions{
		Prefix: opts.Prefix, Delimiter: opts.Delimiter, BeforeList: opts.BeforeList,
	})
	if err != nil {
		return nil, err
	}
	hidden := b.plan.hide(e, opts.Prefix, opts.PageToken, next)
	page := &driver.ListPage{NextPageToken: next}
	for _, o := range objects {
		if !slices.Contains(hidden, o.Key) {
			page.Objects = append(page.Objects, &driver.ListObject{
				Key: o.Key, ModTime: o.ModTime, Size: o.Size, MD5: o.MD5, IsDir: o.IsDir, AsFunc: o.As,
			})
		}
	}
	return page, nil
}

// hide returns the keys that a page leaves out: those that its list left out so far, or, on the first page of a list that
// is to be stale, the newest ones.
func (p *Plan) hide(e *effect, prefix string, token, next []byte) []string {
	p.mu.Lock()
	hidden := p.hidden[string(token)]
	if len(token) == 0 && e.is(StaleList) {
		hidden = nil
		for _, key := range slices.Backward(p.written) {
			if len(hidden) == max(e.fault.Newest, 1) {
				break
			}
			if strings.HasPrefix(key, prefix) {
				hidden = append(hidden, key)
			}
		}
	}
	if len(hidden) > 0 && len(next) > 0 {
		p.hidden[string(next)] = hidden
	} else {
		delete(p.hidden, string(next)) // of an earlier list: tokens repeat
	}
	p.mu.Unlock()
	if len(token) == 0 && len(hidden) > 0 {
		e.hit()
	}
	return hidden
}

// created notes that a key was stored, so that a stale list knows which are the newest.
func (p *Plan) created(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.written, key) {
		p.written = append(p.written, key)
	}
}

func (p *Plan) deleted(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.written = slices.DeleteFunc(p.written, func(k string) bool { return k == key })
}

// Copy implements driver.Bucket.
func (b *bucket) Copy(ctx context.Context, dstKey, srcKey string, opts *driver.CopyOptions) error {
	e := b.plan.call(Copy, dstKey)
	if err := e.before(ctx); err != nil {
		return err
	}
	if e.is(Full) {
		return e.fail()
	}
	err := b.inner.Copy(ctx, dstKey, srcKey, &blob.CopyOptions{BeforeCopy: opts.BeforeCopy})
	if err == nil {
		b.plan.created(dstKey)
	}
	return e.after(err)
}

// Delete implements driver.Bucket.
func (b *bucket) Delete(ctx context.Context, key string) error {
	e := b.plan.call(Delete, key)
	if err := e.before(ctx); err != nil {
		return err
	}
	err := b.inner.Delete(ctx, key)
	if err == nil {
		b.plan.deleted(key)
	}
	return e.after(err)
}

// SignedURL implements driver.Bucket; it only asks, so it has no faults.
func (b *bucket) SignedURL(ctx context.Context, key string, opts *driver.SignedURLOptions) (string, error) {
	return b.inner.SignedURL(ctx, key, &blob.SignedURLOptions{
		Expiry: opts.Expiry, Method: opts.Method, ContentType: opts.ContentType,
		EnforceAbsentContentType: opts.EnforceAbsentContentType, BeforeSign: opts.BeforeSign,
	})
}

// Close implements driver.Bucket.
func (b *bucket) Close() error {
	if b.shared {
		return nil
	}
	return b.inner.Close()
}
