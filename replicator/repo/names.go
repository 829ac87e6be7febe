package repo

import (
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/lifeboat-dr/lifeboat/replicator/manifest"
)

// Object names below the vault's prefix, as in docs/formats.md.
const (
	vaultName  = "vault.json"
	pointsRoot = "points/"
)

func packName(machine string, id manifest.ID) string { return "packs/" + machine + "/" + id.String() }

func packsOf(machine string) string { return "packs/" + machine + "/" }

func mapName(machine string, gen int64, id manifest.ID) string {
	return fmt.Sprintf("maps/%s/%08d/%s", machine, gen, id)
}

func mapsOf(machine string) string { return "maps/" + machine + "/" }

func entryName(machine string, gen, seq int64) string {
	return fmt.Sprintf("points/%s/%08d/%012d", machine, gen, seq)
}

func entriesOf(machine string, gen int64) string { return fmt.Sprintf("points/%s/%08d/", machine, gen) }

func pointsOf(machine string) string { return pointsRoot + machine + "/" }

func floorName(machine string, gen int64) string { return fmt.Sprintf("floors/%s/%08d", machine, gen) }

func floorsOf(machine string) string { return "floors/" + machine + "/" }

func sessionName(machine string, gen int64) string {
	return fmt.Sprintf("sessions/%s/%08d", machine, gen)
}

func sessionsOf(machine string) string { return "sessions/" + machine + "/" }

func pinName(machine string, ref PointRef, owner string) string {
	return fmt.Sprintf("pins/%s/%08d-%012d/%s", machine, ref.Generation, ref.Sequence, url.PathEscape(owner))
}

func pinsOf(machine string) string { return "pins/" + machine + "/" }

// pinnedRef reads the point out of a pin's name.
func pinnedRef(name string) (PointRef, bool) {
	gen, seq, ok := strings.Cut(path.Base(path.Dir(name)), "-")
	g, err1 := strconv.ParseInt(gen, 10, 64)
	s, err2 := strconv.ParseInt(seq, 10, 64)
	return PointRef{Generation: g, Sequence: s}, ok && err1 == nil && err2 == nil
}

// number reads the last element of a name, which may end in a slash.
func number(name string) (int64, bool) {
	n, err := strconv.ParseInt(path.Base(name), 10, 64)
	return n, err == nil && n >= 0
}
