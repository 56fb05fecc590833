package simulate

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Sizes of the picture, in pixels.
const (
	svgWidth    = 960
	svgPanel    = 380 // width of one plot
	svgHeight   = 300 // of a plot
	svgLeft     = 64  // of the first plot
	svgRight    = 532 // left edge of the second plot
	svgLine     = 16  // between lines of text
	svgWrap     = 118 // characters in a line of the command
	svgDodge    = 5   // between series at one load, so that spread bars do not cover each other
	svgMaxTitle = 12  // lines
)

// series is what one curve shows: the lines of a policy and limit.
type series struct {
	name   string
	points []point
	look   int // colour and mark
	dash   int
}

type point struct {
	x float64 // 0 to 1 over the plot
	l *Line
}

// picture is an SVG in the making.
type picture struct {
	bytes.Buffer
	q      *Question
	series []series
	ticks  []tick // of the x axis
	xName  string
	top    float64 // of the plots
}

type tick struct {
	at   float64 // 0 to 1
	text string
}

// SVG draws p99 and goodput against load, or against max_in_flight where there
// are several limits and one load. command is shown for whoever wants to repeat
// it.
func (q *Question) SVG(lines []Line, command string) []byte {
	p := &picture{q: q}
	p.arrange(lines)
	title := wrap(command, svgWrap)
	if len(title) > svgMaxTitle {
		title = append(title[:svgMaxTitle-1], "...")
	}
	p.top = float64(62 + svgLine*len(title))
	legend := (len(p.series) + 2) / 3
	height := int(p.top) + svgHeight + 66 + legend*svgLine + 12

	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n",
		svgWidth, height, svgWidth, height)
	fmt.Fprintf(p, `<rect width="%d" height="%d" fill="white"/>`+"\n", svgWidth, height)
	p.text(20, 26, `font-size="17" font-weight="bold"`, fmt.Sprintf("%s: p99 and goodput of %d backends behind %d sidecars", q.Service, q.backends(), q.Sidecars))
	for i, line := range title {
		p.text(20, float64(46+svgLine*i), `font-family="monospace" font-size="11" fill="#444"`, line)
	}
	p.text(20, float64(46+svgLine*len(title)), `font-size="11" fill="#444"`,
		fmt.Sprintf("seeds %d to %d: medians, bars from the lowest to the highest; %.0f requests/s are 100%% load", q.Seed, q.Seed+uint64(q.Seeds)-1, q.Capacity()))
	p.top += 18
	p.plot(svgLeft, "p99 latency, logarithmic", p99Scale(q, lines), p99)
	p.plot(svgRight, "goodput", goodputScale(lines), goodput)
	p.legend(p.top + svgHeight + 58)
	p.WriteString("</svg>\n")
	return p.Bytes()
}

// arrange makes the series and the x axis.
func (p *picture) arrange(lines []Line) {
	q := p.q
	loads, limits := q.loads(), q.Limits
	byLimit := len(loads) == 1 && len(limits) > 1
	n := len(loads)
	p.xName = "load, share of the capacity"
	if len(q.Rates) > 0 {
		p.xName = "load"
	}
	if byLimit {
		n, p.xName = len(limits), "max_in_flight, at "+q.loadText(loads[0])
	}
	place := func(i int) float64 { // evenly, for limits and a single load
		if byLimit || n == 1 {
			return (float64(i) + 0.5) / float64(n)
		}
		return 0.08 + 0.84*(loads[i]-loads[0])/(loads[n-1]-loads[0])
	}
	for i := range n {
		text := limitText(limits[i%len(limits)])
		if !byLimit {
			text = strings.TrimSuffix(q.loadText(loads[i]), " load")
		}
		p.ticks = append(p.ticks, tick{place(i), text})
	}
	for i := range lines {
		l := &lines[i]
		name := q.name(&candidate{policy: l.Policy, limit: l.Limit})
		x := slices.Index(loads, l.Load)
		if byLimit {
			name, x = l.Policy, slices.Index(limits, l.Limit)
		}
		at := slices.IndexFunc(p.series, func(s series) bool { return s.name == name })
		if at < 0 {
			at = len(p.series)
			p.series = append(p.series, series{name: name, look: slices.Index(q.Policies, l.Policy), dash: slices.Index(limits, l.Limit)})
		}
		p.series[at].points = append(p.series[at].points, point{place(x), l})
	}
	p.merge()
}

// merge leaves one of the series of a policy that would be drawn over each
// other, with the names of all.
func (p *picture) merge() {
	var kept []series
	for _, s := range p.series {
		at := slices.IndexFunc(kept, func(k series) bool { return k.look == s.look && p.looksLike(k, s) })
		if at < 0 {
			kept = append(kept, s)
			continue
		}
		kept[at].name += ", " + limitText(s.points[0].l.Limit)
	}
	p.series = kept
}

// looksLike reports whether a and b show the same texts in a table.
func (p *picture) looksLike(a, b series) bool {
	return slices.EqualFunc(a.points, b.points, func(a, b point) bool {
		return a.x == b.x && p.q.latency(a.l.median(p99)) == p.q.latency(b.l.median(p99)) && share(a.l.median(goodput)) == share(b.l.median(goodput))
	})
}

// scale maps a figure to 0 (bottom) to 1 (top).
type scale struct {
	at    func(v float64) float64
	ticks []tick
	cap   float64 // what is at or above it is drawn there; 0: nothing is
	note  string  // beside the line at cap
}

// p99Scale is logarithmic, from below the lowest to the time-out.
func p99Scale(q *Question, lines []Line) scale {
	high := q.Timeout.Seconds()
	low := high / 10
	for i := range lines {
		v, _ := lines[i].spread(p99)
		low = min(low, max(v, high*1e-6))
	}
	low = roundDown(low)
	s := scale{cap: high, note: "time-out " + q.Timeout.String()}
	s.at = func(v float64) float64 {
		return 0.94 * math.Log(min(max(v, low), high)/low) / math.Log(high/low)
	}
	decades := math.Log10(high / low)
	for e := math.Floor(math.Log10(low)); e <= math.Log10(high); e++ {
		for _, m := range []float64{1, 2, 5} {
			v := m * math.Pow(10, e)
			if m != 1 && decades > 3 || v < low*0.999 || v > high*0.999 {
				continue
			}
			s.ticks = append(s.ticks, tick{s.at(v), latencyTick(v)})
		}
	}
	return s
}

// roundDown returns the highest 1, 2 or 5 times a power of ten below v.
func roundDown(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{5, 2} {
		if m*p <= v {
			return m * p
		}
	}
	return p
}

func latencyTick(s float64) string {
	if s >= 0.999 {
		return fmt.Sprintf("%.4gs", s)
	}
	return fmt.Sprintf("%.4gms", s*1e3)
}

// goodputScale is linear, to 100 % from a round figure below the lowest.
func goodputScale(lines []Line) scale {
	low := 1.0
	for i := range lines {
		v, _ := lines[i].spread(goodput)
		low = min(low, v)
	}
	step := 0.2
	for _, s := range []float64{0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1} {
		if 1-low <= 5*s {
			step = s
			break
		}
	}
	n := max(2, math.Ceil((1-low)/step-1e-9))
	bottom := 1 - n*step
	s := scale{at: func(v float64) float64 { return 0.94 * (v - bottom) / (1 - bottom) }}
	for i := 0.0; i <= n; i++ {
		v := bottom + i*step
		s.ticks = append(s.ticks, tick{s.at(v), percent(math.Round(v*1e6) / 1e6)})
	}
	return s
}

// wrap breaks text at spaces into lines of at most n characters; a longer word
// is cut.
func wrap(text string, n int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		for len(word) > n {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			cut := n
			for cut > 1 && word[cut]&0xc0 == 0x80 { // not inside a character
				cut--
			}
			lines, word = append(lines, word[:cut]), word[cut:]
		}
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= n:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

func (p *picture) text(x, y float64, attributes, text string) {
	fmt.Fprintf(p, `<text x="%.1f" y="%.1f" %s xml:space="preserve">`, x, y, attributes)
	_ = xml.EscapeText(p, []byte(text)) // to memory
	p.WriteString("</text>\n")
}
