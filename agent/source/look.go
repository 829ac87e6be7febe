package source

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/replicator/block"
)

// Look is what can be seen of a disk that tells, at a later look, whether it was written in between.
type Look struct {
	Boot     string `json:"boot"`     // the kernel's id of this boot
	Number   string `json:"number"`   // the kernel's number of the disk, in a boot never given to another one; empty before Linux 5.15
	Hardware string `json:"hardware"` // what the disk says of itself; empty when nothing
	Size     int64  `json:"size"`     // bytes
	Sectors  int64  `json:"sectors"`  // written and discarded since the kernel knows the disk
	Stamps   string `json:"stamps"`   // hash of the superblocks on it; empty when something on it has none that is known
}

// Look looks at a block device. It reads a few KiB of it.
func (c Config) Look(d Disk) (Look, error) {
	l := Look{
		Boot: readString(c.path("/proc/sys/kernel/random"), "boot_id"), Number: readString(d.sys, "diskseq"), Size: d.SizeBytes,
		Hardware: hardware(d.sys),
	}
	if d.File {
		return l, nil
	}
	var err error
	if l.Stamps, err = stamps(d); err != nil {
		return Look{}, fmt.Errorf("look at disk %s: %w", d.Id, err)
	}
	w, err := readStat(d.sys)
	if err != nil {
		return Look{}, fmt.Errorf("look at disk %s: %w", d.Id, err)
	}
	l.Sectors = w.Sectors
	return l, nil
}

func hardware(sys string) string {
	var out []string
	for _, f := range []string{"wwid", "device/wwid", "serial", "device/serial", "loop/backing_file"} {
		if s := readString(sys, f); s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

const stampArea = 64<<10 + block.Size // what is read at the start of a disk or partition

// stamps hashes what filesystems keep at the start of the disk or of its partitions, and write whenever they are mounted, written out
// or unmounted.
func stamps(d Disk) (string, error) {
	r, err := Open(d)
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }()
	starts := partitions(d.sys)
	h := sha256.New()
	buf := r.Buffer(stampArea)
	for _, at := range append([]int64{0}, starts...) {
		b := buf[:min(stampArea, max(0, d.SizeBytes-at))/block.Sector*block.Sector]
		if n, err := r.ReadAt(b, at); n < len(b) {
			return "", fmt.Errorf("read at %d: %w", at, err)
		}
		stamp := superblock(b)
		if at == 0 && len(starts) > 0 { // the partition table, and who starts from it
			stamp = b[:min(34*block.Sector, len(b))]
		}
		if stamp == nil {
			return "", nil
		}
		_ = binary.Write(h, binary.BigEndian, at)
		h.Write(stamp)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// partitions returns where the partitions begin, ascending.
func partitions(sys string) (out []int64) {
	entries, _ := os.ReadDir(sys)
	for _, e := range entries {
		if readString(filepath.Join(sys, e.Name()), "partition") == "" {
			continue
		}
		if n, err := strconv.ParseInt(readString(filepath.Join(sys, e.Name()), "start"), 10, 64); err == nil {
			out = append(out, n*512)
		}
	}
	slices.Sort(out)
	return out
}

// superblock returns the part of the first bytes of a filesystem that changes when it is written; nil when it is not known.
func superblock(b []byte) []byte {
	at := func(off int, magic string) bool {
		return len(b) >= off+len(magic) && string(b[off:off+len(magic)]) == magic
	}
	switch {
	case at(1024+0x38, "\x53\xef"): // ext2 to ext4
		return b[1024:2048]
	case at(0, "XFSB"):
		return b[:512]
	case at(64<<10+0x40, "_BHRfS_M"): // btrfs
		return b[64<<10:]
	case at(4086, "SWAPSPACE2"):
		return b[:4096]
	case len(bytes.Trim(b, "\x00")) == 0: // nothing yet
		return b
	}
	return nil
}

// ErrNoLook is that nobody looked at the disks before they were mounted.
var ErrNoLook = errors.New("source: there was no look at the disks at boot")

// SaveLooks writes a look at each disk to a file, for the agent that is started later in the same boot. It is meant for an initramfs.
func SaveLooks(c Config, path string) error {
	disks, err := Disks(c)
	if err != nil {
		return err
	}
	looks := []Look{}
	for _, d := range disks {
		l, err := c.Look(d)
		if err != nil {
			return err
		}
		looks = append(looks, l)
	}
	b, err := json.Marshal(looks)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// EarlyLook returns the look at a disk in such a file: the one with the same number and hardware. ErrNoLook when there is none.
func EarlyLook(path string, now Look) (Look, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Look{}, ErrNoLook
	}
	var looks []Look
	if err == nil {
		err = json.Unmarshal(b, &looks)
	}
	if err != nil {
		return Look{}, fmt.Errorf("read the looks at boot: %w", err)
	}
	for _, l := range looks {
		if l.Hardware == now.Hardware && l.Number == now.Number {
			return l, nil
		}
	}
	return Look{}, ErrNoLook
}
