package alert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/smtp"
	"net/textproto"
	"strings"
	"time"
)

// MailChannel is the Name of the mail channel, of which there is one.
const MailChannel = "mail"

// How the connection to the mail server is secured.
const (
	StartTLS = "starttls" // it has to offer STARTTLS
	TLS      = "tls"      // from the first byte
	NoTLS    = "none"     // for a server on the same host or network
)

// Mail sends alerts through one mail server.
type Mail struct {
	Server         string // host:port
	From           string // address alone
	User, Password string // no user: no authentication
	Security       string // empty: StartTLS
	RootCAs        *x509.CertPool
}

// Name implements Channel.
func (m *Mail) Name() string { return MailChannel }

// Deliver sends one mail to all recipients. Recipients whom the server will never take are named in an error that is ErrRefused;
// the others get their mail all the same.
func (m *Mail) Deliver(ctx context.Context, msg Message) error {
	if len(msg.Recipients) == 0 {
		return nil
	}
	host, _, err := net.SplitHostPort(m.Server)
	if err != nil {
		return fmt.Errorf("mail server %s: %w", m.Server, err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", m.Server)
	if err != nil {
		return fmt.Errorf("reach the mail server: %w", err)
	}
	defer conn.Close()
	if at, ok := ctx.Deadline(); ok {
		conn.SetDeadline(at)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	security := &tls.Config{ServerName: host, RootCAs: m.RootCAs, MinVersion: tls.VersionTLS12}
	if m.Security == TLS {
		conn = tls.Client(conn, security)
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return fmt.Errorf("greet the mail server: %w", err)
	}
	if m.Security == "" || m.Security == StartTLS {
		if err := c.StartTLS(security); err != nil {
			return fmt.Errorf("secure the connection to the mail server: %w", err)
		}
	}
	if m.User != "" {
		if err := c.Auth(smtp.PlainAuth("", m.User, m.Password, host)); err != nil {
			return fmt.Errorf("sign in at the mail server as %s: %w", m.User, err)
		}
	}
	refused, err := m.send(c, msg)
	if err != nil {
		return err
	}
	_ = c.Quit() // the mail is the server's already
	if len(refused) > 0 {
		return fmt.Errorf("%w: the mail server does not take %s", ErrRefused, strings.Join(refused, ", "))
	}
	return nil
}

func (m *Mail) send(c *smtp.Client, msg Message) (refused []string, err error) {
	if err := c.Mail(m.From); err != nil {
		return nil, fmt.Errorf("send as %s: %w", m.From, err) // a matter of settings, which may be corrected
	}
	for _, to := range msg.Recipients {
		err := c.Rcpt(to)
		switch {
		case err == nil:
		case errors.Is(final(err), ErrRefused):
			refused = append(refused, to)
		default:
			return nil, fmt.Errorf("send to %s: %w", to, err)
		}
	}
	if len(refused) == len(msg.Recipients) {
		return refused, nil
	}
	w, err := c.Data()
	if err != nil {
		return nil, fmt.Errorf("send the mail: %w", final(err))
	}
	if _, err := w.Write(m.compose(msg)); err != nil {
		return nil, fmt.Errorf("send the mail: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("send the mail: %w", final(err))
	}
	return refused, nil
}

// final marks an answer of the mail server that will not change: its codes from 500 on (RFC 5321, 4.2.1).
func final(err error) error {
	if e, ok := errors.AsType[*textproto.Error](err); ok && e.Code >= 500 {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// compose writes the mail. Its Message-ID is made of the event, so that mail programs see a repetition as one.
func (m *Mail) compose(msg Message) []byte {
	e := msg.Event
	var b bytes.Buffer
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, oneLine(value)) }
	header("From", m.From)
	header("To", strings.Join(msg.Recipients, ", "))
	header("Subject", mime.QEncoding.Encode("utf-8", oneLine(fmt.Sprintf("[Lifeboat] %s: %s (%s)", e.Severity, e.Description, e.ObjectName))))
	header("Date", e.Time.UTC().Format(time.RFC1123Z))
	_, domain, _ := strings.Cut(m.From, "@")
	header("Message-ID", "<"+e.ID+"@"+domain+">")
	header("Auto-Submitted", "auto-generated")
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	_, _ = io.WriteString(q, text(msg)) // to memory
	_ = q.Close()
	return b.Bytes()
}

// oneLine keeps a value from becoming a header of its own.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

func text(msg Message) string {
	e := msg.Event
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nVault:    %s (resource group %s)\nObject:   %s\nSeverity: %s\nTime:     %s\n", e.Description, msg.Vault.Name, msg.Vault.ResourceGroup, e.ObjectName, e.Severity, e.Time.UTC().Format(time.RFC3339))
	if e.Fabric != "" {
		fmt.Fprintf(&b, "Fabric:   %s\n", e.Fabric)
	}
	if e.JobID != "" {
		fmt.Fprintf(&b, "Job:      %s\n", e.JobID)
	}
	for _, h := range e.HealthErrors {
		fmt.Fprintf(&b, "\n%s: %s\nPossible causes: %s\nWhat to do: %s\n", h.Code, h.Message, h.PossibleCauses, h.RecommendedAction)
	}
	return b.String()
}
