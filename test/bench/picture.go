package main

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The picture of the balancing case has a panel for each of some figures: lines
// over the loads, with the extremes of the rounds as whiskers.
const (
	panelWidth, panelHeight = 250.0, 300.0
	panelLeft, panelTop     = 58.0, 46.0
	panelGap                = 66.0
	legendLine              = 20.0
)

// panel is one figure of the picture.
type panel struct {
	key, title string
	log        bool
}

func panels() []panel {
	return []panel{
		{keyMS50, "p50, ms", true},
		{keyMS99, "p99, ms", true},
		{keyMS999, "p99.9, ms", true},
		{keyGoodput, "goodput, %", false},
	}
}

// colour tells contenders apart, also for those who see fewer of them (Okabe
// and Ito's set); a sixth contender begins anew.
func colour(i int) string {
	all := [...]string{"#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00"}
	return all[i%len(all)]
}

// curve is one contender in one panel.
type curve struct {
	name   string
	loads  []float64
	values []spread
}

// curves gather a figure from the results of the balancing case.
func curves(results []*result, key string) []curve {
	var all []curve
	for _, r := range results {
		load, ok := balanceLoad(r.Name)
		if !ok {
			continue
		}
		for _, name := range r.order() {
			i := slices.IndexFunc(all, func(c curve) bool { return c.name == name })
			if i < 0 {
				i = len(all)
				all = append(all, curve{name: name})
			}
			if s := spreadOf(r.values(name, key)); s.N > 0 {
				all[i].loads, all[i].values = append(all[i].loads, float64(load)), append(all[i].values, s)
			}
		}
	}
	return all
}

// balanceLoad reads the load off a result's name.
func balanceLoad(name string) (int, bool) {
	text, ok := strings.CutPrefix(name, balanceCase+"-")
	load, err := strconv.Atoi(text)
	return load, ok && err == nil
}

// scale maps figures to a length.
type scale struct {
	low, high float64
	log       bool
	length    float64
}

func (s scale) at(v float64) float64 {
	low, high := s.low, s.high
	if s.log {
		v, low, high = math.Log(max(v, s.low)), math.Log(low), math.Log(high)
	}
	return s.length * (v - low) / (high - low)
}

// ticks are round figures within the scale: 1, 2 and 5 times powers of ten, or
// five steps.
func (s scale) ticks() []float64 {
	var all []float64
	if !s.log {
		for i := range 6 {
			all = append(all, s.low+(s.high-s.low)*float64(i)/5)
		}
		return all
	}
	for p := math.Pow(10, math.Floor(math.Log10(s.low))); p <= s.high; p *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if v := m * p; v >= s.low && v <= s.high {
				all = append(all, v)
			}
		}
	}
	return all
}

// scaleOf holds all figures of the curves.
func scaleOf(all []curve, log bool, length float64) scale {
	low, high := math.Inf(1), math.Inf(-1)
	for _, c := range all {
		for _, v := range c.values {
			low, high = min(low, v.Min), max(high, v.Max)
		}
	}
	if log {
		return scale{max(low, 1e-3) / 1.2, max(high, 1e-3) * 1.2, true, length}
	}
	low = math.Floor(low)
	return scale{low, max(math.Ceil(high), low+1), false, length}
}

// drawable tells whether there are results that draw shows.
func drawable(results []*result) bool { return len(curves(results, panels()[0].key)) > 0 }

// draw writes the picture of results that are drawable.
func draw(w io.Writer, results []*result) error {
	legend := curves(results, panels()[0].key)
	n := float64(len(panels()))
	width := panelLeft + n*panelWidth + (n-1)*panelGap + 20
	height := panelTop + panelHeight + 66 + legendLine*float64(len(legend))
	var s bytes.Buffer
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&s, `<rect width="%.0f" height="%.0f" fill="white"/>`+"\n", width, height)
	for i, p := range panels() {
		drawPanel(&s, p, curves(results, p.key), panelLeft+float64(i)*(panelWidth+panelGap))
	}
	for i, c := range legend {
		y := panelTop + panelHeight + 66 + legendLine*float64(i)
		fmt.Fprintf(&s, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%s"/>`, panelLeft, y-4, panelLeft+28, y-4, colour(i), stroke(c.name))
		fmt.Fprintf(&s, `<text x="%.1f" y="%.1f">%s</text>`+"\n", panelLeft+36, y, html.EscapeString(c.name))
	}
	s.WriteString("</svg>\n")
	_, err := w.Write(s.Bytes())
	return err
}

// stroke makes ours stand out.
func stroke(name string) string {
	if rival(name) {
		return "1.8"
	}
	return "3"
}

func drawPanel(s *bytes.Buffer, p panel, all []curve, left float64) {
	y := scaleOf(all, p.log, panelHeight)
	var loads []float64
	for _, c := range all {
		loads = append(loads, c.loads...)
	}
	slices.Sort(loads)
	loads = slices.Compact(loads)
	x := scale{low: loads[0] - 5, high: loads[len(loads)-1] + 5, length: panelWidth}
	bottom := panelTop + panelHeight
	fmt.Fprintf(s, `<text x="%.1f" y="%.1f" font-weight="bold">%s</text>`+"\n", left, panelTop-18, html.EscapeString(p.title))
	for _, v := range y.ticks() {
		at := bottom - y.at(v)
		fmt.Fprintf(s, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`, left, at, left+panelWidth, at)
		fmt.Fprintf(s, `<text x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n", left-6, at+4, strconv.FormatFloat(v, 'g', 4, 64))
	}
	for _, v := range loads {
		fmt.Fprintf(s, `<text x="%.1f" y="%.1f" text-anchor="middle">%g %%</text>`+"\n", left+x.at(v), bottom+18, v)
	}
	fmt.Fprintf(s, `<text x="%.1f" y="%.1f" text-anchor="middle">load, of measured capacity</text>`+"\n", left+panelWidth/2, bottom+36)
	for i, c := range all {
		drawCurve(s, c, x, y, left+4*(float64(i)-float64(len(all)-1)/2), bottom, colour(i))
	}
}

// drawCurve draws medians as a line and extremes as whiskers.
func drawCurve(s *bytes.Buffer, c curve, x, y scale, left, bottom float64, colour string) {
	var points strings.Builder
	for i, v := range c.values {
		px := left + x.at(c.loads[i])
		fmt.Fprintf(&points, "%.1f,%.1f ", px, bottom-y.at(v.Median))
		fmt.Fprintf(s, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`, px, bottom-y.at(v.Min), px, bottom-y.at(v.Max), colour)
		fmt.Fprintf(s, `<circle cx="%.1f" cy="%.1f" r="3.2" fill="%s"/>`, px, bottom-y.at(v.Median), colour)
	}
	fmt.Fprintf(s, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%s"/>`+"\n", strings.TrimSpace(points.String()), colour, stroke(c.name))
}

// writePicture draws into a file, if a case was run that has a picture.
func writePicture(path string, results []*result) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := draw(f, results); err != nil {
		_ = f.Close() // the first error is the one to tell
		return err
	}
	return f.Close()
}
