package gauge

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writeNow writes to a descriptor that does not block, without telling Go's scheduler,
// which would wake its monitor for it.
func writeNow(fd uintptr, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, syscall.Errno(errno)
	}
	return int(n), nil
}
