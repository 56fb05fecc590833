package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"outrigger/test/harness"
)

// Keys of the figures of an attack.
const (
	keyHeld      = "connections_at_worst"
	keyLife      = "median_life_seconds"
	keyLongest   = "longest_life_seconds"
	keyAlive     = "still_open_at_the_end"
	keyUpstream  = "backend_connections_at_worst"
	keyInFlight  = "leases_at_worst"
	keyProbes    = "probes"
	keyFailed    = "probes_failed"
	keyGap       = "longest_gap_ms"
	keyAttackCPU = "cpu_ms"
)

func slowMetrics() []metric {
	return []metric{
		{key: keyHeld, label: "conns at worst"},
		{key: keyLife, label: "median life s", digits: 1},
		{key: keyLongest, label: "longest s", digits: 1},
		{key: keyAlive, label: "open at end"},
		{key: keyUpstream, label: "backend conns"},
		{key: keyInFlight, label: "leases"},
		{key: keyProbes, label: "probes"},
		{key: keyFailed, label: "failed"},
		{key: keyGap, label: "longest gap ms"},
		{key: keyAttackCPU, label: "CPU ms"},
		{key: keyPeak, label: "peak RSS MiB", scale: 1 << 20, digits: 1},
	}
}

// attack is a mode of slowhttptest.
type attack struct {
	name, title string
	path        string
	seconds     int
	apart       bool // one proxy after the other, for it costs them much
	args        []string
}

// attacks send or read a little every two seconds, well within every idle
// timeout. That on heads lasts long enough to see a limit of 10 s strike, the
// usual one; all together they take less than a minute.
func attacks() []attack {
	return []attack{
		{"slow-headers", "request heads that never end, 10 bytes every 2 s", smallPath, 13, false,
			[]string{"-H", "-i", "2", "-x", "10"}},
		{"slow-body", "POST bodies of 16 KiB, 10 bytes every 2 s", postPath, 9, false,
			[]string{"-B", "-i", "2", "-x", "10", "-s", strconv.Itoa(postSize)}},
		{"slow-upload", "POST bodies of 1 MiB, 10 bytes every 2 s", postPath, 9, false,
			[]string{"-B", "-i", "2", "-x", "10", "-s", strconv.Itoa(1 << 20)}},
		{"slow-read", "answers of 1 MiB, of which 64 bytes are read every 2 s", "/1m", 10, true,
			[]string{"-X", "-n", "2", "-z", "64", "-w", "512", "-y", "1024", "-k", "1"}},
	}
}

const (
	slowConns  = 500
	slowRamp   = 250 // new connections per second
	slowProbe  = 100 * time.Millisecond
	probeLimit = 2 * time.Second
	// slowTimeouts are what HAProxy's users customarily set.
	slowTimeouts = "timeout http-request 10s\n  timeout client 30s\n  timeout server 30s"
)

// slow attacks ours and HAProxy with the same.
func (b *bench) slow(ctx context.Context) ([]*result, error) {
	var results []*result
	for _, a := range attacks() {
		if a.seconds = max(a.seconds, b.opt.seconds); b.opt.quick {
			a.seconds = 4
		}
		values, err := b.attack(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.name, err)
		}
		results = append(results, &result{
			Name: a.name, Title: a.title, metrics: slowMetrics(), Rounds: []round{values},
			Setting: fmt.Sprintf("slowhttptest, %d connections for %d s; haproxy: timeout http-request 10s, client 30s; outrigger: defaults", slowConns, a.seconds),
		})
	}
	return results, nil
}

// attack measures both proxies, at once unless they would be in each other's way.
func (b *bench) attack(ctx context.Context, a attack) (round, error) {
	names := []string{haproxy, ours}
	values := round{}
	if a.apart {
		for _, name := range names {
			if err := b.startProxies(ctx, []string{name}, variant{haproxyTimeouts: slowTimeouts}); err != nil {
				return nil, err
			}
			var err error
			if values[name], err = b.underAttack(ctx, b.proxy(name), a); err != nil {
				return nil, err
			}
		}
		return values, nil
	}
	if err := b.startProxies(ctx, names, variant{haproxyTimeouts: slowTimeouts}); err != nil {
		return nil, err
	}
	list, errs := make([]figures, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { list[i], errs[i] = b.underAttack(ctx, b.proxy(name), a) })
	}
	wg.Wait()
	for i, name := range names {
		values[name] = list[i]
	}
	return values, errors.Join(errs...)
}

// underAttack runs slowhttptest against a proxy, with a look at the proxy and
// a probe of it all the while.
func (b *bench) underAttack(ctx context.Context, p *proxy, a attack) (figures, error) {
	before, err := cpuTime(p.pid)
	if err != nil {
		return nil, err
	}
	inner, stop := context.WithCancel(ctx)
	defer stop()
	var pr probes
	var seen sightings
	var seenErr error
	var wg sync.WaitGroup
	wg.Go(func() { pr.run(inner, p.addr) })
	wg.Go(func() { seenErr = b.watch(inner, p, &seen) })
	_, err = b.output(ctx, harness.Spec{
		Path: b.tools["slowhttptest"], CPUs: b.loadCPU, Dir: b.dir,
		Args: append([]string{"-c", strconv.Itoa(slowConns), "-r", strconv.Itoa(slowRamp), "-l", strconv.Itoa(a.seconds),
			"-p", "3", "-v", "0", "-u", "http://" + p.addr + a.path}, a.args...),
	})
	stop()
	wg.Wait()
	if err := errors.Join(err, seenErr); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	after, err := cpuTime(p.pid)
	if err != nil {
		return nil, err
	}
	mem, err := memoryOf(p.pid)
	if err != nil {
		return nil, err
	}
	f := seen.figures(time.Duration(a.seconds) * time.Second)
	f[keyProbes], f[keyFailed] = float64(pr.sent), float64(pr.failed)
	f[keyGap] = float64(pr.gap.Milliseconds())
	f[keyAttackCPU], f[keyPeak] = float64((after - before).Milliseconds()), mem.peak
	if f[keyHeld] < slowConns/2 {
		return nil, fmt.Errorf("%s: only %.0f of %d connections of the attack were ever seen", p.name, f[keyHeld], slowConns)
	}
	return f, nil
}

// probes are normal requests, each on a connection of its own.
type probes struct {
	sent, failed int
	gap          time.Duration // longest time from one answer to the next
}

func (p *probes) run(ctx context.Context, addr string) {
	tick := time.NewTicker(slowProbe)
	defer tick.Stop()
	last := time.Now()
	for {
		p.sent++
		if err := probe(addr); err != nil {
			p.failed++
		} else {
			p.gap = max(p.gap, time.Since(last))
			last = time.Now()
		}
		select {
		case <-ctx.Done():
			p.gap = max(p.gap, time.Since(last)) // there may never have been an answer
			return
		case <-tick.C:
		}
	}
}

func probe(addr string) error {
	c, err := net.DialTimeout("tcp", addr, probeLimit)
	if err != nil {
		return err
	}
	defer c.Close()
	return askOn(c, probeLimit)
}

// sightings are what was seen of a proxy in several looks.
type sightings struct {
	conns                  map[int]*sighting // client connections by their port
	held, upstream, leases int               // at worst
}

// sighting is when a connection was first and last seen.
type sighting struct{ first, last time.Duration }

// watch looks every 200 ms until ctx ends.
func (b *bench) watch(ctx context.Context, p *proxy, s *sightings) error {
	start := time.Now()
	for {
		now, err := socketsOf(p.pid, p.addr, b.backends.ports)
		if err != nil {
			return err
		}
		leases, err := b.leases(ctx, p)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ask for its leases: %w", err)
		}
		s.add(time.Since(start), now, leases)
		if pause(ctx, 200*time.Millisecond) != nil {
			return nil
		}
	}
}

func (s *sightings) add(at time.Duration, now sockets, leases int) {
	if s.conns == nil {
		s.conns = map[int]*sighting{}
	}
	for _, port := range now.clients {
		if c := s.conns[port]; c != nil {
			c.last = at
		} else {
			s.conns[port] = &sighting{at, at}
		}
	}
	s.held, s.upstream, s.leases = max(s.held, len(now.clients)), max(s.upstream, now.backends), max(s.leases, leases)
}

// figures sum up an attack of some length. Probes live too short to be seen
// often.
func (s *sightings) figures(length time.Duration) figures {
	lives := []time.Duration{0}
	alive := 0
	for _, c := range s.conns {
		lives = append(lives, c.last-c.first)
		if c.last >= length-time.Second { // a little early: slowhttptest closes them one by one
			alive++
		}
	}
	slices.Sort(lives)
	return figures{
		keyHeld: float64(s.held), keyUpstream: float64(s.upstream), keyInFlight: float64(s.leases), keyAlive: float64(alive),
		keyLife: percentile(lives, 50).Seconds(), keyLongest: percentile(lives, 100).Seconds(),
	}
}

// leases asks a proxy how many requests it has with backends.
func (b *bench) leases(ctx context.Context, p *proxy) (int, error) {
	if p.name == ours {
		s, err := b.status(ctx, p)
		if err != nil {
			return 0, err
		}
		n := 0
		for i := range s.Endpoints {
			n += s.Endpoints[i].InFlight
		}
		return n, nil
	}
	c, err := net.DialTimeout("unix", p.control, time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := c.Write([]byte("show stat\n")); err != nil {
		return 0, err
	}
	return parseSessions(c)
}
