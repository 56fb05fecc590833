package agentstats

import (
	"math"
	"strconv"
)

// decodeFast reads a report in the form in which agents write it: compact JSON, each
// known key once, no escapes in texts. ok is false for everything else, be it right or
// wrong: that is encoding/json's to judge, at ten times the cost.
func decodeFast(data []byte) (r Report, ok bool) {
	p := parser{rest: data}
	if !p.object(func(key []byte) (int, bool) { return p.field(&r, key) }) || len(p.rest) > 0 {
		return Report{}, false
	}
	return r, true
}

// field reads the value of a key into its field. The number is the key's own.
func (p *parser) field(r *Report, key []byte) (int, bool) {
	switch string(key) { // which does not allocate
	case "version":
		v, ok := p.integer()
		r.Version = int(v)
		return 0, ok && int64(r.Version) == v
	case "instance":
		return 1, p.text(&r.Instance)
	case "epoch":
		return 2, p.text(&r.Epoch)
	case "at":
		v, ok := p.integer()
		r.At = v
		return 3, ok
	case "in_flight":
		return 4, p.ratio(&r.InFlight)
	case "in_flight_source":
		return 5, p.text(&r.InFlightSource)
	case "avail":
		return 6, p.ratio(&r.Avail)
	case "cores":
		return 7, p.ratio(&r.Cores)
	case "used":
		return 8, p.ratio(&r.Used)
	case "cpu":
		return 9, p.ratio(&r.CPU)
	case "mem":
		return 10, p.ratio(&r.Mem)
	case "mem_bytes":
		return 11, p.count(&r.MemBytes)
	case "mem_limit":
		return 12, p.count(&r.MemLimit)
	case "conc":
		return 13, p.ratio(&r.Conc)
	case "listening":
		return 14, p.truth(&r.Listening)
	case "err":
		return 15, p.ratio(&r.Err)
	case "accept_queue":
		return 16, p.count(&r.AcceptQueue)
	case "accept_limit":
		return 17, p.count(&r.AcceptLimit)
	case "pressure":
		return 18, p.object(func(key []byte) (int, bool) { return p.pressure(&r.Pressure, key) })
	case "rx_bytes_per_second":
		return 19, p.ratio(&r.RxBytes)
	case "tx_bytes_per_second":
		return 20, p.ratio(&r.TxBytes)
	case "poll_ms":
		return 21, p.count(&r.PollMS)
	case "own_in_flight":
		return 22, p.count(&r.OwnInFlight)
	case "agent_version":
		return 23, p.text(&r.AgentVersion)
	}
	return 0, false
}

func (p *parser) pressure(to *Pressure, key []byte) (int, bool) {
	part := func(s *Stall) bool {
		return p.object(func(key []byte) (int, bool) {
			switch string(key) {
			case "some":
				return 0, p.ratio(&s.Some)
			case "full":
				return 1, p.ratio(&s.Full)
			}
			return 0, false
		})
	}
	switch string(key) {
	case "scope":
		return 0, p.text(&to.Scope)
	case "cpu":
		return 1, part(&to.CPU)
	case "memory":
		return 2, part(&to.Memory)
	case "io":
		return 3, part(&to.IO)
	}
	return 0, false
}

// parser takes what it reads off the front of rest. Its methods return false for what
// is not of the usual form, and have then read any part of it.
type parser struct{ rest []byte }

func (p *parser) take(c byte) bool {
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// object reads an object that is not empty, with a function that reads the value of a
// key and returns the key's number, up to 63. No key may come twice.
func (p *parser) object(value func(key []byte) (int, bool)) bool {
	if !p.take('{') {
		return false
	}
	for seen := uint64(0); ; {
		key, ok := p.quoted()
		if !ok || !p.take(':') {
			return false
		}
		n, ok := value(key)
		if !ok || seen&(1<<n) != 0 {
			return false
		}
		seen |= 1 << n
		if !p.take(',') {
			return p.take('}')
		}
	}
}

// quoted reads a text of plain ASCII.
func (p *parser) quoted() ([]byte, bool) {
	if !p.take('"') {
		return nil, false
	}
	for i, c := range p.rest {
		switch {
		case c == '"':
			text := p.rest[:i]
			p.rest = p.rest[i+1:]
			return text, true
		case c < ' ' || c > '~' || c == '\\':
			return nil, false
		}
	}
	return nil, false
}

func (p *parser) text(to *string) bool {
	text, ok := p.quoted()
	*to = string(text)
	return ok
}

func (p *parser) truth(to *Opt[bool]) bool {
	for _, v := range []bool{true, false} {
		word := strconv.FormatBool(v)
		if len(p.rest) >= len(word) && string(p.rest[:len(word)]) == word {
			p.rest = p.rest[len(word):]
			*to = Some(v)
			return true
		}
	}
	return false
}

func (p *parser) count(to *Opt[int64]) bool {
	v, ok := p.integer()
	*to = Some(v)
	return ok
}

// mostDigits is how many decimal digits an int64 has room for in any case.
const mostDigits = 18

// integer reads a whole number. What a fraction or an exponent leaves over, nobody takes.
func (p *parser) integer() (int64, bool) {
	negative := p.take('-')
	n, digits := p.digits(0)
	if digits == 0 || digits > mostDigits {
		return 0, false
	}
	if negative {
		n = -n
	}
	return n, true
}

// digits reads a JSON number's digits before the point, and appends them to n as long
// as there is room. It returns how many there were; 0 when they are none.
func (p *parser) digits(n int64) (int64, int) {
	count := leadingDigits(p.rest)
	if count > 1 && p.rest[0] == '0' {
		return 0, 0
	}
	n = appendDigits(n, p.rest[:min(count, mostDigits)])
	p.rest = p.rest[count:]
	return n, count
}

// ratio reads a number without an exponent. Where its digits make a whole number below
// 2^53 the quotient by the power of ten is rounded once, and so right (Clinger 1990,
// "How to read floating point numbers accurately"); else strconv reads it.
func (p *parser) ratio(to *Opt[float64]) bool {
	all := p.rest
	negative := p.take('-')
	n, digits := p.digits(0)
	if digits == 0 {
		return false
	}
	places := 0
	if p.take('.') {
		if places = leadingDigits(p.rest); places == 0 {
			return false
		}
		if digits+places <= mostDigits {
			n = appendDigits(n, p.rest[:places])
		}
		p.rest = p.rest[places:]
	}
	if len(p.rest) > 0 && p.rest[0]|0x20 == 'e' {
		return false
	}
	v := float64(n) / math.Pow10(places)
	if negative {
		v = -v
	}
	if digits+places > mostDigits || n >= 1<<53 {
		var err error
		if v, err = strconv.ParseFloat(string(all[:len(all)-len(p.rest)]), 64); err != nil {
			return false
		}
	}
	*to = Some(v)
	return true
}

func leadingDigits(b []byte) int {
	for i, c := range b {
		if c < '0' || c > '9' {
			return i
		}
	}
	return len(b)
}

func appendDigits(n int64, digits []byte) int64 {
	for _, c := range digits {
		n = n*10 + int64(c-'0')
	}
	return n
}
