package h1

import (
	"bytes"
	"math"
	"net/netip"
	"unsafe"
)

// Header is one field line. Its slices point into the parsed buffer.
type Header struct {
	Name, Value []byte
	line        uint16 // length of the line if it came as "Name: Value CRLF", else 0
	id          field
	drop        bool // not forwarded: named in Connection, or not to be passed on
}

// Framing says how a message's body ends (RFC 9112 section 6.3).
type Framing uint8

const (
	NoBody   Framing = iota
	Length           // after Head.Length bytes
	Chunked          // with the last chunk
	UntilEOF         // with the connection; responses only
)

// Head is a parsed request or response head. It is reused: parsing allocates
// only when a head has more fields than any before. Its slices point into the
// parsed buffer and are valid as long as that is.
type Head struct {
	Method, Target []byte // requests
	Status         int    // responses
	Reason         []byte
	Minor          int // HTTP/1.Minor, 0 or 1
	Headers        []Header
	Host           []byte
	Framing        Framing
	Length         int64
	KeepAlive      bool   // the sender lets the connection persist
	Upgrade        []byte // protocol asked for or agreed to, nil without "Connection: upgrade"
	Expect         bool   // 100-continue
	Trailers       bool   // the sender of a request takes trailers: "TE: trailers"
	MaxForwards    int    // of TRACE and OPTIONS, -1 when absent (RFC 9110 section 7.6.2)

	coded bool   // there is a Transfer-Encoding other than chunked, once
	has   uint32 // bit by field: it came, if perhaps to be dropped
}

// ParseError is a head or body that is invalid, ambiguous or too large.
// Status is what a client is answered (a backend's always makes 502).
type ParseError struct {
	Status int
	What   string
}

// Error implements error.
func (e *ParseError) Error() string { return e.What }

func bad(what string) error { return &ParseError{400, what} }

// Limits bound a head.
type Limits struct {
	Line    int // bytes of the request line
	Head    int // bytes of the whole head
	Headers int // field lines
}

// DefaultLimits returns the bounds of a service that sets none.
func DefaultLimits() Limits {
	return Limits{
		Line:    8 << 10,  // RFC 9112 section 3 asks for at least 8000
		Head:    32 << 10, // NGINX: 4 buffers of 8 KiB
		Headers: 128,      // HAProxy's tune.http.maxhdr is 101
	}
}

// FindHead looks for the end of a head in b, of which the first seen bytes
// were looked at by an earlier call. It returns the length of the head with
// its empty line, or 0 when more is needed. Every line must end in CRLF: a
// lone LF is an error here, so that a head of them does not wait for ever.
func FindHead(b []byte, seen int) (int, error) {
	for i := seen; ; {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			return 0, nil
		}
		j += i
		if j == 0 || b[j-1] != '\r' {
			return 0, bad("a line ends in a bare LF")
		}
		if j == 1 || b[j-2] == '\n' {
			return j + 1, nil
		}
		i = j + 1
	}
}

// line cuts the first line off b, which FindHead has checked to end in CRLF.
func line(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	return b[:i-1], b[i+1:]
}

// ParseRequest reads the head b, complete with its empty line, into h.
// The error is a *ParseError.
func (h *Head) ParseRequest(b []byte, lim Limits) error {
	h.reset()
	l, rest := line(b)
	if len(l) > lim.Line {
		return &ParseError{414, "the request line is too long"}
	}
	if err := h.requestLine(l); err != nil {
		return err
	}
	if err := h.fields(rest, lim, false); err != nil {
		return err
	}
	return h.finishRequest()
}

// ParseResponse reads the head b of a response to a request of the given
// method. The error is a *ParseError.
func (h *Head) ParseResponse(b []byte, lim Limits, head bool) error {
	h.reset()
	l, rest := line(b)
	if err := h.statusLine(l); err != nil {
		return err
	}
	if err := h.fields(rest, lim, true); err != nil {
		return err
	}
	return h.finishResponse(head)
}

func (h *Head) reset() {
	*h = Head{Headers: h.Headers[:0], Length: -1, MaxForwards: -1}
}

func (h *Head) requestLine(l []byte) error {
	i := bytes.IndexByte(l, ' ')
	if i <= 0 || !all(l[:i], isToken) {
		return bad("the method is not a token")
	}
	h.Method = l[:i]
	l = l[i+1:]
	j := bytes.IndexByte(l, ' ')
	if j <= 0 {
		return bad("the request line has no target or no version")
	}
	h.Target = l[:j]
	if !all(h.Target, isTarget) || !escapesOK(h.Target) {
		return bad("the request target has characters that are not allowed in one")
	}
	return h.version(l[j+1:])
}

// escapesOK reports whether every % starts two hex digits.
func escapesOK(t []byte) bool {
	for i := 0; i < len(t); i++ {
		if t[i] != '%' {
			continue
		}
		if i+2 >= len(t) || class[t[i+1]]&isHex == 0 || class[t[i+2]]&isHex == 0 {
			return false
		}
		i += 2
	}
	return true
}

func (h *Head) version(v []byte) error {
	if len(v) != 8 || string(v[:5]) != "HTTP/" || v[6] != '.' ||
		v[5] < '0' || v[5] > '9' || v[7] < '0' || v[7] > '9' {
		return bad("the version is not HTTP/d.d")
	}
	if v[5] != '1' {
		return &ParseError{505, "only HTTP/1.0 and HTTP/1.1 are spoken here"}
	}
	h.Minor = min(1, int(v[7]-'0'))
	return nil
}

func (h *Head) statusLine(l []byte) error {
	if len(l) < 12 || h.version(l[:8]) != nil || l[8] != ' ' {
		return bad("the status line is malformed")
	}
	for _, c := range l[9:12] {
		if c < '0' || c > '9' {
			return bad("the status is not three digits")
		}
		h.Status = h.Status*10 + int(c-'0')
	}
	if h.Status < 100 || h.Status > 599 {
		return bad("the status is out of range")
	}
	// A missing space before an empty reason is tolerated: many send it so.
	if len(l) > 12 {
		if l[12] != ' ' || !all(l[13:], isValue) {
			return bad("the reason phrase is malformed")
		}
		h.Reason = l[13:]
	}
	return nil
}

func (h *Head) fields(b []byte, lim Limits, response bool) error {
	for {
		l, rest := line(b)
		b = rest
		if len(l) == 0 {
			return nil
		}
		if len(h.Headers) >= lim.Headers {
			return &ParseError{431, "too many header fields"}
		}
		i := bytes.IndexByte(l, ':')
		// A leading blank would be line folding; a blank before the colon is
		// in no token either (RFC 9112 sections 5.1 and 5.2).
		if i <= 0 || !all(l[:i], isToken) {
			return bad("a header name is not a token")
		}
		value := trim(l[i+1:])
		if !all(value, isValue) {
			return bad("a header value has control characters")
		}
		f := Header{Name: l[:i], Value: value, id: identify(l[:i])}
		if i+2+len(value) == len(l) && l[i+1] == ' ' && len(l)+2 <= math.MaxUint16 {
			f.line = uint16(len(l) + 2)
		}
		if f.id != other {
			h.has |= 1 << f.id
			if err := h.note(&f, response); err != nil {
				return err
			}
		}
		h.Headers = append(h.Headers, f)
	}
}

// note takes in one of the fields that the engine acts on.
func (h *Head) note(f *Header, response bool) error {
	switch f.id {
	case fHost:
		if response {
			return nil
		}
		if h.Host != nil {
			return bad("more than one Host")
		}
		if !hostOK(f.Value) {
			return bad("the Host is not a host and port")
		}
		h.Host = f.Value[:len(f.Value):len(f.Value)]
		if h.Host == nil {
			h.Host = []byte{}
		}
	case fContentLength:
		n, ok := decimal(f.Value)
		if !ok {
			return bad("the Content-Length is not a number")
		}
		if h.Length >= 0 {
			return bad("more than one Content-Length")
		}
		h.Length = n
	case fTransferEncoding:
		// Only chunked, only once: nothing else can be framed without knowing
		// the coding, and proxies differ over how to read what is left.
		h.coded = h.coded || h.Framing == Chunked || !fold(f.Value, "chunked")
		h.Framing = Chunked
	case fExpect:
		if response {
			return nil
		}
		if !fold(f.Value, "100-continue") {
			return &ParseError{417, "an expectation other than 100-continue"}
		}
		h.Expect = true
	case fMaxForwards:
		return h.maxForwards(f, response)
	}
	return nil
}

// maxForwards notes how many more hops a TRACE or OPTIONS may take. Elsewhere
// the field means nothing (RFC 9110 section 7.6.2).
func (h *Head) maxForwards(f *Header, response bool) error {
	if m := string(h.Method); response || m != "TRACE" && m != "OPTIONS" {
		return nil
	}
	if h.MaxForwards >= 0 {
		return bad("more than one Max-Forwards")
	}
	if len(f.Value) == 0 {
		return bad("the Max-Forwards is not a number")
	}
	n := 0
	for _, c := range f.Value {
		if c < '0' || c > '9' {
			return bad("the Max-Forwards is not a number")
		}
		n = min(n*10+int(c-'0'), mostForwards)
	}
	h.MaxForwards, f.drop = n, true // written anew
	return nil
}

// mostForwards is the most that is passed on, as section 7.6.2 allows.
const mostForwards = 1 << 20

// decimal reads 1 to 18 digits and nothing else (RFC 9110 section 8.6): no
// sign, no blank, no list, and no overflow.
func decimal(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// hostOK reports whether b could be uri-host [":" port] (RFC 3986 section
// 3.2.2): a registered name, an IPv4 address or a bracketed IPv6 address. An
// empty one is allowed by RFC 9112 section 3.2.
func hostOK(b []byte) bool {
	if len(b) > 0 && b[0] == '[' {
		i := bytes.IndexByte(b, ']')
		if i < 2 {
			return false
		}
		for _, c := range b[1:i] {
			if class[c]&isHex == 0 && c != ':' && c != '.' {
				return false
			}
		}
		// Not string(b[1:i]), which would allocate: nothing keeps the address.
		a, err := netip.ParseAddr(unsafe.String(&b[1], i-1))
		return err == nil && a.Is6() && portOK(b[i+1:])
	}
	i := bytes.IndexByte(b, ':')
	if i < 0 {
		i = len(b)
	}
	// A port alone is no authority (RFC 9110 section 4.2.1).
	return all(b[:i], isHost) && portOK(b[i:]) && (i > 0 || len(b) == 0)
}

func portOK(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if b[0] != ':' || len(b) > 6 {
		return false
	}
	for _, c := range b[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
