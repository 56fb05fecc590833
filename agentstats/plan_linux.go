package agentstats

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
)

// maxThreads bounds the threads and processes whose affinity is read.
const maxThreads = 256

// plan says where the figures of a backend that was found come from.
type plan struct {
	found
	watch []holder // one holder per socket

	// The groups whose counters are the backend's own; "" where it shares its group
	// with others or has none, and its family's figures are summed up instead.
	cpuDir, memDir string
	family         []procStat

	quotas []quotaLevel
	limits []limitLevel
	cpus   cpuSet // that the backend may run on

	hostMemory, hostUsed int64 // bytes; 0 where unknown
}

// quotaLevel is a group around the backend with a CPU quota; usageDir is where its
// CPU time is counted, "" where it is not.
type quotaLevel struct {
	cores    float64
	usageDir string
}

// limitLevel is a group around the backend with a memory limit.
type limitLevel struct {
	dir   string
	bytes int64
}

// place finds the groups, limits and CPUs of the processes.
func (s *sampler) place(f found) (plan, error) {
	p := plan{found: f}
	for _, h := range f.holders {
		if !slices.ContainsFunc(p.watch, func(w holder) bool { return w.inode == h.inode }) {
			p.watch = append(p.watch, h)
		}
	}
	if info, err := s.fs.Meminfo(); err == nil && info.MemTotalBytes != nil {
		p.hostMemory = int64(*info.MemTotalBytes)
		if info.MemAvailableBytes != nil {
			p.hostUsed = p.hostMemory - int64(*info.MemAvailableBytes)
		}
	}
	groups, err := s.groups(f.main.pid)
	if err != nil {
		return plan{}, err
	}
	s.placeCPU(&p, groups)
	s.placeMemory(&p, groups)
	if p.cpus, err = s.allowed(f.procs); err != nil {
		return plan{}, err
	}
	if p.cpuDir == "" || p.memDir == "" {
		if p.family, err = s.proc.family(f.procs); err != nil {
			return plan{}, err
		}
	}
	return p, nil
}

// groups returns a process's place in every hierarchy.
func (s *sampler) groups(pid int) ([]procfs.Cgroup, error) {
	if s.trees == (hierarchies{}) {
		return nil, nil
	}
	proc, err := s.fs.Proc(pid)
	if err != nil {
		return nil, err
	}
	return proc.Cgroups()
}

// dirs returns the directories of the backend's group and its ancestors.
func (s *sampler) dirs(h *hierarchy, groups []procfs.Cgroup) []string {
	if h == nil {
		return nil
	}
	if s.backend.Cgroup != "" {
		return h.levels(s.backend.Cgroup)
	}
	group, ok := h.path(groups)
	if !ok {
		return nil
	}
	return h.levels(group)
}

func (s *sampler) placeCPU(p *plan, groups []procfs.Cgroup) {
	usage := s.dirs(s.trees.usage, groups)
	p.cpuDir = s.ownDir(s.trees.usage, usage, p.procs, func(dir string) error {
		_, err := s.trees.usage.readUsage(s.proc, dir)
		return err
	})
	for _, dir := range s.dirs(s.trees.quota, groups) {
		cores, ok := s.trees.quota.readQuota(s.proc, dir)
		if !ok {
			continue
		}
		// v1 may count in another hierarchy than it limits in; the group's usage is known
		// where the backend's place is the same in both.
		counted := ""
		if s.trees.usage != nil {
			counted = filepath.Join(s.trees.usage.mount, strings.TrimPrefix(dir, s.trees.quota.mount))
		}
		if !slices.Contains(usage, counted) {
			counted = ""
		}
		p.quotas = append(p.quotas, quotaLevel{cores: cores, usageDir: counted})
	}
}

func (s *sampler) placeMemory(p *plan, groups []procfs.Cgroup) {
	dirs := s.dirs(s.trees.memory, groups)
	p.memDir = s.ownDir(s.trees.memory, dirs, p.procs, func(dir string) error {
		_, err := s.trees.memory.readWorkingSet(s.proc, dir)
		return err
	})
	if p.hostMemory == 0 {
		return
	}
	for _, dir := range dirs {
		if bytes, ok := s.trees.memory.readLimit(s.proc, dir, p.hostMemory); ok {
			p.limits = append(p.limits, limitLevel{dir: dir, bytes: bytes})
		}
	}
}

// ownDir returns the group whose counters are the backend's: the configured one, or
// the nearest that counts, if nobody else is in it.
func (s *sampler) ownDir(h *hierarchy, dirs []string, procs []procStat, read func(string) error) string {
	for i, dir := range dirs {
		if s.backend.Cgroup != "" {
			if i == 0 && read(dir) == nil {
				return dir
			}
			return ""
		}
		if h.hostRoot(dir) {
			return ""
		}
		if read(dir) == nil {
			if s.exclusive(dir, procs) {
				return dir
			}
			return ""
		}
	}
	return ""
}

// exclusive tells whether the group holds all of the processes and, besides, only
// their descendants.
func (s *sampler) exclusive(dir string, procs []procStat) bool {
	pids, err := groupPids(dir)
	if err != nil {
		return false
	}
	member := func(pid int) bool {
		return slices.ContainsFunc(procs, func(m procStat) bool { return m.pid == pid })
	}
	for _, m := range procs {
		if !slices.Contains(pids, m.pid) {
			return false
		}
	}
	for _, pid := range pids {
		if member(pid) {
			continue
		}
		if pid == 0 {
			return false // a process outside the agent's pid namespace
		}
		c, err := s.proc.stat(pid)
		if err != nil {
			continue // it exited
		}
		if !slices.ContainsFunc(procs, func(m procStat) bool { return s.locator.descends(c, m.pid) }) {
			return false
		}
	}
	return true
}

// configuredPids lists the processes of Backend.Cgroup, from the first hierarchy that
// has it; none where it does not exist.
func (s *sampler) configuredPids() ([]int, error) {
	for _, h := range []*hierarchy{s.trees.usage, s.trees.quota, s.trees.memory} {
		if h == nil {
			continue
		}
		dirs := h.levels(s.backend.Cgroup)
		if len(dirs) == 0 {
			continue
		}
		pids, err := groupPids(dirs[0])
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("cgroup %s: %w", s.backend.Cgroup, err)
		}
		if len(pids) > 0 {
			return pids, nil
		}
	}
	return nil, nil
}

// allowed returns the CPUs that any of the processes may run on: what their affinity
// and cpuset leave. A server may pin each thread to a CPU of its own, so where the
// first thread is confined the others are asked too.
func (s *sampler) allowed(procs []procStat) (cpuSet, error) {
	_, online, err := s.proc.idle(nil)
	if err != nil {
		return nil, err
	}
	cpus := cpuSet{}
	add := func(p procfs.Proc) error {
		status, err := p.NewStatus()
		for _, c := range status.CpusAllowedList {
			cpus[int(c)] = true
		}
		return err
	}
	asked := 0
	for _, m := range procs {
		p, err := s.fs.Proc(m.pid)
		if err != nil || add(p) != nil {
			continue // it exited
		}
		threads, err := s.fs.AllThreads(m.pid)
		if err != nil {
			continue
		}
		for _, t := range threads {
			if asked++; asked > maxThreads || len(cpus) >= online {
				return cpus, nil
			}
			_ = add(t) // a thread that ended
		}
	}
	if len(cpus) == 0 {
		return nil, errGone
	}
	return cpus, nil
}
