package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

func minutes(n *int32) string {
	if n == nil {
		return ""
	}
	return (time.Duration(*n) * time.Minute).String()
}

// settingsOf are a policy's settings whatever its direction.
func settingsOf(p sdk.Policy) (kind string, retention, frequency, app *int32) {
	d := p.Properties.ProviderSpecificDetails
	kind, err := d.Discriminator()
	if err != nil {
		return "", nil, nil, nil // a policy without settings
	}
	switch kind {
	case sdk.ProviderGuest:
		if v, err := d.AsInMageRcmPolicyDetails(); err == nil {
			return kind, v.RecoveryPointHistoryInMinutes, v.CrashConsistentFrequencyInMinutes, v.AppConsistentFrequencyInMinutes
		}
	case sdk.ProviderGuestBack:
		if v, err := d.AsInMageRcmFailbackPolicyDetails(); err == nil {
			return kind, nil, v.CrashConsistentFrequencyInMinutes, v.AppConsistentFrequencyInMinutes
		}
	}
	return kind, nil, nil, nil
}

var policyColumns = []column[sdk.Policy]{
	{"name", func(p sdk.Policy) string { return p.Name }},
	{"provider", func(p sdk.Policy) string { kind, _, _, _ := settingsOf(p); return kind }},
	{"retention", func(p sdk.Policy) string { _, r, _, _ := settingsOf(p); return minutes(r) }},
	{"a point every", func(p sdk.Policy) string { _, _, f, _ := settingsOf(p); return minutes(f) }},
	{"app-consistent every", func(p sdk.Policy) string {
		_, _, _, app := settingsOf(p)
		if app != nil && *app == 0 {
			return "never"
		}
		return minutes(app)
	}},
}

// policyFlags are the settings of a policy on the command line.
type policyFlags struct {
	retention, frequency, app time.Duration
	multiVM                   bool
}

func (p *policyFlags) flags(c *cobra.Command) {
	c.Flags().DurationVar(&p.retention, "retention", 24*time.Hour, "how long points are kept")
	c.Flags().DurationVar(&p.frequency, "frequency", 5*time.Minute, "time between points")
	c.Flags().DurationVar(&p.app, "app-consistent", 0, "time between application-consistent points (0: none)")
	c.Flags().BoolVar(&p.multiVM, "multi-vm-sync", false, "capture machines of one consistency group at one moment")
}

func (p *policyFlags) settings() (s sdk.PolicySettings, err error) {
	s.MultiVM = p.multiVM
	for _, d := range []struct {
		flag string
		from time.Duration
		to   *int32
		none bool
	}{{"retention", p.retention, &s.Retention, false}, {"frequency", p.frequency, &s.Frequency, false}, {"app-consistent", p.app, &s.AppConsistent, true}} {
		if d.from%time.Minute != 0 || d.from < 0 || d.from == 0 && !d.none || d.from > 365*24*time.Hour {
			return s, &usageError{fmt.Sprintf("--%s is %s: use whole minutes", d.flag, d.from)}
		}
		*d.to = int32(d.from / time.Minute)
	}
	return s, nil
}

func (a *app) policyCommand() *cobra.Command {
	var in policyFlags
	var back bool
	create := verb("create NAME", "Create replication settings", func(ctx context.Context, args []string) error {
		s, err := in.settings()
		if err != nil {
			return err
		}
		s.Back = back
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		op, err := c.CreatePolicy(ctx, args[0], s)
		if err := done(ctx, op, err); err != nil {
			return err
		}
		p, err := c.Policy(ctx, args[0])
		if err != nil {
			return err
		}
		return showOne(a, p, policyColumns)
	})
	in.flags(create)
	create.Flags().BoolVar(&back, "back", false, "settings of the way home")
	list := verb("list", "List the policies of the vault", func(ctx context.Context, _ []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		all, err := sdk.Collect(c.Policies(ctx))
		if err != nil {
			return err
		}
		return showList(a, all, policyColumns)
	})
	remove := verb("delete NAME", "Delete a policy that no machine is under", func(ctx context.Context, args []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		op, err := c.DeletePolicy(ctx, args[0])
		return done(ctx, op, err)
	})
	return group("policy", "Replication settings", create, list, remove)
}
