package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ms shows a latency with a sensible number of digits.
func ms(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.0f ms", float64(d)/1e6)
}

// slowAndFast is the classic three-app example: two sleep, one does not.
func (st *stage) slowAndFast(ctx context.Context) (string, bool, error) {
	const nap = 500 * time.Millisecond
	if err := st.costAll(nap, 0); err != nil {
		return "", false, err
	}
	fast := st.servers[2]
	if err := st.cost(fast, 5*time.Millisecond, 0); err != nil {
		return "", false, err
	}
	st.say("   red and green sleep %v a request, blue 5ms; 12 clients.", nap)
	l := load{url: st.url("shop"), clients: 12}.start(ctx)
	err := st.watch(ctx, "shop", 6*time.Second)
	r := l.stop()
	if err != nil {
		return "", false, err
	}
	share := r.share(fast.name)
	// Round robin gives a third to each: two of three requests take the nap.
	rr := (2*nap + 5*time.Millisecond) / 3
	return fmt.Sprintf("blue took %.1f %% of %d requests, mean latency %s; round robin would give it 33 %%, mean latency at least %s; %d errors",
		share, r.total, ms(r.mean()), ms(rr), r.errors), share > 80 && r.errors+r.refused == 0 && r.mean() < rr, nil
}

// burntCPU lets a neighbour take the processor of one backend. On a machine
// that is busy with something else all processors look burnt, so it is played
// up to three times.
func (st *stage) burntCPU(ctx context.Context) (string, bool, error) {
	if !st.canPin() {
		return "", false, notHere("it takes Linux and two processors to burn one backend's CPU and not the others'")
	}
	// Nearly all of a request is sleep: what moves red's part is what its agent
	// reports, not what the sidecar sees of latencies.
	if err := st.costAll(50*time.Millisecond, 2*time.Millisecond); err != nil {
		return "", false, err
	}
	red := st.servers[0]
	st.say("   red is alone on CPU %d; a request sleeps 50 ms and costs 2 ms of CPU; 12 clients.", red.cpus[0])
	for try := 1; ; try++ {
		busy := st.await(ctx, 20*time.Second, "the machine to calm down", st.calm)
		if busy != nil && ctx.Err() == nil {
			st.say("   (%v: the others' CPUs are not idle either)", busy)
		}
		sentence, held, err := st.burnOnce(ctx, red)
		switch {
		case err != nil || held:
			return sentence, held, err
		case try == 3 && busy != nil:
			return "", false, notHere("something else burns the CPUs of all backends: " + sentence)
		case try == 3:
			return sentence, false, nil
		}
		st.say("   (%s: not clear, perhaps for something else that runs here; once more)", sentence)
	}
}

// burnOnce measures red's share before and while its processor is burnt.
func (st *stage) burnOnce(ctx context.Context, red *server) (string, bool, error) {
	before, err := st.measure(ctx, 5*time.Second)
	if err != nil {
		return "", false, err
	}
	st.say("   now something else burns CPU %d:", red.cpus[0])
	if st.burner, err = st.spawn("burner", red.cpus, "demo-burn", "3"); err != nil {
		return "", false, err
	}
	defer func() {
		_ = st.burner.Stop(time.Second)
		st.burner = nil
	}()
	err = st.await(ctx, 5*time.Second, "red's agent to see the burnt CPU", func() bool {
		doc, err := st.status("shop-resource")
		if err != nil {
			return false
		}
		e := endpoint(doc, red)
		return e != nil && e.Figures != nil && e.Figures.AvailableCores != nil && *e.Figures.AvailableCores < 0.5
	})
	if err != nil {
		return err.Error(), false, ctx.Err()
	}
	after, err := st.measure(ctx, 5*time.Second)
	if err != nil {
		return "", false, err
	}
	errs := before.errors + before.refused + after.errors + after.refused
	return fmt.Sprintf("red took %.1f %% of the requests before and %.1f %% while its CPU was burnt; p99 %s before, %s after; %d errors",
			before.share(red.name), after.share(red.name), ms(before.quantile(0.99)), ms(after.quantile(0.99)), errs),
		after.share(red.name) < before.share(red.name)/2 && errs == 0, nil
}

// calm reports whether every agent sees half a core to spare.
func (st *stage) calm() bool {
	doc, err := st.status("shop-resource")
	if err != nil {
		return false
	}
	for i := range doc.Endpoints {
		f := doc.Endpoints[i].Figures
		if f == nil || f.AvailableCores == nil || *f.AvailableCores < 0.5 {
			return false
		}
	}
	return len(doc.Endpoints) > 0
}

// measure runs a load against the resource policy for d.
func (st *stage) measure(ctx context.Context, d time.Duration) (result, error) {
	l := load{url: st.url("shop-resource"), clients: 12}.start(ctx)
	err := st.watch(ctx, "shop-resource", d)
	return l.stop(), err
}

// killed kills a backend under load and starts it again.
func (st *stage) killed(ctx context.Context) (string, bool, error) {
	if err := st.costAll(5*time.Millisecond, 0); err != nil {
		return "", false, err
	}
	green := st.servers[1]
	l := load{url: st.url("shop"), clients: 12}.start(ctx)
	defer l.stop()
	if err := st.watch(ctx, "shop", 2*time.Second); err != nil {
		return "", false, err
	}
	st.say("   green is killed (SIGKILL):")
	at := time.Now()
	green.proc.Kill()
	err := st.await(ctx, 10*time.Second, "the sidecar to leave green alone", func() bool {
		doc, err := st.status("shop")
		if err != nil {
			return false
		}
		e := endpoint(doc, green)
		return e == nil || !e.Ready
	})
	over := time.Since(at)
	if err == nil {
		err = st.watch(ctx, "shop", 3*time.Second)
	}
	if err != nil {
		return "", false, err
	}
	during := l.snapshot()
	st.say("   green is started again:")
	if err := st.startServer(green); err != nil {
		return "", false, err
	}
	at = time.Now()
	back := st.await(ctx, 30*time.Second, "green to be ready again", func() bool {
		doc, err := st.status("shop")
		return err == nil && doc.EndpointsReady == len(st.servers)
	})
	healed := time.Since(at)
	if back != nil && ctx.Err() != nil {
		return "", false, ctx.Err()
	}
	r := l.stop()
	return fmt.Sprintf("%d requests, %d client errors, slowest answer %s; green was out %s after it died and in again %.1f s after it came back",
			r.total, r.errors+r.refused, ms(slices.Max(append(during.latency, 0))), ms(over), healed.Seconds()),
		r.errors+r.refused == 0 && back == nil, nil
}

// saturated asks for more than the backends may be given.
func (st *stage) saturated(ctx context.Context) (string, bool, error) {
	if err := st.costAll(200*time.Millisecond, 0); err != nil {
		return "", false, err
	}
	st.say("   two requests at a time for each backend, 200ms each; 60 clients come at once.")
	l := load{url: st.url("shop-small"), clients: 60, think: 20 * time.Millisecond}.start(ctx)
	err := st.watch(ctx, "shop-small", 4*time.Second)
	full := l.stop()
	if err != nil {
		return "", false, err
	}
	st.say("   all but three clients leave:")
	l = load{url: st.url("shop-small"), clients: 3}.start(ctx)
	err = st.watch(ctx, "shop-small", 3*time.Second)
	calm := l.stop()
	if err != nil {
		return "", false, err
	}
	held := full.refused > 0 && full.badRefuse == 0 && full.errors == 0 && full.ok > 0 &&
		calm.ok == calm.total && calm.total > 0
	return fmt.Sprintf("%d answers and %d times 503, %d of them with Retry-After and a reason (%s); p99 of the answered %s; afterwards %d of %d answered",
		full.ok, full.refused, full.refused-full.badRefuse, reasonText(full.reasons), ms(full.quantile(0.99)), calm.ok, calm.total), held, nil
}

// consulGone kills Consul and goes on.
func (st *stage) consulGone(ctx context.Context) (string, bool, error) {
	if err := st.costAll(5*time.Millisecond, 0); err != nil {
		return "", false, err
	}
	l := load{url: st.url("shop"), clients: 12}.start(ctx)
	defer l.stop()
	if err := st.watch(ctx, "shop", 2*time.Second); err != nil {
		return "", false, err
	}
	st.say("   Consul is killed (SIGKILL):")
	st.consul.Kill()
	before := l.snapshot().total
	if err := st.watch(ctx, "shop", 5*time.Second); err != nil {
		return "", false, err
	}
	r := l.stop()
	doc, err := st.status("shop")
	if err != nil {
		return "", false, err
	}
	if doc.Discovery == nil || doc.Discovery.FailingForSeconds == nil {
		return "the sidecar has not noticed that Consul is gone", false, nil
	}
	held := r.errors+r.refused == 0 && r.total > before && doc.EndpointsReady == len(st.servers)
	return fmt.Sprintf("%d requests since Consul died, %d errors; the sidecar serves %d backends from what it knew, and says that Consul has been failing for %.0f s",
		r.total-before, r.errors+r.refused, doc.EndpointsReady, *doc.Discovery.FailingForSeconds), held, nil
}

func reasonText(reasons map[string]int) string {
	var parts []string
	for name, n := range reasons {
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
