package access

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

// sample is a request that went well.
func sample() *Record {
	return &Record{
		Time:   time.Date(2026, 11, 21, 13, 34, 5, 6_789_999, time.FixedZone("", 3600)),
		Client: "192.0.2.7:51234", Method: []byte("GET"), Target: []byte("/a/b?x=1&y=2"), Host: []byte("example.com:8080"),
		Version: "HTTP/1.1", Status: 200, BytesIn: 78, BytesOut: 1234567,
		ReadTime: 0, Queue: 1_999, Connect: 0, FirstByte: 12_345_678, Total: 61 * time.Second,
		Endpoint: "web-1", Address: "10.0.0.1:80", Tries: 1, Reused: true, Reason: "done",
		UserAgent: []byte(`curl/8 "x"`), RequestID: []byte("7f3"), TraceID: []byte("4bf92f3577b34da6a3ce929d0e0e4736"),
	}
}

func encode(format string, query bool, r *Record) string {
	return string(newEncoder(Config{Format: format, Query: query}, "web").line(nil, r))
}

func TestGolden(t *testing.T) {
	left := &Record{}
	left.Reset()
	left.Time, left.Client, left.Reason = time.Unix(0, 0), "unix", "client_gone"
	refused := sample()
	refused.Reset()
	refused.Time, refused.Client, refused.Status, refused.Reason = time.Unix(1e9, 0), "[::1]:9", 400, "bad_request"
	refused.Method, refused.Target, refused.ReadTime = []byte("-"), []byte("/\r\nx=\"\\ \x00\x7f\u2028\u00a0é\U000e0001\xff"), time.Millisecond
	for _, tt := range []struct {
		name, format string
		query        bool
		r            *Record
		want         string
	}{
		{"json", "json", true, sample(), `{"time":"2026-11-21T12:34:05.006789Z","service":"web","client":"192.0.2.7:51234","method":"GET",` +
			`"target":"/a/b?x=1&y=2","host":"example.com:8080","version":"HTTP/1.1","status":200,"bytes_in":78,"bytes_out":1234567,` +
			`"read_ms":0.000,"queue_ms":0.001,"connect_ms":0.000,"first_byte_ms":12.345,"total_ms":61000.000,` +
			`"endpoint":"web-1","address":"10.0.0.1:80","tries":1,"reused":true,"reason":"done",` +
			`"user_agent":"curl/8 \"x\"","request_id":"7f3","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}`},
		{"logfmt", "logfmt", true, sample(), `time=2026-11-21T12:34:05.006789Z service=web client=192.0.2.7:51234 method=GET ` +
			`target="/a/b?x=1&y=2" host=example.com:8080 version=HTTP/1.1 status=200 bytes_in=78 bytes_out=1234567 ` +
			`read_ms=0.000 queue_ms=0.001 connect_ms=0.000 first_byte_ms=12.345 total_ms=61000.000 ` +
			`endpoint=web-1 address=10.0.0.1:80 tries=1 reused=true reason=done ` +
			`user_agent="curl/8 \"x\"" request_id=7f3 trace_id=4bf92f3577b34da6a3ce929d0e0e4736`},
		{"json, client left", "json", false, left, `{"time":"1970-01-01T00:00:00.000000Z","service":"web","client":"unix","method":null,` +
			`"target":null,"host":null,"version":null,"status":null,"bytes_in":0,"bytes_out":0,` +
			`"read_ms":null,"queue_ms":null,"connect_ms":null,"first_byte_ms":null,"total_ms":null,` +
			`"endpoint":null,"address":null,"tries":0,"reused":null,"reason":"client_gone"}`},
		{"logfmt, client left", "logfmt", false, left, `time=1970-01-01T00:00:00.000000Z service=web client=unix method=- ` +
			`target=- host=- version=- status=- bytes_in=0 bytes_out=0 ` +
			`read_ms=- queue_ms=- connect_ms=- first_byte_ms=- total_ms=- ` +
			`endpoint=- address=- tries=0 reused=- reason=client_gone`},
		{"json, hostile", "json", true, refused, `{"time":"2001-09-09T01:46:40.000000Z","service":"web","client":"[::1]:9","method":"-",` +
			`"target":"/\r\nx=\"\\ \u0000\u007f\u2028\u00a0é\udb40\udc01\ufffd","host":null,"version":null,"status":400,"bytes_in":0,"bytes_out":0,` +
			`"read_ms":1.000,"queue_ms":null,"connect_ms":null,"first_byte_ms":null,"total_ms":null,` +
			`"endpoint":null,"address":null,"tries":0,"reused":null,"reason":"bad_request"}`},
		{"logfmt, hostile", "logfmt", true, refused, `time=2001-09-09T01:46:40.000000Z service=web client=[::1]:9 method="-" ` +
			`target="/\r\nx=\"\\ \u0000\u007f\u2028\u00a0é\udb40\udc01\ufffd" host=- version=- status=400 bytes_in=0 bytes_out=0 ` +
			`read_ms=1.000 queue_ms=- connect_ms=- first_byte_ms=- total_ms=- ` +
			`endpoint=- address=- tries=0 reused=- reason=bad_request`},
	} {
		if got := encode(tt.format, tt.query, tt.r); got != tt.want+"\n" {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestTarget(t *testing.T) {
	for _, tt := range []struct {
		target string
		query  bool
		want   string
	}{
		{"/a", false, "/a"},
		{"/a", true, "/a"},
		{"/a?token=x", false, "/a?..."},
		{"/a?token=x", true, "/a?token=x"},
		{"/?", false, "/?..."},
		{"?x", false, "?..."},
		{"/a#token", false, "/a?..."},
		{"/a#b?c", false, "/a?..."},
		{"/a?b#c", false, "/a?..."},
		{"/a@b", false, "/a@b"},
		{"*", false, "*"},
		{"example.com:443", false, "example.com:443"},
		{"user:secret@example.com:443", true, "...@example.com:443"},
		{"http://example.com/a@b?c@d", true, "http://example.com/a@b?c@d"},
		{"http://user:secret@example.com/a?token=x", false, "...@example.com/a?..."},
		{"http://user:sec@ret@example.com/a?token=x", true, "...@example.com/a?token=x"},
		{"http://user:secret@example.com?token=x", false, "...@example.com?..."},
		{"http://user:secret@", false, "...@"},
	} {
		for _, format := range Formats() {
			m, err := parse(encode(format, tt.query, &Record{Target: []byte(tt.target)}))
			if err != nil || m["target"] != tt.want {
				t.Errorf("%s %q: %q, want %q (%v)", format, tt.target, m["target"], tt.want, err)
			}
		}
	}
}

// The longest line that any record makes has room in a pipe's atomic write.
func TestLongestLine(t *testing.T) {
	for _, unit := range []string{"x", "\x00", "\"", "é", "\xff", "\U000e0001", "a\u2028"} {
		long := strings.Repeat(unit, 1100)
		b := []byte(long)
		r := &Record{
			Time: time.Unix(math.MaxInt32, 999_999_999), Client: long, Method: b, Target: append([]byte("u@"), b...), Host: b, Version: long,
			Status: math.MinInt, BytesIn: math.MinInt64, BytesOut: math.MinInt64,
			ReadTime: math.MaxInt64, Queue: math.MaxInt64, Connect: math.MaxInt64, FirstByte: math.MaxInt64, Total: math.MaxInt64,
			Endpoint: long, Address: long, Tries: math.MinInt, Reason: long, UserAgent: b, RequestID: b, TraceID: b,
		}
		for _, format := range Formats() {
			line := newEncoder(Config{Format: format}, long).line(nil, r)
			if len(line) > maxLine {
				t.Errorf("%s of %q: a line has %d bytes", format, unit, len(line))
			}
			m, err := parse(string(line))
			if err != nil {
				t.Errorf("%s of %q: %v", format, unit, err)
			}
			for _, name := range []string{"service", "client", "method", "target", "host", "version", "endpoint", "address", "reason", "user_agent", "request_id", "trace_id"} {
				if !strings.HasSuffix(m[name], "...") {
					t.Errorf("%s of %q: %s is not cut: %q", format, unit, name, m[name])
				}
			}
		}
	}
}

// A cut leaves whole characters, as many as there is room for.
func TestCut(t *testing.T) {
	for _, tt := range []struct {
		in   string
		most int
		want string
	}{
		{"abcd", 4, "abcd"},
		{"abcde", 4, "abcd..."},
		{"ab\ncd", 4, `ab\n...`},
		{"abc\n", 4, "abc..."},
		{"aéé", 4, "aé..."},
		{"aéé", 5, "aéé"},
		{"\x00", 5, "..."},
		{"\x00", 6, `\u0000`},
		{"\U000e0001", 11, "..."},
		{"\U000e0001", 12, `\udb40\udc01`},
		{"", 0, ""},
	} {
		if got := string(appendEscaped([]byte("before"), tt.in, tt.most)); got != "before"+tt.want {
			t.Errorf("%q to %d: %q, want %q", tt.in, tt.most, got, tt.want)
		}
		if got := string(appendEscaped(nil, []byte(tt.in), tt.most)); got != tt.want {
			t.Errorf("bytes %q to %d: %q, want %q", tt.in, tt.most, got, tt.want)
		}
	}
}

// Whatever a request brings, a line has the fields of its record, in order and
// with the values that were given, and nothing else.
func FuzzLine(f *testing.F) {
	f.Add("GET", "/", "example.com", "curl/8", "id", 200, int64(1234567))
	f.Add("-", "/x\" status=200 reason=\"done", "a\nb", "\x1b[31m\u202e", "\xff\xc3", 0, int64(-1))
	f.Add("", "", "", "\u0085\u2028", strings.Repeat("\u2029", 30), 503, int64(999))
	f.Add("null", "{}", `\`, `\u0022`, "true", -5, int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, method, target, host, agent, id string, status int, d int64) {
		r := &Record{
			Time: time.Unix(1e9, d%1e9), Client: id, Method: []byte(method), Target: []byte(target), Host: []byte(host), Version: method,
			Status: status, BytesIn: d, Total: time.Duration(d), Endpoint: agent, Address: host, Reason: agent,
			UserAgent: []byte(agent), RequestID: []byte(id), TraceID: []byte(host),
		}
		for _, query := range []bool{true, false} {
			for _, format := range Formats() {
				line := encode(format, query, r)
				checkLine(t, format, line, r)
				if i := strings.IndexAny(target, "?#"); !query && i >= 0 {
					m, _ := parse(line)
					if !strings.HasSuffix(m["target"], "...") {
						t.Errorf("the query of %q is shown: %q", target, m["target"])
					}
				}
			}
		}
	})
}

func checkLine(t *testing.T, format, line string, r *Record) {
	t.Helper()
	if len(line) > maxLine {
		t.Errorf("%d bytes", len(line))
	}
	body, ok := strings.CutSuffix(line, "\n")
	if i := strings.IndexFunc(body, func(c rune) bool { return !unicode.IsPrint(c) }); !ok || i >= 0 {
		t.Fatalf("not one printable line: %q", line)
	}
	read := parseJSON
	if format == "logfmt" {
		read = parseLogfmt
	}
	got, err := read(line)
	if err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	all := keyNames()
	names := all[:]
	for name, v := range map[string][]byte{"user_agent": r.UserAgent, "request_id": r.RequestID, "trace_id": r.TraceID} {
		if len(v) == 0 {
			names = slices.DeleteFunc(names, func(s string) bool { return s == name })
		}
	}
	want := map[string]string{
		"client": r.Client, "method": string(r.Method), "host": string(r.Host), "version": r.Version, "endpoint": r.Endpoint,
		"address": r.Address, "reason": r.Reason, "user_agent": string(r.UserAgent), "request_id": string(r.RequestID), "trace_id": string(r.TraceID),
	}
	for i, p := range got {
		if i >= len(names) || p.name != names[i] {
			t.Fatalf("field %d is %s, want those of %v: %q", i, p.name, names, line)
		}
		w, text := want[p.name]
		if !text {
			continue
		}
		if w == "" {
			if p.value != nil {
				t.Errorf("%s is %q, want none", p.name, *p.value)
			}
			continue
		}
		if p.value == nil {
			t.Errorf("%s is absent, want %q", p.name, w)
			continue
		}
		w = string([]rune(w)) // one U+FFFD for each byte that is no UTF-8
		start, cut := strings.CutSuffix(*p.value, "...")
		if *p.value != w && (!cut || len(w) <= 2 || !strings.HasPrefix(w, start)) {
			t.Errorf("%s is %q, want %q", p.name, *p.value, w)
		}
	}
	if len(got) != len(names) {
		t.Errorf("%d fields, want %d: %q", len(got), len(names), line)
	}
}
