package simulate

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Group is a number of backends alike.
type Group struct {
	Count int     // 1 to maxBackends
	Cores float64 // 0.1 to 256
	Speed float64 // of a core, 0.05 to 20; 1 is the core that the work is stated for
}

// Most backends and sidecars of a fleet: with more, every second that is
// simulated takes minutes.
const (
	maxBackends = 5000
	maxSidecars = 5000
)

// ParseBackends reads "COUNTxCORES[@SPEED],...", as in "12x2,4x8@1.3".
func ParseBackends(text string) ([]Group, error) {
	var groups []Group
	total := 0
	for part := range strings.SplitSeq(text, ",") {
		g, err := parseGroup(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		if total += g.Count; total > maxBackends {
			return nil, fmt.Errorf("more than %d backends take too long to simulate; leave some out, and sidecars in proportion", maxBackends)
		}
		groups = append(groups, g)
	}
	return groups, nil
}

func parseGroup(text string) (Group, error) {
	size, speed, faster := strings.Cut(text, "@")
	count, cores, ok := strings.Cut(size, "x")
	if !ok {
		return Group{}, fmt.Errorf(`%q is not COUNTxCORES[@SPEED]: write "12x2" for 12 backends of 2 cores, "12x2@1.3" where these are 1.3 times as fast`, text)
	}
	g := Group{Speed: 1}
	var err error
	if g.Count, err = parseCount(count, 1, maxBackends); err != nil {
		return Group{}, fmt.Errorf("in %q the count of backends %w", text, err)
	}
	if g.Cores, err = parseNumber(cores, 0.1, 256); err != nil {
		return Group{}, fmt.Errorf("in %q the number of cores %w", text, err)
	}
	if faster {
		if g.Speed, err = parseNumber(speed, 0.05, 20); err != nil {
			return Group{}, fmt.Errorf("in %q the speed %w", text, err)
		}
	}
	return g, nil
}

// Work is the distribution of a request's demand on a core of speed 1.
type Work struct {
	Kind   string        // one of workKinds
	Mean   time.Duration // 100us to 1m
	Spread float64       // sigma of a lognormal, alpha of a pareto, else 0
}

// workKind says what the spread of a distribution is called and may be.
type workKind struct {
	name, spread      string
	low, high, normal float64
}

func workKinds() []workKind {
	return []workKind{
		{"lognormal", "sigma", 0.01, 3, 1},
		{"exponential", "", 0, 0, 0},
		{"fixed", "", 0, 0, 0},
		{"pareto", "alpha", 1.1, 10, 2}, // at 1 and below there is no mean
	}
}

// ParseWork reads "KIND MEAN [sigma|alpha SPREAD]", as in "lognormal 20ms" and
// "pareto 20ms alpha 1.5".
func ParseWork(text string) (Work, error) {
	words := strings.Fields(text)
	kinds := workKinds()
	if len(words) < 2 {
		return Work{}, fmt.Errorf(`%q is not KIND MEAN: write "lognormal 20ms", or exponential, fixed or pareto`, text)
	}
	i := slices.IndexFunc(kinds, func(k workKind) bool { return k.name == words[0] })
	if i < 0 {
		return Work{}, fmt.Errorf(`%q is no distribution: write lognormal, exponential, fixed or pareto, and the mean, as in "lognormal 20ms"`, words[0])
	}
	k := kinds[i]
	w := Work{Kind: k.name, Spread: k.normal}
	var err error
	if w.Mean, err = parseDuration(words[1], 100*time.Microsecond, time.Minute); err != nil {
		return Work{}, fmt.Errorf("the mean %w", err)
	}
	switch {
	case len(words) == 2:
		return w, nil
	case k.spread == "":
		return Work{}, fmt.Errorf("%s work has a mean and nothing else: leave out %q", k.name, strings.Join(words[2:], " "))
	case len(words) != 4 || words[2] != k.spread:
		return Work{}, fmt.Errorf(`the spread of %s work is written "%s %s %s %g"`, k.name, k.name, words[1], k.spread, k.normal)
	}
	if w.Spread, err = parseNumber(words[3], k.low, k.high); err != nil {
		return Work{}, fmt.Errorf("%s %w", k.spread, err)
	}
	return w, nil
}

// String writes w as ParseWork reads it.
func (w Work) String() string {
	s := w.Kind + " " + w.Mean.String()
	for _, k := range workKinds() {
		if k.name == w.Kind && k.spread != "" {
			s += fmt.Sprintf(" %s %s", k.spread, decimal(w.Spread))
		}
	}
	return s
}

// Neighbours steal cores on every backend's machine, by turns. The zero value
// is none.
type Neighbours struct {
	Low, High float64       // share of the cores, drawn for each burst, 0 to 0.95
	On, Off   time.Duration // means of exponential times
}

// Any reports whether there are neighbours.
func (n Neighbours) Any() bool { return n.High > 0 }

// mean returns the share of the cores that they take on average.
func (n Neighbours) mean() float64 {
	if !n.Any() {
		return 0
	}
	return (n.Low + n.High) / 2 * n.On.Seconds() / (n.On + n.Off).Seconds()
}

// String writes n as ParseNeighbours reads it.
func (n Neighbours) String() string {
	if !n.Any() {
		return "none"
	}
	return fmt.Sprintf("%s-%s %v/%v", percent(n.Low), percent(n.High), n.On, n.Off)
}

// ParseNeighbours reads "LOW%-HIGH% [ON/OFF]", as in "20%-60% 3s/6s", and "none".
func ParseNeighbours(text string) (Neighbours, error) {
	const example = `write "20%-60%" for neighbours that take 20 to 60 % of the cores, "20%-60% 3s/6s" with the mean times that they are busy and idle, or none`
	words := strings.Fields(text)
	if len(words) == 1 && words[0] == "none" {
		return Neighbours{}, nil
	}
	if len(words) < 1 || len(words) > 2 {
		return Neighbours{}, fmt.Errorf("%q is not understood: %s", text, example)
	}
	n := Neighbours{On: 3 * time.Second, Off: 6 * time.Second} // PICKING.md's
	low, high, ok := strings.Cut(words[0], "-")
	if !ok {
		high = low
	}
	var err error
	if n.Low, err = ParseShare(low); err == nil {
		n.High, err = ParseShare(high)
	}
	switch {
	case err != nil:
		return Neighbours{}, fmt.Errorf("in %q a share %w: %s", text, err, example)
	case n.High < 0.001 || n.High > 0.95 || n.Low > n.High:
		return Neighbours{}, fmt.Errorf("neighbours that take %s of the cores: allowed are 0.1%% to 95%%, the lower share first", words[0])
	case len(words) == 1:
		return n, nil
	}
	on, off, ok := strings.Cut(words[1], "/")
	if !ok {
		return Neighbours{}, fmt.Errorf("%q is not understood: %s", text, example)
	}
	if n.On, err = parseDuration(on, 10*time.Millisecond, time.Hour); err != nil {
		return Neighbours{}, fmt.Errorf("the busy time %w", err)
	}
	if n.Off, err = parseDuration(off, 10*time.Millisecond, time.Hour); err != nil {
		return Neighbours{}, fmt.Errorf("the idle time %w", err)
	}
	return n, nil
}

// Surge is a time of another load. The zero value is none.
type Surge struct {
	Factor float64 // of the load, 0.05 to 20
	For    time.Duration
}

// ParseSurge reads "FACTORx DURATION", as in "1.6x 5s", and "none".
func ParseSurge(text string) (Surge, error) {
	words := strings.Fields(text)
	if len(words) == 1 && words[0] == "none" {
		return Surge{}, nil
	}
	if len(words) != 2 || !strings.HasSuffix(words[0], "x") {
		return Surge{}, fmt.Errorf(`%q is not FACTORx DURATION: write "1.6x 5s" for 1.6 times the load for 5 s, or none`, text)
	}
	var s Surge
	var err error
	if s.Factor, err = parseNumber(strings.TrimSuffix(words[0], "x"), 0.05, 20); err != nil {
		return Surge{}, fmt.Errorf("the factor %w", err)
	}
	if s.For, err = parseDuration(words[1], 100*time.Millisecond, time.Hour); err != nil {
		return Surge{}, fmt.Errorf("its length %w", err)
	}
	return s, nil
}

// String writes s as ParseSurge reads it.
func (s Surge) String() string {
	if s.For == 0 {
		return "none"
	}
	return decimal(s.Factor) + "x " + s.For.String()
}
