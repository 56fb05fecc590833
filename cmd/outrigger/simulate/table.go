package simulate

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"outrigger/picker"
)

// Table writes the fleet, the figures and the advice, as text.
func (q *Question) Table(lines []Line) string {
	var b bytes.Buffer
	q.head(&b)
	rows := [][]string{{"LOAD", "POLICY", "LIMIT", "P50", "P99", "", "P99.9", "GOODPUT", "", "SHED", "FAILED", "SEEDS"}}
	for i := 0; i < len(lines); {
		n := alike(lines[i:])
		if i > 0 && lines[i-1].Load != lines[i].Load {
			rows = append(rows, nil)
		}
		rows = append(rows, q.row(lines[i:i+n]))
		i += n
	}
	align(&b, rows)
	b.WriteString("\nMedians over the seeds, lowest and highest in parentheses; latency from arrival at the\n" +
		"sidecar to the end of the answer. Goodput: answered well and in time.\n")
	if only := q.onlySimulated(); only != "" {
		fmt.Fprintf(&b, "For comparison, in the simulator alone: %s.\n", only)
	}
	b.WriteByte('\n')
	b.WriteString(q.Advice(lines))
	return b.String()
}

func (q *Question) head(b *bytes.Buffer) {
	fmt.Fprintf(b, "service %q: %d backends (%s), weights %s, serve %.0f requests/s; %d sidecars\n",
		q.Service, q.backends(), groupsText(q.Backends), q.weights(), q.Capacity(), q.Sidecars)
	fmt.Fprintf(b, "work %s; neighbours %s; surge %s; agents polled every %v, %s silent\n",
		q.Work, q.Neighbours, q.Surge, q.Interval, percent(q.Silent))
	fmt.Fprintf(b, "requests time out after %v; %v measured after %v; seeds %d to %d\n",
		q.Timeout, q.Duration, q.Warmup, q.Seed, q.Seed+uint64(q.Seeds)-1)
	if !q.Told && q.Balance.MaxWait > 0 && slices.Contains(q.Policies, "resource") {
		b.WriteString("timeouts.request is not configured: clients leave without notice, so max_wait has nothing to go by\n")
	}
	b.WriteByte('\n')
}

// alike returns how many lines from the first on differ in their limit alone,
// as those do whose limit is never reached.
func alike(lines []Line) int {
	n := 1
	for n < len(lines) && lines[n].Load == lines[0].Load && lines[n].Policy == lines[0].Policy && slices.Equal(lines[n].Runs, lines[0].Runs) {
		n++
	}
	return n
}

// row is that of lines that are alike.
func (q *Question) row(same []Line) []string {
	l := &same[0]
	var limits []string
	for _, s := range same {
		limits = append(limits, limitText(s.Limit))
	}
	p99Low, p99High := l.spread(p99)
	goodLow, goodHigh := l.spread(goodput)
	return []string{
		strings.TrimSuffix(q.loadText(l.Load), " load"), l.Policy, strings.Join(limits, ","), q.latency(l.median(p50)),
		q.latency(l.median(p99)), between(q.latency(p99Low), q.latency(p99High)), q.latency(l.median(p999)),
		share(l.median(goodput)), between(share(goodLow), share(goodHigh)), share(l.median(shed)), share(l.median(failed)),
		strconv.Itoa(len(l.Runs)),
	}
}

// align writes rows with their columns below each other. An empty row keeps
// them so, which a tabwriter does not.
func align(b *bytes.Buffer, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// between writes a range in parentheses, the unit once; nothing where there is
// none.
func between(low, high string) string {
	if low == high {
		return ""
	}
	for _, unit := range []string{"ms", "%"} {
		if strings.HasSuffix(low, unit) && strings.HasSuffix(high, unit) {
			return "(" + strings.TrimSuffix(low, unit) + "-" + high + ")"
		}
	}
	return "(" + low + " to " + high + ")"
}

// groupsText writes groups as ParseBackends reads them.
func groupsText(groups []Group) string {
	var parts []string
	for _, g := range groups {
		text := fmt.Sprintf("%dx%s", g.Count, decimal(g.Cores))
		if g.Speed != 1 {
			text += "@" + decimal(g.Speed)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ",")
}

func (q *Question) weights() string {
	if q.ByCores {
		return "by cores"
	}
	return "equal"
}

// onlySimulated names the policies asked for that cannot be configured.
func (q *Question) onlySimulated() string {
	var names []string
	for _, p := range q.Policies {
		if !slices.Contains(picker.Names(), p) {
			names = append(names, p)
		}
	}
	return strings.Join(names, ", ")
}
