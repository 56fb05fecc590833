package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// closedCase is a load at which a proxy is as fast as it can be.
type closedCase struct {
	name, title string
	load        load
}

func closedCases() []closedCase {
	return []closedCase{
		{"small-1", "small GET, 1 connection", load{path: smallPath, conns: 1}},
		{"small-64", "small GET, 64 connections", load{path: smallPath, conns: 64}},
		{"small-512", "small GET, 512 connections", load{path: smallPath, conns: 512}},
		{"post-16k", "16 KiB POST, 64 connections", load{path: postPath, conns: 64, post: postSize}},
		{"get-64k", "64 KiB response, 64 connections", load{path: "/64k", conns: 64}},
		{"get-1m", "1 MiB response, 16 connections", load{path: "/1m", conns: 16}},
		{"close-32", "small GET, a new client connection for each, 32 at once", load{path: smallPath, conns: 32, close: true}},
	}
}

const (
	idleCase    = "idle-5000"
	latencyCase = "latency"
	slowCase    = "slow"
	balanceCase = "balance"
	flaskCase   = "flask"
	agentCase   = "agent"

	discoveryCase = "discovery"
	catalogCase   = "catalog"
)

// ownFleet are the cases with backends of their own. They take minutes and
// measure the choice of backends, agents or discovery, not the proxy: they are run
// when asked for.
func ownFleet() []string { return append([]string{balanceCase, flaskCase, agentCase}, ownConsul()...) }

// ownConsul are those of them with a Consul cluster of their own, and without
// peers.
func ownConsul() []string { return []string{discoveryCase, catalogCase} }

func caseNames() []string {
	var names []string
	for _, c := range closedCases() {
		names = append(names, c.name)
	}
	return append(append(names, idleCase, latencyCase, slowCase), ownFleet()...)
}

// chooseCases reads the -cases flag. The cases come in their own order.
func chooseCases(list string) ([]string, error) {
	chosen := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "all":
			for _, n := range caseNames() {
				chosen[n] = chosen[n] || n != slowCase && !slices.Contains(ownFleet(), n)
			}
		case slices.Contains(caseNames(), name):
			chosen[name] = true
		default:
			return nil, fmt.Errorf("there is no case %q; there are all, %s", name, strings.Join(caseNames(), ", "))
		}
	}
	return slices.DeleteFunc(caseNames(), func(n string) bool { return !chosen[n] }), nil
}

func (b *bench) runCase(ctx context.Context, name string) ([]*result, error) {
	defer b.stopProxies()
	var r *result
	var err error
	switch name {
	case idleCase:
		r, err = b.idle(ctx)
	case latencyCase:
		r, err = b.latency(ctx)
	case slowCase:
		return b.slow(ctx)
	case balanceCase:
		return b.balance(ctx)
	case flaskCase:
		return b.flask(ctx)
	case agentCase:
		r, err = b.agentCost(ctx)
	case discoveryCase:
		r, err = b.discovery(ctx)
	case catalogCase:
		r, err = b.catalog(ctx)
	default:
		i := slices.IndexFunc(closedCases(), func(c closedCase) bool { return c.name == name })
		r, err = b.closedLoop(ctx, closedCases()[i]) // chooseCases knows no others
	}
	return []*result{r}, err
}

// Keys of the figures of a closed-loop case, with their units.
const (
	keyCPU      = "cpu_us_per_request"
	keyRate     = "requests_per_second"
	keyP50      = "p50_us"
	keyP99      = "p99_us"
	keyPeak     = "peak_rss_bytes"
	keyRequests = "requests"
	keyForeign  = "core_taken_by_others"
)

func closedMetrics() []metric {
	return []metric{
		{key: keyCPU, label: "CPU µs/req", digits: 2, spread: true, compare: lower},
		{key: keyRate, label: "req/s", compare: higher},
		{key: keyP50, label: "p50 µs", compare: lower},
		{key: keyP99, label: "p99 µs", compare: lower},
		{key: keyPeak, label: "peak RSS MiB", scale: 1 << 20, digits: 1, compare: lower},
	}
}

func (b *bench) closedLoop(ctx context.Context, c closedCase) (*result, error) {
	r := &result{
		Name: c.name, Title: c.title, metrics: closedMetrics(), headline: keyCPU,
		Setting: fmt.Sprintf("%d rounds of %d s", b.opt.rounds, b.opt.seconds),
	}
	if err := b.startProxies(ctx, proxyNames(), variant{}); err != nil {
		return nil, err
	}
	for _, p := range b.proxies {
		if _, err := b.sample(ctx, p, c.load, 1); err != nil {
			return nil, fmt.Errorf("warming up %s: %w", p.name, err)
		}
	}
	for i := range b.opt.rounds {
		values := round{}
		for _, name := range rotated(proxyNames(), i) {
			s, err := b.sample(ctx, b.proxy(name), c.load, b.opt.seconds)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w\n%s", name, i+1, err, b.logOf(name))
			}
			values[name] = s
		}
		r.Rounds = append(r.Rounds, values)
	}
	return r, nil
}

// sample loads one proxy for some seconds and reads its accounts.
func (b *bench) sample(ctx context.Context, p *proxy, l load, seconds int) (figures, error) {
	if err := b.settle(ctx); err != nil {
		return nil, err
	}
	before, err := b.counts(ctx)
	if err != nil {
		return nil, err
	}
	if err := resetPeak(p.pid); err != nil {
		return nil, err
	}
	meter, err := b.startMeter(p)
	if err != nil {
		return nil, err
	}
	w, err := b.wrk(ctx, p.addr, l, seconds)
	if err != nil {
		return nil, err
	}
	cpu, foreign, err := meter.stop()
	if err != nil {
		return nil, err
	}
	mem, err := memoryOf(p.pid)
	if err != nil {
		return nil, err
	}
	after, err := b.counts(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkCounts(w.requests, int64(l.conns), after.requests-before.requests, after.accepts-before.accepts); err != nil {
		return nil, err
	}
	return figures{
		keyCPU:      float64(cpu.Nanoseconds()) / 1e3 / float64(w.requests),
		keyRate:     float64(w.requests) / w.duration.Seconds(),
		keyP50:      float64(w.p50.Microseconds()),
		keyP99:      float64(w.p99.Microseconds()),
		keyPeak:     mem.peak,
		keyRequests: float64(w.requests),
		keyForeign:  foreign,
	}, nil
}

// checkCounts compares what clients and backends saw. What was in flight when
// the load ended was counted by backends alone, and so was our asking; a busy
// machine may push a little of the load before into this one.
func checkCounts(answered, conns, served, accepted int64) error {
	const asking = 8
	if served < answered || served > answered+2*conns+asking+answered/100 {
		return fmt.Errorf("clients got %d answers and the backends gave %d: with %d connections these must be as good as the same", answered, served, conns)
	}
	if limit := 4*conns + 64 + served/50; accepted > limit {
		return fmt.Errorf("the backends accepted %d connections for %d requests: connections to backends are not kept alive", accepted, served)
	}
	return nil
}

// meter measures a stretch of a proxy's processor time.
type meter struct {
	pid, core    int
	start        time.Time
	cpu, coreCPU time.Duration
}

func (b *bench) startMeter(p *proxy) (m meter, err error) {
	m = meter{pid: p.pid, core: b.proxyCPU[0], start: time.Now()}
	if m.coreCPU, err = coreBusy(m.core); err != nil {
		return m, err
	}
	m.cpu, err = cpuTime(m.pid)
	return m, err
}

// stop returns the processor time the proxy used, and the share of its
// processor that others took meanwhile, 0 to 1.
func (m meter) stop() (cpu time.Duration, foreign float64, err error) {
	cpu, err = cpuTime(m.pid)
	if err != nil {
		return 0, 0, err
	}
	busy, err := coreBusy(m.core)
	if err != nil {
		return 0, 0, err
	}
	cpu -= m.cpu
	foreign = (busy - m.coreCPU - cpu).Seconds() / time.Since(m.start).Seconds()
	return cpu, max(0, foreign), nil
}
