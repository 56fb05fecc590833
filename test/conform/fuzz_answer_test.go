package conform

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"outrigger/sidecar/h1"
)

// answerSeeds are what backends send.
var answerSeeds = []string{ // read-only
	ok("abc"), ok("abc") + ok("evil"), answer("HTTP/1.1 200 OK") + "abc", answer("HTTP/1.0 200 OK", "Connection: keep-alive") + "abc",
	answer("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X-T") + "3;a=b\r\nabc\r\n0\r\nX-T: y\r\n\r\n",
	answer("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "3\r\nab", answer("HTTP/1.1 200 OK", "Content-Length: 9") + "abc",
	answer("HTTP/1.1 204 No Content", "Content-Length: 0") + "x", answer("HTTP/1.1 304 Not Modified", "Content-Length: 5") + "x",
	answer("HTTP/1.1 103 Early Hints", "Link: a") + ok("b"), answer("HTTP/1.1 100 Continue") + ok("b"),
	answer("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: u") + "x", answer("HTTP/1.1 404 Not  Found ", "Content-Length: 0"),
	answer("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Content-Length: 3") + "3\r\nabc\r\n0\r\n\r\n", "garbage", "HTTP/1.1 200\r\n\r\n",
	answer("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n" + evil, answer("HTTP/1.1 200 OK", "Content-Length: 40000") + strings.Repeat("x", 40_000),
	answer("HTTP/1.1 200 OK", "Content-Length: 3", "Connection: Content-Length, X", "X: y") + "abc", answer("HTTP/1.1 503 Service Unavailable", "Retry-After: 1", "Content-Length: 1") + "b",
}

// script is what the backend of FuzzAnswer is to send next.
type script struct {
	raw   []byte
	reset bool
}

// FuzzAnswer: whatever a backend answers, the client gets at most one answer to
// its request, and never a whole one where the backend's was cut or malformed,
// nor another than net/http reads from the same bytes.
func FuzzAnswer(f *testing.F) {
	for _, s := range answerSeeds {
		for how := range byte(8) {
			f.Add([]byte(s), how)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = ln.Close() })
	scripts := make(chan script, 1)
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			answerOnce(nc, <-scripts)
		}
	}()
	cfg := h1.DefaultConfig()
	cfg.Retry.Attempts = 0 // one try, one script
	cfg.PoolSize = 0
	r := newFuzzRig(f, cfg, ln.Addr().String())
	f.Fuzz(func(t *testing.T, raw []byte, how byte) {
		method, version := "GET", "1.1"
		if how&1 != 0 {
			method = "HEAD"
		}
		if how&2 != 0 {
			version = "1.0"
		}
		scripts <- script{raw, how&4 != 0}
		c := r.exchange(t, []byte(method+" / HTTP/"+version+"\r\nHost: a\r\n\r\n"), nil)
		if why := misread(raw, c.out.Bytes(), method, c.reset, how&4 != 0); why != "" {
			t.Fatalf("backend %q (reset: %v)\nclient, %s by HTTP/%s: %q (reset: %v)\n%s", raw, how&4 != 0, method, version, c.out.Bytes(), c.reset, why)
		}
	})
}

// answerOnce reads a request, sends the script and ends the connection.
func answerOnce(nc net.Conn, s script) {
	if _, err := http.ReadRequest(bufio.NewReader(nc)); err == nil {
		_, _ = nc.Write(s.raw)
	}
	if s.reset {
		resetConn(nc)
	}
	_ = nc.Close()
}

// reading is a final answer as net/http has it.
type reading struct {
	*http.Response
	body  []byte
	whole bool
	rest  []byte // behind it
}

// readAnswer takes the interim answers and the final one off raw. reset tells
// that the stream was not closed but broken off.
func readAnswer(raw []byte, method string, reset bool) (*reading, error) {
	br := bufio.NewReaderSize(bytes.NewReader(raw), len(raw)+16)
	for {
		res, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		if res.StatusCode >= 100 && res.StatusCode < 200 && res.StatusCode != 101 {
			continue
		}
		body, err := io.ReadAll(res.Body)
		untilEnd := res.ContentLength < 0 && len(res.TransferEncoding) == 0 && method != "HEAD"
		rest, _ := io.ReadAll(br)
		return &reading{res, body, err == nil && !(untilEnd && reset), rest}, err
	}
}

// misread says what is wrong with what the client got of a backend's bytes.
func misread(raw, out []byte, method string, clientReset, backendReset bool) string {
	got, err := readAnswer(out, method, clientReset)
	if got == nil {
		if len(out) > 0 && err != io.ErrUnexpectedEOF {
			return fmt.Sprint("the client cannot read it: ", err)
		}
		return "" // cut before the final head was through
	}
	if len(got.rest) > 0 {
		return fmt.Sprintf("%q behind the answer", got.rest)
	}
	if !strings.HasSuffix(got.Header.Get("Via"), " outrigger") {
		switch {
		case got.StatusCode != 502:
			return fmt.Sprintf("our own %d", got.StatusCode)
		case !got.whole:
			return "our own 502 is cut"
		}
		return ""
	}
	if got.StatusCode == 101 {
		return "a 101 that nobody asked for"
	}
	want, err := readAnswer(raw, method, backendReset)
	switch {
	case want == nil && err != nil && excused(raw, err):
		return ""
	case want == nil:
		return fmt.Sprint("passed on, though net/http cannot read it: ", err)
	case got.StatusCode != want.StatusCode:
		return fmt.Sprintf("status %d, not %d", got.StatusCode, want.StatusCode)
	case got.whole && !want.whole && !(err != nil && excused(raw, err)):
		return "whole, though the backend's is not"
	case got.whole && want.whole && !bytes.Equal(got.body, want.body):
		return fmt.Sprintf("body %q, not %q", got.body, want.body)
	}
	return ""
}
