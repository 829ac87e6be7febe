package track

// Tracked is a disk's tracker, and what it knows of the time before it. Closing it leaves running what an agent that is started again
// can take over.
type Tracked struct {
	Tracker
	Kind string // for people: ebpf, tracefs, scan
	// Whole means that every epoch is the whole disk: nothing is ever lost, and nothing is known.
	Whole bool
	// Since means that Pending covers all writes since the newest epoch that was ever released, also by the agent before this one.
	// Otherwise Untracked says why not, and what was written before is unknown.
	Since     bool
	Untracked string
}

// Verifier is a Tracker that can be held to the kernel's count of what is written. Verify is called after Seal; still says that no
// filesystem of the disk can be written meanwhile. It returns ErrLost when marks are missing: no epoch since the Verify before can
// be vouched for then. It writes and logs nothing.
type Verifier interface{ Verify(still bool) error }
