package balance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"outrigger/breaker"
	"outrigger/discovery"
	"outrigger/picker"
)

// history is a balancer to which anything may happen, as bytes say.
type history struct {
	*Balancer
	t    *testing.T
	data []byte
	now  time.Duration
	held []*Lease
	told []string

	begun      bool               // a set has come
	was, prior bool               // panic, now and a step before
	proven     map[*member]bool   // see remember
	ejections  map[*member]uint64 // see remember
	refused    map[*member]time.Duration
	enough     time.Duration // since when there is no reason for a panic
}

func newHistory(t *testing.T, data []byte) *history {
	h := &history{t: t, data: data, now: time.Second, proven: map[*member]bool{}, refused: map[*member]time.Duration{}, ejections: map[*member]uint64{}}
	cfg := DefaultConfig()
	cfg.PanicThreshold = []float64{.5, 0, 1, .3}[h.next(4)]
	cfg.Picker.Policy = []string{"resource", "least_conn"}[h.next(2)]
	cfg.Failover.Below = []float64{1, 2, .5}[h.next(3)]
	chance := rand.New(rand.NewPCG(uint64(len(data)), 1))
	b, err := New(cfg, Env{
		Now: func() time.Duration { return h.now }, Rand: chance.Uint32N, Wake: func() {},
		Event: func(e Event) {
			if e.Kind == "panic" || e.Kind == "panic_over" {
				h.told = append(h.told, e.Kind)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Balancer = b
	return h
}

// next takes a number below n from the bytes, 0 when there are no more.
func (h *history) next(n int) int {
	if len(h.data) == 0 {
		return 0
	}
	x := int(h.data[0]) % n
	h.data = h.data[1:]
	return x
}

// step has one thing happen.
func (h *history) step() {
	id := instance(h.next(6)).ID
	switch h.next(6) {
	case 0:
		var set []discovery.Instance
		for i := range 6 {
			inst := instance(i)
			inst.Health = []discovery.Health{0, 0, discovery.Warning, discovery.Critical, discovery.Critical, discovery.Maintenance}[h.next(6)]
			inst.Weight = []int{1, 1, 3, 0}[h.next(4)]
			inst.Backup, inst.Tier = h.next(5) == 4, h.next(4)/3
			if h.next(5) < 4 {
				set = append(set, inst)
			}
		}
		h.Update(set)
	case 1:
		h.SetCheck(id, CheckState{Known: h.next(4) > 0, Up: h.next(2) > 0, Unreachable: h.next(2) > 0, Since: h.now})
	case 2:
		if l, err := h.TryAcquire(Key{Hash: uint64(h.next(256))}); err == nil {
			h.held = append(h.held, &l)
		}
	case 3:
		if n := len(h.held); n > 0 {
			i := h.next(n)
			timeout := picker.Result{Outcome: picker.Failure, NoConn: true}
			h.held[i].Done([]picker.Result{ok, bad, down, timeout, skip, bad, down}[h.next(7)])
			h.held = slices.Delete(h.held, i, i+1)
		}
	case 4:
		h.now += []time.Duration{time.Millisecond, 300 * time.Millisecond, 2 * time.Second, 40 * time.Second}[h.next(4)]
	case 5:
		h.SetLoad(id, &picker.Load{At: h.now, Expires: h.now + 3*time.Second, Cores: 1, Avail: 1, Mem: float64(h.next(2)), Listening: true})
	}
}

// holds checks what holds whatever has happened.
func (h *history) holds() {
	for _, m := range h.snap.Load().all {
		// Not every request tells of these: they may wait for the next rebuild.
		c, again := m.check.Load(), time.Duration(0)
		if at, yes := m.br.Unreachable(); yes {
			again = at
		}
		if c != nil && c.successes != m.ep.Totals().Successes || h.refused[m] != again {
			h.changed.Store(true)
		}
		h.refused[m] = again
	}
	h.Tick()
	s, now := h.snap.Load(), h.now
	if s.due != 0 && s.due <= now {
		h.t.Fatalf("due at %v, and it is %v", s.due, now)
	}
	in := map[*member]bool{}
	for _, m := range s.ready {
		in[m] = true
	}
	h.remember(s)
	listed, let, others, counted := 0, 0, false, false
	for _, m := range s.all {
		counted = counted || h.proven[m] && m.out(now).listed()
	}
	for _, m := range s.all {
		out := m.out(now)
		if out != m.reason {
			h.t.Fatalf("%s: %q, and the snapshot has it as %q", m.ep.ID, outNames[out], outNames[m.reason])
		}
		if !out.listed() {
			if in[m] {
				h.t.Fatalf("%s is %s, and ready", m.ep.ID, outNames[out])
			}
			continue
		}
		listed++
		if out <= damped {
			let++
		}
		if h.proven[m] || !counted {
			others = others || h.can(m)
		} else if in[m] {
			h.newcomer(s, m)
		}
		if out == inService && !in[m] && m.ep.Rank() <= s.tier && !s.spared(m, now) {
			h.t.Fatalf("%s is well, and not ready", m.ep.ID)
		}
	}
	h.panics(s, counted)
	if h.cfg.PanicThreshold > 0 {
		let = listed
	}
	if (len(s.ready) == 0) != (let == 0) {
		h.t.Fatalf("%d ready with %d of %d let in", len(s.ready), let, listed)
	}
	for _, m := range s.all {
		if h.proven[m] || !counted {
			h.one(s, m, in[m], others)
		}
	}
	h.serves(s)
}

// remember notes who has ever been let in by Consul and the check, or was of the first
// set, and what ejections there were when the panic began.
func (h *history) remember(s *snapshot) {
	for _, m := range s.all {
		inst, c := m.inst.Load(), m.check.Load()
		up := inst.Health <= discovery.Warning && inst.Weight > 0 && (c == nil || !c.Known || c.Up)
		if up || !h.begun {
			h.proven[m] = true
		}
		if !s.ignoring {
			h.ejections[m] = m.br.Ejections()
		}
	}
	h.begun = h.begun || s.seen
	if s.ignoring && !h.was {
		for _, m := range s.all {
			h.ejections[m] = m.br.Ejections()
		}
	}
	h.prior, h.was = h.was, s.ignoring
}

// can reports whether a panic would use m, or uses it.
func (h *history) can(m *member) bool {
	_, refuses := m.unreachable(h.now)
	failed := h.was && m.br.State(h.now) != breaker.Closed && m.br.Ejections() > h.ejections[m]
	return !refuses && !failed && (m.reason <= damped || h.cfg.PanicThreshold > 0)
}

// newcomer: who was never well gets nothing while another can be used.
func (h *history) newcomer(s *snapshot, m *member) {
	for _, o := range s.all {
		if h.proven[o] && o.reason.listed() && (o.reason == inService || h.can(o)) {
			h.t.Fatalf("%s was never well, and is used beside %s", m.ep.ID, o.ep.ID)
		}
	}
}

// panics checks where a panic must be, and where it must not.
func (h *history) panics(s *snapshot, counted bool) {
	var listed, well, primaries, well1, out, serving int
	flat := true
	for _, m := range s.all {
		inst := m.inst.Load()
		flat = flat && inst.Tier == 0 && !inst.Backup
		if !m.reason.listed() || counted && !h.proven[m] {
			continue
		}
		_, refuses := m.unreachable(h.now)
		is := 0
		if m.reason == inService && !refuses {
			is = 1
		}
		listed, well = listed+1, well+is
		if m.reason == inService {
			serving++
		}
		if m.reason != inService && (m.reason <= damped || h.cfg.PanicThreshold > 0) {
			out++
		}
		if inst.Tier == 0 && !inst.Backup {
			primaries, well1 = primaries+1, well1+is
		}
	}
	enough := primaries > 0 && primaries == well1 || out == 0
	// Not every refused connection is told of at once.
	must := serving == 0 && out > 0
	if flat && h.cfg.PanicThreshold > 0 {
		enough = enough || float64(well) > h.cfg.PanicThreshold*float64(listed)
		must = must || out > 0 && float64(serving) < h.cfg.PanicThreshold*float64(listed)-1e-6
	}
	if !enough {
		h.enough = 0
	} else if h.enough == 0 {
		h.enough = h.now
	}
	switch {
	case must && !s.ignoring:
		h.t.Fatalf("no panic with %d of %d well", well, listed)
	case s.ignoring && enough && (out == 0 || !h.prior || h.now >= h.enough+calm):
		h.t.Fatalf("panic with %d of %d well, %d of %d primaries", well, listed, well1, primaries)
	}
}

// one checks an endpoint that counts.
func (h *history) one(s *snapshot, m *member, in, others bool) {
	out := m.reason
	if !out.listed() {
		return
	}
	again, unreachable := m.unreachable(h.now)
	if out == inService {
		if s.ignoring && unreachable && others && m.ep.Limit() == h.cfg.MaxInFlight {
			h.t.Fatalf("%s refuses, and a panic with others has it whole", m.ep.ID)
		}
		return
	}
	ignorable := s.ignoring && (h.cfg.PanicThreshold > 0 || out <= damped)
	whole := m.ep.Limit() == h.cfg.MaxInFlight
	failed := ignorable && m.br.State(h.now) != breaker.Closed && m.br.Ejections() > h.ejections[m]
	probed := failed && m.br.State(h.now) == breaker.HalfOpen
	switch {
	case ignorable && h.can(m):
		if !in || !whole || !s.ignores(m) {
			h.t.Fatalf("panic leaves %s out, which is %s", m.ep.ID, outNames[out])
		}
	case ignorable && !others: // whoever is in
	case in && whole && (out == halfOpen || out == ejected || s.ignoring):
		h.t.Fatalf("%s is %s and refuses or failed in this panic, and in whole", m.ep.ID, outNames[out])
	case in && out != halfOpen && !probed && !(ignorable && unreachable && again <= h.now):
		h.t.Fatalf("%s is %s, and ready", m.ep.ID, outNames[out])
	}
}

// serves checks that a request gets an endpoint where one may be had, and one of
// those that are allowed.
func (h *history) serves(s *snapshot) {
	may := 0
	for _, m := range s.ready {
		if !m.ep.HasRoom() || s.vetoes(m, h.now) {
			continue
		}
		p, ok := m.br.Admit(h.now) // a probe may be on its way, with room for more
		if ok {
			m.br.Report(p, breaker.Neutral, h.now)
		}
		if ok || s.ignores(m) {
			may++
		}
	}
	l, err := h.TryAcquire(Key{Hash: uint64(h.now)})
	if (err == nil) != (may > 0) {
		h.t.Fatalf("leased %v with %d to be had", err, may)
	}
	if err == nil {
		m := h.member(&l)
		if !slices.Contains(s.ready, m) && !slices.Contains(s.standby, m) {
			h.t.Fatalf("leased %s, which is %s", m.ep.ID, outNames[m.reason])
		}
		l.Done(skip)
	}
}

func (h *history) member(l *Lease) *member { return l.Endpoint().Owner.(*member) }

func (h *history) run() {
	for len(h.data) > 0 {
		h.step()
		h.holds()
	}
	for _, l := range h.held {
		l.Done(ok)
	}
	for i, kind := range h.told {
		if want := []string{"panic", "panic_over"}[i%2]; kind != want {
			h.t.Fatalf("told %v", h.told)
		}
	}
	if n := h.Status().Panics; int(n) != (len(h.told)+1)/2 {
		h.t.Fatalf("%d panics, told %v", n, h.told)
	}
	for _, m := range h.snap.Load().all {
		if m.ep.InFlight() != 0 {
			h.t.Fatalf("%s: %d in flight", m.ep.ID, m.ep.InFlight())
		}
	}
}

// TestAnyHistory: whatever happens to a service, the rule of health.go holds at each
// moment, and the ready set is empty only if nothing is listed (with a threshold of 0:
// if Consul and the checks let nothing through).
func TestAnyHistory(t *testing.T) {
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 7))
		data := make([]byte, 200)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) { newHistory(t, data).run() })
		if !ok {
			return
		}
	}
}

func FuzzHealth(f *testing.F) {
	f.Add([]byte("one endpoint after the other falls and comes back"))
	f.Add([]byte{0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 3, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4, 3, 2, 3, 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 2000 {
			newHistory(t, data).run()
		}
	})
}

// BenchmarkRebuild is the cost of the rule: a rebuild of a service of a hundred, well
// and in a panic.
func BenchmarkRebuild(b *testing.B) {
	for _, critical := range []int{0, 60} {
		r := newRig(b, func(c *Config) { c.Breaker = breaker.DefaultConfig() })
		set := instances(100)
		for i := range critical {
			set[i].Health = discovery.Critical
		}
		r.Update(set)
		b.Run(fmt.Sprintf("critical=%d", critical), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.changed.Store(true)
				r.Tick()
			}
		})
	}
}
