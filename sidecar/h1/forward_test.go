package h1

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// plain is a forwarder of the default configuration, chance and time at rest.
func plain() *forwarder { return forwarderOf(func(*ForwardConfig) {}) }

func forwarderOf(set func(*ForwardConfig)) *forwarder {
	c := DefaultForwardConfig()
	set(&c)
	if err := c.Validate(); err != nil {
		panic(err)
	}
	return newForwarder(c, func(n uint32) uint32 { return 0x12ab % n }, func() time.Time { return time.Unix(784111777, 0) })
}

// testDate is the forwarder's time, the example of RFC 9110 section 5.6.7.
const testDate = "Date: Sun, 06 Nov 1994 08:49:37 GMT"

// app is a trusted client.
func app() *peerInfo { return &peerInfo{ip: "10.0.0.1", trusted: true} }

// stranger is a client that is not trusted.
func stranger() *peerInfo { return &peerInfo{ip: "192.0.2.9"} }

// sent is the head that f makes of a request of p's.
func sent(t testing.TB, f *forwarder, in string, p *peerInfo) string {
	t.Helper()
	m, err := readRequest([]byte(in), DefaultLimits())
	if err != nil {
		t.Fatalf("%q: %v", in, err)
	}
	return string(f.appendRequest(nil, &m.head, p, false, false))
}

func TestForwardingFields(t *testing.T) {
	const (
		via  = "Via: 1.1 outrigger"
		xff  = "X-Forwarded-For: 10.0.0.1"
		xff9 = "X-Forwarded-For: 192.0.2.9"
	)
	all := ForwardFields{For: true, Proto: true, Host: true, By: true}
	x := func(mode string, f ForwardFields) func(*ForwardConfig) {
		return func(c *ForwardConfig) { c.XForwarded, c.Fields = mode, f }
	}
	came := []string{"X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: o", "X-Forwarded-Port: 443", "Forwarded: for=1.1.1.1"}
	kept := func(l ...string) []string { return append(l, "X-Forwarded-Port: 443", "Forwarded: for=1.1.1.1") }
	for _, r := range []struct {
		name string
		set  func(*ForwardConfig)
		peer *peerInfo
		in   []string
		want []string // behind Host, before Via
	}{
		{"default", x("append", ForwardFields{For: true}), app(), nil, []string{xff}},
		{"default", x("append", ForwardFields{For: true}), app(), came,
			append(kept("X-Forwarded-Proto: https", "X-Forwarded-Host: o"), "X-Forwarded-For: 1.1.1.1, 10.0.0.1")},
		{"default", x("append", ForwardFields{For: true}), stranger(), came, []string{xff9}},
		{"append all", x("append", all), app(), nil, []string{xff, "X-Forwarded-Proto: http", "X-Forwarded-Host: a"}},
		{"append all", x("append", all), app(), came,
			append(kept("X-Forwarded-Proto: https", "X-Forwarded-Host: o"), "X-Forwarded-For: 1.1.1.1, 10.0.0.1")},
		{"append all", x("append", all), stranger(), came, []string{xff9, "X-Forwarded-Proto: http", "X-Forwarded-Host: a"}},
		{"append all", x("append", all), app(), []string{"Connection: x-forwarded-proto", "X-Forwarded-Proto: https"},
			[]string{xff, "X-Forwarded-Proto: http", "X-Forwarded-Host: a"}},
		{"append without for", x("append", ForwardFields{Proto: true}), app(), came[:1], []string{came[0], "X-Forwarded-Proto: http"}},
		{"replace", x("replace", all), app(), came, append(kept(), xff, "X-Forwarded-Proto: http", "X-Forwarded-Host: a")},
		{"replace", x("replace", ForwardFields{For: true}), app(), came, append(kept("X-Forwarded-Proto: https", "X-Forwarded-Host: o"), xff)},
		{"replace", x("replace", all), stranger(), came, []string{xff9, "X-Forwarded-Proto: http", "X-Forwarded-Host: a"}},
		{"pass", x("pass", all), app(), came, came},
		{"pass", x("pass", all), app(), nil, nil},
		{"pass", x("pass", all), stranger(), came, nil}, // trust stands above the mode
		{"remove", x("remove", all), app(), came, kept()},
		{"remove", x("remove", all), stranger(), came, nil},
		{"claims in disguise", x("append", all), stranger(), []string{"x_forwarded_for: 1", "X-Forwarded_For: 2", "X-REAL-IP: 3", "x_real_ip: 4",
			"FORWARDED: for=5", "X-Forwarded-: 6", "X-Forwarded: 7", "X-Real-Ipx: 8", "Forwardedx: 9"},
			[]string{"X-Forwarded: 7", "X-Real-Ipx: 8", "Forwardedx: 9", xff9, "X-Forwarded-Proto: http", "X-Forwarded-Host: a"}},
		{"host", func(c *ForwardConfig) { c.Host = "web.internal:8080" }, app(), nil, []string{"Host: web.internal:8080", xff}},
		{"host", func(c *ForwardConfig) { c.Host, c.Fields = "b", all }, app(), nil,
			[]string{"Host: b", xff, "X-Forwarded-Proto: http", "X-Forwarded-Host: a"}},
		{"no via", func(c *ForwardConfig) { c.Via = false }, app(), []string{"Via: 1.0 x"}, []string{"-", "Via: 1.0 x", xff}},
		{"no via", func(c *ForwardConfig) { c.Via = false }, app(), nil, []string{"-", xff}},
	} {
		head := []string{"GET / HTTP/1.1", "Host: a"}
		tail := []string{via}
		if len(r.want) > 0 && r.want[0] == "-" {
			r.want, tail = r.want[1:], nil
		}
		if len(r.want) > 0 && strings.HasPrefix(r.want[0], "Host:") {
			head[1], r.want = r.want[0], r.want[1:]
		}
		want := lines(append(append(head, r.want...), tail...)...)
		if got := sent(t, forwarderOf(r.set), get(r.in...), r.peer); got != want {
			t.Errorf("%s %q\n got %q\nwant %q", r.name, r.in, got, want)
		}
	}
}

// Nothing that is written lasts longer than one head: the same forwarder writes
// the same of the next.
func TestForwarderKeepsNothing(t *testing.T) {
	f := forwarderOf(everyMode)
	p := app()
	in := get("X-Forwarded-For: 1.1.1.1", "A: b", "Server: s", "traceparent: x")
	first := sent(t, f, in, p)
	for range 3 {
		sent(t, f, get("X-Cut: 1"), stranger())
		if got := sent(t, f, in, p); got != first {
			t.Fatalf("%q, then %q", first, got)
		}
	}
}

// everyMode turns on all that is off by default.
func everyMode(c *ForwardConfig) {
	c.Fields = ForwardFields{For: true, Proto: true, Host: true, By: true}
	c.Forwarded, c.Traceparent, c.Host = "append", "create", "backend"
	c.Headers.Request = HeaderOps{Remove: []string{"X-Cut", "Cookie"}, Set: []HeaderField{{"X-Set", "s"}}, Add: []HeaderField{{"X-Add", "a"}}}
	c.Headers.Response = HeaderOps{Remove: []string{"Server"}, Set: []HeaderField{{"X-Set", "s"}}, Add: []HeaderField{{"X-Add", "a"}}}
}

func TestPeer(t *testing.T) {
	tcp := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	unix := &net.UnixAddr{Net: "unix"}
	pipe, _ := net.Pipe()
	for _, r := range []struct {
		trust   []string
		remote  net.Addr
		ip      string
		trusted bool
	}{
		{DefaultForwardConfig().Trust, tcp("127.0.0.1:5"), "127.0.0.1", true},
		{DefaultForwardConfig().Trust, tcp("127.9.9.9:5"), "127.9.9.9", true},
		{DefaultForwardConfig().Trust, tcp("[::1]:5"), "::1", true},
		{DefaultForwardConfig().Trust, tcp("[::ffff:127.0.0.1]:5"), "127.0.0.1", true},
		{DefaultForwardConfig().Trust, unix, "unknown", true},
		{DefaultForwardConfig().Trust, tcp("10.0.0.1:5"), "10.0.0.1", false},
		{DefaultForwardConfig().Trust, tcp("[::2]:5"), "::2", false},
		{DefaultForwardConfig().Trust, pipe.RemoteAddr(), "unknown", false},
		{DefaultForwardConfig().Trust, &net.TCPAddr{}, "unknown", false},
		{[]string{"10.0.0.0/8", "fe80::/10"}, tcp("[::ffff:10.1.2.3]:5"), "10.1.2.3", true},
		{[]string{"10.0.0.0/8", "fe80::/10"}, &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, "fe80::1", true},
		{[]string{"10.0.0.0/8"}, tcp("11.0.0.1:5"), "11.0.0.1", false},
		{[]string{"10.9.8.7/8"}, tcp("10.0.0.1:5"), "10.0.0.1", true},
		{[]string{"10.0.0.0/8"}, unix, "unknown", false},
		{[]string{"0.0.0.0/0"}, tcp("[::1]:5"), "::1", false},
		{nil, tcp("127.0.0.1:5"), "127.0.0.1", false},
	} {
		f := forwarderOf(func(c *ForwardConfig) { c.Trust = r.trust })
		if p := f.peer(r.remote, tcp("127.0.0.1:80")); p.ip != r.ip || p.trusted != r.trusted || p.node != "" {
			t.Errorf("%v of %q: %+v", r.remote, r.trust, p)
		}
	}
}

func TestHeaderOps(t *testing.T) {
	ops := HeaderOps{
		Remove: []string{"x-gone", "Cookie"},
		Set:    []HeaderField{{"X-Env", "prod"}, {"Accept", "text/html"}, {"X-Empty", ""}},
		Add:    []HeaderField{{"X-Env", "more"}, {"X-New", "\xc3\xa4 b"}},
	}
	f := forwarderOf(func(c *ForwardConfig) { c.Headers = HeaderConfig{Request: ops, Response: ops} })
	in := []string{"X-GONE: 1", "x-env: 2", "Accept: 3", "cookie: 4", "A: 5", "X-Gonex: 6", "X-New: 7"}
	passed := []string{"A: 5", "X-Gonex: 6", "X-New: 7"}
	written := []string{"X-Env: prod", "Accept: text/html", "X-Empty: ", "X-Env: more", "X-New: \xc3\xa4 b"}
	want := append([]string{"GET / HTTP/1.1", "Host: a"}, passed...)
	want = append(append(append(want, "X-Forwarded-For: 10.0.0.1"), written...), "Via: 1.1 outrigger")
	if got := sent(t, f, get(in...), app()); got != lines(want...) {
		t.Errorf("request\n got %q\nwant %q", got, lines(want...))
	}
	for _, r := range []struct {
		first   string
		upgrade bool
		in      []string
		want    []string
	}{
		{"HTTP/1.1 200 OK", false, append(in, "Date: d", "Content-Length: 0"),
			append(append(append([]string{}, passed...), "Date: d"), append(written, "Via: 1.1 outrigger", "Content-Length: 0")...)},
		{"HTTP/1.1 404 No", false, []string{"Cookie: c", "Date: d", "Content-Length: 0"},
			append(append([]string{"Date: d"}, written...), "Via: 1.1 outrigger", "Content-Length: 0")},
		{"HTTP/1.1 103 Early", false, []string{"X-Gone: 1"}, []string{"X-Gone: 1"}}, // no final answer
		{"HTTP/1.1 101 Up", true, []string{"X-Gone: 1", "Connection: upgrade", "Upgrade: u"},
			append(append([]string{}, written...), "Connection: Upgrade", "Upgrade: u")},
	} {
		m, err := readResponse([]byte(lines(append([]string{r.first}, r.in...)...)), false)
		if err != nil {
			t.Fatal(err)
		}
		want := lines(append([]string{r.first}, r.want...)...)
		if got := string(f.appendResponse(nil, &m.head, NoBody, "", r.upgrade)); got != want {
			t.Errorf("%s\n got %q\nwant %q", r.first, got, want)
		}
	}
}

func TestForwardValidate(t *testing.T) {
	field := func(name, value string) func(*ForwardConfig) {
		return func(c *ForwardConfig) { c.Headers.Request.Set = []HeaderField{{name, value}} }
	}
	answer := func(name string) func(*ForwardConfig) {
		return func(c *ForwardConfig) { c.Headers.Response.Add = []HeaderField{{name, "x"}} }
	}
	many := make([]HeaderField, maxOps+1)
	for i := range many {
		many[i] = HeaderField{"X-" + strings.Repeat("x", i), ""}
	}
	for _, r := range []struct {
		want string // in the message, "" for valid
		set  func(*ForwardConfig)
	}{
		{"", func(*ForwardConfig) {}},
		{"", everyMode},
		{"", func(c *ForwardConfig) { c.XForwarded, c.Fields = "pass", ForwardFields{} }},
		{"", func(c *ForwardConfig) { c.Trust = nil }},
		{"", func(c *ForwardConfig) { c.Host = "[::1]:80" }},
		{"", field("Authorization", "Basic eDp5")},
		{"", field("X-Forwarded-Proto", "https")}, // the TLS ends in front of the app, say
		{"", answer("Strict-Transport-Security")},
		{"", answer("Forwarded")},
		{`x_forwarded is "on", allowed are append, replace, pass, remove`, func(c *ForwardConfig) { c.XForwarded = "on" }},
		{`forwarded is "", allowed are append`, func(c *ForwardConfig) { c.Forwarded = "" }},
		{"fields is empty", func(c *ForwardConfig) { c.Fields = ForwardFields{} }},
		{"fields is empty, so forwarded", func(c *ForwardConfig) { c.XForwarded, c.Forwarded, c.Fields = "pass", "append", ForwardFields{} }},
		{"traceparent is", func(c *ForwardConfig) { c.Traceparent = "always" }},
		{"sampled is", func(c *ForwardConfig) { c.Sampled = 1.1 }},
		{"sampled is", func(c *ForwardConfig) { c.Sampled = -0.1 }},
		{"sampled is NaN", func(c *ForwardConfig) { c.Sampled /= 0; c.Sampled -= c.Sampled }},
		{`trust has "10.0.0.1"`, func(c *ForwardConfig) { c.Trust = []string{"10.0.0.1"} }},
		{`trust has "10.0.0.0/33"`, func(c *ForwardConfig) { c.Trust = []string{"10.0.0.0/33"} }},
		{`trust has "::ffff:10.0.0.0/104"`, func(c *ForwardConfig) { c.Trust = []string{"::ffff:10.0.0.0/104"} }},
		{`trust has ""`, func(c *ForwardConfig) { c.Trust = []string{""} }},
		{"trust has 257", func(c *ForwardConfig) { c.Trust = make([]string, 257) }},
		{`host "a b"`, func(c *ForwardConfig) { c.Host = "a b" }},
		{`host "http://a"`, func(c *ForwardConfig) { c.Host = "http://a" }},
		{`host ":80"`, func(c *ForwardConfig) { c.Host = ":80" }},
		{`host "a\r\nb"`, func(c *ForwardConfig) { c.Host = "a\r\nb" }},
		{`headers request set: "Host" is what forward host is for`, field("Host", "a")},
		{`"content-length" frames the message`, field("content-length", "1")},
		{`"Transfer-Encoding" frames`, field("Transfer-Encoding", "chunked")},
		{`"Trailer" frames`, field("Trailer", "x")},
		{`"Connection" is of one connection`, field("Connection", "close")},
		{`"Upgrade" is of one`, field("Upgrade", "x")},
		{`"TE" is of one`, field("TE", "x")},
		{`"Keep-Alive" is of one`, field("Keep-Alive", "x")},
		{`"Proxy-Connection" is of one`, field("Proxy-Connection", "x")},
		{`"Expect" is the engine's`, field("Expect", "x")},
		{`"Max-Forwards" is the engine's`, field("Max-Forwards", "1")},
		{`"Via" is what forward via`, field("Via", "x")},
		{`"X-Forwarded-For" is what forward x_forwarded`, field("X-Forwarded-For", "x")},
		{`"Forwarded" is what forward forwarded`, field("Forwarded", "x")},
		{`"traceparent" is what forward traceparent`, field("traceparent", "x")},
		{`headers response add: "Host" is no header of an answer`, answer("Host")},
		{`headers response add: "Date" is the engine's`, answer("Date")},
		{`"X Y" is no header name`, field("X Y", "")},
		{`"" is no header name`, field("", "")},
		{`"X:" is no header name`, field("X:", "")},
		{"a header name is 129 bytes", field(strings.Repeat("x", 129), "")},
		{`the value of "X" is 4097 bytes`, field("X", strings.Repeat("x", 4097))},
		{`the value of "X" has control`, field("X", "a\r\nY: b")},
		{`the value of "X" has control`, field("X", "a\x00")},
		{`the value of "X" has blanks`, field("X", " a")},
		{`the value of "X" has blanks`, field("X", "a\t")},
		{`headers request remove: "Connection"`, func(c *ForwardConfig) { c.Headers.Request.Remove = []string{"Connection"} }},
		{`headers request remove has "X" twice`, func(c *ForwardConfig) { c.Headers.Request.Remove = []string{"x", "X"} }},
		{`headers request set has "X" twice`, func(c *ForwardConfig) { c.Headers.Request.Set = []HeaderField{{"x", "1"}, {"X", "2"}} }},
		{`set and remove both name "X"`, func(c *ForwardConfig) {
			c.Headers.Request.Set, c.Headers.Request.Remove = []HeaderField{{"X", "1"}}, []string{"x"}
		}},
		{"headers response add has 65 headers", func(c *ForwardConfig) { c.Headers.Response.Add = many }},
		{`fields has "proto"`, func(c *ForwardConfig) {
			c.Fields.Proto, c.Headers.Request.Remove = true, []string{"x-forwarded-PROTO"}
		}},
		{`fields has "host"`, func(c *ForwardConfig) {
			c.Fields.Host, c.Headers.Request.Add = true, []HeaderField{{"X-Forwarded-Host", "h"}}
		}},
	} {
		c := DefaultForwardConfig()
		r.set(&c)
		err := c.Validate()
		if r.want == "" && err != nil || r.want != "" && (err == nil || !strings.Contains(err.Error(), r.want)) {
			t.Errorf("%+v: %v, want %q", c, err, r.want)
		}
	}
}

// A secret that is put into a header must not come out in a message.
func TestForwardValidateKeepsValues(t *testing.T) {
	c := DefaultForwardConfig()
	for _, v := range []string{"s3cr3t\n", " s3cr3t", strings.Repeat("s3cr3t", 1000)} {
		c.Headers.Request.Add = []HeaderField{{"Authorization", v}}
		if err := c.Validate(); err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Error(err)
		}
	}
}

// No mode allocates.
func TestForwardAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for name, set := range map[string]func(*ForwardConfig){"default": func(*ForwardConfig) {}, "every mode": everyMode} {
		f := forwarderOf(set)
		addr := &net.TCPAddr{IP: net.IPv6loopback}
		p := f.peer(addr, addr)
		var q, r Head
		dst := make([]byte, 0, bufSize)
		for _, in := range []string{string(benchRequest), get("Forwarded: for=\"[::2]\"", "X-Forwarded-For: ::2", "Cookie: x", "traceparent: "+goodTrace)} {
			for _, peer := range []*peerInfo{&p, stranger()} {
				n := testing.AllocsPerRun(100, func() {
					if q.ParseRequest([]byte(in), DefaultLimits()) != nil || r.ParseResponse(benchResponse, DefaultLimits(), false) != nil {
						t.Fatal("not parsed")
					}
					dst = f.appendRequest(dst[:0], &q, peer, false, false)
					r.has &^= 1 << fDate // so that ours is written
					dst = f.appendResponse(dst[:0], &r, Length, "", false)
				})
				if n > 1 { // that of []byte(in)
					t.Errorf("%s: %v allocations for %q", name, n-1, in)
				}
			}
		}
	}
}

func TestDate(t *testing.T) {
	f := plain()
	for s := int64(0); s < 60*366*86400; s += 86399*7 + 1 {
		at := time.Unix(s, 0)
		f.now = func() time.Time { return at }
		if got, want := string(f.appendDate(nil)), "Date: "+at.UTC().Format(http.TimeFormat)+"\r\n"; got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
}

func BenchmarkForwardEveryMode(b *testing.B) {
	f := forwarderOf(everyMode)
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	trusted := f.peer(addr, addr)
	foreign := trusted
	foreign.trusted = false
	for name, p := range map[string]*peerInfo{"trusted": &trusted, "stranger": &foreign} {
		b.Run(name, func(b *testing.B) {
			var h Head
			if err := h.ParseRequest(benchRequest, DefaultLimits()); err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, 0, bufSize)
			b.ReportAllocs()
			for b.Loop() {
				dst = f.appendRequest(dst[:0], &h, p, false, false)
			}
		})
	}
}

func BenchmarkAppendDate(b *testing.B) {
	f := newForwarder(DefaultForwardConfig(), nil, time.Now)
	dst := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		dst = f.appendDate(dst[:0])
	}
}
