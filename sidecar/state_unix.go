//go:build unix

package sidecar

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openKey opens a key's file. A link is not followed, and a pipe in its place
// does not hold us up.
func openKey(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// private reports an error if others than this process's user, and root, can read
// or change the file.
func private(path string, st fs.FileInfo) error {
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("the key %s can be used by others than its owner (mode %04o): run chmod 0600 on it, or remove it to have another made", path, mode)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("the key %s belongs to another user (%d, this process runs as %d): run chown on it, or remove it to have another made", path, sys.Uid, os.Geteuid())
	}
	return nil
}
