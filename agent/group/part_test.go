package group

import "testing"

func TestEveryEventInEveryStateGoesOnOrEndsTheRound(t *testing.T) {
	next := map[state]struct {
		e  event
		to state
	}{ // the one way through a round
		idle: {onPrepare, invited}, invited: {onReady, waiting}, waiting: {onFreeze, freezing}, freezing: {onFrozen, standing}, standing: {onSeal, sealing},
		sealing: {onSealed, holding}, holding: {onThaw, thawing}, thawing: {onThawed, proved}, proved: {onWhole, idle},
	}
	for s := idle; s <= lastState; s++ {
		for e := onPrepare; e <= lastEvent; e++ {
			got := move(s, e)
			switch {
			case e == next[s].e:
				if got.to != next[s].to || got.say == abort {
					t.Errorf("state %d, event %d: got %v, want state %d", s, e, got, next[s].to)
				}
			case got.to != idle:
				t.Errorf("state %d, event %d: got %v, want the end of the round", s, e, got)
			case e != onAbort && got.say != abort:
				t.Errorf("state %d, event %d: the coordinator is not told", s, e)
			}
		}
	}
}

func TestACoordinatorNamesAllThatMissed(t *testing.T) {
	c := newCourse(4)
	c.heard(0, accept)
	if got := c.miss(2, "gone"); got != 0 {
		t.Errorf("%s was ordered before members 1 and 3 were heard of", got)
	}
	c.heard(1, accept)
	if got := c.miss(3, "gone, too"); got != abort {
		t.Errorf("got %s, want Abort", got)
	}
	if want := [4]string{2: "gone", 3: "gone, too"}; [4]string(c.missed) != want {
		t.Errorf("got %q, want %q", c.missed, want)
	}
}

func TestASlowMemberIsNamedAndTheOthersAreNot(t *testing.T) {
	for order, k := range answers {
		c := newCourse(3)
		for step := prepare; step != order; step = next[step] {
			for i := range 3 {
				if step == prepare {
					c.heard(i, accept)
				}
				c.heard(i, answers[step])
			}
		}
		for i := range 3 {
			if order == prepare {
				c.heard(i, accept)
			}
		}
		c.heard(0, k)
		c.heard(2, k)
		if got := c.late(); got != abort || c.missed[1] != lateWords[order] || c.missed[0]+c.missed[2] != "" {
			t.Errorf("%s: got %s, missed %q", order, got, c.missed)
		}
	}
}
