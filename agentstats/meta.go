package agentstats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// MetaKey is the key in an instance's service meta that names its agent.
const MetaKey = "outrigger_agent"

// AgentAddr returns the agent's "host:port" for an instance, from its service meta:
// outrigger_agent = "port" (on the instance's own host) or "host:port". instanceAddr
// is the instance's address, with or without a port. Without the key it returns
// false and no error.
//
// The catalog is untrusted: hosts are IP addresses or plain DNS names, and an
// instance elsewhere cannot send the sidecar to its own loopback or to link-local
// addresses (a cloud's metadata service), nor to multicast or unspecified ones. What a
// name resolves to is checked when it is dialled.
func AgentAddr(meta map[string]string, instanceAddr string) (string, bool, error) {
	value, ok := meta[MetaKey]
	if !ok {
		return "", false, nil
	}
	addr, err := agentAddr(value, instanceAddr)
	if err != nil {
		return "", false, fmt.Errorf("service meta %s = %.80q of the instance at %.80q: %w; it must be \"port\" or \"host:port\"", MetaKey, value, instanceAddr, err)
	}
	return addr, true, nil
}

func agentAddr(value, instanceAddr string) (string, error) {
	own := hostOf(instanceAddr)
	host, text := own, value
	if strings.Contains(value, ":") {
		var err error
		if host, text, err = net.SplitHostPort(value); err != nil {
			return "", errors.New("not a host and a port")
		}
	}
	port, ok := parsePort(text)
	if !ok {
		return "", errors.New("the port is not a number from 1 to 65535")
	}
	if err := checkHost(host, own); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// hostOf returns the host of an address with or without a port.
func hostOf(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}

func sameHost(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX == nil && errY == nil {
		return x.Unmap() == y.Unmap()
	}
	return strings.EqualFold(a, b)
}

// dialer returns what an agent is dialled with: a name must not lead where AgentAddr
// lets no address lead. On the instance's own host it may, as the requests go there too.
func dialer(t Target) *net.Dialer {
	if t.Backend == "" || t.atHome() {
		return &net.Dialer{}
	}
	own := hostOf(t.Backend)
	return &net.Dialer{ControlContext: func(_ context.Context, _, addr string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(addr)
		if err != nil {
			return err
		}
		return checkHost(to.Addr().WithZone("").String(), own)
	}}
}

// checkHost accepts what a sidecar may dial for an instance on the host own.
func checkHost(host, own string) error {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return checkName(host, own)
	}
	ip = ip.Unmap()
	ownIP, _ := netip.ParseAddr(own)
	ownIP = ownIP.Unmap()
	switch {
	case ip.Zone() != "":
		return errors.New("the address has a zone")
	case ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return errors.New("not the address of one host")
	case ip.IsLoopback() && !ownIP.IsLoopback() && own != "localhost":
		return errors.New("a loopback address for an instance that is elsewhere")
	case ip.IsLinkLocalUnicast() && !ownIP.IsLinkLocalUnicast():
		return errors.New("a link-local address for an instance that is elsewhere")
	}
	return nil
}

// checkName accepts DNS host names (RFC 1123, and the underscore that catalogs use).
func checkName(host, own string) error {
	if host == "" || len(host) > 253 {
		return errors.New("the host is empty or longer than 253 bytes")
	}
	if strings.EqualFold(host, "localhost") && !strings.EqualFold(own, "localhost") {
		if ip, err := netip.ParseAddr(own); err != nil || !ip.IsLoopback() {
			return errors.New("localhost for an instance that is elsewhere")
		}
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for i, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("label %d of the host name is not valid", i+1)
		}
		for _, c := range []byte(label) {
			letter := c|0x20 >= 'a' && c|0x20 <= 'z'
			if !letter && (c < '0' || c > '9') && c != '-' && c != '_' {
				return errors.New("the host is neither an IP address nor a DNS name")
			}
		}
	}
	// Some resolvers read "127.1", "2130706433" or "0x7f000001" as an IPv4 address:
	// no way around the checks above.
	last := labels[len(labels)-1]
	for _, base := range []int{10, 0} {
		if _, err := strconv.ParseUint(last, base, 64); err == nil || errors.Is(err, strconv.ErrRange) {
			return errors.New("the host is neither an IP address nor a DNS name")
		}
	}
	return nil
}
