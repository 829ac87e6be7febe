package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/lifeboat-dr/lifeboat/service/alert"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

func (c *config) alertFlags(f *pflag.FlagSet) {
	f.StringVar(&c.AlertMailServer, "alert-mail-server", "", "host:port of the mail server for alerts (default: nobody is mailed)")
	f.StringVar(&c.AlertMailFrom, "alert-mail-from", "", "mail address that alerts come from")
	f.StringVar(&c.AlertMailUser, "alert-mail-user", "", "user at the mail server (default: no authentication)")
	f.StringVar(&c.AlertMailPassword, "alert-mail-password-file", "", "file with that user's password")
	f.StringVar(&c.AlertMailSecurity, "alert-mail-security", alert.StartTLS, "of the connection to the mail server: starttls, tls or none")
	f.StringSliceVar(&c.AlertOwners, "alert-owner", nil, "mail address of an owner, who is mailed for vaults whose alert setting says so; may be given again")
	f.StringSliceVar(&c.AlertWebhooks, "alert-webhook", nil, "URL that alerts of all vaults are posted to; may be given again")
	f.StringVar(&c.AlertWebhookSecret, "alert-webhook-secret-file", "", "file with the secret that posts are signed with")
}

func (c *config) completeAlerts() error {
	switch c.AlertMailSecurity {
	case "":
		c.AlertMailSecurity = alert.StartTLS
	case alert.StartTLS, alert.TLS, alert.NoTLS:
	default:
		return fmt.Errorf("--alert-mail-security is starttls, tls or none, not %q", c.AlertMailSecurity)
	}
	if c.AlertMailServer == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(c.AlertMailServer); err != nil {
		return fmt.Errorf("--alert-mail-server: %w", err)
	}
	for _, a := range append([]string{c.AlertMailFrom}, c.AlertOwners...) {
		if p, err := mail.ParseAddress(a); err != nil || p.Name != "" {
			return fmt.Errorf("--alert-mail-from and --alert-owner are mail addresses, not %q", a)
		}
	}
	if (c.AlertMailUser == "") != (c.AlertMailPassword == "") {
		return errors.New("--alert-mail-user and --alert-mail-password-file are given together")
	}
	return nil
}

// startAlerts tells people of critical events until the returned function is called.
func startAlerts(ctx context.Context, c config, db store.Store, log *slog.Logger) (stop func() error, err error) {
	var channels []alert.Channel
	if c.AlertMailServer != "" {
		password, err := secretFile(c.AlertMailPassword)
		if err != nil {
			return nil, err
		}
		channels = append(channels, &alert.Mail{Server: c.AlertMailServer, From: c.AlertMailFrom, User: c.AlertMailUser, Password: password, Security: c.AlertMailSecurity})
	}
	secret, err := secretFile(c.AlertWebhookSecret)
	if err != nil {
		return nil, err
	}
	for _, address := range c.AlertWebhooks {
		w, err := alert.NewWebhook(address, secret)
		if err != nil {
			return nil, fmt.Errorf("--alert-webhook: %w", err)
		}
		channels = append(channels, w)
	}
	return keep(ctx, alert.New(db, channels, alert.Options{Owners: c.AlertOwners}, log).Run), nil
}

// secretFile reads a secret, without the line end that editors leave; no path means no secret.
func secretFile(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read a secret of alerts: %w", err)
	}
	return strings.TrimRight(string(raw), "\r\n"), nil
}
