// Package admin is the sidecar's own HTTP listener: health, metrics, status.
package admin

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// Config is what the admin listener needs to know.
type Config struct {
	// Listen is "ADDR:PORT" with a loopback address: what is served here tells
	// of every backend, so nobody but this machine may ask. Port 0 takes a free
	// one.
	Listen string
}

// DefaultConfig returns the settings of a base file without an admin block.
func DefaultConfig() Config {
	return Config{Listen: "127.0.0.1:9911"} // loopback; a port that no HashiCorp or Prometheus tool uses
}

// Validate reports an address that is malformed or not loopback.
func (c Config) Validate() error {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("admin listen %q is not \"ADDR:PORT\": %w", c.Listen, err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("admin listen %q: the port is not a number from 0 to 65535", c.Listen)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() || host == "localhost" {
		return nil
	}
	return fmt.Errorf("admin listen %q is not a loopback address (127.0.0.1, ::1 or localhost)", c.Listen)
}
