package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"outrigger/sidecar/admin"
	"outrigger/sidecar/balance"
)

func runExplain(ctx context.Context, args []string, s streams) int {
	fs := flag.NewFlagSet("explain", flag.ContinueOnError)
	addr := fs.String("addr", admin.DefaultConfig().Listen, "`ADDR:PORT` of the sidecar's admin listener")
	key := fs.String("key", "", "explain it for a request with this `KEY`: the text that consistent_hash hashes")
	hash := fs.String("hash", "", "explain it for a request whose key has this hash, a `NUMBER`")
	tried := fs.String("tried", "", "explain it for a request that was sent to the endpoints `ID,ID` already")
	top := fs.Int("top", 0, "show the first `N` candidates of each policy, 1 to 10000 (default 1000)")
	last := fs.Int("last", 0, fmt.Sprintf("list the last `N` requests sent and as many own 503s instead, 1 to %d", balance.MaxLast))
	asJSON := fs.Bool("json", false, "print what /v1/explain says, as JSON")
	const synopsis = "explain NAME [-key KEY|-hash NUMBER] [-tried ID,ID] [-top N] [-last N] [-json] [-addr ADDR:PORT]"
	if status, ok := parse(fs, args, s, synopsis); !ok {
		return status
	}
	name := fs.Arg(0)
	if fs.NArg() > 0 { // flags may come behind it too
		if status, ok := parse(fs, fs.Args()[1:], s, synopsis); !ok {
			return status
		}
	}
	rest := fs.Args()
	query := url.Values{"service": {name}}
	fs.Visit(func(f *flag.Flag) {
		if slices.Contains([]string{"key", "hash", "tried", "top", "last"}, f.Name) {
			query.Set(f.Name, f.Value.String())
		}
	})
	at, err := adminAddr(*addr)
	switch {
	case len(rest) > 0:
		err = fmt.Errorf("%q is not understood; one service at a time", rest[0])
	case name == "":
		err = errors.New("which service? Write outrigger explain NAME; outrigger status shows them")
	case err != nil:
	case query.Has("last") && (*last < 1 || *last > balance.MaxLast):
		err = fmt.Errorf("-last is %d, allowed are 1 to %d", *last, balance.MaxLast)
	case query.Has("last") && (*key != "" || *hash != "" || *tried != "" || *top != 0):
		err = errors.New("-last lists what was decided, so -key, -hash, -tried and -top have no meaning beside it")
	case query.Has("key") && query.Has("hash"):
		err = errors.New("-key is hashed and -hash is the result: leave one out")
	}
	if err != nil {
		fmt.Fprint(s.err, cleanError("explain", err))
		return 2
	}
	page, err := explainPage(ctx, at, query, *asJSON)
	if err != nil {
		fmt.Fprint(s.err, cleanError("explain", err))
		return 1
	}
	if _, err := s.out.Write(page); err != nil {
		return 1 // nobody reads any more
	}
	return 0
}

func explainPage(ctx context.Context, addr string, query url.Values, asJSON bool) ([]byte, error) {
	now, last := &admin.ExplainDoc{}, &admin.LastDoc{}
	var doc any = now
	if query.Has("last") {
		doc = last
	}
	body, err := askAdmin(ctx, addr, "/v1/explain", query, doc)
	switch {
	case err != nil || asJSON:
		return body, err
	case query.Has("last"):
		return lastTable(last), nil
	}
	return explainTable(now), nil
}

func explainTable(doc *admin.ExplainDoc) []byte {
	p := &statusPage{}
	flags := ""
	if doc.Draining {
		flags = ", DRAINING"
	}
	if doc.Panic {
		flags += ", PANIC: too few endpoints are healthy, so health is ignored"
	}
	p.line("%s by %s: %s%s", doc.Service, doc.Policy.Name, doc.Policy.Mode, flags)
	switch wait := doc.WaitsForSlotSeconds; {
	case doc.Reason == "":
		p.line("a pick made now took %s", doc.Pick)
	case wait != nil:
		p.line("a request made now would wait for a slot, up to %s, and then get 503 %s, Retry-After: %d", statusLatency(*wait), doc.Reason, doc.RetryAfterSeconds)
	default:
		p.line("a request made now would get 503 %s, Retry-After: %d", doc.Reason, doc.RetryAfterSeconds)
	}
	p.policy(&doc.Policy)
	if sh := doc.Shadow; sh != nil {
		p.line("")
		p.line("beside it, without effect, %s: %s", sh.Name, sh.Mode)
		if sh.Pick == "" {
			p.line("a pick made now took none")
		} else {
			p.line("a pick made now took %s", sh.Pick)
		}
		p.policy(sh)
	}
	return p.Bytes()
}

// policy shows the candidates of a policy, what would win first.
func (p *statusPage) policy(doc *admin.PolicyDoc) {
	if doc.Rule != doc.Mode && doc.Rule != "" {
		p.line("rule: %s", doc.Rule)
	}
	if len(doc.Candidates) == 0 {
		return
	}
	terms, same := termColumns(doc.Candidates)
	if same != "" {
		p.line("the same for all: %s", same)
	}
	predicted := slices.ContainsFunc(doc.Candidates, func(c admin.CandidateDoc) bool { return c.PredictedSeconds != nil })
	head := append([]string{"", "ENDPOINT", "ADDRESS", "SCORE", "SHARE", "IN-FLIGHT", "WEIGHT"}, terms...)
	head = append(head, "LATENCY", "FIGURES")
	if predicted {
		head = append(head, "PREDICTED")
	}
	rows := [][]string{append(head, "OUT BECAUSE")}
	for i := range doc.Candidates {
		rows = append(rows, explainRow(&doc.Candidates[i], terms, predicted))
	}
	p.table(rows)
	if doc.LeftOut > 0 {
		p.line("  and %d more; -top shows up to 10000", doc.LeftOut)
	}
}

// termColumns returns the names of the terms that differ between candidates, and
// the others as text: some policies have twenty.
func termColumns(list []admin.CandidateDoc) (columns []string, same string) {
	values := map[string][]string{} // by name: one, or two that differ
	count := map[string]int{}
	var names []string
	with := 0
	for i := range list {
		if list[i].Terms != nil {
			with++
		}
		for _, t := range list[i].Terms {
			if t.Name == "in_flight" || t.Name == "weight" {
				continue // they have columns of their own
			}
			if values[t.Name] == nil {
				names = append(names, t.Name)
			}
			count[t.Name]++
			if v := figure(t.Value); len(values[t.Name]) < 2 && !slices.Contains(values[t.Name], v) {
				values[t.Name] = append(values[t.Name], v)
			}
		}
	}
	var parts []string
	for _, name := range names {
		if with > 1 && count[name] == with && len(values[name]) == 1 {
			parts = append(parts, name+" "+values[name][0])
		} else {
			columns = append(columns, name)
		}
	}
	return columns, strings.Join(parts, ", ")
}

func explainRow(c *admin.CandidateDoc, terms []string, predicted bool) []string {
	mark, share, weight, figures := "", "-", strconv.Itoa(c.Weight), "-"
	if c.Picked {
		mark = ">"
	}
	if c.Share != nil {
		share = fmt.Sprintf("%.3g%%", *c.Share*100)
	}
	if c.Ramp < 1 {
		weight += fmt.Sprintf(" at %.0f%%", c.Ramp*100)
	}
	inFlight := strconv.Itoa(c.InFlight)
	if c.Limit != nil {
		inFlight += "/" + strconv.Itoa(*c.Limit)
	}
	if c.FiguresAgeSeconds != nil {
		figures = statusAge(*c.FiguresAgeSeconds)
		if c.FiguresExpired {
			figures += " expired"
		}
	}
	row := []string{mark, c.ID, c.Address, figure(c.Score), share, inFlight, weight}
	for _, name := range terms {
		cell := "-"
		for _, t := range c.Terms {
			if t.Name == name {
				cell = figure(t.Value)
			}
		}
		row = append(row, cell)
	}
	row = append(row, latencyOr(c.LatencySeconds), figures)
	if predicted {
		row = append(row, latencyOr(c.PredictedSeconds))
	}
	return append(row, c.Out)
}

func figure(v *float64) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'g', 4, 64)
}

func latencyOr(v *float64) string {
	if v == nil {
		return "-"
	}
	return statusLatency(*v)
}

// lastTable lists what was decided.
func lastTable(doc *admin.LastDoc) []byte {
	p := &statusPage{}
	p.line("%s, the last %d requests sent, the newest first", doc.Service, len(doc.Decisions))
	rows := [][]string{{"AGO", "ENDPOINT", "ADDRESS", "IN-FLIGHT", "TRIES BEFORE", "HOW"}}
	for i := range doc.Decisions {
		d := &doc.Decisions[i]
		rows = append(rows, []string{
			statusLatency(d.AgeSeconds), cmp.Or(d.Endpoint, "(has left)"), cmp.Or(d.Address, "-"),
			strconv.Itoa(d.InFlight), strconv.Itoa(d.Tries), how(d),
		})
	}
	if len(rows) > 1 {
		p.table(rows)
	}
	p.line("")
	p.line("%s, the last %d own 503s, the newest first", doc.Service, len(doc.Refusals))
	rows = [][]string{{"AGO", "REASON", "RETRY-AFTER", "TRIES BEFORE", "WAITING", "ENDPOINTS", "HOW"}}
	for i := range doc.Refusals {
		r := &doc.Refusals[i]
		how := ""
		if r.Queued {
			how = "waited for a slot"
		}
		rows = append(rows, []string{
			statusLatency(r.AgeSeconds), r.Reason, strconv.Itoa(r.RetryAfterSeconds), strconv.Itoa(r.Tries),
			strconv.Itoa(r.Waiting), strconv.Itoa(r.Endpoints), how,
		})
	}
	if len(rows) > 1 {
		p.table(rows)
	}
	return p.Bytes()
}

// how says what was special about a decision.
func how(d *admin.DecisionDoc) string {
	var parts []string
	for _, x := range []struct {
		is   bool
		text string
	}{
		{d.Queued, "waited for a slot"}, {d.Pinned, "pinned"}, {d.Probe, "probe"}, {d.Panic, "panic"},
		{d.Again, "tried again"}, {d.ShadowDiffers != nil && *d.ShadowDiffers, "shadow differs"},
		{d.Left && d.Endpoint != "", "has left since"},
	} {
		if x.is {
			parts = append(parts, x.text)
		}
	}
	return strings.Join(parts, ", ")
}

// statusShadow says what a shadow would have done and gained.
func statusShadow(s *admin.ShadowDoc) string {
	text := fmt.Sprintf("%s: %s; %d picks compared", s.Policy, s.Mode, s.PicksTotal)
	if s.PicksTotal > 0 {
		text += fmt.Sprintf(", %.1f%% would differ", 100*float64(s.DisagreedTotal)/float64(s.PicksTotal))
	}
	if s.NoneTotal > 0 {
		text += fmt.Sprintf(" (%d would be refused)", s.NoneTotal)
	}
	if s.GainSeconds == nil || s.GainShare == nil {
		return text + "; no prediction yet"
	}
	what, gain, share := "sooner", *s.GainSeconds, *s.GainShare
	if gain < 0 {
		what, gain, share = "later", -gain, -share
	}
	return text + fmt.Sprintf("; predicted answers %s %s (%.1f%%) in the mean", statusLatency(gain), what, 100*share)
}
