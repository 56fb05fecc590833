package balance

import (
	"fmt"
	"sync/atomic"
	"time"

	"outrigger/picker"
)

// shadow is the second policy's part of a snapshot. It picks beside the first
// and nothing comes of it: it never reserves, and the first does not hear of
// it. Immutable.
type shadow struct {
	picker    picker.Picker
	refresher picker.Refresher // the same, if it has tables that age
	observer  picker.Observer  // the same, if it learns from requests
}

func newShadow(p picker.Picker) *shadow {
	sh := &shadow{picker: p}
	sh.refresher, _ = p.(picker.Refresher)
	sh.observer, _ = p.(picker.Observer)
	return sh
}

// due reports whether its tables should be computed anew.
func (sh *shadow) due(now time.Duration) bool {
	return sh != nil && sh.refresher != nil && sh.refresher.Due(now)
}

// refresh is called as Refresher.Refresh is.
func (sh *shadow) refresh(now time.Duration) {
	if sh != nil && sh.refresher != nil {
		sh.refresher.Refresh(now)
	}
}

// sent tells the shadow, and Done what it wants to hear again.
func (sh *shadow) sent(m *member, now time.Duration) float32 {
	if sh == nil || sh.observer == nil {
		return 0
	}
	return sh.observer.Sent(m.ep, now)
}

// done tells the shadow of a request's end, and the yardstick, before it is
// counted out. sent is what Sent returned.
func (sh *shadow) done(m *member, now time.Duration, sent float32, r picker.Result) {
	if sh == nil {
		return
	}
	if sh.observer != nil {
		sh.observer.Done(m.ep, now, sent, r)
	}
	if r.Outcome == picker.Success && r.FirstByte > 0 {
		m.alone.Observe(now, time.Duration(float64(r.FirstByte)/slowdown(m.ep, 0, now)))
	}
}

// reported tells the shadow of a new report.
func (sh *shadow) reported(m *member, now time.Duration) {
	if sh != nil && sh.observer != nil {
		sh.observer.Reported(m.ep, now)
	}
}

// comparison is what the two policies made of one request.
type comparison struct {
	how            uint64  // howCompared, howDisagreed; 0: there is no shadow
	none           bool    // the shadow had no endpoint
	policy, shadow float64 // predicted seconds at the endpoint of each; 0: unknown
}

// compare has the shadow pick beside the policy's pick ep, which is not yet
// reserved: both see the same fleet.
func (sh *shadow) compare(ep *picker.Endpoint, r *picker.Request) comparison {
	if sh == nil {
		return comparison{}
	}
	c := comparison{how: howCompared}
	other, ok := sh.picker.Pick(*r)
	c.policy = ep.Owner.(*member).predict(r.Now)
	switch {
	case !ok:
		c.how, c.none = c.how|howDisagreed, true
	case other == ep:
		c.shadow = c.policy
	default:
		c.how |= howDisagreed
		c.shadow = other.Owner.(*member).predict(r.Now)
	}
	return c
}

// tally adds up comparisons. Sums are in microseconds: as integers, they add in
// one step.
type tally struct {
	picks, disagreed, none, predicted atomic.Uint64
	policy, shadow                    atomic.Uint64
}

// count counts a comparison whose request was sent.
func (t *tally) count(c comparison) {
	if c.how == 0 {
		return
	}
	t.picks.Add(1)
	if c.how&howDisagreed != 0 {
		t.disagreed.Add(1)
	}
	if c.none {
		t.none.Add(1)
	}
	if c.policy > 0 && c.shadow > 0 {
		t.predicted.Add(1)
		t.policy.Add(uint64(c.policy*1e6 + .5))
		t.shadow.Add(uint64(c.shadow*1e6 + .5))
	}
}

// ShadowStatus is how a second policy would have done. All counts are since the
// start.
//
// The gain is predicted, not measured, by one yardstick for both policies: the
// time to the first byte that a request would have at endpoint e if it joined
// the n that are there,
//
//	T(e)  = alone(e) * slow(n + 1)
//	slow(n) = max(1, n / C)
//	alone = moving average of (time to the first byte / slow(n at its end))
//
// which is processor sharing (Kleinrock, Queueing Systems 2, 1976): up to C
// requests run at full speed, more share what there is. n is what this sidecar
// has there, and what others had by the newest report; C what the report says
// that the backend sustains at once, else the cores it could use, and at least
// 1: with less than a core one request alone is slow already, which alone tells.
//
// Its limits: picks that the shadow would have sent elsewhere would have changed
// the fleet for those after them, which no prediction from this one can tell;
// requests are taken to be alike; without reports others are not seen and a
// backend of many cores is taken for one, which makes queueing look dearer than
// it is. Good for the direction and rough size, no more.
type ShadowStatus struct {
	Policy string
	Mode   string // how it picks now

	Picks     uint64 // compared
	Disagreed uint64 // of those: another endpoint, or none
	None      uint64 // of those: none

	// Predicted counts the picks (agreeing ones among them) with a prediction
	// for both endpoints, and what follows is over these.
	Predicted                    uint64
	PolicySeconds, ShadowSeconds float64 // sums of the predicted times
}

// Gain is the mean time by which the shadow's picks are predicted to be
// answered earlier, in seconds and as a share of the policy's; negative where
// later. ok is false while nothing could be predicted.
func (s *ShadowStatus) Gain() (seconds, share float64, ok bool) {
	if s.Predicted == 0 || s.PolicySeconds <= 0 {
		return 0, 0, false
	}
	gain := s.PolicySeconds - s.ShadowSeconds
	return gain / float64(s.Predicted), gain / s.PolicySeconds, true
}

func (b *Balancer) shadowStatus(s *snapshot, now time.Duration) *ShadowStatus {
	if s.shadow == nil {
		return nil
	}
	t := &b.compared
	return &ShadowStatus{
		Policy: b.shadow.Name(), Mode: s.shadow.picker.Mode(now),
		// Parts before their whole, so that no share is above 1.
		None: t.none.Load(), Disagreed: t.disagreed.Load(), Picks: t.picks.Load(),
		Predicted:     t.predicted.Load(),
		PolicySeconds: float64(t.policy.Load()) / 1e6, ShadowSeconds: float64(t.shadow.Load()) / 1e6,
	}
}

// predict returns ShadowStatus' T in seconds, 0 if unknown.
func (m *member) predict(now time.Duration) float64 {
	return m.alone.Value().Seconds() * slowdown(m.ep, 1, now)
}

// slowdown returns ShadowStatus' slow for what is at e and more beside.
func slowdown(e *picker.Endpoint, more int, now time.Duration) float64 {
	n, c := float64(e.InFlight()+more), 1.0
	if l := e.Load(); l != nil && now < l.Expires {
		if l.InFlight >= 0 {
			n += l.Others()
		}
		switch {
		case l.Conc > 0:
			c = l.Conc
		case l.Avail > 0:
			c = l.Avail
		case l.Cores > 0:
			c = l.Cores
		}
	}
	return max(1, n/max(1, c))
}

// noShadow returns the settings of a service without one.
func noShadow() picker.Config {
	c := picker.DefaultConfig()
	c.Policy = ""
	return c
}

// validateShadow reports the first setting of the shadow that is out of range.
func (c Config) validateShadow() error {
	if c.Shadow.Policy == "" {
		return nil
	}
	if err := c.Shadow.Validate(); err != nil {
		return fmt.Errorf("%w (in the shadow)", err)
	}
	if c.Shadow.Policy == c.Picker.Policy {
		return fmt.Errorf("shadow is %q, as is the policy: nothing to compare; name another, or leave shadow out", c.Shadow.Policy)
	}
	return nil
}

func (e *Env) shadowRand() picker.Rand {
	if e.ShadowRand != nil {
		return e.ShadowRand
	}
	return e.Rand
}
