//go:build unix && !linux

package gauge

import "syscall"

func writeNow(fd uintptr, b []byte) (int, error) { return syscall.Write(int(fd), b) }
