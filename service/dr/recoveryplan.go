package dr

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// RecoveryPlan brings several items up in order. What an operation on it does is told by Expand; a plan holds no state of its
// items, so that machines may also be failed over alone.
type RecoveryPlan struct {
	Meta
	ID    string // GUID
	Vault string
	// Fabric ids as sent; PrimaryFabric is the fabric's name.
	PrimaryFabricID, RecoveryFabricID string
	PrimaryFabric                     string
	DeploymentModel                   string
	ProviderInput                     json.RawMessage // list as sent; nil for none
	Groups                            []PlanGroup     // Shutdown, Failover, then at least one Boot group
	OnFailure                         OnFailure
	ParallelStarts                    int // machines of a group that are worked on at the same time; at least 1

	PendingJob                            string   // the job of the operation that runs; empty for none
	LastScenario                          Scenario // the last operation, whatever became of it
	LastPlanned, LastUnplanned, LastDrill time.Time
}

// OnFailure says what a failed machine or action means to the rest of a plan's job.
type OnFailure string

const (
	StopOnFailure     OnFailure = "Stop"     // nothing more is begun; machines that were prepared and not started go back
	ContinueOnFailure OnFailure = "Continue" // everything else is done; the job ends failed
)

// GroupKind is a group's place in a plan.
type GroupKind string

const (
	GroupShutdown GroupKind = "Shutdown" // all machines are stopped at the source
	GroupFailover GroupKind = "Failover" // all machines are prepared at the other side
	GroupBoot     GroupKind = "Boot"     // the group's machines are started
)

// PlanGroup is a step of a plan. Only Boot groups hold items.
type PlanGroup struct {
	Kind   GroupKind
	Items  []ItemID
	Before []PlanAction
	After  []PlanAction
}

// ActionKind is what an action does.
type ActionKind string

const (
	ActionScript  ActionKind = "script"  // a runner runs a program
	ActionWebhook ActionKind = "webhook" // a URL is posted to
	ActionManual  ActionKind = "manual"  // a person resumes the job
)

// PlanAction is done between machines in the operations and directions that it lists.
type PlanAction struct {
	Name       string
	Types      []string // words of failoverTypes as sent
	Directions []Direction
	Kind       ActionKind
	Path       string // script: below the runner's directory, slashes between
	PathSent   string // as the client spelled it
	Runner     string // script: name; empty: any at the side
	URL        string // webhook
	// Instructions are for the person of a manual action.
	Instructions string
	Timeout      time.Duration
	TimeoutSent  string
	Primary      bool // at the primary side
}

// Limits of a plan, well above the field's 7 groups and 100 machines.
const (
	MaxPlanGroups    = 100
	MaxPlanItems     = 1000
	MaxGroupActions  = 50
	MaxActionTimeout = 24 * time.Hour

	defaultParallelStarts = 10
	defaultActionTimeout  = 10 * time.Minute
)

// Complete adds the groups and settings that may be left out, and refuses a plan that cannot be carried out. It looks at nothing
// but the plan: whether its items exist is the caller's to know.
func (p *RecoveryPlan) Complete() *Error {
	if p.OnFailure == "" {
		p.OnFailure = StopOnFailure
	}
	if p.ParallelStarts == 0 {
		p.ParallelStarts = defaultParallelStarts
	}
	if p.DeploymentModel == "" {
		p.DeploymentModel = "ResourceManager"
	}
	if err := p.orderGroups(); err != nil {
		return err
	}
	seen := map[ItemID]bool{}
	for _, g := range p.Groups {
		if len(g.Items) > 0 && g.Kind != GroupBoot {
			return invalidPlan(fmt.Sprintf("a group of type %s holds machines", g.Kind), "it acts on all machines of the plan", "put the machines into groups of type Boot")
		}
		for _, id := range g.Items {
			if seen[id] {
				return invalidPlan(fmt.Sprintf("machine %s is in the plan twice", id), "a machine is started once", "leave it in one group")
			}
			seen[id] = true
		}
		if len(g.Before) > MaxGroupActions || len(g.After) > MaxGroupActions {
			return invalidPlan(fmt.Sprintf("a group has more than %d actions in a row", MaxGroupActions), "the plan is too large", "split the group, or join scripts")
		}
		for _, list := range [][]PlanAction{g.Before, g.After} {
			for i := range list {
				if err := list[i].complete(); err != nil {
					return err
				}
			}
		}
	}
	switch {
	case len(seen) == 0:
		return invalidPlan("the plan has no machine", "no Boot group names one", "name at least one protected item in a group of type Boot")
	case len(seen) > MaxPlanItems:
		return invalidPlan(fmt.Sprintf("the plan has %d machines", len(seen)), fmt.Sprintf("at most %d are allowed", MaxPlanItems), "make several plans")
	}
	return nil
}

// orderGroups puts Shutdown and Failover in front, adding what is missing, and keeps the order of the rest.
func (p *RecoveryPlan) orderGroups() *Error {
	front := []PlanGroup{{Kind: GroupShutdown}, {Kind: GroupFailover}}
	given := map[GroupKind]int{}
	var boot []PlanGroup
	for _, g := range p.Groups {
		given[g.Kind]++
		switch g.Kind {
		case GroupShutdown:
			front[0] = g
		case GroupFailover:
			front[1] = g
		case GroupBoot:
			boot = append(boot, g)
		default:
			return invalidPlan(fmt.Sprintf("groupType is %q", g.Kind), "it is not a type of group", "use Shutdown, Failover or Boot")
		}
	}
	if given[GroupShutdown] > 1 || given[GroupFailover] > 1 {
		return invalidPlan("the plan has two groups of type Shutdown or Failover", "each acts on all machines", "join them into one")
	}
	if len(boot) > MaxPlanGroups {
		return invalidPlan(fmt.Sprintf("the plan has %d groups", len(boot)), fmt.Sprintf("at most %d are allowed", MaxPlanGroups), "join groups, or make several plans")
	}
	p.Groups = slices.Concat(front, boot)
	return nil
}

func (a *PlanAction) complete() *Error {
	if strings.TrimSpace(a.Name) == "" {
		return invalidPlan("an action has no name", "actionName is empty", "give it a name that people understand")
	}
	bad := func(what, causes, action string) *Error {
		return invalidPlan(fmt.Sprintf("action %q: %s", a.Name, what), causes, action)
	}
	if a.Kind == ActionManual {
		return nil
	}
	var ok bool
	if a.Timeout, ok = parseTimeout(a.TimeoutSent); !ok || a.Timeout <= 0 || a.Timeout > MaxActionTimeout {
		return bad(fmt.Sprintf("timeout is %q", a.TimeoutSent), "it is no span of time, or not between a second and 24 hours", "send PT5M, 00:05:00 or a number of seconds")
	}
	if a.Kind == ActionWebhook {
		if u, err := url.Parse(a.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return bad(fmt.Sprintf("runbookId %q is no URL of a webhook", a.URL), "it may be the id of a runbook, and there is no Automation account here", "send the URL of a webhook, such as https://host/path")
		}
		return nil
	}
	return a.completeScript(bad)
}

// completeScript takes the runner's name out of a path such as \\runner\directory\file, which is how the field names a share.
func (a *PlanAction) completeScript(bad func(what, causes, action string) *Error) *Error {
	p := strings.ReplaceAll(a.PathSent, `\`, "/")
	if rest, ok := strings.CutPrefix(p, "//"); ok {
		name, file, _ := strings.Cut(rest, "/")
		if a.Runner != "" && !strings.EqualFold(a.Runner, name) {
			return bad("path and runner name two runners", fmt.Sprintf("path is %q, runner %q", a.PathSent, a.Runner), "name the runner once")
		}
		a.Runner, p = name, file
	}
	clean := path.Clean(p)
	if p == "" || clean == "." || path.IsAbs(p) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(p, 0) {
		return bad(fmt.Sprintf("path %q is not below the runner's directory", a.PathSent), "it is empty, absolute, or leaves the directory", `send a relative path such as fail/over.sh, or \\runner\fail\over.sh`)
	}
	a.Path = clean
	return nil
}

// parseTimeout reads PT1H2M3S, 1.02:03:04, 02:03:04 or seconds. Empty is the default.
func parseTimeout(s string) (time.Duration, bool) {
	s = strings.TrimSpace(s)
	if s == "" {
		return defaultActionTimeout, true
	}
	if rest, ok := strings.CutPrefix(strings.ToUpper(s), "PT"); ok {
		d, err := time.ParseDuration(strings.ToLower(rest))
		return d, err == nil
	}
	if strings.Contains(s, ":") {
		return parseClock(s)
	}
	d, err := time.ParseDuration(s + "s")
	return d, err == nil
}

func parseClock(s string) (time.Duration, bool) {
	var days, h, m, sec int
	if _, err := fmt.Sscanf(s, "%d.%d:%d:%d", &days, &h, &m, &sec); err != nil {
		days = 0
		if _, err := fmt.Sscanf(s, "%d:%d:%d", &h, &m, &sec); err != nil {
			return 0, false
		}
	}
	if days < 0 || days > 1 || h < 0 || h > 24 || m < 0 || m > 59 || sec < 0 || sec > 59 {
		return 0, false
	}
	return time.Duration(days*24+h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(sec)*time.Second, true
}

// Items are the plan's machines in the order of its groups.
func (p *RecoveryPlan) Items() (ids []ItemID) {
	for _, g := range p.Groups {
		ids = append(ids, g.Items...)
	}
	return ids
}

func invalidPlan(message, causes, action string) *Error {
	return &Error{Code: CodeInvalid, Message: message, PossibleCauses: causes, RecommendedAction: action}
}
