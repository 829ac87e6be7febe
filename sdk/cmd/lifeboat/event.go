package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/lifeboat-dr/lifeboat/sdk"
)

func (a *app) eventCommand() *cobra.Command {
	var f sdk.EventFilter
	limit := 0
	list := verb("list", "List events, newest first", func(ctx context.Context, _ []string) error {
		c, err := a.client(ctx)
		if err != nil {
			return err
		}
		all := []sdk.Event{}
		for e, err := range c.Events(ctx, f) {
			if err != nil {
				return err
			}
			all = append(all, e)
			if len(all) == limit {
				break
			}
		}
		return showList(a, all, []column[sdk.Event]{
			{"time", func(e sdk.Event) string { return when(e.Properties.TimeOfOccurrence) }},
			{"severity", func(e sdk.Event) string { return e.Properties.Severity }},
			{"type", func(e sdk.Event) string { return e.Properties.EventType }},
			{"on", func(e sdk.Event) string { return e.Properties.AffectedObjectFriendlyName }},
			{"what", func(e sdk.Event) string { return e.Properties.Description }},
		})
	})
	list.Flags().StringVar(&f.Severity, "severity", "", "OK, Info, Warning or Critical")
	list.Flags().StringVar(&f.Type, "type", "", "VmHealth, JobStatus, ServerHealth or AgentHealth")
	list.Flags().StringVar(&f.Object, "object", "", "name of what the event is about")
	list.Flags().IntVar(&limit, "limit", 50, "at most so many (0: all)")
	return group("event", "What happened", list)
}
