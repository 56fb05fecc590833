package agentstats

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// served is one sample, encoded once for all pollers but for what each poll adds.
type served struct {
	report Report
	at     time.Time
	state  string // what is watched, or why nothing is

	head   []byte // of the answer, up to the value of Content-Length
	before []byte // the report up to the value of "at"
	after  []byte // from there up to its closing brace
}

var errNoAt = errors.New("agent report not sent: no at in it")

// prepare encodes a sample. Figures that polls add are left out of the encoding.
func prepare(r Report, at time.Time, state string, live bool) (*served, error) {
	s := &served{report: r, at: at, state: state}
	r.OwnInFlight = Opt[int64]{}
	if live {
		r.InFlight, r.InFlightSource, r.Conc = Opt[float64]{}, "", Opt[float64]{}
		r.AcceptQueue, r.AcceptLimit = Opt[int64]{}, Opt[int64]{}
	}
	body, err := Encode(r)
	if err != nil {
		return nil, err
	}
	// A quote within a text is escaped, so the first match is the key.
	before, after, found := bytes.Cut(body, []byte(`"at":`+strconv.FormatInt(r.At, 10)))
	if !found {
		return nil, errNoAt
	}
	s.before = append(before[:len(before):len(before)], `"at":`...)
	s.after = bytes.TrimSuffix(after, []byte("}"))
	s.head = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nDate: " +
		at.UTC().Format(http.TimeFormat) + "\r\nContent-Length: ")
	return s, nil
}

// compose appends the report as it is now: the sample, the live figures and what the
// poll declared.
func (a *Agent) compose(b []byte, s *served, now time.Time, own Opt[int64]) []byte {
	a.crowd.polls.Add(1)
	var l Live
	at := s.report.At
	if a.live != nil {
		// Stamped anew, or a second poll between two samples would look like a repetition
		// and its in-flight would be thrown away.
		l, at = a.live(), a.stamp(now)
	}
	b = append(b, s.before...)
	b = strconv.AppendInt(b, at, 10)
	b = append(b, s.after...)
	b = appendLive(b, l)
	if v, ok := own.Get(); ok {
		b = append(b, `,"own_in_flight":`...)
		b = strconv.AppendInt(b, v, 10)
	}
	return append(b, '}')
}

// appendLive leaves out what no reader would take, so that one bad figure does not
// cost the whole report.
func appendLive(b []byte, l Live) []byte {
	ratio := func(name string, o Opt[float64]) bool {
		v, ok := o.Get()
		if !ok || !(v >= 0 && v <= maxInFlight) { // refuses NaN too
			return false
		}
		b = append(b, name...)
		b = strconv.AppendFloat(b, v, 'f', -1, 64)
		return true
	}
	count := func(name string, o Opt[int64]) {
		if v, ok := o.Get(); ok && v >= 0 && v <= maxInteger {
			b = append(b, name...)
			b = strconv.AppendInt(b, v, 10)
		}
	}
	if ratio(`,"in_flight":`, l.InFlight) && plainWord(l.Source) {
		b = append(b, `,"in_flight_source":"`...)
		b = append(b, l.Source...)
		b = append(b, '"')
	}
	ratio(`,"conc":`, l.Conc)
	count(`,"accept_queue":`, l.AcceptQueue)
	count(`,"accept_limit":`, l.AcceptLimit)
	return b
}

// plainWord reports whether a text may stand in JSON as it is.
func plainWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && c != '_' && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= maxText
}

// answer appends a whole HTTP answer to a poll; scratch is for the report.
func (a *Agent) answer(b []byte, scratch *[]byte, own Opt[int64]) []byte {
	now := a.env.Now()
	s := a.newest.Load()
	if problem := a.stale(s, now); problem != "" {
		return append(b, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"...)
	}
	*scratch = a.compose((*scratch)[:0], s, now, own)
	b = append(b, s.head...)
	b = strconv.AppendInt(b, int64(len(*scratch)), 10)
	b = append(b, "\r\n\r\n"...)
	return append(b, *scratch...)
}

// stamp is a time on the agent's clock in Unix milliseconds. It counts from the
// start, so that setting the host's clock back does not make every sidecar take the
// next reports for replays.
func (a *Agent) stamp(now time.Time) int64 {
	return a.started.Add(now.Sub(a.started)).UnixMilli()
}
