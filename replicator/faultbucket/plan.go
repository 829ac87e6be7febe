package faultbucket

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"gocloud.dev/gcerrors"
)

// Op is an operation on a bucket.
type Op string

// The operations. A list of several pages is one List a page; a read is one Read from open to close.
const (
	Read       Op = "read"
	Write      Op = "write"
	List       Op = "list"
	Attributes Op = "attributes"
	Delete     Op = "delete"
	Copy       Op = "copy"
)

// Kind is what goes wrong.
type Kind string

// The kinds, with the operations they apply to.
const (
	ErrorBefore Kind = "error before" // all: fails, and nothing was done
	ErrorAfter  Kind = "error after"  // Write, Delete, Copy: done, and then fails: the caller cannot know
	TornRead    Kind = "torn read"    // Read: a part of the body, then an error
	ShortRead   Kind = "short read"   // Read: a part of the body, then the end, as if it were all
	FlippedBit  Kind = "flipped bit"  // Read: one bit differs this time; Write: one bit differs in what is stored
	StaleList   Kind = "stale list"   // List: the newest keys are missing, on all pages of that list
	Slow        Kind = "slow"         // all: takes Delay longer, or until the context ends
	Full        Kind = "full"         // Write, Copy: nothing stored; ENOSPC, code ResourceExhausted
)

var applies = map[Kind][]Op{
	ErrorBefore: {Read, Write, List, Attributes, Delete, Copy},
	ErrorAfter:  {Write, Delete, Copy},
	TornRead:    {Read},
	ShortRead:   {Read},
	FlippedBit:  {Read, Write},
	StaleList:   {List},
	Slow:        {Read, Write, List, Attributes, Delete, Copy},
	Full:        {Write, Copy},
}

// Ops returns the operations that the kind applies to. The slice must not be changed.
func (k Kind) Ops() []Op { return applies[k] }

// Fault is one planned fault. Calls are counted for each fault alone, among those that match Op and Key.
type Fault struct {
	Kind   Kind
	Op     Op                 // empty: every operation the kind applies to
	Key    string             // a * stands for any run of bytes, slashes too; empty: every key. A list's key is its prefix
	Nth    int                // the first matching call to hit, from 1; 0 means 1
	Times  int                // how many calls from there on; 0 means 1, negative means all
	Err    error              // cause of an injected error; found by errors.Is
	Code   gcerrors.ErrorCode // of an injected error; 0 means Unknown. Full has its own
	Delay  time.Duration      // of Slow
	Newest int                // how many keys StaleList hides; 0 means 1
}

// Call is a call that reached the bucket.
type Call struct {
	Op  Op
	Key string
}

// ErrInjected is found in every injected error by errors.Is.
var ErrInjected = errors.New("injected fault")

// Error is an injected error.
type Error struct {
	Kind Kind
	Call Call
	Err  error // the fault's Err, or ENOSPC
	code gcerrors.ErrorCode
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%v: %s, %s %q", ErrInjected, e.Kind, e.Call.Op, e.Call.Key)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is makes ErrInjected match.
func (e *Error) Is(target error) bool { return target == ErrInjected }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Plan says which calls fail and how, and counts what it did. It is safe for concurrent use; with concurrent callers, which
// call is the nth is theirs to settle.
type Plan struct {
	mu       sync.Mutex // guards all below
	rng      *rand.Rand
	seed     uint64
	planned  []*planned
	kinds    []Kind // of random faults
	chance   float64
	disarmed bool
	calls    []Call
	bodies   map[int]bool // by place in calls: reads that had something to give
	hits     map[Kind]int
	written  []string            // keys in the order of their creation
	hidden   map[string][]string // by page token: keys that the list it continues hides
}

type planned struct {
	Fault
	calls, fired int
}

// New returns a plan of the faults given. The seed decides where bits flip and reads tear.
func New(seed uint64, faults ...Fault) *Plan {
	p := &Plan{rng: rand.New(rand.NewPCG(seed, 0)), seed: seed, hits: make(map[Kind]int), bodies: make(map[int]bool), hidden: make(map[string][]string)}
	p.Add(faults...)
	return p
}

// Random returns a plan in which each call fails with the given chance, by one of the kinds that apply to it. Slow is a
// millisecond, StaleList hides one key. Print the seed.
func Random(seed uint64, chance float64, kinds ...Kind) *Plan {
	p := New(seed)
	p.chance, p.kinds = chance, kinds
	return p
}

// Add plans further faults; their counts start now.
func (p *Plan) Add(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range faults {
		ops, known := applies[f.Kind]
		if !known || f.Op != "" && !slices.Contains(ops, f.Op) {
			panic(fmt.Sprintf("faultbucket: %q does not apply to %q", f.Kind, f.Op))
		}
		if f.Nth == 0 {
			f.Nth = 1
		}
		if f.Times == 0 {
			f.Times = 1
		}
		p.planned = append(p.planned, &planned{Fault: f})
	}
}

// Disarm ends all faults, so that a test can look at what they left. Calls are counted on.
func (p *Plan) Disarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disarmed = true
}

// Calls returns the calls so far, in order. A test that fails each call site in turn counts them first without faults, then
// plans its fault at Nth 1 to that number.
func (p *Plan) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// HadBody tells whether the call at place i of Calls read something: only then can a read tear or a bit flip in it.
func (p *Plan) HadBody(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bodies[i]
}

// Hits returns how often a fault of the kind had an effect.
func (p *Plan) Hits(kind Kind) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits[kind]
}

// TB is the part of testing.TB that AssertFired needs.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
}

// AssertFired fails the test for each planned fault that had no effect, and for random faults if none had: a test that does
// not reach its fault proves nothing.
func (p *Plan) AssertFired(t TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.planned {
		if f.fired == 0 {
			t.Errorf("planned fault never fired: %s, op %q, key %q, call %d of %d matching", f.Kind, f.Op, f.Key, f.Nth, f.calls)
		}
	}
	if p.chance > 0 {
		total := 0
		for _, n := range p.hits {
			total += n
		}
		if total == 0 {
			t.Errorf("no random fault fired in %d calls, seed %d", len(p.calls), p.seed)
		}
	}
}

// call counts a call and decides what happens to it: at most one fault, and a delay.
func (p *Plan) call(op Op, key string) *effect {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := &effect{plan: p, call: Call{op, key}, place: len(p.calls), source: -1}
	p.calls = append(p.calls, e.call)
	for i, f := range p.planned {
		if !slices.Contains(applies[f.Kind], op) || f.Op != "" && f.Op != op || !match(f.Key, key) {
			continue
		}
		f.calls++
		if p.disarmed || f.calls < f.Nth || f.Times > 0 && f.calls >= f.Nth+f.Times {
			continue
		}
		if f.Kind == Slow {
			e.delay += f.Delay
			f.fired++
			p.hits[Slow]++
		} else if e.fault.Kind == "" {
			e.fault, e.source = f.Fault, i
		}
	}
	if p.chance > 0 && !p.disarmed && e.fault.Kind == "" && p.rng.Float64() < p.chance {
		p.random(e)
	}
	e.where, e.bit = p.rng.Float64(), byte(1)<<p.rng.IntN(8)
	return e
}

func (p *Plan) random(e *effect) {
	var fit []Kind
	for _, k := range p.kinds {
		if slices.Contains(applies[k], e.call.Op) {
			fit = append(fit, k)
		}
	}
	if len(fit) == 0 {
		return
	}
	if k := fit[p.rng.IntN(len(fit))]; k != Slow {
		e.fault = Fault{Kind: k}
		return
	}
	e.delay += time.Millisecond
	p.hits[Slow]++
}

// match tells whether a pattern with stars fits a key; an empty pattern fits every key.
func match(pattern, key string) bool {
	if pattern == "" {
		return true
	}
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == key
	}
	first, last := parts[0], parts[len(parts)-1]
	if !strings.HasPrefix(key, first) || !strings.HasSuffix(key[len(first):], last) {
		return false
	}
	rest := key[len(first) : len(key)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return true
}

// effect is what happens to one call.
type effect struct {
	plan   *Plan
	call   Call
	place  int   // in the plan's calls
	fault  Fault // zero for none
	source int   // index of the planned fault; negative for a random one
	delay  time.Duration
	where  float64 // of the body, in [0, 1): where a read tears or a bit flips
	bit    byte
}

func (e *effect) is(k Kind) bool { return e.fault.Kind == k }

// hit counts the effect. It is called when the caller is sure to meet it, and once.
func (e *effect) hit() {
	e.plan.mu.Lock()
	defer e.plan.mu.Unlock()
	e.plan.hits[e.fault.Kind]++
	if e.source >= 0 {
		e.plan.planned[e.source].fired++
	}
}

// read notes that the call has a body of n bytes to read.
func (e *effect) read(n int64) {
	e.plan.mu.Lock()
	defer e.plan.mu.Unlock()
	e.plan.bodies[e.place] = n > 0
}

// fail counts the effect and returns its error.
func (e *effect) fail() error {
	e.hit()
	err := &Error{Kind: e.fault.Kind, Call: e.call, Err: e.fault.Err, code: e.fault.Code}
	if err.code == gcerrors.OK {
		err.code = gcerrors.Unknown
	}
	if e.is(Full) {
		err.code = gcerrors.ResourceExhausted
		if err.Err == nil {
			err.Err = syscall.ENOSPC
		}
	}
	return err
}

// before waits the delay out and fails where the call fails before anything is done.
func (e *effect) before(ctx context.Context) error {
	if e.delay > 0 {
		timer := time.NewTimer(e.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if e.is(ErrorBefore) {
		return e.fail()
	}
	return nil
}

// after fails where the call fails although it was done.
func (e *effect) after(err error) error {
	if err == nil && e.is(ErrorAfter) {
		return e.fail()
	}
	return err
}

// at returns the byte of n that a fault in the middle of a body meets.
func (e *effect) at(n int64) int64 { return min(int64(e.where*float64(n)), n-1) }
