//go:build unix

package statefile

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// open opens a file to be read. A link is not followed, and a pipe in its place
// does not hold us up.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// private reports an error if others than this process's user and groups, and
// root, may have written the file. The group may be ours: Kubernetes lets it in at
// each mount of a volume (fsGroup).
func private(st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	user, mode := os.Geteuid(), st.Mode().Perm()
	groups, _ := os.Getgroups() // none: then the group is not ours
	groups = append(groups, os.Getegid())
	switch {
	case mode&0o002 != 0, mode&0o020 != 0 && int(sys.Uid) != user && !slices.Contains(groups, int(sys.Gid)):
		return fmt.Errorf("%w: others may write to it (mode %04o): run chmod 0600 on it, or remove it", ErrUnsafe, mode)
	case sys.Uid != 0 && int(sys.Uid) != user:
		return fmt.Errorf("%w: it belongs to another user (%d, this process runs as %d): run chown on it, or remove it", ErrUnsafe, sys.Uid, user)
	}
	return nil
}

// tight reports an error if anybody may put a file into the directory.
func tight(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if m := st.Mode(); m.Perm()&0o002 != 0 && m&fs.ModeSticky == 0 {
		return fmt.Errorf("%w: anybody can replace files in %s (mode %04o): run chmod o-w on it", ErrUnsafe, dir, m.Perm())
	}
	return nil
}
