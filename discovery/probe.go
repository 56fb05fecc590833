package discovery

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	maxProbes   = 32  // at once
	maxRound    = 256 // between two reads
	probeJitter = 200 * time.Millisecond
)

// ErrNoVerdict is wrapped by a Prober's error that says nothing about the instance:
// it could not be asked.
var ErrNoVerdict = errors.New("no verdict")

// Connects is the Prober where none is given: a TCP connection that is made.
func Connects(ctx context.Context, i Instance) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", i.HostPort())
	if err != nil {
		return err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // leaves nothing behind in TIME_WAIT
	}
	return conn.Close()
}

// ProbeLimit bounds the probes of all sources together: when a token is lost, every
// service has something to ask at the same moment.
type ProbeLimit struct{ slots chan struct{} }

// NewProbeLimit allows n probes at once, at least 1.
func NewProbeLimit(n int) *ProbeLimit { return &ProbeLimit{make(chan struct{}, max(1, n))} }

// enter waits for a slot, no longer than ctx.
func (l *ProbeLimit) enter(ctx context.Context) bool {
	select {
	case l.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *ProbeLimit) leave() { <-l.slots }

// prober asks the lost of a spell whether they live.
type prober struct {
	probe   Prober
	limit   *ProbeLimit
	served  func(id string) uint64
	timeout time.Duration
	chance  func() float64
}

// round asks those who were not asked for probeSpacing, at most maxRound of them:
// who waits longest, else by chance. It returns how many answered and how many did not, and ends with ctx.
func (p *prober) round(ctx context.Context, now time.Time, all []lost) (alive, dead int) {
	asked := p.due(now, all)
	errs := make([]error, len(asked))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(maxProbes, len(asked)) {
		// Every sidecar sees the same answer at the same time.
		start := time.Duration(p.chance() * float64(probeJitter))
		wg.Go(func() {
			_ = sleep(ctx, start)
			for n := range next {
				errs[n] = p.ask(ctx, asked[n].Instance)
			}
		})
	}
	for n := range asked {
		next <- n
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return 0, 0
	}
	for n, x := range asked {
		switch x.probed = now; {
		case errs[n] == nil:
			x.alive, x.answered, x.misses = true, true, 0
			alive++
		case deaf(errs[n]):
			// No verdict.
		default:
			x.alive = false
			x.misses++
			dead++
		}
	}
	return alive, dead
}

// due picks whom to ask. Requests that were answered since the last look spare
// the asking.
func (p *prober) due(now time.Time, all []lost) []*lost {
	var out []*lost
	for i := range all {
		x := &all[i]
		n := p.served(x.ID)
		grown := n > x.served
		x.served = n // fewer: the endpoint was made anew
		switch {
		case grown:
			x.probed, x.alive, x.answered, x.misses = now, true, true, 0
		case x.probed.IsZero() || now.Sub(x.probed) >= probeSpacing:
			out = append(out, x)
		}
	}
	if len(out) <= maxRound {
		return out
	}
	for i := len(out) - 1; i > 0; i-- {
		j := min(i, int(p.chance()*float64(i+1)))
		out[i], out[j] = out[j], out[i]
	}
	slices.SortStableFunc(out, func(a, b *lost) int { return a.probed.Compare(b.probed) })
	return out[:maxRound]
}

// ask waits for a slot as long as for the answer: the one is not taken from the
// other.
func (p *prober) ask(ctx context.Context, i Instance) error {
	waiting, stop := context.WithTimeout(ctx, p.timeout)
	defer stop()
	if !p.limit.enter(waiting) {
		return ErrNoVerdict
	}
	defer p.limit.leave()
	asking, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	return p.probe(asking, i)
}

// deaf reports whether a probe failed for reasons that say nothing about the
// other end: this host is short of something, or its resolver is out of order.
func deaf(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return !dns.IsNotFound
	}
	for _, local := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.EPERM, syscall.EACCES} {
		if errors.Is(err, local) {
			return true
		}
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, ErrNoVerdict)
}
