// Package program owns what the programs around a replicator node have in common, lifeboatd and lifeboat-replicator: how they
// start and end, read their settings, log, and find the hypervisor and the queue. It must never hold what only one of them does.
package program

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
)

// Main runs a program's command until it ends or the process is told to stop, and exits: 1 after an error, which it prints.
// Files that the process makes are its user's alone: databases, spools and instances hold what is nobody else's business.
func Main(command *cobra.Command) {
	syscall.Umask(0o077)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command.ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", command.Name(), err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Load lays the YAML file that the flag --config names, if any, under the flags that were given. settings points to a struct with
// koanf tags: the names in the file, which are those of the flags but for plurals (name in the file by flag). What the file does
// not name stays as it is, and a name that settings does not have is an error, after which settings is unchanged.
func Load[T any](cmd *cobra.Command, settings *T, plurals map[string]string) error {
	path, err := cmd.Flags().GetString("config")
	if err != nil || path == "" {
		return err
	}
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	for flag, key := range plurals {
		if cmd.Flags().Changed(flag) {
			k.Delete(key)
		}
	}
	for _, key := range k.Keys() {
		if f := cmd.Flags().Lookup(key); f != nil && f.Changed {
			k.Delete(key)
		}
	}
	merged := *settings
	err = k.UnmarshalWithConf("", &merged, koanf.UnmarshalConf{Tag: "koanf", DecoderConfig: &mapstructure.DecoderConfig{
		Result: &merged, TagName: "koanf", ErrorUnused: true, WeaklyTypedInput: true, DecodeHook: mapstructure.StringToTimeDurationHookFunc()}})
	if err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	*settings = merged
	return nil
}

// Logger logs to standard error, as JSON if the format is json, else as text.
func Logger(format string, verbose bool) *slog.Logger {
	opt := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		opt.Level = slog.LevelDebug
	}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opt))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opt))
}
