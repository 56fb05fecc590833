//go:build unix

package access

import (
	"os"

	"golang.org/x/sys/unix"
)

// duplicate returns another descriptor of the same open file.
func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, failed := -1, error(nil)
	// Not by f.Fd, which would make it block for everybody.
	if err := raw.Control(func(of uintptr) {
		fd, failed = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 3)
	}); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, &os.PathError{Op: "dup", Path: f.Name(), Err: failed}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
