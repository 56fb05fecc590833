package sockets

import "bytes"

// parsePassiveOpens reads Tcp's PassiveOpens from the text of /proc/net/snmp: a line of
// names and a line of values, both beginning with "Tcp:". It does not allocate.
func parsePassiveOpens(b []byte) (uint64, bool) {
	names, b, ok := cutLine(b)
	if !ok {
		return 0, false
	}
	values, _, ok := cutLine(b)
	if !ok {
		return 0, false
	}
	for {
		var name, value []byte
		name, names = cutField(names)
		value, values = cutField(values)
		if len(name) == 0 || len(value) == 0 {
			return 0, false
		}
		if string(name) == "PassiveOpens" {
			return parseUint(value)
		}
	}
}

// cutLine returns the rest of the first line that begins with "Tcp:", and what follows.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	for len(b) > 0 {
		line, b, _ = bytes.Cut(b, []byte("\n"))
		if line, ok = bytes.CutPrefix(line, []byte("Tcp:")); ok {
			return line, b, true
		}
	}
	return nil, nil, false
}

func cutField(b []byte) (field, rest []byte) {
	b = bytes.TrimLeft(b, " ")
	field, rest, _ = bytes.Cut(b, []byte(" "))
	return field, rest
}

func parseUint(b []byte) (n uint64, ok bool) {
	for _, c := range b {
		d := uint64(c - '0')
		if c < '0' || c > '9' || n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, len(b) > 0
}
