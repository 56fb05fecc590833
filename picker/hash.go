package picker

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// HashConfig tunes the consistent_hash policy.
type HashConfig struct {
	// On says what of a request makes the key: one of HashKeys. The engine
	// computes it (Request.Key).
	On string
	// Name is the header's, cookie's or query parameter's.
	Name string
	// Balance is the most that an endpoint may have in flight, as a multiple of
	// its share by weight of all in flight, before its keys spill over to the
	// next endpoint: 1.01 to 100, or 0 for no bound.
	Balance float64
	// Points is how many points an endpoint has on the ring for each unit of
	// weight, 1 to 1000.
	Points int
}

// HashKeys lists what HashConfig.On may be.
func HashKeys() []string { return []string{"source", "header", "cookie", "path", "query"} }

// DefaultHashConfig returns the settings of a policy block that says nothing.
func DefaultHashConfig() HashConfig {
	return HashConfig{
		On:      "source", // every request has one
		Balance: 1.25,     // Mirrokni et al.'s example and HAProxy's advice for hash-balance-factor
		Points:  64,       // shares within 13 % (one sigma); the bound evens out the rest
	}
}

// Validate reports the first setting that is out of range.
func (c HashConfig) Validate() error {
	named := c.On == "header" || c.On == "cookie" || c.On == "query"
	switch {
	case !slices.Contains(HashKeys(), c.On):
		return fmt.Errorf("hash on is %q, allowed are %s", c.On, strings.Join(HashKeys(), ", "))
	case named && c.Name == "":
		return fmt.Errorf("hash name is missing: on = %q needs the name of the %s", c.On, c.On)
	case !named && c.Name != "":
		return fmt.Errorf("hash name is %q, but on = %q takes none", c.Name, c.On)
	case c.Balance != 0 && !(c.Balance >= 1.01 && c.Balance <= 100):
		return fmt.Errorf("hash balance is %v, allowed are 1.01 to 100, or 0 for no bound", c.Balance)
	case c.Points < 1 || c.Points > 1000:
		return fmt.Errorf("hash points is %d, allowed are 1 to 1000", c.Points)
	}
	return nil
}

// consistentHash gives every key an endpoint of its own on a ring (Karger et
// al., "Consistent hashing and random trees", STOC 1997), as long as that is not
// far busier than its share (Mirrokni, Thorup and Zadimoghaddam, "Consistent
// hashing with bounded loads", SODA 2018): then the next one clockwise.
//
// An endpoint in its slow start has all its points, so that its keys move once
// and not bit by bit, but its bound rises with its ramp.
type consistentHash struct {
	cfg  HashConfig
	rand Rand
	sets *hashSets
}

func newConsistentHash(c HashConfig, rand Rand) consistentHash {
	return consistentHash{c, rand, &hashSets{}}
}

func (consistentHash) Name() string { return "consistent_hash" }

func (p consistentHash) Build(ready []*Endpoint) Picker {
	h := &hashPicker{hashSet: p.sets.of(ready, p.cfg.Points), cfg: p.cfg, rand: p.rand, lot: randomPolicy{p.rand}.Build(ready)}
	h.mode = h.describe()
	h.recount(h.next.Load())
	return h
}

// recountEvery is how long the sums that the bound goes by may drift. They are
// kept up to date by Sent and Done; what these miss is what ends at endpoints
// that have left the ring, and what changes while they are summed up or between
// two pickers. By so many requests at most the bound is off for as long.
const recountEvery = 50 * time.Millisecond

// maxWalk is how many points are looked at before the endpoints are searched for
// the one with the least in flight per weight instead, which has room if any has.
const maxWalk = 128

type hashPicker struct {
	*hashSet
	cfg  HashConfig
	lot  Picker // of requests without a key
	rand Rand
	mode string

	_      [64]byte      // every request writes what follows
	total  atomic.Int64  // in flight at all endpoints
	ramped atomic.Uint64 // bits of the weight of all with their ramps
	next   atomic.Int64  // when they are to be summed up again
	_      [64]byte
}

// Pick implements Picker.
func (p *hashPicker) Pick(r Request) (*Endpoint, bool) {
	if r.Key == 0 || len(p.slots) == 0 {
		return p.lot.Pick(r)
	}
	i, last := p.ring.find(r.Key), -1
	bound := p.bound()
	for range min(maxWalk, len(p.ring.points)) {
		// One that was passed over is so again; only neighbours are worth remembering.
		if o := p.ring.owner(i); o != last {
			if c := &p.slots[o]; r.takes(c.ep) && bound.admits(c, r.Now) {
				return c.ep, true
			}
			last = o
		}
		i = p.ring.next(i)
	}
	return scanFree(p.slots, &r, p.rand)
}

// loadBound is how much an endpoint may have in flight.
type loadBound struct {
	perWeight float64 // 0: no bound
	ramps     bool    // some endpoint is in its slow start
}

// bound returns the bound for one more request: balance times the share by
// weight of all that are in flight with it.
func (p *hashPicker) bound() loadBound {
	if p.cfg.Balance == 0 {
		return loadBound{}
	}
	ramped := math.Float64frombits(p.ramped.Load())
	return loadBound{p.cfg.Balance * float64(max(0, p.total.Load())+1) / ramped, ramped < p.weight}
}

// of is the bound of one endpoint, not rounded up yet.
func (b loadBound) of(c *slot, now time.Duration) float64 {
	x := b.perWeight * float64(c.w)
	if b.ramps {
		x *= c.ep.Ramp(now)
	}
	return x
}

// admits reports whether c may have one more. Below x, a whole number is below
// what x rounds up to.
func (b loadBound) admits(c *slot, now time.Duration) bool {
	return b.perWeight == 0 || float64(c.ep.inFlight.Load()) < b.of(c, now)
}

// Due implements Refresher.
func (p *hashPicker) Due(now time.Duration) bool {
	return p.cfg.Balance > 0 && int64(now) >= p.next.Load()
}

// Refresh implements Refresher.
func (p *hashPicker) Refresh(now time.Duration) { p.recount(int64(now)) }

func (p *hashPicker) recount(now int64) {
	var total int64
	var ramped float64
	for i := range p.slots {
		c := &p.slots[i]
		total += c.ep.inFlight.Load()
		ramped += float64(c.w) * c.ep.Ramp(time.Duration(now))
	}
	p.total.Store(total)
	p.ramped.Store(math.Float64bits(ramped))
	p.next.Store(now + int64(recountEvery))
}

// Sent implements Observer.
func (p *hashPicker) Sent(*Endpoint, time.Duration) float32 {
	p.total.Add(1)
	return 0
}

// Done implements Observer.
func (p *hashPicker) Done(*Endpoint, time.Duration, float32, Result) { p.total.Add(-1) }

// Reported implements Observer.
func (*hashPicker) Reported(*Endpoint, time.Duration) {}

func (p *hashPicker) describe() string {
	m := strings.TrimSpace("consistent hash of the " + p.cfg.On + " " + p.cfg.Name)
	if p.cfg.Balance > 0 {
		m += fmt.Sprintf(", up to %g times the even load", p.cfg.Balance)
	}
	if p.ring.scale > 0 {
		m += fmt.Sprintf(", points divided by %d", 1<<p.ring.scale)
	}
	return m
}

// Mode implements Picker.
func (p *hashPicker) Mode(time.Duration) string { return p.mode }
