package hrl

import (
	"errors"
	"fmt"
)

// State is what tells whether anybody wrote to a disk between two looks at it.
type State struct {
	Boot     string `json:"boot"`     // the kernel's id of this boot
	Number   string `json:"number"`   // the kernel's number of the disk, in a boot never given to another one; empty when it gives none
	Hardware string `json:"hardware"` // what the disk says of itself
	Size     int64  `json:"size"`     // bytes
	Sectors  int64  `json:"sectors"`  // written and discarded since the kernel knows the disk
	Stamps   string `json:"stamps"`   // hash of what filesystems stamp into their superblocks when written; empty when one is unknown
}

// Vouch returns nil when nothing can have been written to a disk between the mark of a clean stop and now, the moment at which its
// tracker began; else why that cannot be said. early is what a reader in the initramfs saw of the disk before anything was mounted;
// nil where there is none. offline tells that the platform excludes writes while this kernel does not run, such as by a rescue system
// or by a snapshot that is reverted.
//
// In the same boot the kernel's counters say it all. After another boot they begin anew, so that the time in between and the time
// until the tracker began must be vouched for by others: all of them, or the disk is compared.
func Vouch(mark, now State, early *State, offline bool) error {
	if err := same(mark, now); err != nil {
		return err
	}
	if mark.Boot == now.Boot {
		switch {
		case mark.Number == "" || mark.Number != now.Number:
			return errors.New("the disk was attached anew since the agent was stopped")
		case mark.Sectors != now.Sectors:
			return fmt.Errorf("%d bytes were written while no agent ran", (now.Sectors-mark.Sectors)*512)
		}
		return nil
	}
	switch {
	case !offline:
		return errors.New("the machine was booted, and its platform does not exclude writes while it is down")
	case early == nil:
		return errors.New("the machine was booted, and nothing in the initramfs looked at the disk before it was mounted")
	case early.Boot != now.Boot || early.Number != now.Number:
		return errors.New("the machine was booted, and what the initramfs saw is of another boot or disk")
	case mark.Stamps == "" || early.Stamps == "":
		return errors.New("the machine was booted, and something on the disk has no stamp of its last write")
	case mark.Stamps != early.Stamps:
		return errors.New("the machine was booted, and a filesystem was written after the agent was stopped")
	case early.Sectors != 0:
		return errors.New("the disk was written before the initramfs looked at it")
	case now.Sectors != 0:
		return fmt.Errorf("%d bytes were written since the boot, before the tracker began", now.Sectors*512)
	}
	return same(mark, *early)
}

// same tells whether two states can be of one disk.
func same(a, b State) error {
	if a.Boot == "" || b.Boot == "" {
		return errors.New("the boot has no id")
	}
	if a.Hardware == "" || a.Hardware != b.Hardware || a.Size != b.Size {
		return fmt.Errorf("the disk is another one: %q with %d bytes, was %q with %d", b.Hardware, b.Size, a.Hardware, a.Size)
	}
	return nil
}
