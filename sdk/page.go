package sdk

import (
	"context"
	"fmt"
	"iter"
	"net/http"
)

// page is one answer to a list.
type page[T any] struct {
	Value    []T    `json:"value"`
	NextLink string `json:"nextLink"`
}

// pages walks a list over all its pages, which are asked for as they are needed. After an error there is nothing more; a
// caller that stops early costs no further request.
func pages[T any](ctx context.Context, c *Client, first func() (*http.Response, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		for link := ""; ; {
			var p page[T]
			var err error
			if link == "" {
				p, err = decode[page[T]](first())
			} else {
				p, err = decode[page[T]](c.follow(ctx, link))
			}
			if err == nil && link != "" && p.NextLink == link {
				err = fmt.Errorf("the page %s names itself as the next", link)
			}
			if err != nil {
				yield(zero, err)
				return
			}
			for _, v := range p.Value {
				if !yield(v, nil) {
					return
				}
			}
			if link = p.NextLink; link == "" {
				return
			}
		}
	}
}

// Collect gathers a list up to its end, or up to the first error.
func Collect[T any](list iter.Seq2[T, error]) ([]T, error) {
	out := []T{}
	for v, err := range list {
		if err != nil {
			return out, err
		}
		out = append(out, v)
	}
	return out, nil
}
