package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// childEnv turns this test binary into one of the processes below.
const childEnv = "OUTRIGGER_E2E_CHILD"

func runChild(mode string, args []string) int {
	var err error
	switch {
	case mode == "backend" && len(args) == 2:
		err = runApp(args[0], args[1])
	case mode == "burner" && len(args) == 1:
		err = burn(args[0])
	default:
		err = fmt.Errorf("no child %q with arguments %q", mode, args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, mode+":", err)
		return 1
	}
	return 0
}

// burnt keeps the compiler from dropping the work; nobody reads it.
var burnt atomic.Int64

// burn keeps its processors busy until it is killed.
func burn(threads string) error {
	n, err := strconv.Atoi(threads)
	if err != nil {
		return err
	}
	for range n {
		go func() {
			for i := 0; ; i++ {
				burnt.Store(int64(i))
			}
		}()
	}
	select {}
}

// app is the small HTTP app that the sidecar balances over. A test tells it
// through /ctl/ how to behave, and asks it what it saw.
type app struct {
	name           string
	sleep          atomic.Int64 // of each request
	serial         atomic.Int64 // not 0: / serves one request after the other
	turn           chan struct{}
	status, health atomic.Int64 // what / and /health answer

	received, inFlight, gone atomic.Int64

	mu   sync.Mutex
	hold chan struct{} // closed: what is held goes on
	door net.Listener  // a second port, on which nothing is served
}

// appStats is what an app saw, without /ctl/ and /health.
type appStats struct {
	Received int64 // requests begun
	InFlight int64
	Gone     int64 // requests whose client hung up before the answer's end
}

// runApp serves until SIGTERM, then finishes what is in flight.
func runApp(name, listen string) error {
	a := &app{name: name, hold: make(chan struct{}), turn: make(chan struct{}, 1)}
	a.status.Store(http.StatusOK)
	a.health.Store(http.StatusOK)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ctl/set", a.set)
	mux.HandleFunc("GET /ctl/release", a.release)
	mux.HandleFunc("GET /ctl/stats", a.tell)
	mux.HandleFunc("GET /ctl/door", a.moveDoor)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(a.health.Load())) })
	mux.HandleFunc("/", a.counted(a.hello))
	mux.HandleFunc("/hold", a.counted(a.held))
	mux.HandleFunc("/cookies", a.counted(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%q\n", r.Header["Cookie"]) }))
	mux.HandleFunc("/stream", a.counted(stream))
	mux.HandleFunc("POST /echo", a.counted(echo))
	mux.HandleFunc("/ws", a.counted(webSocket))

	term, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	srv := &http.Server{Addr: listen, Handler: mux}
	finished := make(chan error, 1)
	go func() {
		<-term.Done()
		finished <- srv.Shutdown(context.Background()) // whoever wants a limit kills
	}()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-finished
}

func (a *app) set(w http.ResponseWriter, r *http.Request) {
	for key, values := range r.URL.Query() {
		n, err := strconv.ParseInt(values[0], 10, 64)
		field := map[string]*atomic.Int64{"sleep": &a.sleep, "serial": &a.serial, "status": &a.status, "health": &a.health}[key]
		if err != nil || field == nil {
			http.Error(w, "cannot set "+key, http.StatusBadRequest)
			return
		}
		field.Store(n)
	}
}

func (a *app) release(http.ResponseWriter, *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.hold)
	a.hold = make(chan struct{})
}

// moveDoor closes the second port and opens it at another address, if any.
func (a *app) moveDoor(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.door != nil {
		_ = a.door.Close()
		a.door = nil
	}
	var err error
	if at := r.FormValue("at"); at != "" {
		if a.door, err = net.Listen("tcp", at); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	}
}

func (a *app) tell(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(appStats{a.received.Load(), a.inFlight.Load(), a.gone.Load()})
}

func (a *app) counted(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a.received.Add(1)
		a.inFlight.Add(1)
		defer a.inFlight.Add(-1)
		w.Header().Set("X-Backend", a.name)
		h(w, r)
		if r.Context().Err() != nil {
			a.gone.Add(1)
		}
	}
}

// hello answers after the sleep that was set, whatever the path.
func (a *app) hello(w http.ResponseWriter, r *http.Request) {
	if a.serial.Load() != 0 {
		select {
		case a.turn <- struct{}{}:
			defer func() { <-a.turn }()
		case <-r.Context().Done():
			return
		}
	}
	select {
	case <-time.After(time.Duration(a.sleep.Load())):
	case <-r.Context().Done():
		return
	}
	w.WriteHeader(int(a.status.Load()))
	fmt.Fprintf(w, "hello from %s\n", a.name)
}

// held answers when it is released.
func (a *app) held(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	hold := a.hold
	a.mu.Unlock()
	select {
	case <-hold:
		fmt.Fprintf(w, "held by %s\n", a.name)
	case <-r.Context().Done():
	}
}

// echo sends the whole body back, in the framing it came in.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	_, _ = w.Write(body)
	_ = http.NewResponseController(w).Flush()
}

// streamLines is how many lines /stream sends, a little apart, before its last.
const streamLines = 20

// streamEnd is the last line of /stream.
const streamEnd = "the end\n"

func stream(w http.ResponseWriter, r *http.Request) {
	for i := range streamLines {
		fmt.Fprintf(w, "line %d\n", i)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-time.After(20 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
	}
	fmt.Fprint(w, streamEnd)
}
