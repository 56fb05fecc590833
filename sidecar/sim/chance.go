package sim

import (
	"math"
	"math/rand/v2"
	"time"
)

// Streams of chance. Each has its own, so that what one uses up changes
// nothing in another: with one seed, every policy meets the same arrivals,
// the same work and the same neighbours.
const (
	streamArrivals = iota
	streamReports
	streamFaults
	streamSidecars   // and the number of the sidecar
	streamNeighbours = 1 << 40
	streamPolls      = 2 << 40
	streamShadows    = 3 << 40
)

func stream(seed uint64, n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }

// draw returns the work of one request, in seconds on a core of speed 1.
func (w *Work) draw(r *rand.Rand) float64 {
	mean := w.Mean.Seconds()
	switch w.Distribution {
	case Exponential:
		return mean * r.ExpFloat64()
	case Pareto:
		// The mean of a Pareto law is alpha*least/(alpha-1).
		least := mean * (w.Shape - 1) / w.Shape
		return least * math.Pow(1-r.Float64(), -1/w.Shape)
	case Fixed:
		return mean
	default:
		// The mean of a log-normal law is exp(mu+sigma^2/2).
		return mean * math.Exp(w.Shape*r.NormFloat64()-w.Shape*w.Shape/2)
	}
}

// exponential returns a time of that mean.
func exponential(r *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration(r.ExpFloat64() * float64(mean))
}

// poisson is the times of arrivals at a rate that changes now and then.
type poisson struct {
	r     *rand.Rand
	from  []time.Duration // ascending, from 0: when each rate begins
	rates []float64       // a second
	part  int
	at    time.Duration
}

func newPoisson(c *Config) *poisson {
	p := &poisson{r: stream(c.Seed, streamArrivals), from: changes(c)}
	for _, t := range p.from {
		p.rates = append(p.rates, c.Rate(t))
	}
	return p
}

// next returns the next arrival; ok is false if there will never be one. An
// interval that runs into another rate is drawn anew from there, which is right
// for it has no memory.
func (p *poisson) next() (at time.Duration, ok bool) {
	for {
		end := time.Duration(math.MaxInt64)
		if p.part+1 < len(p.from) {
			end = p.from[p.part+1]
		}
		if rate := p.rates[p.part]; rate > 0 {
			wait := p.r.ExpFloat64() / rate * float64(time.Second)
			if wait < float64(end-p.at) {
				p.at += time.Duration(wait)
				return p.at, true
			}
		}
		if p.part+1 == len(p.from) {
			return 0, false
		}
		p.part++
		p.at = end
	}
}
