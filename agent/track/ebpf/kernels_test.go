package ebpf

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	cilium "github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// Layouts of kernels that are not at hand: the structures as those versions name and nest them, with something else around what
// is used, so that no offset is that of the programs.
var kernels = map[string]struct {
	source string
	gone   []string // what the programs ask for and do without: a structure of tracker.bpf.c and the place of a field in it
}{
	"5.10": {`
struct gendisk { long x; int major, first_minor; } *a;
struct request_queue { long x[7]; int mq_freeze_depth; } *b;
struct bvec_iter { unsigned long long bi_sector; unsigned bi_size; };
struct bio { struct bio *bi_next; struct gendisk *bi_disk; unsigned bi_opf; int x[3]; struct bvec_iter bi_iter; } *c;
enum mq_rq_state { MQ_RQ_IDLE = 0, MQ_RQ_IN_FLIGHT = 1, MQ_RQ_COMPLETE = 2 };
struct request { struct request_queue *q; long x[3]; unsigned cmd_flags, y, __data_len, z; unsigned long long __sector;
  struct bio *bio, *biotail; long w[9]; struct gendisk *rq_disk; enum mq_rq_state state; } *d;`,
		[]string{"bio[0:1]", "block_device[0:0]", "request_queue[0:0]"}},
	"5.15": {`
struct gendisk { int major, first_minor; } *a;
struct request_queue { long x[7]; struct gendisk *disk; int mq_freeze_depth; } *b;
struct bvec_iter { unsigned long long bi_sector; unsigned bi_size; };
struct block_device { long x[4]; struct gendisk *bd_disk; } *e;
struct bio { struct bio *bi_next; struct block_device *bi_bdev; unsigned bi_opf; int x[3]; struct bvec_iter bi_iter; } *c;
enum mq_rq_state { MQ_RQ_IDLE = 0, MQ_RQ_IN_FLIGHT = 1, MQ_RQ_COMPLETE = 2 };
struct request { struct request_queue *q; long x[3]; unsigned cmd_flags, y, __data_len, z; unsigned long long __sector;
  struct bio *bio, *biotail; long w[9]; struct gendisk *rq_disk; enum mq_rq_state state; } *d;`,
		[]string{"bio___before_5_12[0:0]"}},
	"6.1": {`
struct gendisk { int major, first_minor; } *a;
struct request_queue { long x[9]; struct gendisk *disk; int y, mq_freeze_depth; } *b;
struct bvec_iter { unsigned long long bi_sector; unsigned bi_size; };
struct block_device { struct gendisk *bd_disk; } *e;
struct bio { struct bio *bi_next; struct block_device *bi_bdev; unsigned bi_opf; int x[3]; struct bvec_iter bi_iter; } *c;
enum mq_rq_state { MQ_RQ_IDLE = 0, MQ_RQ_IN_FLIGHT = 1, MQ_RQ_COMPLETE = 2 };
struct request { struct request_queue *q; long x[3]; unsigned cmd_flags, y; enum mq_rq_state state; unsigned __data_len; unsigned long long __sector;
  struct bio *bio, *biotail; } *d;`,
		[]string{"bio___before_5_12[0:0]", "request___before_5_17[0:0]"}},
}

// Every field that the programs use is found in each layout, except for those that they ask for first. What is not found would be
// refused by the verifier, unless the question made that code dead.
func TestFieldsAreFoundInOlderKernels(t *testing.T) {
	s, err := cilium.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	for version, kernel := range kernels {
		dir := t.TempDir()
		source := filepath.Join(dir, "kernel.c")
		if err := os.WriteFile(source, []byte(kernel.source), 0o600); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, "kernel.o")
		if msg, err := exec.Command("clang-14", "-g", "-target", "bpfel", "-c", source, "-o", out).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s; this test needs clang-14", err, msg)
		}
		types, err := btf.LoadSpec(out)
		if err != nil {
			t.Fatal(err)
		}
		gone := map[string]bool{}
		for name, p := range s.Programs {
			var relos []*btf.CORERelocation
			var asked []asm.Instruction
			for i := range p.Instructions {
				if r := btf.CORERelocationMetadata(&p.Instructions[i]); r != nil {
					relos, asked = append(relos, r), append(asked, p.Instructions[i])
				}
			}
			fixups, err := btf.CORERelocate(relos, []*btf.Spec{types}, binary.LittleEndian, func(btf.Type) (btf.TypeID, error) { return 0, nil })
			if err != nil {
				t.Fatalf("%s: program %s: %v", version, name, err)
			}
			for i, r := range relos {
				ins := asked[i]
				if err := fixups[i].Apply(&ins); err != nil {
					t.Fatalf("%s: program %s: %s: %v", version, name, r, err)
				}
				if ins.Constant == btf.COREBadRelocationSentinel {
					gone[fieldOf(r)] = true
				}
			}
		}
		var got []string
		for name := range gone {
			got = append(got, name)
		}
		slices.Sort(got)
		slices.Sort(kernel.gone)
		if !slices.Equal(got, kernel.gone) {
			t.Errorf("Linux %s: the programs do not find %v, want %v", version, got, kernel.gone)
		}
	}
}

var place = regexp.MustCompile(`Struct:"(\w+)"(\[[0-9:]+\])`)

func fieldOf(r *btf.CORERelocation) string {
	m := place.FindStringSubmatch(r.String())
	if m == nil {
		return r.String()
	}
	return m[1] + m[2]
}
