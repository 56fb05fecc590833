package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"outrigger/test/harness"
)

// What the backends serve. The small answer is 66 bytes.
const (
	smallPath = "/"
	smallBody = "hello from the backend: a small answer of some sixty-six bytes..\r\n"
	postPath  = "/post"
	postBody  = "ok\n"
	postSize  = 16 << 10
	forPath   = "/forwarded-for" // answers the X-Forwarded-For it was sent
)

var staticFiles = map[string]int{"64k": 64 << 10, "1m": 1 << 20}

// backends is one NGINX that listens on three ports.
type backends struct {
	ports  []int
	status int // port of its own figures
	proc   *harness.Process
}

func (s *backends) addr(i int) string { return "127.0.0.1:" + strconv.Itoa(s.ports[i]) }

// backendConfig serves a POST only when all of its body is there, which a
// plain "return" does not wait for: the mirror module reads it before the
// static handler, which refuses the method, for which 200 is answered.
func (b *bench) backendConfig(s *backends) string {
	var listen strings.Builder
	for _, port := range s.ports {
		fmt.Fprintf(&listen, " listen 127.0.0.1:%d backlog=4096;", port)
	}
	return b.nginxHead("backend") + `
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; tcp_nopush on;
  open_file_cache max=10; open_file_cache_valid 600s; client_body_buffer_size 32k;
  ` + b.nginxTemp("backend") + `
  server {` + listen.String() + `
    root ` + b.static + `;
    location = / { return 200 "` + strings.ReplaceAll(smallBody, "\r\n", `\r\n`) + `"; }
    location = ` + forPath + ` { return 200 "$http_x_forwarded_for"; }
    location = ` + postPath + ` { mirror /read; mirror_request_body on; error_page 405 =200 @ok; }
    location = /read { internal; return 204; }
    location @ok { return 200 "` + strings.ReplaceAll(postBody, "\n", `\n`) + `"; }
  }
  server { listen 127.0.0.1:` + strconv.Itoa(s.status) + `; location / { stub_status; } }
}
`
}

func (b *bench) startBackends(ctx context.Context) error {
	ports, err := harness.FreePorts(4)
	if err != nil {
		return err
	}
	s := &backends{ports: ports[:3], status: ports[3]}
	b.backends = s
	// The static handler looks for a file before it refuses a method.
	if err := os.WriteFile(filepath.Join(b.static, postPath[1:]), nil, 0o600); err != nil {
		return err
	}
	if s.proc, err = b.startNginx("backend", b.backendConfig(s), b.loadCPU); err != nil {
		return err
	}
	if err := await(ctx, s.proc, "backends", func() error { return b.checkContent(ctx, s.addr(0)) }); err != nil {
		return fmt.Errorf("%w\n%s", err, b.logOf("backend"))
	}
	return checkBodyIsRead(s.addr(0))
}

// checkContent fetches everything once, from a backend or through a proxy.
func (b *bench) checkContent(ctx context.Context, addr string) error {
	if body, err := b.get(ctx, addr, smallPath); err != nil || body != smallBody {
		return fmt.Errorf("GET %s: %q, %w", smallPath, body, orUnexpected(err))
	}
	for name, size := range staticFiles {
		if body, err := b.get(ctx, addr, "/"+name); err != nil || len(body) != size {
			return fmt.Errorf("GET /%s: %d bytes, %w", name, len(body), orUnexpected(err))
		}
	}
	resp, err := b.http.Post("http://"+addr+postPath, "text/plain", bytes.NewReader(make([]byte, postSize)))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != postBody || resp.StatusCode != 200 {
		return fmt.Errorf("POST %s: %s, %q, %w", postPath, resp.Status, body, orUnexpected(err))
	}
	return nil
}

func orUnexpected(err error) error {
	if err == nil {
		return errors.New("which is not what the backend sends")
	}
	return err
}

// get fetches a path; anything but 200 is an error.
func (b *bench) get(ctx context.Context, addr, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return getWith(ctx, b.http, "http://"+addr+path)
}

// checkBodyIsRead makes sure that a POST is answered when its body is complete
// and not before.
func checkBodyIsRead(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	half := bytes.Repeat([]byte{'x'}, postSize/2)
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", postPath, postSize)
	if _, err := conn.Write(append([]byte(head), half...)); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	if n, err := conn.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the backend does not wait for the body of a POST: after half of it, it sent %q (%v)", buf[:n], err)
	}
	if _, err := conn.Write(half); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if n, err := conn.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200 ") {
		return fmt.Errorf("the backend answers a POST with %q (%v)", buf[:n], err)
	}
	return nil
}

// nginxCounts are what stub_status tells.
type nginxCounts struct{ accepts, requests int64 }

// counts asks the backends how much they have served. Asking is counted too.
func (b *bench) counts(ctx context.Context) (nginxCounts, error) {
	text, err := b.get(ctx, "127.0.0.1:"+strconv.Itoa(b.backends.status), "/")
	if err != nil {
		return nginxCounts{}, fmt.Errorf("ask the backends for their figures: %w", err)
	}
	return parseStubStatus(text)
}

// settle waits until what an earlier load left in flight is worked off, so that
// it is not taken for a part of the next: when the backends were asked nothing
// for three looks, for a proxy may not get to run between two.
func (b *bench) settle(ctx context.Context) error {
	last, err := b.counts(ctx)
	for quiet := 0; quiet < 3; {
		if err != nil {
			return err
		}
		if err := pause(ctx, 30*time.Millisecond); err != nil {
			return err
		}
		var now nginxCounts
		now, err = b.counts(ctx)
		if quiet++; now.requests != last.requests+1 { // more than our asking
			quiet = 0
		}
		last = now
	}
	return err
}

// parseStubStatus reads the third line: accepts, handled, requests.
func parseStubStatus(text string) (nginxCounts, error) {
	var c nginxCounts
	var handled int64
	lines := strings.Split(text, "\n")
	if len(lines) < 3 {
		return c, fmt.Errorf("not NGINX's status: %q", text)
	}
	if _, err := fmt.Sscan(lines[2], &c.accepts, &handled, &c.requests); err != nil {
		return c, fmt.Errorf("not NGINX's status: %q: %w", text, err)
	}
	return c, nil
}
