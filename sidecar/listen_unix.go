//go:build unix

package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into a socket address with its NUL: 107 bytes on
// Linux, 103 on BSDs.
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

// backlog is what may wait to be accepted; the kernel lowers it to its own
// limit.
const backlog = 4096

// lockWait bounds the wait for another process that is opening a socket in the
// same directory, which takes it a millisecond.
const lockWait = 5 * time.Second

// socket is a listener that removes its file when it is closed.
type socket struct {
	*net.UnixListener
	path string
	file os.FileInfo // what is there to remove
	once sync.Once
}

// listenUnix listens on a socket that has its mode before anybody can connect:
// until listen(2) connecting is refused. A socket that a dead process left is
// replaced; anything else that is there is left alone.
//
// Two that start at once must not take each other's socket for a dead one, so
// the directory is locked meanwhile (its own lock, as a lock file would stay
// behind).
func listenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := clearWay(path); err != nil {
		return nil, err
	}
	f, err := openSocket(path, mode)
	if err != nil {
		return nil, err
	}
	defer f.Close() // FileListener has a copy
	s := &socket{path: path}
	ln, err := net.FileListener(f)
	if err == nil {
		s.file, err = os.Lstat(path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	s.UnixListener = ln.(*net.UnixListener)
	s.SetUnlinkOnClose(false)
	return s, nil
}

// openSocket binds, sets the mode, listens.
func openSocket(path string, mode fs.FileMode) (*os.File, error) {
	syscall.ForkLock.RLock() // no child inherits it, as in net
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: path})); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	err = os.Chmod(path, mode)
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd), os.Remove(path))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// clearWay removes a socket on which nobody listens.
func clearWay(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is something that is no socket, which is never removed")
	}
	nc, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = nc.Close()
		return errors.New("somebody listens there already")
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("there is a socket, and it is not certain that nobody uses it: %w", err)
	}
	return os.Remove(path)
}

// lockDir locks a directory against others that open a socket in it.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no directory %s: create it first (systemd: RuntimeDirectory=)", dir)
	}
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if busy := errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR); !busy || time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("locking the directory %s: %w", dir, err), f.Close())
		}
	}
}

// Close stops listening and removes the file, if it is still ours. Only the
// first call does.
func (s *socket) Close() error {
	err := net.ErrClosed
	s.once.Do(func() { err = errors.Join(s.remove(), s.UnixListener.Close()) })
	return err
}

func (s *socket) remove() error {
	unlock, err := lockDir(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	defer unlock()
	info, err := os.Lstat(s.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, s.file) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(s.path)
}
