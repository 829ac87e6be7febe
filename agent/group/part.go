package group

// state is how far a member is in a round.
type state uint8

const (
	idle      state = iota // in no round
	invited                // promised to one coordinator; the capture is being prepared
	waiting                // said Ready
	freezing               // ordered to freeze
	standing               // said Frozen
	sealing                // ordered to seal: all members stood at that moment, this one too if it still does
	holding                // said Sealed
	thawing                // ordered to thaw
	proved                 // said Thawed: it stood from before its Frozen until after the order to thaw
	lastState = proved
)

// event is what moves a member: an order, or what its own capture did.
type event uint8

const (
	onPrepare event = iota
	onFreeze
	onSeal
	onThaw
	onWhole
	onAbort   // also: the connection was lost, or a wait took too long
	onReady   // the capture joined
	onFrozen  // all filesystems stand
	onSealed  // the epochs are sealed
	onThawed  // the window ended, and stood until its end
	onFailed  // the capture failed, or the window did not stand
	lastEvent = onFailed
)

var onOrder = map[kind]event{prepare: onPrepare, freeze: onFreeze, seal: onSeal, thaw: onThaw, whole: onWhole, abort: onAbort}

// step is what an event leads to: the next state, and what to say to the coordinator; 0 for nothing.
type step struct {
	to  state
	say kind
}

// steps is the whole conduct of a member. What is not in it ends the round for this member, and the coordinator hears abort. Only
// one entry gives a point the group's id: onWhole in proved. Wherever a round ends earlier, the capture goes on as the machine's own.
var steps = map[state]map[event]step{
	idle: {
		onPrepare: {invited, accept},
		onAbort:   {idle, 0},
	},
	invited: {
		onReady:  {waiting, ready},
		onAbort:  {idle, 0},
		onFailed: {idle, abort},
	},
	waiting: {
		onFreeze: {freezing, 0},
		onAbort:  {idle, 0},
		onFailed: {idle, abort},
	},
	freezing: {
		onFrozen: {standing, frozen},
		onAbort:  {idle, 0},
		onFailed: {idle, abort},
	},
	standing: {
		onSeal:   {sealing, 0},
		onAbort:  {idle, 0},
		onFailed: {idle, abort},
	},
	sealing: {
		onSealed: {holding, sealed},
		onAbort:  {idle, 0},
		onFailed: {idle, abort},
	},
	holding: {
		onThaw:   {thawing, 0},
		onAbort:  {idle, 0},
		onFailed: {idle, abort},
	},
	thawing: {
		onThawed: {proved, thawed},
		onAbort:  {idle, 0},
		onFailed: {idle, abort},
	},
	proved: {
		onWhole:  {idle, 0},
		onAbort:  {idle, 0},
		onFailed: {idle, abort},
	},
}

// move returns the step from s on e.
func move(s state, e event) step {
	if t, ok := steps[s][e]; ok {
		return t
	}
	return step{idle, abort}
}
