package agentstats

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// Bounds of one walk below a control group. A group larger than this is a slice of
// the host, not one backend's own.
const (
	maxGroupDirs = 1024
	maxGroupPids = 4096
)

// hierarchy is one mounted cgroup tree that carries a controller.
type hierarchy struct {
	controller string
	v2         bool
	mount      string // where it is found, below Config.CgroupRoot
	root       string // the group that is mounted there; not "/" in a container without its own cgroup namespace
}

// hierarchies are the trees for each purpose; nil where there is none. With v2 they
// are the same tree; hybrid hosts have v1 trees and a v2 tree without controllers,
// and then v1 wins, because that is where the limits are.
type hierarchies struct{ quota, usage, memory *hierarchy }

// findHierarchies reads the agent's own mounts; paths below /sys/fs/cgroup are
// looked for below cgroupRoot.
func findHierarchies(proc procfs.FS, cgroupRoot string) (hierarchies, error) {
	mounts, err := proc.GetMounts()
	if err != nil {
		return hierarchies{}, fmt.Errorf("cannot read the cgroup mounts: %w", err)
	}
	v1 := map[string]*hierarchy{}
	var v2 *hierarchy
	for _, m := range mounts {
		where, ok := strings.CutPrefix(m.MountPoint, "/sys/fs/cgroup")
		if !ok {
			continue
		}
		h := hierarchy{mount: filepath.Join(cgroupRoot, where), root: m.Root}
		switch m.FSType {
		case "cgroup2":
			h.v2 = true
			v2 = &h
		case "cgroup":
			for _, c := range []string{"cpu", "cpuacct", "memory"} {
				if _, ok := m.SuperOptions[c]; ok {
					one := h
					one.controller = c
					v1[c] = &one
				}
			}
		}
	}
	pick := func(controller string) *hierarchy {
		if h := v1[controller]; h != nil {
			return h
		}
		return v2
	}
	return hierarchies{quota: pick("cpu"), usage: pick("cpuacct"), memory: pick("memory")}, nil
}

// path returns the group of a process in this hierarchy, from /proc/PID/cgroup.
func (h *hierarchy) path(groups []procfs.Cgroup) (string, bool) {
	for _, g := range groups {
		if h.v2 && g.HierarchyID == 0 || !h.v2 && slices.Contains(g.Controllers, h.controller) {
			return g.Path, true
		}
	}
	return "", false
}

// levels returns the directories of the group and its ancestors, own first, as far as
// they are mounted here; none for a group outside the agent's view.
func (h *hierarchy) levels(group string) []string {
	if h.root != "/" {
		rest, ok := strings.CutPrefix(group+"/", strings.TrimSuffix(h.root, "/")+"/")
		if !ok {
			return nil
		}
		group = "/" + rest
	}
	if slices.Contains(strings.Split(group, "/"), "..") {
		return nil // in another cgroup namespace
	}
	var dirs []string
	for group = path.Clean(group); ; group = path.Dir(group) {
		dirs = append(dirs, filepath.Join(h.mount, group))
		if group == "/" {
			return dirs
		}
	}
}

// hostRoot tells whether a directory is the root of its hierarchy on the host, which
// has no limits and counts everybody.
func (h *hierarchy) hostRoot(dir string) bool {
	mark, root := "cgroup.type", false // v2: every group but the root has it
	if !h.v2 {
		mark, root = "release_agent", true // v1: only the root has it
	}
	_, err := os.Stat(filepath.Join(dir, mark))
	return (err == nil) == root
}

// quota returns the cores that the group may use, and false without a quota.
func (h *hierarchy) readQuota(p *procDir, dir string) (float64, bool) {
	var quota, period float64
	if h.v2 {
		data, err := p.read(filepath.Join(dir, "cpu.max"))
		f := bytes.Fields(data)
		if err != nil || len(f) != 2 {
			return 0, false
		}
		quota, _ = strconv.ParseFloat(string(f[0]), 64) // "max" is no quota
		period, _ = strconv.ParseFloat(string(f[1]), 64)
	} else {
		q, err1 := p.number(filepath.Join(dir, "cpu.cfs_quota_us")) // -1 is no quota
		t, err2 := p.number(filepath.Join(dir, "cpu.cfs_period_us"))
		if err1 != nil || err2 != nil {
			return 0, false
		}
		quota, period = float64(q), float64(t)
	}
	if !(quota > 0 && period > 0) {
		return 0, false
	}
	return quota / period, true
}

// readUsage returns the CPU time of the group and everything below it.
func (h *hierarchy) readUsage(p *procDir, dir string) (time.Duration, error) {
	if !h.v2 {
		n, err := p.number(filepath.Join(dir, "cpuacct.usage"))
		return time.Duration(n), err
	}
	n, err := p.keyed(filepath.Join(dir, "cpu.stat"), "usage_usec")
	return time.Duration(n) * time.Microsecond, err
}

// readLimit returns the group's memory limit, and false without one. v1 writes "no
// limit" as the largest number of pages, above any host's memory.
func (h *hierarchy) readLimit(p *procDir, dir string, hostMemory int64) (int64, bool) {
	name := "memory.max"
	if !h.v2 {
		name = "memory.limit_in_bytes"
	}
	n, err := p.number(filepath.Join(dir, name)) // "max" is not a number
	return n, err == nil && n > 0 && n < hostMemory
}

// readWorkingSet returns the memory of the group and everything below it that the
// kernel cannot simply drop: all but the file cache that nobody touched of late.
func (h *hierarchy) readWorkingSet(p *procDir, dir string) (int64, error) {
	current, inactive := "memory.current", "inactive_file"
	if !h.v2 {
		current, inactive = "memory.usage_in_bytes", "total_inactive_file"
	}
	n, err := p.number(filepath.Join(dir, current))
	if err != nil {
		return 0, err
	}
	cache, err := p.keyed(filepath.Join(dir, "memory.stat"), inactive)
	return max(0, n-cache), err
}

// number reads a file that holds one integer.
func (p *procDir) number(path string) (int64, error) {
	data, err := p.read(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// keyed reads one "key value" line of a file.
func (p *procDir) keyed(path, key string) (int64, error) {
	data, err := p.read(path)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if name, value, ok := bytes.Cut(line, []byte(" ")); ok && string(name) == key {
			return strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s: no %q", path, key)
}

var errGroupTooLarge = fmt.Errorf("more than %d groups or %d processes", maxGroupDirs, maxGroupPids)

// groupPids lists the processes of the group and everything below it.
func groupPids(dir string) ([]int, error) {
	var pids []int
	dirs := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if name != dir && errors.Is(err, fs.ErrNotExist) {
				return nil // a group that was removed during the walk
			}
			return err
		}
		if !d.IsDir() {
			return nil
		}
		if dirs++; dirs > maxGroupDirs {
			return errGroupTooLarge
		}
		data, err := os.ReadFile(filepath.Join(name, "cgroup.procs"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for f := range bytes.FieldsSeq(data) {
			if pid, err := strconv.Atoi(string(f)); err == nil {
				pids = append(pids, pid)
			}
		}
		if len(pids) > maxGroupPids {
			return errGroupTooLarge
		}
		return nil
	})
	return pids, err
}
