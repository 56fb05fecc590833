package h1

import (
	"bytes"
	"strconv"
)

// viaName is what this proxy adds to Via (RFC 9110 section 7.6.3).
const viaName = "outrigger"

// appendHop appends what a request's head says of this connection alone, and
// its end.
func (h *Head) appendHop(dst []byte, upgrade, expect bool) []byte {
	if h.MaxForwards >= 0 {
		dst = append(dst, "Max-Forwards: "...)
		dst = append(strconv.AppendInt(dst, int64(max(0, h.MaxForwards-1)), 10), '\r', '\n')
	}
	if expect {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	switch {
	case upgrade:
		dst = h.appendUpgrade(dst)
	case h.Trailers:
		// Trailers pass us, so what the client says of them is true of us too
		// (RFC 9110 section 10.1.4). Servers ask for it before they send any.
		dst = append(dst, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	switch {
	case h.Framing == Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case h.Length >= 0:
		dst = appendLength(dst, h.Length)
	}
	return append(dst, '\r', '\n')
}

// appendPassed appends the fields that go through as they are: those in the
// table that were not dropped. Lines that need no change are copied together
// with those behind them.
func (h *Head) appendPassed(dst []byte, pass *[numFields]bool) []byte {
	var run []byte // lines as they came; its capacity ends with that of the parsed buffer
	for i := range h.Headers {
		f := &h.Headers[i]
		ok := !f.drop && pass[f.id]
		if ok && f.line > 0 {
			if run == nil {
				run = f.Name[:0]
			}
			run = run[:len(run)+int(f.line)]
			continue
		}
		dst, run = append(dst, run...), nil
		if ok {
			dst = appendField(dst, f)
		}
	}
	return append(dst, run...)
}

// passes reports whether a field of that kind came and was not dropped.
func (h *Head) passes(id field) bool {
	if h.has&(1<<id) == 0 {
		return false
	}
	for i := range h.Headers {
		if f := &h.Headers[i]; f.id == id && !f.drop {
			return true
		}
	}
	return false
}

// dropAll marks the fields of two kinds as not to be passed on.
func (h *Head) dropAll(a, b field) {
	if h.has&(1<<a|1<<b) == 0 {
		return
	}
	for i := range h.Headers {
		if f := &h.Headers[i]; f.id == a || f.id == b {
			f.drop = true
		}
	}
}

func appendField(dst []byte, f *Header) []byte {
	dst = append(append(dst, f.Name...), ':', ' ')
	return append(append(dst, f.Value...), '\r', '\n')
}

// appendList appends a list field: the values that came, if they are to be
// kept, then ours.
func (h *Head) appendList(dst []byte, id field, prefix, ours string, keep bool) []byte {
	dst = append(dst, prefix...)
	if keep && h.has&(1<<id) != 0 {
		for i := range h.Headers {
			if f := &h.Headers[i]; f.id == id && !f.drop && len(f.Value) > 0 {
				dst = append(append(dst, f.Value...), ", "...)
			}
		}
	}
	return append(append(dst, ours...), '\r', '\n')
}

func (h *Head) appendVia(dst []byte) []byte {
	if h.Minor == 0 {
		return h.appendList(dst, fVia, "Via: ", "1.0 "+viaName, true)
	}
	return h.appendList(dst, fVia, "Via: ", "1.1 "+viaName, true)
}

func (h *Head) appendUpgrade(dst []byte) []byte {
	dst = append(append(dst, "Connection: Upgrade\r\nUpgrade: "...), h.Upgrade...)
	return append(dst, '\r', '\n')
}

// sentUpgrade is the value of Upgrade in a head that appendUpgrade wrote into.
func sentUpgrade(head []byte) []byte {
	_, v, _ := bytes.Cut(head, []byte("\r\nUpgrade: "))
	v, _, _ = bytes.Cut(v, []byte("\r\n"))
	return v
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	return append(strconv.AppendInt(dst, n, 10), '\r', '\n')
}

// wants reports whether the request's Accept fields name the media type, and no
// less than they like text/plain, which is the alternative (RFC 9110 section
// 12.5.1).
func (h *Head) wants(mediaType string) bool {
	if h.has&(1<<fAccept) == 0 {
		return false
	}
	q, plain, fit := -1, -1, 0 // fit: how closely plain's range names text/plain
	for i := range h.Headers {
		if h.Headers[i].id != fAccept {
			continue
		}
		eachElement(h.Headers[i].Value, func(e []byte) bool {
			name, params, _ := bytes.Cut(e, []byte(";"))
			w := weight(params)
			switch name = trim(name); {
			case fold(name, mediaType):
				q = max(q, w)
			case fold(name, "text/plain"):
				plain, fit = w, 2
			case fold(name, "text/*") && fit < 2:
				plain, fit = w, 1
			case string(name) == "*/*" && fit < 1:
				plain = w
			}
			return true
		})
	}
	return q > 0 && q >= plain
}

// weight is the parameter q in thousandths: 1000 without one, 0 for what is none
// (RFC 9110 section 12.4.2).
func weight(params []byte) int {
	for len(params) > 0 {
		var p []byte
		p, params, _ = bytes.Cut(params, []byte(";"))
		p = trim(p)
		if len(p) < 2 || p[0]|0x20 != 'q' || p[1] != '=' {
			continue
		}
		p = p[2:]
		if len(p) == 0 || len(p) > 5 || p[0] != '0' && p[0] != '1' || len(p) > 1 && p[1] != '.' {
			return 0
		}
		n := int(p[0]-'0') * 1000
		for i, scale := 2, 100; i < len(p); i, scale = i+1, scale/10 {
			if p[i] < '0' || p[i] > '9' {
				return 0
			}
			n += int(p[i]-'0') * scale
		}
		return min(n, 1000)
	}
	return 1000
}

// idempotent reports whether the method may be sent twice (RFC 9110 section
// 9.2.2).
func (h *Head) idempotent() bool {
	switch string(h.Method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// tunnels reports whether the request asks for an upgrade that we pass on:
// without a body, and not to h2c, which would hide requests from us.
func (h *Head) tunnels() bool {
	return h.Upgrade != nil && h.Framing == NoBody && h.Length <= 0 &&
		!bytes.Contains(bytes.ToLower(h.Upgrade), []byte("h2c"))
}
