package h1

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// The sections are of RFC 7239, but where they name another.
func TestForwarded(t *testing.T) {
	tcp := func(ip string) net.Addr {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 80))
	}
	unix := &net.UnixAddr{Net: "unix"}
	set := func(mode string, f ForwardFields) func(*ForwardConfig) {
		return func(c *ForwardConfig) {
			c.XForwarded, c.Forwarded, c.Fields, c.Trust = "remove", mode, f, []string{"127.0.0.0/8", "::1/128", "unix"}
		}
	}
	all := ForwardFields{For: true, Proto: true, Host: true, By: true}
	forOnly := ForwardFields{For: true}
	for _, r := range []struct {
		sec           string
		set           func(*ForwardConfig)
		remote, local net.Addr
		host          string
		in            []string
		want          []string
	}{
		{"4", set("append", all), tcp("127.0.0.1"), tcp("127.0.0.2"), "a", nil, []string{"for=127.0.0.1;by=127.0.0.2;proto=http;host=a"}},
		{"4", set("append", all), tcp("127.0.0.1"), tcp("127.0.0.2"), "a:80", nil, []string{`for=127.0.0.1;by=127.0.0.2;proto=http;host="a:80"`}},
		{"4", set("append", all), tcp("127.0.0.1"), tcp("::1"), "(a)", nil, []string{`for=127.0.0.1;by="[::1]";proto=http;host="(a)"`}},
		{"6", set("append", forOnly), tcp("::1"), tcp("::1"), "a", nil, []string{`for="[::1]"`}},
		{"6", set("append", forOnly), tcp("::ffff:127.0.0.1"), tcp("::1"), "a", nil, []string{`for=127.0.0.1`}},
		{"6", set("append", forOnly), tcp("2001:db8::17"), tcp("::1"), "a", []string{"for=spoof"}, []string{`for="[2001:db8::17]"`}},
		{"6.2", set("append", all), unix, unix, "a", nil, []string{`for=unknown;proto=http;host=a`}},
		{"4", set("append", ForwardFields{Host: true}), tcp("::1"), tcp("::1"), "[::1]:80", nil, []string{`host="[::1]:80"`}},
		{"4", set("append", ForwardFields{Host: true}), tcp("::1"), tcp("::1"), "", nil, nil}, // nothing to say
		{"4", set("append", ForwardFields{Host: true}), tcp("::1"), tcp("::1"), "", []string{"for=b"}, []string{"for=b"}},
		{"4", set("append", ForwardFields{By: true}), unix, unix, "a", nil, nil},
		{"7.1", set("append", forOnly), tcp("::1"), tcp("::1"), "a", []string{"for=b, for=c", `for="d,e"`}, []string{`for=b, for=c, for="d,e", for="[::1]"`}},
		{"4", set("append", forOnly), tcp("::1"), tcp("::1"), "a", []string{`for="b`, "for=c"}, []string{`for=c, for="[::1]"`}}, // malformed
		{"4", set("replace", forOnly), tcp("::1"), tcp("::1"), "a", []string{"for=b"}, []string{`for="[::1]"`}},
		{"4", set("pass", forOnly), tcp("::1"), tcp("::1"), "a", []string{"for=b", `for="b`}, []string{"for=b", `for="b`}},
		{"8.1", set("pass", forOnly), tcp("10.0.0.1"), tcp("::1"), "a", []string{"for=b"}, nil},
		{"4", set("remove", forOnly), tcp("::1"), tcp("::1"), "a", []string{"for=b"}, nil},
	} {
		f := forwarderOf(r.set)
		p := f.peer(r.remote, r.local)
		head := []string{"GET / HTTP/1.1", "Host: " + r.host}
		for _, v := range r.in {
			head = append(head, "Forwarded: "+v)
		}
		if got := fieldsNamed(sent(t, f, lines(head...), &p), "forwarded"); !slices.Equal(got, r.want) {
			t.Errorf("section %s %q: %q, want %q", r.sec, r.in, got, r.want)
		}
	}
}

func fieldsNamed(head, lower string) (values []string) {
	for _, l := range strings.Split(head, "\r\n") {
		if name, v, ok := strings.Cut(l, ": "); ok && strings.ToLower(name) == lower {
			values = append(values, v)
		}
	}
	return values
}

func TestForwardedGrammar(t *testing.T) {
	for in, ok := range map[string]bool{
		"for=a": true, "For=a;PROTO=http": true, `for="[::1]:80"`: true, "for=a,for=b": true, "for=a, for=b;by=c": true,
		`for="a\"b"`: true, `for=""`: true, "for=a;": true, ";for=a": true, ",for=a,,": true, "for=a ; by=b": true, "for=_x": true,
		`for="a,b;c=d"`: true, "\tfor=a": true,
		"": false, ",": false, ";": false, " ": false, "for": false, "for=": false, "=a": false, "for=a b": false, "for=[::1]": false,
		`for="a`: false, `for="a\"`: false, `for=a"b"`: false, `for="a"b`: false, "for =a": false, "for= a": false, "for=a:80": false,
		"for=a=b": false, "for=a/b": false, "for=\x80": false,
	} {
		if got := forwardedOK([]byte(in)); got != ok {
			t.Errorf("%q: %v", in, got)
		}
		if _, err := parseForwarded(in); ok != (err == nil) {
			t.Errorf("%q by the test's own parser: %v", in, err)
		}
	}
}

// parseForwarded reads a value of Forwarded in another way than the engine: by
// cutting it at what is outside of quotes. It returns the pairs of each element.
func parseForwarded(s string) (elements []map[string]string, err error) {
	parts, err := cutOutside(s, ',')
	if err != nil {
		return nil, err
	}
	for _, e := range parts {
		pairs, _ := cutOutside(e, ';')
		m := map[string]string{}
		for _, pair := range pairs {
			if pair = strings.Trim(pair, " \t"); pair == "" {
				continue
			}
			name, v, ok := strings.Cut(pair, "=")
			if !ok || !isTokenText(name) {
				return nil, fmt.Errorf("%q is no pair", pair)
			}
			if !isTokenText(v) {
				if v, err = quotedText(v); err != nil {
					return nil, err
				}
			}
			m[strings.ToLower(name)] = v
		}
		if len(m) > 0 {
			elements = append(elements, m)
		}
	}
	if len(elements) == 0 {
		return nil, fmt.Errorf("%q has no element", s)
	}
	return elements, nil
}

func cutOutside(s string, at byte) (parts []string, err error) {
	quoted, escaped, from := false, false, 0
	for i := range len(s) {
		switch {
		case escaped:
			escaped = false
		case quoted && s[i] == '\\':
			escaped = true
		case s[i] == '"':
			quoted = !quoted
		case !quoted && s[i] == at:
			parts, from = append(parts, s[from:i]), i+1
		}
	}
	if quoted {
		return nil, fmt.Errorf("%q has an open quote", s)
	}
	return append(parts, s[from:]), nil
}

func isTokenText(s string) bool {
	return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
}

func quotedText(s string) (string, error) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return "", fmt.Errorf("%q is neither a token nor quoted", s)
	}
	var b strings.Builder
	in := s[1 : len(s)-1]
	for i := 0; i < len(in); i++ {
		if in[i] == '"' {
			return "", fmt.Errorf("%q has a quote within", s)
		}
		if in[i] == '\\' {
			if i++; i == len(in) {
				return "", fmt.Errorf("%q ends in a backslash", s)
			}
		}
		b.WriteByte(in[i])
	}
	return b.String(), nil
}

// FuzzForwarded: whatever a client writes into its head, what the backend gets
// parses again; of a client that is not trusted no field names another address
// than its own, and of one that is the last is.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{
		"X-Forwarded-For: 1.2.3.4", "x_forwarded_for: 1\r\nX-Real-IP: 2\r\nForwarded: for=3", `Forwarded: for="a`, `forwarded: for=a;by="\"", for=b`,
		"Connection: x-forwarded-for, forwarded\r\nX-Forwarded-For: 1", "X-Forwarded-Host: h\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1",
		"Forwarded: for=1\r\nX: y \r\nForwarded:for=\"2", "X-Forwarded-For:,\r\nX-FORWARDED-FOR: a, b ", "traceparent: " + goodTrace + "\r\ntracestate: a=b",
	} {
		for i := range uint8(16) {
			f.Add(s, "a:80", i)
		}
	}
	f.Fuzz(func(t *testing.T, fields, host string, bits uint8) {
		in := "GET / HTTP/1.1\r\nHost: " + host + "\r\n" + fields + "\r\n\r\n"
		m, err := readRequest([]byte(in), DefaultLimits())
		if err != nil {
			return
		}
		trusted := bits&1 != 0
		fw := forwarderOf(func(c *ForwardConfig) {
			everyMode(c)
			c.XForwarded, c.Forwarded = ForwardModes()[bits>>1&1], ForwardModes()[bits>>2&1]
			if c.Trust = nil; trusted {
				c.Trust = []string{"2001:db8::/32"}
			}
		})
		ip := netip.MustParseAddr("2001:db8::7")
		addr := net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 1))
		p := fw.peer(addr, addr)
		if p.trusted != trusted {
			t.Fatalf("%+v", p)
		}
		out := string(fw.appendRequest(nil, &m.head, &p, false, false))
		if _, err := readRequest([]byte(out), Limits{Line: 1 << 20, Head: 1 << 20, Headers: 1 << 20}); err != nil && err != errShort {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		checkClaims(t, out, ip.String(), trusted)
		if n := len(fieldsNamed(out, "traceparent")); n != 1 || !traceparentOK([]byte(fieldsNamed(out, "traceparent")[0])) {
			t.Fatalf("%q became %q: %d traceparents", in, out, n)
		}
	})
}

// checkClaims holds that the head out names ip, and of a stranger nothing else.
func checkClaims(t *testing.T, out, ip string, trusted bool) {
	t.Helper()
	xff := fieldsNamed(out, "x-forwarded-for")
	if len(xff) != 1 || xff[0] != ip && !strings.HasSuffix(xff[0], ", "+ip) || !trusted && xff[0] != ip {
		t.Fatalf("X-Forwarded-For %q in %q", xff, out)
	}
	fwd := fieldsNamed(out, "forwarded")
	elements, err := parseForwarded(strings.Join(fwd, ","))
	if err != nil || len(fwd) != 1 {
		t.Fatalf("Forwarded %q in %q: %v", fwd, out, err)
	}
	last := elements[len(elements)-1]
	if last["for"] != "["+ip+"]" || last["by"] != "["+ip+"]" || last["proto"] != "http" || !trusted && len(elements) > 1 {
		t.Fatalf("Forwarded %q in %q", fwd, out)
	}
	if trusted {
		return
	}
	for _, l := range strings.Split(out, "\r\n")[1:] {
		name, v, _ := strings.Cut(l, ":")
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
		switch {
		case name == "x-forwarded-for", name == "forwarded":
		case name == "x-forwarded-proto" && v == " http", name == "x-forwarded-host" && v == " "+last["host"]:
		case strings.HasPrefix(name, "x-forwarded-"), name == "x-real-ip":
			t.Fatalf("%q in %q", l, out)
		}
	}
}
