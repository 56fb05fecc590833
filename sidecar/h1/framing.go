package h1

import "bytes"

// finishRequest settles what depends on several fields of a request.
func (h *Head) finishRequest() error {
	if h.Framing == Chunked {
		if h.Length >= 0 {
			return bad("both Transfer-Encoding and Content-Length")
		}
		if h.Minor == 0 {
			return bad("Transfer-Encoding from HTTP/1.0")
		}
		if h.coded {
			return h.badCoding()
		}
	} else if h.Length > 0 {
		h.Framing = Length
	}
	if h.Minor == 0 {
		h.Expect = false // RFC 9110 section 10.1.1: ignored from HTTP/1.0
	}
	if h.has&(1<<fTE) != 0 && h.Minor > 0 {
		h.Trailers = h.takesTrailers()
	}
	if err := h.target(); err != nil {
		return err
	}
	return h.connection()
}

// target settles the form of the request target (RFC 9112 section 3.2). An
// absolute one becomes origin form, its authority the Host.
func (h *Head) target() error {
	t := h.Target
	switch {
	case fold(h.Method, "connect"):
		return &ParseError{501, "CONNECT is not served here"}
	case t[0] == '/':
	case len(t) == 1 && t[0] == '*':
		if string(h.Method) != "OPTIONS" {
			return bad("the target * goes with OPTIONS alone")
		}
	default:
		return h.absolute(t)
	}
	if h.Host == nil && h.Minor > 0 {
		return bad("no Host")
	}
	return nil
}

func (h *Head) absolute(t []byte) error {
	i := bytes.Index(t, []byte("://"))
	if i < 0 || !(fold(t[:i], "http") || fold(t[:i], "https")) {
		return bad("the request target is neither a path nor an http URL")
	}
	port := ":80"
	if i == len("https") {
		port = ":443"
	}
	t = t[i+3:]
	end := bytes.IndexAny(t, "/?")
	if end < 0 {
		end = len(t)
	}
	if end == 0 || !hostOK(t[:end]) { // user information is refused too: RFC 9110 section 4.2.4
		return bad("the authority of the request target is not a host and port")
	}
	if h.Host == nil && h.Minor > 0 {
		return bad("no Host")
	}
	// RFC 9112 section 3.2 has clients send the same in both. Whoever does not
	// may hope that we look at one and somebody behind us at the other.
	if h.Host != nil && !sameAuthority(h.Host, t[:end], port) {
		return bad("the Host is not that of the request target")
	}
	// Section 3.2.2: the target's authority replaces the Host field.
	h.Host, h.Target = t[:end], t[end:]
	switch {
	case len(h.Target) > 0 && h.Target[0] == '?':
		h.Target = append([]byte("/"), h.Target...)
	case len(h.Target) == 0:
		if h.Target = []byte("/"); string(h.Method) == "OPTIONS" {
			h.Target = []byte("*") // section 3.2.4
		}
	}
	return nil
}

// badCoding tells a message that is malformed from one that has a coding that we
// do not know: where the last coding is not chunked, there is no telling where
// the body ends (RFC 9112 section 6.3), and chunked comes but once (section 6.1).
func (h *Head) badCoding() error {
	var last []byte
	times := 0
	for i := range h.Headers {
		if h.Headers[i].id != fTransferEncoding {
			continue
		}
		eachElement(h.Headers[i].Value, func(e []byte) bool {
			if last = e; fold(e, "chunked") {
				times++
			}
			return true
		})
	}
	if times != 1 || !fold(last, "chunked") {
		return bad("the last Transfer-Encoding is not chunked, or not the only such")
	}
	return &ParseError{501, "a Transfer-Encoding other than chunked"}
}

// sameAuthority reports whether two authorities, both hostOK, differ at most in
// case and in naming the scheme's own port (RFC 9110 section 4.2.3).
func sameAuthority(a, b []byte, port string) bool {
	return bytes.EqualFold(withoutPort(a, port), withoutPort(b, port))
}

// withoutPort cuts the given port, or an empty one, off an authority.
func withoutPort(a []byte, port string) []byte {
	if n := len(a) - len(port); n > 0 && string(a[n:]) == port {
		return a[:n]
	}
	return bytes.TrimSuffix(a, []byte(":"))
}

// takesTrailers reports whether TE has the word trailers (RFC 9110 section
// 10.1.4). A weight is of transfer codings; trailers has none.
func (h *Head) takesTrailers() bool {
	for i := range h.Headers {
		if f := &h.Headers[i]; f.id == fTE && !eachElement(f.Value, func(e []byte) bool { return !fold(e, "trailers") }) {
			return true
		}
	}
	return false
}

// finishResponse settles what depends on several fields of a response.
func (h *Head) finishResponse(head bool) error {
	if h.Framing == Chunked && (h.Length >= 0 || h.Minor == 0) {
		return bad("a response with Transfer-Encoding and Content-Length, or of HTTP/1.0")
	}
	if h.coded {
		return h.badCoding()
	}
	if err := h.connection(); err != nil {
		return err
	}
	switch {
	case h.Status < 200 || h.Status == 204:
		// RFC 9110 section 8.6, RFC 9112 section 6.1: neither may be there.
		if h.Framing == Chunked || h.Length > 0 {
			return bad("a body announced where there is none")
		}
		h.Framing = NoBody
	case head || h.Status == 304:
		h.Framing = NoBody
	case h.Framing == Chunked:
	case h.Length == 0:
		h.Framing = NoBody
	case h.Length > 0:
		h.Framing = Length
	default:
		h.Framing, h.KeepAlive = UntilEOF, false
	}
	return nil
}

// maxNamed is how many fields Connection may name. Each is looked for among all
// fields, so without a bound 32 KiB of names would cost milliseconds.
const maxNamed = 32

// connection reads the Connection fields: persistence, upgrade, and the names
// of fields that end at this hop.
func (h *Head) connection() error {
	if h.has&(1<<fConnection) == 0 {
		h.KeepAlive = h.Minor > 0
		return nil
	}
	closes, keeps, upgrades, named := false, false, false, 0
	for i := range h.Headers {
		if h.Headers[i].id != fConnection {
			continue
		}
		eachElement(h.Headers[i].Value, func(e []byte) bool {
			switch {
			case fold(e, "close"):
				closes = true
			case fold(e, "keep-alive"):
				keeps = true
			case fold(e, "upgrade"):
				upgrades = true
			default:
				if named++; named > maxNamed {
					return false
				}
				h.nominate(e)
			}
			return true
		})
	}
	if named > maxNamed {
		return bad("Connection names too many fields")
	}
	h.KeepAlive = !closes && (h.Minor > 0 || keeps)
	if !upgrades || h.Minor == 0 {
		return nil
	}
	for i := range h.Headers {
		if f := &h.Headers[i]; f.id == fUpgrade && h.Upgrade == nil && protocols(f.Value) {
			h.Upgrade = f.Value
		}
	}
	return nil
}

// switchesTo reports whether the protocols of a 101's Upgrade are among those
// asked for, versions aside: a server must not switch to another (RFC 9110
// section 7.8).
func (h *Head) switchesTo(asked []byte) bool {
	return h.Upgrade != nil && eachElement(h.Upgrade, func(e []byte) bool {
		name, _, _ := bytes.Cut(e, []byte("/"))
		return !eachElement(asked, func(a []byte) bool {
			offered, _, _ := bytes.Cut(a, []byte("/"))
			return !bytes.EqualFold(name, offered)
		})
	})
}

// protocols reports whether v is a list, not empty, of names with or without a
// version (RFC 9110 section 7.8). Anything else asks for no upgrade.
func protocols(v []byte) bool {
	some := false
	return eachElement(v, func(e []byte) bool {
		some = true
		name, version, versioned := bytes.Cut(e, []byte("/"))
		return len(name) > 0 && all(name, isToken) && all(version, isToken) && versioned == (len(version) > 0)
	}) && some
}

// nominate marks the fields of that name to be dropped. Those that frame or
// route the message, or bound its way, are not a sender's to take away.
func (h *Head) nominate(name []byte) {
	for i := range h.Headers {
		f := &h.Headers[i]
		if f.id == fHost || f.id == fContentLength || f.id == fTransferEncoding || f.id == fMaxForwards {
			continue
		}
		if bytes.EqualFold(f.Name, name) {
			f.drop = true
		}
	}
}
