package dr

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
)

// size is a target size of ours: processors and memory, such as 2cpu-4096MB.
var size = regexp.MustCompile(`^(?i)([1-9][0-9]{0,2})cpu-([1-9][0-9]{2,7})mb$`)

// foreign is a size from Azure's price list, which clients of that API send: Standard_D2s_v3, Standard_E4-2ads_v5, Basic_A1.
var foreign = regexp.MustCompile(`^(?i)(standard|basic)_[a-z]+[0-9]+[a-z0-9_-]*$`)

// CheckSize refuses a targetVmSize that is neither a size of ours nor one of Azure: it would be ignored without a word. Empty
// means that none was sent.
func CheckSize(s string) *Error {
	if s == "" || size.MatchString(s) || foreign.MatchString(s) {
		return nil
	}
	return &Error{Code: CodeInvalid, Message: fmt.Sprintf("targetVmSize is %q", s), PossibleCauses: "it is misspelled: a size is processors and megabytes of memory, such as 2cpu-4096MB",
		RecommendedAction: "send 1 to 999 processors and at least 100 MB as in 2cpu-4096MB; or leave it out, or send an Azure size name such as Standard_D2s_v3, to give the replica the hardware of its source"}
}

// TargetHardware is what the item's replica gets: the hardware that was observed at the source, with processors and memory
// replaced by targetVmSize of the newest settings when that names a size of ours ("2cpu-4096MB"). Sizes of Azure say
// nothing here, and the source's hardware stays.
func (i *Item) TargetHardware() Hardware {
	h := i.Hardware
	for _, input := range []json.RawMessage{i.UpdateInput, i.EnableInput} {
		var set struct {
			TargetVMSize string `json:"targetVmSize"`
		}
		if len(input) == 0 || json.Unmarshal(input, &set) != nil || set.TargetVMSize == "" {
			continue
		}
		if m := size.FindStringSubmatch(set.TargetVMSize); m != nil {
			h.CPUs, _ = strconv.Atoi(m[1]) // digits, as the pattern says
			mb, _ := strconv.ParseInt(m[2], 10, 64)
			h.MemoryBytes = mb << 20
		}
		break
	}
	return h
}

// Size is a target size of ours.
type Size struct {
	Name     string // as targetVmSize takes it
	CPUs     int
	MemoryMB int64
}

// TargetSizes are the sizes that are offered for a machine: its own hardware first, then a ladder of round ones, smallest first.
// Any other may be spelled out.
func TargetSizes(source Hardware) []Size {
	var out []Size
	add := func(cpus int, mb int64) {
		s := Size{Name: fmt.Sprintf("%dcpu-%dMB", cpus, mb), CPUs: cpus, MemoryMB: mb}
		if size.MatchString(s.Name) && (len(out) == 0 || out[0].Name != s.Name) {
			out = append(out, s)
		}
	}
	add(source.CPUs, source.MemoryBytes>>20)
	for cpus := 1; cpus <= 64; cpus *= 2 {
		for _, each := range []int64{1024, 2048, 4096, 8192} {
			add(cpus, int64(cpus)*each)
		}
	}
	return out
}
