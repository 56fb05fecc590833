package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"outrigger/sidecar/admin"
)

// lie is an agent that is not to be believed, of one of four backends.
type lie struct {
	name string
	// answer writes what the n-th poll, from 0, gets; false closes the connection.
	answer func(c net.Conn, n int64) bool
	// most and least are the shares of the requests that the liar's backend may get;
	// its fair one is a quarter, less with hidden clients that go there past the sidecars.
	most, least float64
	hidden      int
	moves       string // the counter of endpoint_agent_* that goes up
	lines       int    // that the sidecar logs of the endpoint, however often it polls
	flaps       bool   // it is right again in between: one line a minute is allowed
}

// report is a JSON report of an idle machine of four cores, with changes: pairs of a
// field and its value as JSON; one that is there twice counts as it is last.
func lyingReport(at int64, fields ...string) string {
	text := fmt.Sprintf(`{"version":1,"epoch":"e","at":%d,"avail":4,"cores":4,"in_flight":0,"listening":true`, at)
	for i := 0; i < len(fields); i += 2 {
		text += fmt.Sprintf(",%q:%s", fields[i], fields[i+1])
	}
	return text + "}"
}

func httpAnswer(status, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// says answers with reports of now.
func says(fields ...string) func(net.Conn, int64) bool {
	return func(c net.Conn, _ int64) bool {
		return tell(c, httpAnswer("200 OK", lyingReport(time.Now().UnixMilli(), fields...)))
	}
}

func tell(c net.Conn, text string) bool {
	_, err := io.WriteString(c, text)
	return err == nil
}

// endless writes a beginning, and then the same for as long as it is read.
func endless(beginning, more string) func(net.Conn, int64) bool {
	return func(c net.Conn, _ int64) bool {
		for ok := tell(c, beginning); ok; {
			ok = tell(c, strings.Repeat(more, 1000))
		}
		return false
	}
}

// lies are what an agent may do to its sidecars.
func lies() []lie {
	const failed, rejected = "poll_failures_total", "reports_rejected_total"
	now := func() int64 { return time.Now().UnixMilli() }
	good := func() string { return httpAnswer("200 OK", lyingReport(now())) }
	return []lie{
		// Believed, as nothing shows that they are none: what they get is bounded.
		{name: "always idle", answer: says(), most: 0.5},
		{name: "idle with a full backend", answer: says(), hidden: 6, most: 0.3},
		// Counts as eight times the middle claim; how slow the backend is seen to become
		// holds it back further.
		{name: "a huge idle machine", answer: says("avail", "4096", "cores", "4096", "conc", "1e9"), most: 0.75},
		{name: "a huge idle machine with a full backend", answer: says("avail", "4096", "cores", "4096", "conc", "1e9"), hidden: 6, most: 0.75},
		{name: "full of requests", answer: says("in_flight", "1e9"), most: 0.5},
		{name: "no memory left", answer: says("mem", "2.0"), most: 0.02},
		{name: "errors alone", answer: says("err", "1"), most: 0.4},
		{name: "stamps of the future", answer: func(c net.Conn, n int64) bool {
			return tell(c, httpAnswer("200 OK", lyingReport(now()+n*1e9)))
		}, most: 0.5},
		{name: "a port that opens and closes", answer: func(c net.Conn, n int64) bool {
			return tell(c, httpAnswer("200 OK", lyingReport(now(), "listening", strconv.FormatBool(n%2 == 0))))
		}, most: 0.5},
		{name: "restarts with each report", answer: func(c net.Conn, n int64) bool {
			return tell(c, httpAnswer("200 OK", lyingReport(now(), "epoch", fmt.Sprintf("%q", strconv.FormatInt(n, 10)))))
		}, most: 0.5},
		{name: "one report for ever", answer: func(c net.Conn, _ int64) bool {
			return tell(c, httpAnswer("200 OK", lyingReport(1e12)))
		}, most: 0.5, least: 0.05, lines: 1},
		// Refused.
		{name: "in flight is NaN", answer: says("in_flight", "NaN"), most: 0.5, least: 0.05, moves: rejected, lines: 1},
		{name: "in flight is 1e999", answer: says("in_flight", "1e999"), most: 0.5, least: 0.05, moves: rejected, lines: 1},
		{name: "in flight is negative", answer: says("in_flight", "-7"), most: 0.5, least: 0.05, moves: rejected, lines: 1},
		{name: "in flight is absurd", answer: says("in_flight", "1e300"), most: 0.5, least: 0.05, moves: rejected, lines: 1},
		{name: "more free than there is", answer: says("avail", "5"), most: 0.5, least: 0.05, moves: rejected, lines: 1},
		{name: "old reports", answer: func(c net.Conn, n int64) bool {
			return tell(c, httpAnswer("200 OK", lyingReport(now()-n*1000)))
		}, most: 0.5, least: 0.05, moves: rejected, lines: 1},
		{name: "another instance's report", answer: says("instance", `"somebody-else"`), most: 0.5, least: 0.05, moves: rejected, lines: 1},
		{name: "a lie about the poll", answer: says("own_in_flight", "4711"), most: 0.5, least: 0.05, moves: rejected, lines: 1},
		{name: "garbage", answer: func(c net.Conn, n int64) bool {
			r, b := rand.New(rand.NewPCG(uint64(n), 1)), make([]byte, 3000)
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			return tell(c, string(b))
		}, most: 0.5, least: 0.05, moves: failed, lines: 1},
		{name: "garbage with a length", answer: func(c net.Conn, _ int64) bool { return tell(c, httpAnswer("200 OK", `{"version":1,]`)) },
			most: 0.5, least: 0.05, moves: rejected, lines: 1},
		{name: "every other answer is garbage", answer: func(c net.Conn, n int64) bool {
			return tell(c, good()) && n%2 == 0 || tell(c, "!")
		}, most: 0.5, moves: failed, lines: 1, flaps: true},
		{name: "byte by byte", answer: func(c net.Conn, _ int64) bool {
			for _, b := range []byte(good()) {
				if !tell(c, string(b)) {
					return false
				}
				time.Sleep(20 * time.Millisecond)
			}
			return true
		}, most: 0.5, least: 0.05, moves: failed, lines: 1},
		{name: "silence", answer: func(c net.Conn, _ int64) bool { _, _ = io.Copy(io.Discard, c); return false }, most: 0.5, least: 0.05, moves: failed, lines: 1},
		{name: "an endless head", answer: endless("HTTP/1.1 200 OK\r\n", "X-More: and more\r\n"), most: 0.5, least: 0.05, moves: failed, lines: 1},
		{name: "an endless body", answer: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "8\r\n{\"x\":{\"x\r\n"), most: 0.5, least: 0.05, moves: failed, lines: 1},
		{name: "a body without end", answer: endless("HTTP/1.1 200 OK\r\n\r\n{", " "), most: 0.5, least: 0.05, moves: failed, lines: 1},
		{name: "a deep body", answer: func(c net.Conn, _ int64) bool {
			return tell(c, httpAnswer("200 OK", lyingReport(now(), "x", strings.Repeat("[", 7000)+strings.Repeat("]", 7000))))
		}, most: 0.5},
		{name: "401", answer: func(c net.Conn, _ int64) bool { return tell(c, httpAnswer("401 Unauthorized", "no")) }, most: 0.5, least: 0.05, moves: failed, lines: 1},
		{name: "a redirect", answer: func(c net.Conn, _ int64) bool {
			return tell(c, "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/v1/report\r\nContent-Length: 0\r\n\r\n")
		}, most: 0.5, least: 0.05, moves: failed, lines: 1},
		{name: "closes at once", answer: func(net.Conn, int64) bool { return false }, most: 0.5, least: 0.05, moves: failed, lines: 1},
	}
}

// startLiar serves a lie and returns its port, and how often it was asked.
func startLiar(t *testing.T, l lie) (port int, asked *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	asked = &atomic.Int64{}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for sendsHead(c) && l.answer(c, asked.Add(1)-1) {
				}
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port, asked
}

// sendsHead reads the head of a request, whatever it is.
func sendsHead(c net.Conn) bool {
	var head []byte
	b := make([]byte, 1)
	for !strings.HasSuffix(string(head), "\r\n\r\n") {
		if _, err := c.Read(b); err != nil {
			return false
		}
		head = append(head, b[0])
	}
	return true
}

// Of four backends one has an agent that lies, and two sidecars believe in agents.
// Whatever it does, no client gets an error, the endpoint is as healthy as Consul has
// it, its share of the work is bounded, the log has one line of it at most, and a
// counter tells what is wrong.
//
// Not parallel, for shares are measured.
func TestHostileAgents(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("takes Linux: an agent samples nothing elsewhere")
	}
	all := startBackends(t, "liar", "b", "c", "d")
	honest := make([]int, len(all))
	for i, b := range all {
		b.control("/ctl/set?serial=1") // one request at a time: overload shows
		if i > 0 {
			_, honest[i] = startAgent(t, b, byPort(b))
		}
	}
	cat := sharedCatalog(t)
	cases := lies()
	asked := make([]*atomic.Int64, len(cases))
	ids := make([]string, len(cases))
	var blocks []block
	for i, l := range cases {
		service := uniqueService(t)
		honest[0], asked[i] = startLiar(t, l)
		for j, b := range all {
			id := cat.register(service, b, withMeta("outrigger_agent", strconv.Itoa(honest[j])))
			if j == 0 {
				ids[i] = id
			}
		}
		blocks = append(blocks, block{fmt.Sprintf("lie-%d", i), fmt.Sprintf("discover { service = %q }\npolicy \"resource\" {}", service)})
	}
	rig := &hostileRig{all: all, started: time.Now()}
	rig.sidecars = []*sidecar{startLied(t, blocks), startLied(t, blocks)}
	for i, l := range cases {
		t.Run(l.name, func(t *testing.T) { rig.try(t, blocks[i].name, ids[i], asked[i], l) })
	}
}

// startLied starts a sidecar that polls often.
func startLied(t *testing.T, blocks []block) *sidecar {
	t.Helper()
	s := configure(t, sidecarSpec{services: blocks})
	s.write("agents.hcl", "agents { interval = \"250ms\" }\n")
	s.run()
	t.Cleanup(func() { s.endsWell(t) })
	return s
}

// hostileRig is what all lies are tried on.
type hostileRig struct {
	all      []*backend // the first is the liar's
	sidecars []*sidecar
	started  time.Time
}

// try looks at what a lie does to a service of its own; id is the liar's endpoint.
func (h *hostileRig) try(t *testing.T, service, id string, asked *atomic.Int64, l lie) {
	for _, s := range h.sidecars {
		s.awaitFigures(service, h.all[1:]...)
	}
	// The liar was asked often enough, since the services began, for a line per poll to show.
	eventually(t, 30*time.Second, "the liar to be asked", func() error {
		if n := asked.Load(); n < 6 {
			return fmt.Errorf("%d times so far", n)
		}
		return nil
	})
	h.share(t, service, l)
	for _, s := range h.sidecars {
		h.blameless(t, s, service, id, l)
	}
}

// share measures what the liar's backend gets.
func (h *hostileRig) share(t *testing.T, service string, l lie) {
	takes, n := 12*time.Millisecond, 250
	if l.moves != "" {
		takes, n = 3*time.Millisecond, 100 // picked without figures, like all others that are refused
	}
	for _, b := range h.all {
		b.sleep(takes)
	}
	var loads []*load
	for _, s := range h.sidecars {
		loads = append(loads, startLoad(t, loadSpec{addr: s.addrs[service], clients: 6}))
	}
	if l.hidden > 0 {
		defer startLoad(t, loadSpec{addr: h.all[0].addr(), clients: l.hidden}).stop()
	}
	measure := func(n int) float64 {
		liars, total := 0, 0
		for _, load := range loads {
			before := load.snapshot()
			load.awaitMore(n)
			after := load.snapshot()
			liars += after.byBackend[h.all[0].name] - before.byBackend[h.all[0].name]
			total += after.ok - before.ok
		}
		return float64(liars) / float64(total)
	}
	measure(50)
	// A believed liar may have more until the sidecars know how slow it is, or while the
	// honest agents of a busy machine are late.
	eventually(t, 20*time.Second, "the liar to have its share", func() error {
		got := measure(n)
		if got > l.most || got < l.least {
			return fmt.Errorf("its backend gets %.2f of the requests, want %.2f to %.2f", got, l.least, l.most)
		}
		t.Logf("the liar's backend gets %.2f of the requests", got)
		return nil
	})
	for _, load := range loads {
		load.stop().clean(t)
	}
}

// blameless looks at what a sidecar makes of the liar's endpoint.
func (h *hostileRig) blameless(t *testing.T, s *sidecar, service, id string, l lie) {
	doc := s.service(service)
	e := endpointOf(doc, id)
	if e == nil || e.Health != "passing" || e.Breaker.EjectionsTotal > 0 || e.FailuresTotal > 0 || doc.EndpointsReady < len(h.all)-1 {
		t.Errorf("the liar's endpoint is %+v", e)
		return
	}
	s.awaitService(service, "an honest agent's further figures", func(doc admin.ServiceDoc) bool {
		f := figuresOf(doc, h.all[1])
		return f != nil && f.InFlightSource == "kernel" && f.AcceptLimit != nil && f.Pressure != nil
	})
	if l.moves != "" {
		awaitCounter(t, s, "outrigger_endpoint_agent_"+l.moves, e)
	}
	most, lines := l.lines, 0
	if l.flaps {
		most += int(time.Since(h.started) / time.Minute)
	}
	for line := range strings.Lines(s.proc.output(t)) {
		// On a busy machine the liar may not get to its answer in time, and the sidecar is right to say so.
		slow := strings.Contains(line, "no answer within") && l.lines == 0
		if strings.Contains(line, "[WARN]") && strings.Contains(line, id) && !slow || strings.Contains(line, "[ERROR]") {
			if lines++; lines > most {
				t.Errorf("the sidecar says too much: %s", line)
			}
		}
	}
	if lines < l.lines {
		t.Errorf("the sidecar says %d lines about the agent, want %d", lines, l.lines)
	}
}

// awaitCounter waits until a counter of an endpoint is above 1: it moves, and once is
// not enough.
func awaitCounter(t *testing.T, s *sidecar, name string, e *admin.EndpointDoc) {
	t.Helper()
	eventually(t, 20*time.Second, name+" to move", func() error {
		a, err := getOnce(s.admin, "/metrics")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(a.body)) {
			if strings.HasPrefix(line, name+"{") && strings.Contains(line, fmt.Sprintf("endpoint=%q", e.ID)) {
				v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
				if err == nil && v < 2 {
					err = fmt.Errorf("it is %v", v)
				}
				return err
			}
		}
		return fmt.Errorf("there is none of %s", e.ID)
	})
}

// Every agent of a service says that nobody listens, as with one wrong port in the
// fleet's configuration: the backends work, and are used.
func TestAllAgentsSeeNobodyListen(t *testing.T) {
	t.Parallel()
	all := startBackends(t, "a", "b")
	cat, service := sharedCatalog(t), uniqueService(t)
	var asked []*atomic.Int64
	for _, b := range all {
		port, n := startLiar(t, lie{answer: says("listening", "false")})
		asked = append(asked, n)
		cat.register(service, b, withMeta("outrigger_agent", strconv.Itoa(port)))
	}
	s := startLied(t, []block{{"deaf", fmt.Sprintf("discover { service = %q }\npolicy \"resource\" {}", service)}})
	eventually(t, 30*time.Second, "the agents to be heard", func() error {
		for _, n := range asked {
			if n.Load() < 3 { // so the first answer was read
				return fmt.Errorf("one was asked %d times", n.Load())
			}
		}
		return nil
	})
	if by := getMany(t, s.addrs["deaf"], 100); by["a"] == 0 || by["b"] == 0 {
		t.Errorf("answers from %v, want some from both", by)
	}
	if doc := s.service("deaf"); doc.EndpointsReady != 2 {
		t.Errorf("%d endpoints are ready", doc.EndpointsReady)
	}
}
