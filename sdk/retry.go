package sdk

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"
)

const (
	// maxAttempts at one request, the first included.
	maxAttempts = 5
	// firstPause before the second attempt; it doubles from then on. The server's Retry-After goes before it.
	firstPause = 250 * time.Millisecond
	// maxPause is the longest time a caller is kept waiting between attempts. A server that asks for more gets no other.
	maxPause = 30 * time.Second
)

// retrier signs requests and repeats those that may succeed later. Every attempt carries the same x-ms-client-request-id, by
// which the server knows a repeated action: it answers with the job of the first.
type retrier struct {
	http         *http.Client
	endpoint     *url.URL
	token, agent string
}

type onceKey struct{}

// once marks requests whose answer cannot be asked for again.
func once(ctx context.Context) context.Context { return context.WithValue(ctx, onceKey{}, true) }

// Do implements the generated client's HttpRequestDoer.
func (r *retrier) Do(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	req.Header.Set("Authorization", "Bearer "+r.token)
	req.Header.Set("User-Agent", r.agent)
	if req.Header.Get("x-ms-client-request-id") == "" {
		req.Header.Set("x-ms-client-request-id", uuid.NewString())
	}
	single := ctx.Value(onceKey{}) != nil
	pause := firstPause
	for attempt := 1; ; attempt++ {
		if attempt > 1 && req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req.Body = body
		}
		resp, err := r.http.Do(req)
		wait := pause/2 + rand.N(pause/2+1)
		switch {
		case ctx.Err() != nil:
			if err != nil {
				return nil, context.Cause(ctx)
			}
			return resp, nil
		case err != nil:
			if attempt == maxAttempts || single || hopeless(err) {
				return nil, unreachable(r.endpoint, err)
			}
		case !retriable(resp.StatusCode) || attempt == maxAttempts:
			return resp, nil
		default:
			if asked, ok := retryAfter(resp.Header); ok {
				if asked > maxPause {
					return resp, nil
				}
				wait = asked
			}
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // for the connection's sake; the answer is not wanted
			_ = resp.Body.Close()
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		pause = min(2*pause, maxPause)
	}
}

// retriable tells answers that another attempt may change. 501 stays what it is.
func retriable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// hopeless tells failures that another attempt cannot change: the server is there and is not the one we trust, or is none.
func hopeless(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}

// retryAfter reads seconds or a date.
func retryAfter(h http.Header) (time.Duration, bool) {
	text := h.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		return time.Duration(n) * time.Second, true
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at)), true
	}
	return 0, false
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
