package sdk_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

// transport answers requests in memory, so that tests of time run in a bubble.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
	}
	return f(r)
}

func respond(r *http.Request, status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

func wired(t *testing.T, f transport) *sdk.Client {
	t.Helper()
	c, err := sdk.New(sdk.Config{Endpoint: "https://dr.example.org/lb", Token: secret, Vault: "home", Transport: f})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRequestsAreRepeatedWithTheSameIDUntilTheyEnd(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers []int // 0: no answer
		header  []string
		want    int // attempts
		took    time.Duration
		status  int // of the error; 0: none
	}{
		"one that succeeds":                    {[]int{200}, nil, 1, 0, 0},
		"Retry-After is obeyed":                {[]int{503, 429, 200}, []string{"Retry-After", "7"}, 3, 14 * time.Second, 0},
		"a refusal is final":                   {[]int{409, 200}, nil, 1, 0, 409},
		"what is not served is final":          {[]int{501, 200}, nil, 1, 0, 501},
		"a fault that stays ends the attempts": {[]int{500, 500, 500, 500, 500, 200}, nil, 5, 0, 500},
		"a server that comes back":             {[]int{0, 0, 200}, nil, 3, 0, 0},
		"a pause that is too long is refused":  {[]int{429, 200}, []string{"Retry-After", "3600"}, 1, 0, 429},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ids, bodies, began := map[string]bool{}, map[string]bool{}, time.Now()
				n := 0
				c := wired(t, func(r *http.Request) (*http.Response, error) {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						return nil, err
					}
					ids[r.Header.Get("x-ms-client-request-id")], bodies[string(body)] = true, true
					status := test.answers[n]
					n++
					if status == 0 {
						return nil, errors.New("connection refused")
					}
					return respond(r, status, `{}`, test.header...), nil
				})
				_, err := c.CreatePolicy(t.Context(), "p", sdk.PolicySettings{})
				if n != test.want || len(ids) != 1 || len(bodies) != 1 {
					t.Errorf("got %d attempts with %d ids and %d bodies, want %d with one of each", n, len(ids), len(bodies), test.want)
				}
				if took := time.Since(began); test.took != 0 && took != test.took || took > 10*time.Second && test.took == 0 {
					t.Errorf("took %s, want %s", took, test.took)
				}
				if test.status == 0 && err != nil || test.status != 0 && !isStatus(err, test.status) {
					t.Errorf("got %v, want status %d", err, test.status)
				}
			})
		})
	}
}

func TestAVaultIsAskedForOnce(t *testing.T) {
	t.Parallel()
	n := 0
	c := wired(t, func(*http.Request) (*http.Response, error) { n++; return nil, errors.New("connection reset") })
	if _, _, err := c.CreateVault(t.Context(), "here", nil); !isCode(err, sdk.CodeUnreachable) || n != 1 {
		t.Errorf("got %v after %d attempts, want one: a lost answer loses the recovery key", err, n)
	}
}

func TestTheTokenGoesNowhereButToTheEndpoint(t *testing.T) {
	t.Parallel()
	var asked []string
	c := wired(t, func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.Scheme+"://"+r.URL.Host+r.URL.Path+"?"+r.URL.RawQuery)
		if len(asked) == 1 {
			return respond(r, 200, `{"value":[{"name":"a"}],"nextLink":"http://evil.example.org/subscriptions/x?skipToken=2"}`), nil
		}
		return respond(r, 200, `{"value":[{"name":"b"}]}`), nil
	})
	all, err := sdk.Collect(c.Policies(t.Context()))
	if err != nil || len(all) != 2 {
		t.Fatalf("got %v, %v", all, err)
	}
	if want := "https://dr.example.org/lb/subscriptions/x?api-version=" + sdk.APIVersion + "&skipToken=2"; asked[1] != want {
		t.Errorf("second page: got %s, want %s", asked[1], want)
	}
}

func TestAPageThatNamesItselfEndsTheList(t *testing.T) {
	t.Parallel()
	c := wired(t, func(r *http.Request) (*http.Response, error) {
		return respond(r, 200, `{"value":[],"nextLink":"https://dr.example.org/lb/again"}`), nil
	})
	if _, err := sdk.Collect(c.Policies(t.Context())); err == nil {
		t.Error("got no error")
	}
}

func TestOperationIsFollowedByLocationAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		c := wired(t, func(r *http.Request) (*http.Response, error) {
			switch {
			case r.Method == http.MethodPost:
				return respond(r, 202, "", "Location", "https://inside:1/lb/vaults/operationresults/job1?api-version=1", "Retry-After", "3"), nil
			case strings.HasSuffix(r.URL.Path, "/operationresults/job1"):
				if looks++; looks < 3 {
					return respond(r, 202, "", "Retry-After", "3"), nil
				}
				return respond(r, 200, `{"name":"job1"}`), nil
			}
			return respond(r, 200, `{"name":"job1","properties":{"state":"Cancelled"}}`), nil
		})
		began := time.Now()
		op, err := c.CancelJob(t.Context(), "job1")
		if err != nil {
			t.Fatal(err)
		}
		j, err := op.Wait(t.Context(), nil)
		if err != nil || j.Properties.State != "Cancelled" || looks != 3 || time.Since(began) != 6*time.Second {
			t.Errorf("got %q, %v after %d looks and %s, want Cancelled after 3 and 6s", j.Properties.State, err, looks, time.Since(began))
		}
	})
}

func TestAnswerOfAProxyIsToldByItsStatus(t *testing.T) {
	t.Parallel()
	c := wired(t, func(r *http.Request) (*http.Response, error) {
		return respond(r, 403, "<html>no</html>", "x-ms-correlation-request-id", "r1"), nil
	})
	_, err := c.Vault(t.Context())
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok || e.Status != 403 || e.Code != "Forbidden" || e.RequestID != "r1" || !strings.Contains(e.Message, "403") {
		t.Errorf("got %+v", e)
	}
}
