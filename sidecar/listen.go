package sidecar

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// A service listens on TCP, "ADDR:PORT", or on a Unix socket, "unix:/PATH".
// Abstract sockets (a name that begins with @ or a NUL) are not supported: they
// have no permissions, so any local user could connect.

const unixPrefix = "unix:"

// SocketPath returns the path of a Unix socket's listen address.
func SocketPath(listen string) (path string, ok bool) { return strings.CutPrefix(listen, unixPrefix) }

// listenText writes a listener's address as Listen would.
func listenText(a net.Addr) string {
	if a.Network() == "unix" {
		return unixPrefix + a.String()
	}
	return a.String()
}

// listen opens a service's listener. Closing it removes a socket's file.
func listen(c *ServiceConfig) (net.Listener, error) {
	path, ok := SocketPath(c.Listen)
	if !ok {
		lc := net.ListenConfig{KeepAlive: -1}
		return lc.Listen(context.Background(), "tcp", c.Listen)
	}
	mode, err := parseMode(c.ListenMode)
	if err != nil {
		return nil, err
	}
	ln, err := listenUnix(path, mode)
	if err != nil {
		return nil, fmt.Errorf("listen %q: %w", c.Listen, err)
	}
	return ln, nil
}

// validateListen checks an address and mode without touching the file system.
func validateListen(addr, mode string) error {
	path, ok := SocketPath(addr)
	if ok {
		if err := validateSocket(addr, path); err != nil {
			return err
		}
		_, err := parseMode(mode)
		return err
	}
	if strings.HasPrefix(addr, "unix") || strings.HasPrefix(addr, "/") || strings.HasPrefix(addr, "@") {
		return fmt.Errorf("listen %q: a Unix socket is written \"unix:/PATH\"", addr)
	}
	if mode != defaultMode {
		return fmt.Errorf("listen_mode is %q, but listen is no Unix socket: drop it", mode)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("listen %q is not \"ADDR:PORT\" or \"unix:/PATH\": %w", addr, err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("listen %q: the port is not a number from 0 to 65535", addr)
	}
	return nil
}

func validateSocket(addr, path string) error {
	switch {
	case strings.HasPrefix(path, "@"), strings.Contains(path, "\x00"):
		return fmt.Errorf("listen %q: abstract sockets are not supported, as they have no permissions", addr)
	case !filepath.IsAbs(path):
		return fmt.Errorf("listen %q: after unix: must come an absolute path", addr)
	case filepath.Clean(path) != path:
		// The same socket must not have two names.
		return fmt.Errorf("listen %q: write the path as %q", addr, filepath.Clean(path))
	case len(path) > maxSocketPath:
		return fmt.Errorf("listen %q: the path is %d bytes long, the system allows %d", addr, len(path), maxSocketPath)
	}
	return nil
}

// shared reports whether many may listen on an address: each gets a port of its
// own.
func shared(listen string) bool {
	_, unix := SocketPath(listen)
	return !unix && strings.HasSuffix(listen, ":0")
}

// defaultMode lets the sidecar's own user connect (and root): whom else to let
// in is the configuration's to say. Too tight shows at the first request; too
// wide shows never.
const defaultMode = "0600"

// parseMode reads a socket's permissions. To connect is to write: the other
// bits decide nothing on Linux.
func parseMode(s string) (fs.FileMode, error) {
	m, err := strconv.ParseUint(s, 8, 32)
	if err != nil || len(s) < 3 || len(s) > 4 || m > 0o777 || m&0o600 != 0o600 {
		return 0, fmt.Errorf("listen_mode is %q, allowed are \"0600\" to \"0777\" (octal, read and write for the owner)", s)
	}
	return fs.FileMode(m), nil
}
