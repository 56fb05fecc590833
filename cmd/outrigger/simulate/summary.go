package simulate

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"outrigger/picker"
)

// figure takes one number out of an outcome.
type figure func(*Outcome) float64

func p50(o *Outcome) float64     { return o.P50.Seconds() }
func p99(o *Outcome) float64     { return o.P99.Seconds() }
func p999(o *Outcome) float64    { return o.P999.Seconds() }
func goodput(o *Outcome) float64 { return o.Goodput }
func shed(o *Outcome) float64    { return o.Shed }
func failed(o *Outcome) float64  { return o.Failed }

// sorted returns a figure of all runs, ascending.
func (l *Line) sorted(f figure) []float64 {
	v := make([]float64, len(l.Runs))
	for i := range l.Runs {
		v[i] = f(&l.Runs[i])
	}
	slices.Sort(v)
	return v
}

// median returns that of the runs: with few seeds one odd run moves a mean.
func (l *Line) median(f figure) float64 {
	v := l.sorted(f)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

func (l *Line) spread(f figure) (low, high float64) {
	v := l.sorted(f)
	return v[0], v[len(v)-1]
}

// apart reports whether the seeds tell a from b: with each of them the same one
// has more. The same seed brings the same requests and neighbours to both, so
// this says more than their ranges do.
func apart(a, b *Line, f figure) bool {
	more, less := 0, 0
	for i := range a.Runs {
		for j := range b.Runs {
			if a.Runs[i].Seed != b.Runs[j].Seed {
				continue
			}
			switch cmp.Compare(f(&a.Runs[i]), f(&b.Runs[j])) {
			case 1:
				more++
			case -1:
				less++
			default:
				return false
			}
		}
	}
	return more == 0 || less == 0
}

// decisive is the difference in goodput from which it decides, if the seeds tell
// it from chance.
const decisive = 0.001

// candidate is a policy with a limit, over all loads.
type candidate struct {
	policy    string
	limit     int
	lines     []*Line // one for each load, ascending
	shortfall float64 // most that its goodput lacks to the best for sure, over the loads
	tail      float64 // mean logarithm of p99 in seconds, capped at the time-out
}

// candidates lists what could be configured and was run at every load. The
// oracle and its like are for comparison only.
func (q *Question) candidates(lines []Line) []candidate {
	best := map[float64]*Line{} // by load
	var all []candidate
	for i := range lines {
		l := &lines[i]
		if !slices.Contains(picker.Names(), l.Policy) {
			continue
		}
		if b := best[l.Load]; b == nil || l.median(goodput) > b.median(goodput) {
			best[l.Load] = l
		}
		at := slices.IndexFunc(all, func(c candidate) bool { return c.policy == l.Policy && c.limit == l.Limit })
		if at < 0 {
			all, at = append(all, candidate{policy: l.Policy, limit: l.Limit}), len(all)
		}
		all[at].lines = append(all[at].lines, l)
	}
	all = slices.DeleteFunc(all, func(c candidate) bool { return len(c.lines) < len(q.loads()) })
	for i := range all {
		c := &all[i]
		for _, l := range c.lines {
			if b := best[l.Load]; apart(b, l, goodput) {
				c.shortfall = max(c.shortfall, b.median(goodput)-l.median(goodput))
			}
			c.tail += math.Log(max(1e-9, min(l.median(p99), q.Timeout.Seconds()))) / float64(len(c.lines))
		}
	}
	return all
}

// Advice says in a few lines which policy and limit the figures speak for.
func (q *Question) Advice(lines []Line) string {
	all := q.candidates(lines)
	if len(all) == 0 {
		return "No advice: no policy that can be configured has been run at every load.\n"
	}
	least := slices.MinFunc(all, func(a, b candidate) int { return cmp.Compare(a.shortfall, b.shortfall) }).shortfall
	good := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return c.shortfall > max(decisive, least+decisive) })
	slices.SortStableFunc(good, func(a, b candidate) int { return cmp.Compare(a.tail, b.tail) })
	pick, same := q.settle(good)
	var b strings.Builder
	fmt.Fprintf(&b, "Advice: %s\n", q.hcl(&pick))
	q.why(&b, &pick, good, least)
	if len(same) > 1 {
		fmt.Fprintf(&b, "  With it the seeds do not tell these limits apart: %s.\n", strings.Join(same, ", "))
	}
	q.compare(&b, &pick, all, good)
	return b.String()
}

// settle takes the first, but with the limit that is configured if the seeds do
// not tell the two apart: what differs by chance is no reason to change. It
// returns the limits that are as good, too.
func (q *Question) settle(good []candidate) (pick candidate, same []string) {
	pick = good[0]
	var limits []int
	for _, c := range good {
		if c.policy != good[0].policy || !sameTail(&c, &good[0]) {
			continue
		}
		limits = append(limits, c.limit)
		if c.limit == q.Balance.MaxInFlight {
			pick = c
		}
	}
	slices.SortFunc(limits, byLimit)
	for _, n := range limits {
		same = append(same, limitText(n))
	}
	return pick, same
}

// sameTail reports whether the seeds tell a and b apart at no load.
func sameTail(a, b *candidate) bool {
	for i := range a.lines {
		if apart(a.lines[i], b.lines[i], p99) || apart(a.lines[i], b.lines[i], goodput) {
			return false
		}
	}
	return true
}

// hcl is what to write, or that it is there.
func (q *Question) hcl(c *candidate) string {
	if c.policy == q.Balance.Picker.Policy && c.limit == q.Balance.MaxInFlight {
		return "leave it as configured: " + q.name(c) + "."
	}
	text := fmt.Sprintf("policy %q {}", c.policy)
	if c.limit != q.Balance.MaxInFlight {
		text += fmt.Sprintf(" and capacity { max_in_flight = %d }", c.limit)
	}
	return text + fmt.Sprintf(" in service %q.", q.Service)
}

func (q *Question) name(c *candidate) string {
	if len(q.Limits) == 1 {
		return c.policy
	}
	return c.policy + " with max_in_flight " + limitText(c.limit)
}

func (q *Question) why(b *strings.Builder, pick *candidate, good []candidate, least float64) {
	last := pick.lines[len(pick.lines)-1]
	among := fmt.Sprintf("among those whose goodput is at every load within %s points of the best, or not told from it by the seeds", decimal(decisive*100))
	if least > decisive {
		among = fmt.Sprintf("among those that lose least goodput to the best at any load (%s points)", decimal(math.Round(least*1e4)/100))
	}
	lead := "It has the lowest p99 over the loads "
	if len(good) == 1 {
		lead = "It is alone "
	}
	var figures []string
	for _, l := range pick.lines {
		figures = append(figures, q.latency(l.median(p99))+" at "+q.loadText(l.Load))
	}
	fmt.Fprintf(b, "  %s%s:\n  p99 %s.\n", lead, among, strings.Join(figures, ", "))
	if last.median(p99) >= q.Timeout.Seconds() {
		fmt.Fprintf(b, "  At %s one request in a hundred and more is not answered in time.\n", q.loadText(last.Load))
	}
}

// compare sets the pick beside the next policy and beside what is configured.
func (q *Question) compare(b *strings.Builder, pick *candidate, all, good []candidate) {
	configured := func(c candidate) bool {
		return c.policy == q.Balance.Picker.Policy && c.limit == q.Balance.MaxInFlight
	}
	kept := func(c candidate) bool { return c.policy == pick.policy && c.limit == q.Balance.MaxInFlight }
	if i := slices.IndexFunc(all, kept); i >= 0 && !kept(*pick) && !configured(all[i]) {
		q.beside(b, "With the limit as configured it is", pick, &all[i])
	}
	other := func(c candidate) bool { return c.policy != pick.policy }
	if i := slices.IndexFunc(good, other); i >= 0 && !configured(good[i]) {
		q.beside(b, "Next is", pick, &good[i])
	}
	if i := slices.IndexFunc(all, configured); i >= 0 && !configured(*pick) {
		q.beside(b, "Configured is", pick, &all[i])
	}
}

func (q *Question) beside(b *strings.Builder, lead string, pick, c *candidate) {
	mine, its := pick.lines[len(pick.lines)-1], c.lines[len(c.lines)-1]
	fmt.Fprintf(b, "  %s %s: at %s p99 %s", lead, q.name(c), q.loadText(its.Load), q.latency(its.median(p99)))
	switch m, i := mine.median(p99), its.median(p99); {
	case sameTail(pick, c):
		b.WriteString(", which the seeds do not tell apart at any load")
	case i >= q.Timeout.Seconds() && m > 0 && m < q.Timeout.Seconds():
		fmt.Fprintf(b, " (more than %.1f times as long)", q.Timeout.Seconds()/m)
	case i < q.Timeout.Seconds() && m > 0 && i/m >= 1.05:
		fmt.Fprintf(b, " (%.1f times as long)", i/m)
	}
	fmt.Fprintf(b, "; goodput %s", share(its.median(goodput)))
	if d := mine.median(goodput) - its.median(goodput); math.Abs(d) >= decisive {
		fmt.Fprintf(b, " (%+.1f points)", -d*100)
	}
	b.WriteString(".\n")
}

// latency writes seconds as the table shows them.
func (q *Question) latency(s float64) string {
	switch {
	case s >= q.Timeout.Seconds():
		return ">" + q.Timeout.String()
	case s < 0.01:
		return fmt.Sprintf("%.1fms", s*1e3)
	case s < 10:
		return fmt.Sprintf("%.0fms", s*1e3)
	}
	return fmt.Sprintf("%.1fs", s)
}

// share writes a share so that what is not all does not read as 100 %.
func share(v float64) string {
	switch {
	case v == 0 || v == 1:
		return fmt.Sprintf("%.0f%%", v*100)
	case v > 0.99 || v < 0.01:
		return fmt.Sprintf("%.2f%%", min(max(v*100, 0.01), 99.99))
	}
	return fmt.Sprintf("%.1f%%", v*100)
}

// limitText writes a value of max_in_flight.
func limitText(n int) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}

// loadText names a load as it was asked for.
func (q *Question) loadText(load float64) string {
	if len(q.Rates) > 0 {
		return fmt.Sprintf("%.0f/s", load*q.Capacity())
	}
	return percent(load) + " load"
}

// title names a case in a line.
func (q *Question) title(c Case) string {
	return q.name(&candidate{policy: c.Policy, limit: c.Limit}) + " at " + q.loadText(c.Load)
}
