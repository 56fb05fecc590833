package declared

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// python starts a program that prints its port, and ends with the test.
func python(t *testing.T, program string, needs ...string) (url string) {
	t.Helper()
	bin, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	for _, m := range needs {
		if exec.Command(bin, "-c", "import "+m).Run() != nil {
			t.Skipf("python3 has no module %s", m)
		}
	}
	cmd := exec.Command(bin, "-c", program)
	cmd.Stderr = os.Stderr
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
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return "http://127.0.0.1:" + strings.TrimSpace(line)
}

// A backend in Flask that counts its requests and tells them in all three forms.
const flaskApp = `
import logging, threading
from flask import Flask, Response, jsonify
from werkzeug.serving import make_server
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app, lock, busy, go = Flask("app"), threading.Lock(), 0, threading.Event()

@app.route("/work")
def work():
    global busy
    with lock: busy += 1
    go.wait()
    with lock: busy -= 1
    return "done"

@app.route("/go")
def finish():
    go.set()
    return "ok"

@app.route("/metrics")
def metrics():
    return Response("# HELP app_busy Requests now.\n# TYPE app_busy gauge\napp_busy{pool=\"web\"} %d\n" % busy, mimetype="text/plain")

@app.route("/json")
def as_json():
    return jsonify(pools=[{"name": "web", "busy": busy}])

@app.route("/orca")
def as_orca():
    return Response("", headers={"endpoint-load-metrics": "TEXT named_metrics.in_flight=%d.0" % busy})

srv = make_server("127.0.0.1", 0, app, threaded=True)
print(srv.server_port, flush=True)
srv.serve_forever()
`

func TestFlask(t *testing.T) {
	url := python(t, flaskApp, "flask")
	var sources []*Source
	for path, set := range map[string]func(*Config){
		"/metrics": func(c *Config) { c.Metric, c.Labels = "app_busy", map[string]string{"pool": "web"} },
		"/json":    func(c *Config) { c.Field = "pools.0.busy" },
		"/orca":    func(*Config) {},
	} {
		cfg := patient(url + path)
		set(&cfg)
		cfg.Interval = time.Millisecond
		sources = append(sources, open(t, cfg, Env{ORCA: parseORCA}))
	}
	eventually := func(want float64) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			var got []float64
			for _, s := range sources {
				f, err := s.Read(context.Background())
				if err != nil {
					t.Fatalf("%s: %v", s.cfg.URL, err)
				}
				got = append(got, f.InFlight)
			}
			if got[0] == want && got[1] == want && got[2] == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the app tells %v in flight, %v are", got, want)
			}
		}
	}
	eventually(0)
	done := make(chan error, 7)
	for range cap(done) {
		go func() {
			res, err := http.Get(url + "/work")
			if err == nil {
				res.Body.Close()
			}
			done <- err
		}()
	}
	eventually(7)
	if res, err := http.Get(url + "/go"); err != nil {
		t.Fatal(err)
	} else {
		res.Body.Close()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	eventually(0)
}

// Python's own server speaks HTTP/1.0 and closes each connection.
func TestPythonHTTPServer(t *testing.T) {
	url := python(t, `
import http.server, json
class H(http.server.BaseHTTPRequestHandler):
    n = 0
    def do_GET(self):
        H.n += 1
        body = json.dumps({"app": {"requests": {"active": H.n}}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
srv = http.server.HTTPServer(("127.0.0.1", 0), H)
print(srv.server_port, flush=True)
srv.serve_forever()
`)
	cfg := patient(url)
	cfg.Field = "app.requests.active"
	var c clock
	s := open(t, cfg, c.env(nil))
	for i := range 5 {
		wantInFlight(t, s, float64(i+1))
		c.advance(time.Second)
	}
}
