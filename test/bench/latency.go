package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"outrigger/test/harness"
)

// direct stands for no proxy at all, among the proxies' names.
const direct = "direct"

// Keys of the figures of the latency case.
const (
	keyAdded50 = "added_p50_us"
	keyAdded90 = "added_p90_us"
	keyAdded99 = "added_p99_us"
	keyP90     = "p90_us"
	keyMax     = "max_us"
	keyLate99  = "generator_late_p99_us"
	keyQueued  = "requests_without_a_free_connection"
)

func latencyMetrics() []metric {
	return []metric{
		{key: keyAdded50, label: "added p50 µs", digits: 1, spread: true, compare: lower},
		{key: keyAdded90, label: "added p90 µs", digits: 1, compare: lower},
		{key: keyAdded99, label: "added p99 µs", digits: 1, spread: true, compare: lower},
		{key: keyP50, label: "p50 µs", digits: 1},
		{key: keyP99, label: "p99 µs", digits: 1},
		{key: keyMax, label: "max µs"},
		{key: keyQueued, label: "queued"}, // none, but for a proxy that does not keep up
		{key: keyCPU, label: "CPU µs/req", digits: 2, compare: lower},
	}
}

const (
	latencyConns = 256 // so many that hardly ever a request waits for one
	warmUp       = 300 * time.Millisecond
)

// generate runs the open-loop generator beside the backends.
func (b *bench) generate(ctx context.Context, p plan) (outcome, error) {
	var o outcome
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	text, err := b.output(ctx, harness.Spec{
		Name: "generator", Path: self, Args: p.args(), CPUs: b.loadCPU, Env: append(os.Environ(), "GOMAXPROCS=1"),
	})
	if err != nil {
		return o, err
	}
	return o, json.Unmarshal([]byte(text), &o)
}

// latency measures what a proxy adds to the time of a request at half load.
func (b *bench) latency(ctx context.Context) (*result, error) {
	if err := b.startProxies(ctx, proxyNames(), variant{}); err != nil {
		return nil, err
	}
	rate, setting, err := b.halfLoad(ctx)
	if err != nil {
		return nil, err
	}
	r := &result{
		Name: latencyCase, Title: "small GET at half load, open loop: time added to that of a direct request",
		Setting: fmt.Sprintf("%d rounds of %d s; %s", b.opt.rounds, b.opt.seconds, setting),
		metrics: latencyMetrics(), headline: keyAdded50,
	}
	p := plan{path: smallPath, conns: latencyConns, rate: rate, warm: warmUp, run: time.Duration(b.opt.seconds) * time.Second}
	for i := range b.opt.rounds {
		values := round{}
		for _, name := range rotated(append(proxyNames(), direct), i) {
			f, err := b.latencySample(ctx, name, p)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", name, i+1, err)
			}
			values[name] = f
		}
		addedTo(values)
		r.Rounds = append(r.Rounds, values)
	}
	late, bare, bare99 := spreadOf(r.values(direct, keyLate99)), spreadOf(r.values(direct, keyP50)), spreadOf(r.values(direct, keyP99))
	r.Setting += fmt.Sprintf("\ndirect to a backend: p50 %.1f µs, p99 %.1f µs; the generator sent 99 %% of requests at most %.0f µs late", bare.Median, bare99.Median, late.Median)
	return r, nil
}

// addedTo sets what each proxy added to the direct requests of its round.
func addedTo(values round) {
	for name, f := range values {
		if name == direct {
			continue
		}
		f[keyAdded50] = f[keyP50] - values[direct][keyP50]
		f[keyAdded90] = f[keyP90] - values[direct][keyP90]
		f[keyAdded99] = f[keyP99] - values[direct][keyP99]
	}
}

func (b *bench) latencySample(ctx context.Context, name string, p plan) (figures, error) {
	if err := b.settle(ctx); err != nil {
		return nil, err
	}
	var m meter
	p.addr = b.backends.addr(0)
	if name != direct {
		var err error
		p.addr = b.proxy(name).addr
		if m, err = b.startMeter(b.proxy(name)); err != nil {
			return nil, err
		}
	}
	o, err := b.generate(ctx, p)
	if err != nil {
		return nil, err
	}
	if o.Answered < o.Due {
		return nil, fmt.Errorf("of %d requests %d were not answered within %v", o.Due, o.Due-o.Answered, wait)
	}
	f := figures{keyP50: o.P50, keyP90: o.P90, keyP99: o.P99, keyMax: o.Max, keyRequests: float64(o.Answered), keyLate99: o.Late99, keyQueued: float64(o.Queued)}
	if name != direct {
		cpu, foreign, err := m.stop()
		if err != nil {
			return nil, err
		}
		f[keyCPU], f[keyForeign] = float64(cpu.Nanoseconds())/1e3/float64(o.Answered), foreign
	}
	return f, nil
}

// halfLoad finds the rate: half of what the slowest proxy can do at 64
// connections, if the generator can do that.
func (b *bench) halfLoad(ctx context.Context) (rate float64, setting string, err error) {
	var most []float64
	for _, seconds := range []int{1, 2} { // the first to warm up
		most = most[:0]
		for _, p := range b.proxies {
			if err := b.settle(ctx); err != nil {
				return 0, "", err
			}
			w, err := b.wrk(ctx, p.addr, load{path: smallPath, conns: 64}, seconds)
			if err != nil {
				return 0, "", fmt.Errorf("%s at full load: %w", p.name, err)
			}
			most = append(most, float64(w.requests)/w.duration.Seconds())
		}
	}
	full, err := b.generate(ctx, plan{addr: b.backends.addr(0), path: smallPath, conns: 64, warm: warmUp, run: time.Second})
	if err != nil {
		return 0, "", fmt.Errorf("the generator at full speed: %w", err)
	}
	own := float64(full.Answered) / full.Seconds
	// Full speed is one request right after another; arrivals one by one cost
	// more, so the plan is tried and lowered until it is kept.
	rate = min(slices.Min(most)/2, own*0.7)
	for range 8 {
		o, err := b.generate(ctx, plan{addr: b.backends.addr(0), path: smallPath, conns: latencyConns, rate: rate, warm: warmUp, run: time.Second})
		if err != nil {
			return 0, "", fmt.Errorf("the generator at %.0f/s: %w", rate, err)
		}
		if !o.behind() {
			return rate, fmt.Sprintf("%.0f arrivals/s, half of the slowest's %.0f/s if the generator keeps up, which by itself does %.0f/s against a backend",
				rate, slices.Min(most), own), nil
		}
		rate *= 0.8
	}
	return 0, "", errors.New("the generator falls behind at any rate: is the machine busy with something else?")
}
