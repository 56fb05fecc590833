package agentstats

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/procfs"
)

// refreshEvery is how often processes, groups, limits and affinity are looked up
// anew; the counters themselves are read at every sample.
const refreshEvery = 2 * time.Second

// sampler takes the samples of one backend. Not for concurrent use.
type sampler struct {
	proc    *procDir
	fs      procfs.FS
	trees   hierarchies
	backend Backend
	locator *locator
	log     hclog.Logger

	plan      plan
	refreshed time.Time
	start     time.Time
	window    window
	said      string

	procTime time.Duration // CPU time of the family, summed over the deltas of each process
	last     map[int]procStat
}

func newSampler(cfg Config, log hclog.Logger) (*sampler, error) {
	fs, err := procfs.NewFS(cfg.ProcRoot)
	if err != nil {
		return nil, fmt.Errorf("agent: %s does not look like /proc: %w", cfg.ProcRoot, err)
	}
	s := &sampler{proc: &procDir{root: cfg.ProcRoot}, fs: fs, backend: cfg.Backend, log: log}
	if s.trees, err = findHierarchies(fs, cfg.CgroupRoot); err != nil {
		if cfg.Backend.Cgroup != "" {
			return nil, fmt.Errorf("agent: backend.cgroup is set, but %w", err)
		}
		log.Warn("no cgroups here: limits are those of the host", "error", err)
	}
	s.locator = &locator{proc: s.proc, backend: cfg.Backend, cgroup: s.configuredPids}
	return s, nil
}

// sample reads one sample; figures that cannot be read are absent. It also says what
// it watches, or why there is nothing to watch. now must carry a monotonic reading
// and not go back.
func (s *sampler) sample(now time.Time) (Report, string) {
	if s.start.IsZero() {
		s.start = now
	}
	var err error
	if now.Sub(s.refreshed) >= refreshEvery || !s.alive() {
		err = s.refresh(now)
	}
	r := Report{Listening: s.plan.listening}
	if err == nil && len(s.plan.procs) > 0 {
		r.Epoch = fmt.Sprintf("%d-%d", s.plan.main.pid, s.plan.main.start)
		err = s.measure(now, &r)
	}
	return r, s.say(err)
}

// alive tells whether what the last refresh found still stands.
func (s *sampler) alive() bool {
	if len(s.plan.procs) == 0 || !s.plan.listening.Or(true) {
		return false // look at every sample: a backend that starts is news
	}
	if m, err := s.proc.stat(s.plan.main.pid); err != nil || !m.same(s.plan.main) {
		return false
	}
	return !slices.ContainsFunc(s.plan.watch, func(h holder) bool { return !s.proc.holds(h) })
}

func (s *sampler) refresh(now time.Time) error {
	f, err := s.locator.find(now)
	if err != nil {
		s.plan = plan{}
		return err
	}
	next := plan{found: f}
	if len(f.procs) > 0 {
		if next, err = s.place(f); err != nil {
			s.plan = plan{}
			return err
		}
	}
	if !next.sameSources(s.plan) {
		s.window.reset()
		s.last, s.procTime = nil, 0
	}
	s.plan, s.refreshed = next, now
	return nil
}

// measure fills the figures of a backend that was found. Each kind is read even
// where another fails.
func (s *sampler) measure(now time.Time, r *Report) error {
	family := s.family()
	memErr := s.memory(family, r)
	if err := s.cpu(now, family, r); err != nil {
		return err
	}
	return memErr
}

// family reads the processes whose figures are summed up, where a group's are not
// used, and adds what they ran since the last time.
func (s *sampler) family() []procStat {
	var living []procStat
	seen := make(map[int]procStat, len(s.plan.family))
	for _, known := range s.plan.family {
		c, err := s.proc.stat(known.pid)
		if err != nil || !c.same(known) {
			continue
		}
		// A process seen for the first time adds what it runs from now on: all it ever
		// ran, in one window, would be a spike that never was.
		if before, ok := s.last[c.pid]; ok && before.same(c) {
			s.procTime += max(0, c.cpu-before.cpu)
		}
		seen[c.pid] = c
		living = append(living, c)
	}
	s.last = seen
	return living
}

func (s *sampler) cpu(now time.Time, family []procStat, r *Report) error {
	idle, online, err := s.proc.idle(s.plan.cpus)
	if err != nil {
		return err
	}
	quotas := make([]float64, len(s.plan.quotas))
	for i, q := range s.plan.quotas {
		quotas[i] = q.cores
	}
	c := counters{at: now.Sub(s.start), idle: idle, used: s.procTime}
	if s.plan.cpuDir != "" {
		if c.used, err = s.trees.usage.readUsage(s.proc, s.plan.cpuDir); err != nil {
			return err
		}
	} else if len(family) == 0 {
		return errGone
	}
	for _, q := range s.plan.quotas {
		c.levels = append(c.levels, s.levelUsage(q, c.used))
	}
	if m, ok := s.window.push(c); ok {
		r.cpuFigures(online, quotas, &m)
	} else {
		r.cpuFigures(online, quotas, nil)
	}
	return nil
}

// levelUsage reads what a group with a quota used, or -1.
func (s *sampler) levelUsage(q quotaLevel, own time.Duration) time.Duration {
	switch q.usageDir {
	case "":
		return -1
	case s.plan.cpuDir:
		return own
	}
	n, err := s.trees.usage.readUsage(s.proc, q.usageDir)
	if err != nil {
		return -1
	}
	return n
}

func (s *sampler) memory(family []procStat, r *Report) error {
	var limits []memLevel
	for _, l := range s.plan.limits {
		used, err := s.trees.memory.readWorkingSet(s.proc, l.dir)
		if err != nil {
			return err
		}
		limits = append(limits, memLevel{used: used, limit: l.bytes})
	}
	var own int64
	switch {
	case s.plan.memDir != "":
		var err error
		if own, err = s.trees.memory.readWorkingSet(s.proc, s.plan.memDir); err != nil {
			return err
		}
	case len(family) == 0:
		return errGone
	default:
		own = sharedMemory(family, limits, s.plan.hostUsed)
	}
	if s.plan.hostMemory > 0 {
		limits = append(limits, memLevel{used: own, limit: s.plan.hostMemory})
	}
	r.memFigures(own, limits)
	return nil
}

// sharedMemory sums resident memory. Pages that processes share (a pre-fork server's
// preloaded data) count once in each, so the sum is bounded by what the host uses,
// and in any case by what a limited group around them uses.
func sharedMemory(family []procStat, limits []memLevel, hostUsed int64) int64 {
	var sum int64
	for _, p := range family {
		sum += p.rss
	}
	for _, l := range limits {
		sum = min(sum, l.used)
	}
	if len(family) > 1 && hostUsed > 0 {
		sum = min(sum, hostUsed)
	}
	return sum
}

// say describes what is watched and logs it when it changes, once.
func (s *sampler) say(err error) string {
	text := s.plan.describe()
	if err != nil {
		text = "cannot measure the backend: " + err.Error()
	}
	if text != s.said {
		s.said = text
		if err != nil || len(s.plan.procs) == 0 {
			s.log.Warn("no figures of the backend", "reason", text)
		} else {
			s.log.Info("watching the backend", "found", text)
		}
	}
	return text
}

// sameSources tells whether counters read by either plan belong into one window.
func (p plan) sameSources(q plan) bool {
	return p.main.same(q.main) && p.cpuDir == q.cpuDir && maps.Equal(p.cpus, q.cpus) &&
		slices.EqualFunc(p.quotas, q.quotas, func(a, b quotaLevel) bool { return a.usageDir == b.usageDir })
}

func (p plan) describe() string {
	if len(p.procs) == 0 {
		return p.why
	}
	source := func(dir string) string {
		if dir == "" {
			return fmt.Sprintf("%d processes", len(p.family))
		}
		return dir
	}
	limit := math.Inf(1)
	for _, q := range p.quotas {
		limit = math.Min(limit, q.cores)
	}
	text := fmt.Sprintf("process %d (%s), CPU of %s, memory of %s", p.main.pid, p.main.name, source(p.cpuDir), source(p.memDir))
	if !math.IsInf(limit, 1) {
		text += fmt.Sprintf(", CPU quota %.4g", limit)
	}
	if len(p.limits) > 0 {
		text += fmt.Sprintf(", %d memory limits", len(p.limits))
	}
	return text
}
