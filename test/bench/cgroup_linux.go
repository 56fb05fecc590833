package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// group is a control group of cgroup v1, under the same path in the trees of
// the cpu controller, which limits, and of cpuacct, which counts.
type group struct{ dirs []string }

// cgroupMounts are where Linux distributions mount the two, or both in one.
var cgroupMounts = []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpuacct"}

// errNoCgroup tells that the machine does not let this program set CPU quotas.
var errNoCgroup = errors.New("CPU quotas need the cpu and cpuacct controllers of cgroup v1, writable for this user, at " + strings.Join(cgroupMounts, " and "))

// newGroup makes a group below the root, or says why it cannot.
func newGroup(name string) (group, error) {
	var g group
	for _, mount := range cgroupMounts {
		if _, err := os.Stat(filepath.Join(mount, "cgroup.procs")); err != nil {
			return g, fmt.Errorf("%w: %w", errNoCgroup, err)
		}
		g.dirs = append(g.dirs, filepath.Join(mount, name))
	}
	if _, err := os.Stat(filepath.Join(cgroupMounts[0], "cpu.cfs_quota_us")); err != nil {
		return g, fmt.Errorf("%w: %w", errNoCgroup, err)
	}
	for _, dir := range g.dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) { // the two mounts may be one
			return g, fmt.Errorf("%w: %w", errNoCgroup, err)
		}
	}
	return g, nil
}

// child makes a group inside.
func (g group) child(name string) (group, error) {
	var c group
	for _, dir := range g.dirs {
		c.dirs = append(c.dirs, filepath.Join(dir, name))
	}
	for _, dir := range c.dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return c, err
		}
	}
	return c, nil
}

func (g group) write(file, value string) error {
	return os.WriteFile(filepath.Join(g.dirs[0], file), []byte(value), 0o644)
}

// quota limits the group to some cores, enforced per period.
func (g group) quota(cores float64, period time.Duration) error {
	us := period.Microseconds()
	if err := g.write("cpu.cfs_period_us", strconv.FormatInt(us, 10)); err != nil {
		return err
	}
	return g.write("cpu.cfs_quota_us", strconv.Itoa(int(cores*float64(us)+0.5)))
}

// shares weighs the group against its siblings; 1024 is everybody's.
func (g group) shares(n int) error { return g.write("cpu.shares", strconv.Itoa(n)) }

// add moves a process with all its threads into the group.
func (g group) add(pid int) error {
	for _, dir := range g.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("move process %d into %s: %w", pid, dir, err)
		}
	}
	return nil
}

// usage is the CPU time of everybody who is or was in the group or below.
func (g group) usage() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(g.dirs[len(g.dirs)-1], "cpuacct.usage"))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return time.Duration(n), err
}

// leave moves a process out of the group into the one around it.
func (g group) leave(pid int) error {
	var around group
	for _, dir := range g.dirs {
		around.dirs = append(around.dirs, filepath.Dir(dir))
	}
	return around.add(pid)
}

// remove takes the group away once its processes are gone, which takes the
// kernel a moment.
func (g group) remove() error {
	var errs []error
	for _, dir := range g.dirs {
		err := os.Remove(dir)
		for try := 0; errors.Is(err, unix.EBUSY) && try < 50; try++ {
			time.Sleep(10 * time.Millisecond)
			err = os.Remove(dir)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
