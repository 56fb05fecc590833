package harness

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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
	ports := make([]int, 0, n)
	held := make([]io.Closer, 0, 2*n)
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for len(ports) < n {
		port, sockets, err := holdPort()
		if err != nil {
			return nil, fmt.Errorf("find %d free ports on 127.0.0.1: %w", n, err)
		}
		ports = append(ports, port)
		held = append(held, sockets...)
	}
	return ports, nil
}

// holdPort listens on a free port of the range, or on one the kernel chooses
// when the range looks full.
func holdPort() (int, []io.Closer, error) {
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if sockets, err := listenBoth(port); err == nil {
			return port, sockets, nil
		}
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, nil, err
	}
	return l.Addr().(*net.TCPAddr).Port, []io.Closer{l}, nil
}

// listenBoth takes the port for TCP and UDP (Consul's gossip uses both).
func listenBoth(port int) ([]io.Closer, error) {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return nil, err
	}
	u, err := net.ListenPacket("udp4", addr)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return []io.Closer{l, u}, nil
}
