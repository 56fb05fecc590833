package picker

import (
	"fmt"
	"math"
	"time"
)

// PeakEWMAConfig tunes the peak_ewma policy.
type PeakEWMAConfig struct {
	// Decay is the time constant with which a peak is forgotten, 100ms to 10m.
	Decay time.Duration
	// Unknown is the latency that an endpoint without one is taken to have, 1ms
	// to 1m, but at most twice that of the one it is compared with: not the best,
	// so that a newcomer does not win every pick, nor so bad that it starves.
	Unknown time.Duration
}

// DefaultPeakEWMAConfig returns linkerd2-proxy's settings.
func DefaultPeakEWMAConfig() PeakEWMAConfig {
	return PeakEWMAConfig{Decay: 10 * time.Second, Unknown: time.Second}
}

// Validate reports the first setting that is out of range.
func (c PeakEWMAConfig) Validate() error {
	switch {
	case c.Decay < 100*time.Millisecond || c.Decay > 10*time.Minute:
		return fmt.Errorf("decay is %v, allowed are 100ms to 10m", c.Decay)
	case c.Unknown < time.Millisecond || c.Unknown > time.Minute:
		return fmt.Errorf("unknown is %v, allowed are 1ms to 1m", c.Unknown)
	}
	return nil
}

// peakEWMA draws two different endpoints in proportion to weight and takes the
// one that costs less:
//
//	cost = peak * (1 + in-flight * mean weight / weight)
//
// which for equal weights is the peak * (in-flight + 1) of finagle's PeakEwma
// and of tower's, which linkerd2-proxy uses. Neither has weights; dividing the
// whole by them would send every request of a sparse client to the largest
// endpoint (PICKING.md).
type peakEWMA struct {
	cfg  PeakEWMAConfig
	rand Rand
}

func (peakEWMA) Name() string { return "peak_ewma" }

func (p peakEWMA) Build(ready []*Endpoint) Picker {
	s := slots(ready)
	k := &peakEWMAPicker{cfg: p.cfg, p2cPicker: p2cPicker{s, newAlias(s), p.rand}}
	for _, x := range s {
		k.meanWeight += float64(x.w) / float64(len(s))
	}
	return k
}

type peakEWMAPicker struct {
	p2cPicker
	cfg        PeakEWMAConfig
	meanWeight float64
}

func (p *peakEWMAPicker) Pick(r Request) (*Endpoint, bool) {
	if len(p.slots) == 0 {
		return nil, false
	}
	for range refusals / 2 {
		a, b := p.pair()
		x, y := &p.slots[a], &p.slots[b]
		x.ep.mind.peak.seen(r.Now)
		y.ep.mind.peak.seen(r.Now)
		s, t := p.peaks(x, y, r.Now)
		if p.cost(y, t) < p.cost(x, s) {
			x, y = y, x
		}
		if r.takes(x.ep) {
			return x.ep, true
		}
		if r.takes(y.ep) {
			return y.ep, true
		}
	}
	return scanFree(p.slots, &r, p.rand)
}

func (p *peakEWMAPicker) cost(s *slot, peak float64) float64 {
	n := float64(s.ep.inFlight.Load())
	return peak * (1 + n*p.meanWeight/float64(s.w))
}

// newcomer is how many times slower than another endpoint one without a sample
// is taken to be at most.
const newcomer = 2

// peaks returns the latencies of a pair in milliseconds.
func (p *peakEWMAPicker) peaks(x, y *slot, now time.Duration) (a, b float64) {
	v, w := x.ep.mind.peak.word.Load(), y.ep.mind.peak.word.Load()
	a, b = peakOf(v, now, &p.cfg), peakOf(w, now, &p.cfg)
	switch {
	case !sampled(v) && sampled(w):
		a = min(a, newcomer*b)
	case sampled(v) && !sampled(w):
		b = min(b, newcomer*a)
	}
	return a, b
}

func (*peakEWMAPicker) Mode(time.Duration) string {
	return "weighted two choices by peak latency and in-flight"
}

// Explain implements Picker.
func (p *peakEWMAPicker) Explain(r Request) Explanation {
	x := explain(p.Mode(r.Now), p.slots, &r, byWeight(p.slots))
	most := p.newcomers(r.Now)
	for i := range p.slots {
		c, s := &x.Candidates[i], &p.slots[i]
		m := &s.ep.mind.peak
		peak := m.at(r.Now, &p.cfg)
		if !sampled(m.word.Load()) {
			peak = min(peak, most)
		}
		c.Score = p.cost(s, peak)
		c.Terms = append(c.Terms, Term{"peak_ms", peak}, Term{"peak_age_s", m.age(r.Now)})
	}
	return x
}

// newcomers is the most that an endpoint without a sample is taken to need
// beside the mean of those that have one.
func (p *peakEWMAPicker) newcomers(now time.Duration) float64 {
	var sum, n float64
	for i := range p.slots {
		if w := p.slots[i].ep.mind.peak.word.Load(); sampled(w) {
			sum, n = sum+peakOf(w, now, &p.cfg), n+1
		}
	}
	if n == 0 {
		return math.Inf(1)
	}
	return newcomer * sum / n
}

// Sent implements Observer.
func (*peakEWMAPicker) Sent(*Endpoint, time.Duration) float32 { return 0 }

// Reported implements Observer.
func (*peakEWMAPicker) Reported(*Endpoint, time.Duration) {}

// Done implements Observer. The response time is that to the first byte, as in
// linkerd2-proxy: how long the rest takes is up to its size and the client.
// Only a success says how fast the endpoint is. finagle and tower sample every
// end, and so take failing fast for being fast; here a request without a good
// answer tells only how long it took at least.
func (p *peakEWMAPicker) Done(e *Endpoint, now time.Duration, _ float32, r Result) {
	m := &e.mind.peak
	least := r.FirstByte
	if least <= 0 {
		least = r.Age
	}
	switch r.Outcome {
	case Success:
		if r.FirstByte > 0 {
			m.answered(now, r.FirstByte, &p.cfg)
		}
	case Ignore:
		// Most clients that leave do so because the answer is late, but this
		// may also have been a slow upload: no worse than an unknown endpoint.
		m.atLeast(now, min(least, p.cfg.Unknown), &p.cfg)
	default:
		m.failed(now)
		m.atLeast(now, least, &p.cfg)
	}
}
