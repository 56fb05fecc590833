//go:build !linux

package h1

import "net"

// quickListener is for Linux.
func quickListener(ln net.Listener) net.Listener { return ln }
