package agentstats

import "bytes"

// parseHead reads the head of an agent's answer in the form in which agents write it:
// 200, a Content-Length, and at most headers that do not matter here. It returns where
// the body begins and how long it is. ok is false for everything else, be it right or
// wrong: that is net/http's to judge. head ends with the empty line.
func parseHead(head []byte) (length int, ok bool) {
	rest, ok := bytes.CutPrefix(head, []byte("HTTP/1.1 200 OK\r\n"))
	if !ok {
		return 0, false
	}
	length = -1
	for {
		line, after, found := bytes.Cut(rest, []byte("\r\n"))
		if !found {
			return 0, false
		}
		if len(line) == 0 {
			return length, len(after) == 0 && length >= 0
		}
		rest = after
		name, value, found := bytes.Cut(line, []byte(": "))
		if !found || !plainValue(value) {
			return 0, false
		}
		switch string(name) {
		case "Content-Length":
			if length >= 0 {
				return 0, false
			}
			n, ok := parseCount(value) // the same digits, and no more of them
			if !ok {
				return 0, false
			}
			length = int(n)
		case "Content-Type", "Cache-Control", "Date", "Server":
		default:
			return 0, false
		}
	}
}

// plainValue accepts what cannot be malformed.
func plainValue(value []byte) bool {
	for _, c := range value {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
