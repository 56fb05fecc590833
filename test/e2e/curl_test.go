package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// needs skips a test whose tool is not there, or does not work.
func needs(t *testing.T, tool string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), tool, "--version").CombinedOutput(); err != nil {
		t.Skipf("takes %s: %v %s", tool, err, out)
	}
}

// curl runs curl and returns what it printed, and its exit status.
func curl(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), slack(time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", append([]string{"--silent", "--show-error", "--noproxy", "*"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("curl %v: %v", args, err)
	}
	if stderr.Len() > 0 {
		t.Logf("curl %v: %s", args, stderr.Bytes())
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// curled is curl that must succeed.
func curled(t *testing.T, args ...string) string {
	t.Helper()
	out, status := curl(t, args...)
	if status != 0 {
		t.Fatalf("curl %v ended with status %d", args, status)
	}
	return out
}

// randomFile makes a file that no coincidence resembles.
func randomFile(t *testing.T, path string, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return data
}

// startPython serves a folder with python3 -m http.server and returns its port.
func startPython(t *testing.T, dir string) int {
	t.Helper()
	port := freePort(t)
	start(t, harness.Spec{
		Name: "python3 -m http.server", Path: "python3",
		Args: []string{"-m", "http.server", strconv.Itoa(port), "--bind", "127.0.0.1", "--directory", dir},
	})
	eventually(t, 20*time.Second, "python's server", func() error {
		c, err := net.Dial("tcp", loopback(port))
		if err != nil {
			return err
		}
		return c.Close()
	})
	return port
}

// A configuration as a newcomer writes it, with python and curl.
func TestHandWritten(t *testing.T) {
	t.Parallel()
	needs(t, "python3")
	needs(t, "curl")
	root, name := t.TempDir(), uniqueService(t)
	if err := os.WriteFile(filepath.Join(root, "hello.txt"), []byte("hello, world\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	big := randomFile(t, filepath.Join(root, "big.bin"), 16<<20)
	cat := sharedCatalog(t)
	for i := range 2 {
		port := startPython(t, root)
		if err := cat.client.Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: fmt.Sprint(name, "-", i), Name: name, Port: port, // no address: the node's
			Check: &api.AgentServiceCheck{HTTP: fmt.Sprintf("http://127.0.0.1:%d/hello.txt", port), Interval: "1s", Status: api.HealthPassing},
		}); err != nil {
			t.Fatal(err)
		}
	}

	dir, port, adminPort := t.TempDir(), freePort(t), freePort(t)
	text := fmt.Sprintf(`# The one file it takes.
consul { address = %q }
admin  { listen = "127.0.0.1:%d" }

service "files" {
  listen = "127.0.0.1:%d"
  discover {
    service = %q
  }
  policy "round_robin" {}
}
`, cat.addr, adminPort, port, name)
	file := filepath.Join(dir, "outrigger.hcl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, harness.Spec{Name: "sidecar", Path: suite.outrigger, Args: []string{"sidecar", "-config", file}})
	s := &sidecar{t: t, proc: p, admin: loopback(adminPort), addrs: map[string]string{"files": loopback(port)}}
	t.Cleanup(func() { s.endsWell(t) })
	eventually(t, 20*time.Second, "the sidecar to know both servers", func() error {
		s.alive()
		doc, err := s.statusDoc("")
		if err == nil && doc.Services[0].EndpointsReady != 2 {
			err = fmt.Errorf("%d are ready", doc.Services[0].EndpointsReady)
		}
		return err
	})

	url := "http://" + loopback(port)
	if got := curled(t, url+"/hello.txt"); got != "hello, world\n" {
		t.Errorf("GET: %q", got)
	}
	head := strings.ToLower(curled(t, "--head", url+"/big.bin"))
	if !strings.HasPrefix(head, "http/1.1 200 ") || !strings.Contains(head, fmt.Sprintf("\r\ncontent-length: %d\r\n", len(big))) {
		t.Errorf("HEAD: %q", head)
	}
	for path, want := range map[string]string{"/none": "404", "/": "200"} {
		if got := curled(t, "--output", os.DevNull, "--write-out", "%{http_code}", url+path); got != want {
			t.Errorf("GET %s: status %s, want %s", path, got, want)
		}
	}
	if got := curled(t, "--data", "x=1", "--output", os.DevNull, "--write-out", "%{http_code}", url+"/"); got != "501" {
		t.Errorf("POST, which http.server does not know: status %s, want its 501", got)
	}
	copied := filepath.Join(dir, "copy")
	curled(t, "--output", copied, url+"/big.bin")
	if got, err := os.ReadFile(copied); err != nil || !bytes.Equal(got, big) {
		t.Errorf("the download of %d bytes differs: %d bytes came, %v", len(big), len(got), err)
	}
	// http.server speaks HTTP/1.0 and closes; the client's connection stays.
	got := curled(t, "--write-out", "%{num_connects} ", "--output", os.DevNull, url+"/hello.txt", "--output", os.DevNull, url+"/hello.txt")
	if got != "1 0 " {
		t.Errorf("two requests opened %q connections, want one between them", got)
	}
}

// Uploads in both framings, with the "Expect: 100-continue" that curl sends.
func TestUploads(t *testing.T) {
	t.Parallel()
	needs(t, "curl")
	cat, name := sharedCatalog(t), uniqueService(t)
	cat.register(name, startBackend(t, "a"))
	s := startSidecar(t, sidecarSpec{services: oneService(name, "")})
	s.awaitReady(1)
	dir := t.TempDir()
	for _, size := range []int{0, 1000, 5 << 20} {
		file, back := filepath.Join(dir, "up"), filepath.Join(dir, "back")
		data := randomFile(t, file, size)
		for how, args := range map[string][]string{
			"length":           {"--data-binary", "@" + file},
			"length, expected": {"--header", "Expect: 100-continue", "--data-binary", "@" + file},
			"chunked":          {"--header", "Transfer-Encoding: chunked", "--data-binary", "@" + file},
		} {
			curled(t, append(args, "--fail", "--output", back, "http://"+s.addr()+"/echo")...)
			if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %s: %d bytes came back, %v", size, how, len(got), err)
			}
			_ = os.Remove(back) // curl leaves an old one for an empty answer
		}
	}
	if doc := s.web(); doc.Endpoints[0].FailuresTotal > 0 || doc.Traffic.ClientErrorsTotal > 0 {
		t.Errorf("failures %d, client errors %d, want none", doc.Endpoints[0].FailuresTotal, doc.Traffic.ClientErrorsTotal)
	}
}

// A client gives up: its request is abandoned at once, and nobody is blamed.
func TestClientGone(t *testing.T) {
	t.Parallel()
	needs(t, "curl")
	cat, name := sharedCatalog(t), uniqueService(t)
	a := startBackend(t, "a")
	id := cat.register(name, a)
	s := startSidecar(t, sidecarSpec{services: oneService(name, `breaker { consecutive_failures = 1 }`)})
	s.awaitReady(1)

	for i := range 3 {
		_, status := curl(t, "--max-time", "0.5", "http://"+s.addr()+"/hold")
		if status != 28 { // operation timed out
			t.Fatalf("curl ended with status %d, want 28", status)
		}
		left := time.Now()
		s.awaitEndpoint(id, "free", func(e *admin.EndpointDoc) bool { return e.InFlight == 0 })
		freed := time.Since(left)
		a.awaitHeld(0)
		t.Logf("the lease was free %v after the client had left, the backend told by %v", freed, time.Since(left))
		if freed > promptly {
			t.Errorf("the lease was freed after %v, want it within a second", freed)
		}
		eventually(t, 10*time.Second, "the backend to see its client hang up", func() error {
			if got := a.stats().Gone; got != int64(i+1) {
				return fmt.Errorf("it saw %d of %d", got, i+1)
			}
			return nil
		})
	}
	doc := s.web()
	if e := endpointOf(doc, id); !e.Ready || e.FailuresTotal > 0 || e.IgnoredTotal != 3 || e.Breaker.EjectionsTotal > 0 {
		t.Errorf("the endpoint was blamed: %+v, want 3 ignored and nothing else", e)
	}
	if got := doc.Traffic.ClientsGoneTotal; got != 3 {
		t.Errorf("clients gone: %d, want 3", got)
	}
	getMany(t, s.addr(), 3)
}
