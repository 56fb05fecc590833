package publish

import (
	"encoding/json"
	"math"
	"strconv"
)

// figures is what of a report decides about writing it. All else, in-flight above
// all, goes along: it is never the same twice.
type figures struct {
	Epoch     string   `json:"epoch"`
	Listening *bool    `json:"listening"`
	Cores     *float64 `json:"cores"`
	Avail     *float64 `json:"avail"`
	Mem       *float64 `json:"mem"`
	Err       *float64 `json:"err"`
	Conc      *float64 `json:"conc"`
}

// read takes a report that the agent itself encoded. false: it is none.
func read(report []byte) (f figures, ok bool) {
	return f, json.Unmarshal(report, &f) == nil
}

// urgency of a change.
type urgency int

const (
	nothing urgency = iota
	change          // at the next opportunity
	urgent          // at once: picks without it go wrong
)

// compare says how urgent it is to publish now instead of was.
func (c Change) compare(was, now figures) urgency {
	if was.Epoch != now.Epoch || differ(was.Listening, now.Listening) {
		return urgent
	}
	cores := 1.0
	if now.Cores != nil {
		cores = *now.Cores
	}
	conc := 1.0
	if was.Conc != nil {
		conc = math.Max(*was.Conc, 1)
	}
	if differ(was.Cores, now.Cores) || moved(was.Avail, now.Avail, c.Avail*cores) ||
		moved(was.Mem, now.Mem, c.Mem) || moved(was.Err, now.Err, c.Err) || moved(was.Conc, now.Conc, c.Conc*conc) {
		return change
	}
	return nothing
}

func differ[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a != b
	}
	return *a != *b
}

func moved(a, b *float64, by float64) bool {
	if a == nil || b == nil {
		return a != b
	}
	d := math.Abs(*a - *b)
	return d > 0 && d >= by
}

// withAvail returns the report with another avail, at most cores.
func (f figures) withAvail(report []byte) ([]byte, error) {
	if f.Avail == nil {
		return report, nil
	}
	var fields map[string]json.RawMessage
	err := json.Unmarshal(report, &fields)
	if err == nil {
		fields["avail"] = strconv.AppendFloat(nil, *f.Avail, 'f', 4, 64)
		report, err = json.Marshal(fields)
	}
	return report, err
}

// decider says when to write. It does not keep time itself: now is a monotonic
// time of the caller, in seconds.
type decider struct {
	cfg Config

	avail []float64 // at each look since MinInterval ago, oldest first
	keep  int       // how many of them

	wrote  bool
	was    figures // published
	at     float64 // when
	jitter float64 // of this pause, as a share of MinInterval
}

// urgentEvery bounds writes that cannot wait: a backend that crashes in a loop
// writes once in a second at most.
const urgentEvery = 1.0

func newDecider(cfg Config) *decider {
	return &decider{cfg: cfg, keep: max(1, int(cfg.MinInterval/lookEvery))}
}

// step takes the newest figures and returns what to publish of them, and whether
// to do it now.
//
// Avail is averaged over MinInterval: it is measured over 250 ms, jumps, and will
// be believed for much longer than it takes to jump back.
func (d *decider) step(now float64, f figures) (figures, bool) {
	if f.Avail = d.mean(f.Avail); f.Avail != nil && f.Cores != nil {
		*f.Avail = math.Min(*f.Avail, *f.Cores)
	}
	if !d.wrote {
		return f, true
	}
	since := now - d.at
	switch d.cfg.Change.compare(d.was, f) {
	case urgent:
		return f, since >= urgentEvery
	case change:
		return f, since >= d.cfg.MinInterval.Seconds()*(1+d.jitter)
	}
	return f, since >= d.cfg.MaxInterval.Seconds()-d.cfg.MinInterval.Seconds()*d.jitter
}

// written notes that f was published. chance is in [0, 1).
func (d *decider) written(now float64, f figures, chance float64) {
	d.wrote, d.was, d.at, d.jitter = true, f, now, chance/4
}

// lost notes that nothing is published any more.
func (d *decider) lost() { d.wrote = false }

// mean returns the mean of avail over the last looks, nil where it is unknown.
func (d *decider) mean(avail *float64) *float64 {
	if avail == nil {
		d.avail = d.avail[:0]
		return nil
	}
	if len(d.avail) == d.keep {
		d.avail = append(d.avail[:0], d.avail[1:]...)
	}
	d.avail = append(d.avail, *avail)
	sum := 0.0
	for _, v := range d.avail {
		sum += v
	}
	sum /= float64(len(d.avail))
	return &sum
}
