package node

import (
	"fmt"
	"net"
)

// HostAddresses are the addresses of this host that others can reach.
func HostAddresses() []net.IP {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []net.IP
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			out = append(out, n.IP)
		}
	}
	return out
}

// Advertised returns what others are told about a listener: its own address, or, when it listens everywhere, the host's
// addresses, loopback last.
func Advertised(l net.Listener) ([]string, error) {
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("listener %s is not TCP", l.Addr())
	}
	if !tcp.IP.IsUnspecified() {
		return []string{tcp.String()}, nil
	}
	var out []string
	port := fmt.Sprint(tcp.Port)
	for _, ip := range HostAddresses() {
		out = append(out, net.JoinHostPort(ip.String(), port))
	}
	return append(out, net.JoinHostPort("127.0.0.1", port)), nil
}
