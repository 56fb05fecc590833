package balance

import (
	"sync/atomic"
	"time"

	"outrigger/breaker"
)

// MaxLast is how many decisions and how many refusals a service keeps: enough
// for the story of an incident, and 4 KiB each.
const MaxLast = 256

const ringSize = MaxLast

// ring keeps the newest records of one kind. Writers never lock, wait for each
// other or allocate.
//
// A record is the two words of a slot, each tagged with the lap in which it was
// written. Every ticket is one writer's, so two words with the lap of one
// ticket are of one record, however writers and readers are interleaved; what
// has another lap is torn, not there yet or gone, and skipped. (Unless a writer
// sleeps between its words for exactly 2^14 laps, four million records.)
type ring struct{ slots [ringSize][2]atomic.Uint64 }

const (
	lapBits  = 14
	dataBits = 64 - lapBits
	dataMask = 1<<dataBits - 1
)

// at returns a ticket's slot and lap. Tickets in a row lie on different cache
// lines, for they are often those of different cores.
func (r *ring) at(ticket uint64) (*[2]atomic.Uint64, uint64) {
	const lines = ringSize / 4 // four slots of 16 bytes in a line of 64
	i := ticket % ringSize
	return &r.slots[i%lines*4+i/lines], (ticket/ringSize + 1) << dataBits
}

// put writes the record of a ticket: when, and 50 bits that are not all 0.
func (r *ring) put(ticket uint64, now time.Duration, data uint64) {
	slot, lap := r.at(ticket)
	slot[0].Store(lap | uint64(now/time.Microsecond)&dataMask) // lasts 35 years
	slot[1].Store(lap | data)
}

// get reads the record of a ticket, if it is there and whole.
func (r *ring) get(ticket uint64) (when time.Duration, data uint64, ok bool) {
	slot, lap := r.at(ticket)
	a, b := slot[0].Load(), slot[1].Load()
	ok = a&^dataMask == lap && b&^dataMask == lap && b&dataMask != 0
	return time.Duration(a&dataMask) * time.Microsecond, b & dataMask, ok
}

// newest calls visit with up to n records, the newest first. last is the newest
// ticket.
func (r *ring) newest(last uint64, n int, visit func(when time.Duration, data uint64)) {
	for t := last; t > 0 && last-t < ringSize && n > 0; t-- {
		if when, data, ok := r.get(t); ok {
			visit(when, data)
			n--
		}
	}
}

// How an endpoint came to be leased. The bits of a record of decisions, from
// the top: the endpoint's serial (24), in-flight (16), tries (3), these (7).
const (
	howQueued    uint64 = 1 << iota // it waited in the queue
	howPinned                       // by affinity, not by the policy
	howProbe                        // it tries whether an ejection is over
	howPanic                        // health was ignored, see health.go
	howAgain                        // no other was left than one it was sent to before
	howCompared                     // the shadow picked too
	howDisagreed                    // and would have taken another, or none

	howBits      = 7
	triesBits    = 3
	inFlightBits = 16
	serialBits   = 24
)

// Decision is one lease that was granted.
type Decision struct {
	Age time.Duration
	// Endpoint and Addr are "" if the endpoint has left and others since.
	Endpoint, Addr string
	Left           bool // its instance has left
	InFlight       int  // of this sidecar at it, this one among them; 65535 and up are one
	Tries          int  // before this one, 7 and up are one

	Queued, Pinned, Probe, Panic, Again bool
	// Compared says that the shadow picked beside it, Disagreed that it would
	// have taken another endpoint or none.
	Compared, Disagreed bool
}

// decided records the lease with this ticket. On the path of every request: two
// stores, nothing else that is shared.
func (b *Balancer) decided(ticket uint64, s *snapshot, m *member, k *Key, now time.Duration, how uint64) {
	if k.queued {
		how |= howQueued
	}
	if s.ignoring {
		how |= howPanic
	} else if m.br.State(now) == breaker.HalfOpen {
		how |= howProbe // nothing else is let in
	}
	data := uint64(m.serial)
	data = data<<inFlightBits | atMost(m.ep.InFlight(), inFlightBits)
	data = data<<triesBits | atMost(k.Tried.Len(), triesBits)
	b.decisions.put(ticket, now, data<<howBits|how)
}

// atMost returns n as what fits into so many bits.
func atMost(n, bits int) uint64 { return uint64(min(max(n, 0), 1<<bits-1)) }

// Decisions returns up to n of the newest leases, the newest first; it knows
// the last 256. One that is being written is left out.
func (b *Balancer) Decisions(n int) []Decision {
	names, now := b.names(), b.env.Now()
	var list []Decision
	b.decisions.newest(b.granted.Load(), n, func(when time.Duration, data uint64) {
		d := Decision{
			Age:    max(0, now-when),
			Queued: data&howQueued != 0, Pinned: data&howPinned != 0, Probe: data&howProbe != 0,
			Panic: data&howPanic != 0, Again: data&howAgain != 0,
			Compared: data&howCompared != 0, Disagreed: data&howDisagreed != 0,
		}
		data >>= howBits
		d.Tries = int(data & (1<<triesBits - 1))
		data >>= triesBits
		d.InFlight = int(data & (1<<inFlightBits - 1))
		who, ok := names[uint32(data>>inFlightBits)]
		d.Endpoint, d.Addr, d.Left = who.id, who.addr, who.left || !ok
		list = append(list, d)
	})
	return list
}

// name is what a serial stands for.
type name struct {
	serial   uint32
	id, addr string
	left     bool
}

// number gives a new member its serial. The caller holds b.mu.
func (b *Balancer) number(m *member) {
	if b.serials++; b.serials >= 1<<serialBits {
		b.serials = 1 // who has it now, if anybody, has been there for 16 million joins
	}
	m.serial = b.serials
}

// remember keeps the name of a member that leaves: as many as there may be
// records of. The caller holds b.mu.
func (b *Balancer) remember(m *member) {
	if len(b.gone) == ringSize {
		b.gone = b.gone[1:]
	}
	b.gone = append(b.gone, name{m.serial, m.ep.ID, m.ep.Addr, true})
}

func (b *Balancer) names() map[uint32]name {
	b.mu.Lock()
	defer b.mu.Unlock()
	names := make(map[uint32]name, len(b.gone)+len(b.order))
	for _, n := range b.gone {
		names[n.serial] = n
	}
	for _, m := range b.order {
		names[m.serial] = name{m.serial, m.ep.ID, m.ep.Addr, false}
	}
	return names
}

// Denial is one 503 of our own.
type Denial struct {
	Age        time.Duration
	Reason     Reason
	RetryAfter int // seconds, as the client was told
	Tries      int // before it, 7 and up are one; what the engine refuses (Unreachable) does not tell
	Queued     bool
	Waiting    int // in the queue at that time
	Ready      int // endpoints in the picker at that time
}

// The bits of a record of refusals, from the top: a 1, reason (4), Retry-After
// (6), tries (3), queued (1), waiting (17), ready (18).
const (
	reasonBits  = 4
	retryBits   = 6
	waitingBits = 17
	readyBits   = 18
)

// denied records a refusal. k is nil where it is not known.
func (b *Balancer) denied(r *Refusal, k *Key, now time.Duration) {
	var tries, queued uint64
	if k != nil {
		tries = atMost(k.Tried.Len(), triesBits)
		if k.queued {
			queued = 1
		}
	}
	data := 1<<reasonBits | uint64(r.Reason)
	data = data<<retryBits | atMost(r.RetryAfter, retryBits)
	data = data<<triesBits | tries
	data = data<<1 | queued
	data = data<<waitingBits | atMost(int(b.queue.waiting.Load()), waitingBits)
	data = data<<readyBits | atMost(len(b.snap.Load().ready), readyBits)
	b.denials.put(b.denialCount.Add(1), now, data)
}

// Denials returns up to n of the newest 503s, the newest first; it knows the
// last 256, however many requests were served since.
func (b *Balancer) Denials(n int) []Denial {
	now := b.env.Now()
	var list []Denial
	b.denials.newest(b.denialCount.Load(), n, func(when time.Duration, data uint64) {
		take := func(bits int) int {
			x := int(data & (1<<bits - 1))
			data >>= bits
			return x
		}
		d := Denial{Age: max(0, now-when)}
		d.Ready, d.Waiting, d.Queued = take(readyBits), take(waitingBits), take(1) == 1
		d.Tries, d.RetryAfter, d.Reason = take(triesBits), take(retryBits), Reason(take(reasonBits))
		list = append(list, d)
	})
	return list
}
