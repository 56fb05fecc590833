package h1

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"outrigger/sidecar/balance"
)

// curl runs the real one; the test is skipped without it.
func curl(t *testing.T, stdin io.Reader, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl here")
	}
	cmd := exec.Command(path, append([]string{"-sS", "--max-time", "10"}, args...)...)
	cmd.Stdin = stdin
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()} // no proxy, no .curlrc
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("curl %q: %v\n%s", args, err, errs.String())
	}
	return string(out)
}

func TestCurl(t *testing.T) {
	t.Parallel()
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/hints" {
			w.Header().Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
		}
		sum := sha256.New()
		n, err := io.Copy(sum, q.Body)
		fmt.Fprintf(w, "%s %s %d %x %v %q %s", q.Method, q.URL, n, sum.Sum(nil)[:4], err, q.TransferEncoding, q.Header.Get("X-Forwarded-For"))
		if q.URL.Path == "/stream" {
			for i := range 3 {
				w.(http.Flusher).Flush()
				fmt.Fprintf(w, "\n%d", i)
			}
		}
	}))
	t.Cleanup(back.Close)
	r := newRig(t, quick(), balance.DefaultConfig(), back.URL)

	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB: curl asks with Expect
	sum := fmt.Sprintf("%x", sha256.Sum256(big))[:8]
	empty := fmt.Sprintf("%x", sha256.Sum256(nil))[:8]
	for _, tt := range []struct {
		stdin []byte
		args  []string
		want  string
	}{
		{nil, []string{r.url + "/?a=b"}, "GET /?a=b 0 " + empty + " <nil> [] 127.0.0.1"},
		{nil, []string{"-0", r.url + "/"}, "GET / 0 " + empty + " <nil> [] 127.0.0.1"},
		{nil, []string{r.url + "/stream"}, "GET /stream 0 " + empty + " <nil> [] 127.0.0.1\n0\n1\n2"},
		{nil, []string{"-0", r.url + "/stream"}, "GET /stream 0 " + empty + " <nil> [] 127.0.0.1\n0\n1\n2"},
		{big, []string{"-T", "-", r.url + "/"}, "PUT / 1048576 " + sum + ` <nil> ["chunked"] 127.0.0.1`},
		{big, []string{"--data-binary", "@-", r.url + "/"}, "POST / 1048576 " + sum + " <nil> [] 127.0.0.1"},
		{big, []string{"--data-binary", "@-", "-H", "Expect: 100-continue", r.url + "/"}, "POST / 1048576 " + sum + " <nil> [] 127.0.0.1"},
		{nil, []string{"-x", r.url, "http://elsewhere.example/p?q"}, "GET /p?q 0 " + empty + " <nil> [] 127.0.0.1"}, // absolute form
		{nil, []string{"-o", os.DevNull, "-w", "%{http_code} %{size_download} %{num_connects}\n", r.url, "-o", os.DevNull, r.url}, "200 40 1\n200 40 0\n"},
	} {
		if got := curl(t, bytes.NewReader(tt.stdin), tt.args...); got != tt.want && !strings.HasPrefix(tt.want, "200 40") {
			t.Errorf("curl %q: %q, want %q", tt.args, got, tt.want)
		} else if strings.HasPrefix(tt.want, "200 40") && !regexp.MustCompile(`^200 \d+ 1\n200 \d+ 0\n$`).MatchString(got) {
			t.Errorf("curl does not keep the connection: %q", got)
		}
	}
	if got := curl(t, nil, "-i", r.url+"/hints"); !strings.HasPrefix(got, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n") {
		t.Errorf("%q", got)
	}
	if got := curl(t, nil, "-I", r.url+"/"); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "Via: 1.1 outrigger\r\n") {
		t.Errorf("%q", got)
	}
	if got := r.totals(); got.Failures != 0 || got.Ignored != 0 {
		t.Errorf("%+v", got)
	}
	r.set()
	got := curl(t, nil, "-i", "-H", "Accept: application/json", r.url)
	if !regexp.MustCompile(`(?s)^HTTP/1\.1 503 Service Unavailable\r\n.*Retry-After: [1-9]\d*\r\n.*Outrigger-Reason: no_backends\r\n.*\{"status":503,.*\}\n$`).MatchString(got) {
		t.Errorf("%q", got)
	}
}

// python3 -m http.server answers in HTTP/1.0: every answer ends its
// connection, and a listing of a directory or a file has a length.
func TestPythonBackend(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	dir := t.TempDir()
	content := bytes.Repeat([]byte("line of a file\n"), 10_000)
	if err := os.WriteFile(filepath.Join(dir, "file.txt"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", dir, "0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	banner, err := bufio.NewReader(out).ReadString('\n')
	m := regexp.MustCompile(`port (\d+)`).FindStringSubmatch(banner)
	if m == nil {
		t.Fatalf("python3 says %q (%v)", banner, err)
	}
	go io.Copy(io.Discard, out)
	r := newRig(t, quick(), balance.DefaultConfig(), "127.0.0.1:"+m[1])
	c := r.dial()
	for range 5 {
		c.send(get1("/file.txt"))
		if a := c.want("GET", 200, string(content)); a.Header.Get("Via") != "1.0 outrigger" || a.Close {
			t.Errorf("%v", a.Header)
		}
	}
	c.send(lines("HEAD /file.txt HTTP/1.1", "Host: a"))
	if a := c.want("HEAD", 200, ""); a.ContentLength != int64(len(content)) {
		t.Errorf("%v", a.Header)
	}
	c.send(get1("/none"))
	if a := c.answer("GET"); a.StatusCode != 404 || a.err != nil {
		t.Errorf("%d %v", a.StatusCode, a.err)
	}
	c.send(post("Content-Length: 3") + "abc")
	if a := c.answer("POST"); a.StatusCode != 501 || a.err != nil {
		t.Errorf("%d %v", a.StatusCode, a.err)
	}
	if got := curl(t, nil, r.url+"/file.txt"); got != string(content) {
		t.Errorf("%d bytes by curl", len(got))
	}
	if got := r.totals(); got.Failures != 0 || got.Ignored != 0 {
		t.Errorf("%+v", got)
	}
}
