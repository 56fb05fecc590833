package main

import (
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// sockets are a proxy's open TCP connections.
type sockets struct {
	clients  []int // ports of its clients
	backends int   // how many connections to backends
}

// socketsOf lists the connections that a process holds, listening being on a
// port and backends on others.
func socketsOf(pid int, listening string, backendPorts []int) (s sockets, err error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return s, err
	}
	targets, err := p.FileDescriptorTargets()
	if err != nil {
		return s, err
	}
	own := map[uint64]bool{}
	for _, t := range targets {
		if inode, ok := strings.CutPrefix(t, "socket:["); ok {
			if n, err := strconv.ParseUint(strings.TrimSuffix(inode, "]"), 10, 64); err == nil {
				own[n] = true
			}
		}
	}
	fs, err := procfs.NewFS("/proc")
	if err != nil {
		return s, err
	}
	//lint:ignore SA1019 what is to replace it, netlink, would be another module, for a look now and then
	lines, err := fs.NetTCP()
	if err != nil {
		return s, err
	}
	behind := map[uint64]bool{}
	for _, port := range backendPorts {
		behind[uint64(port)] = true
	}
	for _, l := range lines {
		switch {
		case !own[l.Inode] || l.RemPort == 0: // another's, or the listener
		case behind[l.RemPort]:
			s.backends++
		case strings.HasSuffix(listening, ":"+strconv.FormatUint(l.LocalPort, 10)):
			s.clients = append(s.clients, int(l.RemPort))
		}
	}
	return s, nil
}
