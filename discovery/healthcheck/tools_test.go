package healthcheck

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// server starts a program that serves on addr until the test ends. The test is skipped
// where there is none.
func server(t *testing.T, addr, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			t.Skipf("no %s here", name)
		}
	}
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for end := time.Now().Add(patience); ; time.Sleep(10 * ms) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ended:
			t.Skipf("%s does not run here: %v", name, cmd.ProcessState)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen on %s", name, addr)
		}
	}
}

// TestPython: http.server answers by HTTP/1.0, until the end of the connection.
func TestPython(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "health"), []byte("ready\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	server(t, addr, "python3", "-m", "http.server", port, "--bind", "127.0.0.1", "--directory", dir)
	for want, change := range map[string]func(*Config){
		"":             func(c *Config) { c.HTTP.Path, c.HTTP.BodyMatch = "/health", "^ready\n$" },
		"answered 404": func(c *Config) { c.HTTP.Path = "/none" },
		"answered 501": func(c *Config) { c.HTTP.Method = "OPTIONS" },
		"header Server does not": func(c *Config) {
			c.HTTP.HeaderMatch = map[string]string{"Server": "nginx"}
		},
	} {
		wants(t, once(t, httpConfig(change), addr), want)
	}
}

// TestNGINX: chunks, gzip that is not asked for, and hosts by name.
func TestNGINX(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	addr := freeAddr(t)
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
		events {}
		http {
			access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
			gzip on; gzip_min_length 1; gzip_types text/plain; default_type text/plain;
			server { listen %[2]s default_server; return 404; }
			server { listen %[2]s; server_name web.example; return 200 "ready, agent $http_user_agent"; }
		}`, dir, addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server(t, addr, "nginx", "-c", conf, "-e", filepath.Join(dir, "error.log"))
	wants(t, once(t, httpConfig(nil), addr), "answered 404")
	wants(t, once(t, httpConfig(func(c *Config) {
		c.HTTP.Host, c.HTTP.BodyMatch = "web.example", "^ready, agent outrigger-check$"
	}), addr), "")
	if err := once(t, grpcConfig(""), addr); err == nil {
		t.Error("gRPC by HTTP/1.1")
	}
}
