package dr

import (
	"strings"
	"time"
)

// AlertSetting says who of a vault gets mail about critical events. SendToOwners is kept as it was sent.
type AlertSetting struct {
	Meta
	Vault        string
	SendToOwners string
	Addresses    []string
	Locale       string
}

// Owners tells whether the vault's owners get mail too. Clients say yes with Send or true.
func (a AlertSetting) Owners() bool {
	return strings.EqualFold(a.SendToOwners, "Send") || strings.EqualFold(a.SendToOwners, "true")
}

// Alert is a critical event that somebody is to be told of. It waits until all who want it have it, or until it is too old.
type Alert struct {
	Meta
	Event    Event
	Attempts int
	NextAt   time.Time // not tried before; while a sender holds the alert, until when it does
	Told     []string  // channels that have taken it
}

// AlertDeserved tells whether an event is one to be told of.
func AlertDeserved(e *Event) bool { return e.Severity == SeverityCritical }
