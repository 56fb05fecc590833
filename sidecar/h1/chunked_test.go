package h1

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// dechunk decodes in through a decoder fed in pieces of the given sizes, the
// last size for whatever is left. It returns what outcome shows of a message.
func dechunk(in string, sizes ...int) string {
	var (
		d    chunkDecoder
		out  []byte
		rest = []byte(in)
	)
	for i := 0; !d.done() && len(rest) > 0; i++ {
		k := len(rest)
		if len(sizes) > 0 {
			k = min(k, sizes[min(i, len(sizes)-1)])
		}
		piece := append([]byte(nil), rest[:k]...)
		n, used, err := d.decode(piece)
		if err != nil {
			return "bad"
		}
		if used < k && !d.done() {
			return fmt.Sprintf("stopped after %d of %d bytes before the end", used, k)
		}
		out = append(out, piece[:n]...)
		rest = rest[used:]
	}
	if !d.done() {
		return "short"
	}
	s := fmt.Sprintf("%q", out)
	if len(d.trailers) > 0 {
		s += fmt.Sprintf(" %q", d.trailers)
	}
	if len(rest) > 0 {
		s += fmt.Sprintf(" +%d", len(rest))
	}
	return s
}

func TestChunked(t *testing.T) {
	const end = "\r\n0\r\n\r\n"
	for _, r := range []row{
		{"7.1", "3\r\nabc" + end, `"abc"`},
		{"7.1", "0\r\n\r\n", `""`},
		{"7.1", "0\r\n\r\nnext", `"" +4`},
		{"7.1", "000\r\n\r\n", `""`},
		{"7.1", "1\r\na\r\n02\r\nbc" + end, `"abc"`},
		{"7.1", "a\r\n0123456789" + end, `"0123456789"`},
		{"7.1", "A\r\n0123456789" + end, `"0123456789"`},
		{"7.1", "000000000000003\r\nabc" + end, `"abc"`}, // 15 digits
		{"7.1", "0000000000000003\r\nabc" + end, "bad"},
		{"7.1", "fffffffffffffffff\r\n", "bad"},
		{"7.1", "10000000000000000\r\n", "bad"}, // 2^64
		{"7.1", "7fffffffffffffff\r\n", "bad"},
		{"7.1", "fffffffffffffff\r\nabc", "short"},
		{"7.1", "\r\n", "bad"},
		{"7.1", "\r\nabc\r\n", "bad"},
		{"7.1", ";x\r\n", "bad"},
		{"7.1", " 3\r\nabc" + end, "bad"},
		{"7.1", "+3\r\nabc" + end, "bad"},
		{"7.1", "-3\r\nabc" + end, "bad"},
		{"7.1", "0x3\r\nabc" + end, "bad"},
		{"7.1", "g\r\n", "bad"},
		{"7.1", "3h\r\nabc" + end, "bad"},
		{"7.1", "3_0\r\nabc" + end, "bad"},
		{"7.1", "3 0\r\nabc" + end, "bad"},
		{"7.1", "3 \r\nabc" + end, "bad"}, // a blank may only lead to an extension
		{"7.1", "3\t\r\nabc" + end, "bad"},
		{"7.1", "3\x00\r\nabc" + end, "bad"},
		{"7.1", "3\nabc" + end, "bad"},
		{"7.1", "3\rabc" + end, "bad"},
		{"7.1", "3\r\r\nabc" + end, "bad"},
		{"7.1", "3\r\nabc\n0\r\n\r\n", "bad"},
		{"7.1", "3\r\nabc\r0\r\n\r\n", "bad"},
		{"7.1", "3\r\nabc0\r\n\r\n", "bad"},
		{"7.1", "3\r\nabcd\r\n0\r\n\r\n", "bad"},
		{"7.1", "3\r\nab\r\n0\r\n\r\n", "bad"},
		{"7.1", "3\r\nabc\r\n\r\n0\r\n\r\n", "bad"},
		{"7.1", "3\r\n\r\nx" + end, `"\r\nx"`}, // data may be anything
		{"7.1", "0\n\r\n", "bad"},
		{"7.1", "0\r\n\n", "bad"},
		{"7.1", "0\r\n\rx", "bad"},
		{"7.1.1", "3;a\r\nabc" + end, `"abc"`},
		{"7.1.1", "3;a=b\r\nabc" + end, `"abc"`},
		{"7.1.1", "3 ; a = b ;c\r\nabc" + end, `"abc"`},
		{"7.1.1", `3;a="b;c\"\\ d"` + "\r\nabc" + end, `"abc"`},
		{"7.1.1", `3;a=""` + "\r\nabc" + end, `"abc"`},
		{"7.1.1", `3;a="\` + "\xff\"\r\nabc" + end, `"abc"`},
		{"7.1.1", "0;a=b\r\n\r\n", `""`},
		{"7.1.1", "3\t;\ta\t=\tb\t;\tc\r\nabc" + end, `"abc"`},
		{"7.1.1", `3; a = "b" ; c = d` + "\r\nabc" + end, `"abc"`},
		{"7.1.1", `3;a="b";c=d;e;f=""` + "\r\nabc" + end, `"abc"`},
		{"7.1.1", "3;a \r\nabc" + end, "bad"}, // trailing blanks
		{"7.1.1", "3;a\t\r\nabc" + end, "bad"},
		{"7.1.1", "3;a=b \r\nabc" + end, "bad"},
		{"7.1.1", `3;a="b" ` + "\r\nabc" + end, "bad"},
		{"7.1.1", "3;a=b; \r\nabc" + end, "bad"},
		{"7.1.1", "3 ;\r\nabc" + end, "bad"},
		{"7.1.1", "3;a=\r\nabc" + end, "bad"}, // no value
		{"7.1.1", "3;a= \r\nabc" + end, "bad"},
		{"7.1.1", "3;a=;b\r\nabc" + end, "bad"},
		{"7.1.1", "3;a==b\r\nabc" + end, "bad"}, // two
		{"7.1.1", "3;a=b=c\r\nabc" + end, "bad"},
		{"7.1.1", "3;a=b c\r\nabc" + end, "bad"},
		{"7.1.1", `3;a=b"c"` + "\r\nabc" + end, "bad"},
		{"7.1.1", `3;a="b"c` + "\r\nabc" + end, "bad"},
		{"7.1.1", `3;a="b""c"` + "\r\nabc" + end, "bad"},
		{"7.1.1", `3;a="b"=c` + "\r\nabc" + end, "bad"},
		{"7.1.1", `3;a="b" c` + "\r\nabc" + end, "bad"},
		{"7.1.1", `3;a"b"` + "\r\nabc" + end, "bad"},
		{"7.1.1", "3;a b\r\nabc" + end, "bad"},
		{"7.1.1", "3 a\r\nabc" + end, "bad"},
		{"7.1.1", "3 =a\r\nabc" + end, "bad"},
		{"7.1.1", "3=a\r\nabc" + end, "bad"},
		{"7.1.1", "3;a=\x80\r\nabc" + end, "bad"},
		{"7.1.1", "3;a,b\r\nabc" + end, "bad"},
		{"7.1.1", "0;a \r\n\r\n", "bad"},
		{"7.1.1", "3;\r\nabc" + end, "bad"},
		{"7.1.1", "3; \r\nabc" + end, "bad"},
		{"7.1.1", "3;;a\r\nabc" + end, "bad"},
		{"7.1.1", "3;a;\r\nabc" + end, "bad"},
		{"7.1.1", "3;=b\r\nabc" + end, "bad"},
		{"7.1.1", `3;"a"` + "\r\nabc" + end, "bad"},
		{"7.1.1", "3;a\nabc" + end, "bad"},
		{"7.1.1", "3;a\rb\r\nabc" + end, "bad"},
		{"7.1.1", "3;a\x00\r\nabc" + end, "bad"},
		{"7.1.1", "3;a=(\r\nabc" + end, "bad"},
		{"7.1.1", "3;a=\"\r\n\"\r\nabc" + end, "bad"}, // a line cannot end in a quoted string
		{"7.1.1", "3;a=\"\\\r\n\"\r\nabc" + end, "bad"},
		{"7.1.1", "3;a=\"\x7f\"\r\nabc" + end, "bad"},
		{"7.1.2", "0\r\nX: y\r\n\r\n", `"" "X: y\r\n"`},
		{"7.1.2", "1\r\na\r\n0\r\nX: y\r\nZ:\r\n\r\nnext", `"a" "X: y\r\nZ:\r\n" +4`},
		{"7.1.2", "0\r\nX\r\n\r\n", "bad"},
		{"7.1.2", "0\r\n: y\r\n\r\n", "bad"},
		{"7.1.2", "0\r\nX : y\r\n\r\n", "bad"},
		{"7.1.2", "0\r\n X: y\r\n\r\n", "bad"},
		{"7.1.2", "0\r\nX: y\r\n folded\r\n\r\n", "bad"},
		{"7.1.2", "0\r\nX: \x00\r\n\r\n", "bad"},
		{"7.1.2", "0\r\nX: y\n\r\n", "bad"},
		{"7.1.2", "0\r\nX: y\rZ: z\r\n\r\n", "bad"},
		{"7.1.2", "0\r\nX: y\r\n", "short"},
		{"7.1.2", "0\r\n", "short"},
		{"8", "3\r\nab", "short"},
		{"8", "3\r\nabc\r\n", "short"},
		{"8", "3", "short"},
	} {
		for _, sizes := range [][]int{nil, {1}, {2}, {1, 3}, {5, 1}} {
			got := dechunk(r.in, sizes...)
			if got != r.want {
				t.Errorf("section %s %q in pieces of %v: %s, want %s", r.sec, r.in, sizes, got, r.want)
			}
		}
	}
}

// The bounds on what is no data (section 7.1.1 asks for them).
func TestChunkedBounds(t *testing.T) {
	ext := func(n int) string { return "1;" + strings.Repeat("e", n) + "\r\nx\r\n" }
	trailer := func(n int) string { return "0\r\nX: " + strings.Repeat("y", n-len("X: \r\n")) + "\r\n\r\n" }
	for _, r := range []struct{ name, in, want string }{
		{"longest size line", ext(maxChunkLine-3) + "0\r\n\r\n", `"x"`},
		{"size line too long", ext(maxChunkLine-2) + "0\r\n\r\n", "bad"},
		{"endless size line", "1;" + strings.Repeat("e", 1<<20), "bad"},
		{"many extensions", strings.Repeat(ext(400), 100) + "0\r\n\r\n", "bad"},
		{"longest trailers", trailer(maxTrailers), fmt.Sprintf(`"" %q`, trailer(maxTrailers)[3:maxTrailers+3])},
		{"trailers too long", trailer(maxTrailers + 2), "bad"},
		{"endless trailers", "0\r\n" + strings.Repeat("X: y\r\n", 1<<16), "bad"},
	} {
		for _, sizes := range [][]int{nil, {1000}} {
			if got := dechunk(r.in, sizes...); got != r.want {
				t.Errorf("%s: %.60s, want %.60s", r.name, got, r.want)
			}
		}
	}
	// What is not bounded: how many chunks there are.
	if got, want := dechunk(strings.Repeat("1\r\nx\r\n", 1<<15)+"0\r\n\r\n"), strings.Repeat("x", 1<<15); got != fmt.Sprintf("%q", want) {
		t.Errorf("many one-byte chunks: %.40s", got)
	}
}

func TestTrailersThatPass(t *testing.T) {
	var d chunkDecoder
	in := "0\r\n" + strings.Join([]string{
		"X-Sum: 1", "ETag: e", "Content-Length: 5", "Transfer-Encoding: chunked", "Host: h", "Connection: close",
		"Trailer: x", "TE: y", "Authorization: z", "Cookie: c", "Set-Cookie: d", "Content-Type: t", "content-encoding: gzip",
		"Content-Range: r", "Via: v", "X-Forwarded-For: f", "Proxy-Authorization: p", "Upgrade: u", "Keep-Alive: k",
		"Expect: 100-continue", "Max-Forwards: 1", "Forwarded: for=x", "X-Forwarded-Port: 1", "x_forwarded_for: f", "X-Real-IP: i",
		"Traceparent: t", "Date: d", "Cache-Control: no-store", "If-Match: m", "WWW-Authenticate: w", "Location: l", "RANGE: r",
		"Grpc-Status: 0",
	}, "\r\n") + "\r\n\r\n"
	if _, _, err := d.decode([]byte(in)); err != nil || !d.done() {
		t.Fatal(err)
	}
	if got, want := string(d.appendTrailers(nil)), "X-Sum: 1\r\nETag: e\r\nGrpc-Status: 0\r\n"; got != want {
		t.Errorf("passed %q, want %q (RFC 9110 section 6.5.1)", got, want)
	}
	d.reset()
	if d.done() || len(d.trailers) != 0 {
		t.Error("reset leaves the decoder where it was")
	}
}

func TestAppendChunk(t *testing.T) {
	for _, r := range []struct {
		n    int
		size string
	}{{1, "1"}, {15, "f"}, {16, "10"}, {255, "ff"}, {256, "100"}, {bufSize, "8000"}} {
		data := bytes.Repeat([]byte("x"), r.n)
		if got, want := string(appendChunk(nil, data)), r.size+"\r\n"+string(data)+"\r\n"; got != want {
			t.Errorf("%d bytes: %.20q", r.n, got)
		}
	}
	if got := appendChunk([]byte("a"), nil); string(got) != "a" {
		t.Errorf("no data: %q; an empty chunk would end the message", got)
	}
}
