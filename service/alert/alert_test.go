package alert_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/alert"
	"github.com/lifeboat-dr/lifeboat/service/control"
	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
	"github.com/lifeboat-dr/lifeboat/service/store/sqlstore"
)

// world is a control plane with one vault.
type world struct {
	t       *testing.T
	store   store.Store
	control *control.Service
	vault   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	st, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "lifeboat.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	sealer, err := control.NewKeySealer([32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	c := control.New(control.Config{Store: st, Sealer: sealer, BucketURL: func(id string) string { return "mem://" + id },
		MakeVault: func(string) (control.VaultSecrets, string, error) { return control.VaultSecrets{}, "key", nil }})
	v, err := c.PutVault(t.Context(), dr.VaultKey{Subscription: "s", ResourceGroup: "g", Name: "home"}, control.VaultInput{Location: "here"})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, store: st, control: c, vault: v.Vault.ID}
}

func (w *world) mailTo(owners string, addresses ...string) {
	w.t.Helper()
	if _, err := w.control.PutAlertSetting(w.t.Context(), w.vault, control.DefaultAlertSetting, control.AlertInput{SendToOwners: owners, Addresses: addresses}); err != nil {
		w.t.Fatal(err)
	}
}

// happens writes an event.
func (w *world) happens(severity dr.Severity, description string) dr.Event {
	w.t.Helper()
	e := dr.Event{Vault: w.vault, Type: "VmHealth", Severity: severity, Description: description, ObjectName: "web01",
		HealthErrors: []dr.HealthError{{Code: "RpoBreach", Message: "the newest point is old", PossibleCauses: "the agent is stopped", RecommendedAction: "start it"}}}
	if err := w.store.Update(w.t.Context(), func(tx store.Tx) error { return control.SaveEvent(tx, &e, time.Now().UTC()) }); err != nil {
		w.t.Fatal(err)
	}
	return e
}

func (w *world) waiting() (n int) {
	w.t.Helper()
	if err := w.store.View(w.t.Context(), func(tx store.Tx) error {
		var err error
		n, err = control.WaitingAlerts(tx)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// until looks again whenever a waiting alert was saved or is gone: senders do so after each attempt.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	changed, stop := w.store.Subscribe(control.KindAlert)
	defer stop()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for !ok() {
		select {
		case <-changed:
		case <-limit.C:
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// send runs a sender until the test ends.
func (w *world) send(opt alert.Options, channels ...alert.Channel) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var done sync.WaitGroup
	opt.Poll = 5 * time.Millisecond
	done.Go(func() { alert.New(w.store, channels, opt, slog.New(slog.DiscardHandler)).Run(ctx) })
	w.t.Cleanup(func() { cancel(); done.Wait() })
}

func TestMailReachesThoseWhomTheVaultNames(t *testing.T) {
	t.Parallel()
	w, post := newWorld(t), newPostOffice(t)
	w.mailTo("Send", "oncall@example.net", "Owner@example.net")
	w.send(alert.Options{Owners: []string{"owner@example.net", "boss@example.net"}}, post.channel())
	w.happens(dr.SeverityWarning, "not worth a mail")
	e := w.happens(dr.SeverityCritical, "Replication health turned critical\r\nBcc: evil@example.net")
	w.until("the alert is gone", func() bool { return w.waiting() == 0 })
	got := post.mails()
	if len(got) != 1 {
		t.Fatalf("got %d mails, want one: %+v", len(got), got)
	}
	if want := []string{"oncall@example.net", "Owner@example.net", "boss@example.net"}; !slices.Equal(got[0].to, want) || got[0].from != "lifeboat@example.net" || got[0].user != "lifeboat" {
		t.Errorf("got a mail from %s (as %s) to %v, want %v", got[0].from, got[0].user, got[0].to, want)
	}
	for _, want := range []string{"Message-Id: <" + e.ID + "@example.net>", "web01", "RpoBreach: the newest point is old", "What to do: start it", "Vault:    home (resource group g)"} {
		if !strings.Contains(strings.ToLower(got[0].text), strings.ToLower(want)) {
			t.Errorf("the mail lacks %q:\n%s", want, got[0].text)
		}
	}
	if head, _, _ := strings.Cut(got[0].text, "\n\n"); strings.Contains(head, "\nBcc:") {
		t.Errorf("a header was smuggled in:\n%s", head)
	}
}

func TestMailIsTriedAgainUntilTheServerTakesIt(t *testing.T) {
	t.Parallel()
	w, post := newWorld(t), newPostOffice(t)
	w.mailTo("", "oncall@example.net")
	post.fail(3, "451 come back later")
	w.send(alert.Options{Backoff: time.Millisecond}, post.channel())
	w.happens(dr.SeverityCritical, "down")
	w.until("the mail arrived", func() bool { return len(post.mails()) == 1 && w.waiting() == 0 })
	if post.tries() != 4 {
		t.Errorf("the server was asked %d times, want 4", post.tries())
	}
}

func TestARecipientWhoIsRefusedDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	w, post := newWorld(t), newPostOffice(t)
	post.unknown("gone@example.net")
	w.mailTo("", "gone@example.net", "oncall@example.net")
	w.send(alert.Options{Backoff: time.Millisecond}, post.channel())
	w.happens(dr.SeverityCritical, "down")
	w.until("the alert is gone", func() bool { return w.waiting() == 0 })
	if got := post.mails(); len(got) != 1 || !slices.Equal(got[0].to, []string{"oncall@example.net"}) {
		t.Errorf("got %+v, want one mail to oncall", got)
	}
}

// hook is a receiver of webhooks that answers with the statuses in turn, and with the last from then on.
type hook struct {
	mu     sync.Mutex
	status []int
	bodies []map[string]any
	heads  []http.Header
	raw    [][]byte
	srv    *httptest.Server
}

func newHook(t *testing.T, status ...int) *hook {
	h := &hook{status: status}
	h.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		var body map[string]any
		_ = json.Unmarshal(raw, &body)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.bodies, h.heads, h.raw = append(h.bodies, body), append(h.heads, r.Header), append(h.raw, raw)
		s := h.status[0]
		if len(h.status) > 1 {
			h.status = h.status[1:]
		}
		w.WriteHeader(s)
	}))
	t.Cleanup(h.srv.Close)
	return h
}

func (h *hook) calls() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.bodies)
}

func (h *hook) channel(t *testing.T, secret string) alert.Channel {
	t.Helper()
	w, err := alert.NewWebhook(h.srv.URL+"/in?token=hidden", secret)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(w.Name(), "hidden") {
		t.Errorf("the name %q shows the secret", w.Name())
	}
	return w
}

func TestWebhooksAreSignedAndTriedAgain(t *testing.T) {
	t.Parallel()
	w, h := newWorld(t), newHook(t, 503, 429, 204)
	w.send(alert.Options{Backoff: time.Millisecond}, h.channel(t, "secret"))
	e := w.happens(dr.SeverityCritical, "down")
	w.until("the alert is gone", func() bool { return w.waiting() == 0 })
	if h.calls() != 3 {
		t.Fatalf("got %d calls, want 3", h.calls())
	}
	last := h.bodies[2]
	if last["id"] != e.ID || last["severity"] != "Critical" || last["vaultName"] != "home" || last["affectedObject"] != "web01" || h.heads[2].Get("Idempotency-Key") != e.ID {
		t.Errorf("got %v with %v", last, h.heads[2])
	}
	mac := hmac.New(sha256.New, []byte("secret"))
	mac.Write(h.raw[2])
	if got, want := h.heads[2].Get(alert.SignatureHeader), "sha256="+hex.EncodeToString(mac.Sum(nil)); got != want {
		t.Errorf("got signature %s, want %s", got, want)
	}
}

func TestAChannelThatHasTheAlertIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	w, good, bad, worse := newWorld(t), newHook(t, 200), newHook(t, 500, 500, 200), newHook(t, 404)
	w.send(alert.Options{Backoff: time.Millisecond}, good.channel(t, ""), bad.channel(t, ""), worse.channel(t, ""))
	w.happens(dr.SeverityCritical, "down")
	w.until("the alert is gone", func() bool { return w.waiting() == 0 })
	if good.calls() != 1 || bad.calls() != 3 || worse.calls() != 1 {
		t.Errorf("got %d, %d and %d calls, want 1, 3 and 1: what was taken or refused for good is not sent again", good.calls(), bad.calls(), worse.calls())
	}
}

func TestOldAlertsAreGivenUp(t *testing.T) {
	t.Parallel()
	w, h := newWorld(t), newHook(t, 500)
	w.send(alert.Options{Backoff: time.Millisecond, GiveUp: 500 * time.Millisecond}, h.channel(t, ""))
	w.happens(dr.SeverityCritical, "down")
	w.until("the alert is gone", func() bool { return w.waiting() == 0 })
	if h.calls() < 2 {
		t.Errorf("got %d calls before it was given up", h.calls())
	}
}

// stuck never answers.
type stuck struct{ began chan struct{} }

func (stuck) Name() string { return "stuck" }

func (s stuck) Deliver(ctx context.Context, _ alert.Message) error {
	select {
	case s.began <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestADeliveryThatHangsIsCutOffAndKept(t *testing.T) {
	t.Parallel()
	w, h := newWorld(t), newHook(t, 200)
	s := stuck{began: make(chan struct{}, 1)}
	w.send(alert.Options{Deadline: 10 * time.Millisecond, Backoff: time.Millisecond}, s, h.channel(t, ""))
	w.happens(dr.SeverityCritical, "down")
	<-s.began
	w.until("the other channel has it", func() bool { return h.calls() == 1 })
	if w.waiting() != 1 {
		t.Error("the alert was forgotten although a channel does not have it")
	}
}

func TestTwoSendersShareTheWork(t *testing.T) {
	t.Parallel()
	w, h := newWorld(t), newHook(t, 200)
	for range 2 {
		w.send(alert.Options{}, h.channel(t, ""))
	}
	const alerts = 40
	for range alerts {
		w.happens(dr.SeverityCritical, "down")
	}
	w.until("the alerts are gone", func() bool { return w.waiting() == 0 })
	if h.calls() != alerts {
		t.Errorf("got %d calls for %d alerts", h.calls(), alerts)
	}
}

func TestWaitingAlertsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := w.store.Update(t.Context(), func(tx store.Tx) error {
		for range control.MaxWaitingAlerts + 10 {
			e := dr.Event{Vault: w.vault, Type: "VmHealth", Severity: dr.SeverityCritical, Description: "down"}
			if err := control.SaveEvent(tx, &e, time.Now().UTC()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.waiting(); got != control.MaxWaitingAlerts {
		t.Errorf("%d alerts wait, want %d", got, control.MaxWaitingAlerts)
	}
	w.send(alert.Options{})
	w.until("alerts that nobody wants are forgotten", func() bool { return w.waiting() == 0 })
}

func TestAWebhookIsAnHTTPURL(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "mail:x", "ftp://x/y", "https:///x", "://"} {
		if _, err := alert.NewWebhook(bad, ""); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	w, err := alert.NewWebhook("http://127.0.0.1:1/?token=hidden", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Deliver(t.Context(), alert.Message{}); err == nil || strings.Contains(err.Error(), "hidden") || errors.Is(err, alert.ErrRefused) {
		t.Errorf("got %v", err)
	}
}
