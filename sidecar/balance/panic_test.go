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
}

func newHistory(t *testing.T, data []byte) *history {
	h := &history{t: t, data: data, now: time.Second}
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
	h.Tick()
	s, now := h.snap.Load(), h.now
	if s.due != 0 && s.due <= now {
		h.t.Fatalf("due at %v, and it is %v", s.due, now)
	}
	in := map[*member]bool{}
	for _, m := range s.ready {
		in[m] = true
	}
	listed, healthy, let, fallbacks, others := 0, 0, 0, false, false
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
		fallbacks = fallbacks || m.inst.Load().Tier > 0
		if out == inService {
			healthy++
		}
		if out <= damped {
			let++
		}
		_, unreachable := m.unreachable(now)
		others = others || out == inService || !unreachable && (h.cfg.PanicThreshold > 0 || out <= damped)
		if out == inService && !in[m] && m.ep.Rank() <= s.tier && !s.spared(m, now) {
			h.t.Fatalf("%s is well, and not ready", m.ep.ID)
		}
	}
	share := h.cfg.PanicThreshold
	panics := healthy == 0 && let > 0
	if share > 0 {
		panics = listed > 0 && (healthy == 0 || float64(healthy) < share*float64(listed)-1e-6)
		let = listed
	}
	if s.ignoring != panics && !(fallbacks && share > 0 && !s.ignoring && healthy > 0) {
		h.t.Fatalf("panic %v with %d of %d healthy, threshold %v", s.ignoring, healthy, listed, share)
	}
	if (len(s.ready) == 0) != (let == 0) {
		h.t.Fatalf("%d ready with %d of %d let in", len(s.ready), let, listed)
	}
	for _, m := range s.all {
		h.one(s, m, in[m], others)
	}
	h.serves(s)
}

// one checks an endpoint that is not well.
func (h *history) one(s *snapshot, m *member, in, others bool) {
	out := m.reason
	if out == inService || !out.listed() {
		return
	}
	again, unreachable := m.unreachable(h.now)
	ignorable := s.ignoring && (h.cfg.PanicThreshold > 0 || out <= damped)
	whole := m.ep.Limit() == h.cfg.MaxInFlight
	switch {
	case ignorable && (!unreachable || !others):
		if !in || !whole || !s.ignores(m) {
			h.t.Fatalf("panic leaves %s out, which is %s; unreachable %v, others %v", m.ep.ID, outNames[out], unreachable, others)
		}
	case in && whole && (out == halfOpen || out == ejected || s.ignoring):
		h.t.Fatalf("%s is %s and unreachable, and in whole", m.ep.ID, outNames[out])
	case in && out != halfOpen && !(ignorable && unreachable && again <= h.now):
		h.t.Fatalf("%s is %s, and ready", m.ep.ID, outNames[out])
	}
}

// serves checks that a request gets an endpoint where one may be had, and one of
// those that are allowed.
func (h *history) serves(s *snapshot) {
	may := 0
	for _, m := range s.ready {
		if m.ep.HasRoom() && s.admits(m, h.now) && !s.vetoes(m, h.now) {
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
