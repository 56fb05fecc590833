package sim

import (
	"math"
	"testing"
	"time"

	"outrigger/picker"
)

// plain is a quiet little fleet without network, neighbours or time-outs.
func plain(backends ...Backend) Config {
	c := Default()
	c.Sidecars = 1
	c.Backends = backends
	c.Neighbour = Neighbour{}
	c.Network.Delay = 0
	c.Client.Timeout = time.Hour
	c.Agents.Interval = 10 * time.Second
	c.Work = Work{Mean: 20 * time.Millisecond, Distribution: Exponential}
	c.Balance.Picker.Policy = "random"
	c.Balance.MaxInFlight = 0
	c.Balance.MaxWait = 0
	c.Warm, c.Measured = 5*time.Second, 20*time.Second
	return c
}

func run(t *testing.T, c Config) *Result {
	t.Helper()
	r, err := Run(c)
	if err != nil {
		t.Fatal(err)
	}
	if r.Answered+r.TimedOut+r.Failed+r.Turned != r.Requests {
		t.Fatalf("of %d requests %d were answered, %d timed out, %d failed, %d were turned away",
			r.Requests, r.Answered, r.TimedOut, r.Failed, r.Turned)
	}
	return r
}

// TestProcessorSharing holds the mean time in the system against queueing
// theory. With one core it depends on the mean of the work alone (M/G/1-PS:
// work/(1-rho)); with more, for exponential work, it is that of M/M/k, by
// Erlang's C.
func TestProcessorSharing(t *testing.T) {
	const work = 0.02
	for _, c := range []struct {
		cores, speed, load float64
		w                  Distribution
		shape              float64
		want               float64
	}{
		{1, 1, 0.7, Exponential, 0, work / 0.3},
		{1, 2, 0.7, Exponential, 0, work / 2 / 0.3},
		{1, 1, 0.6, LogNormal, 1, work / 0.4},
		{1, 1, 0.6, Fixed, 0, work / 0.4},
		{1, 1, 0.3, Pareto, 2.5, work / 0.7},
		{4, 1, 0.7, Exponential, 0, work * (1 + erlangC(4, 0.7)/(4*0.3))},
		{2, 1, 0.8, Exponential, 0, work * (1 + erlangC(2, 0.8)/(2*0.2))},
	} {
		x := plain(Backend{Cores: c.cores, Speed: c.speed})
		x.Load.Level = c.load
		x.Work.Distribution, x.Work.Shape = c.w, c.shape
		x.Warm = 20 * time.Second
		x.Measured = time.Duration(60000 / (c.load * x.Capacity()) * float64(time.Second))
		r := run(t, x)
		near(t, "mean time", r.Mean.Seconds(), c.want, 0.06)
		near(t, "utilisation", r.Backends[0].Utilisation, c.load, 0.03)
		if r.Goodput != 1 {
			t.Errorf("goodput %v without a time-out", r.Goodput)
		}
	}
}

// erlangC is the chance to find all k servers busy.
func erlangC(k int, rho float64) float64 {
	a, term, sum := float64(k)*rho, 1.0, 0.0
	for i := range k {
		sum += term
		term *= a / float64(i+1)
	}
	return term / (1 - rho) / (sum + term/(1-rho))
}

func TestNeighbour(t *testing.T) {
	c := plain(make([]Backend, 20)...)
	for i := range c.Backends {
		c.Backends[i] = Backend{Cores: 2, Speed: 1}
	}
	c.Backends[19].Neighbour = &Neighbour{}
	c.Neighbour = Default().Neighbour
	c.Load.Level = 0.002
	c.Measured = 1500 * time.Second
	near(t, "the formula", c.Neighbour.Share(), 0.4/3, 1e-9)
	sum := 0.0
	r := run(t, c)
	for _, b := range r.Backends[:19] {
		sum += b.Stolen / 19
	}
	near(t, "what neighbours take", sum, c.Neighbour.Share(), 0.04)
	if s := r.Backends[19].Stolen; math.Abs(s) > 1e-9 {
		t.Errorf("a backend without a neighbour lost %v", s)
	}
	near(t, "capacity", c.Capacity(), (19*2*(1-0.4/3)+2)/0.02, 1e-9)
}

// TestWaitsWithoutCPU: a wait is neither slowed by others nor takes CPU.
func TestWaitsWithoutCPU(t *testing.T) {
	c := plain(Backend{Cores: 1, Speed: 1, Wait: 300 * time.Millisecond})
	c.Load.Level = 0.5
	c.Measured = 300 * time.Second
	r := run(t, c)
	near(t, "mean with a wait", r.Mean.Seconds(), 0.3+0.02/0.5, 0.05)

	c = plain(Backend{Cores: 1, Speed: 1, IO: 0.75})
	c.Load.Level = 0.5 // of the CPU
	c.Measured = 200 * time.Second
	r = run(t, c)
	near(t, "mean with I/O", r.Mean.Seconds(), 0.75*0.02+0.25*0.02/0.5, 0.05)
	near(t, "utilisation with I/O", r.Backends[0].Utilisation, 0.5, 0.05)
}

// TestWorkers: what waits in the accept queue is in flight, what does not fit
// into it is never heard of again.
func TestWorkers(t *testing.T) {
	c := plain(Backend{Cores: 4, Speed: 1, Limit: 2, Wait: 100 * time.Millisecond})
	c.Work = Work{Mean: time.Microsecond, Distribution: Fixed}
	c.Load = Load{Rate: 16} // of 20 a second
	c.Measured = 500 * time.Second
	r := run(t, c)
	if r.Backends[0].MaxInFlight <= 2 || r.Backends[0].Dropped != 0 || r.Answered != r.Requests {
		t.Errorf("at most %d in flight, %d dropped", r.Backends[0].MaxInFlight, r.Backends[0].Dropped)
	}
	c.Backends[0].Backlog = 1
	c.Client.Timeout = time.Second
	r = run(t, c)
	b := r.Backends[0]
	if b.MaxInFlight != 3 || b.Dropped == 0 || r.TimedOut == 0 || r.TimedOut > b.Dropped {
		t.Errorf("with a backlog of 1: at most %d in flight, %d dropped, %d timed out", b.MaxInFlight, b.Dropped, r.TimedOut)
	}
	near(t, "the share served", r.Goodput, 1-blocked(2, 3, 1.6), 0.15)
}

// blocked is the chance that an M/M/k/n queue with a Erlangs is full: for fixed
// service it is less, but not by much at these figures.
func blocked(k, n int, a float64) float64 {
	p, sum := 1.0, 1.0
	for i := 1; i <= n; i++ {
		p *= a / float64(min(i, k))
		sum += p
	}
	return p / sum
}

func TestCold(t *testing.T) {
	c := plain(Backend{Cores: 1, Speed: 1, Cold: Cold{Slow: 10, Time: 10 * time.Second}})
	c.Work.Distribution = Fixed
	c.Load.Level = 0.02
	c.Warm, c.Measured = 0, 100*time.Second
	r := run(t, c)
	first, last := r.Seconds[0].P50, r.Seconds[99].P50
	if first < 180*time.Millisecond || first > 220*time.Millisecond || last > 22*time.Millisecond {
		t.Errorf("the first second's median is %v, the last one's %v; want 10 and 1 times 20ms", first, last)
	}
	c.Backends[0].Cold = Cold{Slow: 10, Requests: 50}
	c.Load.Level = 0.05
	r = run(t, c)
	if last := r.Seconds[99].P50; r.P999 < 150*time.Millisecond || last > 22*time.Millisecond {
		t.Errorf("warmed by requests: p99.9 %v, in the last second %v", r.P999, last)
	}
}

// TestMemory: a leak ends in kills, which reset what is in flight.
func TestMemory(t *testing.T) {
	c := plain(Backend{Cores: 1, Speed: 1, Memory: Memory{Base: 0.5, Leak: 0.01, Restart: 2 * time.Second}},
		Backend{Cores: 1, Speed: 1, Wait: time.Second, Memory: Memory{PerRequest: 0.1, Restart: time.Second}})
	c.Sidecars = 3
	c.Load = Load{Rate: 20}
	c.Measured = 100 * time.Second
	r := run(t, c)
	for i, b := range r.Backends {
		if b.Kills < 3 {
			t.Errorf("backend %d was killed %d times", i, b.Kills)
		}
	}
	if r.Failed == 0 || r.Ejections == 0 || r.Backends[1].MaxInFlight > 10 {
		t.Errorf("%d failed, %d ejections, at most %d in flight", r.Failed, r.Ejections, r.Backends[1].MaxInFlight)
	}
	c.Client.Retries = 2
	if again := run(t, c); again.Retries == 0 || again.Failed >= r.Failed {
		t.Errorf("with retries %d failed (%d retries), without them %d", again.Failed, again.Retries, r.Failed)
	}
	c.Backends[0].Memory.Reclaim = 1
	c.Backends[1].Memory = Memory{}
	if r = run(t, c); r.Backends[0].Kills+r.Backends[1].Kills != 0 || r.Failed != 0 {
		t.Errorf("killed %d times although everything is collected", r.Backends[0].Kills)
	}
}

func TestFaults(t *testing.T) {
	for kind, ejects := range map[FaultKind]bool{Reset: true, Status: true, Refuse: true, Shed: false} {
		c := plain(Backend{Cores: 4, Speed: 1}, Backend{Cores: 4, Speed: 1},
			Backend{Cores: 4, Speed: 1, Fault: Fault{Kind: kind, Share: 1, From: 10 * time.Second, Until: 15 * time.Second}})
		c.Load.Level = 0.3
		c.Warm = 0
		r := run(t, c)
		if r.Failed == 0 || (r.Ejections > 0) != ejects {
			t.Errorf("fault %d: %d failed, %d ejections", kind, r.Failed, r.Ejections)
		}
		for i, s := range r.Seconds {
			if s.Failed > 0 && (i < 10 || i > 15) {
				t.Errorf("fault %d: %d failures in second %d", kind, s.Failed, i)
			}
		}
		if !ejects {
			near(t, "failures where nobody is ejected", float64(r.Failed), float64(r.Requests)/25*5/3, 0.4)
		}
	}
}

// TestTimeout: the client leaves, the backend works on.
func TestTimeout(t *testing.T) {
	c := plain(Backend{Cores: 1, Speed: 1})
	c.Client.Timeout = 100 * time.Millisecond
	c.Work = Work{Mean: 150 * time.Millisecond, Distribution: Fixed}
	c.Load.Level = 0.5
	r := run(t, c)
	if r.TimedOut != r.Requests || r.P50 != Never || r.Goodput != 0 || r.Mean != 0 {
		t.Errorf("%d of %d timed out, p50 %v, goodput %v", r.TimedOut, r.Requests, r.P50, r.Goodput)
	}
	near(t, "utilisation", r.Backends[0].Utilisation, 0.5, 0.25)
	if r.Ejections != 0 {
		t.Errorf("%d ejections by clients that left", r.Ejections)
	}
	c.Backends = append(c.Backends, c.Backends[0])
	c.Client.Outcome = picker.Failure
	if r = run(t, c); r.Ejections == 0 {
		t.Error("no ejection although time-outs are failures")
	}
}
