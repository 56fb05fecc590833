package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// The proxies' names, and their order in tables: ours last.
const (
	haproxy = "haproxy"
	nginx   = "nginx"
	ours    = "outrigger"
)

func proxyNames() []string { return []string{haproxy, nginx, ours} }

// proxy is one that runs.
type proxy struct {
	name    string
	proc    *harness.Process
	pid     int    // of the process that does the work
	addr    string // where clients connect
	control string // HAProxy: path of its socket; NGINX and ours: address of the status or admin listener
}

// variant is what differs between cases in the proxies' configuration.
type variant struct {
	haproxyTimeouts string // "": none that could strike during a case
}

// maxConns is sized to the limit of open files: each client connection may
// need one more to a backend.
func (b *bench) maxConns() int { return int(min(b.files/2-500, 16000)) }

func (b *bench) nginxHead(name string) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root; " // else the worker may not read our folders
	}
	return fmt.Sprintf("%sworker_processes 1; daemon off; pid %s/%s.pid; error_log %s error;\nevents { worker_connections %d; }",
		user, b.dir, name, b.logPath(name), 2*b.maxConns())
}

// nginxTemp moves the folders that NGINX makes at start to ours.
func (b *bench) nginxTemp(name string) string {
	var s strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&s, "%s_temp_path %s/%s-%s; ", kind, b.dir, name, kind)
	}
	return s.String()
}

// nginxConfig is NGINX as a proxy. By default it would write large answers and
// bodies to disk, and read in pieces of 4 KiB; with buffers of 16 KiB, the size
// of HAProxy's, large answers cost it half. (For HAProxy, splicing was tried
// and costs more here than it saves.)
func (b *bench) nginxConfig(port, status int) string {
	var servers strings.Builder
	for i := range b.backends.ports {
		fmt.Fprintf(&servers, " server %s;", b.backends.addr(i))
	}
	return b.nginxHead(nginx) + `
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  proxy_max_temp_file_size 0; proxy_buffer_size 16k; proxy_buffers 16 16k; proxy_busy_buffers_size 64k;
  client_body_buffer_size 32k;
  ` + b.nginxTemp(nginx) + `
  upstream web { least_conn;` + servers.String() + ` keepalive 2048; keepalive_requests 1000000000; keepalive_timeout 600s; }
  server {
    listen 127.0.0.1:` + strconv.Itoa(port) + ` backlog=4096;
    location / {
      proxy_pass http://web; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
  server { listen 127.0.0.1:` + strconv.Itoa(status) + `; location / { stub_status; } }
}
`
}

func (b *bench) haproxyConfig(port int, socket string, v variant) string {
	timeouts := v.haproxyTimeouts
	if timeouts == "" {
		timeouts = "timeout client 600s\n  timeout server 600s"
	}
	var servers strings.Builder
	for i := range b.backends.ports {
		fmt.Fprintf(&servers, "\n  server web%d %s", i, b.backends.addr(i))
	}
	return fmt.Sprintf(`global
  nbthread 1
  maxconn %d
  stats socket %s mode 600 level admin
defaults
  mode http
  timeout connect 1s
  %s
  option forwardfor
  http-reuse always
frontend in
  bind 127.0.0.1:%d backlog 4096
  default_backend web
backend web
  balance leastconn%s
`, b.maxConns(), socket, timeouts, port, servers.String())
}

func (b *bench) ourConfig(port, adminPort int) string {
	return fmt.Sprintf("consul { address = %q }\nadmin { listen = \"127.0.0.1:%d\" }\nlog { level = \"warn\" }\nservice %q { listen = \"127.0.0.1:%d\" }\n",
		b.consul.Addr(), adminPort, serviceName, port)
}

// startProxies ends the proxies that run and starts fresh ones, so that no
// case sees the memory of another.
func (b *bench) startProxies(ctx context.Context, names []string, v variant) error {
	b.stopProxies()
	for _, name := range names {
		p, err := b.startProxy(ctx, name, v)
		if p != nil {
			b.proxies = append(b.proxies, p)
		}
		if err != nil {
			return fmt.Errorf("start %s: %w\n%s", name, err, b.logOf(name))
		}
	}
	return nil
}

func (b *bench) proxy(name string) *proxy {
	for _, p := range b.proxies {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (b *bench) stopProxies() {
	for _, p := range b.proxies {
		_ = p.proc.Stop(2 * time.Second) // it has to go either way, and Stop kills in the end
	}
	b.proxies = nil
}

// startProxy starts one and waits until it passes the checks. What was started
// is returned also with an error.
func (b *bench) startProxy(ctx context.Context, name string, v variant) (*proxy, error) {
	ports, err := harness.FreePorts(2)
	if err != nil {
		return nil, err
	}
	p := &proxy{name: name, addr: "127.0.0.1:" + strconv.Itoa(ports[0]), control: "127.0.0.1:" + strconv.Itoa(ports[1])}
	switch name {
	case haproxy:
		p.control = filepath.Join(b.dir, "haproxy.sock")
		p.proc, err = b.spawn(name, b.tools[name], b.haproxyConfig(ports[0], p.control, v), b.proxyCPU, nil, "-db", "-f")
	case nginx:
		p.proc, err = b.startNginx(name, b.nginxConfig(ports[0], ports[1]), b.proxyCPU)
	default:
		args := []string{"sidecar", "-config"}
		if b.profiling != "" {
			args = []string{"-profile", b.profiling, "-config"}
		}
		p.proc, err = b.spawn(name, b.binary, b.ourConfig(ports[0], ports[1]), b.proxyCPU, []string{"GOMAXPROCS=1"}, args...)
	}
	if err != nil {
		return nil, err
	}
	p.pid = p.proc.PID()
	err = await(ctx, p.proc, name, func() error {
		if name == ours {
			if err := b.allReady(ctx, p); err != nil {
				return err
			}
		}
		return b.checkContent(ctx, p.addr)
	})
	if err != nil {
		return p, err
	}
	if name == nginx {
		if p.pid, err = onlyChild(p.pid); err != nil {
			return p, err
		}
	}
	return p, b.checkForwardedFor(ctx, p)
}

// spawn writes a configuration and starts a program, on some processors or on
// all, with the file's name as the last argument.
func (b *bench) spawn(name, path, config string, cpus []int, env []string, args ...string) (*harness.Process, error) {
	file := filepath.Join(b.dir, name+".hcl") // ours wants the ending, the others do not care
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(b.logPath(name))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own copy
	return harness.StartProcess(harness.Spec{
		Name: name, Path: path, Args: append(args, file), Env: append(os.Environ(), env...),
		CPUs: cpus, Stdout: log, Stderr: log,
	})
}

func (b *bench) startNginx(name, config string, cpus []int) (*harness.Process, error) {
	file := filepath.Join(b.dir, name+".conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(b.logPath(name))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own copy
	return harness.StartProcess(harness.Spec{
		Name: name, Path: b.tools["nginx"], Args: []string{"-p", b.dir, "-c", file}, CPUs: cpus, Stdout: log, Stderr: log,
	})
}

func (b *bench) logPath(name string) string { return filepath.Join(b.dir, name+".log") }

func (b *bench) logOf(name string) string {
	text, _ := os.ReadFile(b.logPath(name)) // none is shown if there is none
	return lastLines(string(text))
}

// checkForwardedFor makes sure that a proxy does the work it is to do.
func (b *bench) checkForwardedFor(ctx context.Context, p *proxy) error {
	got, err := b.get(ctx, p.addr, forPath)
	if err == nil && got != "127.0.0.1" {
		err = fmt.Errorf("the backend was sent X-Forwarded-For %q, not the client's address", got)
	}
	return err
}

// status asks our admin listener.
func (b *bench) status(ctx context.Context, p *proxy) (*admin.ServiceDoc, error) {
	text, err := b.get(ctx, p.control, "/v1/status")
	if err != nil {
		return nil, err
	}
	var doc admin.StatusDoc
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return nil, err
	}
	if len(doc.Services) != 1 {
		return nil, fmt.Errorf("the status has %d services, not 1", len(doc.Services))
	}
	return &doc.Services[0], nil
}

func (b *bench) allReady(ctx context.Context, p *proxy) error {
	s, err := b.status(ctx, p)
	if err == nil && s.EndpointsReady != len(b.backends.ports) {
		err = fmt.Errorf("%d of %d endpoints are ready", s.EndpointsReady, len(b.backends.ports))
	}
	return err
}

// getWith fetches a URL; anything but 200 is an error.
func getWith(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}
