package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

// app is one run of the command line.
type app struct {
	out, err io.Writer

	endpoint, token, tokenFile, caFile, dataDir string
	subscription, group, vault                  string
	format, query                               string
}

const help = `The command line of Lifeboat, self-hosted site recovery.

Where the server is, and who asks, comes from flags or from the environment:
  --endpoint        LIFEBOAT_ENDPOINT        https://127.0.0.1:8443 when not given
  --token-file      LIFEBOAT_TOKEN_FILE      or the token itself in LIFEBOAT_TOKEN
  --ca-file         LIFEBOAT_CA_FILE
  --data-dir        LIFEBOAT_DATA_DIR        of a lifeboatd on this machine: its admin.token and ca.pem
  --subscription    LIFEBOAT_SUBSCRIPTION    "default" when not given
  --resource-group  LIFEBOAT_RESOURCE_GROUP  "default" when not given
  --vault           LIFEBOAT_VAULT           the only vault of the resource group when not given

Exit codes: 0 done, 1 the request failed or was refused, 2 the command line is wrong, 3 the operation was accepted and failed.`

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	a := &app{out: out, err: errOut}
	root := a.command()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	began := false
	each(root, func(c *cobra.Command) {
		do := c.RunE
		if do == nil {
			return
		}
		c.RunE = func(cmd *cobra.Command, args []string) error {
			began = true
			return do(cmd, args)
		}
	})
	err := root.ExecuteContext(ctx)
	if err != nil && !began {
		err = &usageError{err.Error()} // cobra refuses what it cannot parse before any command begins
	}
	return report(errOut, err)
}

func each(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		each(sub, visit)
	}
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{Use: "lifeboat", Short: "The command line of Lifeboat", Long: help, Version: version, SilenceUsage: true, SilenceErrors: true}
	f := root.PersistentFlags()
	f.StringVar(&a.endpoint, "endpoint", env("LIFEBOAT_ENDPOINT", "https://127.0.0.1:8443"), "URL of the server")
	f.StringVar(&a.tokenFile, "token-file", env("LIFEBOAT_TOKEN_FILE", ""), "file with the bearer token")
	f.StringVar(&a.caFile, "ca-file", env("LIFEBOAT_CA_FILE", ""), "PEM file of the authority that signed the server's certificate")
	f.StringVar(&a.dataDir, "data-dir", env("LIFEBOAT_DATA_DIR", ""), "data directory of a lifeboatd on this machine, for its token and authority")
	f.StringVar(&a.subscription, "subscription", env("LIFEBOAT_SUBSCRIPTION", "default"), "subscription of the vault")
	f.StringVarP(&a.group, "resource-group", "g", env("LIFEBOAT_RESOURCE_GROUP", "default"), "resource group of the vault")
	f.StringVarP(&a.vault, "vault", "v", env("LIFEBOAT_VAULT", ""), "vault (default: the only one of the resource group)")
	f.StringVarP(&a.format, "output", "o", "table", "table or json")
	f.StringVar(&a.query, "query", "", "JMESPath over the JSON of the answer")
	a.token = os.Getenv("LIFEBOAT_TOKEN")
	root.AddCommand(a.vaultCommand(), a.fabricCommand(), a.keyCommand(), a.policyCommand(), a.machineCommand(), a.itemCommand(), a.pointCommand(),
		a.failoverCommand(), a.planCommand(), a.jobCommand(), a.eventCommand())
	each(root, func(c *cobra.Command) {
		if c.HasSubCommands() && c != root {
			c.Args = cobra.NoArgs
			c.RunE = func(c *cobra.Command, _ []string) error {
				return &usageError{c.CommandPath() + " is followed by one of: " + strings.Join(verbs(c), ", ")}
			}
		}
	})
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	return root
}

func verbs(c *cobra.Command) (names []string) {
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	return names
}

// must stands where only a misspelled flag of our own could fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// group is a command that only holds others.
func group(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short}
	c.AddCommand(verbs...)
	return c
}

// verb is a command that does something. use names its arguments, all of which are required.
func verb(use, short string, do func(ctx context.Context, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: exactly(strings.Fields(use)[1:]),
		RunE: func(cmd *cobra.Command, args []string) error { return do(cmd.Context(), args) }}
}

func exactly(names []string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing; use: %s", names[len(args)], cmd.UseLine())
		case len(args) > len(names):
			return fmt.Errorf("%q is too much; use: %s", args[len(names)], cmd.UseLine())
		}
		return nil
	}
}

// server returns a client of no vault in particular.
func (a *app) server() (*sdk.Client, error) {
	if a.format != "table" && a.format != "json" {
		return nil, &usageError{fmt.Sprintf("--output is %q: use table or json", a.format)}
	}
	if err := checkQuery(a.query); err != nil {
		return nil, err
	}
	cfg := sdk.Config{Endpoint: a.endpoint, Token: a.token, TokenFile: a.tokenFile, CAFile: a.caFile, Subscription: a.subscription, ResourceGroup: a.group, Vault: a.vault,
		UserAgent: "lifeboat/" + version}
	if a.tokenFile != "" {
		cfg.Token = "" // a file that is named goes before the environment
	}
	if a.dataDir != "" {
		if cfg.Token == "" && cfg.TokenFile == "" {
			cfg.TokenFile = filepath.Join(a.dataDir, "admin.token")
		}
		if cfg.CAFile == "" {
			cfg.CAFile = filepath.Join(a.dataDir, "ca.pem")
		}
	}
	if cfg.Token == "" && cfg.TokenFile == "" {
		return nil, &usageError{"no token is given: use --data-dir, --token-file, or LIFEBOAT_TOKEN in the environment"}
	}
	return sdk.New(cfg)
}

// client returns a client of the vault that was named, or of the only one there is.
func (a *app) client(ctx context.Context) (*sdk.Client, error) {
	c, err := a.server()
	if err != nil || a.vault != "" {
		return c, err
	}
	all, err := sdk.Collect(c.Vaults(ctx))
	if err != nil {
		return nil, err
	}
	switch len(all) {
	case 0:
		return nil, &sdk.Error{Code: sdk.CodeNotFound, Message: fmt.Sprintf("resource group %s of subscription %s has no vault", a.group, a.subscription),
			PossibleCauses: "none was created yet, or it is in another resource group", RecommendedAction: "create one with: lifeboat vault create NAME"}
	case 1:
		return c.WithVault(all[0].Name), nil
	}
	names := make([]string, len(all))
	for i, v := range all {
		names[i] = v.Name
	}
	return nil, &usageError{"there are several vaults, name one with --vault: " + strings.Join(names, ", ")}
}
