package localbucket

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gocloud.dev/blob/driver"
)

// defaultPage is the page size where the caller names none. Each page reads the directories on its way again.
const defaultPage = 5000

// ListPaged implements driver.Bucket. A list is not a snapshot: an object written or deleted meanwhile may or may not be in
// it; all others are, in the order of their keys.
func (b *bucket) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	if opts.BeforeList != nil {
		if err := opts.BeforeList(func(any) bool { return false }); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(b.root); err != nil {
		return nil, err
	}
	l := &lister{ctx: ctx, prefix: opts.Prefix, delimiter: opts.Delimiter, limit: opts.PageSize}
	if l.limit == 0 {
		l.limit = defaultPage
	}
	if len(opts.PageToken) > 0 {
		l.after, l.afterDir = string(opts.PageToken[1:]), opts.PageToken[0] == tokenDir
	}
	if err := l.start(b.root); err != nil && !errors.Is(err, errPageFull) {
		return nil, err
	}
	return &l.page, nil
}

// A page token is the last entry of the page before: one byte for its kind, then its key.
const (
	tokenKey = 'k'
	tokenDir = 'd'
)

var errPageFull = errors.New("the page is full")

// lister walks the tree in key order and collects one page.
type lister struct {
	ctx               context.Context
	prefix, delimiter string
	limit             int
	after             string // the last key, or collapsed "directory", already given; empty for none
	afterDir          bool
	page              driver.ListPage
}

// start walks from the deepest directory that the prefix names.
func (l *lister) start(root string) error {
	dir, key := root, ""
	if i := strings.LastIndexByte(l.prefix, '/'); i >= 0 {
		rel, err := escapeKey(l.prefix[:i])
		if err != nil && i > 0 {
			return nil // a prefix that no key can have
		}
		if i == 0 {
			rel = "%"
		}
		dir, key = filepath.Join(root, rel), l.prefix[:i+1]
	}
	return l.walk(dir, key)
}

// done tells whether everything that starts with key was given before, or is left out by the prefix.
func (l *lister) done(dirKey string) bool {
	if !strings.HasPrefix(dirKey, l.prefix) && !strings.HasPrefix(l.prefix, dirKey) {
		return true
	}
	if l.after == "" {
		return false
	}
	if l.afterDir && strings.HasPrefix(dirKey, l.after) {
		return true
	}
	return dirKey < l.after && !strings.HasPrefix(l.after, dirKey)
}

type entry struct {
	key  string // of a directory with the slash: that gives the order of the keys below it
	path string
	dir  bool
}

// walk visits what is below a directory, whose key is empty or ends in a slash.
func (l *lister) walk(dir, key string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	found, err := os.ReadDir(dir)
	if err != nil {
		if err = absent("readdir", dir, err); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	entries := make([]entry, 0, len(found))
	for _, d := range found {
		element, ok := unescapeElement(d.Name())
		if !ok {
			continue // not ours: the temp directory, or what somebody left here
		}
		e := entry{key: key + element, path: filepath.Join(dir, d.Name()), dir: d.IsDir()}
		if e.dir {
			e.key += "/"
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	for _, e := range entries {
		if err := l.visit(e); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) visit(e entry) error {
	if e.dir {
		if l.done(e.key) {
			return nil
		}
		return l.walk(e.path, e.key)
	}
	if !strings.HasPrefix(e.key, l.prefix) || l.after != "" && (e.key <= l.after || l.afterDir && strings.HasPrefix(e.key, l.after)) {
		return nil
	}
	if l.delimiter != "" {
		if i := strings.Index(e.key[len(l.prefix):], l.delimiter); i >= 0 {
			return l.add(&driver.ListObject{Key: e.key[:len(l.prefix)+i+len(l.delimiter)], IsDir: true})
		}
	}
	o, err := stat(e.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // deleted meanwhile, or no regular file
	}
	if err != nil {
		return err
	}
	o.Key = e.key
	return l.add(o)
}

// stat describes an object for a list. One object with damaged attributes must not hide all others, so it is listed with the
// length of its file; reading it says what is wrong.
func stat(path string) (*driver.ListObject, error) {
	o, err := openObject(path)
	if errors.Is(err, errTrailer) {
		info, err := os.Lstat(path)
		if err != nil {
			return nil, err
		}
		return &driver.ListObject{ModTime: info.ModTime(), Size: info.Size()}, nil
	}
	if err != nil {
		return nil, err
	}
	return &driver.ListObject{ModTime: o.info.ModTime(), Size: o.size}, o.f.Close()
}

// add appends an entry and moves the walk behind it. One entry beyond the page proves that there is a next page.
func (l *lister) add(o *driver.ListObject) error {
	if n := len(l.page.Objects); n == l.limit {
		kind := byte(tokenKey)
		if l.afterDir {
			kind = tokenDir
		}
		l.page.NextPageToken = append([]byte{kind}, l.after...)
		return errPageFull
	}
	l.page.Objects = append(l.page.Objects, o)
	l.after, l.afterDir = o.Key, o.IsDir
	return nil
}
