package harness

import (
	"errors"
	"os"
	"path/filepath"
)

const (
	// memoryDir is a folder in memory on every Linux.
	memoryDir     = "/dev/shm"
	clusterPrefix = "outrigger-cluster-"
)

// clusterDir is a temporary folder in memory if there is such a place. A killed
// process cannot remove its own, so that the next one does: a lock, which the
// kernel frees, says that a folder is in use.
type clusterDir struct {
	path string
	lock *os.File
}

func newClusterDir() (*clusterDir, error) {
	parent := memoryDir
	if _, err := os.Stat(parent); err != nil {
		parent = os.TempDir()
	}
	path, err := os.MkdirTemp(parent, clusterPrefix)
	if err != nil && parent != os.TempDir() { // not ours to write to
		parent = os.TempDir()
		path, err = os.MkdirTemp(parent, clusterPrefix)
	}
	if err != nil {
		return nil, err
	}
	d := &clusterDir{path: path}
	// Locked before it has the name by which others look at it.
	unnamed := filepath.Join(path, "lock.new")
	d.lock, err = os.OpenFile(unnamed, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		_, err = tryLock(d.lock)
	}
	if err == nil {
		err = os.Rename(unnamed, filepath.Join(path, "lock"))
	}
	if err != nil {
		return nil, errors.Join(err, d.remove())
	}
	sweepClusterDirs(parent)
	return d, nil
}

func (d *clusterDir) remove() error {
	if d.lock != nil {
		_ = d.lock.Close() // nobody wrote to it
	}
	return os.RemoveAll(d.path)
}

// sweepClusterDirs removes the folders of processes that were killed. What has no
// file of the lock's name yet is being made.
func sweepClusterDirs(parent string) {
	found, _ := filepath.Glob(filepath.Join(parent, clusterPrefix+"*", "lock")) // the pattern is valid
	for _, name := range found {
		lock, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			continue // gone, or another user's
		}
		if free, err := tryLock(lock); free && err == nil {
			_ = os.RemoveAll(filepath.Dir(name)) // the next one tries again
		}
		_ = lock.Close()
	}
}
