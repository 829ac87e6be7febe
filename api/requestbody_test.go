package api

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"
)

func zipped(t *testing.T, body string) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestBodiesMayComeCompressed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bomb := zipped(t, strings.Repeat(" ", 64<<20))
	for _, test := range []struct {
		name, encoding, body string
		status               int
		code                 string
	}{
		{"as it is", "identity", vaultIn, 201, ""},
		{"compressed", "GZIP", zipped(t, vaultIn), 200, ""},
		{"an empty body is none", "gzip", "", 400, "InvalidRequestContent"},
		{"a small body that becomes a large one", "gzip", bomb, 413, "RequestEntityTooLarge"},
		{"said to be compressed and is not", "gzip", vaultIn, 400, "InvalidRequestContent"},
		{"cut short", "gzip", zipped(t, vaultIn)[:30], 400, "InvalidRequestContent"},
		{"an encoding nobody knows", "br", vaultIn, 415, "UnsupportedMediaType"},
		{"compressed twice", "gzip, gzip", zipped(t, zipped(t, vaultIn)), 415, "UnsupportedMediaType"},
	} {
		a := s.send(RoleContributor, "PUT", vaultURL, test.body, "Content-Encoding", test.encoding)
		if code, _ := a.at("error.code").(string); a.status != test.status || code != test.code {
			t.Errorf("%s: got %s, want %d %s", test.name, a, test.status, test.code)
		}
	}
}
