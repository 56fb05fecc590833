package balance

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"outrigger/picker"
)

// fixed is a policy that takes the endpoints of a list, by ID, round and round;
// "" is none. It notes what it is told.
type fixed struct {
	name string
	ids  []string

	mu    sync.Mutex
	next  int
	due   bool
	notes []string
}

func (f *fixed) Name() string { return f.name }
func (f *fixed) Build(ready []*picker.Endpoint) picker.Picker {
	return &fixedPicker{f, slices.Clone(ready)}
}

func (f *fixed) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = append(f.notes, fmt.Sprintf(format, args...))
}

// told returns the notes since the last time.
func (f *fixed) told() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.notes, "; ")
	f.notes = nil
	return s
}

type fixedPicker struct {
	f     *fixed
	ready []*picker.Endpoint
}

func (p *fixedPicker) Pick(picker.Request) (*picker.Endpoint, bool) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	id := p.f.ids[p.f.next%len(p.f.ids)]
	p.f.next++
	for _, e := range p.ready {
		if e.ID == id {
			return e, true
		}
	}
	return nil, false
}

func (p *fixedPicker) Mode(time.Duration) string { return "fixed" }

func (p *fixedPicker) Explain(picker.Request) picker.Explanation {
	x := picker.Explanation{Rule: "a list"}
	for _, e := range p.ready {
		x.Candidates = append(x.Candidates, picker.Candidate{Endpoint: e})
	}
	return x
}

func (p *fixedPicker) Due(time.Duration) bool {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	return p.f.due
}

func (p *fixedPicker) Refresh(time.Duration) {
	p.f.note("refresh %d", len(p.ready))
	p.f.mu.Lock()
	p.f.due = false
	p.f.mu.Unlock()
}

func (p *fixedPicker) Sent(e *picker.Endpoint, _ time.Duration) float32 {
	p.f.note("sent %s with %d", e.ID, e.InFlight())
	return 7.5
}

func (p *fixedPicker) Done(e *picker.Endpoint, _ time.Duration, sent float32, r picker.Result) {
	p.f.note("done %s with %d, %v, %v", e.ID, e.InFlight(), sent, r.Outcome)
}

func (p *fixedPicker) Reported(e *picker.Endpoint, _ time.Duration) { p.f.note("report of %s", e.ID) }

// shadowRig is a rig whose policy takes the endpoints of one list and whose
// shadow those of another.
func shadowRig(t *testing.T, change func(*Config), policy, shadow []string) (*rig, *fixed) {
	t.Helper()
	r := newRig(t, change)
	sh := &fixed{name: "shadow", ids: shadow}
	r.policy, r.shadow = &fixed{name: "policy", ids: policy}, sh
	return r, sh
}

// disagreed is the share of picks on which the two disagree.
func disagreed(s *ShadowStatus) float64 { return float64(s.Disagreed) / float64(max(1, s.Picks)) }
