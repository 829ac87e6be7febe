package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
)

// skipTokenSum is how many bytes of a hash stand in front of a token's content.
const skipTokenSum = 8

// skipToken tells where the page after this one begins: after a name, not after a number, so that what is made or removed
// between two pages neither hides nor repeats another resource. Any of several servers can read it.
func skipToken(path, after string) string {
	return base64.RawURLEncoding.EncodeToString(append(skipSum(path, after), after...))
}

// openSkipToken returns what skipToken was made of. A token that was changed, or is of another list, is refused.
func openSkipToken(path, token string) (string, error) {
	if token == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) <= skipTokenSum || !bytes.Equal(raw[:skipTokenSum], skipSum(path, string(raw[skipTokenSum:]))) {
		return "", &refusalError{refusal{Status: http.StatusBadRequest, Code: "InvalidParameter", Target: "skipToken", Message: "the skip token is not one of this list",
			Causes: "the token was changed, is of another list, or comes from another server", Action: "follow nextLink as it was received, or list from the start"}}
	}
	return string(raw[skipTokenSum:]), nil
}

func skipSum(path, after string) []byte {
	if plain, err := url.PathUnescape(path); err == nil {
		path = plain // clients escape as they like
	}
	sum := sha256.Sum256([]byte(strings.ToLower(path) + "\x00" + after))
	return sum[:skipTokenSum]
}
