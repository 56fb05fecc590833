package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/agentstats"
	"outrigger/test/harness"
)

// The cost of agents: of one beside a backend that works, and of asking 50 of them.
const (
	agentClients  = 70   // connections to the backend
	agentRate     = 300  // requests per second on them
	agentSidecars = 1000 // connections that poll: two polls a second each, as sidecars do
	agentPolls    = 2000 // per second
	askedAgents   = 50
)

const (
	keyShare   = "cpu_percent_of_a_core"
	keyPerPoll = "cpu_us_per_poll"
	keyRSS     = "rss_bytes"
)

func agentMetrics() []metric {
	return []metric{
		{key: keyShare, label: "CPU % of a core", digits: 2, spread: true},
		{key: keyPerPoll, label: "CPU µs/poll", digits: 1, spread: true},
		{key: keyRate, label: "polls/s"},
		{key: keyRSS, label: "RSS MiB", scale: 1 << 20, digits: 1, spread: true},
		{key: keyPeak, label: "peak RSS MiB", scale: 1 << 20, digits: 1},
	}
}

// Rows of the table.
const (
	agentIdle   = "agent, asked by nobody"
	agentBusy   = "agent, 1000 sidecars, 2000 polls/s"
	sidecarIdle = "sidecar, 50 endpoints"
	sidecarBusy = "sidecar, 50 endpoints with agents"
)

// agentCost measures an agent and a sidecar that asks agents.
func (b *bench) agentCost(ctx context.Context) (*result, error) {
	r := &result{
		Name: agentCase, Title: "what agents and asking them cost", metrics: agentMetrics(), headline: keyShare,
		names: []string{agentIdle, agentBusy, sidecarIdle, sidecarBusy},
		Setting: fmt.Sprintf("%d rounds of %d s; the agent counts requests on the %d connections of a backend that gets %d/s,\n"+
			"and takes a sample every 250 ms; sidecars ask every 500 ms; µs/poll of a sidecar are what agents add",
			b.opt.rounds, b.agentSeconds(), agentClients, agentRate),
	}
	if need := uint64(2*agentSidecars + 1000); b.files < need {
		return nil, fmt.Errorf("the limit of open files is %d, too low for %d connections: raise it (ulimit -n %d)", b.files, agentSidecars, need)
	}
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	var procs []*harness.Process
	defer func() {
		for _, p := range procs {
			_ = p.Stop(2 * time.Second) // it has to go either way, and Stop kills in the end
		}
	}()
	backend, port, err := b.startAnswering(ctx)
	if backend != nil {
		procs = append(procs, backend)
	}
	if err != nil {
		return nil, err
	}
	busy, err := dialAll(ctx, "127.0.0.1:"+strconv.Itoa(port), agentClients)
	if err != nil {
		return nil, err
	}
	defer busy.close()
	helpers.Go(func() { busy.run(ctx, agentRate, "GET / HTTP/1.1\r\nHost: backend\r\n\r\n") })
	for i := range b.opt.rounds {
		b.say("round %d", i+1)
		values, err := b.agentRound(ctx, port)
		if err == nil {
			err = busy.failure()
		}
		if err != nil {
			return r, fmt.Errorf("round %d: %w", i+1, err)
		}
		r.Rounds = append(r.Rounds, values)
	}
	return r, nil
}

func (b *bench) agentSeconds() int { return 2 * b.opt.seconds }

// startAnswering starts a backend that answers small requests.
func (b *bench) startAnswering(ctx context.Context) (*harness.Process, int, error) {
	ports, err := harness.FreePorts(1)
	if err != nil {
		return nil, 0, err
	}
	const name = "answering"
	p, err := b.startNginx(name, b.nginxHead(name)+`
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  `+b.nginxTemp(name)+`
  server { listen 127.0.0.1:`+strconv.Itoa(ports[0])+`; location / { return 200 "ok\n"; } }
}
`, b.loadCPU)
	if err != nil {
		return nil, 0, err
	}
	err = await(ctx, p, name, func() error { _, err := b.get(ctx, "127.0.0.1:"+strconv.Itoa(ports[0]), "/"); return err })
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, b.logOf(name))
	}
	return p, ports[0], err
}

// agentRound measures a fresh agent and fresh sidecars.
func (b *bench) agentRound(ctx context.Context, backend int) (_ round, err error) {
	ports, err := harness.FreePorts(1)
	if err != nil {
		return nil, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(ports[0])
	config := fmt.Sprintf("agent {\n  listen = %q\n  backend { port = %d }\n}\n", addr, backend)
	agent, err := b.spawn("agent", b.binary, config, b.proxyCPU, []string{"GOMAXPROCS=1"}, "agent", "-config")
	if err != nil {
		return nil, err
	}
	defer agent.Stop(2 * time.Second) // it has to go either way, and Stop kills in the end
	if err := await(ctx, agent, "agent", func() error { return b.tellsInFlight(ctx, addr) }); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, b.logOf("agent"))
	}
	// It has been asked just now, and expects to be for 5 s.
	if err := pause(ctx, 6*time.Second); err != nil {
		return nil, err
	}
	values := round{}
	if values[agentIdle], err = b.share(ctx, agent.PID()); err != nil {
		return nil, err
	}
	polls, err := dialAll(ctx, addr, agentSidecars)
	if err != nil {
		return nil, err
	}
	polling, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		polls.run(polling, agentPolls, "GET "+agentstats.ReportPath+" HTTP/1.1\r\nHost: "+addr+"\r\n"+agentstats.InFlightHeader+": 3\r\n\r\n")
	})
	before := time.Now()
	answered := polls.answered.Load()
	values[agentBusy], err = b.share(ctx, agent.PID())
	answered = polls.answered.Load() - answered
	perSecond(values[agentBusy], float64(answered)/time.Since(before).Seconds(), 0)
	stop()
	done.Wait()
	polls.close()
	if err = errors.Join(err, polls.failure()); err != nil {
		return nil, err
	}
	for name, with := range map[string]string{sidecarIdle: "", sidecarBusy: strconv.Itoa(ports[0])} {
		if values[name], err = b.askingSidecar(ctx, with); err != nil {
			return nil, err
		}
	}
	perSecond(values[sidecarBusy], values[sidecarBusy][keyRate], values[sidecarIdle][keyShare])
	return values, nil
}

// tellsInFlight tells whether an agent has all its figures.
func (b *bench) tellsInFlight(ctx context.Context, addr string) error {
	text, err := b.get(ctx, addr, agentstats.ReportPath)
	if err != nil {
		return err
	}
	r, err := agentstats.Decode([]byte(text))
	if err == nil && (r.InFlight.IsZero() || r.Used.IsZero()) {
		err = fmt.Errorf("the agent does not tell in_flight and used: %s", text)
	}
	return err
}

// share measures a process over the time of a round, after a while to settle.
func (b *bench) share(ctx context.Context, pid int) (figures, error) {
	if err := pause(ctx, time.Second); err != nil {
		return nil, err
	}
	cpu, err := cpuTime(pid)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := pause(ctx, time.Duration(b.agentSeconds())*time.Second); err != nil {
		return nil, err
	}
	end, err := cpuTime(pid)
	if err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	mem, err := memoryOf(pid)
	return figures{keyShare: 100 * (end - cpu).Seconds() / elapsed.Seconds(), keyRSS: mem.rss, keyPeak: mem.peak}, err
}

// perSecond adds what the share of a core above the other share comes to for each of
// that many polls a second.
func perSecond(f figures, rate, other float64) {
	if f != nil && rate > 0 {
		f[keyRate], f[keyPerPoll] = rate, (f[keyShare]-other)/100*1e6/rate
	}
}

// askingSidecar measures a sidecar with 50 endpoints, which all have the agent on the
// port; "": none.
func (b *bench) askingSidecar(ctx context.Context, agent string) (figures, error) {
	client, err := b.consul.Client()
	if err != nil {
		return nil, err
	}
	service := "asked" + agent
	for i := range askedAgents {
		r := &api.AgentServiceRegistration{ID: fmt.Sprintf("%s-%d", service, i), Name: service, Address: "127.0.0.1", Port: 20000 + i}
		if agent != "" {
			r.Meta = map[string]string{agentstats.MetaKey: agent}
		}
		if err := client.Agent().ServiceRegister(r); err != nil {
			return nil, fmt.Errorf("register an endpoint in Consul: %w", err)
		}
		defer func() { _ = client.Agent().ServiceDeregister(r.ID) }() // Consul ends with us
	}
	ports, err := harness.FreePorts(2)
	if err != nil {
		return nil, err
	}
	control := "127.0.0.1:" + strconv.Itoa(ports[1])
	config := fmt.Sprintf("consul { address = %q }\nadmin { listen = %q }\nlog { level = \"warn\" }\nservice %q {\n  listen = \"127.0.0.1:%d\"\n  policy \"resource\" {}\n}\n",
		b.consul.Addr(), control, service, ports[0])
	p, err := b.spawn("asking", b.binary, config, b.proxyCPU, []string{"GOMAXPROCS=1"}, "sidecar", "-config")
	if err != nil {
		return nil, err
	}
	defer p.Stop(2 * time.Second) // it has to go either way, and Stop kills in the end
	polls := func() (n float64, err error) {
		text, err := b.get(ctx, control, "/metrics")
		if err != nil {
			return 0, err
		}
		return agentAnswers(text, askedAgents)
	}
	if err := await(ctx, p, "asking", func() error {
		if agent == "" {
			_, err := b.get(ctx, control, "/metrics")
			return err
		}
		_, err := polls()
		return err
	}); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, b.logOf("asking"))
	}
	var before, after float64
	start := time.Now()
	if agent != "" {
		if before, err = polls(); err != nil {
			return nil, err
		}
	}
	f, err := b.share(ctx, p.PID())
	if err != nil || agent == "" {
		return f, err
	}
	if after, err = polls(); err != nil {
		return nil, err
	}
	f[keyRate] = (after - before) / time.Since(start).Seconds()
	return f, nil
}

// agentAnswers sums the polls of all endpoints in a sidecar's metrics; it is an error
// when they are not as many as expected, or one was never answered.
func agentAnswers(metrics string, endpoints int) (float64, error) {
	const name = "outrigger_endpoint_agent_polls_total{"
	sum, seen := 0.0, 0
	for line := range strings.Lines(metrics) {
		if !strings.HasPrefix(line, name) {
			continue
		}
		fields := strings.Fields(line)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			return 0, err
		}
		if v > 0 {
			seen++
		}
		sum += v
	}
	if seen != endpoints {
		return 0, fmt.Errorf("%d of %d endpoints' agents were asked", seen, endpoints)
	}
	return sum, nil
}
