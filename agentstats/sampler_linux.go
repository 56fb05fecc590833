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
	own     hierarchies // as the agent has them mounted
	trees   hierarchies // as they show the backend
	backend Backend
	locator *locator
	log     hclog.Logger

	plan      plan
	refreshed time.Time
	start     time.Time
	window    window
	said      string

	traffic traffic
	levels  []memLevel // reused

	// What refreshes remember of what they found, so that they need not find it again.
	placed   placed
	censuses map[string]census
	affinity affinity

	procTime time.Duration // CPU time of the family, summed over the deltas of each process
}

func newSampler(cfg Config, log hclog.Logger) (*sampler, error) {
	fs, err := procfs.NewFS(cfg.ProcRoot)
	if err != nil {
		return nil, fmt.Errorf("agent: %s does not look like /proc: %w", cfg.ProcRoot, err)
	}
	s := &sampler{proc: &procDir{root: cfg.ProcRoot}, fs: fs, backend: cfg.Backend, log: log}
	if s.own, err = findHierarchies(fs, cfg.CgroupRoot); err != nil {
		if cfg.Backend.Cgroup != "" {
			return nil, fmt.Errorf("agent: backend.cgroup is set, but %w", err)
		}
		log.Warn("no cgroups here: limits are those of the host", "error", err)
	}
	s.trees = s.own
	s.locator = &locator{proc: s.proc, backend: cfg.Backend, cgroup: s.configuredPids, sockets: socketTable{proc: s.proc}}
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
		r.Epoch = s.plan.epoch
		err = s.measure(now, &r)
	}
	return r, s.say(err)
}

// close gives the descriptors back.
func (s *sampler) close() { s.proc.close() }

// alive tells whether what the last refresh found still stands.
func (s *sampler) alive() bool {
	if len(s.plan.procs) == 0 || !s.plan.listening.Or(true) {
		return false // look at every sample: a backend that starts is news
	}
	if _, err := s.proc.restat(s.plan.main, s.plan.mainStat); err != nil {
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
	next := plan{found: f, text: f.why}
	if len(f.procs) > 0 {
		if next, err = s.place(now, f); err != nil {
			s.plan = plan{}
			return err
		}
	}
	if !next.sameSources(s.plan) {
		s.window.reset()
		s.traffic.reset()
		s.procTime = 0
		for i := range next.family {
			next.family[i].counted = false
		}
	}
	s.plan, s.refreshed = next, now
	s.proc.sweep()
	return nil
}

// measure fills the figures of a backend that was found. Each kind is read even
// where another fails.
func (s *sampler) measure(now time.Time, r *Report) error {
	living := s.sumUp()
	memErr := s.memory(living, r)
	c := counters{at: now.Sub(s.start), used: unknown, idle: unknown, stalls: s.readPressure(), rx: unknown, tx: unknown}
	online, cpuErr := s.readCPU(living, &c)
	netErr := s.traffic.read(s.proc, s.plan.netDev)
	if netErr == nil {
		c.rx, c.tx = s.traffic.rx, s.traffic.tx
	}
	m, ok := s.window.push(c)
	if !ok {
		r.cpuFigures(online, s.plan.quotaCores, nil)
	} else {
		r.cpuFigures(online, s.plan.quotaCores, &m)
		r.pressureFigures(s.plan.pressure.scope, &m)
		r.networkFigures(&m)
	}
	if cpuErr != nil {
		return cpuErr
	}
	return memErr
}

// sumUp reads the processes whose figures are summed up, where a group's are not
// used, adds what they ran since the last time, and returns how many there are.
func (s *sampler) sumUp() (living int) {
	for i := range s.plan.family {
		m := &s.plan.family[i]
		c, err := s.proc.restat(m.procStat, m.path)
		if err != nil {
			m.rss, m.counted = 0, false
			continue
		}
		// A process seen for the first time adds what it runs from now on: all it ever
		// ran, in one window, would be a spike that never was.
		if m.counted {
			s.procTime += max(0, c.cpu-m.cpu)
		}
		m.procStat, m.counted = c, true
		living++
	}
	return living
}

// readCPU reads what the backend and the groups around it used, and what its CPUs were
// idle; it returns how many CPUs that are.
func (s *sampler) readCPU(living int, c *counters) (online int, err error) {
	for i := range c.levels {
		c.levels[i] = unknown
	}
	if c.idle, online, err = s.proc.idle(s.plan.cpus); err != nil {
		c.idle = unknown
		return 0, err
	}
	switch {
	case s.plan.cpuDir != "":
		if c.used, err = s.proc.usage(s.plan.cpuUsage); err != nil {
			c.used = unknown
			return online, err
		}
	case living == 0:
		return online, errGone
	default:
		c.used = s.procTime
	}
	for i, q := range s.plan.quotas {
		switch q.usage.path {
		case "":
		case s.plan.cpuUsage.path:
			c.levels[i] = c.used
		default:
			if n, err := s.proc.usage(q.usage); err == nil {
				c.levels[i] = n
			}
		}
	}
	return online, nil
}

func (s *sampler) memory(living int, r *Report) error {
	var own int64
	var err error
	s.levels = s.levels[:0]
	if s.plan.memDir != "" {
		if own, err = s.proc.workingSet(s.plan.memFiles); err != nil {
			return err
		}
	}
	for _, l := range s.plan.limits {
		used := own
		if l.dir != s.plan.memDir {
			if used, err = s.proc.workingSet(l.files); err != nil {
				return err
			}
		}
		s.levels = append(s.levels, memLevel{used: used, limit: l.bytes})
	}
	if s.plan.memDir == "" {
		if living == 0 {
			return errGone
		}
		own = sharedMemory(s.plan.family, s.levels, s.plan.hostUsed)
	}
	if s.plan.hostMemory > 0 {
		s.levels = append(s.levels, memLevel{used: own, limit: s.plan.hostMemory})
	}
	r.memFigures(own, s.levels)
	return nil
}

// sharedMemory sums resident memory. Pages that processes share (a pre-fork server's
// preloaded data) count once in each, so the sum is bounded by what the host uses,
// and in any case by what a limited group around them uses.
func sharedMemory(family []member, limits []memLevel, hostUsed int64) int64 {
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
	text := s.plan.text
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
		p.pressure == q.pressure &&
		slices.EqualFunc(p.quotas, q.quotas, func(a, b quotaLevel) bool { return a.usage == b.usage })
}

func (p plan) describe() string {
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
