package main

import (
	"math"
	"math/rand/v2"
	"time"
)

// The model of the balancing case: that of PICKING.md, made small enough for
// two processors. There, a request takes 20 ms of a core's time on average and
// a backend has 1 to 4 cores; here it takes 2 ms and a backend has 0.08 to 0.2
// of a core, so that one alone takes 10 to 25 ms, with quotas 1:2.5 apart. The
// neighbours take more than PICKING.md's 20 to 60 %: with so few backends and
// one busy thread beside each, half is the least.
const (
	fleetClients = 8               // sidecars, or as many of the peers
	meanWork     = 2000            // units: µs of CPU time
	workSigma    = 1               // of the lognormal distribution
	giveUp       = 2 * time.Second // clients leave then; backends work on
	burstMean    = 3 * time.Second // how long a neighbour is at it, on average
	groups       = 3               // of neighbours, which take turns at that
	stealLeast   = 0.5             // of the machine that a neighbour takes: what one to
	stealMost    = 0.8             // four busy threads get beside one; drawn for each burst
	quotaPeriod  = 20 * time.Millisecond
)

// fleetCores are the quotas of the machines, which take turns on the
// processors: the same sum on each of two. So have the groups of neighbours.
func fleetCores() []float64 {
	return []float64{0.08, 0.08, 0.08, 0.2, 0.12, 0.12, 0.12, 0.2, 0.2}
}

// burst is a time in which a neighbour burns a share of its machine.
type burst struct {
	from, to time.Duration
	share    float64
}

// bursts draws the noise of all neighbours, machine by machine. They take turns:
// one group of machines is noisy, then the next, each for the length of a burst,
// so that each is noisy a third of the time and the fleet as a whole has about
// the same left all the time. With independent neighbours on so few machines
// 90 % of capacity on average is more than all of it for seconds at a time, in
// which no choice of backends helps; in the fleet of 50 that PICKING.md speaks
// of the swings even out.
func bursts(r *rand.Rand, machines int, until time.Duration) [][]burst {
	all := make([][]burst, machines)
	group := r.IntN(groups)
	from := -time.Duration(r.Float64() * float64(burstMean)) // a turn may have begun before
	for from < until {
		to := from + time.Duration((0.5+r.Float64())*float64(burstMean))
		for i := range all {
			if i%groups == group && to > 0 {
				share := stealLeast + (stealMost-stealLeast)*r.Float64()
				all[i] = append(all[i], burst{max(0, from), min(to, until), share})
			}
		}
		group, from = (group+1)%groups, to
	}
	return all
}

// stolen is the share of the time from a to b, weighed by how much, that the
// bursts take.
func stolen(all []burst, a, b time.Duration) float64 {
	var sum float64
	for _, x := range all {
		if from, to := max(x.from, a), min(x.to, b); to > from {
			sum += x.share * (to - from).Seconds()
		}
	}
	return sum / (b - a).Seconds()
}

// lognormal draws the work of a request, in units.
func lognormal(r *rand.Rand) int {
	const mu = -workSigma * workSigma / 2.0 // so that the mean is 1
	x := meanWork * math.Exp(mu+workSigma*r.NormFloat64())
	return int(min(max(x, 1), maxWork))
}

// arrival is one request of the open loop.
type arrival struct {
	due    time.Duration
	client int
	work   int // units
}

// arrivals draws a Poisson process; each request comes to a random client.
func arrivals(r *rand.Rand, rate float64, until time.Duration) []arrival {
	var all []arrival
	for at := 0.0; ; {
		at += r.ExpFloat64() / rate
		due := time.Duration(at * float64(time.Second))
		if due >= until {
			return all
		}
		all = append(all, arrival{due: due, client: r.IntN(fleetClients), work: lognormal(r)})
	}
}

// scene is what one round at one load brings; every contender meets the same.
type scene struct {
	warm, run time.Duration
	bursts    [][]burst // of each machine's neighbour
	stolen    []float64 // of each machine, on average while it counts
	seed      uint64
}

// newScene draws the noise of the machines with these quotas.
func newScene(seed uint64, cores []float64, warm, run time.Duration) scene {
	s := scene{warm: warm, run: run, seed: seed}
	s.bursts = bursts(rand.New(rand.NewPCG(seed, 1)), len(cores), warm+run)
	for _, all := range s.bursts {
		s.stolen = append(s.stolen, stolen(all, warm, warm+run))
	}
	return s
}

// arrivals at a rate per second; those of one scene are the same each time.
func (s scene) arrivals(rate float64) []arrival {
	return arrivals(rand.New(rand.NewPCG(s.seed, 0)), rate, s.warm+s.run)
}

// capacity is what a backend was measured to do, in units of work per second:
// alone on its machine, and with a neighbour that wants the share probeSteal.
type capacity struct{ calm, noisy float64 }

// probeSteal is the mean of what neighbours want while they are at it.
const probeSteal = (stealLeast + stealMost) / 2

// left is what a backend can do while its neighbour wants a share of its
// machine on average.
func (c capacity) left(share float64) float64 {
	return max(0, c.calm-(c.calm-c.noisy)*share/probeSteal)
}

// rate is how many requests per second bring the fleet to a load, 1 being all
// that the neighbours of the scene leave of it.
func (s scene) rate(of []capacity, load float64) float64 {
	var sum float64
	for i, c := range of {
		sum += c.left(s.stolen[i])
	}
	return load * sum / meanWork
}
