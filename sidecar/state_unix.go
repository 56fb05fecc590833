//go:build unix

package sidecar

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// openKey opens a key's file. A link is not followed, and a pipe in its place
// does not hold us up.
func openKey(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// private reports an error if others than this process's user and groups, and
// root, can read or change the file. The remark is about what is not as it
// should be, but cannot be helped.
func private(path string, st fs.FileInfo) (remark string, err error) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return "", nil
	}
	groups, _ := os.Getgroups() // none: then the group is not ours
	return keyOf{path, st.Mode().Perm(), int(sys.Uid), int(sys.Gid)}.check(os.Geteuid(), append(groups, os.Getegid()))
}

// keyOf is whose a key's file is.
type keyOf struct {
	path     string
	mode     fs.FileMode
	uid, gid int
}

// check tells of a process of this user and these groups what private does. The
// group may be let in, for Kubernetes does that to every file of a volume at each
// mount (fsGroup), and a sidecar must start again.
func (k keyOf) check(user int, groups []int) (remark string, err error) {
	ours := k.uid == user || slices.Contains(groups, k.gid)
	switch {
	case k.mode&0o007 != 0 || k.mode&0o070 != 0 && !ours:
		return "", fmt.Errorf("the key %s can be used by others than its owner (mode %04o): run chmod 0600 on it, or remove it to have another made", k.path, k.mode)
	case k.uid != 0 && k.uid != user:
		return "", fmt.Errorf("the key %s belongs to another user (%d, this process runs as %d): run chown on it, or remove it to have another made", k.path, k.uid, user)
	case k.mode&0o070 != 0:
		return fmt.Sprintf("the group %d can use the key of affinity cookies too (mode %04o); 0600 is safer, unless it is fsGroup of Kubernetes that lets it in", k.gid, k.mode), nil
	}
	return "", nil
}

// tight reports an error if anybody may remove what is in the directory.
func tight(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if m := st.Mode(); m.Perm()&0o002 != 0 && m&fs.ModeSticky == 0 {
		return fmt.Errorf("anybody can remove the key in state_dir %s (mode %04o): run chmod o-w on it", dir, m.Perm())
	}
	return nil
}
