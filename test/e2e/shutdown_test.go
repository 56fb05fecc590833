package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shutdownRig is a sidecar with one backend.
func shutdownRig(t *testing.T, grace string) (*sidecar, *backend) {
	t.Helper()
	cat, name := sharedCatalog(t), uniqueService(t)
	a := startBackend(t, "a")
	cat.register(name, a)
	s := startSidecar(t, sidecarSpec{grace: grace, services: oneService(name, "")})
	s.awaitReady(1)
	return s, a
}

func (s *sidecar) awaitListenerClosed() {
	s.t.Helper()
	eventually(s.t, 10*time.Second, "the listener to be closed", func() error { return refused(s.addr()) })
}

func TestSigtermUnderLoad(t *testing.T) {
	t.Parallel()
	s, a := shutdownRig(t, "20s")
	a.sleep(3 * time.Millisecond)
	short := startLoad(t, loadSpec{addr: s.addr(), clients: 8, untilRefused: true})
	long := startLoad(t, loadSpec{addr: s.addr(), clients: 4, path: "/stream", untilRefused: true, whole: func(r reply) error {
		if lines := strings.Split(string(r.body), "\n"); len(lines) != streamLines+2 || !strings.HasSuffix(string(r.body), streamEnd) {
			return fmt.Errorf("the stream was cut: %q", r.body)
		}
		return nil
	}})
	short.awaitMore(200)
	long.awaitMore(4)
	a.awaitStreams(4)

	s.proc.signal(t, syscall.SIGTERM)
	if status := s.proc.ended(t, 20*time.Second); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	for name, l := range map[string]*load{"short": short, "long": long} {
		saw := l.join()
		saw.clean(t)
		t.Logf("%s requests: %d answered, %d connections refused before a word", name, saw.ok, saw.unheard)
		if saw.unheard > l.spec.clients {
			t.Errorf("%d new connections were reset, of %d clients", saw.unheard, l.spec.clients)
		}
	}
}

// awaitStreams waits until n requests are in the app at once.
func (b *backend) awaitStreams(n int64) {
	b.t.Helper()
	eventually(b.t, 20*time.Second, fmt.Sprintf("%d requests at once in %s", n, b.name), func() error {
		if got := b.stats().InFlight; got < n {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
}

func TestSigtermLetsALongRequestFinish(t *testing.T) {
	t.Parallel()
	s, a := shutdownRig(t, "1m")
	idle := &client{addr: s.addr()} // a kept-alive connection with nothing to do
	defer idle.close()
	if _, err := idle.get("/"); err != nil {
		t.Fatal(err)
	}
	running := send(s.addr(), "/hold")
	a.awaitHeld(1)
	s.proc.signal(t, syscall.SIGTERM)
	s.awaitListenerClosed()
	running.waiting(t)
	if r := get(t, s.admin, "/readyz"); r.status != 503 {
		t.Errorf("/readyz while draining: %d, want 503", r.status)
	}
	if r := get(t, s.admin, "/healthz"); r.status != 200 {
		t.Errorf("/healthz while draining: %d, want 200", r.status)
	}
	a.release()
	if r := running.answer(t); string(r.body) != "held by a\n" {
		t.Errorf("the request that was running ended with %q", r.body)
	}
	if status := s.proc.ended(t, 20*time.Second); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
}

func TestSecondSignalExitsAtOnce(t *testing.T) {
	t.Parallel()
	s, a := shutdownRig(t, "1m")
	running := send(s.addr(), "/hold")
	a.awaitHeld(1)
	s.proc.signal(t, syscall.SIGTERM)
	s.awaitListenerClosed()
	running.waiting(t)
	s.proc.signal(t, syscall.SIGTERM)
	if status := s.proc.ended(t, 5*time.Second); status == 0 {
		t.Error("exit status 0 with a request cut off, want another")
	}
	<-running.done
	if running.err == nil {
		t.Errorf("the request that was running got an answer: %d", running.r.status)
	}
}

// What is still running when the grace time is over is cut, visibly, and the
// exit status tells.
func TestGraceRunsOut(t *testing.T) {
	t.Parallel()
	s, a := shutdownRig(t, "1s")
	running := send(s.addr(), "/hold")
	a.awaitHeld(1)
	s.proc.signal(t, syscall.SIGTERM)
	if status := s.proc.ended(t, 20*time.Second); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	<-running.done
	if running.err == nil {
		t.Errorf("the request that was cut got an answer: %d", running.r.status)
	}
	a.awaitHeld(0)
}
