package control

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// VCenterInput is the body of a vCenter PUT or PATCH. A PATCH leaves what is empty as it is.
type VCenterInput struct {
	FriendlyName, Address, Port, ProcessServer, RunAsAccount string
}

// VCenterView is a vCenter server and what is wrong with it.
type VCenterView struct {
	VCenter dr.VCenter
	Errors  []dr.HealthError
}

const defaultVCenterPort = 443

func vcenterTarget(ref Ref) target {
	return target{kind: "Server", name: ref.Name, path: ref.fabricPath() + "/replicationvCenters/" + ref.Name, id: dr.NamedGUID("vcenter", ref.fabricChildKey())}
}

// fabricChildKey is the key of what lies directly below a fabric.
func (r Ref) fabricChildKey() string { return fold(r.Vault, r.Fabric, r.Name) }

// PutVCenter adds a server or replaces its settings.
func (s *Service) PutVCenter(ctx context.Context, ref Ref, in VCenterInput) (string, error) {
	if err := checkName("vCenter server", ref.Name); err != nil {
		return "", err
	}
	return s.atOnce(ctx, ref.Vault, job.PlanAddVCenter, vcenterTarget(ref), func(tx store.Tx, now time.Time) error {
		f, err := load[dr.Fabric](tx, KindFabric, fold(ref.Vault, ref.Fabric))
		if err != nil {
			return err
		}
		if !f.Kind.HasVCenters() {
			return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("fabric %s is a %s fabric, which has no vCenter servers", f.Name, f.Kind),
				PossibleCauses: "the path names another fabric than was meant", RecommendedAction: "add the server to a fabric of kind VMware, VMwareV2 or InMageRcm"}
		}
		v, ok, err := find[dr.VCenter](tx, KindVCenter, ref.fabricChildKey())
		if err != nil {
			return err
		}
		if !ok {
			v = dr.VCenter{Meta: dr.Meta{Name: ref.Name}, ID: newID(), Vault: ref.Vault, Fabric: f.Name}
		}
		v.FriendlyName, v.Address, v.Port, v.ProcessServer, v.RunAsAccount = ref.Name, "", defaultVCenterPort, in.ProcessServer, ""
		return saveVCenter(tx, &v, in, now)
	})
}

// PatchVCenter changes a server's settings.
func (s *Service) PatchVCenter(ctx context.Context, ref Ref, in VCenterInput) (string, error) {
	return s.atOnce(ctx, ref.Vault, job.PlanUpdateVCenter, vcenterTarget(ref), func(tx store.Tx, now time.Time) error {
		v, err := load[dr.VCenter](tx, KindVCenter, ref.fabricChildKey())
		if err != nil {
			return err
		}
		return saveVCenter(tx, &v, in, now)
	})
}

func saveVCenter(tx store.Tx, v *dr.VCenter, in VCenterInput, now time.Time) error {
	v.FriendlyName, v.Address = or(in.FriendlyName, v.FriendlyName), or(strings.TrimSpace(in.Address), v.Address)
	v.ProcessServer, v.RunAsAccount = or(in.ProcessServer, v.ProcessServer), or(in.RunAsAccount, v.RunAsAccount)
	if in.Port != "" {
		n, err := strconv.ParseUint(in.Port, 10, 16)
		if err != nil || n == 0 {
			return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("port %q is not a TCP port", in.Port), PossibleCauses: "it is not a number from 1 to 65535", RecommendedAction: "send a port such as 443"}
		}
		v.Port = int(n)
	}
	if !isHost(v.Address) {
		return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("ipAddress %q is neither an address nor a host name", v.Address), PossibleCauses: "it is empty, or holds a scheme, a port or a path",
			RecommendedAction: "send the server's host name or IP address alone"}
	}
	if v.RunAsAccount == "" {
		return &dr.Error{Code: dr.CodeInvalid, Message: "runAsAccountId is missing", PossibleCauses: "the request names no account", RecommendedAction: "send the name of an account that the site's replicator knows"}
	}
	if err := knownReplicator(tx, v); err != nil {
		return err
	}
	others, err := all[dr.VCenter](tx, KindVCenter, v.Vault+"/")
	if err != nil {
		return err
	}
	for _, o := range others {
		if o.ID != v.ID && strings.EqualFold(o.Address, v.Address) && o.Port == v.Port {
			return &dr.Error{Code: dr.CodeConflict, Message: fmt.Sprintf("%s port %d is vCenter server %s of fabric %s already", v.Address, v.Port, o.Name, o.Fabric),
				PossibleCauses: "a server belongs to one fabric of a vault, once", RecommendedAction: "use that resource, or remove it first"}
		}
	}
	return save(tx, KindVCenter, fold(v.Vault, v.Fabric, v.Name), v, now)
}

// knownReplicator refuses a process server that has never enrolled. It may be named by id, by host name, or by a path that ends
// in either.
func knownReplicator(tx store.Tx, v *dr.VCenter) error {
	if v.ProcessServer == "" {
		return nil
	}
	reps, err := LoadReplicators(tx)
	if err != nil {
		return err
	}
	name := lastSegment(v.ProcessServer)
	for _, r := range reps {
		if strings.EqualFold(r.ID, name) || strings.EqualFold(r.Hostname, name) {
			return nil
		}
	}
	return &dr.Error{Code: dr.CodeInvalid, Message: fmt.Sprintf("processServerId %q names no replicator", v.ProcessServer), PossibleCauses: "it has not enrolled, or the name is misspelled",
		RecommendedAction: "use an id from processServers of the fabric, or leave the field out"}
}

// isHost tells whether text is an IP address or a host name, and nothing more.
func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	if text == "" || len(text) > 253 {
		return false
	}
	for _, label := range strings.Split(strings.TrimSuffix(text, "."), ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") || strings.ContainsFunc(label, notInLabel) {
			return false
		}
	}
	return true
}

func notInLabel(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// VCenter returns one server.
func (s *Service) VCenter(ctx context.Context, ref Ref) (v VCenterView, err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		c, err := load[dr.VCenter](tx, KindVCenter, ref.fabricChildKey())
		v = VCenterView{VCenter: c, Errors: c.Health(s.now())}
		return err
	})
	return v, err
}

// VCenters lists the servers of a fabric, or of the vault when ref.Fabric is empty.
func (s *Service) VCenters(ctx context.Context, ref Ref, p Paging) (out Page[VCenterView], err error) {
	err = s.store.View(ctx, func(tx store.Tx) error {
		if err := requireFabric(tx, ref); err != nil {
			return err
		}
		out, err = mapped(tx, KindVCenter, under(ref.Vault, ref.Fabric), p, func(c dr.VCenter) (VCenterView, error) {
			return VCenterView{VCenter: c, Errors: c.Health(s.now())}, nil
		})
		return err
	})
	return out, err
}

// RemoveVCenter forgets a server. It returns no job when there is none.
func (s *Service) RemoveVCenter(ctx context.Context, ref Ref) (string, error) {
	t := vcenterTarget(ref)
	t.removed = true
	return s.removeOne(ctx, ref.Vault, job.PlanDeleteVCenter, t, KindVCenter, ref.fabricChildKey())
}

// accountsOf are the accounts that the vCenter servers of a fabric name, sorted, each once.
func accountsOf(tx store.Tx, f dr.Fabric) ([]string, error) {
	if !f.Kind.HasVCenters() {
		return nil, nil
	}
	servers, err := all[dr.VCenter](tx, KindVCenter, under(f.Vault, f.Name))
	var out []string
	for _, v := range servers {
		if v.RunAsAccount != "" {
			out = append(out, v.RunAsAccount)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), err
}
