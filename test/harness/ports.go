package harness

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
)

// The range lies below the ephemeral ports of Linux (32768 up) and of the
// others (49152 up), so that no outgoing connection takes a port between its
// choice and its use, and above the usual places of fixed services.
const (
	firstPort = 20000
	lastPort  = 32000
)

// FreePorts returns n different ports that were free for TCP and UDP on
// 127.0.0.1 a moment ago. All are held at once while choosing and none
// afterwards, so another process may still take one: whoever listens on them
// must be ready to ask again. Safe for concurrent use.
func FreePorts(n int) ([]int, error) {
	return FreePortsOn(netip.AddrFrom4([4]byte{127, 0, 0, 1}), n)
}

// FreeAddr returns an address on 127.0.0.1 with one of FreePorts: for a server that
// takes no port 0, and as a place where nobody listens, which one that a listener on
// port 0 had may not be for long.
func FreeAddr() (string, error) {
	ports, err := FreePorts(1)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0]), nil
}

// FreePortsOn is FreePorts on another address of this machine.
func FreePortsOn(ip netip.Addr, n int) ([]int, error) {
	ports := make([]int, 0, n)
	held := make([]io.Closer, 0, 2*n)
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for len(ports) < n {
		port, sockets, err := holdPort(ip)
		if err != nil {
			return nil, fmt.Errorf("find %d free ports on %s: %w", n, ip, err)
		}
		ports = append(ports, port)
		held = append(held, sockets...)
	}
	return ports, nil
}

// holdPort listens on a free port of the range, or on one the kernel chooses
// when the range looks full.
func holdPort(ip netip.Addr) (int, []io.Closer, error) {
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if sockets, err := listenBoth(ip, port); err == nil {
			return port, sockets, nil
		}
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(ip, 0).String())
	if err != nil {
		return 0, nil, err
	}
	return l.Addr().(*net.TCPAddr).Port, []io.Closer{l}, nil
}

// listenBoth takes the port for TCP and UDP (Consul's gossip uses both).
func listenBoth(ip netip.Addr, port int) ([]io.Closer, error) {
	addr := netip.AddrPortFrom(ip, uint16(port)).String()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return []io.Closer{l, u}, nil
}
