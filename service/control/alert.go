package control

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// DefaultAlertSetting is the name of the only alert setting of a vault, in the spelling of the field.
const DefaultAlertSetting = "defaultAlertSetting"

// Limits of alerts. Waiting ones are bounded so that a flood of events cannot fill the store: what is above the bound is told by
// the list of events alone.
const (
	MaxAlertAddresses = 50
	MaxWaitingAlerts  = 500
)

// AlertInput is the body of an alert setting PUT.
type AlertInput struct {
	SendToOwners string
	Addresses    []string
	Locale       string
}

func noSuchSetting(name string) error {
	return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("there is no alert setting %q", name), PossibleCauses: "the only one is " + DefaultAlertSetting, RecommendedAction: "use the name " + DefaultAlertSetting}
}

// PutAlertSetting replaces a vault's alert setting.
func (s *Service) PutAlertSetting(ctx context.Context, vaultID, name string, in AlertInput) (out dr.AlertSetting, err error) {
	if !strings.EqualFold(name, DefaultAlertSetting) {
		return out, noSuchSetting(name)
	}
	if len(in.Addresses) > MaxAlertAddresses {
		return out, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("customEmailAddresses has %d addresses", len(in.Addresses)), PossibleCauses: fmt.Sprintf("at most %d are mailed", MaxAlertAddresses),
			RecommendedAction: "use a distribution list"}
	}
	addresses := make([]string, 0, len(in.Addresses))
	for _, text := range in.Addresses {
		a, err := mail.ParseAddress(strings.TrimSpace(text))
		if err != nil || a.Name != "" || len(a.Address) > 254 {
			return out, &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("customEmailAddresses: %q is not a mail address", text), PossibleCauses: "it is misspelled, or carries a name", RecommendedAction: "send addresses such as oncall@example.net"}
		}
		addresses = append(addresses, a.Address)
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		key := fold(vaultID, DefaultAlertSetting)
		old, _, err := find[dr.AlertSetting](tx, KindAlertSetting, key)
		if err != nil {
			return err
		}
		old.Name, old.Vault, old.SendToOwners, old.Addresses, old.Locale = DefaultAlertSetting, vaultID, or(in.SendToOwners, "DoNotSend"), addresses, or(in.Locale, "en-US")
		out = old
		return save(tx, KindAlertSetting, key, &out, s.now())
	})
	return out, err
}

// AlertSetting returns a vault's alert setting. Before it is first put it exists, and names nobody.
func (s *Service) AlertSetting(ctx context.Context, vaultID, name string) (a dr.AlertSetting, err error) {
	if !strings.EqualFold(name, DefaultAlertSetting) {
		return a, notFound(KindAlertSetting, name)
	}
	err = s.store.View(ctx, func(tx store.Tx) error {
		a, err = LoadAlertSetting(tx, vaultID)
		return err
	})
	return a, err
}

// LoadAlertSetting reads a vault's alert setting; one that names nobody when none was put.
func LoadAlertSetting(tx store.Tx, vaultID string) (dr.AlertSetting, error) {
	a, ok, err := find[dr.AlertSetting](tx, KindAlertSetting, fold(vaultID, DefaultAlertSetting))
	if err == nil && !ok {
		a = dr.AlertSetting{Meta: dr.Meta{Name: DefaultAlertSetting}, Vault: vaultID, SendToOwners: "DoNotSend", Addresses: []string{}, Locale: "en-US"}
	}
	return a, err
}

// queueAlert lets an event that deserves it wait for who is to be told, in the transaction that writes the event.
func queueAlert(tx store.Tx, e *dr.Event, now time.Time) error {
	if !dr.AlertDeserved(e) {
		return nil
	}
	if waiting, err := count(tx, KindAlert, "", MaxWaitingAlerts); err != nil || waiting >= MaxWaitingAlerts {
		return err
	}
	a := dr.Alert{Meta: dr.Meta{Name: e.Name}, Event: *e, NextAt: now}
	return save(tx, KindAlert, e.ID, &a, now)
}

// DueAlerts returns the alerts that may be tried now, oldest first, at most limit.
func DueAlerts(tx store.Tx, now time.Time, limit int) (due []dr.Alert, err error) {
	enough := errors.New("enough")
	err = tx.List(KindAlert, "", "", 0, func(_ string, version int64, decode func(any) error) error {
		var a dr.Alert
		if err := decode(&a); err != nil {
			return err
		}
		if a.Version = version; !now.Before(a.NextAt) {
			due = append(due, a)
		}
		if len(due) == limit {
			return enough
		}
		return nil
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return due, err
}

// WaitingAlerts counts the alerts that somebody has not been told of.
func WaitingAlerts(tx store.Tx) (int, error) { return count(tx, KindAlert, "", 0) }

// SaveAlert writes an alert that was loaded; another who has it in the meantime makes it a conflict.
func SaveAlert(tx store.Tx, a *dr.Alert, now time.Time) error {
	return save(tx, KindAlert, a.Event.ID, a, now)
}

// DeleteAlert forgets an alert; it is not an error when it is gone.
func DeleteAlert(tx store.Tx, a *dr.Alert) error {
	if err := tx.Delete(KindAlert, a.Event.ID, -1); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

// LoadVaultByID reads a vault by its ID.
func LoadVaultByID(tx store.Tx, id string) (dr.Vault, error) { return vaultByID(tx, id) }
