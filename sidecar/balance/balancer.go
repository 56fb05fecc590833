package balance

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"outrigger/breaker"
	"outrigger/discovery"
	"outrigger/picker"
)

// Balancer hands out leases on the endpoints of one service. All methods are
// safe for concurrent use.
//
// Requests read one immutable snapshot through an atomic pointer. Whatever
// changes it (membership, breakers) goes through rebuild under mu.
type Balancer struct {
	cfg      Config
	env      Env
	policy   picker.Policy
	shadow   picker.Policy // picks beside it without effect; nil: none
	guard    *breaker.Guard
	capacity *breaker.Capacity
	budget   *breaker.Budget

	snap     atomic.Pointer[snapshot]
	draining atomic.Bool
	wake     chan struct{} // one slot: Tick has something to do
	changed  atomic.Bool   // the snapshot has to be built anew

	mu      sync.Mutex // guards members, here and rebuilding
	members map[string]*member
	order   []*member // as Consul gave them
	here    Place

	failover failover      // under mu
	calmAt   time.Duration // when a panic ends that has enough; 0: it has not; under mu

	queue    queue
	sleepers sync.Pool // of *blocking

	requests    breaker.Meter // first tries, for the budget and Retry-After
	shed        breaker.Meter
	granted     atomic.Uint64
	retries     atomic.Uint64
	budgetSpent atomic.Uint64 // retries that the budget forbade
	pinned      atomic.Uint64
	pinMissed   atomic.Uint64
	refused     [numReasons]atomic.Uint64

	compares    bool // success rates; never changes
	outliers    outliers
	compared    tally
	decisions   ring // by ticket of granted
	denials     ring
	denialCount atomic.Uint64
	serials     uint32 // given to members so far; under mu
	gone        []name // of the last ringSize members that left; under mu

	flapped  map[string]breaker.Flap // of endpoints that left; under mu
	falls    map[string]fall         // within massTime, by ID; under mu
	forgetAt time.Duration           // when to look through it; under mu
	events   []Event                 // not told yet; under mu
	telling  bool                    // somebody is at it; under mu
	panics   atomic.Uint64
}

// member is an endpoint with everything that this package keeps beside it.
type member struct {
	ep    *picker.Endpoint
	br    *breaker.Endpoint
	conns Conns
	gauge Gauge  // nil: none
	pin   uint64 // see Lease.Pin
	inst  atomic.Pointer[discovery.Instance]
	check atomic.Pointer[checked]      // nil: not known
	flap  atomic.Pointer[breaker.Flap] // nil: it never fell

	// Of the newest snapshot, under Balancer.mu.
	reason    outReason
	entry     entry
	proven    bool   // of the first set, or let in by Consul and check since
	counts    bool   // in the panic threshold, see panic.go
	taking    bool   // requests like any other: it is ready, and not for probes alone
	past      past   // see slowstart.go
	fallen    bool   // see follow
	ejections uint64 // until the panic began

	used    bool          // ready, where there are fallbacks; under Balancer.mu
	fadeEnd time.Duration // of the fade it is in, 0: none; under Balancer.mu

	tallied tallied // under Balancer.mu

	serial uint32      // in records of decisions; never 0
	alone  picker.EWMA // ShadowStatus' alone
}

// snapshot is what a request sees. Immutable.
type snapshot struct {
	picker     picker.Picker
	vetoer     picker.Vetoer    // the same, if the policy has a veto
	refresher  picker.Refresher // the same, if it has tables that age
	observer   picker.Observer  // the same, if it learns from requests
	forecaster picker.Forecaster
	shadow     *shadow // nil: none
	ready      []*member
	tier       int       // the highest rank in use
	standby    []*member // of ranks above it
	inUse      int       // how many of ready do not fade
	level      int       // the last tier of sources in use, see failover.go
	levelName  string
	levelSince time.Duration
	failovers  uint64
	all        []*member
	byID       map[string]*member
	byPin      map[uint64]*member // of those that are ready; nil unless Config.Pins
	ignoring   bool               // panic: health is ignored, see health.go
	strict     map[*member]entry  // but not for these
	listed     int                // how many endpoints there are to be healthy,
	healthy    int                // and how many are
	reason     Reason             // why ready is empty, when it is
	nextExpiry time.Duration      // of the ejections and holds running now; 0: none
	due        time.Duration      // when to build the next one if nothing changes; 0: never
	seen       bool               // a first answer of discovery has come
}

// New returns a balancer without endpoints. It is an error for the
// configuration to be invalid. Run must be started for ejections to end.
func New(cfg Config, env Env) (*Balancer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	newPolicy := picker.New
	if env.Policy != nil {
		newPolicy = env.Policy
	}
	policy, err := newPolicy(cfg.Picker, env.Rand)
	if err != nil {
		return nil, err
	}
	if len(cfg.Locality.Prefer) > 0 {
		policy = picker.Near(policy, cfg.Locality.names(), cfg.Locality.Spill, env.Rand)
	}
	b := &Balancer{
		cfg:     cfg,
		env:     env,
		policy:  policy,
		guard:   breaker.NewGuard(cfg.Breaker.MaxEjectedPercent),
		wake:    make(chan struct{}, 1),
		members: map[string]*member{},
		here:    cfg.Locality.here(),
	}
	b.compares = cfg.compares()
	if cfg.Shadow.Policy != "" {
		if b.shadow, err = newPolicy(cfg.Shadow, env.shadowRand()); err != nil {
			return nil, err
		}
		if len(cfg.Locality.Prefer) > 0 {
			b.shadow = picker.Near(b.shadow, cfg.Locality.names(), cfg.Locality.Spill, env.shadowRand())
		}
	}
	b.sleepers.New = func() any { return newBlocking() }
	b.capacity = breaker.NewCapacity(cfg.Breaker.Capacity, b.breakerEnv())
	b.budget = breaker.NewBudget(cfg.Budget, &b.requests)
	s := &snapshot{reason: NoBackends}
	s.use(policy.Build(nil))
	if b.shadow != nil {
		s.shadow = newShadow(b.shadow.Build(nil))
	}
	b.snap.Store(s)
	return b, nil
}

func (b *Balancer) breakerEnv() breaker.Env {
	return breaker.Env{Now: b.env.Now, Rand: b.env.Rand, Changed: b.post}
}

// post asks for a rebuild. It never blocks: breakers call it with their locks
// held.
func (b *Balancer) post() {
	b.changed.Store(true)
	b.rouse()
}

// rouse asks for a Tick. It never blocks.
func (b *Balancer) rouse() {
	if b.env.Wake != nil {
		b.env.Wake()
		return
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run rebuilds the snapshot when a breaker changes or an ejection runs out, and
// refreshes the picker's tables, until ctx ends. One per balancer.
func (b *Balancer) Run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		case <-timer.C:
		}
		timer.Reset(b.Tick())
	}
}

// Tick does what is due, a rebuild of the snapshot or a refresh of the picker's
// tables, and returns how long it is until the next rebuild is due if nothing
// changes. Run calls it; a simulator does so itself, never concurrently.
func (b *Balancer) Tick() time.Duration {
	now := b.env.Now()
	b.mu.Lock()
	s := b.snap.Load()
	if b.changed.Swap(false) || s.due != 0 && now >= s.due {
		s = b.rebuild()
	}
	if s.refresher != nil && s.refresher.Due(now) {
		s.refresher.Refresh(now)
	}
	if s.shadow.due(now) {
		s.shadow.refresh(now)
	}
	due := sooner(s.due, b.compare(s, now))
	b.mu.Unlock()
	b.tell()
	b.grant()
	if due == 0 {
		return time.Hour
	}
	return max(time.Millisecond, due-b.env.Now())
}

// Update takes the full set of instances as discovery knows it. Endpoints whose
// instance is still there keep their counters and breakers; those that are gone
// take no new request, and their leases run on to their ends.
func (b *Balancer) Update(instances []discovery.Instance) {
	b.mu.Lock()
	b.replace(instances)
	s := b.rebuild()
	b.mu.Unlock()
	b.tell()
	if s.due != 0 || b.outliers.begun.Load() {
		b.rouse() // Run does not know of it
	}
	b.grant()
}

// replace makes members match the instances. The caller holds b.mu. The old
// map stays as it is: requests read it through the snapshot.
func (b *Balancer) replace(instances []discovery.Instance) {
	old, now := b.members, b.env.Now()
	b.members = make(map[string]*member, len(instances))
	b.order = make([]*member, 0, len(instances))
	for _, inst := range instances {
		if _, twice := b.members[inst.ID]; twice {
			continue
		}
		m := old[inst.ID]
		if m == nil || m.ep.Addr != inst.HostPort() {
			before := m
			m = b.join(inst)
			b.heir(m, before, &inst)
		}
		m.inst.Store(&inst)
		m.ep.SetWeight(inst.Weight)
		m.ep.SetRank(rank(&inst))
		m.ep.SetDistance(b.distance(&inst))
		b.members[inst.ID] = m
		b.order = append(b.order, m)
	}
	for id, m := range old {
		if b.members[id] == m {
			continue
		}
		if b.members[id] == nil {
			b.leaves(m, now)
		}
		b.remember(m)
		m.br.Retire()
		m.retire()
	}
}

func (b *Balancer) join(inst discovery.Instance) *member {
	m := &member{pin: picker.Hash(inst.ID), proven: !b.snap.Load().seen, br: breaker.NewEndpoint(&b.cfg.Breaker, b.guard, b.breakerEnv())}
	b.number(m)
	m.ep = picker.NewEndpoint(inst.ID, inst.HostPort(), inst.Weight, b.cfg.MaxInFlight, m)
	if b.env.NewConns != nil {
		m.conns = b.env.NewConns(m.ep)
	}
	if b.env.NewGauge != nil {
		m.gauge = b.env.NewGauge(m.ep)
	}
	return m
}

// use makes p the snapshot's picker.
func (s *snapshot) use(p picker.Picker) {
	s.picker = p
	s.vetoer, _ = p.(picker.Vetoer)
	s.refresher, _ = p.(picker.Refresher)
	s.observer, _ = p.(picker.Observer)
	s.forecaster, _ = p.(picker.Forecaster)
}

// anyTaking reports whether there is an endpoint that the policy does not veto.
func (s *snapshot) anyTaking(now time.Duration) bool {
	for _, m := range s.ready {
		if !s.vetoes(m, now) {
			return true
		}
	}
	return false
}

// vetoes reports whether the policy leaves m out now although it is ready.
func (s *snapshot) vetoes(m *member, now time.Duration) bool {
	return s.vetoer != nil && s.vetoer.Vetoes(m.ep, now)
}

// SetLoad stores the figures of an agent's report for the endpoint with this
// ID. A report for an endpoint that has left is dropped.
func (b *Balancer) SetLoad(id string, l *picker.Load) {
	s, now := b.snap.Load(), b.env.Now()
	m := s.byID[id]
	if m == nil {
		return
	}
	was := s.spared(m, now)
	b.restarted(m, m.ep.Load(), l)
	m.ep.SetLoad(l)
	if !l.Unasked {
		if s.observer != nil {
			s.observer.Reported(m.ep, now)
		}
		s.shadow.reported(m, now)
	}
	if was != s.spared(m, now) {
		b.post() // the tier in use may change, and the capacity breaker may have to know
	}
	if b.queue.waiting.Load() > 0 {
		b.grant() // a veto may have fallen
	}
}

// Now reads the balancer's clock.
func (b *Balancer) Now() time.Duration { return b.env.Now() }

// Seen reports whether discovery has given a first answer.
func (b *Balancer) Seen() bool { return b.snap.Load().seen }

// Drain turns away every new request with Draining, and everyone who waits.
// Leases run on.
func (b *Balancer) Drain() {
	b.draining.Store(true)
	b.flush(Draining)
}
