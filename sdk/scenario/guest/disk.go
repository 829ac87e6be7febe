package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// makeDisk writes an ext4 filesystem straight onto the disk, with the boot loader in its first sector.
func makeDisk(ctx context.Context, image, root, work string, spec Spec) (err error) {
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(spec.DiskBytes), f.Close()); err != nil {
		return err
	}
	// The boot loader reads neither 64-bit block numbers nor checksummed metadata. Inode tables are written now, because the
	// kernel's background initialisation would write for minutes after the first mount. Inodes and journal do not grow
	// with the disk, so that guests of all sizes hold the same.
	if _, err := run(ctx, "", "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-L", "lifeboat-guest", "-N", "8192", "-J", "size=8",
		"-O", "^64bit,^metadata_csum,^orphan_file", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", root, image); err != nil {
		// e2fsprogs before 1.47 does not know orphan_file and needs no switching off.
		if _, err2 := run(ctx, "", "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-L", "lifeboat-guest", "-N", "8192", "-J", "size=8",
			"-O", "^64bit,^metadata_csum", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", root, image); err2 != nil {
			return errors.Join(err, err2)
		}
	}
	mnt := filepath.Join(work, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return err
	}
	if _, err := run(ctx, "", "mount", "-o", "loop", image, mnt); err != nil {
		return err
	}
	_, err = run(ctx, "", "extlinux", "--install", filepath.Join(mnt, "boot"))
	// An unmount must happen whatever became of ctx.
	_, umount := run(context.WithoutCancel(ctx), "", "umount", mnt)
	return errors.Join(err, umount)
}

// OpenRecords copies the record file out of a disk image that no running machine writes to. The image itself is not
// touched: the filesystem's journal is replayed in a sparse copy, as a boot would, and the copy is then checked with
// fsck. The caller verifies the bytes with package record.
func OpenRecords(ctx context.Context, image string) (data []byte, err error) {
	work, err := os.MkdirTemp("", "lifeboat-records-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	copied := filepath.Join(work, "disk")
	if _, err := run(ctx, "", "cp", "--sparse=always", image, copied); err != nil {
		return nil, err
	}
	if err := Check(ctx, copied, true); err != nil {
		return nil, err
	}
	out := filepath.Join(work, "records")
	if _, err := run(ctx, "", "debugfs", "-R", "dump "+Records+" "+strconv.Quote(out), copied); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

// Check runs fsck over the filesystem of a disk image and returns an error unless it is clean. With replay the journal is
// replayed first, which writes to the image; without it, an image that needs a replay is not clean.
func Check(ctx context.Context, image string, replay bool) error {
	if replay {
		// Exit code 1 means that something was corrected, which is what a replay is.
		if _, err := run(ctx, "", "e2fsck", "-E", "journal_only", "-p", image); err != nil && !exitedWith(err, 1) {
			return err
		}
	}
	_, err := run(ctx, "", "e2fsck", "-f", "-n", image)
	return err
}
