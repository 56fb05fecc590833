package simulate

import (
	"fmt"
	"strings"
)

// colours are told apart by people who see fewer of them, too (Okabe and Ito).
func colours() []string {
	return []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9", "#8c6d1f", "#777777", "#b01030"}
}

func dashes() []string { return []string{"none", "7 3", "2 3", "9 3 2 3", "1 5"} }

// plot draws one figure of all series, its left edge at x.
func (p *picture) plot(x float64, name string, s scale, f figure) {
	p.text(x, p.top-10, `font-weight="bold"`, name)
	y := func(v float64) float64 { return p.top + svgHeight*(1-v) }
	for _, t := range s.ticks {
		fmt.Fprintf(p, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", x, y(t.at), x+svgPanel, y(t.at))
		p.text(x-6, y(t.at)+4, `text-anchor="end" font-size="11"`, t.text)
	}
	for _, t := range p.ticks {
		at := x + svgPanel*t.at
		fmt.Fprintf(p, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#888"/>`+"\n", at, y(0), at, y(0)+5)
		p.text(at, y(0)+19, `text-anchor="middle" font-size="11"`, t.text)
	}
	p.text(x+svgPanel/2, y(0)+38, `text-anchor="middle"`, p.xName)
	fmt.Fprintf(p, `<path d="M%.1f %.1fV%.1fH%.1f" fill="none" stroke="#888"/>`+"\n", x, p.top, y(0), x+svgPanel)
	if s.cap > 0 {
		fmt.Fprintf(p, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#b01030" stroke-dasharray="4 3"/>`+"\n", x, y(s.at(s.cap)), x+svgPanel, y(s.at(s.cap)))
		p.text(x+4, y(s.at(s.cap))-5, `font-size="11" fill="#b01030"`, s.note)
	}
	for i := range p.series {
		p.curve(i, func(pt point) float64 { return x + svgPanel*pt.x + p.dodge(i) }, func(v float64) float64 { return y(s.at(v)) }, f)
	}
}

// dodge is the offset of a series to the side.
func (p *picture) dodge(i int) float64 {
	width := svgDodge * float64(len(p.series)-1)
	room := 0.8 * svgPanel / float64(len(p.ticks))
	step := float64(svgDodge)
	if len(p.ticks) == 1 && len(p.series) > 1 {
		step = room / float64(len(p.series)-1)
	} else if most := min(room/2, 0.1*svgPanel); width > most {
		step *= most / width
	}
	return step * (float64(i) - float64(len(p.series)-1)/2)
}

// curve draws one series: spread bars, then the line, then the marks.
func (p *picture) curve(i int, x func(point) float64, y func(float64) float64, f figure) {
	s := &p.series[i]
	var path strings.Builder
	colour := s.colour()
	for n, pt := range s.points {
		low, high := pt.l.spread(f)
		at, mid := x(pt), y(pt.l.median(f))
		if low < high {
			fmt.Fprintf(p, `<path d="M%.1f %.1fh6m-3 0V%.1fm-3 0h6" fill="none" stroke="%s" stroke-opacity="0.7"/>`+"\n", at-3, y(low), y(high), colour)
		}
		fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(n, 1)], at, mid)
	}
	if len(s.points) > 1 {
		fmt.Fprintf(p, `<path d="%s" fill="none" stroke="%s" stroke-width="1.6" stroke-dasharray="%s"/>`+"\n", path.String(), colour, s.dashes())
	}
	for _, pt := range s.points {
		p.mark(s.look, x(pt), y(pt.l.median(f)), colour)
	}
}

func (s *series) colour() string { c := colours(); return c[max(0, s.look)%len(c)] }
func (s *series) dashes() string { d := dashes(); return d[max(0, s.dash)%len(d)] }

// mark draws a point; policies differ in shape, too.
func (p *picture) mark(look int, x, y float64, colour string) {
	shape := []string{
		"m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", // circle
		"m-3.5 -3.5h7v7h-7z",                  // square
		"m0 -5l4.5 8h-9z",                     // triangle
		"m0 -5l4.5 5l-4.5 5l-4.5 -5z",         // diamond
		"m0 5l4.5 -8h-9z",                     // triangle, down
	}[max(0, look)%5]
	fmt.Fprintf(p, `<path d="M%.1f %.1f%s" fill="%s" stroke="white" stroke-width="0.5"/>`+"\n", x, y, shape, colour)
}

// legend names the series, three in a row.
func (p *picture) legend(top float64) {
	for i := range p.series {
		s := &p.series[i]
		x, y := float64(svgLeft+(i%3)*300), top+float64(i/3)*svgLine
		fmt.Fprintf(p, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="1.6" stroke-dasharray="%s"/>`+"\n", x, y, x+28, y, s.colour(), s.dashes())
		p.mark(s.look, x+14, y, s.colour())
		p.text(x+36, y+4, `font-size="12"`, s.name)
	}
}
