package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
)

// Webhook posts alerts to a URL as JSON, whatever the vault's alert setting says. The receiver answers with any 2xx.
type Webhook struct {
	name   string
	url    *url.URL
	secret []byte
	client *http.Client
}

// SignatureHeader carries "sha256=" and the HMAC-SHA256 of the body under the webhook's secret, in hex. Without a secret it is
// absent.
const SignatureHeader = "Lifeboat-Signature"

// NewWebhook returns the webhook at an http or https URL. The URL may hold a secret: neither the name nor an error shows more of
// it than its host.
func NewWebhook(address, secret string) (*Webhook, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("a webhook is an http or https URL")
	}
	sum := sha256.Sum256([]byte(address))
	return &Webhook{name: "webhook " + u.Host + " " + hex.EncodeToString(sum[:4]), url: u, secret: []byte(secret),
		client: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Name implements Channel.
func (w *Webhook) Name() string { return w.name }

// note is the body. Fields are added, never changed.
type note struct {
	ID           string      `json:"id"` // the event's; the same when the alert is sent again
	Severity     dr.Severity `json:"severity"`
	EventType    string      `json:"eventType"`
	EventName    string      `json:"eventName"`
	Description  string      `json:"description"`
	Time         time.Time   `json:"time"`
	Subscription string      `json:"subscriptionId"`
	Group        string      `json:"resourceGroupName"`
	Vault        string      `json:"vaultName"`
	Object       string      `json:"affectedObject"`
	Fabric       string      `json:"fabricName,omitempty"`
	Job          string      `json:"jobId,omitempty"`
	Errors       []noteError `json:"errors"`
}

type noteError struct {
	Code              string `json:"code"`
	Message           string `json:"message"`
	PossibleCauses    string `json:"possibleCauses"`
	RecommendedAction string `json:"recommendedAction"`
}

// Deliver implements Channel.
func (w *Webhook) Deliver(ctx context.Context, m Message) error {
	e := m.Event
	n := note{ID: e.ID, Severity: e.Severity, EventType: e.Type, EventName: e.Name, Description: e.Description, Time: e.Time.UTC(), Subscription: m.Vault.Subscription, Group: m.Vault.ResourceGroup,
		Vault: m.Vault.Name, Object: e.ObjectName, Fabric: e.Fabric, Job: e.JobID, Errors: []noteError{}}
	for _, h := range e.HealthErrors {
		n.Errors = append(n.Errors, noteError{h.Code, h.Message, h.PossibleCauses, h.RecommendedAction})
	}
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", e.ID)
	req.Header.Set("User-Agent", "lifeboatd")
	if len(w.secret) > 0 {
		mac := hmac.New(sha256.New, w.secret)
		mac.Write(body)
		req.Header.Set(SignatureHeader, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	res, err := w.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the other holds the whole URL
		}
		return fmt.Errorf("call %s: %w", w.name, err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
	switch {
	case res.StatusCode/100 == 2:
		return nil
	case res.StatusCode >= 500, res.StatusCode == http.StatusRequestTimeout, res.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%s answered %s", w.name, res.Status)
	}
	return fmt.Errorf("%w: %s answered %s", ErrRefused, w.name, res.Status)
}
