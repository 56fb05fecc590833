package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/agentstats"
	"outrigger/test/harness"
)

// The classic case: of three Flask apps two sleep, and six clients ask a proxy
// for ten answers each. The apps run as newcomers run them, under gunicorn with
// its defaults: one worker, which serves one request at a time.
const (
	gunicorn     = "gunicorn" // with Flask, as one tool
	flaskPython  = "/usr/bin/python3"
	flaskClients = 6
	flaskEach    = 10
	flaskSleep   = 5 * time.Second
	flaskLimit   = 5 * time.Minute // for one answer: round robin takes 30 s at most
)

const flaskApp = `import os, time
from flask import Flask
app = Flask(__name__)

@app.route("/")
def hello():
    time.sleep(float(os.environ["APP_SLEEP"]))
    return "Hello from Flask App " + os.environ["APP_NAME"] + "!"

@app.route("/ready")
def ready():
    return "yes"
`

const slowApp = "slow" // in the answers of those that sleep

const (
	keyTotal = "total_s"
	keyMeanS = "mean_s"
	keyLast  = "longest_s"
	keySlow  = "answers_of_slow_apps"
)

func flaskMetrics() []metric {
	return []metric{
		{key: keyTotal, label: "total s", digits: 1, spread: true, compare: lower},
		{key: keyMeanS, label: "mean s", digits: 2, spread: true, compare: lower},
		{key: keyLast, label: "longest s", digits: 1},
		{key: keySlow, label: "to slow apps", spread: true, compare: lower},
	}
}

func flaskContenders() []contender {
	return []contender{
		{proxy: haproxy, choice: "roundrobin"},
		{proxy: haproxy, choice: "leastconn"},
		{proxy: nginx},
		{proxy: nginx, choice: "least_conn"},
		{proxy: ours, choice: "least_conn"},
		{proxy: ours, choice: "peak_ewma"},
		flaskOwn(),
	}
}

func flaskOwn() contender { return contender{proxy: ours, choice: "resource"} }

// hasFlask tells whether Debian's Python has gunicorn and Flask.
func hasFlask() bool { return exec.Command(flaskPython, "-c", "import flask, gunicorn").Run() == nil }

// trio is one contender's apps.
type trio struct {
	contender
	ports []int
	procs []*harness.Process
}

// flask runs the classic case. The contenders run side by side, each with apps
// of its own: all of it is sleeping, and one after the other would take long.
func (b *bench) flask(ctx context.Context) ([]*result, error) {
	r := &result{
		Name: flaskCase, metrics: flaskMetrics(), headline: keyTotal, names: names(flaskContenders()), own: flaskOwn().name(),
		Title: fmt.Sprintf("%d clients ask %d times each, one proxy, 3 Flask apps under gunicorn (1 sync worker), of which 2 sleep %v", flaskClients, flaskEach, flaskSleep),
		Setting: fmt.Sprintf("%d rounds, the proxies fresh in each, the contenders side by side on apps of their own; all weights are equal;\n"+
			"outrigger resource has agents beside the apps, which see by the kernel what these have in flight", b.opt.rounds),
	}
	var all []*trio
	defer func() {
		for _, t := range all {
			t.stop()
		}
	}()
	dir := filepath.Join(b.dir, "flask")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "app.py"), []byte(flaskApp), 0o600); err != nil {
		return nil, err
	}
	b.say("starting %d Flask apps", 3*len(flaskContenders()))
	for _, c := range flaskContenders() {
		t := &trio{contender: c}
		all = append(all, t)
		if err := b.startTrio(ctx, t, dir); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name(), err)
		}
	}
	for i := range b.opt.rounds {
		b.say("round %d", i+1)
		values, err := b.flaskRound(ctx, all)
		if err != nil {
			return []*result{r}, fmt.Errorf("round %d: %w", i+1, err)
		}
		r.Rounds = append(r.Rounds, values)
	}
	return []*result{r}, nil
}

func (t *trio) stop() {
	for _, p := range t.procs {
		_ = p.Stop(2 * time.Second) // it has to go either way, and Stop kills in the end
	}
}

// service is the trio's name in Consul.
func (t *trio) service() string { return "flask-" + t.choice }

func (b *bench) startTrio(ctx context.Context, t *trio, dir string) error {
	var err error
	if t.ports, err = harness.FreePorts(3); err != nil {
		return err
	}
	for i, port := range t.ports {
		name, sleep := slowApp, flaskSleep
		if i == 1 { // the second, as in the textbook
			name, sleep = "quick", 0
		}
		log, err := os.OpenFile(b.logPath("gunicorn"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer log.Close() // the child has its own copy
		p, err := harness.StartProcess(harness.Spec{
			Name: gunicorn, Path: flaskPython, Args: []string{"-m", "gunicorn", "--bind", "127.0.0.1:" + strconv.Itoa(port), "app:app"}, Dir: dir,
			Env: append(os.Environ(), "APP_NAME="+name, fmt.Sprintf("APP_SLEEP=%g", sleep.Seconds())), Stdout: log, Stderr: log,
		})
		if err != nil {
			return err
		}
		t.procs = append(t.procs, p)
	}
	for i, port := range t.ports {
		addr := "127.0.0.1:" + strconv.Itoa(port)
		if err := await(ctx, t.procs[i], gunicorn, func() error { _, err := b.get(ctx, addr, "/ready"); return err }); err != nil {
			return fmt.Errorf("%w\n%s", err, b.logOf("gunicorn"))
		}
	}
	if t.proxy != ours {
		return nil
	}
	return b.registerTrio(ctx, t)
}

// registerTrio makes the apps known, those of the resource policy with agents.
func (b *bench) registerTrio(ctx context.Context, t *trio) error {
	client, err := b.consul.Client()
	if err != nil {
		return err
	}
	for i, port := range t.ports {
		r := &api.AgentServiceRegistration{ID: fmt.Sprintf("%s-%d", t.service(), i), Name: t.service(), Address: "127.0.0.1", Port: port}
		if t.contender == flaskOwn() {
			p, agent, err := b.spawnAgent(ctx, fmt.Sprintf("flask-agent%d", i), fmt.Sprintf("  backend {\n    pid = %d\n    port = %d\n  }\n", t.procs[i].PID(), port))
			if p != nil {
				t.procs = append(t.procs, p)
			}
			if err != nil {
				return err
			}
			r.Meta = map[string]string{agentstats.MetaKey: strconv.Itoa(agent)}
		}
		if err := client.Agent().ServiceRegister(r); err != nil {
			return fmt.Errorf("register an app in Consul: %w", err)
		}
	}
	return nil
}

// spawnAgent starts an agent of which settings say what it watches, and waits for its
// first report. What was started is returned also with an error.
func (b *bench) spawnAgent(ctx context.Context, name, settings string) (*harness.Process, int, error) {
	ports, err := harness.FreePorts(1)
	if err != nil {
		return nil, 0, err
	}
	addr := "127.0.0.1:" + strconv.Itoa(ports[0])
	config := fmt.Sprintf("agent {\n  listen = %q\n%s}\n", addr, settings)
	p, err := b.spawn(name, b.binary, config, nil, []string{"GOMAXPROCS=1"}, "agent", "-config")
	if err != nil {
		return nil, 0, err
	}
	if err := await(ctx, p, name, func() error { _, err := b.get(ctx, addr, agentstats.ReportPath); return err }); err != nil {
		return p, 0, fmt.Errorf("%w\n%s", err, b.logOf(name))
	}
	return p, ports[0], nil
}

// flaskRound lets all contenders' clients loose at once.
func (b *bench) flaskRound(ctx context.Context, all []*trio) (round, error) {
	var teams []*team
	defer func() {
		for _, t := range teams {
			t.stop()
		}
	}()
	for _, t := range all {
		var to []upstream
		for _, port := range t.ports {
			to = append(to, upstream{port: port, weight: 1})
		}
		team, err := b.startTeam(ctx, t.contender, 1, t.service(), to)
		teams = append(teams, team)
		if err != nil {
			return nil, err
		}
	}
	list, errs := make([]figures, len(teams)), make([]error, len(teams))
	var wg sync.WaitGroup
	for i, t := range teams {
		wg.Go(func() { list[i], errs[i] = askInTurn(ctx, t.addrs[0]) })
	}
	wg.Wait()
	values := round{}
	for i, t := range teams {
		values[t.name()] = list[i]
	}
	return values, errors.Join(errs...)
}

// reply is one answer of an app.
type reply struct {
	took time.Duration
	slow bool
}

// askInTurn has six clients ask ten times each, the next time when they have
// the answer, and sums up.
func askInTurn(ctx context.Context, addr string) (figures, error) {
	replies, errs := make([][]reply, flaskClients), make([]error, flaskClients)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range flaskClients {
		wg.Go(func() {
			client := newClient(flaskLimit)
			defer client.CloseIdleConnections()
			for range flaskEach {
				before := time.Now()
				text, err := getWith(ctx, client, "http://"+addr+"/")
				if err != nil {
					errs[i] = err
					return
				}
				replies[i] = append(replies[i], reply{time.Since(before), strings.Contains(text, slowApp)})
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return flaskFigures(slices.Concat(replies...), time.Since(start)), nil
}

func flaskFigures(all []reply, total time.Duration) figures {
	var sum, longest time.Duration
	slow := 0
	for _, r := range all {
		sum, longest = sum+r.took, max(longest, r.took)
		if r.slow {
			slow++
		}
	}
	return figures{
		keyTotal: total.Seconds(), keyMeanS: sum.Seconds() / float64(max(len(all), 1)), keyLast: longest.Seconds(),
		keySlow: float64(slow), keyRequests: float64(len(all)),
	}
}
