package api

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// origin is scheme, host and prefix of the absolute URLs in an answer: the ones that the caller used, also behind proxies.
func (s *server) origin(r *http.Request) string {
	scheme, host, prefix := "https", r.Host, ""
	if r.TLS == nil {
		scheme = "http"
	}
	if s.trusted(r.RemoteAddr) {
		f := forwardedOf(r.Header)
		if f.scheme != "" {
			scheme = f.scheme
		}
		if f.host != "" {
			host = f.host
		}
		if f.port != "" {
			host = withPort(host, f.port, scheme)
		}
		prefix = f.prefix
	}
	return scheme + "://" + host + prefix
}

// remote is the address of the caller: the last one that a trusted proxy vouches for.
func (s *server) remote(r *http.Request) string {
	at := r.RemoteAddr
	if !s.trusted(at) {
		return at
	}
	hops := forwardedOf(r.Header).callers
	for i := len(hops) - 1; i >= 0; i-- {
		a, ok := address(hops[i])
		if !ok {
			break
		}
		at = a.String()
		if !s.trusted(at) {
			break
		}
	}
	return at
}

// trusted tells whether the peer is one of the configured proxies.
func (s *server) trusted(peer string) bool {
	if len(s.cfg.TrustedProxies) == 0 {
		return false
	}
	a, ok := address(peer)
	if !ok {
		return false
	}
	for _, p := range s.cfg.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// address reads an IP address with or without a port and brackets.
func address(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return a.Unmap().WithZone(""), err == nil
}

// forwarded is what proxies say about the request that reached the first of them. What cannot be part of a URL is left out.
type forwarded struct {
	scheme, host, port, prefix string
	callers                    []string // addresses, the farthest first
}

// forwardedOf reads the header Forwarded (RFC 7239) or, where it is absent, those that came before it. In a list of several
// proxies the first entry is the one that met the caller.
func forwardedOf(h http.Header) (f forwarded) {
	if elements := split(h.Values("Forwarded"), ','); len(elements) > 0 {
		for i, element := range elements {
			for _, pair := range split([]string{element}, ';') {
				name, value, _ := strings.Cut(pair, "=")
				value = unquote(strings.TrimSpace(value))
				switch strings.ToLower(strings.TrimSpace(name)) {
				case "for":
					f.callers = append(f.callers, value)
				case "proto":
					if i == 0 {
						f.scheme = urlScheme(value)
					}
				case "host":
					if i == 0 {
						f.host = urlHost(value)
					}
				}
			}
		}
	} else {
		f.scheme, f.host = urlScheme(first(h.Get("X-Forwarded-Proto"))), urlHost(first(h.Get("X-Forwarded-Host")))
		if n, err := strconv.ParseUint(first(h.Get("X-Forwarded-Port")), 10, 16); err == nil && n > 0 {
			f.port = strconv.FormatUint(n, 10)
		}
		f.callers = split(h.Values("X-Forwarded-For"), ',')
	}
	f.prefix = urlPrefix(first(h.Get("X-Forwarded-Prefix"))) // Forwarded has no word for it
	return f
}

func urlScheme(v string) string {
	if v = strings.ToLower(v); v == "http" || v == "https" {
		return v
	}
	return ""
}

// urlHost returns v when it can stand as the host of a URL.
func urlHost(v string) string {
	name := v
	if host, port, err := net.SplitHostPort(v); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return ""
		}
		name = host
	}
	if _, ok := address(name); ok {
		return v
	}
	if name == "" || len(name) > 253 || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return ""
	}
	return v
}

func urlPrefix(v string) string {
	v = strings.Trim(v, "/")
	if v == "" || len(v) > 1024 || strings.Trim(strings.ToLower(v), "abcdefghijklmnopqrstuvwxyz0123456789.-_~/") != "" {
		return ""
	}
	return "/" + v
}

// withPort puts the port that the caller used in place of the host's own; the scheme's usual one is left out.
func withPort(host, port, scheme string) string {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		if strings.Contains(name, ":") {
			return "[" + name + "]"
		}
		return name
	}
	return net.JoinHostPort(name, port)
}

// split cuts header values at the separator, outside of quotes. Empty parts are left out.
func split(values []string, separator byte) (out []string) {
	for _, v := range values {
		start, quoted := 0, false
		for i := 0; i <= len(v); i++ {
			switch {
			case i == len(v) || v[i] == separator && !quoted:
				if part := strings.TrimSpace(v[start:i]); part != "" {
					out = append(out, part)
				}
				start = i + 1
			case v[i] == '\\' && quoted:
				i++
			case v[i] == '"':
				quoted = !quoted
			}
		}
	}
	return out
}

func unquote(v string) string {
	if len(v) < 2 || v[0] != '"' || v[len(v)-1] != '"' {
		return v
	}
	var b strings.Builder
	for i := 1; i < len(v)-1; i++ {
		if v[i] == '\\' && i+1 < len(v)-1 {
			i++
		}
		b.WriteByte(v[i])
	}
	return b.String()
}

func first(list string) string {
	v, _, _ := strings.Cut(list, ",")
	return strings.TrimSpace(v)
}
