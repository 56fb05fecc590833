package picker

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// PeakEWMAConfig tunes the peak_ewma policy.
type PeakEWMAConfig struct {
	// Decay is the time constant with which a peak is forgotten, 100ms to 10m.
	Decay time.Duration
	// Unknown is the latency that an endpoint without one is taken to have, 1ms
	// to 1m: not the best, so that a newcomer does not win every pick.
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
		if p.cost(y, r.Now) < p.cost(x, r.Now) {
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

func (p *peakEWMAPicker) cost(s *slot, now time.Duration) float64 {
	n := float64(s.ep.inFlight.Load())
	return s.ep.mind.peak.at(now, &p.cfg) * (1 + n*p.meanWeight/float64(s.w))
}

func (*peakEWMAPicker) Mode(time.Duration) string {
	return "weighted two choices by peak latency and in-flight"
}

// Explain implements Picker.
func (p *peakEWMAPicker) Explain(r Request) Explanation {
	x := explain(p.Mode(r.Now), p.slots, &r, byWeight(p.slots))
	for i := range p.slots {
		c, s := &x.Candidates[i], &p.slots[i]
		m := &s.ep.mind.peak
		c.Score = p.cost(s, r.Now)
		c.Terms = append(c.Terms, Term{"peak_ms", m.at(r.Now, &p.cfg)}, Term{"peak_age_s", m.age(r.Now)})
	}
	return x
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

// peak is finagle's peak-sensitive moving average of an endpoint's response
// time: a sample above it replaces it, and it is forgotten by time. finagle
// forgets whenever it reads, which it does before nearly every sample, so that
// one below the average has no weight of its own: the average is the highest of
// all samples, each taken times exp(-age/decay). Nothing has to be written for
// that but a new highest.
//
// One word: the highest in milliseconds (float32) over its time in milliseconds
// (uint32, wrapping after 49 days). Without a sample the first is unsampled and
// the time that from which Unknown sinks, as tower's default does: an endpoint
// that seems slower than all others is still tried some day.
type peak struct{ word atomic.Uint64 }

// unsampled stands for the average of an endpoint that no sample came from.
const unsampled = -1

func packPeak(ms float64, now time.Duration) uint64 {
	return uint64(math.Float32bits(float32(ms)))<<32 | uint64(uint32(now/time.Millisecond))
}

// seen has the time of an endpoint that is new to the policy begin.
func (p *peak) seen(now time.Duration) {
	if p.word.Load() == 0 {
		p.word.CompareAndSwap(0, packPeak(unsampled, now))
	}
}

// at returns the average in milliseconds.
func (p *peak) at(now time.Duration, c *PeakEWMAConfig) float64 {
	return peakOf(p.word.Load(), now, c)
}

func peakOf(word uint64, now time.Duration, c *PeakEWMAConfig) float64 {
	ms := float64(math.Float32frombits(uint32(word >> 32)))
	if word == 0 || ms < 0 {
		ms = float64(c.Unknown) / float64(time.Millisecond)
	}
	if t := peakAge(word, now); t > 0 {
		ms *= math.Exp(-float64(t) / float64(c.Decay))
	}
	return ms
}

// peakAge returns how long ago the word's highest was sampled. A request that
// ended meanwhile may have stamped it after this one read its clock.
func peakAge(word uint64, now time.Duration) time.Duration {
	if word == 0 {
		return 0
	}
	return time.Duration(max(0, int32(uint32(now/time.Millisecond)-uint32(word)))) * time.Millisecond
}

// age returns the seconds since the highest sample, Absent if there is none.
func (p *peak) age(now time.Duration) float64 {
	w := p.word.Load()
	if w == 0 || math.Float32frombits(uint32(w>>32)) < 0 {
		return Absent
	}
	return peakAge(w, now).Seconds()
}

// answered takes a sample. The first replaces Unknown whatever it is.
func (p *peak) answered(now, sample time.Duration, c *PeakEWMAConfig) {
	old := p.word.Load()
	if old == 0 || math.Float32frombits(uint32(old>>32)) < 0 {
		if p.word.CompareAndSwap(old, packPeak(float64(sample)/float64(time.Millisecond), now)) {
			return
		}
	}
	p.atLeast(now, sample, c)
}

// atLeast takes a sample that only counts if it is above the average. One that
// loses a race looks again: what beat it may be a lower one.
func (p *peak) atLeast(now, sample time.Duration, c *PeakEWMAConfig) {
	ms := float64(sample) / float64(time.Millisecond)
	for {
		old := p.word.Load()
		if ms <= peakOf(old, now, c) || p.word.CompareAndSwap(old, packPeak(ms, now)) {
			return
		}
	}
}

// failed undoes what was forgotten since the highest sample: time spent on
// failing is not time in which the endpoint got better.
func (p *peak) failed(now time.Duration) {
	old := p.word.Load()
	ms := float64(math.Float32frombits(uint32(old >> 32)))
	if old == 0 {
		ms = unsampled
	}
	if old == 0 || peakAge(old, now) > 0 {
		p.word.CompareAndSwap(old, packPeak(ms, now))
	}
}
