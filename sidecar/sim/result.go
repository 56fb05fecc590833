package sim

import (
	"fmt"
	"math"
	"time"

	"outrigger/sidecar/balance"
)

// Never is a quantile that lies beyond the client's time-out.
const Never = time.Duration(math.MaxInt64)

// Result is what came of the requests that arrived in the measured time.
type Result struct {
	Policy string // the policy's name or the baseline's

	// Requests is how many there were (a client that returns is still one), and
	// what became of them in the end; the four add up to it.
	Requests                           int
	Answered, TimedOut, Failed, Turned int // in time, not in time, error, own 503

	// Quantiles of the time from the arrival at the sidecar to the answer, of
	// answered and timed-out requests; Never where it is a time-out. For a client
	// that returned it counts from its last arrival.
	P50, P90, P99, P999 time.Duration
	Mean                time.Duration // of the answered

	Goodput float64 // share of the requests answered in time
	Errors  float64 // share that failed

	// Shed is how often a sidecar answered 503, over all tries of the clients
	// (Tries), by the name of the reason; ShedShare its sum over Tries.
	Tries     int
	Shed      map[string]int
	ShedShare float64

	// Retries counts second and further tries at other endpoints, Ejections the
	// breakers' trips, over the whole run and all sidecars.
	Retries, Ejections int

	Backends []BackendResult
	Seconds  []Second // the whole run, warm-up included

	Events  uint64 // that the run took
	Reports uint64 // that reached a sidecar
}

// BackendResult is one backend's part.
type BackendResult struct {
	Name        string
	Requests    int     // that reached it in the measured time
	Share       float64 // of all that reached one
	MaxInFlight int     // most at once, of those worked on and waiting, over the whole run
	Utilisation float64 // share of the cores in use in the measured time
	Stolen      float64 // and by the neighbour
	Kills       int     // for lack of memory, over the whole run
	Dropped     int     // connections beyond its backlog, over the whole run
}

// Second is one second of the run, by arrival.
type Second struct {
	Arrived, Answered, TimedOut, Failed, Turned int // tries of clients

	P50, P99 time.Duration // of answered and timed-out, within 2 %; Never as in Result
	Load     float64       // arrivals over the average capacity
	Goodput  float64       // share answered in time
	InFlight float64       // in all backends, at its end
}

// result tells what came of the run.
func (f *fleet) result() *Result {
	s, c := &f.stats, f.cfg
	s.upTo(f, max(f.now, s.until))
	r := &Result{
		Policy: c.Balance.Picker.Policy, Requests: s.requests,
		Answered: s.fates[fateAnswered], TimedOut: s.fates[fateTimedOut], Failed: s.fates[fateFailed], Turned: s.fates[fateTurned],
		Tries: s.tries, Shed: map[string]int{}, Retries: s.retries,
		Events: f.events, Reports: f.got,
	}
	if c.Baseline != "" {
		r.Policy = c.Baseline
	}
	s.quantiles(r)
	if s.requests > 0 {
		r.Goodput = float64(r.Answered) / float64(s.requests)
		r.Errors = float64(r.Failed) / float64(s.requests)
	}
	shed := 0
	for i, name := range balance.Reasons() {
		r.Shed[name] = s.shed[i]
		shed += s.shed[i]
	}
	if s.tries > 0 {
		r.ShedShare = float64(shed) / float64(s.tries)
	}
	for i := range f.sidecars {
		for _, e := range f.sidecars[i].b.Status().Endpoints {
			r.Ejections += int(e.Ejections)
		}
	}
	r.Backends, r.Seconds = f.backends(), f.perSecond()
	return r
}

func (f *fleet) backends() []BackendResult {
	all := 0
	for i := range f.machines {
		all += f.machines[i].requests
	}
	out := make([]BackendResult, len(f.machines))
	for i := range out {
		m := &f.machines[i]
		cores := m.Cores * f.cfg.Measured.Seconds()
		out[i] = BackendResult{
			Name: m.Name, Requests: m.requests, Share: float64(m.requests) / float64(max(1, all)),
			MaxInFlight: m.most, Kills: m.kills, Dropped: m.dropped,
			Utilisation: m.measured.used / cores, Stolen: 1 - m.measured.avail/cores,
		}
		if m.Name == "" {
			out[i].Name = fmt.Sprintf("backend %d", i)
		}
	}
	return out
}

// perSecond leaves out what comes after the measured time.
func (f *fleet) perSecond() []Second {
	n := int(math.Ceil(f.stats.until.Seconds()))
	out := make([]Second, min(n, len(f.stats.seconds)))
	for i := range out {
		x := &f.stats.seconds[i]
		out[i] = Second{
			Arrived: x.arrived, Answered: x.fates[fateAnswered], TimedOut: x.fates[fateTimedOut],
			Failed: x.fates[fateFailed], Turned: x.fates[fateTurned],
			P50: x.quantile(0.5), P99: x.quantile(0.99), InFlight: x.flying,
			Load:    float64(x.arrived) / f.cfg.Capacity(),
			Goodput: float64(x.fates[fateAnswered]) / float64(max(1, x.arrived)),
		}
	}
	return out
}
