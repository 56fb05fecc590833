package harness

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func TestFreePorts(t *testing.T) {
	ports, err := FreePorts(50)
	if err != nil {
		t.Fatal(err)
	}
	if len(ports) != 50 {
		t.Fatalf("%d ports, want 50", len(ports))
	}
	seen := map[int]bool{}
	for _, p := range ports {
		if seen[p] {
			t.Errorf("port %d twice", p)
		}
		seen[p] = true
		if p < firstPort || p >= lastPort {
			t.Errorf("port %d is not in the range, which is nearly empty", p)
		}
		sockets, err := listenBoth(loopback, p)
		if err != nil {
			t.Errorf("port %d is still held: %v", p, err)
			continue
		}
		for _, s := range sockets {
			s.Close()
		}
	}
}

func TestListenBothSeesEitherProtocol(t *testing.T) {
	ports, err := FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	// On all addresses: it also blocks the loopback one.
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", ports[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", ports[1]))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for i, p := range ports {
		if sockets, err := listenBoth(loopback, p); err == nil {
			t.Errorf("port %d (%s) passed for free", p, []string{"TCP", "UDP"}[i])
			for _, s := range sockets {
				s.Close()
			}
		}
	}
}
