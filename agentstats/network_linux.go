package agentstats

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// traffic adds up what the interfaces of a network namespace received and sent. Not
// for concurrent use.
type traffic struct {
	links  []link // as last read, in the order of the file
	next   []link
	rx, tx int64 // bytes since the first reading
	begun  bool
}

// link is one interface's counters.
type link struct {
	name   string
	rx, tx uint64
}

// reset begins anew, for another namespace.
func (t *traffic) reset() { *t = traffic{links: t.links[:0], next: t.next[:0]} }

// read adds what was received and sent since the last reading. An interface that is
// seen for the first time adds what it carries from now on, and so does one whose
// counters went back (it was made anew under its old name, or its driver reset them).
func (t *traffic) read(p *procDir, path string) error {
	data, err := p.reread(path)
	if err != nil {
		return err
	}
	if t.next, err = parseNetDev(data, t.links, t.next[:0]); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if t.begun {
		for i, l := range t.next {
			if before := find(t.links, i, l.name); before != nil {
				t.rx = add(t.rx, before.rx, l.rx)
				t.tx = add(t.tx, before.tx, l.tx)
			}
		}
	}
	t.begun = true
	t.links, t.next = t.next, t.links
	return nil
}

// add is sum and what a counter moved; one that went back moved nothing.
func add(sum int64, before, now uint64) int64 {
	if now < before || now-before > uint64(math.MaxInt64-sum) {
		return sum
	}
	return sum + int64(now-before)
}

// find looks for the name where it most likely is: interfaces keep their order.
func find[T ~string | ~[]byte](links []link, guess int, name T) *link {
	if guess < len(links) && links[guess].name == string(name) {
		return &links[guess]
	}
	for i := range links {
		if links[i].name == string(name) {
			return &links[i]
		}
	}
	return nil
}

// parseNetDev reads /proc/PID/net/dev into links, the loopback interface left out.
// before lends the names, so that reading the same interfaces again allocates
// nothing; prometheus/procfs makes a map of sixteen counters of each.
func parseNetDev(data []byte, before, links []link) ([]link, error) {
	row := 0
	for line := range bytes.Lines(data) {
		if row++; row <= 2 { // the header
			continue
		}
		// An alias ("eth0:1") has a colon of its own.
		colon := bytes.LastIndexByte(line, ':')
		if colon < 0 {
			return links, errors.New("an interface without a colon")
		}
		name := bytes.TrimSpace(line[:colon])
		if len(name) == 0 || string(name) == "lo" {
			continue
		}
		var l link
		field := 0
		for f := range bytes.FieldsSeq(line[colon+1:]) {
			var err error
			switch field {
			case 0:
				l.rx, err = strconv.ParseUint(string(f), 10, 64)
			case 8:
				l.tx, err = strconv.ParseUint(string(f), 10, 64)
			}
			if err != nil {
				return links, fmt.Errorf("interface %q: %w", name, err)
			}
			if field++; field > 8 {
				break
			}
		}
		if field <= 8 {
			return links, fmt.Errorf("interface %q has only %d counters", name, field)
		}
		if known := find(before, len(links), name); known != nil {
			l.name = known.name
		} else {
			l.name = string(name)
		}
		links = append(links, l)
	}
	if row < 2 {
		return links, errors.New("no header")
	}
	return links, nil
}
