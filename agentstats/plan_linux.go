package agentstats

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// plan says where the figures of a backend that was found come from, with everything
// spelt out that stays the same from sample to sample.
type plan struct {
	found
	watch []holder // one holder per socket
	epoch string
	text  string // what is watched

	// The groups whose counters are the backend's own; "" where it shares its group
	// with others or has none, and its family's figures are summed up instead.
	cpuDir, memDir string
	cpuUsage       usageFile
	memFiles       memoryFiles
	family         []member

	quotas     []quotaLevel // at most maxLevels, the tightest first
	quotaCores []float64    // their cores
	limits     []limitLevel

	cpus     cpuSet // that the backend may run on
	pressure pressureFiles
	mainStat string // the main process's stat
	netDev   string // its namespace's interfaces

	hostMemory, hostUsed int64 // bytes; 0 where unknown
}

// member is a process whose figures are summed up.
type member struct {
	procStat
	path    string
	counted bool // it was sampled before, so what its CPU time moves counts
}

// quotaLevel is a group around the backend with a CPU quota; usage is where its CPU
// time is counted, its path "" where it is not.
type quotaLevel struct {
	cores float64
	usage usageFile
}

// limitLevel is a group around the backend with a memory limit.
type limitLevel struct {
	dir   string
	files memoryFiles
	bytes int64
}

// place finds the groups, limits and CPUs of the processes.
func (s *sampler) place(now time.Time, f found) (plan, error) {
	p := plan{found: f, epoch: fmt.Sprintf("%d-%d", f.main.pid, f.main.start)}
	p.mainStat = s.proc.path(f.main.pid, "stat")
	p.netDev = s.proc.path(f.main.pid, "net/dev")
	for _, h := range f.holders {
		if !slices.ContainsFunc(p.watch, func(w holder) bool { return w.inode == h.inode }) {
			p.watch = append(p.watch, h)
		}
	}
	p.hostMemory, p.hostUsed = s.proc.memory()
	groups, err := s.groups(f.main.pid)
	if err != nil {
		return plan{}, err
	}
	s.placeCPU(&p, groups)
	s.placeMemory(&p, groups)
	s.placePressure(&p, s.dirs(s.trees.v2, groups))
	if p.cpus, err = s.allowed(now, f.procs); err != nil {
		return plan{}, err
	}
	if p.cpuDir == "" || p.memDir == "" {
		if p.family, err = s.members(now, f.procs); err != nil {
			return plan{}, err
		}
	}
	p.text = p.describe()
	return p, nil
}

// members returns the family, with what is known of each from the last plan.
func (s *sampler) members(now time.Time, procs []procStat) ([]member, error) {
	all, err := s.locator.family(now, procs)
	if err != nil {
		return nil, err
	}
	family := make([]member, 0, len(all))
	for _, c := range all {
		m := member{procStat: c, path: s.proc.path(c.pid, "stat")}
		if i := slices.IndexFunc(s.plan.family, func(old member) bool { return old.same(c) }); i >= 0 {
			m = s.plan.family[i]
		}
		family = append(family, m)
	}
	return family, nil
}

// groups returns a process's place in every hierarchy. It is looked for anew only
// where the kernel's text of it has changed.
func (s *sampler) groups(pid int) ([]procfs.Cgroup, error) {
	if s.own == (hierarchies{}) && s.backend.Cgroup != "" {
		return nil, nil
	}
	text, err := s.proc.reread(s.proc.path(pid, "cgroup"))
	if errors.Is(err, fs.ErrNotExist) && s.own == (hierarchies{}) {
		return nil, nil // a kernel without groups
	}
	if err != nil {
		return nil, err
	}
	if known := &s.placed; known.pid != pid || known.text != string(text) {
		next := placed{pid: pid, text: string(text)}
		proc, err := s.fs.Proc(pid)
		if err == nil {
			next.groups, err = proc.Cgroups()
		}
		if err != nil {
			return nil, err
		}
		if s.trees = s.own; s.backend.Cgroup == "" {
			s.trees = s.own.with(s.within(proc), next.groups)
		}
		*known = next
	}
	return s.placed.groups, nil
}

// within returns the hierarchies that the process itself has mounted, seen through its
// root: none without the right to look there.
func (s *sampler) within(proc procfs.Proc) hierarchies {
	mounts, err := proc.MountInfo()
	if err != nil {
		return hierarchies{}
	}
	return hierarchiesIn(mounts, s.proc.path(proc.PID, "root/sys/fs/cgroup"))
}

// placed is what /proc/PID/cgroup told last.
type placed struct {
	pid    int
	text   string
	groups []procfs.Cgroup
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
	type counted struct {
		tree *hierarchy
		dirs []string
	}
	var counts []counted
	for _, h := range s.trees.counting() {
		dirs := s.dirs(h, groups)
		counts = append(counts, counted{h, dirs})
		if p.cpuDir != "" {
			continue
		}
		p.cpuDir = s.ownDir(h, dirs, p.procs, func(dir string) error {
			_, err := s.proc.usage(h.usageFile(dir))
			return err
		})
		if p.cpuDir != "" {
			p.cpuUsage = h.usageFile(p.cpuDir)
		}
	}
	for _, dir := range s.dirs(s.trees.quota, groups) {
		cores, ok := s.trees.quota.readQuota(s.proc, dir)
		if !ok {
			continue
		}
		q := quotaLevel{cores: cores}
		// v1 may count in another hierarchy than it limits in; the group's usage is known
		// where the backend's place is the same in both.
		for _, c := range counts {
			if c.tree == nil || q.usage.path != "" {
				continue
			}
			same := filepath.Join(c.tree.mount, strings.TrimPrefix(dir, s.trees.quota.mount))
			if slices.Contains(c.dirs, same) {
				q.usage = c.tree.usageFile(same)
			}
		}
		p.quotas = append(p.quotas, q)
	}
	slices.SortStableFunc(p.quotas, func(a, b quotaLevel) int { return cmp.Compare(a.cores, b.cores) })
	p.quotas = p.quotas[:min(len(p.quotas), maxLevels)]
	for _, q := range p.quotas {
		p.quotaCores = append(p.quotaCores, q.cores)
	}
}

func (s *sampler) placeMemory(p *plan, groups []procfs.Cgroup) {
	h := s.trees.memory
	dirs := s.dirs(h, groups)
	p.memDir = s.ownDir(h, dirs, p.procs, func(dir string) error {
		_, err := s.proc.workingSet(h.memoryFiles(dir))
		return err
	})
	if p.memDir != "" {
		p.memFiles = h.memoryFiles(p.memDir)
	}
	if p.hostMemory == 0 {
		return
	}
	for _, dir := range dirs {
		if bytes, ok := h.readLimit(s.proc, dir, p.hostMemory); ok {
			p.limits = append(p.limits, limitLevel{dir: dir, files: h.memoryFiles(dir), bytes: bytes})
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

// census is the last verdict on who is in a group. It stands while the same processes
// are there.
type census struct {
	procs []procStat
	pids  []int
	alone bool
}

// exclusive tells whether the group holds all of the processes and, besides, only
// their descendants.
func (s *sampler) exclusive(dir string, procs []procStat) bool {
	pids, err := s.proc.groupPids(dir)
	if err != nil {
		return false
	}
	c := s.censuses[dir]
	if !slices.Equal(c.pids, pids) || !slices.EqualFunc(c.procs, procs, procStat.same) {
		c = census{procs: procs, pids: pids, alone: s.alone(pids, procs)}
		if s.censuses == nil || len(s.censuses) > 16 { // of places the backend has left
			s.censuses = map[string]census{}
		}
		s.censuses[dir] = c
	}
	return c.alone
}

func (s *sampler) alone(pids []int, procs []procStat) bool {
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
	for _, h := range []*hierarchy{s.trees.usage, s.trees.quota, s.trees.memory, s.trees.v2} {
		if h == nil {
			continue
		}
		dirs := h.levels(s.backend.Cgroup)
		if len(dirs) == 0 {
			continue
		}
		pids, err := s.proc.groupPids(dirs[0])
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("cgroup %s: %w", s.backend.Cgroup, err)
		}
		if len(pids) > 0 {
			return pids, nil
		}
	}
	return nil, nil
}
