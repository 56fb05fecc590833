package healthcheck

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"outrigger/test/harness"
)

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }

func grpcConfig(service string) Config {
	c := DefaultConfig()
	c.Kind, c.GRPC.Service = "grpc", service
	return c
}

// grpcServer starts grpc-go's server and returns its address.
func grpcServer(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	in, err := cmd.StdinPipe() // its end, also by our death, ends the program
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// TestGRPCGo: what grpc-go's health service says is understood, with and without TLS.
func TestGRPCGo(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	program, err := harness.BuildGRPCHealth(ctx, t.TempDir())
	var missing *harness.GRPCHealthUnavailable
	if errors.As(err, &missing) && ctx.Err() == nil {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	const states = "-states==SERVING,web.v1.Shop=SERVING,ill=NOT_SERVING,odd=UNKNOWN"
	_, trust, s := secured(t, false, func(http.ResponseWriter, *http.Request) {})
	cert, key := pemFiles(t, s)
	plain := grpcServer(t, program, states)
	secure := grpcServer(t, program, states, "-cert", cert, "-key", key)
	for _, x := range []struct {
		name, addr string
		env        Env
	}{{"h2c", plain, Env{}}, {"TLS", secure, Env{TLS: trust}}} {
		for service, want := range map[string]string{
			"":            "",
			"web.v1.Shop": "",
			"ill":         "answered NOT_SERVING, expected SERVING",
			"odd":         "answered UNKNOWN, expected SERVING",
			"nobody":      `does not know the service "nobody"`,
		} {
			t.Run(x.name+" "+service, func(t *testing.T) {
				c := New(patient(grpcConfig(service)), x.env)
				for range 3 { // each on a connection of its own
					wants(t, c.Once(t.Context(), Target{Addr: x.addr}), want)
				}
			})
		}
	}
	without := grpcServer(t, program, "-without")
	wants(t, once(t, grpcConfig(""), without), "no service grpc.health.v1.Health")
	if err := once(t, grpcConfig(""), secure); err == nil {
		t.Error("h2c to a server by TLS")
	}
	err = New(patient(grpcConfig("")), Env{TLS: trust}).Once(t.Context(), Target{Addr: plain})
	if wants(t, err, "does not speak TLS"); !Unreachable(err) {
		t.Error(err)
	}
}

// frame is a message with its prefix.
func frame(message ...byte) string {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return string(append(b, message...))
}

// TestGRPCAnswers: what servers other than grpc-go may answer.
func TestGRPCAnswers(t *testing.T) {
	t.Parallel()
	well := frame(8, 1)
	// answer is the body and the trailers; head has headers.
	type answer struct {
		status   int
		head     map[string]string
		body     string
		trailers map[string]string
	}
	grpcHead := map[string]string{"Content-Type": "application/grpc"}
	ok := map[string]string{"Grpc-Status": "0"}
	for name, x := range map[string]struct {
		answer
		want string
	}{
		"serving":           {answer{200, grpcHead, well, ok}, ""},
		"+proto":            {answer{200, map[string]string{"Content-Type": "application/grpc+proto"}, well, ok}, ""},
		"other fields":      {answer{200, grpcHead, frame(0x12, 3, 'a', 'b', 'c', 8, 1, 0x1d, 1, 2, 3, 4), ok}, ""},
		"the last counts":   {answer{200, grpcHead, frame(8, 1, 8, 2), ok}, "NOT_SERVING"},
		"empty message":     {answer{200, grpcHead, frame(), ok}, "answered UNKNOWN"},
		"watch's state":     {answer{200, grpcHead, frame(8, 3), ok}, "SERVICE_UNKNOWN"},
		"a new state":       {answer{200, grpcHead, frame(8, 99), ok}, "unknown state 99"},
		"trailers only":     {answer{200, map[string]string{"Content-Type": "application/grpc", "Grpc-Status": "14", "Grpc-Message": "warming%20up%0a"}, "", nil}, `grpc-status 14: warming up`},
		"unimplemented":     {answer{200, map[string]string{"Content-Type": "application/grpc", "Grpc-Status": "12"}, "", nil}, "register it there"},
		"status 0, nothing": {answer{200, map[string]string{"Content-Type": "application/grpc", "Grpc-Status": "0"}, "", nil}, "no message"},
		"no status":         {answer{200, grpcHead, well, nil}, "no valid grpc-status"},
		"odd status":        {answer{200, grpcHead, well, map[string]string{"Grpc-Status": "fine"}}, "no valid grpc-status"},
		"status in head":    {answer{200, map[string]string{"Content-Type": "application/grpc", "Grpc-Status": "0"}, well, nil}, "no valid grpc-status"},
		"web page":          {answer{200, map[string]string{"Content-Type": "text/html"}, "<html>", nil}, "Content-Type is not application/grpc"},
		"404":               {answer{404, nil, "", nil}, "HTTP status 404"},
		"compressed":        {answer{200, grpcHead, "\x01" + well[1:], ok}, "compressed"},
		"too short":         {answer{200, grpcHead, well[:6], ok}, "not one whole message"},
		"two messages":      {answer{200, grpcHead, well + well, ok}, "not one whole message"},
		"half a prefix":     {answer{200, grpcHead, well[:3], ok}, "no message"},
		"broken message":    {answer{200, grpcHead, frame(8), ok}, "not a valid message"},
		"huge":              {answer{200, grpcHead, strings.Repeat("x", 1<<20), ok}, "longer than 4096 bytes"},
		"error after body":  {answer{200, grpcHead, well, map[string]string{"Grpc-Status": "2", "Grpc-Message": "oh"}}, "grpc-status 2: oh"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if want := frame(append([]byte{10, 3}, "web"...)...); err != nil || string(body) != want || r.URL.Path != healthMethod ||
					r.Header.Get("Te") != "trailers" || r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("Grpc-Timeout") != "20000m" || r.ProtoMajor != 2 {
					t.Errorf("%q, %v, %s %s %v", body, err, r.Proto, r.URL, r.Header)
				}
				for k, v := range x.head {
					w.Header().Set(k, v)
				}
				for k, v := range x.trailers {
					w.Header().Set(http.TrailerPrefix+k, v)
				}
				w.WriteHeader(x.status)
				_, _ = io.WriteString(w, x.body)
			})
			err := once(t, grpcConfig("web"), addr)
			wants(t, err, x.want)
			if Unreachable(err) || errors.Is(err, ErrNoVerdict) {
				t.Errorf("%v: not what happened", err)
			}
		})
	}
}

func h2cServer(t *testing.T, h http.HandlerFunc) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols), ErrorLog: quietLog()}
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

// TestGRPCLiars: what does not speak gRPC ends in time.
func TestGRPCLiars(t *testing.T) {
	t.Parallel()
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	_, trust, s := secured(t, false, func(http.ResponseWriter, *http.Request) {})
	for name, x := range map[string]struct {
		addr string
		env  Env
		want string
	}{
		"HTTP/1.1":       {handler(t, func(http.ResponseWriter, *http.Request) {}), Env{}, "does not speak gRPC"},
		"TLS without h2": {s.Listener.Addr().String(), Env{TLS: trust}, ""},
		"silence":        {rawServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), Env{}, "no end of it within 300ms"},
		"settings alone": {rawServer(t, func(c net.Conn) { _, _ = io.WriteString(c, settings); _, _ = io.Copy(io.Discard, c) }), Env{}, "no end of it within 300ms"},
		"closed":         {rawServer(t, func(net.Conn) {}), Env{}, ""},
		"reset":          {rawServer(t, func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }), Env{}, ""},
		"garbage": {rawServer(t, func(c net.Conn) {
			_, _ = io.WriteString(c, strings.Repeat("garbage", 100))
			_, _ = io.Copy(io.Discard, c)
		}), Env{}, ""},
		"pings for ever": {rawServer(t, func(c net.Conn) {
			_, _ = io.WriteString(c, settings)
			go func() { _, _ = io.Copy(io.Discard, c) }()
			for {
				if _, err := io.WriteString(c, "\x00\x00\x08\x06\x00\x00\x00\x00\x00pingping"); err != nil {
					return
				}
				time.Sleep(ms)
			}
		}), Env{}, "no end of it within 300ms"},
		"never ends": {h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}), Env{}, "no end of it within 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := grpcConfig("")
			if strings.Contains(x.want, "300ms") {
				cfg.Timeout = 300 * ms
			}
			begun := time.Now()
			err := New(patient(cfg), x.env).Once(t.Context(), Target{Addr: x.addr})
			if err == nil || errors.Is(err, ErrNoVerdict) {
				t.Errorf("got %v", err)
			}
			if x.want != "" {
				wants(t, err, x.want)
			}
			if time.Since(begun) > 2*patience {
				t.Error("it took for ever")
			}
		})
	}
}

// TestNothingStays: a check that is over leaves no goroutine, whatever it met.
func TestNothingStays(t *testing.T) {
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	before := runtime.NumGoroutine()
	for name, serve := range map[string]func(net.Conn){
		"silence":  func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"settings": func(c net.Conn) { _, _ = io.WriteString(c, settings); _, _ = io.Copy(io.Discard, c) },
		"closed":   func(net.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			addr := rawServer(t, serve)
			for _, cfg := range []Config{grpcConfig(""), httpConfig(nil)} {
				cfg.Timeout = 20 * ms
				c := New(cfg, Env{})
				for range 20 {
					if c.Once(t.Context(), Target{Addr: addr}) == nil {
						t.Error("healthy")
					}
				}
			}
		})
	}
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(10 * ms) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines were %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// FuzzGRPCAnswer: no answer panics, and what counts as serving says so.
func FuzzGRPCAnswer(f *testing.F) {
	f.Add([]byte(frame(8, 1)))
	f.Add([]byte(frame(8, 2)))
	f.Add([]byte(frame(0x12, 3, 'a', 'b', 'c', 8, 1)))
	f.Add([]byte(frame(0x0b, 0x0c)))
	f.Add([]byte(frame(8, 0x81, 0)))
	f.Add([]byte("\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		state, err := parseAnswer(body)
		if err != nil {
			return
		}
		if _ = servingError(state); len(body) < framePrefix || body[0] != 0 {
			t.Fatal("no frame, no error")
		}
		// The last varint of field 1, found in another way.
		want := uint64(0)
		for b := body[framePrefix:]; len(b) > 0; {
			number, kind, n := protowire.ConsumeField(b)
			if n < 0 {
				t.Fatalf("%q is taken", body)
			}
			if number == 1 && kind == protowire.VarintType {
				_, _, skip := protowire.ConsumeTag(b)
				want, _ = protowire.ConsumeVarint(b[skip:])
			}
			b = b[n:]
		}
		if state != want {
			t.Fatalf("%q is %d, want %d", body, state, want)
		}
	})
}

// FuzzHTTPAnswer: whatever comes back over HTTP, a check ends without a panic, and no
// part of what was sent is in its error.
func FuzzHTTPAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nword", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nword\r\n0\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nword", "HTTP/1.1 404 No\r\n\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nX: y",
		"HTTP/1.1 010\n\nHTTP/1.1 200\n\nword",
	} {
		f.Add([]byte(s))
	}
	c := DefaultConfig().HTTP
	c.BodyMatch, c.Headers = "word", map[string]string{"X-Key": "S3cr3tOfTheCheck"}
	p, err := newPlan(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		conn := &scripted{answer: answer}
		err := p.ask(conn, "127.0.0.1:80", time.Second)
		if err == nil && !well(answer) {
			t.Errorf("%q is healthy", answer)
		}
		if err != nil && (strings.Contains(err.Error(), "S3cr3tOfTheCheck") || len(errorText(err)) > 4*maxText+20) {
			t.Errorf("%q: %v", answer, err)
		}
	})
}

// well reports whether net/http finds an answer of 2xx or 3xx with "word" in it.
func well(answer []byte) bool {
	for r := bufio.NewReader(bytes.NewReader(answer)); ; {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return false
		}
		if resp.StatusCode/100 == 1 {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		return (err == nil || len(body) >= maxBody) && strings.Contains(string(body), "word") && (resp.StatusCode/100 == 2 || resp.StatusCode/100 == 3)
	}
}

// scripted is a connection whose answer is at hand.
type scripted struct {
	net.Conn
	answer []byte
}

func (s *scripted) Write(b []byte) (int, error) { return len(b), nil }

func (s *scripted) Read(b []byte) (int, error) {
	if len(s.answer) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.answer)
	s.answer = s.answer[n:]
	return n, nil
}

func TestErrorText(t *testing.T) {
	long := errorText(errors.New(strings.Repeat("ä", 1000)))
	if len(long) > maxText+3 || !strings.HasSuffix(long, "...") {
		t.Errorf("%d bytes", len(long))
	}
	if got := errorText(fmt.Errorf("a\nb\x1b[31m")); strings.ContainsAny(got, "\n\x1b") {
		t.Errorf("%q", got)
	}
}
