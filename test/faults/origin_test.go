package faults

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"outrigger/test/harness"
)

// childEnv turns this test binary into a backend. It names the file to which
// all backends append the IDs of POST requests as they begin.
const childEnv = "OUTRIGGER_FAULTS_POSTS"

const (
	smallSize  = 200
	bigSize    = 256 << 10
	postSize   = 64 << 10
	streamSize = 60 << 10
	streamStep = 4 << 10
	files      = 8 // of each size
)

// content is what everybody agrees to find under a name.
func content(name string, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(b) // never fails
	return b
}

func fileSize(name string) int {
	if strings.HasPrefix(name, "big") {
		return bigSize
	}
	return smallSize
}

// origin is the backend.
type origin struct {
	held    atomic.Int64 // requests that wait for their client to leave
	flooded atomic.Int64 // bytes
	posts   *os.File
}

// runOrigin serves on a port of its own, which it prints, until it is killed.
func runOrigin(posts string) int {
	f, err := os.OpenFile(posts, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, "backend:", err)
		return 1
	}
	o := &origin{posts: f}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /file/{name}", o.file)
	mux.HandleFunc("GET /close/{name}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		o.file(w, r)
	})
	mux.HandleFunc("GET /eof/{name}", o.eof)
	mux.HandleFunc("GET /stream/{name}", o.stream)
	mux.HandleFunc("POST /echo/{name}", o.echo)
	mux.HandleFunc("/hang", o.counted(o.hang))
	mux.HandleFunc("/drip", o.counted(o.drip))
	mux.HandleFunc("/flood", o.counted(o.flood))
	mux.HandleFunc("/sink", o.counted(o.sink))
	mux.HandleFunc("/upgrade", o.upgrade)
	mux.HandleFunc("/ctl/held", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, o.held.Load()) })
	mux.HandleFunc("/ctl/flooded", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, o.flooded.Load()) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		fmt.Println(ln.Addr())
		err = http.Serve(ln, mux)
	}
	fmt.Fprintln(os.Stderr, "backend:", err)
	return 1
}

func (o *origin) file(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	w.Header().Set("X-Id", r.Header.Get("X-Id"))
	w.Header().Set("Content-Length", strconv.Itoa(fileSize(name)))
	_, _ = w.Write(content(name, fileSize(name)))
}

// eof ends its body with the connection, as HTTP/1.0 did.
func (o *origin) eof(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	name := r.PathValue("name")
	fmt.Fprintf(rw, "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Id: %s\r\n\r\n", r.Header.Get("X-Id"))
	_, _ = rw.Write(content(name, fileSize(name)))
	_ = rw.Flush()
}

// stream sends its body in chunks, a little apart.
func (o *origin) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Id", r.Header.Get("X-Id"))
	for body := content(r.PathValue("name"), streamSize); len(body) > 0; body = body[streamStep:] {
		_, err := w.Write(body[:streamStep])
		if err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// echo sends the body back, which must be what its name says, or cut short
// visibly: a body that passes for whole and is not is complained of.
func (o *origin) echo(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(o.posts, r.Header.Get("X-Id"))
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	size, _ := strconv.Atoi(r.Header.Get("X-Size"))
	if !bytes.Equal(body, content(r.PathValue("name"), size)) {
		fmt.Fprintf(os.Stderr, "%s %s: a body of %d bytes is not the %d sent\n", r.Header.Get("X-Id"), r.URL, len(body), size)
	}
	w.Header().Set("X-Id", r.Header.Get("X-Id"))
	_, _ = w.Write(body)
}

func (o *origin) counted(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		o.held.Add(1)
		defer o.held.Add(-1)
		h(w, r)
	}
}

func (o *origin) hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func (o *origin) drip(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		_, _ = w.Write(make([]byte, 1<<10))
		_ = http.NewResponseController(w).Flush()
		time.Sleep(5 * time.Millisecond)
	}
}

func (o *origin) flood(w http.ResponseWriter, r *http.Request) {
	o.flooded.Store(0)
	for b := make([]byte, 32<<10); ; o.flooded.Add(int64(len(b))) {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

func (o *origin) sink(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }

// upgrade echoes over a connection that has left HTTP.
func (o *origin) upgrade(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "echo" {
		http.Error(w, "want Upgrade: echo", http.StatusBadRequest)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	o.held.Add(1)
	defer o.held.Add(-1)
	defer conn.Close()
	fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	_, _ = io.Copy(conn, rw)
}

// startOrigin starts one as a child and returns its address.
func startOrigin(posts string, complaints io.Writer) (*harness.Process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	p, err := harness.StartProcess(harness.Spec{
		Name: "backend", Path: self, Env: append(os.Environ(), childEnv+"="+posts), Stdout: w, Stderr: complaints,
	})
	_ = w.Close()
	if err != nil {
		return nil, "", err
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		p.Kill()
		return nil, "", fmt.Errorf("a backend does not say where it listens: %w", err)
	}
	return p, strings.TrimSpace(line), nil
}

// sentTwice returns the IDs that the file of POST requests has more than once.
func sentTwice(posts string) (ids []string, err error) {
	b, err := os.ReadFile(posts)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for id := range strings.FieldsSeq(string(b)) {
		if seen[id] {
			ids = append(ids, id)
		}
		seen[id] = true
	}
	return ids, nil
}

const nginxConf = `daemon off; master_process off; pid nginx.pid; error_log stderr error;
events {}
http {
	access_log off; sendfile on;
	client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
	upstream origin { server %[2]s; keepalive 16; }
	map $http_upgrade $how { default upgrade; "" ""; }
	server {
		listen 127.0.0.1:%[1]d; root root;
		location /file/ { add_header X-Id $http_x_id; }
		location / {
			proxy_pass http://origin; proxy_buffering off; proxy_http_version 1.1;
			proxy_set_header Connection $how; proxy_set_header Upgrade $http_upgrade;
		}
	}
}
`

// startNginx starts an nginx in dir that serves the files itself and passes the
// rest on.
func startNginx(ctx context.Context, path, dir, origin string) (*harness.Process, string, error) {
	ports, err := harness.FreePorts(1)
	if err != nil {
		return nil, "", err
	}
	conf := fmt.Sprintf(nginxConf, ports[0], origin)
	err = errors.Join(
		os.MkdirAll(filepath.Join(dir, "root", "file"), 0o755),
		os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o644),
	)
	for i := range files {
		for _, name := range []string{fmt.Sprint("small-", i), fmt.Sprint("big-", i)} {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, "root", "file", name), content(name, fileSize(name)), 0o644))
		}
	}
	if err != nil {
		return nil, "", err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	p, err := startListening(ctx, addr, harness.Spec{
		Path: path, Args: []string{"-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr"},
	})
	return p, addr, err
}

// startListening starts a child and waits until it accepts connections at addr.
func startListening(ctx context.Context, addr string, spec harness.Spec) (*harness.Process, error) {
	var out output
	spec.Stdout, spec.Stderr = &out, &out
	p, err := harness.StartProcess(spec)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return p, nc.Close()
		}
		select {
		case <-p.Done():
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
			continue
		}
		p.Kill()
		return nil, fmt.Errorf("%s does not listen at %s: %w\n%s", spec.Path, addr, err, out.String())
	}
}
