package ship

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lifeboat-dr/lifeboat/agent/source"
)

// memoBytes is what writing the memo makes dirty: the file, its inode, its directory.
const memoBytes = 3 * 4096

// own returns what was made dirty on the protected disks by shipping what changed, since it was called last; it must be shipped
// like anything else. In each pass that is at most a page of known sums and one of their checksums, 8 KiB, for each MiB of the
// disk that changed, and in each epoch some KiB beside. Nothing when the state directory lies on no filesystem of those disks.
func (s *session) own() int64 {
	n := int64(memoBytes)
	for _, d := range s.disks {
		n += d.sums.Dirtied()
	}
	if !onAny(s.p.cfg.StateDir, s.filesystems()) {
		return 0
	}
	return n
}

func onAny(dir string, fs []source.Filesystem) bool {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return false
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	return slices.ContainsFunc(fs, func(f source.Filesystem) bool {
		var at unix.Stat_t // btrfs has numbers that mountinfo does not tell
		return f.Device == dev || unix.Stat(f.Path, &at) == nil && at.Dev == st.Dev
	})
}
