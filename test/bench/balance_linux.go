package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// balance measures the choice of backends under load. The results are one per
// load.
func (b *bench) balance(ctx context.Context) (results []*result, err error) {
	f, err := b.startFleet(ctx)
	if f != nil {
		defer func() {
			if cerr := f.close(); err == nil {
				err = cerr
			}
		}()
	}
	if errors.Is(err, errNoCgroup) {
		b.say("the case %s is skipped: %v", balanceCase, err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b.say("measuring what the backends can do")
	of, err := b.capacities(ctx, f)
	if err != nil {
		return nil, err
	}
	warm, run := balanceTimes(b.opt)
	for _, load := range b.opt.loads {
		results = append(results, &result{
			Name: fmt.Sprintf("%s-%d", balanceCase, load), Title: fmt.Sprintf("%d clients, %d backends at %d %% of capacity", fleetClients, len(f.machines), load),
			Setting: balanceSetting(b.opt, of), Notes: balanceNotes(),
			metrics: balanceMetrics(), headline: keyMS99, names: names(balanceContenders()), own: balanceOwn().name(),
		})
	}
	for i := range b.opt.rounds {
		s := newScene(uint64(i+1), fleetCores(), warm, run)
		for k, load := range b.opt.loads {
			plan := s.arrivals(s.rate(of, float64(load)/100))
			values := round{}
			for _, c := range rotated(balanceContenders(), i) {
				b.say("round %d, %d %%: %s", i+1, load, c.name())
				if values[c.name()], err = b.balanceSample(ctx, f, c, s, plan); err != nil {
					return results, fmt.Errorf("%s, round %d: %w", c.name(), i+1, err)
				}
			}
			results[k].Rounds = append(results[k].Rounds, values)
		}
	}
	return results, nil
}

// balanceSample is one contender's turn: fresh instances, the scene's noise and
// arrivals, and time for the backends to work off what is left.
func (b *bench) balanceSample(ctx context.Context, f *fleet, c contender, s scene, plan []arrival) (figures, error) {
	if err := f.drain(ctx); err != nil {
		return nil, err
	}
	service := fleetWeighted
	if c == balanceOwn() {
		service = fleetService
	}
	t, err := b.startTeam(ctx, c, fleetClients, service, f.upstreams())
	defer t.stop()
	if err != nil {
		return nil, err
	}
	inner, stop := context.WithCancel(ctx)
	var noise sync.WaitGroup
	noise.Go(func() { f.disturb(inner, s) })
	meter := f.startMeter()
	p, err := pouring{addrs: t.addrs, plan: plan, warm: s.warm, timeout: giveUp}.run(ctx)
	stop()
	noise.Wait()
	if err != nil {
		return nil, err
	}
	out := p.figures()
	out[keyIdle], out[keyOthers], err = meter.stop()
	return out, err
}

func (f *fleet) upstreams() []upstream {
	var all []upstream
	for _, m := range f.machines {
		all = append(all, upstream{port: m.port, weight: m.weight(), agentCheck: m.agentCheck})
	}
	return all
}

// capacities measures what each backend does when it always has requests to
// work on, all of them at once, as they are at a load that is high: calm and
// with neighbours that want the mean of what they may.
func (b *bench) capacities(ctx context.Context, f *fleet) ([]capacity, error) {
	of := make([]capacity, len(f.machines))
	for _, share := range []float64{0, probeSteal} {
		for _, m := range f.machines {
			m.disturb(share * m.cores)
		}
		rates, err := b.saturate(ctx, f)
		f.calm()
		if err != nil {
			return nil, err
		}
		for i, rate := range rates {
			if share == 0 {
				of[i].calm = rate
			} else {
				of[i].noisy = rate
			}
		}
	}
	return of, nil
}

// saturate keeps four requests in each backend for some seconds and returns how
// much work per second each did: the cores it used once it was busy, times what
// all its requests came to per second of its CPU time.
func (b *bench) saturate(ctx context.Context, f *fleet) ([]float64, error) {
	const ramp, length = time.Second, 6 * time.Second
	rates, errs := make([]float64, len(f.machines)), make([]error, len(f.machines))
	var wg sync.WaitGroup
	for i, m := range f.machines {
		wg.Go(func() { rates[i], errs[i] = m.saturate(ctx, uint64(i), ramp, length) })
	}
	wg.Wait()
	return rates, errors.Join(errs...)
}

func (m *machine) saturate(ctx context.Context, seed uint64, ramp, length time.Duration) (float64, error) {
	before, err := m.app.usage()
	if err != nil {
		return 0, err
	}
	const atOnce = 4
	client := newClient(time.Minute)
	defer client.CloseIdleConnections()
	var work [atOnce]int
	var wg sync.WaitGroup
	start := time.Now()
	for i := range atOnce {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for time.Since(start) < length && ctx.Err() == nil {
				n := lognormal(r)
				if ask(ctx, client, fmt.Sprintf("http://%s%s%d", m.addr(), workPrefix, n)) == answered {
					work[i] += n
				}
			}
		})
	}
	var at [2]time.Duration
	var when [2]time.Time
	for i, wait := range []time.Duration{ramp, length} {
		err = errors.Join(err, pause(ctx, wait-time.Since(start)))
		used, uerr := m.app.usage()
		at[i], when[i] = used, time.Now()
		err = errors.Join(err, uerr)
	}
	wg.Wait()
	after, uerr := m.app.usage()
	if err = errors.Join(err, uerr); err != nil {
		return 0, err
	}
	done := 0
	for _, n := range work {
		done += n
	}
	cores := (at[1] - at[0]).Seconds() / when[1].Sub(when[0]).Seconds()
	return cores * float64(done) / (after - before).Seconds(), nil
}

// loadMeter measures what the machine has left, and what others take of it.
type loadMeter struct {
	all        group
	start      time.Time
	busy, used time.Duration
	err        error
}

func (f *fleet) startMeter() loadMeter {
	m := loadMeter{all: f.all, start: time.Now()}
	m.busy, m.used, m.err = m.read()
	return m
}

// stop returns the processors that nobody used and those that others than the
// bench and its processes used, on average. The kernel's own work counts as
// others'.
func (m loadMeter) stop() (idle, foreign float64, err error) {
	busy, used, err := m.read()
	seconds := time.Since(m.start).Seconds()
	busy, used = busy-m.busy, used-m.used
	idle = float64(len(fleetCPUs())) - busy.Seconds()/seconds
	return max(0, idle), max(0, (busy-used).Seconds()/seconds), errors.Join(err, m.err)
}

func (m loadMeter) read() (busy, used time.Duration, err error) {
	for _, cpu := range fleetCPUs() {
		one, err := coreBusy(cpu)
		if err != nil {
			return 0, 0, err
		}
		busy += one
	}
	used, err = m.all.usage()
	return busy, used, err
}
