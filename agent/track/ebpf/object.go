package ebpf

import (
	"bytes"
	_ "embed" // the compiled programs
	"errors"
	"fmt"

	cilium "github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

//go:embed tracker.bpf.o
var object []byte

// ErrUnsupported is why Open refuses on a kernel that cannot run the programs: it has no type information of itself, no BPF, or
// none for this process. Track changes in another way.
var ErrUnsupported = errors.New("ebpf: not supported here")

// programs are the names in tracker.bpf.c and the arguments of their tracepoint. Before Linux 5.11 it had one more.
var programs = map[string]struct {
	tracepoint string
	before     string // the program for one argument more
}{
	"issue":    {"block_rq_issue", "issue_before_5_11"},
	"complete": {"block_rq_complete", ""},
	"requeue":  {"block_rq_requeue", "requeue_before_5_11"},
	"queue":    {"block_bio_queue", "queue_before_5_11"},
}

// spec returns the programs that fit the kernel, under the names without a version, and the maps.
func spec(cpus int) (*cilium.CollectionSpec, error) {
	s, err := cilium.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read programs: %w", err)
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("%w: the kernel has no type information (CONFIG_DEBUG_INFO_BTF): %w", ErrUnsupported, err)
	}
	for name, p := range programs {
		if p.before == "" {
			continue
		}
		n, err := arguments(kernel, p.tracepoint)
		if err != nil {
			return nil, fmt.Errorf("%w: tracepoint %s: %w", ErrUnsupported, p.tracepoint, err)
		}
		if n > 1 {
			s.Programs[name] = s.Programs[p.before]
		}
		delete(s.Programs, p.before)
	}
	if err := s.Variables["cpus"].Set(uint32(cpus)); err != nil {
		return nil, fmt.Errorf("set the number of CPUs: %w", err)
	}
	s.Maps["tallies"].MaxEntries = uint32(maxDisks * cpus)
	return s, nil
}

// arguments counts what a tracepoint passes on.
func arguments(kernel *btf.Spec, tracepoint string) (int, error) {
	var def *btf.Typedef
	if err := kernel.TypeByName("btf_trace_"+tracepoint, &def); err != nil {
		return 0, err
	}
	ptr, ok := btf.UnderlyingType(def).(*btf.Pointer)
	if !ok {
		return 0, fmt.Errorf("type %v is no pointer", def)
	}
	proto, ok := ptr.Target.(*btf.FuncProto)
	if !ok {
		return 0, fmt.Errorf("type %v is no function", ptr.Target)
	}
	return len(proto.Params) - 1, nil // the first is the program's own
}
