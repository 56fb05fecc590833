package sockets

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// link is an open netlink socket in a network namespace, and the namespace's count of
// accepted connections. Not for concurrent use.
//
// netlink.SocketDiagTCPInfo would open a socket, dump every TCP socket of a family and
// allocate for each of them at every call; the messages here are few and fixed, so they
// are sent and read as they are.
type link struct {
	fd   int
	snmp *os.File // nil where /proc is not there
	seq  uint32
	req  []byte
	buf  []byte
}

// Replies to single questions queue up in the socket's receive buffer, each with some
// 2 KiB of it; the default buffer of 208 KiB holds over 90.
const batch = 64

// openLink opens a link in the namespace at path, or the process's own for "". The
// socket keeps that namespace alive until it is closed.
func openLink(path string) (*link, error) {
	l := &link{buf: make([]byte, 64<<10)} // a dump comes in pieces of up to 32 KiB
	if path == "" {
		return l, l.open()
	}
	// On a thread of its own, which dies with the goroutine where it cannot return.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		stay, err := l.openIn(path)
		if !stay {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return l, <-done
}

// openIn enters the namespace, opens the link and returns; stay tells that the thread
// could not go back.
func (l *link) openIn(path string) (stay bool, err error) {
	home, err := netns.Get()
	if err != nil {
		return false, fmt.Errorf("own network namespace: %w", err)
	}
	defer home.Close()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return false, fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return false, fmt.Errorf("entering network namespace %s (this takes CAP_SYS_ADMIN): %w", path, err)
	}
	err = l.open()
	return netns.Set(home) != nil, err
}

func (l *link) open() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return fmt.Errorf("opening sock_diag: %w", err)
	}
	// Connected to the kernel, nobody else can send to it. Answers are there when the
	// request has been sent; the timeout is only against the unforeseen.
	if err = unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	}
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("opening sock_diag: %w", err)
	}
	l.fd = fd
	// thread-self: the file shows the namespace of the thread that opened it.
	l.snmp, _ = os.Open("/proc/thread-self/net/snmp")
	return nil
}

func (l *link) close() {
	_ = unix.Close(l.fd)
	if l.snmp != nil {
		_ = l.snmp.Close()
	}
}

// dump calls see with every socket of a local port that is in one of the states.
func (l *link) dump(port int, states uint32, info bool, m *message, see func(*record)) error {
	l.seq++
	l.req = appendDump(l.req[:0], l.seq, port, states, info)
	if _, err := unix.Write(l.fd, l.req); err != nil {
		return fmt.Errorf("asking sock_diag: %w", err)
	}
	for {
		b, err := l.read()
		if err != nil {
			return err
		}
		for len(b) > 0 {
			if b, err = parseMessage(b, m); err != nil {
				return err
			}
			switch {
			case m.seq != l.seq:
			case m.kind == typeDone || m.kind == typeError:
				if m.errno != 0 {
					return fmt.Errorf("sock_diag: %w", unix.Errno(m.errno))
				}
				return nil
			case m.rec.id.port() == port:
				see(&m.rec)
			}
		}
	}
}

// question asks for one socket.
type question struct {
	family uint8
	id     *sockID
}

// get asks for up to batch sockets at once and calls answer with each one's place among
// the questions; a nil record means that it is gone.
func (l *link) get(qs []question, m *message, answer func(i int, r *record)) error {
	if len(qs) == 0 {
		return nil
	}
	first := l.seq + 1
	l.req = l.req[:0]
	for _, q := range qs {
		l.seq++
		l.req = appendGet(l.req, l.seq, q.family, q.id)
	}
	if _, err := unix.Write(l.fd, l.req); err != nil {
		return fmt.Errorf("asking sock_diag: %w", err)
	}
	for left := len(qs); left > 0; {
		b, err := l.read()
		if err != nil {
			return err
		}
		for len(b) > 0 {
			if b, err = parseMessage(b, m); err != nil {
				return err
			}
			i := m.seq - first
			if i >= uint32(len(qs)) {
				continue // of an earlier question
			}
			left--
			switch {
			case m.kind == typeDiag:
				answer(int(i), &m.rec)
			case m.errno == int32(unix.ENOENT) || m.errno == int32(unix.ESTALE):
				answer(int(i), nil)
			default:
				return fmt.Errorf("sock_diag: %w", unix.Errno(m.errno))
			}
		}
	}
	return nil
}

func (l *link) read() ([]byte, error) {
	for {
		n, err := unix.Read(l.fd, l.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading sock_diag: %w", err)
		}
		return l.buf[:n], nil
	}
}

// accepted returns the TCP connections that the namespace has accepted so far
// (PassiveOpens, RFC 4022).
func (l *link) accepted() (uint64, bool) {
	if l.snmp == nil {
		return 0, false
	}
	n, err := l.snmp.ReadAt(l.buf, 0)
	if n == 0 && err != nil {
		return 0, false
	}
	return parsePassiveOpens(l.buf[:n])
}

// cpuTime is what the calling thread has used.
func cpuTime() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return t.Nano()
}

// nsID names a network namespace.
type nsID struct{ dev, ino uint64 }

// namespaceAt returns the namespace that a path names now.
func namespaceAt(path string) (nsID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nsID{}, err
	}
	return nsID{dev: st.Dev, ino: st.Ino}, nil
}
