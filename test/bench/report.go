package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// comparison says what better means for a figure.
type comparison int

const (
	never  comparison = iota // not compared
	lower                    // is better
	higher                   // is better
)

// metric is a column of a case's table.
type metric struct {
	key     string  // in figures, with the unit
	label   string  // head of the column
	scale   float64 // figures are divided by it to print them; 0: as they are
	digits  int     // after the point
	spread  bool    // print the extremes too
	compare comparison
}

// figures are what one proxy did in one round, by the metrics' keys.
type figures map[string]float64

// round is one turn of all proxies, by their names.
type round map[string]figures

// result is a case when it is done.
type result struct {
	Name    string   `json:"name"`
	Title   string   `json:"title"`
	Setting string   `json:"setting"`
	Notes   []string `json:"notes,omitempty"`
	Rounds  []round  `json:"rounds"`

	metrics  []metric
	headline string   // key of the metric for the summary
	names    []string // of what is compared, in the table's order; nil: the three proxies
	own      string   // of them the one to prove; "": ours
}

func (r *result) order() []string {
	if r.names == nil {
		return proxyNames()
	}
	return r.names
}

// rival tells whether a name is a peer's and not one of ours.
func rival(name string) bool { return name != ours && !strings.HasPrefix(name, ours+" ") }

// values are a figure of one proxy over the rounds.
func (r *result) values(name, key string) []float64 {
	var xs []float64
	for _, round := range r.Rounds {
		if v, ok := round[name][key]; ok {
			xs = append(xs, v)
		}
	}
	return xs
}

// ratios compare ours with the better of the peers, round by round: what slows
// the machine down for a while then slows all of them.
func (r *result) ratios(m metric) []float64 {
	var xs []float64
	for _, round := range r.Rounds {
		var peers []float64
		for _, name := range r.order() {
			if v, ok := round[name][m.key]; ok && rival(name) {
				peers = append(peers, v)
			}
		}
		v, ok := round[cmp.Or(r.own, ours)][m.key]
		if !ok {
			continue
		}
		if q, ok := ratio(v, peers, m.compare == higher); ok {
			xs = append(xs, q)
		}
	}
	return xs
}

func number(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }

func (m metric) cell(s spread) string {
	if s.N == 0 {
		return "-"
	}
	scale := m.scale
	if scale == 0 {
		scale = 1
	}
	text := number(s.Median/scale, m.digits)
	if m.spread {
		text += fmt.Sprintf(" (%s-%s)", number(s.Min/scale, m.digits), number(s.Max/scale, m.digits))
	}
	return text
}

func ratioCell(s spread) string {
	if s.N == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", s.Median, s.Min, s.Max)
}

// print writes the case's table.
func (r *result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n%s\n", r.Name, r.Title, r.Setting)
	r.printTable(w)
	for _, note := range append(r.Notes, r.warnings()...) {
		fmt.Fprintf(w, "  ! %s\n", note)
	}
}

func (r *result) printTable(w io.Writer) {
	head := []string{""}
	for _, m := range r.metrics {
		head = append(head, m.label)
	}
	rows := [][]string{head}
	for _, name := range r.order() {
		if len(r.Rounds) > 0 && r.Rounds[0][name] == nil {
			continue // not part of this case
		}
		row := []string{name}
		for _, m := range r.metrics {
			row = append(row, m.cell(spreadOf(r.values(name, m.key))))
		}
		rows = append(rows, row)
	}
	if !slices.ContainsFunc(r.metrics, func(m metric) bool { return m.compare != never }) {
		printRows(w, rows)
		return
	}
	row := []string{cmp.Or(r.own, "ours") + "/better peer"}
	for _, m := range r.metrics {
		if m.compare == never {
			row = append(row, "")
			continue
		}
		row = append(row, ratioCell(spreadOf(r.ratios(m))))
	}
	printRows(w, append(rows, row))
}

func printRows(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, "  "+strings.Join(row, "\t"))
	}
	_ = t.Flush() // the writer is a terminal or a buffer; whoever closed it does not read
}

// most is the largest figure of all rounds and proxies; 0 if there is none.
func (r *result) most(key string) (most float64) {
	for _, name := range r.order() {
		for _, v := range r.values(name, key) {
			most = max(most, v)
		}
	}
	return most
}

// least is the smallest; ok is false if there is none.
func (r *result) least(key string) (least float64, ok bool) {
	for _, name := range r.order() {
		for _, v := range r.values(name, key) {
			if !ok || v < least {
				least, ok = v, true
			}
		}
	}
	return least, ok
}

// warnings tell when others used the processors so much that the figures may be
// off.
func (r *result) warnings() []string {
	const limit = 0.05
	worst := r.most(keyForeign)
	var all []string
	if low, ok := r.least(keyOthers); ok && r.most(keyOthers)-low > 2*limit {
		all = append(all, fmt.Sprintf("others took %.2f to %.2f of a processor: in some turns much more than in others, so that not all had the same", low, r.most(keyOthers)))
	}
	if idle, ok := r.least(keyIdle); ok && idle < 3*limit {
		all = append(all, fmt.Sprintf("the machine had as little as %.2f of a processor left: backends may have got less than their quota, and agents told of less than that", idle))
	}
	if worst <= limit {
		return all
	}
	return append(all, fmt.Sprintf("other processes took up to %.0f %% of the proxy's processor: requests per second and latencies are too bad, CPU times a little", 100*worst))
}

// printSummary writes one line per case: how ours compares.
func printSummary(w io.Writer, results []*result) {
	rows := [][]string{{"case", "figure", "ratio"}}
	for _, r := range results {
		for _, m := range r.metrics {
			if m.key == r.headline {
				rows = append(rows, []string{r.Name, m.label, ratioCell(spreadOf(r.ratios(m)))})
			}
		}
	}
	if len(rows) > 2 { // one case has just been printed
		fmt.Fprintln(w, "\nours/better peer, per round: median (extremes); below 1 is better")
		printRows(w, rows)
	}
}

// about is where and with what the figures were made.
type about struct {
	Time     time.Time         `json:"time"`
	Kernel   string            `json:"kernel"`
	Arch     string            `json:"arch"`
	CPUs     int               `json:"cpus"`
	Versions map[string]string `json:"versions"`
}

func (b *bench) about() about {
	return about{Time: time.Now().UTC(), Kernel: kernelRelease(), Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Versions: b.versions}
}

// summary is a case's figures in short, in the JSON file.
type summary struct {
	*result
	Proxies map[string]map[string]spread `json:"proxies"`
	Ratios  map[string]spread            `json:"ours_to_better_peer"`
}

func (r *result) summary() summary {
	s := summary{result: r, Proxies: map[string]map[string]spread{}, Ratios: map[string]spread{}}
	for _, m := range r.metrics {
		for _, name := range r.order() {
			if xs := r.values(name, m.key); len(xs) > 0 {
				if s.Proxies[name] == nil {
					s.Proxies[name] = map[string]spread{}
				}
				s.Proxies[name][m.key] = spreadOf(xs)
			}
		}
		if xs := r.ratios(m); m.compare != never && len(xs) > 0 {
			s.Ratios[m.key] = spreadOf(xs)
		}
	}
	return s
}

func encode(w io.Writer, a about, results []*result) error {
	doc := struct {
		About about     `json:"about"`
		Cases []summary `json:"cases"`
	}{About: a}
	for _, r := range results {
		doc.Cases = append(doc.Cases, r.summary())
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(doc)
}

func writeJSON(path string, a about, results []*result) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := encode(f, a, results); err != nil {
		_ = f.Close() // the first error is the one to tell
		return err
	}
	return f.Close()
}
