//go:build unix

package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// roleEnv makes this test's binary another program: "serve" is a server of HTTP and of
// gRPC's health service, and "starve ADDRESS" a check without a descriptor left.
const roleEnv = "OUTRIGGER_HEALTHCHECK_TEST"

func TestMain(m *testing.M) {
	role, addr, _ := strings.Cut(os.Getenv(roleEnv), " ")
	switch role {
	case "serve":
		serve()
	case "starve":
		starve(addr)
	default:
		os.Exit(m.Run())
	}
}

func child(t testing.TB, role string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	return cmd
}

// serve prints an address and serves there until its input ends.
func serve() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(l.Addr())
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != healthMethod {
			fmt.Fprint(w, "ready\n")
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		_, _ = io.WriteString(w, frame(8, serving))
	})}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// starve uses up every descriptor and then checks addr.
func starve(addr string) {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 30, Max: 30}); err != nil {
		fmt.Println(err)
		return
	}
	c := New(patient(httpConfig(nil)), Env{})
	first := c.Once(context.Background(), Target{Addr: addr}) // opens what the runtime needs
	var held []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		held = append(held, f)
	}
	err := c.Once(context.Background(), Target{Addr: addr})
	fmt.Printf("%v, %d held, verdict %v: %v\n", first, len(held), !errors.Is(err, ErrNoVerdict), err)
	for _, f := range held {
		_ = f.Close()
	}
	fmt.Println(c.Once(context.Background(), Target{Addr: addr}))
}

// TestNoDescriptors: a process without a descriptor left says nothing of an endpoint.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	addr := handler(t, func(http.ResponseWriter, *http.Request) {})
	out, err := child(t, "starve "+addr).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	if !strings.HasPrefix(lines[0], "<nil>, ") || !strings.Contains(lines[0], "verdict false") || !strings.Contains(lines[0], "too many open files") || lines[1] != "<nil>" {
		t.Errorf("%s", out)
	}
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkThousandTargets reports what the checks of 1,000 endpoints at the default
// intervals cost this process over b.N times a second, with the server in another one.
//
//	go test -run '^$' -bench ThousandTargets -benchtime 20x ./discovery/healthcheck
func BenchmarkThousandTargets(b *testing.B) {
	cmd := child(b, "serve")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	var addr string
	if _, err := fmt.Fscan(out, &addr); err != nil {
		b.Fatal(err)
	}
	for _, kind := range Kinds() {
		b.Run(kind, func(b *testing.B) { thousand(b, kind, addr) })
	}
}

func thousand(b *testing.B, kind, addr string) {
	cfg := DefaultConfig()
	cfg.Kind = kind
	c := New(cfg, Env{})
	targets := make([]Target, 1000)
	for i := range targets {
		targets[i] = Target{ID: strconv.Itoa(i), Addr: addr}
	}
	c.SetTargets(targets)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, func(string, Verdict) {}) }()
	time.Sleep(2 * time.Second) // the first checks come fast
	total := func() (n uint64) {
		for _, s := range c.All() {
			if s.State != Up {
				b.Errorf("%+v", s)
			}
			n += s.Checks
		}
		return n
	}
	checks, used := total(), cpu()
	b.ResetTimer()
	for range b.N {
		time.Sleep(time.Second)
	}
	b.StopTimer()
	used, checks = cpu()-used, total()-checks
	b.ReportMetric(float64(checks)/float64(b.N), "checks/s")
	b.ReportMetric(100*used.Seconds()/float64(b.N), "%core")
	if checks > 0 {
		b.ReportMetric(float64(used.Microseconds())/float64(checks), "cpu-us/check")
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
