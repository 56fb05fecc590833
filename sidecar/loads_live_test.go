package sidecar

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/discovery"
	"outrigger/picker"
)

// A Flask backend that counts what is in it, and says so with every answer.
const flaskORCA = `
import logging, threading
from flask import Flask
from werkzeug.serving import make_server
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app, lock, busy, go = Flask("app"), threading.Lock(), 0, threading.Event()

@app.before_request
def begin():
    global busy
    with lock: busy += 1

@app.after_request
def tell(response):
    response.headers["endpoint-load-metrics"] = "TEXT named_metrics.in_flight:%d, rps_fractional:10, eps:1" % busy
    return response

@app.teardown_request
def end(_):
    global busy
    with lock: busy -= 1

@app.route("/hold")
def hold():
    go.wait()
    return "held"

@app.route("/go")
def finish():
    go.set()
    return "ok"

@app.route("/")
def root(): return "ok"

srv = make_server("127.0.0.1", 0, app, threaded=True)
print(srv.server_port, flush=True)
srv.serve_forever()
`

// flask starts the program, which prints its port, until the test ends.
func flask(t *testing.T, program string) (port int) {
	t.Helper()
	bin, err := exec.LookPath("python3")
	if err != nil || exec.Command(bin, "-c", "import flask").Run() != nil {
		t.Skip("there is no python3 with flask")
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
	if port, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return port
}

// Through the whole sidecar: a backend without an agent tells what others have
// in it, and the client sees the header too.
func TestLoadsOfAFlaskBackend(t *testing.T) {
	port := flask(t, flaskORCA)
	direct := "http://127.0.0.1:" + strconv.Itoa(port)
	cfg := DefaultConfig()
	cfg.Consul.Address = "127.0.0.1:1" // nobody: the test says who is there
	cfg.Admin.Listen = "127.0.0.1:0"
	s := DefaultService("web")
	s.Listen = "127.0.0.1:0"
	s.Balance.Picker.Policy = "resource"
	cfg.Services = []ServiceConfig{s}
	sc, err := New(cfg, hclog.NewNullLogger(), "test")
	if err != nil {
		t.Fatal(err)
	}
	svc := sc.services[0]
	svc.apply([]discovery.Instance{{ID: "a", Address: "127.0.0.1", Port: port, Weight: 1}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sc.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	get := func(url string) (string, error) {
		res, err := http.Get(url)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return res.Header.Get("Endpoint-Load-Metrics"), err
	}

	const others = 3
	held := make(chan error, others)
	for range others {
		go func() {
			_, err := get(direct + "/hold")
			held <- err
		}()
	}
	// What it declares is heard every 10 ms, and the others take time to get there.
	var load *picker.Load
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		header, err := get("http://" + sc.Addr("web").String() + "/")
		if err != nil || !strings.HasPrefix(header, "TEXT named_metrics.in_flight:") {
			t.Fatalf("the client got %q, %v", header, err)
		}
		if load = svc.balancer.Status().Endpoints[0].Load; load != nil && load.Others() == others {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the picture is %+v, and %d others are there", load, others)
		}
	}
	if load.InFlight != others+1 || load.OwnInFlight != 1 || load.Err != 0.1 || load.Cores != picker.Absent || !load.Listening {
		t.Errorf("%+v", load)
	}
	if st := svc.loads.stats(); st.Declared == 0 || st.DeclaredRefused != 0 {
		t.Errorf("%+v", st)
	}
	if _, err := get(direct + "/go"); err != nil {
		t.Fatal(err)
	}
	for range others {
		if err := <-held; err != nil {
			t.Error(err)
		}
	}
}
