package demo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// backend is the small HTTP app that the demo balances over. What one request
// costs, in sleep and in CPU, is set from outside while it runs.
type backend struct {
	name  string
	sleep atomic.Int64 // per request
	cpu   atomic.Int64 // per request, burnt
}

// RunBackend is the process behind `outrigger demo-backend`.
func RunBackend(ctx context.Context, args []string, stderr io.Writer) int {
	fs := flag.NewFlagSet("demo-backend", flag.ContinueOnError)
	fs.SetOutput(stderr)
	name := fs.String("name", "backend", "name to answer with")
	listen := fs.String("listen", "127.0.0.1:0", "ADDR:PORT to serve on")
	if fs.Parse(args) != nil {
		return 2
	}
	b := &backend{name: *name}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("POST /cost", b.setCost)
	mux.HandleFunc("GET /", b.serve)
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(stderr, "demo backend:", err)
		return 1
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(stderr, "demo backend:", err)
		return 1
	}
	return 0
}

func (b *backend) setCost(w http.ResponseWriter, r *http.Request) {
	for key, field := range map[string]*atomic.Int64{"sleep": &b.sleep, "cpu": &b.cpu} {
		d, err := time.ParseDuration(r.FormValue(key))
		if err != nil || d < 0 || d > time.Minute {
			http.Error(w, key+" must be a duration of at most 1m", http.StatusBadRequest)
			return
		}
		field.Store(int64(d))
	}
}

func (b *backend) serve(w http.ResponseWriter, r *http.Request) {
	burn(time.Duration(b.cpu.Load()))
	select {
	case <-time.After(time.Duration(b.sleep.Load())):
	case <-r.Context().Done():
		return
	}
	w.Header().Set("X-Backend", b.name)
	fmt.Fprintf(w, "hello from %s\n", b.name)
}

// burn does a fixed amount of work, about d of CPU time on a free core: more of
// the clock when somebody else has the core.
func burn(d time.Duration) {
	x := uint64(1)
	for range int64(d) { // about a nanosecond a round
		x = x*6364136223846793005 + 1442695040888963407
	}
	sink.Store(x)
}

// sink keeps the compiler from dropping the work; nobody reads it.
var sink atomic.Uint64

// RunBurner is the process behind `outrigger demo-burn`: it keeps its processor
// busy until it is told to stop.
func RunBurner(ctx context.Context, args []string, stderr io.Writer) int {
	n := 1
	if len(args) == 1 {
		var err error
		if n, err = strconv.Atoi(args[0]); err != nil || n < 1 || n > 64 {
			fmt.Fprintln(stderr, "demo burner: the number of threads must be 1 to 64")
			return 2
		}
	}
	for range n {
		go func() {
			for ctx.Err() == nil {
				burn(10 * time.Millisecond)
			}
		}()
	}
	<-ctx.Done()
	return 0
}
