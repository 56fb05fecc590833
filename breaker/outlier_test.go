package breaker

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// rates makes hosts of n requests each with these success rates.
func rates(n int, shares ...float64) []Rate {
	out := make([]Rate, len(shares))
	for i, s := range shares {
		good := uint64(s*float64(n) + 0.5)
		out[i] = Rate{good, uint64(n) - good}
	}
	return out
}

func TestOutliers(t *testing.T) {
	t.Parallel()
	c := defaultOutliers()
	off := c
	off.Factor = 0
	wide := c
	wide.MinGap = 0.2
	small := append(rates(1000, 1, 1, 1), Rate{0, 99})
	for name, tc := range map[string]struct {
		c     OutlierConfig
		rates []Rate
		want  []int
	}{
		"one at zero in five":           {c, rates(100, 1, 1, 0, 1, 1), []int{2}},
		"two at zero in five":           {c, rates(100, 1, 0, 1, 0, 1), []int{1, 3}},
		"noise at 99.9 %":               {c, rates(1000, .999, .998, 1, .999, .997), nil},
		"a tenth less, few requests":    {c, rates(100, 1, .9, 1), []int{1}},
		"ten of a hundred by chance":    {c, rates(100, .9, .97, .97), nil},
		"the same of ten thousand not":  {c, rates(10000, .9, .97, .97), []int{0}},
		"the worst first":               {c, rates(1000, .7, 1, .5, 1, 1, .6), []int{2, 5, 0}},
		"all equally bad":               {c, rates(1000, .5, .5, .5, .5), nil},
		"all at zero":                   {c, rates(1000, 0, 0, 0), nil},
		"all well":                      {c, rates(1000, 1, 1, 1), nil},
		"below the gap":                 {c, rates(100000, 1, .951, 1), nil},
		"beyond the gap":                {c, rates(100000, 1, .949, 1), []int{1}},
		"a wide gap":                    {wide, rates(1000, 1, .85, 1), nil},
		"better than the rest":          {c, rates(1000, .5, 1, .5, .5), nil},
		"half of them":                  {c, rates(1000, .5, 1, .5, 1), []int{0, 2}},
		"more than half":                {c, rates(1000, .5, 1, .5, .5, 1), nil},
		"too few hosts":                 {c, rates(1000, 1, 0), nil},
		"too few with enough requests":  {c, append(rates(1000, 1, 0), rates(99, 1)...), nil},
		"too few requests to be judged": {c, small, nil},
		"requests differ by far":        {c, []Rate{{1e9, 1e5}, {90, 10}, {1e6, 1e2}}, []int{1}},
		"off":                           {off, rates(1000, 1, 1, 0), nil},
		"none":                          {c, nil, nil},
		"no requests":                   {c, make([]Rate, 5), nil},
	} {
		if got := tc.c.Outliers(tc.rates); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// TestOutliersByChance: hosts that are equally good are hardly ever taken for
// outliers, wherever their rate is. The normal tail beyond three errors is 0.135 %.
func TestOutliersByChance(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	c := defaultOutliers()
	judged, low := 0, 0
	for _, p := range []float64{.3, .8, .95, .97, .99, .999} {
		for _, hosts := range []int{3, 10} {
			mine, alarms := 0, 0
			for mine < 80_000 {
				set := make([]Rate, hosts)
				for i := range set {
					n := uint64(100)
					good := binomial(r, n, p)
					set[i] = Rate{good, n - good}
				}
				mine += hosts
				alarms += len(c.Outliers(set))
			}
			if share := float64(alarms) / float64(mine); share > 0.003 {
				t.Errorf("%d hosts at %v: %.2f %% false alarms", hosts, p, 100*share)
			}
			judged, low = judged+mine, low+alarms
		}
	}
	if share := float64(low) / float64(judged); share > 0.002 {
		t.Errorf("%.3f %% of %d are false alarms", 100*share, judged)
	}
}

// binomial draws how many of n succeed.
func binomial(r *rand.Rand, n uint64, p float64) (good uint64) {
	limit := uint64(p * (1 << 32))
	for range n {
		if uint64(r.Uint32()) < limit {
			good++
		}
	}
	return good
}

// FuzzOutliers: whatever the counts, who is named is worse than the others and had
// enough requests.
func FuzzOutliers(f *testing.F) {
	f.Add(uint64(100), uint64(0), uint64(100), uint64(0), uint64(0), uint64(100), 3.0, 0.05)
	f.Add(uint64(0), uint64(0), ^uint64(0), uint64(1), uint64(1), ^uint64(0), 0.0, 1.0)
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g uint64, factor, gap float64) {
		cfg := defaultOutliers()
		cfg.Factor, cfg.MinGap = factor, gap
		if cfg.validate() != nil {
			return
		}
		set := []Rate{{a >> 2, b >> 2}, {c >> 2, d >> 2}, {e >> 2, g >> 2}, {a >> 2, b >> 2}}
		last := 0.0
		for _, i := range cfg.Outliers(set) {
			var others Rate
			for j, r := range set {
				if j != i && cfg.enough(r) {
					others.Successes += r.Successes
					others.Failures += r.Failures
				}
			}
			if !cfg.enough(set[i]) || set[i].share() >= others.share() || set[i].share() < last {
				t.Errorf("%v is named of %v", set[i], set)
			}
			last = set[i].share()
		}
	})
}

func BenchmarkOutliers(b *testing.B) {
	c := defaultOutliers()
	set := rates(1000, slices.Repeat([]float64{.999, .95, 1}, 334)...)
	b.ReportAllocs()
	for b.Loop() {
		c.Outliers(set)
	}
}
