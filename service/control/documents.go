package control

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/lifeboat-dr/lifeboat/service/dr"
	"github.com/lifeboat-dr/lifeboat/service/job"
	"github.com/lifeboat-dr/lifeboat/service/store"
)

// Kinds of documents. The comment says what their keys are made of; names are folded, v is the vault's ID.
const (
	KindVault           store.Kind = "vault"           // subscription/group/name
	KindVaultName       store.Kind = "vaultName"       // v -> dr.VaultKey
	KindVaultSecrets    store.Kind = "vaultSecrets"    // v, sealed
	KindVaultFile       store.Kind = "vaultFile"       // v, once its recovery key was reissued
	KindVaultSetting    store.Kind = "vaultSetting"    // v/name
	KindFabric          store.Kind = "fabric"          // v/name
	KindProvider        store.Kind = "provider"        // v/fabric/name
	KindContainer       store.Kind = "container"       // v/fabric/name
	KindProtectable     store.Kind = "protectable"     // v/fabric/container/name
	KindPolicy          store.Kind = "policy"          // v/name
	KindRecoveryPlan    store.Kind = "recoveryPlan"    // v/name
	KindMapping         store.Kind = "mapping"         // v/fabric/container/name
	KindItem            store.Kind = "item"            // v/fabric/container/name
	KindItemCount       store.Kind = "itemCount"       // v/fabric/container/part -> number of items
	KindItemKey         store.Kind = "itemKey"         // item ID -> key of the item
	KindAgentItem       store.Kind = "agentItem"       // agent/item ID -> key of the item
	KindGroupItem       store.Kind = "groupItem"       // v/group/item ID -> key of the item, which may be in another group by now
	KindObserved        store.Kind = "observed"        // item ID
	KindPoint           store.Kind = "point"           // item ID/generation/sequence, newest first
	KindPointID         store.Kind = "pointId"         // item ID/point GUID -> ref
	KindJob             store.Kind = "job"             // v/job ID, newest first
	KindJobState        store.Kind = "jobState"        // v/state/job ID, newest first -> job ID
	KindOpenJob         store.Kind = "openJob"         // job ID -> vault ID, while the job has not ended
	KindRequest         store.Kind = "request"         // v/operation/resource/request id -> job ID
	KindArtifact        store.Kind = "artifact"        // job ID/name
	KindEvent           store.Kind = "event"           // v/event ID, newest first
	KindAgent           store.Kind = "agent"           // agent ID
	KindReplicator      store.Kind = "replicator"      // replicator ID
	KindRegistrationKey store.Kind = "registrationKey" // key ID

	KindVCenter               store.Kind = "vcenter"               // v/fabric/name
	KindNetwork               store.Kind = "network"               // v/fabric/name
	KindNetworkMapping        store.Kind = "networkMapping"        // v/fabric/network/name
	KindLogicalNetwork        store.Kind = "logicalNetwork"        // v/fabric/name
	KindStorageClassification store.Kind = "storageClassification" // v/fabric/name
	KindStorageMapping        store.Kind = "storageMapping"        // v/fabric/classification/name
	KindAlertSetting          store.Kind = "alertSetting"          // v/name
	KindAlert                 store.Kind = "alert"                 // event ID, oldest first, while somebody is to be told
	KindIntent                store.Kind = "intent"                // v/name
	KindWaitingIntent         store.Kind = "waitingIntent"         // v/name, while an intent waits for its machine
	KindVaultExtended         store.Kind = "vaultExtendedInfo"     // v/
	KindVaultCredential       store.Kind = "vaultCredential"       // v/name
)

// belowFabric are the kinds that vanish with their fabric, belowVault those that vanish with their vault besides what the vault's
// removal names.
var (
	belowFabric = []store.Kind{KindVCenter, KindNetworkMapping, KindNetwork, KindLogicalNetwork, KindStorageMapping, KindStorageClassification, KindItemCount}
	belowVault  = []store.Kind{KindAlertSetting, KindIntent, KindWaitingIntent, KindVaultExtended, KindVaultCredential, KindJobState, KindItemCount, KindGroupItem}
)

// resource is what embeds dr.Meta.
type resource[T any] interface {
	*T
	Metadata() *dr.Meta
}

// load reads a resource; a missing one is a *dr.Error that names it.
func load[T any, P resource[T]](tx store.Tx, kind store.Kind, key string) (T, error) {
	var v T
	version, err := tx.Get(kind, key, &v)
	if errors.Is(err, store.ErrNotFound) {
		return v, notFound(kind, key)
	}
	if err != nil {
		return v, err
	}
	P(&v).Metadata().Version = version
	return v, nil
}

// find is load with a missing resource told by ok.
func find[T any, P resource[T]](tx store.Tx, kind store.Kind, key string) (v T, ok bool, err error) {
	v, err = load[T, P](tx, kind, key)
	if dr.CodeOf(err) == dr.CodeNotFound {
		return v, false, nil
	}
	return v, err == nil, err
}

// save writes a resource under the version it was loaded with (0: it is new).
func save[T any, P resource[T]](tx store.Tx, kind store.Kind, key string, v *T, now time.Time) error {
	m := P(v).Metadata()
	if m.Created.IsZero() {
		m.Created = now
	}
	m.Updated = now
	version, err := tx.Put(kind, key, m.Version, v)
	if err != nil {
		return conflicted(err)
	}
	m.Version = version
	return nil
}

// list reads the resources under prefix.
func list[T any, P resource[T]](tx store.Tx, kind store.Kind, prefix string, p Paging) (Page[T], error) {
	page := Page[T]{Items: []T{}}
	limit := p.limit()
	last := ""
	err := tx.List(kind, prefix, p.after(prefix), limit+1, func(key string, version int64, decode func(any) error) error {
		if len(page.Items) == limit {
			page.Next = strings.TrimPrefix(last, prefix)
			return nil
		}
		var v T
		if err := decode(&v); err != nil {
			return err
		}
		P(&v).Metadata().Version = version
		page.Items = append(page.Items, v)
		last = key
		return nil
	})
	return page, err
}

// all reads every resource under prefix.
func all[T any, P resource[T]](tx store.Tx, kind store.Kind, prefix string) ([]T, error) {
	var out []T
	err := tx.List(kind, prefix, "", 0, func(_ string, version int64, decode func(any) error) error {
		var v T
		if err := decode(&v); err != nil {
			return err
		}
		P(&v).Metadata().Version = version
		out = append(out, v)
		return nil
	})
	return out, err
}

type visitor func(key string, version int64, decode func(any) error) error

// inSteps lists like store.Tx without a limit, for a fn that may have enough soon: it reads ahead so many documents at first, and
// more the longer it goes on.
func inSteps(tx store.Tx, kind store.Kind, prefix, after string, ahead int, fn visitor) error {
	for ; ; ahead = min(2*ahead, scanned) {
		n := 0
		if err := tx.List(kind, prefix, after, ahead, func(key string, version int64, decode func(any) error) error {
			n, after = n+1, key
			return fn(key, version, decode)
		}); err != nil || n < ahead {
			return err
		}
	}
}

// some tells whether anything is under prefix.
func some(tx store.Tx, kind store.Kind, prefix string) (bool, error) {
	n, err := count(tx, kind, prefix, 1)
	return n > 0, err
}

func count(tx store.Tx, kind store.Kind, prefix string, limit int) (n int, err error) {
	return tx.Count(kind, prefix, limit)
}

func (p Paging) limit() int {
	if p.Limit <= 0 || p.Limit > MaxPage {
		return MaxPage
	}
	return p.Limit
}

func (p Paging) after(prefix string) string {
	if p.After == "" {
		return ""
	}
	return prefix + p.After
}

// fold makes a key of names, which compare without case.
func fold(parts ...string) string { return strings.ToLower(strings.Join(parts, "/")) }

// under is fold as a prefix. Empty parts end it, so that a Ref without a container lists the fabric.
func under(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		if p == "" {
			break
		}
		b.WriteString(strings.ToLower(p) + "/")
	}
	return b.String()
}

func (r Ref) itemKey() string { return fold(r.Vault, r.Fabric, r.Container, r.Name) }

// newestFirst turns a UUIDv7 into a key that sorts the other way round.
func newestFirst(id string) string {
	b := []byte(strings.ToLower(id))
	for i, c := range b {
		if v := strings.IndexByte("0123456789abcdef", c); v >= 0 {
			b[i] = "fedcba9876543210"[v]
		}
	}
	return string(b)
}

// newID makes an id that sorts by creation.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

func conflicted(err error) error {
	if errors.Is(err, store.ErrConflict) {
		return &dr.Error{Code: dr.CodePreconditionFailed, Message: "the resource was changed by another request", PossibleCauses: "two requests at the same time",
			RecommendedAction: "read it again and repeat the request", Err: err}
	}
	return err
}

var kindWords = map[store.Kind]string{
	KindVault: "vault", KindVaultName: "vault", KindVaultSecrets: "vault", KindFabric: "fabric", KindProvider: "recovery services provider", KindContainer: "protection container",
	KindProtectable: "protectable item", KindPolicy: "replication policy", KindRecoveryPlan: "recovery plan", KindMapping: "protection container mapping", KindItem: "protected item",
	KindItemKey: "protected item", KindPoint: "recovery point", KindPointID: "recovery point", KindJob: "job", KindEvent: "event", KindArtifact: "artifact",
	KindAgent: "agent", KindReplicator: "replicator", KindRegistrationKey: "registration key", KindVaultSetting: "vault setting",
	KindVCenter: "vCenter server", KindNetwork: "network", KindNetworkMapping: "network mapping", KindLogicalNetwork: "logical network", KindStorageClassification: "storage classification",
	KindStorageMapping: "storage classification mapping", KindAlertSetting: "alert setting", KindIntent: "protection intent", KindVaultExtended: "vault extended information", KindVaultCredential: "vault credential",
}

func notFound(kind store.Kind, key string) error {
	name := key[strings.LastIndexByte(key, '/')+1:]
	word := kindWords[kind]
	if word == "" {
		word = string(kind)
	}
	return &dr.Error{Code: dr.CodeNotFound, Message: fmt.Sprintf("%s %q does not exist", word, name), PossibleCauses: "the name is misspelled, or it was removed",
		RecommendedAction: "list the resources of its parent to see what there is"}
}

// Items.

// LoadItem reads an item by its ID.
func LoadItem(tx store.Tx, id dr.ItemID) (dr.Item, error) {
	var key string
	if _, err := tx.Get(KindItemKey, string(id), &key); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return dr.Item{}, notFound(KindItem, string(id))
		}
		return dr.Item{}, err
	}
	return load[dr.Item](tx, KindItem, key)
}

// SaveItem writes an item and its indexes.
func SaveItem(tx store.Tx, it *dr.Item, now time.Time) error {
	key := itemRef(it).itemKey()
	isNew := it.Version == 0
	if err := save(tx, KindItem, key, it, now); err != nil {
		return err
	}
	if it.MultiVMGroup != "" {
		if _, err := tx.Put(KindGroupItem, groupKey(it), -1, key); err != nil {
			return err
		}
	}
	if !isNew {
		return nil
	}
	if err := countItem(tx, it, 1); err != nil {
		return err
	}
	if _, err := tx.Put(KindItemKey, string(it.ID), -1, key); err != nil {
		return err
	}
	_, err := tx.Put(KindAgentItem, it.AgentID+"/"+string(it.ID), -1, key)
	return err
}

// DeleteItem removes an item, its indexes and its points from the store and frees its protectable item.
func DeleteItem(tx store.Tx, it *dr.Item, now time.Time) error {
	pKey := fold(it.Vault, it.Fabric, it.Container, it.ProtectableItem)
	if p, ok, err := find[dr.ProtectableItem](tx, KindProtectable, pKey); err != nil {
		return err
	} else if ok && p.ProtectedAs == it.ID {
		p.ProtectedAs = ""
		if err := save(tx, KindProtectable, pKey, &p, now); err != nil {
			return err
		}
	}
	switch err := tx.Delete(KindItem, itemRef(it).itemKey(), -1); {
	case err == nil:
		if err := countItem(tx, it, -1); err != nil {
			return err
		}
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	for _, d := range []struct {
		kind store.Kind
		key  string
	}{{KindItemKey, string(it.ID)}, {KindAgentItem, it.AgentID + "/" + string(it.ID)}, {KindGroupItem, groupKey(it)}, {KindObserved, string(it.ID)}} {
		if err := tx.Delete(d.kind, d.key, -1); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	for _, kind := range []store.Kind{KindPoint, KindPointID} {
		if err := deleteUnder(tx, kind, string(it.ID)+"/"); err != nil {
			return err
		}
	}
	return nil
}

func deleteUnder(tx store.Tx, kind store.Kind, prefix string) error {
	return tx.List(kind, prefix, "", 0, func(key string, _ int64, _ func(any) error) error { return tx.Delete(kind, key, -1) })
}

func itemRef(it *dr.Item) Ref { return Ref{it.Vault, it.Fabric, it.Container, it.Name} }

// LoadObserved reads what was last observed of an item; the zero value when nothing was.
func LoadObserved(tx store.Tx, id dr.ItemID) (dr.Observed, error) {
	var o dr.Observed
	if _, err := tx.Get(KindObserved, string(id), &o); err != nil && !errors.Is(err, store.ErrNotFound) {
		return o, err
	}
	return o, nil
}

// LoadPolicy reads a policy by name; the zero value when it is gone.
func LoadPolicy(tx store.Tx, vault, name string) (dr.Policy, error) {
	p, _, err := find[dr.Policy](tx, KindPolicy, fold(vault, name))
	return p, err
}

// LoadAgent reads an agent.
func LoadAgent(tx store.Tx, id string) (dr.Agent, error) { return load[dr.Agent](tx, KindAgent, id) }

// LoadReplicators reads all replicators.
func LoadReplicators(tx store.Tx) ([]dr.Replicator, error) {
	return all[dr.Replicator](tx, KindReplicator, "")
}

// SomeItems reads at most limit items of all vaults, from the one behind after on ("" for the first). last is where the next ones
// begin, empty at the end.
func SomeItems(tx store.Tx, after string, limit int) (items []dr.Item, last string, err error) {
	page, err := list[dr.Item](tx, KindItem, "", Paging{After: after, Limit: limit})
	return page.Items, page.Next, err
}

// Points. Keys sort newest first.

func pointKey(id dr.ItemID, r dr.PointRef) string {
	const top = int64(1)<<62 - 1
	return fmt.Sprintf("%s/%016x/%016x", id, top-r.Generation, top-r.Sequence)
}

// LoadPoint reads a point of the index.
func LoadPoint(tx store.Tx, id dr.ItemID, r dr.PointRef) (dr.Point, bool, error) {
	var p dr.Point
	_, err := tx.Get(KindPoint, pointKey(id, r), &p)
	if errors.Is(err, store.ErrNotFound) {
		return p, false, nil
	}
	return p, err == nil, err
}

// LoadPointByID reads a point by its GUID.
func LoadPointByID(tx store.Tx, id dr.ItemID, guid string) (dr.Point, error) {
	var r dr.PointRef
	if _, err := tx.Get(KindPointID, string(id)+"/"+strings.ToLower(guid), &r); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return dr.Point{}, notFound(KindPoint, guid)
		}
		return dr.Point{}, err
	}
	p, ok, err := LoadPoint(tx, id, r)
	if err == nil && !ok {
		err = notFound(KindPoint, guid)
	}
	return p, err
}

// NewestPoint returns the newest point of an item that accept takes (nil: any).
func NewestPoint(tx store.Tx, id dr.ItemID, accept func(dr.Point) bool) (*dr.Point, error) {
	var found *dr.Point
	stop, ahead := errors.New("found"), 16
	if accept == nil {
		ahead = 1
	}
	err := inSteps(tx, KindPoint, string(id)+"/", "", ahead, func(_ string, _ int64, decode func(any) error) error {
		var p dr.Point
		if err := decode(&p); err != nil {
			return err
		}
		if accept == nil || accept(p) {
			found = &p
			return stop
		}
		return nil
	})
	if errors.Is(err, stop) {
		err = nil
	}
	return found, err
}

// Jobs.

func jobKey(vault, id string) string { return vault + "/" + newestFirst(id) }

// LoadJob reads a job.
func LoadJob(tx store.Tx, vault, id string) (job.Job, error) {
	var j job.Job
	version, err := tx.Get(KindJob, jobKey(vault, id), &j)
	if errors.Is(err, store.ErrNotFound) {
		return j, notFound(KindJob, id)
	}
	j.Version = version
	return j, err
}

// LoadOpenJob reads a job that has not ended by its ID; ok is false when there is none.
func LoadOpenJob(tx store.Tx, id string) (j job.Job, ok bool, err error) {
	var vault string
	if _, err := tx.Get(KindOpenJob, id, &vault); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return j, false, nil
		}
		return j, false, err
	}
	j, err = LoadJob(tx, vault, id)
	return j, err == nil, err
}

// OpenJobs lists the ids of the jobs that have not ended, oldest first.
func OpenJobs(tx store.Tx) (ids []string, err error) {
	err = tx.List(KindOpenJob, "", "", 0, func(key string, _ int64, _ func(any) error) error { ids = append(ids, key); return nil })
	return ids, err
}

// SaveJob writes a job and keeps the index of those that have not ended. A silent one vanishes.
func SaveJob(tx store.Tx, j *job.Job) error {
	if j.State.Ended() {
		if err := tx.Delete(KindOpenJob, j.ID, -1); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if j.Silent() {
			if err := tx.Delete(KindJob, jobKey(j.Vault, j.ID), -1); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			return nil
		}
	} else if _, err := tx.Put(KindOpenJob, j.ID, -1, j.Vault); err != nil {
		return err
	}
	if err := indexJob(tx, j); err != nil {
		return err
	}
	version, err := tx.Put(KindJob, jobKey(j.Vault, j.ID), j.Version, j)
	if err != nil {
		return conflicted(err)
	}
	j.Version = version
	return nil
}

// SaveEvent writes an event.
func SaveEvent(tx store.Tx, e *dr.Event, now time.Time) error {
	if e.ID == "" {
		e.ID = newID()
	}
	if e.Time.IsZero() {
		e.Time = now
	}
	if e.Name == "" {
		kind := "VmMonitoringEvent"
		if e.Type == "JobStatus" {
			kind = "JobStatusMonitoringEvent"
		}
		e.Name = fmt.Sprintf("%s;%d_%s", kind, e.Time.UnixNano(), e.ID)
	}
	if err := save(tx, KindEvent, e.Vault+"/"+newestFirst(e.ID), e, now); err != nil {
		return err
	}
	return queueAlert(tx, e, now)
}
