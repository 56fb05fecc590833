package conform

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"outrigger/sidecar/h1"
)

// exchangeSeeds are what clients send, several requests at a time.
var exchangeSeeds = []string{ // read-only
	get(), get() + get("X: y") + req("HEAD /h HTTP/1.1") + req("OPTIONS * HTTP/1.1"),
	post("Content-Length: 3") + "abc" + get() + post("Content-Length: 0") + get("Connection: close") + evil,
	chunks("3;a=b\r\nabc\r\n0\r\nX-T: y\r\n\r\n") + get() + chunks("0\r\n\r\n") + get(),
	chunks("1f\r\n"+evil+"\r\n0\r\n\r\n") + get(), post("Content-Length: 31") + evil + get(),
	post("Content-Length: 36", "Transfer-Encoding: chunked") + "0\r\n\r\n" + evil, get() + "GET / HTTP/1.1\r\n\r\n" + get(),
	"\r\n\r\n" + get() + "\r\n" + get(), "GET http://b/c?d HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS http://b HTTP/1.1\r\nHost: b\r\n\r\n" + get(),
	"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n" + evil,
	post("Expect: 100-continue", "Content-Length: 3") + "abc" + get() + post("Expect: 100-continue", "Transfer-Encoding: chunked") + "1\r\na\r\n0\r\n\r\n" + get(),
	get("Connection: upgrade", "Upgrade: frob") + get(), get("Connection: Content-Length, X", "X: y", "Content-Length: 3") + "abc" + get(),
	req("TRACE / HTTP/1.1", "Max-Forwards: 0") + req("OPTIONS / HTTP/1.1", "Max-Forwards: 3") + get("Max-Forwards: 0"),
	chunks("2;\nxx\r\n1f\r\n0\r\n\r\n" + evil + "0\r\n\r\n"), chunks("3\r\nabc\r\n0\r\n" + evil), chunks("3\nabc\r\n0\r\n\r\n" + evil),
	post("Content-Length: 20000") + strings.Repeat("x", 20_000) + get(), post("Content-Length: 9") + "abc", chunks("9\r\nabc"),
}

// FuzzExchange: whatever a client sends, the backend sees no message boundary
// that the sidecar did not: as many requests begin there as were forwarded, all
// are read alike by two parsers, none has anything behind it; and every answer
// that the client gets is the one to its request, as net/http reads them from
// what the client sent.
func FuzzExchange(f *testing.F) {
	for i, s := range exchangeSeeds {
		f.Add([]byte(s), []byte(nil))
		f.Add([]byte(s), bytes.Repeat([]byte{byte(i), 0, 40}, 30))
	}
	back := newRecorder(f)
	r := newFuzzRig(f, h1.DefaultConfig(), back.ln.Addr().String())
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		c := r.exchange(t, in, cuts)
		st := r.sv.b.Status()
		if st.Retries > 0 {
			t.Fatalf("%q: %d retries, though the backend never fails", in, st.Retries)
		}
		behind := back.take(t, st.Requests)
		if why := unpaired(in, c.out.Bytes(), behind); why != "" {
			t.Fatalf("client %q\nbackend %q\nanswers %q\n%s", in, behind, c.out.Bytes(), why)
		}
	})
}

// unpaired says which answer is not the one to its request. behind are the
// whole requests at the backend.
func unpaired(in, out []byte, behind []string) string {
	requests := bufio.NewReaderSize(bytes.NewReader(in), len(in)+16)
	sure := true // that net/http reads the client's bytes as we do
	for n := 0; ; n++ {
		var want, method string
		var rerr error
		if sure {
			method, want, rerr = nextRequest(requests)
			sure = rerr == nil || !excused(in, rerr)
		}
		if !sure && len(behind) > 0 {
			method, _, _ = strings.Cut(behind[0], " ")
		}
		res, rest, err := nextAnswer(out, method)
		if err != nil && err != io.EOF && rerr != nil {
			res, rest, err = nextAnswer(out, "HEAD") // its first line may say so, for all that is wrong with it
		}
		switch {
		case err == io.EOF && len(behind) == 0:
			return ""
		case err == io.EOF:
			return fmt.Sprintf("no answer to %q", behind)
		case err != nil:
			return fmt.Sprintf("answer %d: %v", n, err)
		}
		out = rest
		got := res.Header.Get("Echo")
		switch {
		case got == "" && res.StatusCode >= 500 && res.StatusCode != 501 && res.StatusCode != 505:
			return fmt.Sprintf("answer %d: %d, though the backend never fails", n, res.StatusCode)
		case res.Close && len(rest) > 0:
			return fmt.Sprintf("%q after the last answer", rest)
		case got == "": // our own
			continue
		case len(behind) == 0 || got != behind[0]:
			return fmt.Sprintf("answer %d is to %s, the backend's request is %.1q", n, got, behind)
		case sure && rerr != nil:
			return fmt.Sprintf("answer %d is to %s, net/http sees no request: %v", n, got, rerr)
		case sure && got != want:
			return fmt.Sprintf("answer %d is to %s, net/http sees %s", n, got, want)
		}
		behind = behind[1:]
	}
}

// excused reports whether net/http may refuse what we take: blanks before a
// chunk extension, which RFC 9112 section 7.1.1 has a recipient take; a Trailer
// field that announces what is dropped; extensions that are long in sum.
func excused(in []byte, err error) bool {
	s := err.Error()
	return strings.Contains(s, "invalid byte in chunk length") && (bytes.Contains(in, []byte(" ;")) || bytes.Contains(in, []byte("\t;"))) ||
		strings.Contains(s, "bad trailer key") || strings.Contains(s, "too much overhead") || strings.Contains(s, "suspiciously long trailer")
}

// nextRequest reads a request off what the client sent, and its echo.
func nextRequest(br *bufio.Reader) (method, echo string, err error) {
	for {
		if b, _ := br.Peek(2); string(b) != "\r\n" {
			break
		}
		_, _ = br.Discard(2)
	}
	q, err := http.ReadRequest(br)
	if err != nil {
		return "", "", err
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return q.Method, "", err
	}
	target, host := q.RequestURI, q.Host
	if _, after, ok := strings.Cut(target, "://"); ok && target[0] != '/' {
		target = strings.TrimPrefix(after, q.URL.Host)
		switch {
		case target == "" && q.Method == "OPTIONS":
			target = "*"
		case target == "" || target[0] == '?':
			target = "/" + target
		}
	}
	if host == "" && !q.ProtoAtLeast(1, 1) {
		host = "127.0.0.1:80" // HTTP/1.0 may leave it out; the address is put in
	}
	return q.Method, echoOf(q.Method, target, host, body), nil
}

// nextAnswer reads the next final answer, body and all, and what is behind it.
// io.EOF: there is none.
func nextAnswer(out []byte, method string) (*http.Response, []byte, error) {
	br := bufio.NewReaderSize(bytes.NewReader(out), len(out)+16)
	for {
		if _, err := br.Peek(1); err != nil {
			return nil, nil, err
		}
		res, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return nil, nil, err
		}
		if slices.Contains([]int{100, 102, 103}, res.StatusCode) {
			continue
		}
		_, err = io.Copy(io.Discard, res.Body)
		rest, _ := io.ReadAll(br)
		return res, rest, err
	}
}
