package source

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"regexp"
	"strings"
)

// maxID is the longest id made from what a disk says of itself. A virtual disk's serial number has at most 20 characters, and a
// machine that failed over is told apart by them: the replica's disks carry the ids as serial numbers.
const maxID = 20

var (
	unfit     = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)
	address   = regexp.MustCompile(`/([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])/`)
	scsiPlace = regexp.MustCompile(`/(\d+:\d+:\d+:\d+)/`)
)

// stableID names a disk by what stays over reboots and renaming: its serial number, its world-wide name, its place on the bus, or
// else its name.
func stableID(sys, name string) string {
	for _, f := range []string{"serial", "device/serial", "device/vpd_pg80", "wwid", "device/wwid"} {
		s := readString(sys, f)
		if f == "device/vpd_pg80" && len(s) > 4 {
			s = s[4:]
		}
		if id := fit(s); id != "" {
			return id
		}
	}
	place := ""
	if m := address.FindAllStringSubmatch(sys, -1); m != nil {
		place = "pci-" + m[len(m)-1][1]
	}
	if m := scsiPlace.FindStringSubmatch(sys + "/"); m != nil {
		place += "-" + m[1]
	}
	if id := fit(place); id != "" {
		return id
	}
	if id := fit(filepath.Base(name)); id != "" {
		return id
	}
	return "disk"
}

// fit makes an id of s: as it is if it may be, else cleaned, else its hash.
func fit(s string) string {
	s = strings.Trim(unfit.ReplaceAllString(s, "_"), "_.-")
	if s == "" || strings.Trim(s, "0_.-") == "" {
		return ""
	}
	if len(s) <= maxID {
		return s
	}
	h := sha256.Sum256([]byte(s))
	return "d" + hex.EncodeToString(h[:8])
}
