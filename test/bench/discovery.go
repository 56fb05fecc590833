package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/test/harness"
)

// The case discovery: how long it takes from Consul to the first request, and to
// the last.
const (
	discoveryLanes    = 5   // services that are measured side by side: a run is mostly waiting
	discoveryStanding = 3   // backends that are always there, of each
	discoveryRate     = 200 // requests per second, of each
	// discoveryRest is the time before what is measured: a sidecar reads twice at
	// once and then once a second (rate_burst, rate_interval), and registering or
	// deregistering takes two reads. Without it that pace would be measured.
	discoveryRest = 2200 * time.Millisecond
	discoveryLook = 800 * time.Millisecond // without a request, until the last is called that
	discoveryRun  = 2*discoveryRest + 2*discoveryLook
	discoveryLong = 20 * time.Second // that it takes this long is a failure
)

// Keys of its figures, in ms.
const (
	keyFirst50  = "first_request_p50_ms"
	keyFirst99  = "first_request_p99_ms"
	keyFirstMax = "first_request_max_ms"
	keyLast50   = "last_request_p50_ms"
	keyLast99   = "last_request_p99_ms"
	keyLastMax  = "last_request_max_ms"
	keyRuns     = "runs"
	keyReads    = "reads_per_run"
)

func discoveryMetrics() []metric {
	return []metric{
		{key: keyFirst50, label: "registered to first request, ms: p50", digits: 1},
		{key: keyFirst99, label: "p99", digits: 1},
		{key: keyFirstMax, label: "max", digits: 1},
		{key: keyLast50, label: "critical to last request, ms: p50", digits: 1},
		{key: keyLast99, label: "p99", digits: 1},
		{key: keyLastMax, label: "max", digits: 1},
		{key: keyReads, label: "reads/run", digits: 1},
	}
}

const (
	discoveryStreaming = "agent streams (default)"
	discoveryBlocking  = "agent asks the servers"
)

// discoveryRuns is the number of runs in a round, all services together.
func (b *bench) discoveryRuns() int {
	if b.opt.quick {
		return 2 * discoveryLanes
	}
	return min(100, 20*b.opt.rounds)
}

// ownRounds is how often a case that takes minutes is measured: once by default.
func (b *bench) ownRounds() int { return max(1, b.opt.rounds/5) }

// discovery measures both ways in which a client agent follows the servers.
func (b *bench) discovery(ctx context.Context) (*result, error) {
	r := &result{
		Name: discoveryCase, Title: "from a change in Consul to the requests", metrics: discoveryMetrics(), headline: keyFirst50,
		names: []string{discoveryStreaming, discoveryBlocking},
		Setting: fmt.Sprintf("%d round(s) of %d runs over %d services; three Consul servers and a client agent; each has %d backends and one that comes and goes\n"+
			"about every %v, and %d requests/s, so that a backend gets one each %d ms; times begin when Consul's API has answered; slow_start is off",
			b.ownRounds(), b.discoveryRuns(), discoveryLanes, discoveryStanding, discoveryRun, discoveryRate, 1000*(discoveryStanding+1)/discoveryRate),
	}
	for i := range b.ownRounds() {
		values := round{}
		for _, name := range rotated(r.names, i) {
			f, err := b.discoveryRow(ctx, name == discoveryStreaming)
			if err != nil {
				return r, fmt.Errorf("%s: %w\n%s", name, err, b.logOf("discovery"))
			}
			values[name] = f
		}
		r.Rounds = append(r.Rounds, values)
	}
	return r, nil
}

// discoveryRow measures with a cluster of its own.
func (b *bench) discoveryRow(ctx context.Context, streaming bool) (figures, error) {
	cluster, err := b.startCluster(ctx, fmt.Sprintf("use_streaming_backend = %t\n", streaming))
	if err != nil {
		return nil, err
	}
	defer cluster.Stop() // it has to go either way, and Stop kills
	addrs, admin, stop, err := b.discoverySidecar(ctx, cluster.Agent.Addr())
	if err != nil {
		return nil, err
	}
	defer stop()
	var mu sync.Mutex
	var first, last []float64
	var failed error
	var lanes sync.WaitGroup
	for i, addr := range addrs {
		lanes.Go(func() {
			f, l, err := b.discoveryLane(ctx, cluster, i, addr)
			mu.Lock()
			defer mu.Unlock()
			first, last, failed = append(first, f...), append(last, l...), errors.Join(failed, err)
		})
	}
	if lanes.Wait(); failed != nil {
		return nil, failed
	}
	text, err := b.get(ctx, admin, "/metrics")
	if err != nil {
		return nil, err
	}
	slices.Sort(first)
	slices.Sort(last)
	return figures{
		keyFirst50: percentile(first, 50), keyFirst99: percentile(first, 99), keyFirstMax: slices.Max(first),
		keyLast50: percentile(last, 50), keyLast99: percentile(last, 99), keyLastMax: slices.Max(last),
		keyRuns: float64(len(first)), keyReads: sumOf(text, "outrigger_discovery_answers_total") / float64(len(first)),
	}, nil
}

func laneName(i int) string { return serviceName + "-" + strconv.Itoa(i) }

// discoveryLane measures one service's part of the runs, in ms.
func (b *bench) discoveryLane(ctx context.Context, cluster *harness.Cluster, lane int, addr string) (first, last []float64, err error) {
	service := laneName(lane)
	d := &discoveryRig{service: service}
	defer d.close()
	if d.client, err = cluster.Agent.Client(); err != nil {
		return nil, nil, err
	}
	for i := range discoveryStanding {
		if _, err := d.register("standing-"+strconv.Itoa(i), nil); err != nil {
			return nil, nil, err
		}
	}
	load := &steadyLoad{url: "http://" + addr + "/", client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	for deadline := time.Now().Add(discoveryLong); ; {
		if _, err = b.get(ctx, addr, "/"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return nil, nil, fmt.Errorf("%s does not serve: %w", service, err)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return nil, nil, err
		}
	}
	loading, end := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { load.run(loading, discoveryRate) })
	defer done.Wait()
	defer end()
	// Not all at once: an agent syncs one registration after the other.
	if err := pause(ctx, discoveryRest+time.Duration(lane)*discoveryRun/discoveryLanes); err != nil {
		return nil, nil, err
	}
	for i := range b.discoveryRuns() / discoveryLanes {
		f, l, err := d.visit(ctx, "visitor-"+strconv.Itoa(i))
		if err == nil {
			err = load.failure()
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s, run %d: %w", service, i+1, err)
		}
		first, last = append(first, f.Seconds()*1e3), append(last, l.Seconds()*1e3)
	}
	return first, last, nil
}

// startCluster starts a Consul cluster away from the proxy's processor. agent is
// the client agent's configuration.
func (b *bench) startCluster(ctx context.Context, agent string) (*harness.Cluster, error) {
	path, err := harness.FindOrBuildConsul(ctx, b.say)
	if err != nil {
		return nil, err
	}
	c, err := harness.StartCluster(ctx, harness.ClusterOptions{Path: path, AgentConfig: agent})
	if err != nil {
		return nil, err
	}
	for _, n := range c.Nodes() {
		if err := pin(n.Process().PID(), b.loadCPU); err != nil {
			return nil, errors.Join(err, c.Stop())
		}
	}
	return c, nil
}

// discoverySidecar starts a sidecar with a listener for each service, which have no
// backend yet.
func (b *bench) discoverySidecar(ctx context.Context, consul string) (addrs []string, admin string, stop func(), err error) {
	ports, err := harness.FreePorts(1 + discoveryLanes)
	if err != nil {
		return nil, "", nil, err
	}
	admin = "127.0.0.1:" + strconv.Itoa(ports[0])
	config := fmt.Sprintf("consul { address = %q }\nadmin { listen = %q }\nlog { level = \"info\" }\n", consul, admin)
	for i, port := range ports[1:] {
		addrs = append(addrs, "127.0.0.1:"+strconv.Itoa(port))
		config += fmt.Sprintf("service %q {\n  listen = %q\n  slow_start = \"0s\"\n}\n", laneName(i), addrs[i])
	}
	p, err := b.spawn("discovery", b.binary, config, b.proxyCPU, []string{"GOMAXPROCS=1"}, "sidecar", "-config")
	if err != nil {
		return nil, "", nil, err
	}
	stop = func() { _ = p.Stop(2 * time.Second) } // it has to go either way, and Stop kills in the end
	if err := await(ctx, p, "sidecar", func() error { _, err := b.get(ctx, admin, "/healthz"); return err }); err != nil {
		stop()
		return nil, "", nil, err
	}
	return addrs, admin, stop, nil
}

// discoveryRig registers backends, which tell when they are asked.
type discoveryRig struct {
	service string
	client  *api.Client
	servers []*http.Server
}

func (d *discoveryRig) close() {
	for _, s := range d.servers {
		_ = s.Close()
	}
}

// callers are the times of the first and the newest request.
type callers struct {
	mu          sync.Mutex
	first, last time.Time
}

func (a *callers) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	a.mu.Lock()
	if a.first.IsZero() {
		a.first = now
	}
	a.last = now
	a.mu.Unlock()
	_, _ = io.WriteString(w, "ok\n")
}

func (a *callers) times() (first, last time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.first, a.last
}

// register starts a backend and registers it. Each has its own port and ID:
// one that comes and goes often would be kept out for that.
func (d *discoveryRig) register(id string, check *api.AgentServiceCheck) (*callers, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &callers{}
	s := &http.Server{Handler: a}
	d.servers = append(d.servers, s)
	go func() { _ = s.Serve(l) }() // until close
	err = d.client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: d.service + "-" + id, Name: d.service, Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Check: check,
	})
	if err != nil {
		err = fmt.Errorf("register a backend in Consul: %w", err)
	}
	return a, err
}

// visit has a backend come, fall ill and go. first is the time from its
// registration to its first request, last that from the failure of its check to
// its last; 0: none came after that.
func (d *discoveryRig) visit(ctx context.Context, id string) (first, last time.Duration, err error) {
	a, err := d.register(id, &api.AgentServiceCheck{CheckID: d.service + "-" + id, TTL: "1m", Status: api.HealthPassing})
	registered := time.Now()
	if err != nil {
		return 0, 0, err
	}
	var came time.Time
	for came.IsZero() {
		if came, _ = a.times(); time.Since(registered) > discoveryLong {
			return 0, 0, fmt.Errorf("%s has had no request for %v", id, discoveryLong)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return 0, 0, err
		}
	}
	if err := pause(ctx, discoveryRest-time.Since(registered)); err != nil {
		return 0, 0, err
	}
	if err := d.client.Agent().UpdateTTL(d.service+"-"+id, "", api.HealthCritical); err != nil {
		return 0, 0, fmt.Errorf("fail a check in Consul: %w", err)
	}
	ill := time.Now()
	newest := ill
	for time.Since(newest) < discoveryLook {
		if time.Since(ill) > discoveryLong {
			return 0, 0, fmt.Errorf("%s is critical and still has requests after %v", id, discoveryLong)
		}
		if err := pause(ctx, discoveryLook/4); err != nil {
			return 0, 0, err
		}
		if _, newest = a.times(); newest.Before(ill) {
			newest = ill
		}
	}
	if err := d.client.Agent().ServiceDeregister(d.service + "-" + id); err != nil {
		return 0, 0, fmt.Errorf("deregister a backend in Consul: %w", err)
	}
	return came.Sub(registered), newest.Sub(ill), pause(ctx, discoveryRest)
}

// steadyLoad asks at a rate, whether or not earlier requests were answered.
type steadyLoad struct {
	url    string
	client *http.Client
	mu     sync.Mutex
	failed error
}

func (l *steadyLoad) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

func (l *steadyLoad) run(ctx context.Context, rate int) {
	var out sync.WaitGroup
	defer out.Wait()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		out.Go(func() {
			if _, err := getWith(ctx, l.client, l.url); err != nil && ctx.Err() == nil {
				l.mu.Lock()
				defer l.mu.Unlock()
				if l.failed == nil {
					l.failed = err
				}
			}
		})
	}
}
