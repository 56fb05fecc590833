package h1

import (
	"bytes"
	"net"
)

// node returns our element of Forwarded (RFC 7239) without the host, which is
// the request's: "" if there is nothing else to tell.
func (f *forwarder) node(p *peerInfo, local net.Addr) string {
	var b []byte
	sep := func() {
		if len(b) > 0 {
			b = append(b, ';')
		}
	}
	if f.fields.For {
		b = appendNode(append(b, "for="...), p.ip)
	}
	if a, ok := local.(*net.TCPAddr); ok && f.fields.By { // a socket has no name to tell
		sep()
		b = appendNode(append(b, "by="...), a.AddrPort().Addr().Unmap().WithZone("").String())
	}
	if f.fields.Proto {
		sep()
		b = append(b, "proto=http"...) // listeners speak nothing else
	}
	return string(b)
}

// appendNode appends a node identifier: an address, that of IPv6 in brackets
// and so in quotes (section 6), or the word unknown.
func appendNode(b []byte, ip string) []byte {
	if bytes.IndexByte([]byte(ip), ':') < 0 {
		return append(b, ip...)
	}
	return append(append(append(b, `"[`...), ip...), `]"`...)
}

// appendForwarded appends the field Forwarded: what came if it is to be kept
// and well-formed, then ours.
func (f *forwarder) appendForwarded(dst []byte, h *Head, p *peerInfo) []byte {
	start, some := len(dst), false
	dst = append(dst, "Forwarded: "...)
	if f.fwd == writeMore && h.has&(1<<fForwarded) != 0 {
		for i := range h.Headers {
			// In a quoted string that never ends, ours would not be seen.
			if x := &h.Headers[i]; x.id == fForwarded && !x.drop && forwardedOK(x.Value) {
				if some {
					dst = append(dst, ", "...)
				}
				dst, some = append(dst, x.Value...), true
			}
		}
	}
	host := f.fields.Host && len(h.Host) > 0
	if p.node != "" || host {
		if some {
			dst = append(dst, ", "...)
		}
		some = true
	}
	dst = append(dst, p.node...)
	if host {
		if p.node != "" {
			dst = append(dst, ';')
		}
		dst = appendForwardedHost(dst, h.Host)
	}
	if !some {
		return dst[:start]
	}
	return append(dst, '\r', '\n')
}

// appendForwardedHost appends the parameter host, in quotes unless it is a
// token. A host has no character that would have to be escaped.
func appendForwardedHost(dst, host []byte) []byte {
	dst = append(dst, "host="...)
	if all(host, isToken) {
		return append(dst, host...)
	}
	return append(append(append(dst, '"'), host...), '"')
}

// forwardedOK reports whether v is what RFC 7239 section 4 says:
//
//	Forwarded         = 1#forwarded-element
//	forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )
//	forwarded-pair    = token "=" ( token / quoted-string )
func forwardedOK(v []byte) bool {
	some := false
	for len(v) > 0 {
		n := tokenLen(v)
		if n == 0 {
			// White space is around the commas of a list alone, but those who
			// write some around semicolons are many and understood by all.
			if c := v[0]; c != ',' && c != ';' && c != ' ' && c != '\t' {
				return false
			}
			v = v[1:]
			continue
		}
		if n == len(v) || v[n] != '=' {
			return false
		}
		v = v[n+1:]
		if n = tokenLen(v); n == 0 {
			n = quotedLen(v)
		}
		if n == 0 {
			return false
		}
		v, some = v[n:], true
		if rest := trim(v); len(rest) > 0 && rest[0] != ',' && rest[0] != ';' {
			return false
		}
	}
	return some
}

func tokenLen(v []byte) int {
	n := 0
	for n < len(v) && class[v[n]]&isToken != 0 {
		n++
	}
	return n
}

// quotedLen is the length of the quoted string that v begins with, 0 if it
// begins with none (RFC 9110 section 5.6.4).
func quotedLen(v []byte) int {
	if len(v) == 0 || v[0] != '"' {
		return 0
	}
	for i := 1; i < len(v); i++ {
		switch v[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return 0
}
