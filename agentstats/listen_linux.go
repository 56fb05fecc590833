package agentstats

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketTable lists listening sockets. Not for concurrent use.
//
// In the agent's own network namespace it asks sock_diag(7) for the listening sockets
// alone. /proc/PID/net/tcp, which is read elsewhere, walks the kernel's table of all
// connections, which takes milliseconds even where there is none.
type socketTable struct {
	proc *procDir
	buf  []byte
}

// listeners returns the inodes of the TCP sockets listening on the port, IPv4 and
// IPv6, in the network namespace of a process, or the agent's own where pid is 0.
func (t *socketTable) listeners(pid, port int) (map[uint64]bool, error) {
	dir := filepath.Join(t.proc.root, "self")
	if pid != 0 {
		dir = filepath.Join(t.proc.root, strconv.Itoa(pid))
	}
	inodes := map[uint64]bool{}
	if t.own(dir) {
		err := errors.Join(t.ask(unix.AF_INET, port, inodes), t.ask(unix.AF_INET6, port, inodes))
		if err == nil {
			return inodes, nil
		}
		clear(inodes) // a kernel without sock_diag, or a sandbox that forbids it
	}
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := t.proc.read(filepath.Join(dir, "net", table))
		if errors.Is(err, fs.ErrNotExist) && table == "tcp6" {
			continue // IPv6 is off
		}
		if err != nil {
			return nil, err
		}
		parseListeners(data, port, inodes)
	}
	return inodes, nil
}

// own tells whether a process is in the agent's network namespace.
func (t *socketTable) own(dir string) bool {
	mine, err1 := os.Readlink("/proc/thread-self/ns/net")
	its, err2 := os.Readlink(filepath.Join(dir, "ns/net"))
	return err1 == nil && err2 == nil && mine == its
}

// Layout of struct inet_diag_req_v2 and inet_diag_msg (linux/inet_diag.h).
const (
	diagRequest  = 56
	diagMessage  = 72
	diagState    = 1
	diagPort     = 4 // big-endian, as all of the socket's identity
	diagInode    = 68
	stateListen  = 10      // TCP_LISTEN
	diagReadSize = 1 << 15 // the kernel fills at most this much at once
)

// ask puts the inodes of one family's sockets into the set.
func (t *socketTable) ask(family uint8, port int, inodes map[uint64]bool) error {
	fd, err := retry(func() (int, error) {
		return unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	})
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	native := binary.NativeEndian
	req := make([]byte, unix.NLMSG_HDRLEN+diagRequest)
	native.PutUint32(req, uint32(len(req)))
	native.PutUint16(req[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	req[16], req[17] = family, unix.IPPROTO_TCP
	native.PutUint32(req[20:], 1<<stateListen)
	// The kernel answers from within the call or not at all; a limit all the same.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	if t.buf == nil {
		t.buf = make([]byte, diagReadSize)
	}
	for {
		n, err := retry(func() (int, error) {
			n, _, err := unix.Recvfrom(fd, t.buf, 0)
			return n, err
		})
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if done, err := parseDiag(t.buf[:n], port, inodes); done || err != nil {
			return err
		}
	}
}

// parseDiag reads one datagram of answers; done tells that it was the last.
func parseDiag(data []byte, port int, inodes map[uint64]bool) (done bool, err error) {
	msgs, err := syscall.ParseNetlinkMessage(data)
	if err != nil {
		return false, fmt.Errorf("sock_diag: %w", err)
	}
	if len(msgs) == 0 {
		return false, errors.New("sock_diag: an empty answer")
	}
	for _, m := range msgs {
		switch m.Header.Type {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(m.Data) >= 4 {
				if no := int32(binary.NativeEndian.Uint32(m.Data)); no < 0 {
					return false, os.NewSyscallError("sock_diag", unix.Errno(-no))
				}
			}
			return false, errors.New("sock_diag: an error without a number")
		case unix.SOCK_DIAG_BY_FAMILY:
			if len(m.Data) < diagMessage || m.Data[diagState] != stateListen ||
				int(binary.BigEndian.Uint16(m.Data[diagPort:])) != port {
				continue
			}
			if inode := binary.NativeEndian.Uint32(m.Data[diagInode:]); inode != 0 {
				inodes[uint64(inode)] = true
			}
		}
	}
	return false, nil
}

// parseListeners reads /proc/PID/net/tcp. The kernel lists listening sockets first
// (Documentation/networking/proc_net_tcp.rst).
func parseListeners(data []byte, port int, inodes map[uint64]bool) {
	const listen = "0A" // TCP_LISTEN
	first := true
	for line := range bytes.Lines(data) {
		if first { // the header
			first = false
			continue
		}
		f := bytes.Fields(line)
		if len(f) < 10 {
			continue
		}
		if string(f[3]) != listen {
			return
		}
		_, text, ok := strings.Cut(string(f[1]), ":")
		n, err := strconv.ParseUint(text, 16, 16)
		if !ok || err != nil || int(n) != port {
			continue
		}
		if inode, err := strconv.ParseUint(string(f[9]), 10, 64); err == nil && inode != 0 {
			inodes[inode] = true
		}
	}
}
