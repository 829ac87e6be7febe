package worker

import (
	"slices"
	"testing"

	"github.com/lifeboat-dr/lifeboat/replicator/compute"
	"github.com/lifeboat-dr/lifeboat/replicator/repo"
	"github.com/lifeboat-dr/lifeboat/service/job"
)

func TestAnInstanceHasTheDisksOfItsPoint(t *testing.T) {
	point := []repo.DiskInfo{{ID: "data", Size: 2}, {ID: "os", Size: 1, OS: true}, {ID: "gone", Size: 3}}
	for name, c := range map[string]struct {
		hw   job.Hardware
		want []compute.Disk // nil: refused
	}{
		"as the machine has them":                    {job.Hardware{OSDisk: "os", Disks: []string{"os", "data", "gone"}}, []compute.Disk{{ID: "os", Size: 1}, {ID: "data", Size: 2}, {ID: "gone", Size: 3}}},
		"one that was added later is left out":       {job.Hardware{OSDisk: "os", Disks: []string{"os", "new", "data", "gone"}}, []compute.Disk{{ID: "os", Size: 1}, {ID: "data", Size: 2}, {ID: "gone", Size: 3}}},
		"one that was taken away since is there":     {job.Hardware{OSDisk: "os", Disks: []string{"os", "data"}}, []compute.Disk{{ID: "os", Size: 1}, {ID: "data", Size: 2}, {ID: "gone", Size: 3}}},
		"without its system disk no machine starts":  {job.Hardware{OSDisk: "new", Disks: []string{"new", "data"}}, nil},
		"without a system disk that is named it may": {job.Hardware{}, []compute.Disk{{ID: "data", Size: 2}, {ID: "os", Size: 1}, {ID: "gone", Size: 3}}},
	} {
		got, err := disksOf(point, c.hw)
		if (err == nil) != (c.want != nil) || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, c.want)
		}
	}
	if _, err := disksOf(nil, job.Hardware{}); err == nil {
		t.Error("a machine without disks was not refused")
	}
}
