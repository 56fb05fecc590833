package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"outrigger/test/harness"
)

const ms = time.Millisecond

// patience is far beyond what anything here takes.
const patience = 20 * time.Second

func httpConfig(change func(*Config)) Config {
	c := DefaultConfig()
	c.Kind = "http"
	if change != nil {
		change(&c)
	}
	return c
}

// patient is c with a timeout that no machine is too busy for, unless c has one of its
// own.
func patient(c Config) Config {
	if c.Timeout == DefaultConfig().Timeout {
		c.Interval, c.Timeout = patience, patience
	}
	return c
}

// once makes one check of addr by a valid configuration.
func once(t *testing.T, c Config, addr string) error {
	t.Helper()
	c = patient(c)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return New(c, Env{}).Once(t.Context(), Target{ID: "a", Addr: addr})
}

// wants checks that an error has the text; "": that there is none.
func wants(t *testing.T, err error, text string) {
	t.Helper()
	switch {
	case text == "" && err != nil:
		t.Errorf("got %v, want success", err)
	case text != "" && (err == nil || !strings.Contains(err.Error(), text)):
		t.Errorf("got %v, want an error with %q", err, text)
	}
}

// handler serves HTTP until the test ends and returns the address.
func handler(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// rawServer calls serve with each connection, which is closed after it.
func rawServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// freeAddr is an address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := harness.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func TestHTTPAnswers(t *testing.T) {
	t.Parallel()
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/500", http.StatusFound)
		case "/500":
			w.WriteHeader(500)
		case "/204":
			w.WriteHeader(204)
		case "/chunked":
			for i := range 10 {
				fmt.Fprintf(w, "part %d\n", i)
				w.(http.Flusher).Flush()
			}
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		case "/late":
			_, _ = w.Write([]byte(strings.Repeat(" ", maxBody) + "word"))
		case "/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte{0x1f, 0x8b})
		case "/early":
			w.Header().Set("Link", "</a>; rel=preload")
			w.WriteHeader(103)
			w.WriteHeader(200)
		default:
			w.Header().Add("X-State", "one")
			w.Header().Add("X-State", "ready; load=3")
			fmt.Fprint(w, "all is well\n")
		}
	})
	for name, x := range map[string]struct {
		change func(*HTTPConfig)
		want   string
	}{
		"ok":                    {func(*HTTPConfig) {}, ""},
		"HEAD":                  {func(h *HTTPConfig) { h.Method = "HEAD" }, ""},
		"POST":                  {func(h *HTTPConfig) { h.Method = "POST" }, ""},
		"500":                   {func(h *HTTPConfig) { h.Path = "/500" }, "answered 500, expected 200-399"},
		"500 wanted":            {func(h *HTTPConfig) { h.Path, h.Statuses = "/500", []string{"204", "500-502"} }, ""},
		"204":                   {func(h *HTTPConfig) { h.Path, h.Statuses = "/204", []string{"204"} }, ""},
		"200 for 204":           {func(h *HTTPConfig) { h.Statuses = []string{"204", "206"} }, "answered 200, expected 204, 206"},
		"redirect not followed": {func(h *HTTPConfig) { h.Path = "/redirect" }, ""},
		"body":                  {func(h *HTTPConfig) { h.BodyMatch = `^all .* well\n$` }, ""},
		"other body":            {func(h *HTTPConfig) { h.BodyMatch = "ill" }, "the body, of 12 bytes, does not match body_match"},
		"chunked":               {func(h *HTTPConfig) { h.Path, h.BodyMatch = "/chunked", `part 8\npart 9\n$` }, ""},
		"endless":               {func(h *HTTPConfig) { h.Path = "/endless" }, ""},
		"endless, matched":      {func(h *HTTPConfig) { h.Path, h.BodyMatch = "/endless", "word" }, "first 65536 bytes do not match"},
		"too late in the body":  {func(h *HTTPConfig) { h.Path, h.BodyMatch = "/late", "word" }, "first 65536 bytes do not match"},
		"gzip unasked":          {func(h *HTTPConfig) { h.Path, h.BodyMatch = "/gzip", "word" }, "Content-Encoding"},
		"early hints":           {func(h *HTTPConfig) { h.Path = "/early" }, ""},
		"header":                {func(h *HTTPConfig) { h.HeaderMatch = map[string]string{"x-state": "^ready"} }, ""},
		"other header":          {func(h *HTTPConfig) { h.HeaderMatch = map[string]string{"x-state": "^load"} }, "header X-State does not match"},
		"no header":             {func(h *HTTPConfig) { h.HeaderMatch = map[string]string{"X-Other": ""} }, "no header X-Other"},
	} {
		t.Run(name, func(t *testing.T) {
			wants(t, once(t, httpConfig(func(c *Config) { x.change(&c.HTTP) }), addr), x.want)
		})
	}
}

// TestHTTPRequest: what a server sees of a check.
func TestHTTPRequest(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	addr := handler(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r })
	wants(t, once(t, httpConfig(nil), addr), "")
	r := <-seen
	if r.Host != addr || r.Method != "GET" || r.RequestURI != "/" || r.UserAgent() != "outrigger-check" || !r.Close || len(r.Header) != 2 {
		t.Errorf("host %q, %s %s, %v", r.Host, r.Method, r.RequestURI, r.Header)
	}
	wants(t, once(t, httpConfig(func(c *Config) {
		c.HTTP = HTTPConfig{Method: "PATCH", Path: "/a/b?c=%20d", Host: "web.example:8080", Statuses: []string{"200"},
			Headers: map[string]string{"authorization": "Bearer x", "user-agent": "me"}}
	}), addr), "")
	r = <-seen
	if r.Host != "web.example:8080" || r.Method != "PATCH" || r.RequestURI != "/a/b?c=%20d" || r.UserAgent() != "me" ||
		r.Header.Get("Authorization") != "Bearer x" || r.ContentLength != 0 || len(r.Header["User-Agent"]) != 1 {
		t.Errorf("host %q, %s %s, %v", r.Host, r.Method, r.RequestURI, r.Header)
	}
}

func TestPortOfItsOwn(t *testing.T) {
	t.Parallel()
	addr := handler(t, func(http.ResponseWriter, *http.Request) {})
	_, port, _ := net.SplitHostPort(addr)
	c := httpConfig(nil)
	if _, err := fmt.Sscan(port, &c.Port); err != nil {
		t.Fatal(err)
	}
	wants(t, once(t, c, freeAddr(t)), "")
}

// TestLiars: whatever answers, a check ends in time with the truth.
func TestLiars(t *testing.T) {
	t.Parallel()
	say := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			readHead(c)
			_, _ = io.WriteString(c, text)
		}
	}
	drip := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			readHead(c)
			for i := range text {
				if _, err := io.WriteString(c, text[i:i+1]); err != nil {
					return
				}
				time.Sleep(50 * ms)
			}
		}
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	secret := "Zm9vYmFyc2VjcmV0"
	for name, x := range map[string]struct {
		serve func(net.Conn)
		want  string
	}{
		"nothing":             {func(net.Conn) {}, "connect"}, // closed or reset, before or after the request
		"silence":             {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "wait for an answer: no end of it within 300ms"},
		"half a head":         {say("HTTP/1.1 200 OK\r\nContent-Le"), "closed within the head"},
		"half a body":         {say(ok + "Content-Length: 10\r\n\r\nhalf"), "broke off after 4 bytes"},
		"half a chunk":        {say(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhal"), "broke off"},
		"no last chunk":       {say(ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"), "broke off"},
		"until the end":       {say(ok + "\r\nword"), ""},
		"HTTP/1.0":            {say("HTTP/1.0 200 OK\r\n\r\nword"), ""},
		"100 continue":        {say("HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 4\r\n\r\nword"), ""},
		"100 for ever":        {say(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100)), "more than 8 answers 1xx"},
		"101":                 {say("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), "answered 101"},
		"garbage":             {say("\x00\x01\x02\xff\xfe garbage\r\n\r\n"), "not HTTP/1.1"},
		"SSH":                 {say("SSH-2.0-OpenSSH_9.2\r\n"), "not HTTP/1.1"},
		"HTTP/2":              {say("HTTP/2.0 200 OK\r\n\r\n"), "not HTTP/1.1"},
		"TLS alert":           {say("\x15\x03\x01\x00\x02\x02\x46"), "the answer is TLS"},
		"bad chunk":           {say(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nword"), "not valid HTTP/1.1"},
		"bad length":          {say(ok + "Content-Length: many\r\n\r\nword"), "not HTTP/1.1"},
		"endless head":        {say(ok + strings.Repeat("X: y\r\n", 20000)), "head is longer than"},
		"endless line":        {say(ok + "X: " + strings.Repeat("y", 1<<20)), "head is longer than"},
		"a byte at a time":    {drip(ok + "Content-Length: 4\r\n\r\nword"), "no end of it within 300ms"},
		"a body byte by byte": {func(c net.Conn) { say(ok + "Content-Length: 40\r\n\r\n")(c); drip(strings.Repeat("w", 40))(c) }, "read the answer's body: no end of it within 300ms"},
		"an echo":             {func(c net.Conn) { _, _ = io.Copy(c, c) }, "not HTTP/1.1"},
		"an echo of headers":  {func(c net.Conn) { say(ok + "Authorization " + secret + "\r\n\r\n")(c) }, "not HTTP/1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := rawServer(t, x.serve)
			begun := time.Now()
			err := once(t, httpConfig(func(c *Config) {
				if strings.Contains(x.want, "300ms") {
					c.Timeout = 300 * ms
				}
				c.HTTP.BodyMatch = "word"
				c.HTTP.Headers = map[string]string{"Authorization": secret}
				if strings.Contains(name, "body byte") {
					c.HTTP.BodyMatch = ""
				}
			}), addr)
			if name == "nothing" {
				if err == nil {
					t.Error("no error")
				}
			} else {
				wants(t, err, x.want)
			}
			if time.Since(begun) > 2*patience {
				t.Error("it took for ever")
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the secret is in %v", err)
			}
			if err != nil && (Unreachable(err) || errors.Is(err, ErrNoVerdict)) {
				t.Errorf("%v: not what happened", err)
			}
		})
	}
}

// readHead reads a request's head.
func readHead(c net.Conn) {
	var all []byte
	one := make([]byte, 1024)
	for !strings.HasSuffix(string(all), "\r\n\r\n") {
		n, err := c.Read(one)
		if err != nil {
			return
		}
		all = append(all, one[:n]...)
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	c.Kind = "tcp"
	wants(t, once(t, c, rawServer(t, func(net.Conn) {})), "")
	err := once(t, c, freeAddr(t))
	if wants(t, err, "nothing listens"); !Unreachable(err) {
		t.Errorf("%v: reachable?", err)
	}
	if err := once(t, c, "no address"); !Unreachable(err) {
		t.Error(err)
	}
}

// TestCalledOff: neither a check that is called off nor one without descriptors says
// anything about the endpoint, and one that runs into a deadline does.
func TestCalledOff(t *testing.T) {
	t.Parallel()
	silent := rawServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*ms, cancel)
	err := New(patient(httpConfig(nil)), Env{}).Once(ctx, Target{Addr: silent})
	if !errors.Is(err, ErrNoVerdict) {
		t.Errorf("called off: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*ms)
	defer cancel()
	err = New(patient(httpConfig(nil)), Env{}).Once(ctx, Target{Addr: silent})
	if errors.Is(err, ErrNoVerdict) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at a deadline: %v", err)
	}
}

// TestResolver: a name that does not exist is the endpoint's fault, a resolver that does
// not answer is not.
func TestResolver(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		dns  *net.DNSError
		ours bool
	}{
		{&net.DNSError{Err: "no such host", Name: "web", IsNotFound: true}, false},
		{&net.DNSError{Err: "server misbehaving", Name: "web", IsTemporary: true}, true},
		{&net.DNSError{UnwrapErr: context.DeadlineExceeded, Err: "i/o timeout", Name: "web", IsTimeout: true}, true},
	} {
		dial := func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: x.dns}
		}
		err := New(httpConfig(nil), Env{Dial: dial}).Once(t.Context(), Target{Addr: "web:80"})
		if errors.Is(err, ErrNoVerdict) != x.ours || Unreachable(err) == x.ours {
			t.Errorf("%v", err)
		}
	}
}
