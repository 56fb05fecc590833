package agentcheck

import (
	"math"
	"math/rand/v2"
	"testing"
)

// simBackend is a machine of PICKING.md's model: processor sharing, a request uses at
// most one core, and a neighbour that comes and goes takes some of the cores.
type simBackend struct {
	cores  float64
	stolen float64 // share, now
	until  float64 // of this turn of the neighbour
	reqs   []simRequest

	availSum, usedSum float64 // of this window of 250 ms
	avail, used       float64 // means over the last one
}

type simRequest struct{ left, born float64 }

// simBalancer is one HAProxy, which knows its own connections alone.
type simBalancer struct {
	weight, turn []float64
}

// nextByTurn is roundrobin: smooth weighted, as src/lb_fwrr.c spreads it.
func (l *simBalancer) nextByTurn() (best int) {
	sum := 0.0
	for i, w := range l.weight {
		sum += w
		if l.turn[i] += w; l.turn[i] > l.turn[best] {
			best = i
		}
	}
	l.turn[best] -= sum
	return best
}

// nextByCount is leastconn (src/lb_fwlc.c): (connections+1)/weight, 0 where idle.
func (l *simBalancer) nextByCount(all []*simBackend, chance *rand.Rand) (best int) {
	ties, least := 0, math.Inf(1)
	for i, w := range l.weight {
		key := 0.0
		if n := len(all[i].reqs); n > 0 {
			key = float64(n+1) / max(w, 0.01)
		}
		switch {
		case key < least:
			best, ties, least = i, 1, key
		case key == least:
			if ties++; chance.IntN(ties) == 0 {
				best = i
			}
		}
	}
	return best
}

// Times in seconds.
const (
	simStep, simWarm, simEnd = 0.001, 8, 38
	simInter                 = 2 // agent-inter
	simWork                  = 0.020
	simWindow                = 250 // steps
	simOn, simOff            = 3, 6
)

// turn lets the neighbour come and go, and everything run for a step; it returns how
// many requests ended that took more than 1 s, and how many at all.
func (b *simBackend) turn(now float64, step int, foe *rand.Rand) (late, ended int) {
	if now >= b.until {
		if b.stolen == 0 {
			b.stolen, b.until = 0.2+0.4*foe.Float64(), now+simOn*foe.ExpFloat64()
		} else {
			b.stolen, b.until = 0, now+simOff*foe.ExpFloat64()
		}
	}
	capacity, n := b.cores*(1-b.stolen), float64(len(b.reqs))
	b.availSum, b.usedSum = b.availSum+capacity, b.usedSum+min(capacity, n)
	if step%simWindow == simWindow-1 {
		b.avail, b.used = b.availSum/simWindow, b.usedSum/simWindow
		b.availSum, b.usedSum = 0, 0
	}
	each := simStep * min(1, capacity/n)
	for i := len(b.reqs) - 1; i >= 0; i-- {
		r := &b.reqs[i]
		if r.left -= each; r.left > 0 {
			continue
		}
		if r.born >= simWarm {
			ended++
			if now-r.born > 1 {
				late++
			}
		}
		b.reqs[i] = b.reqs[len(b.reqs)-1]
		b.reqs = b.reqs[:len(b.reqs)-1]
	}
	return late, ended
}

// simRun plays a HAProxy that takes weigh for each server's percentage, and returns
// the share of requests that took more than 1 s.
func simRun(seed uint64, roundrobin bool, load float64, weigh func(*simBackend) float64) float64 {
	// Each its own stream, so that all variants meet the same neighbours and requests.
	arrive, foe, tie := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2)), rand.New(rand.NewPCG(seed, 3))
	var all []*simBackend
	total, lb, next := 0.0, &simBalancer{}, make([]float64, 18)
	for i := range next {
		b := &simBackend{cores: []float64{1, 2, 4}[i%3]}
		b.avail = b.cores
		total += b.cores
		all = append(all, b)
		lb.weight, lb.turn, next[i] = append(lb.weight, 10*b.cores), append(lb.turn, 0), arrive.Float64()*simInter
	}
	rate := load * total * (1 - 0.4*simOn/(simOn+simOff)) / simWork
	late, ended := 0, 0
	for step := range int(simEnd / simStep) {
		now := float64(step) * simStep
		for i, b := range all {
			l, e := b.turn(now, step, foe)
			late, ended = late+l, ended+e
			if now >= next[i] {
				next[i] += simInter
				lb.weight[i] = math.Floor(10 * b.cores * math.Round(weigh(b)) / 100)
			}
		}
		for n := poisson(arrive, rate*simStep); n > 0; n-- {
			to := 0
			if roundrobin {
				to = lb.nextByTurn()
			} else {
				to = lb.nextByCount(all, tie)
			}
			work := simWork * math.Exp(arrive.NormFloat64()-0.5)
			all[to].reqs = append(all[to].reqs, simRequest{work, now})
		}
	}
	for _, b := range all { // what never ended
		for _, r := range b.reqs {
			if r.born >= simWarm && simEnd-r.born > 1 {
				late, ended = late+1, ended+1
			}
		}
	}
	return float64(late) / float64(ended)
}

func poisson(r *rand.Rand, mean float64) int {
	limit := math.Exp(-mean)
	for n, p := 0, r.Float64(); ; n, p = n+1, p*r.Float64() {
		if p < limit {
			return n
		}
	}
}

// The weight helps a roundrobin, which knows nothing else, and does no harm to a
// leastconn, which sees by itself who is slow; the idle share ruins both. The seeds
// are fixed, so the figures are.
func TestWeights(t *testing.T) {
	fixed := func(*simBackend) float64 { return 100 }
	share := func(b *simBackend) float64 {
		return DefaultConfig().percent(State{Avail: b.avail, Cores: b.cores, Mem: Unknown, MemStall: Unknown, Err: Unknown})
	}
	idle := func(b *simBackend) float64 { return max(1, 100*(b.avail-b.used)/b.cores) }
	late := func(roundrobin bool, load float64, weigh func(*simBackend) float64) (mean float64) {
		const seeds = 3
		for seed := range uint64(seeds) {
			mean += simRun(seed, roundrobin, load, weigh) / seeds
		}
		return mean
	}
	for _, c := range []struct {
		name       string
		roundrobin bool
		load       float64
		gain       float64 // of fixed weights' late share to ours
	}{{"roundrobin", true, 0.7, 3}, {"leastconn", false, 0.9, 0.8}} {
		byFixed, byShare, byIdle := late(c.roundrobin, c.load, fixed), late(c.roundrobin, c.load, share), late(c.roundrobin, c.load, idle)
		t.Logf("%s: later than 1 s with fixed weights %.2f %%, by share %.2f %%, by idle share %.2f %%", c.name, 100*byFixed, 100*byShare, 100*byIdle)
		if byShare*c.gain > byFixed {
			t.Errorf("%s: %.2f %% were late by share and %.2f %% with fixed weights, want a gain of %v", c.name, 100*byShare, 100*byFixed, c.gain)
		}
		if byIdle < 10*byShare {
			t.Errorf("%s: %.2f %% were late by idle share and %.2f %% by share: is the idle share the better one?", c.name, 100*byIdle, 100*byShare)
		}
	}
}
