package sdk

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/lifeboat-dr/lifeboat/sdk/oas"
)

// Points lists the recovery points of a machine, newest first.
func (c *Client) Points(ctx context.Context, i ItemRef) iter.Seq2[Point, error] {
	return pages[Point](ctx, c, func() (*http.Response, error) {
		return c.api.RecoveryPointsListByReplicationProtectedItems(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nil)
	})
}

// Point reads a recovery point.
func (c *Client) Point(ctx context.Context, i ItemRef, name string) (Point, error) {
	return decode[Point](c.api.RecoveryPointsGet(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nameOf(name), nil))
}

// Choices of FindPoint beside a point's name.
const (
	PointLatest              = "latest"
	PointLatestAppConsistent = "latest-app-consistent"
)

// FindPoint resolves a choice of a point: PointLatest, PointLatestAppConsistent, a time in RFC 3339, which takes the newest
// point not after it, or a point's name or id.
func (c *Client) FindPoint(ctx context.Context, i ItemRef, choice string) (Point, error) {
	var fits func(Point) bool
	at, err := time.Parse(time.RFC3339, choice)
	switch {
	case err == nil:
		fits = func(p Point) bool { return !p.Properties.RecoveryPointTime.After(at) }
	case strings.EqualFold(choice, PointLatest):
		fits = func(Point) bool { return true }
	case strings.EqualFold(choice, PointLatestAppConsistent):
		fits = func(p Point) bool { return p.Properties.RecoveryPointType == "ApplicationConsistent" }
	default:
		return c.Point(ctx, i, choice)
	}
	for p, err := range c.Points(ctx, i) {
		if err != nil || fits(p) {
			return p, err
		}
	}
	return Point{}, &Error{Code: CodeNotFound, Message: fmt.Sprintf("%s has no recovery point that is %q", i.Name, choice), PossibleCauses: "none was taken yet, or it was pruned",
		RecommendedAction: "list the machine's recovery points"}
}

// VerifyPoint reads everything that a point consists of and checks it.
func (c *Client) VerifyPoint(ctx context.Context, i ItemRef, name string) (*Operation, error) {
	return c.begin(c.api.RecoveryPointsVerify(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nameOf(name), nil))
}

// ExportPoint writes every disk of a point as an image into a directory at the replicator that does the work. format is raw,
// vhd, qcow2, vhdx or vmdk.
func (c *Client) ExportPoint(ctx context.Context, i ItemRef, name, format, directory string) (*Operation, error) {
	in := oas.ExportRecoveryPointInput{Properties: oas.ExportRecoveryPointInputProperties{Format: oas.ExportRecoveryPointInputPropertiesFormat(format), Directory: directory}}
	return c.begin(c.api.RecoveryPointsExport(ctx, c.subscription, c.group, c.v, i.Fabric, i.Container, i.Name, nameOf(name), nil, in))
}
