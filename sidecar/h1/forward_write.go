package h1

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// forwarder writes the heads that pass a service. It is compiled of its
// ForwardConfig once and read-only from then on: any goroutine may use it.
type forwarder struct {
	prefixes []netip.Prefix // trusted
	unix     bool           // trusted

	host     []byte          // in the place of the client's; nil: the client's
	request  [numFields]bool // fields that pass as they are
	response [numFields]bool // the same
	cuts     [2]headerSet    // dropped, by what isRequest and isResponse say
	adds     [2][]byte       // written, whole lines
	xff      mode            // of X-Forwarded-For
	proto    mode            // of X-Forwarded-Proto
	xhost    mode            // of X-Forwarded-Host
	fwd      mode            // of Forwarded
	fields   ForwardFields   // in Forwarded
	via      bool
	traces   bool   // begins traces
	sampled  uint32 // of 65536 traces begun
	rare     bool   // any of proto, xhost, fwd and traces is on

	rand func(n uint32) uint32
	now  func() time.Time
}

const (
	isRequest = iota
	isResponse
)

// mode is whether a forwarding field is written, and what becomes of what came
// in it.
type mode uint8

const (
	writeNot  mode = iota // what came passes or not, as the table of fields says
	writeNew              // ours alone
	writeMore             // ours too, or if nothing came
)

func modeOf(s string, on bool) mode {
	switch {
	case s == modeAppend && on:
		return writeMore
	case s == modeReplace && on:
		return writeNew
	}
	return writeNot
}

// newForwarder compiles c, which must be valid. rand draws from [0, n) and now
// is the wall clock; both must be safe for concurrent use.
func newForwarder(c ForwardConfig, rand func(n uint32) uint32, now func() time.Time) *forwarder {
	f := &forwarder{
		xff:    modeOf(c.XForwarded, c.Fields.For),
		proto:  modeOf(c.XForwarded, c.Fields.Proto),
		xhost:  modeOf(c.XForwarded, c.Fields.Host),
		fwd:    modeOf(c.Forwarded, c.Fields.any()),
		fields: c.Fields,
		via:    c.Via, traces: c.Traceparent == traceCreate, sampled: uint32(c.Sampled * (1 << 16)),
		rand: rand, now: now,
	}
	f.prefixes, f.unix, _ = parseTrust(c.Trust) // Validate has reported what is wrong
	if c.Host != "" {
		f.host = []byte(c.Host)
	}
	f.rare = f.proto != writeNot || f.xhost != writeNot || f.fwd != writeNot || f.traces
	for _, id := range []field{other, fDate, fAccept, fTrailer, fMaxForwards, fForwarded, fForwardedFor, fForwardedProto,
		fForwardedHost, fTraceparent, fTracestate} {
		f.request[id], f.response[id] = true, true
	}
	f.request[fVia], f.response[fVia] = !c.Via, !c.Via
	// What a backend says of its own Host or Expect is just a field to us.
	f.response[fHost], f.response[fExpect] = true, true
	keep := func(m mode, s string) bool { return m == writeNot && s != modeRemove }
	f.request[fForwardedFor] = keep(f.xff, c.XForwarded)
	f.request[fForwarded] = keep(f.fwd, c.Forwarded)
	f.request[fForwardedProto] = f.proto == writeMore || keep(f.proto, c.XForwarded)
	f.request[fForwardedHost] = f.xhost == writeMore || keep(f.xhost, c.XForwarded)
	for i, o := range []HeaderOps{isRequest: c.Headers.Request, isResponse: c.Headers.Response} {
		f.cuts[i], f.adds[i] = compileOps(o)
	}
	return f
}

// peerInfo is what forwarding says of one client connection. It does not change
// while that lasts.
type peerInfo struct {
	ip      string // in X-Forwarded-For: the address, "unknown" where there is none
	trusted bool   // its forwarding fields are believed
	node    string // in Forwarded: all but the host
}

// unknown is the identifier of RFC 7239 section 6.2.
const unknown = "unknown"

// peer describes the client connection between the two addresses.
func (f *forwarder) peer(remote, local net.Addr) peerInfo {
	p := peerInfo{ip: unknown}
	switch a := remote.(type) {
	case *net.TCPAddr:
		ip := a.AddrPort().Addr().Unmap().WithZone("")
		if !ip.IsValid() {
			break
		}
		p.ip = ip.String()
		for _, t := range f.prefixes {
			p.trusted = p.trusted || t.Contains(ip)
		}
	case *net.UnixAddr:
		p.trusted = f.unix
	}
	if f.fwd != writeNot {
		p.node = f.node(&p, local)
	}
	return p
}

// appendRequest appends the head to send to the backend. The caller has made
// up its mind about upgrade and expect. It marks the fields of h that are not
// passed on.
func (f *forwarder) appendRequest(dst []byte, h *Head, p *peerInfo, upgrade, expect bool) []byte {
	if !p.trusted {
		h.dropClaims()
	}
	f.cut(h, isRequest)
	traced := !f.traces || h.traced()
	if !traced {
		h.dropAll(fTraceparent, fTracestate)
	}
	dst = append(append(dst, h.Method...), ' ')
	dst = append(append(dst, h.Target...), " HTTP/1.1\r\nHost: "...)
	if f.host != nil {
		dst = append(dst, f.host...)
	} else {
		dst = append(dst, h.Host...)
	}
	dst = append(dst, '\r', '\n')
	dst = h.appendPassed(dst, &f.request)
	if f.xff != writeNot {
		dst = h.appendList(dst, fForwardedFor, "X-Forwarded-For: ", p.ip, f.xff == writeMore)
	}
	if f.rare {
		dst = f.appendRare(dst, h, p, traced)
	}
	dst = append(dst, f.adds[isRequest]...)
	if f.via {
		dst = h.appendVia(dst)
	}
	return h.appendHop(dst, upgrade, expect)
}

// appendRare appends the forwarding fields that are off by default.
func (f *forwarder) appendRare(dst []byte, h *Head, p *peerInfo, traced bool) []byte {
	if f.proto == writeNew || f.proto == writeMore && !h.passes(fForwardedProto) {
		dst = append(dst, "X-Forwarded-Proto: http\r\n"...) // listeners speak nothing else
	}
	if len(h.Host) > 0 && (f.xhost == writeNew || f.xhost == writeMore && !h.passes(fForwardedHost)) {
		dst = append(append(append(dst, "X-Forwarded-Host: "...), h.Host...), '\r', '\n')
	}
	if f.fwd != writeNot {
		dst = f.appendForwarded(dst, h, p)
	}
	if !traced {
		dst = f.appendTrace(dst)
	}
	return dst
}

// appendResponse appends the head to send to the client. framing says how its
// body will end there; connection is "", "close" or "keep-alive". It marks the
// fields of h that are not passed on.
func (f *forwarder) appendResponse(dst []byte, h *Head, framing Framing, connection string, upgrade bool) []byte {
	final := h.Status >= 200
	if final || upgrade {
		f.cut(h, isResponse)
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(h.Status), 10)
	dst = append(append(dst, ' '), h.Reason...)
	dst = append(dst, '\r', '\n')
	dst = h.appendPassed(dst, &f.response)
	if final && !h.dated() {
		dst = f.appendDate(dst)
	}
	if final || upgrade {
		dst = append(dst, f.adds[isResponse]...)
	}
	if final && f.via {
		dst = h.appendVia(dst)
	}
	switch {
	case upgrade:
		dst = h.appendUpgrade(dst)
	case framing == Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case h.Length >= 0 && final && h.Status != 204 && framing != UntilEOF:
		dst = appendLength(dst, h.Length) // HEAD and 304 may announce one too
	}
	if h.Status == 426 && h.Upgrade != nil { // it must name one: RFC 9110 section 15.5.22
		dst = h.appendUpgrade(dst)
	}
	if connection != "" {
		dst = append(append(dst, "Connection: "...), connection...)
		dst = append(dst, '\r', '\n')
	}
	return append(dst, '\r', '\n')
}

// appendDate appends the field Date: who has a clock must, if the one before
// did not (RFC 9110 section 6.6.1). By hand, as AppendFormat reads its layout
// anew each time.
func (f *forwarder) appendDate(dst []byte) []byte {
	const days, months = "SunMonTueWedThuFriSat", "JanFebMarAprMayJunJulAugSepOctNovDec"
	t := f.now().UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	d, m := 3*int(t.Weekday()), 3*(int(month)-1)
	dst = append(append(dst, "Date: "...), days[d:d+3]...)
	dst = append(appendTwo(append(dst, ", "...), day), ' ')
	dst = append(append(dst, months[m:m+3]...), ' ')
	dst = appendTwo(appendTwo(dst, year/100), year%100)
	dst = append(appendTwo(append(dst, ' '), hour), ':')
	dst = append(appendTwo(dst, minute), ':')
	return append(appendTwo(dst, second), " GMT\r\n"...)
}

// appendTwo appends n, 0 to 99, in two digits.
func appendTwo(dst []byte, n int) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// dated reports whether a Date is passed on.
func (h *Head) dated() bool {
	return h.has&(1<<fDate) != 0 && (h.has&(1<<fConnection) == 0 || h.passes(fDate))
}

// headerSet is a set of header names in lower case, by length.
type headerSet [][]string

func (s headerSet) has(name []byte) bool {
	if len(name) >= len(s) {
		return false
	}
	for _, n := range s[len(name)] {
		if fold(name, n) {
			return true
		}
	}
	return false
}

// compileOps returns the names to drop and the lines to write.
func compileOps(o HeaderOps) (cut headerSet, lines []byte) {
	add := func(name string) {
		for len(cut) <= len(name) {
			cut = append(cut, nil)
		}
		cut[len(name)] = append(cut[len(name)], strings.ToLower(name))
	}
	for _, name := range o.Remove {
		add(name)
	}
	for _, x := range o.Set {
		add(x.Name)
		lines = appendLine(lines, x)
	}
	for _, x := range o.Add {
		lines = appendLine(lines, x)
	}
	return cut, lines
}

func appendLine(dst []byte, x HeaderField) []byte {
	return append(append(append(append(dst, x.Name...), ": "...), x.Value...), "\r\n"...)
}

// cut marks the fields that the configuration takes out.
func (f *forwarder) cut(h *Head, of int) {
	set := f.cuts[of]
	if set == nil {
		return
	}
	for i := range h.Headers {
		if x := &h.Headers[i]; set.has(x.Name) {
			x.drop = true
		}
	}
}

// dropClaims marks the fields in which a sender says for whom it speaks.
func (h *Head) dropClaims() {
	for i := range h.Headers {
		if x := &h.Headers[i]; claimsOrigin(x.Name) {
			x.drop = true
		}
	}
}

// claimsOrigin reports whether a field says for whom its sender speaks. An
// underscore counts as a dash: gateways like CGI and WSGI give a program both
// under one name.
func claimsOrigin(name []byte) bool {
	if len(name) < len("x-real-ip") {
		return false
	}
	switch name[0] {
	case 'x', 'X':
		return likeDashed(name, "x-forwarded-", true) || likeDashed(name, "x-real-ip", false)
	case 'f', 'F':
		return fold(name, "forwarded")
	}
	return false
}

// likeDashed reports whether name, or with prefix its beginning, is s but for
// case and for underscores in the place of dashes.
func likeDashed(name []byte, s string, prefix bool) bool {
	if len(name) < len(s) || !prefix && len(name) > len(s) {
		return false
	}
	for i := range len(s) {
		c := name[i]
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c == '_':
			c = '-'
		}
		if c != s[i] {
			return false
		}
	}
	return true
}
