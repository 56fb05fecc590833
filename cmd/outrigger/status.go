package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"outrigger/sidecar/admin"
)

// statusQuery asks a sidecar's admin listener.
type statusQuery struct {
	addr    string // ADDR:PORT
	service string // "": all
	json    bool
}

func runStatus(ctx context.Context, args []string, s streams) int {
	fs := flag.NewFlagSet("status", flag.ContinueOnError)
	addr := fs.String("addr", admin.DefaultConfig().Listen, "`ADDR:PORT` of the sidecar's admin listener")
	service := fs.String("service", "", "show the service `NAME` alone")
	asJSON := fs.Bool("json", false, "print what /v1/status says, as JSON")
	watch := fs.Bool("watch", false, "ask again and again, until interrupted")
	interval := fs.Duration("interval", time.Second, "time between two looks with -watch, 100ms to 1h")
	if status, ok := parse(fs, args, s, "status [-addr ADDR:PORT] [-service NAME] [-json] [-watch [-interval 1s]]"); !ok {
		return status
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	at, err := adminAddr(*addr)
	switch {
	case fs.NArg() > 0:
		err = fmt.Errorf("%q is not understood; to see one service, use -service NAME", fs.Arg(0))
	case err != nil:
	case given["service"] && *service == "":
		err = errors.New("-service needs a name; leave it out to see all")
	case *interval < 100*time.Millisecond || *interval > time.Hour:
		err = fmt.Errorf("-interval is %v, allowed are 100ms to 1h", *interval)
	case given["interval"] && !*watch:
		err = errors.New("-interval needs -watch")
	}
	if err != nil {
		fmt.Fprint(s.err, statusError(err))
		return 2
	}
	q := statusQuery{addr: at, service: *service, json: *asJSON}
	if *watch {
		return q.watch(ctx, s, *interval, isTerminal(s.out))
	}
	page, err := q.page(ctx)
	if err != nil {
		fmt.Fprint(s.err, statusError(err))
		return 1
	}
	if _, err := s.out.Write(page); err != nil {
		return 1 // nobody reads any more
	}
	return 0
}

// isTerminal reports whether w is a character device, which is close enough:
// the others swallow anything.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// watch shows a page every interval until ctx ends. A sidecar that goes away
// meanwhile is waited for: it may be restarting.
func (q statusQuery) watch(ctx context.Context, s streams, interval time.Duration, inPlace bool) int {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for first := true; ; first = false {
		page, err := q.page(ctx)
		switch {
		case ctx.Err() != nil:
			return 0
		case err != nil && first:
			fmt.Fprint(s.err, statusError(err))
			return 1
		case err != nil:
			page = []byte(statusError(err))
		}
		switch {
		case inPlace:
			page = redraw(page)
		case !first && !q.json:
			page = append([]byte{'\n'}, page...)
		}
		if _, err := s.out.Write(page); err != nil {
			return 1
		}
		select {
		case <-ctx.Done():
			return 0
		case <-tick.C:
		}
	}
}

// redraw makes a page that overwrites the last one on a terminal. Each line
// clears its own rest, for a screen that is cleared first flickers.
func redraw(page []byte) []byte {
	out := append([]byte("\x1b[H"), bytes.ReplaceAll(page, []byte{'\n'}, []byte("\x1b[K\n"))...)
	return append(out, "\x1b[J"...)
}

func (q statusQuery) page(ctx context.Context) ([]byte, error) {
	body, doc, err := q.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if q.json {
		return body, nil
	}
	return statusTable(doc, q.addr), nil
}

// fetch returns the answer as fit for a terminal, and decoded.
func (q statusQuery) fetch(ctx context.Context) ([]byte, *admin.StatusDoc, error) {
	query := url.Values{}
	if q.service != "" {
		query.Set("service", q.service)
	}
	doc := &admin.StatusDoc{}
	body, err := askAdmin(ctx, q.addr, "/v1/status", query, doc)
	return body, doc, err
}

// statusClean makes text from elsewhere fit for a line on a terminal: nothing
// in it moves the cursor, hides or reorders. Longer than limit characters it
// loses its middle.
func statusClean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
	if r := []rune(s); len(r) > limit {
		head := (limit - 1) / 2
		return string(r[:head]) + "…" + string(r[len(r)-(limit-1-head):])
	}
	return s
}

// statusError is what a person reads of an error; parts of it come from
// whoever answered.
func statusError(err error) string { return cleanError("status", err) }

func cleanError(command string, err error) string {
	p := &statusPage{}
	for line := range strings.SplitSeq("outrigger "+command+": "+err.Error(), "\n") {
		p.line("%s", line)
	}
	return p.String()
}

// statusPage is a page in the making. All text passes its two methods, so all
// of it is clean.
type statusPage struct{ bytes.Buffer }

func (p *statusPage) line(format string, args ...any) {
	p.WriteString(statusClean(fmt.Sprintf(format, args...), 1000) + "\n")
}

func (p *statusPage) table(rows [][]string) {
	w := tabwriter.NewWriter(p, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = statusClean(cell, 64)
		}
		fmt.Fprintln(w, "  "+strings.Join(row, "\t"))
	}
	_ = w.Flush() // to memory
}

func statusTable(doc *admin.StatusDoc, addr string) []byte {
	p := &statusPage{}
	state := "ready"
	switch {
	case doc.Draining:
		state = "shutting down"
	case !doc.Ready:
		state = "not ready, discovery has not answered yet about: " + strings.Join(doc.WaitingFor, ", ")
	}
	p.line("outrigger %s at %s, up %s, %s", doc.Version, addr, statusAge(doc.UptimeSeconds), state)
	if c := doc.Consul; c != nil && c.Readers > 0 {
		p.line("consul: %s", statusConsul(c))
	}
	for i := range doc.Services {
		p.line("")
		p.service(&doc.Services[i])
	}
	return p.Bytes()
}

func (p *statusPage) service(s *admin.ServiceDoc) {
	flags := ""
	if s.Draining {
		flags = ", DRAINING"
	}
	if s.Panic {
		flags += fmt.Sprintf(", PANIC: %d of %d endpoints healthy, so health is ignored", s.EndpointsHealthy, s.EndpointsListed)
	}
	if s.WhyNoneReady != "" {
		flags += ", NONE READY: " + s.WhyNoneReady
	}
	p.line("%s on %s, %s: %s; %d of %d ready%s", s.Name, s.Listen, s.Policy, s.Mode, s.EndpointsReady, s.EndpointsTotal, flags)
	if d := s.Discovery; d != nil {
		p.discovery(d)
	}
	if s.Tier != "" {
		p.line("  tier       %s", statusTier(s))
	}
	capacity := s.Capacity.State
	if left := s.Capacity.OpenForSeconds; left != nil {
		capacity += " for " + statusAge(*left)
	}
	p.line("  capacity   breaker %s, trips: %d; queue: %d waiting, %d served, %d overflowed, %d timed out", capacity,
		s.Capacity.TripsTotal, s.Queue.Waiting, s.Queue.ServedTotal, s.Queue.OverflowedTotal, s.Queue.TimedOutTotal)
	p.line("  requests   %d sent, %d of them retries, %d retries denied; own 503s: %s",
		s.AttemptsTotal, s.RetriesTotal, s.RetriesDeniedTotal, statusCounts(s.RefusedTotal))
	if ejections := statusCounts(s.EjectionsByReasonTotal); ejections != "none" || s.PanicsTotal > 0 {
		p.line("  ejections  %s; panics: %d", ejections, s.PanicsTotal)
	}
	if s.PinnedTotal+s.PinMissedTotal > 0 {
		p.line("  affinity   %d pinned, %d not at once where they belong", s.PinnedTotal, s.PinMissedTotal)
	}
	if h := s.Here; h != nil {
		p.line("  here       node %s, zone %s, datacenter %s", cmp.Or(h.Node, "unknown"), cmp.Or(h.Zone, "unknown"), cmp.Or(h.Datacenter, "unknown"))
	}
	if sh := s.Shadow; sh != nil {
		p.line("  shadow     %s", statusShadow(sh))
	}
	if t := s.Traffic; t != nil {
		p.line("  clients    %d connected, %d tunnels; passed on: %s; own answers: %s; bad requests: %d, left early: %d, cut short: %d",
			t.ConnectionsOpen, t.TunnelsOpen, statusCounts(t.BackendResponsesTotal), statusCounts(t.OwnResponsesTotal),
			t.ClientErrorsTotal, t.ClientsGoneTotal, t.ResponsesAbortedTotal)
	}
	if len(s.Endpoints) == 0 {
		return
	}
	rows := [][]string{{"ENDPOINT", "ADDRESS", "WEIGHT", "HEALTH", "STATE", "IN-FLIGHT", "REQUESTS", "FAILED", "LATENCY", "CPU", "MEM", "FIGURES", "BREAKER"}}
	atBackend := slices.ContainsFunc(s.Endpoints, func(e admin.EndpointDoc) bool { return statusAtBackend(e.Figures) != "-" })
	if atBackend {
		rows[0] = append(rows[0], "AT BACKEND")
	}
	if s.Here != nil {
		rows[0] = append(rows[0], "DISTANCE")
	}
	if s.Tier != "" {
		rows[0] = append(rows[0], "TIER")
	}
	for i := range s.Endpoints {
		row := statusRow(&s.Endpoints[i])
		if atBackend {
			row = append(row, statusAtBackend(s.Endpoints[i].Figures))
		}
		if s.Here != nil {
			row = append(row, cmp.Or(s.Endpoints[i].Distance, "-"))
		}
		if s.Tier != "" {
			row = append(row, cmp.Or(s.Endpoints[i].Tier, "primary"))
		}
		rows = append(rows, row)
	}
	p.table(rows)
}

func statusRow(e *admin.EndpointDoc) []string {
	weight := strconv.Itoa(e.Weight)
	if e.SlowStart != nil {
		weight += fmt.Sprintf(" at %.0f%%", *e.SlowStart*100)
	}
	inFlight := strconv.Itoa(e.InFlight)
	if e.Limit != nil {
		inFlight += "/" + strconv.Itoa(*e.Limit)
	}
	latency, cpu, mem := "-", "-", "-"
	if e.LatencySeconds != nil {
		latency = statusLatency(*e.LatencySeconds)
	}
	if f := e.Figures; f != nil {
		cpu, mem = statusShare(f.CPU), statusShare(f.Memory)
	}
	breaker := e.Breaker.State
	if e.Breaker.EjectionsTotal > 0 {
		breaker += fmt.Sprintf(", ejected %dx", e.Breaker.EjectionsTotal)
		if why := e.Breaker.LastReason; why != "" {
			breaker += " (" + why + ")"
		}
	}
	return []string{
		e.ID, e.Address, weight, statusHealth(e), statusState(e), inFlight,
		strconv.FormatUint(e.RequestsTotal, 10), strconv.FormatUint(e.FailuresTotal, 10),
		latency, cpu, mem, statusFigures(e), breaker,
	}
}

// statusFigures says how old the agent's figures are, or why there are none.
func statusFigures(e *admin.EndpointDoc) string {
	switch f, a := e.Figures, e.Agent; {
	case f != nil && f.Expired:
		return statusAge(f.AgeSeconds) + " expired"
	case f != nil && !f.Listening:
		return statusAge(f.AgeSeconds) + " port closed"
	case f != nil:
		return statusAge(f.AgeSeconds)
	case a == nil:
		return "-"
	case a.RejectedTotal > 0:
		return "rejected"
	case a.FailuresTotal > 0:
		return "no answer"
	default:
		return "waiting"
	}
}

// statusAtBackend says what is in a backend, from everyone: "7 of 40, kernel, 3 queued".
func statusAtBackend(f *admin.FiguresDoc) string {
	if f == nil {
		return "-"
	}
	var parts []string
	if f.InFlight != nil {
		text := fmt.Sprintf("%.0f", *f.InFlight)
		if f.Concurrency != nil {
			text += fmt.Sprintf(" of %.0f", *f.Concurrency)
		}
		parts = append(parts, text)
		if f.InFlightSource != "" {
			parts = append(parts, f.InFlightSource)
		}
	}
	if q := f.AcceptQueue; q != nil && *q > 0 {
		parts = append(parts, fmt.Sprintf("%d queued", *q))
	}
	return cmp.Or(strings.Join(parts, ", "), "-")
}
