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
	"golang.org/x/sys/unix"
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
// and then v1 wins, because that is where the limits are. v2 counts CPU time and
// pressure in any case.
type hierarchies struct{ quota, usage, memory, v2 *hierarchy }

// counting returns the trees that count CPU time, the better first: v1 in nanoseconds
// and beside its quotas, v2 in microseconds.
func (h hierarchies) counting() []*hierarchy {
	if h.usage == h.v2 {
		return []*hierarchy{h.v2}
	}
	return []*hierarchy{h.usage, h.v2}
}

// findHierarchies reads the agent's own mounts; paths below /sys/fs/cgroup are
// looked for below cgroupRoot.
func findHierarchies(proc procfs.FS, cgroupRoot string) (hierarchies, error) {
	mounts, err := proc.GetMounts()
	if err != nil {
		return hierarchies{}, fmt.Errorf("cannot read the cgroup mounts: %w", err)
	}
	return hierarchiesIn(mounts, cgroupRoot), nil
}

func hierarchiesIn(mounts []*procfs.MountInfo, cgroupRoot string) hierarchies {
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
	return hierarchies{quota: pick("cpu"), usage: pick("cpuacct"), memory: pick("memory"), v2: v2}
}

// with replaces those trees in which the groups cannot be seen by others in which they
// can: where agent and backend are containers side by side, each in a cgroup namespace
// of its own, the agent's mounts show the agent's groups alone, the backend's its own.
func (h hierarchies) with(others hierarchies, groups []procfs.Cgroup) hierarchies {
	pick := func(mine, other *hierarchy) *hierarchy {
		if !mine.shows(groups) && other.shows(groups) && other.real() {
			return other
		}
		return mine
	}
	return hierarchies{
		quota: pick(h.quota, others.quota), usage: pick(h.usage, others.usage),
		memory: pick(h.memory, others.memory), v2: pick(h.v2, others.v2),
	}
}

// shows tells whether the process's group is below this mount.
func (h *hierarchy) shows(groups []procfs.Cgroup) bool {
	if h == nil {
		return false
	}
	group, ok := h.path(groups)
	return ok && len(h.levels(group)) > 0
}

// real tells whether there is a cgroup file system indeed, which a process cannot
// have filled with files of its own.
func (h *hierarchy) real() bool {
	var st unix.Statfs_t
	err := unix.Statfs(h.mount, &st)
	return err == nil && (int64(st.Type) == unix.CGROUP_SUPER_MAGIC || int64(st.Type) == unix.CGROUP2_SUPER_MAGIC)
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
	if dir != h.mount {
		return false
	}
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
		data, err := p.reread(filepath.Join(dir, "cpu.max"))
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

// usageFile counts the CPU time of a group and everything below it.
type usageFile struct {
	path string
	v2   bool
}

func (h *hierarchy) usageFile(dir string) usageFile {
	if h.v2 {
		return usageFile{filepath.Join(dir, "cpu.stat"), true}
	}
	return usageFile{filepath.Join(dir, "cpuacct.usage"), false}
}

func (p *procDir) usage(f usageFile) (time.Duration, error) {
	data, err := p.reread(f.path)
	if err != nil {
		return unknown, err
	}
	if f.v2 {
		n, err := keyed(data, f.path, "usage_usec")
		return time.Duration(n) * time.Microsecond, err
	}
	n, err := number(data, f.path)
	return time.Duration(n), err
}

// readLimit returns the group's memory limit, and false without one. v1 writes "no
// limit" as the largest number of pages, above any host's memory.
//
// memory.high and v1's soft limit are none: the first slows a group down that is above
// it, which shows in memory pressure and latencies, and a group that keeps much cache
// lives there for good; the second counts only when the host is short. Above this one
// the kernel kills. Nor does swap raise it: a group that has to swap to stay below its
// limit is full.
func (h *hierarchy) readLimit(p *procDir, dir string, hostMemory int64) (int64, bool) {
	name := "memory.max"
	if !h.v2 {
		name = "memory.limit_in_bytes"
	}
	n, err := p.number(filepath.Join(dir, name)) // "max" is not a number
	return n, err == nil && n > 0 && n < hostMemory
}

// memoryFiles count the memory of a group and everything below it.
type memoryFiles struct{ current, stat, inactive string }

func (h *hierarchy) memoryFiles(dir string) memoryFiles {
	if h.v2 {
		return memoryFiles{filepath.Join(dir, "memory.current"), filepath.Join(dir, "memory.stat"), "inactive_file"}
	}
	return memoryFiles{filepath.Join(dir, "memory.usage_in_bytes"), filepath.Join(dir, "memory.stat"), "total_inactive_file"}
}

// workingSet returns the memory that the kernel cannot simply drop: all but the file
// cache that nobody touched of late.
func (p *procDir) workingSet(f memoryFiles) (int64, error) {
	n, err := p.number(f.current)
	if err != nil {
		return 0, err
	}
	data, err := p.reread(f.stat)
	if err != nil {
		return 0, err
	}
	cache, err := keyed(data, f.stat, f.inactive)
	return max(0, n-cache), err
}

// number reads a file that holds one integer.
func (p *procDir) number(path string) (int64, error) {
	data, err := p.reread(path)
	if err != nil {
		return 0, err
	}
	return number(data, path)
}

func number(data []byte, path string) (int64, error) {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// keyed finds one "key value" line of a file.
func keyed(data []byte, path, key string) (int64, error) {
	for line := range bytes.Lines(data) {
		if name, value, ok := bytes.Cut(line, []byte(" ")); ok && string(name) == key {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %s: %w", path, key, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%s: no %q", path, key)
}

var errGroupTooLarge = fmt.Errorf("more than %d groups or %d processes", maxGroupDirs, maxGroupPids)

// groupPids lists the processes of the group and everything below it.
func (p *procDir) groupPids(dir string) ([]int, error) {
	pids, err := p.pidsIn(dir, nil)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if unix.Stat(dir, &st) == nil && st.Nlink == 2 {
		return pids, nil // cgroup file systems count the groups below: there are none
	}
	dirs := 0
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if name != dir && errors.Is(err, fs.ErrNotExist) {
				return nil // a group that was removed during the walk
			}
			return err
		}
		if !d.IsDir() || name == dir {
			return nil
		}
		if dirs++; dirs > maxGroupDirs {
			return errGroupTooLarge
		}
		pids, err = p.pidsIn(name, pids)
		return err
	})
	return pids, err
}

// pidsIn appends the processes of one group.
func (p *procDir) pidsIn(dir string, pids []int) ([]int, error) {
	data, err := p.read(filepath.Join(dir, "cgroup.procs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return nil, err
	}
	for f := range bytes.FieldsSeq(data) {
		if pid, err := strconv.Atoi(string(f)); err == nil {
			pids = append(pids, pid)
		}
	}
	if len(pids) > maxGroupPids {
		return nil, errGroupTooLarge
	}
	return pids, nil
}
