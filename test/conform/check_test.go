package conform

import (
	"fmt"
	"slices"
	"strings"

	"outrigger/sidecar/h1"
)

// after says what becomes of the client's connection.
type after uint8

const (
	keeps  after = iota // it serves another request
	closes              // the proxy closes it
	either              // the rule leaves it open
)

// row is one rule and an exchange that shows whether it is kept.
type row struct {
	rule    string   // section and what it says
	send    string   // the client's script
	methods string   // of the requests in it, GET for what is left out
	answers []string // the backend's scripts; none: 200 with the target as text
	n       int      // final answers that the client gets
	after   after
	cut     bool // or fewer: the last answer may not come at all
	strict  bool // the proxy must step in: passing octets on would break the rule
	retires bool // the connection to the backend is closed, not used again
	want    []check
	tune    func(*h1.Config) // of our side, where a rule is about a limit
}

// check says what is wrong, "" for nothing.
type check func(s *sight) string

// pass is a row in which a request goes through and is answered 200.
func pass(rule, send string, want ...check) row {
	return row{rule: rule, send: send, n: 1, want: append([]check{statuses(200), behind(1)}, want...)}
}

// refuse is a row in which the proxy answers an invalid request itself, with
// one of the statuses, and the backend sees nothing of it. What would be the
// next request is not one: where it starts is anybody's guess.
func refuse(rule, send string, status ...int) row {
	return row{rule: rule, send: send, n: 1, after: closes, strict: true, want: []check{oneOf(status...), untouched()}}
}

// spoil is a row in which a request turns out to be invalid when its head has
// gone: the backend must not take it for a whole one.
func spoil(rule, send string, status ...int) row {
	return row{rule: rule, send: send, n: 1, after: closes, strict: true, want: []check{oneOf(status...), noneWhole()}}
}

// relays is a row about an answer, to a plain GET.
func relays(rule, answer string, want ...check) row {
	return row{rule: rule, send: get(), answers: []string{answer}, n: 1, want: append([]check{behind(1)}, want...)}
}

// badAnswer is a row with an answer that is no HTTP: the client gets a 502, the
// connection to the backend is done.
func badAnswer(rule, answer string) row {
	r := relays(rule, answer+linger, statuses(502))
	r.retires, r.strict = true, true
	return r
}

// cutAnswer is a row with an answer that breaks off or goes wrong once its head
// has gone: the client sees a 502 or the cut, never a whole message.
func cutAnswer(rule, answer string) row {
	r := relays(rule, answer, isCut())
	r.after, r.retires, r.cut = either, true, true
	return r
}

func (r row) as(f func(r *row)) row { f(&r); return r }

// bad takes the row's checks and what holds of every exchange. The first
// complaint is returned.
func (r row) bad(s *sight) string {
	for _, c := range r.want {
		if why := c(s); why != "" {
			return why
		}
	}
	if why := s.breach(); why != "" {
		return why
	}
	switch {
	case len(s.answers) > r.n || len(s.answers) < r.n && !r.cut || s.junk != "" && !r.cut:
		return fmt.Sprintf("%d answers and %.20q, want %d", len(s.answers), s.junk, r.n)
	case r.after == closes && s.end != "closed" && s.end != "reset":
		return "the client's connection is " + s.end
	case r.after == keeps && (s.kept == nil || s.kept.body != probePath):
		return fmt.Sprintf("the client's connection does not serve another request (%s)", s.end)
	case s.probe == nil || s.probe.status != 200 || s.probe.body != probePath || !s.probe.whole:
		return "another client does not get its answer: " + show(s.probe)
	case r.retires && s.reused():
		return "the connection to the backend is used again"
	case r.retires && len(s.requests) > 0 && !s.over[s.requests[0].conn]:
		return "the connection to the backend is left open"
	}
	return ""
}

// breach says which rule of RFC 9112 for senders the proxy itself broke.
func (s *sight) breach() string {
	for _, m := range s.requests {
		if len(m.faults) > 0 {
			return "to the backend: " + m.faults[0]
		}
	}
	for _, m := range append(slices.Clone(s.interim), s.answers...) {
		if len(m.faults) > 0 {
			return "to the client: " + m.faults[0]
		}
	}
	if len(s.stray) > 0 {
		return fmt.Sprintf("to the backend: stray %.40q", s.stray[0])
	}
	return ""
}

func show(m *message) string {
	if m == nil {
		return "nothing"
	}
	return fmt.Sprintf("%.40q with %.20q, whole: %v", m.start, m.body, m.whole)
}

// statuses are the answers that the client gets, all whole.
func statuses(want ...int) check {
	return func(s *sight) string {
		var got []int
		for _, m := range s.answers {
			got = append(got, m.status)
			if !m.whole {
				return fmt.Sprintf("the %d is cut", m.status)
			}
		}
		if !slices.Equal(got, want) {
			return fmt.Sprintf("%v, want %v", got, want)
		}
		return ""
	}
}

// oneOf is a single answer with one of the statuses.
func oneOf(want ...int) check {
	return func(s *sight) string {
		if len(s.answers) == 0 {
			return "no answer"
		}
		if a := s.answers[0]; !slices.Contains(want, a.status) || !a.whole {
			return fmt.Sprintf("%d, whole %v, want one of %v", a.status, a.whole, want)
		}
		return ""
	}
}

// behind is the number of whole requests at the backend, and no others.
func behind(n int) check {
	return func(s *sight) string {
		whole := 0
		for _, m := range s.requests {
			if m.whole {
				whole++
			}
		}
		if whole != n || whole != len(s.requests) {
			return fmt.Sprintf("the backend saw %d whole requests of %d, want %d", whole, len(s.requests), n)
		}
		return ""
	}
}

func untouched() check {
	return func(s *sight) string {
		if len(s.requests) > 0 {
			return fmt.Sprintf("the backend saw %.60q", s.requests[0].start)
		}
		return ""
	}
}

func noneWhole() check {
	return func(s *sight) string {
		for _, m := range s.requests {
			if m.whole {
				return fmt.Sprintf("the backend saw a whole %.40q with %.20q", m.start, m.body)
			}
		}
		return ""
	}
}

// isCut holds of a last answer that is a 502, or that the client cannot take
// for a whole one.
func isCut() check {
	return func(s *sight) string {
		if n := len(s.answers); n > 0 && s.answers[n-1].whole {
			if a := s.answers[n-1]; a.status != 502 && a.status != 504 {
				return "the client has a whole " + show(a)
			}
			return ""
		}
		if s.end == "open" {
			return "the client is left waiting"
		}
		return ""
	}
}

// request makes a check of the nth request at the backend.
func request(n int, f func(m *message) string) check {
	return func(s *sight) string {
		if len(s.requests) <= n {
			return fmt.Sprintf("the backend saw %d requests", len(s.requests))
		}
		return f(s.requests[n])
	}
}

// reply makes a check of the nth answer at the client.
func reply(n int, f func(m *message) string) check {
	return func(s *sight) string {
		if len(s.answers) <= n {
			return fmt.Sprintf("%d answers", len(s.answers))
		}
		return f(s.answers[n])
	}
}

func line(want string) func(*message) string {
	return func(m *message) string {
		if m.start != want {
			return fmt.Sprintf("%.60q, want %.60q", m.start, want)
		}
		return ""
	}
}

func field1(want string) func(*message) string {
	return func(m *message) string {
		name, _, _ := strings.Cut(want, ":")
		if got := m.get(name); !has(m.fields, want) || len(got) != 1 {
			return fmt.Sprintf("%s %.60q, want %q", name, got, want)
		}
		return ""
	}
}

func without(names ...string) func(*message) string {
	return func(m *message) string {
		for _, n := range names {
			if got := m.get(n); got != nil {
				return fmt.Sprintf("%s passed on: %q", n, got)
			}
		}
		return ""
	}
}

func text(want string) func(*message) string {
	return func(m *message) string {
		if m.body != want {
			return fmt.Sprintf("the body is %.40q, want %.40q", m.body, want)
		}
		return ""
	}
}

// Checks of the first request and the first answer, which most rows are about.
func sentLine(want string) check        { return request(0, line(want)) }
func sent(want string) check            { return request(0, field1(want)) }
func notSent(names ...string) check     { return request(0, without(names...)) }
func sentBody(want string) check        { return request(0, text(want)) }
func gotLine(want string) check         { return reply(0, line(want)) }
func got(want string) check             { return reply(0, field1(want)) }
func notGot(names ...string) check      { return reply(0, without(names...)) }
func gotBody(want string) check         { return reply(0, text(want)) }
func sentTrailers(want ...string) check { return request(0, trailers(want)) }
func gotTrailers(want ...string) check  { return reply(0, trailers(want)) }

// trailers are exactly these.
func trailers(want []string) func(*message) string {
	return func(m *message) string {
		if len(m.trailers) != len(want) {
			return fmt.Sprintf("trailers %q, want %q", m.trailers, want)
		}
		for _, l := range want {
			if !has(m.trailers, l) {
				return fmt.Sprintf("trailers %q, want %q", m.trailers, want)
			}
		}
		return ""
	}
}

// gotInterim are the 1xx answers that the client gets, 101 aside.
func gotInterim(want ...int) check {
	return func(s *sight) string {
		var got []int
		for _, m := range s.interim {
			got = append(got, m.status)
		}
		if !slices.Equal(got, want) {
			return fmt.Sprintf("interim answers %v, want %v", got, want)
		}
		return ""
	}
}

func tunnelled(want string) check {
	return func(s *sight) string {
		if s.tunnel != want {
			return fmt.Sprintf("%.40q through the tunnel, want %q", s.tunnel, want)
		}
		return ""
	}
}
