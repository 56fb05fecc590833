package h1

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

var (
	benchRequest = []byte(lines("GET /api/v1/items?page=2 HTTP/1.1", "Host: example.com", "User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
		"Accept: text/html,application/xhtml+xml", "Accept-Language: en", "Accept-Encoding: gzip, deflate, br", "Connection: keep-alive",
		"Cookie: session=0123456789abcdef; theme=dark", "If-None-Match: \"abc\""))
	benchResponse = []byte(lines("HTTP/1.1 200 OK", "Date: Sat, 21 Nov 2026 00:00:00 GMT", "Server: test", "Content-Type: application/json",
		"Content-Length: 512", "Cache-Control: no-cache", "ETag: \"abc\"", "Vary: Accept-Encoding", "Connection: keep-alive"))
)

func BenchmarkParseRequest(b *testing.B) {
	var h Head
	lim := DefaultLimits()
	b.ReportAllocs()
	b.SetBytes(int64(len(benchRequest)))
	for b.Loop() {
		if n, err := FindHead(benchRequest, 0); n == 0 || err != nil {
			b.Fatal(n, err)
		}
		if err := h.ParseRequest(benchRequest, lim); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseResponse(b *testing.B) {
	var h Head
	lim := DefaultLimits()
	b.ReportAllocs()
	b.SetBytes(int64(len(benchResponse)))
	for b.Loop() {
		if n, err := FindHead(benchResponse, 0); n == 0 || err != nil {
			b.Fatal(n, err)
		}
		if err := h.ParseResponse(benchResponse, lim, false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRewriteRequest(b *testing.B) {
	var h Head
	if err := h.ParseRequest(benchRequest, DefaultLimits()); err != nil {
		b.Fatal(err)
	}
	f, p := plain(), app()
	dst := make([]byte, 0, bufSize)
	b.ReportAllocs()
	for b.Loop() {
		dst = f.appendRequest(dst[:0], &h, p, false, false)
	}
}

func BenchmarkRewriteResponse(b *testing.B) {
	var h Head
	if err := h.ParseResponse(benchResponse, DefaultLimits(), false); err != nil {
		b.Fatal(err)
	}
	f := plain()
	dst := make([]byte, 0, bufSize)
	b.ReportAllocs()
	for b.Loop() {
		dst = f.appendResponse(dst[:0], &h, Length, "", false)
	}
}

// The worst that a sender can do within the limits: a Connection field of
// nothing but names to look for among all fields.
func BenchmarkParseHostileConnection(b *testing.B) {
	fields := []string{"GET / HTTP/1.1", "Host: a", "Connection: " + strings.Repeat("a,", 15_000)}
	for range 120 {
		fields = append(fields, "b: c")
	}
	in := []byte(lines(fields...))
	var h Head
	b.ReportAllocs()
	for b.Loop() {
		_ = h.ParseRequest(in, DefaultLimits())
	}
}

func BenchmarkDechunk(b *testing.B) {
	for name, size := range map[string]int{"small": 64, "large": 8 << 10} {
		b.Run(name, func(b *testing.B) {
			var in []byte
			for len(in)+size+chunkRoom < bufSize {
				in = appendChunk(in, []byte(strings.Repeat("x", size)))
			}
			in = append(in, "0\r\n\r\n"...)
			work := make([]byte, len(in))
			var d chunkDecoder
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				copy(work, in) // decoding is in place
				d.reset()
				if _, _, err := d.decode(work); err != nil || !d.done() {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkForward is a whole exchange over loopback: client, proxy and
// backend in one process.
func BenchmarkForward(b *testing.B) {
	for _, tt := range cases {
		b.Run(tt.name, func(b *testing.B) {
			l := newLoop(b, tt.req, tt.answer)
			b.ReportAllocs()
			for b.Loop() {
				l.exchange()
			}
		})
	}
}

// BenchmarkForwardPipes is the same over in-memory pipes: what it costs without
// the kernel's part, but with two hand-overs between goroutines each way.
func BenchmarkForwardPipes(b *testing.B) {
	r := newRig(b, quick(), balance.DefaultConfig(), "127.0.0.1:1") // never dialled
	answer := append(bytes.Clone(benchResponse), bytes.Repeat([]byte("x"), 512)...)
	near, far := net.Pipe()
	lease, err := r.b.TryAcquire(balance.Key{})
	if err != nil {
		b.Fatal(err)
	}
	p := lease.Conns().(*pool)
	lease.Done(picker.Result{Outcome: picker.Ignore})
	u := &upstream{nc: near, pool: p, peek: newPeeker(near)}
	u.sock.init(near, r.e.bufs)
	u.alarm.conn = near
	r.e.reaper.add(&u.alarm)
	u.put(r.e.now())
	go func() {
		in := make([]byte, 4096)
		for {
			if _, err := far.Read(in); err != nil {
				return
			}
			if _, err := far.Write(answer); err != nil {
				return
			}
		}
	}()
	client, server := net.Pipe()
	r.s.slots <- struct{}{}
	r.s.start(server)
	out := make([]byte, 4096)
	exchange := func() {
		if _, err := client.Write(benchRequest); err != nil {
			b.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(out[:n], answer[len(answer)-512:]); {
			k, err := client.Read(out[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
	}
	exchange()
	b.ReportAllocs()
	for b.Loop() {
		exchange()
	}
	_ = client.Close()
	_ = far.Close()
}
