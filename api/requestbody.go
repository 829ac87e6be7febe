package api

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// readAll reads a body of at most limit bytes, also when it comes compressed: then limit holds for what is in it.
func readAll(r *http.Request, limit int64) ([]byte, *refusal) {
	body := http.MaxBytesReader(nil, r.Body, limit)
	switch encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(body)
		if errors.Is(err, io.EOF) {
			return nil, nil // an empty body is none, however it is encoded
		}
		if err != nil {
			return nil, unreadable(err, limit)
		}
		body = http.MaxBytesReader(nil, z, limit)
	default:
		return nil, &refusal{Status: http.StatusUnsupportedMediaType, Code: "UnsupportedMediaType", Target: "Content-Encoding", Message: "bodies in the encoding " + printable(encoding) + " are not understood",
			Causes: "the client compresses in a way that this server does not know", Action: "send the body as it is, or with Content-Encoding: gzip"}
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, unreadable(err, limit)
	}
	return raw, nil
}

func unreadable(err error, limit int64) *refusal {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &refusal{Status: http.StatusRequestEntityTooLarge, Code: "RequestEntityTooLarge", Message: fmt.Sprintf("the body is longer than %d bytes", limit),
			Causes: "the request carries what does not belong into it", Action: "send a shorter body"}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &refusal{Status: http.StatusRequestTimeout, Code: "RequestTimeout", Message: "the body did not come in time",
			Causes: "the connection is too slow, or the client waits for something", Action: "send the request again, whole"}
	}
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) {
		return &refusal{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: "the body is not in the encoding that Content-Encoding names",
			Causes: "the body was changed, or was never compressed", Action: "compress the body, or leave the header out"}
	}
	return &refusal{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: "the body cannot be read to its end",
		Causes: "the connection was cut, or the body was", Action: "send the request again"}
}
