package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inNewNamespace runs f on a thread inside a new network namespace with its loopback
// up, and returns a path to the namespace and what removes it.
func inNewNamespace(t *testing.T, f func()) (path string, remove func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace takes root")
	}
	path = filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			ns, err := netns.New()
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := loopbackUp(); err != nil {
				return err
			}
			if err := unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, ""); err != nil {
				return err
			}
			f()
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
	gone := false
	remove = func() {
		if !gone {
			gone = true
			_ = unix.Unmount(path, unix.MNT_DETACH)
			_ = os.Remove(path)
		}
	}
	t.Cleanup(remove)
	return path, remove
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

func TestNamespace(t *testing.T) {
	var ln, decoy *net.TCPListener
	var conns []net.Conn
	path, remove := inNewNamespace(t, func() {
		ln = listen(t, "127.0.0.1:0", 8)
		for range 3 {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			conns = append(conns, c)
		}
	})
	t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
	})
	port := ln.Addr().(*net.TCPAddr).Port
	// The same port outside must not count.
	decoy = listen(t, fmt.Sprintf("127.0.0.1:%d", port), 99)
	dial(t, decoy.Addr().String())

	w := open(t, port, path)
	s := await(t, w, "3 in the namespace", func(s Sample) bool { return s.Established == 3 })
	if s.AcceptLimit != 8 || s.AcceptQueue != 3 || s.InFlight != 0 {
		t.Fatalf("%+v, want an accept queue of 3 of 8", s)
	}
	fmt.Fprint(conns[0], "GET / HTTP/1.1\r\n")
	await(t, w, "a request", inFlight(1))
	out := open(t, port, "")
	await(t, out, "1 outside", func(s Sample) bool { return s.Established == 1 && s.AcceptLimit == 99 })

	remove()
	now := time.Now().Add(2 * time.Second)
	if _, err := w.Sample(now); !errors.Is(err, ErrNamespaceGone) {
		t.Errorf("%v after the namespace was removed, want %v", err, ErrNamespaceGone)
	}
}
