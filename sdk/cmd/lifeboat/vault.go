package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

var vaultColumns = []column[sdk.Vault]{
	{"name", func(v sdk.Vault) string { return v.Name }},
	{"location", func(v sdk.Vault) string { return v.Location }},
	{"created", func(v sdk.Vault) string { return when(v.SystemData.CreatedAt) }},
}

var vaultDetails = append(vaultColumns, column[sdk.Vault]{"id", func(v sdk.Vault) string { return v.Id }})

// newVault is a vault with the key that is shown once.
type newVault struct {
	sdk.Vault
	RecoveryKey string `json:"recoveryKey,omitempty"`
}

func (a *app) vaultCommand() *cobra.Command {
	var location string
	var tags map[string]string
	create := verb("create NAME", "Create a vault and print its recovery key, once", func(ctx context.Context, args []string) error {
		c, err := a.server()
		if err != nil {
			return err
		}
		v, key, err := c.WithVault(args[0]).CreateVault(ctx, location, tags)
		if err != nil {
			return err
		}
		if key == "" {
			fmt.Fprintf(a.err, "Vault %s was there already; its recovery key is not shown again. If it is lost: lifeboat vault reissue-recovery-key %s\n", v.Name, v.Name)
		} else {
			fmt.Fprintln(a.err, "Keep the recovery key away from this machine. It is not shown again, and reads the bucket when everything else is lost.")
		}
		columns := []column[newVault]{{"recovery key", func(n newVault) string { return n.RecoveryKey }}}
		for _, col := range vaultDetails {
			columns = append(columns, column[newVault]{col.head, func(n newVault) string { return col.text(n.Vault) }})
		}
		return showOne(a, newVault{v, key}, columns)
	})
	create.Flags().StringVar(&location, "location", "here", "where the vault is; any word")
	create.Flags().StringToStringVar(&tags, "tag", nil, "name=value; may be given again")
	list := verb("list", "List the vaults of the resource group", func(ctx context.Context, _ []string) error {
		c, err := a.server()
		if err != nil {
			return err
		}
		all, err := sdk.Collect(c.Vaults(ctx))
		if err != nil {
			return err
		}
		return showList(a, all, vaultColumns)
	})
	show := verb("show NAME", "Show a vault", func(ctx context.Context, args []string) error {
		c, err := a.server()
		if err != nil {
			return err
		}
		v, err := c.WithVault(args[0]).Vault(ctx)
		if err != nil {
			return err
		}
		return showOne(a, v, vaultDetails)
	})
	remove := verb("delete NAME", "Delete an empty vault; its bucket stays", func(ctx context.Context, args []string) error {
		c, err := a.server()
		if err != nil {
			return err
		}
		return c.WithVault(args[0]).DeleteVault(ctx)
	})
	reissue := a.reissueCommand()
	health := verb("health", "Show what is wrong in the vault, and what to do about it", func(ctx context.Context, _ []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		h, err := c.Health(ctx)
		if err != nil {
			return err
		}
		return a.showHealth(h)
	})
	return group("vault", "Vaults, the top of everything", create, list, show, remove, reissue, health)
}

// reissued is a recovery key with the job that makes it the one that counts.
type reissued struct {
	RecoveryKey string `json:"recoveryKey"`
	Job         string `json:"job"`
	State       string `json:"state"`
}

// reissueCommand shows the key before it waits, so that a wait that is cut short does not take it along.
func (a *app) reissueCommand() *cobra.Command {
	var timeout time.Duration
	cmd := verb("reissue-recovery-key NAME", "Make a new recovery key and print it, once; the one before opens the bucket no more", func(ctx context.Context, args []string) error {
		c, err := a.server()
		if err != nil {
			return err
		}
		key, op, err := c.WithVault(args[0]).ReissueRecoveryKey(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.err, "Keep the recovery key away from this machine. Keep the one before, too, until this command has succeeded.")
		columns := []column[reissued]{{"recovery key", func(r reissued) string { return r.RecoveryKey }}, {"job", func(r reissued) string { return r.Job }}}
		if err := showOne(a, reissued{key, op.JobID, "InProgress"}, columns); err != nil {
			return err
		}
		if _, err := a.await(ctx, timeout, op); err != nil {
			return err
		}
		fmt.Fprintln(a.err, "The bucket knows the new recovery key; the one before opens it no more.")
		return nil
	})
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "stop waiting after this time; the operation goes on (0: never)")
	return cmd
}

func (a *app) showHealth(h sdk.Health) error {
	if a.format == "json" || a.query != "" {
		return a.showJSON(h)
	}
	p := h.Properties
	rows := [][]string{{"WHAT", "COUNT", "NORMAL", "WARNING", "CRITICAL", "NONE"}}
	var issues [][]string
	for _, s := range []struct {
		what string
		oas.ResourceHealthSummary
	}{{"machines", p.ProtectedItemsHealth}, {"fabrics", p.FabricsHealth}, {"containers", p.ContainersHealth}} {
		row := []string{s.what, "0"}
		if s.ResourceCount != nil {
			row[1] = fmt.Sprint(*s.ResourceCount)
		}
		for _, word := range []string{"Normal", "Warning", "Critical", "None"} {
			row = append(row, fmt.Sprint(s.CategorizedResourceCounts[word]))
		}
		rows = append(rows, row)
		for _, i := range s.Issues {
			issues = append(issues, []string{i.Severity, i.SummaryMessage, ""})
		}
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	for _, e := range p.VaultErrors {
		issues = append(issues, []string{e.ErrorLevel, name(e.SummaryMessage, e.ErrorMessage), e.RecommendedAction})
	}
	if len(issues) == 0 {
		return nil
	}
	fmt.Fprintln(a.out)
	return table(a.out, append([][]string{{"LEVEL", "PROBLEM", "REMEDY"}}, issues...))
}
