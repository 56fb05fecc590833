package h1

// Character classes of RFC 9110 section 5.6.2 (token) and 5.5 (field value),
// and what may stand in a request target.
const (
	isToken = 1 << iota
	isValue
	isTarget
	isHex
	isHost // reg-name of RFC 3986 section 3.2.2, without percent-encoding
)

var class = makeClasses() // read-only

func makeClasses() (t [256]uint8) {
	for c := 0; c < 256; c++ {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if alnum || contains("!#$%&'*+-.^_`|~", c) {
			t[c] |= isToken
		}
		// field-vchar, SP and HTAB: no other control, no DEL. obs-text passes.
		if c >= 0x20 && c != 0x7f || c == '\t' {
			t[c] |= isValue
		}
		// Visible ASCII without what RFC 3986 excludes and no client sends raw
		// ("{", "}" and "|" do come raw from browsers).
		if c > 0x20 && c < 0x7f && !contains("\"<>#\\^`", c) {
			t[c] |= isTarget
		}
		if alnum || contains("-._~!$&'()*+,;=", c) {
			t[c] |= isHost
		}
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' {
			t[c] |= isHex
		}
	}
	return t
}

func contains(s string, c int) bool {
	for i := range len(s) {
		if int(s[i]) == c {
			return true
		}
	}
	return false
}

// all reports whether every byte of b is in the class.
func all(b []byte, cl uint8) bool {
	for _, c := range b {
		if class[c]&cl == 0 {
			return false
		}
	}
	return true
}

// fold reports whether b is the lower-case ASCII string s but for case.
func fold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range len(b) {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// field identifies the header fields that the engine itself acts on.
type field uint8

const (
	other field = iota
	fHost
	fConnection
	fContentLength
	fTransferEncoding
	fUpgrade
	fExpect
	fTE
	fTrailer
	fVia
	fDate
	fAccept
	fMaxForwards
	fForwarded
	fForwardedFor
	fForwardedProto
	fForwardedHost
	fTraceparent
	fTracestate
	fHop // hop-by-hop and of no further interest: never forwarded
	numFields
)

// known maps lower-case names to fields, by length so that most names are
// dismissed on their length or with one comparison.
var known = [...][]struct { // read-only
	name string
	id   field
}{
	2:  {{"te", fTE}},
	3:  {{"via", fVia}},
	4:  {{"host", fHost}, {"date", fDate}},
	6:  {{"accept", fAccept}, {"expect", fExpect}},
	7:  {{"upgrade", fUpgrade}, {"trailer", fTrailer}},
	9:  {{"forwarded", fForwarded}},
	10: {{"connection", fConnection}, {"keep-alive", fHop}, {"tracestate", fTracestate}},
	11: {{"traceparent", fTraceparent}},
	12: {{"max-forwards", fMaxForwards}},
	14: {{"content-length", fContentLength}, {"http2-settings", fHop}},
	15: {{"x-forwarded-for", fForwardedFor}},
	16: {{"proxy-connection", fHop}, {"x-forwarded-host", fForwardedHost}},
	17: {{"transfer-encoding", fTransferEncoding}, {"x-forwarded-proto", fForwardedProto}},
	18: {{"proxy-authenticate", fHop}},
	19: {{"proxy-authorization", fHop}},
}

func identify(name []byte) field {
	if len(name) >= len(known) {
		return other
	}
	for _, k := range known[len(name)] { // for no name there are none
		if name[0]|0x20 == k.name[0] && fold(name, k.name) {
			return k.id
		}
	}
	return other
}

// trim removes optional white space (SP and HTAB) at both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// eachElement calls f with every non-empty element of a comma-separated list
// (RFC 9110 section 5.6.1) until it returns false.
func eachElement(list []byte, f func([]byte) bool) bool {
	for len(list) > 0 {
		i := 0
		for i < len(list) && list[i] != ',' {
			i++
		}
		if e := trim(list[:i]); len(e) > 0 && !f(e) {
			return false
		}
		list = list[min(i+1, len(list)):]
	}
	return true
}
