package dr

import (
	"fmt"
	"slices"
	"strings"
)

// Diagram renders the leg table as docs/states.md. The text is made from the table and compared with the file by a test.
func Diagram() string {
	var b strings.Builder
	b.WriteString("# States of a protected machine\n\n")
	b.WriteString("Made from the table in `service/dr/table.go`; `go test ./docs -update` writes it again. Do not edit it by hand.\n\n")
	b.WriteString("A state is (leg, phase, test failover, pending job). A leg is a provider type and a direction; reprotect moves a machine to another leg.\n")
	b.WriteString("While a job runs the phase stays (but for enable), no other operation but purge is accepted, and `allowedOperations` is empty.\n")
	b.WriteString("While a test failover is open only its cleanup, update and purge are accepted. Remove (from every phase) and purge end in `removed` and are not drawn.\n")
	b.WriteString("A repair is accepted where the tables below list it: while disks are compared because tracking was lost (resync), and when a failover that could not be undone left the point log closed; A2A takes it whenever it is protected. Disks are added and removed while the machine is protected; `allowedOperations` has no words for that.\n")
	b.WriteString("A leg without a driver refuses every operation with `unimplemented`.\n")
	for i := range Legs {
		l := &Legs[i]
		driver := "no driver yet"
		if l.Driver {
			driver = "implemented"
		}
		fmt.Fprintf(&b, "\n## %s\n\nProvider `%s`, %s, %s. activeLocation %s, after failover %s.\n\n```mermaid\nstateDiagram-v2\n", l.Name, l.Provider, l.Direction, driver, l.ActiveBefore, l.ActiveAfter)
		edges := l.edges()
		for _, e := range edges {
			b.WriteString("    " + e + "\n")
		}
		b.WriteString("```\n\n| phase | protectionState | allowedOperations |\n|---|---|---|\n")
		for _, p := range Phases {
			if !l.reaches(p) {
				continue
			}
			for _, resync := range []bool{false, true} {
				s := State{Leg: l.Name, Phase: p, Resync: resync}
				ops := Project(s).AllowedOperations
				if resync && (!slices.Contains(replicating, p) || slices.Equal(ops, Project(State{Leg: l.Name, Phase: p}).AllowedOperations)) {
					continue
				}
				name := string(p)
				if resync {
					name += ", resync"
				}
				fmt.Fprintf(&b, "| %s | %s (%s) | %s |\n", name, l.word(p).State, l.word(p).Description, strings.Join(ops, ", "))
			}
		}
	}
	return b.String()
}

// edges lists the leg's transitions in mermaid's words, in the order of the table.
func (l *Leg) edges() []string {
	var out []string
	add := func(format string, a ...any) {
		if e := fmt.Sprintf(format, a...); !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	name := func(p Phase) string {
		if p == PhaseNone {
			return "[*]"
		}
		return string(p)
	}
	for _, r := range l.Rules {
		if r.Op == OpRemove || r.Op == OpPurge || r.Op == OpUpdate {
			continue
		}
		for _, from := range r.From {
			begin := from
			if r.Begin != "" {
				begin = r.Begin
				add("%s --> %s: %s", name(from), begin, r.Op)
			}
			to := r.To
			if to == "" {
				to = begin
			}
			label := string(r.Op)
			if r.Begin != "" {
				label = "succeeded"
			}
			if r.Leg != "" && r.Leg != l.Name {
				add("%s --> %s_%s: %s", name(begin), r.Leg, to, label)
				continue
			}
			add("%s --> %s: %s", name(begin), to, label)
			if r.Fail != "" {
				add("%s --> %s: failed", name(begin), r.Fail)
			}
		}
	}
	if l.reaches(PhaseInitialReplication) {
		add("%s --> %s: everything shipped", PhaseInitialReplication, PhaseFirstPointPending)
		add("%s --> %s: first point", PhaseFirstPointPending, PhaseProtected)
		add("%s --> %s: first point", PhaseInitialReplication, PhaseProtected)
	}
	for i := range Legs {
		for _, r := range Legs[i].Rules {
			if r.Leg == l.Name && Legs[i].Name != l.Name {
				for _, from := range r.From {
					add("%s_%s --> %s: %s", Legs[i].Name, from, r.To, r.Op)
				}
			}
		}
	}
	return out
}

// reaches tells whether an item can be in phase p of the leg.
func (l *Leg) reaches(p Phase) bool {
	reached := map[Phase]bool{}
	var visit func(Phase)
	visit = func(p Phase) {
		if reached[p] {
			return
		}
		reached[p] = true
		if p == PhaseInitialReplication {
			visit(PhaseFirstPointPending)
			visit(PhaseProtected)
		}
		for _, r := range l.Rules {
			if !slices.Contains(r.From, p) || r.Op == OpRemove || r.Op == OpPurge {
				continue
			}
			for _, to := range []Phase{r.Begin, r.Fail} {
				if to != "" {
					visit(to)
				}
			}
			if r.To != "" && (r.Leg == "" || r.Leg == l.Name) {
				visit(r.To)
			}
		}
	}
	if FirstLeg(l.Provider) == l {
		visit(PhaseNone)
	}
	for i := range Legs {
		for _, r := range Legs[i].Rules {
			if r.Leg == l.Name {
				visit(r.To)
			}
		}
	}
	delete(reached, PhaseNone)
	return reached[p]
}
