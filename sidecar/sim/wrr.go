package sim

import (
	"time"

	"outrigger/picker"
)

// wrr is gRPC's weighted_round_robin (gRFC A58): a backend's weight is its
// queries a second over its utilisation, as it reports them, renewed once a
// second and not used for the first ten; requests follow the weights in a
// static stride.
type wrr struct {
	f    *fleet
	rand picker.Rand

	weights []float64       // by backend; 0: none yet
	since   []time.Duration // of the first report
}

const (
	wrrPeriod   = time.Second
	wrrBlackout = 1 * time.Second
	wrrMost     = 1<<16 - 1
	wrrPenalty  = 1 // of errors
	// wrrMemory of the backend's own averages. A58 leaves them to the application;
	// over 250 ms a weight would be mostly noise.
	wrrMemory = 750 * time.Millisecond
)

func newWRR(f *fleet, r picker.Rand) *wrr {
	return &wrr{f: f, rand: r, weights: make([]float64, len(f.machines)), since: make([]time.Duration, len(f.machines))}
}

func (*wrr) Name() string { return "grpc_wrr" }

func (p *wrr) Build(ready []*picker.Endpoint) picker.Picker {
	k := &wrrPicker{wrr: p, seats: p.f.seats(ready), seq: uint64(p.rand(1 << 30))}
	k.strides = make([]uint64, len(k.seats))
	k.Refresh(p.f.clock())
	return k
}

type wrrPicker struct {
	*wrr
	seats   []seat
	strides []uint64
	at      time.Duration
	seq     uint64
}

func (*wrrPicker) Mode(time.Duration) string { return "weighted round robin by utilisation" }

func (k *wrrPicker) Explain(picker.Request) picker.Explanation {
	return picker.Explanation{Rule: k.Mode(0)}
}

func (*wrrPicker) Sent(*picker.Endpoint, time.Duration) float32 { return 0 }

func (*wrrPicker) Done(*picker.Endpoint, time.Duration, float32, picker.Result) {}

// Reported implements picker.Observer.
func (k *wrrPicker) Reported(e *picker.Endpoint, now time.Duration) {
	b := k.f.index[e.ID]
	a := &k.f.machines[b].agent
	if a.meanCPU <= 0 || a.meanQPS <= 0 {
		return
	}
	if k.since[b] == 0 {
		k.since[b] = now
	}
	k.weights[b] = a.meanQPS / (a.meanCPU + wrrPenalty*max(0, e.Load().Err))
}

func (k *wrrPicker) Due(now time.Duration) bool { return now-k.at >= wrrPeriod }

// Refresh implements picker.Refresher: backends without a weight get the mean.
func (k *wrrPicker) Refresh(now time.Duration) {
	k.at = now
	var sum, most, known float64
	weight := func(s *seat) float64 {
		if k.since[s.backend] == 0 || now-k.since[s.backend] < wrrBlackout {
			return 0
		}
		return k.weights[s.backend]
	}
	for i := range k.seats {
		if w := weight(&k.seats[i]); w > 0 {
			sum += w
			most = max(most, w)
			known++
		}
	}
	for i := range k.seats {
		w := weight(&k.seats[i])
		switch {
		case known < 2:
			w, most = 1, 1
		case w == 0:
			w = sum / known
		}
		k.strides[i] = max(1, uint64(w/most*wrrMost))
	}
}

// Pick implements picker.Picker: gRPC's static stride scheduler. A backend is
// passed over as often as its weight lacks to the largest.
func (k *wrrPicker) Pick(r picker.Request) (*picker.Endpoint, bool) {
	n := uint64(len(k.seats))
	if n == 0 {
		return nil, false
	}
	for range 100 * n {
		i, round := k.seq%n, k.seq/n
		k.seq++
		w := k.strides[i]
		if (w*round+i*wrrMost/2)%wrrMost < wrrMost-w {
			continue
		}
		if k.seats[i].takes(&r) {
			return k.seats[i].Endpoint, true
		}
	}
	return anyOf(k.seats, &r, k.rand)
}
