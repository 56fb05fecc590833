package gauge

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const ms = time.Millisecond

// fleet is boards on a network in memory and one sender, in virtual time.
type fleet struct {
	t   *testing.T
	net *pipes
	*Sender
	out   lines
	ended []func()
}

// bubble runs f in virtual time.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, w *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &fleet{t: t, net: newPipes()}
		w.Sender = NewSender(cfg, SenderEnv{Dial: w.net.dial, Authorization: func(string) string { return "Bearer s3cret" }, Logger: w.out.logger()})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.Run(ctx)
		}()
		f(t, w)
		cancel()
		<-done
		for _, end := range w.ended {
			end()
		}
	})
}

// agent starts one. Its head is what its streams were opened with.
func (w *fleet) agent(id string) (*Board, *http.Header) {
	b := NewBoard(DefaultBoardConfig(), BoardEnv{})
	head := &http.Header{}
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		*head = r.Header
		b.ServeHTTP(rw, r)
	})}
	w.serve(srv, id)
	w.ended = append(w.ended, b.Close)
	return b, head
}

// serve serves until the end.
func (w *fleet) serve(srv *http.Server, id string) {
	l := w.net.listen(id)
	go srv.Serve(l)
	w.ended = append(w.ended, func() { srv.Close() })
}

// after lets virtual time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *fleet) sums(b *Board, total float64, streams int) {
	w.t.Helper()
	sums(w.t, b, time.Now(), total, streams)
}

func TestSenderCoalesces(t *testing.T) {
	bubble(t, DefaultConfig(), func(t *testing.T, w *fleet) {
		a, head := w.agent("a")
		b, _ := w.agent("b")
		fa, fb := newFlow(w.Sender, "a"), newFlow(w.Sender, "b")
		fa.add(2) // before there is an agent
		w.SetAgents(map[string]string{"a": "1", "b": "1"})
		after(spread + DefaultConfig().Interval)
		w.sums(a, 2, 1)
		w.sums(b, 0, 1)
		if (*head).Get("Authorization") != "Bearer s3cret" {
			t.Errorf("asked with %v", *head)
		}

		after(100 * ms) // aligned to nothing
		frames := a.Stats().Frames
		for i := range 20 { // one change each ms for an interval
			fa.add(1)
			if i < 19 {
				after(ms)
				if n := a.Stats().Frames; n != frames {
					t.Fatalf("%d frames after %d ms", n-frames, i+1)
				}
			}
		}
		after(ms)
		w.sums(a, 22, 1)
		if n := a.Stats().Frames - frames; n != 1 {
			t.Errorf("%d frames for one interval", n)
		}
		if n := b.Stats().Frames; n != 0 {
			t.Errorf("%d frames where nothing happened", n)
		}

		// A request shorter than the interval costs no frame.
		frames = a.Stats().Frames
		fa.add(1)
		after(5 * ms)
		fa.add(-1)
		after(50 * ms)
		if n := a.Stats().Frames - frames; n != 0 {
			t.Errorf("%d frames for nothing", n)
		}

		// Steady traffic: at most one frame per interval, the newest at the end.
		frames = a.Stats().Frames
		for range 1000 {
			fa.add(1)
			fb.add(1)
			after(ms)
		}
		if n := a.Stats().Frames - frames; n < 48 || n > 50 {
			t.Errorf("%d frames in a second", n)
		}
		after(20 * ms)
		w.sums(a, 1022, 1)
		w.sums(b, 1000, 1)
		if s := w.Stats(); s.Streams != 2 || s.Dropped != 0 || s.Frames != a.Stats().Frames+b.Stats().Frames {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestSenderRepeats(t *testing.T) {
	bubble(t, DefaultConfig(), func(t *testing.T, w *fleet) {
		a, _ := w.agent("a")
		f := newFlow(w.Sender, "a")
		w.SetAgents(map[string]string{"a": "1"})
		f.add(3)
		after(time.Second)
		w.sums(a, 3, 1)
		frames := a.Stats().Frames
		for range 100 {
			after(100 * ms)
			if _, _, age := a.Sum(time.Now()); age > Heartbeat {
				t.Fatalf("the gauge is %v old", age)
			}
		}
		if n := a.Stats().Frames - frames; n < 10 || n > 14 {
			t.Errorf("%d heartbeats in 10 s", n)
		}
		w.sums(a, 3, 1)
		// Requests come and go all the time, and at each flush there are as many as before.
		for range 5000 {
			f.add(1)
			f.add(-1)
			after(ms)
		}
		w.sums(a, 3, 1)
		if a.Stats().Expired != 0 {
			t.Error("it expired meanwhile")
		}
		f.add(-3)
		after(time.Second)
		frames = a.Stats().Frames
		after(time.Minute)
		if n := a.Stats().Frames - frames; n != 0 {
			t.Errorf("%d frames at 0", n)
		}
		w.sums(a, 0, 1)
	})
}

// TestCutOff: a sidecar that vanishes without a FIN is left out 3 s after its last frame.
func TestCutOff(t *testing.T) {
	bubble(t, DefaultConfig(), func(t *testing.T, w *fleet) {
		a, _ := w.agent("a")
		dead := NewSender(DefaultConfig(), SenderEnv{Dial: w.net.dial})
		ctx, cancel := context.WithCancel(context.Background())
		var cut sync.WaitGroup
		cable := make(chan net.Conn, 1)
		dead.env.Dial = func(ctx context.Context, id string) (net.Conn, error) {
			c, err := w.net.dial(ctx, id)
			cable <- c
			return &cuttable{c}, err
		}
		cut.Go(func() { dead.Run(ctx) })
		f := newFlow(dead, "a")
		dead.SetAgents(map[string]string{"a": "1"})
		f.add(5)
		alive := newFlow(w.Sender, "a")
		w.SetAgents(map[string]string{"a": "1"})
		alive.add(2)
		after(5 * time.Second)
		w.sums(a, 7, 2)
		cancel() // the process is gone, its connection hangs (cuttable never closes it)
		cut.Wait()
		synctest.Wait()
		last := time.Duration(0) // of its last frame: at most a heartbeat ago
		for total := 7.0; total == 7; total, _, _ = a.Sum(time.Now()) {
			after(10 * ms)
			if last += 10 * ms; last > Expiry {
				t.Fatal("it still counts")
			}
		}
		if last < Expiry-Heartbeat {
			t.Errorf("left out after only %v", last)
		}
		w.sums(a, 2, 1)
		if n := a.Stats().Open; n != 2 {
			t.Errorf("%d streams are open", n)
		}
		after(lost)
		a.Sum(time.Now())
		synctest.Wait()
		if n := a.Stats().Open; n != 1 {
			t.Errorf("%d streams are open in the end", n)
		}
		(<-cable).Close()
	})
}

// cuttable is a connection whose end the other side never hears of.
type cuttable struct{ net.Conn }

func (*cuttable) Close() error { return nil }

func TestAgentRestarts(t *testing.T) {
	bubble(t, DefaultConfig(), func(t *testing.T, w *fleet) {
		f := newFlow(w.Sender, "a")
		w.SetAgents(map[string]string{"a": "1"})
		f.add(4)
		after(5 * time.Second) // nobody there yet
		if n := w.net.dialled("a"); n < 3 || n > 12 {
			t.Errorf("%d dials in 5 s", n)
		}
		for round := range 3 {
			l := w.net.listen("a")
			b := NewBoard(DefaultBoardConfig(), BoardEnv{})
			srv := &http.Server{Handler: b}
			go srv.Serve(l)
			after(awayMost)
			w.sums(b, float64(4+round), 1)
			after(2 * healthy) // so that the next is its first failure
			srv.Close()
			b.Close()
			synctest.Wait()
			f.add(1) // while it is away
			if s := w.Stats(); s.Streams != 0 {
				t.Errorf("streams to nobody: %+v", s)
			}
		}
		before := w.net.dialled("a")
		after(10 * time.Minute)
		if n := w.net.dialled("a") - before; n < 60 || n > 130 {
			t.Errorf("%d dials in 10 min", n)
		}
	})
}

func TestOlderAgent(t *testing.T) {
	bubble(t, DefaultConfig(), func(t *testing.T, w *fleet) {
		srv := &http.Server{Handler: http.NotFoundHandler()}
		w.serve(srv, "a")
		f := newFlow(w.Sender, "a")
		w.SetAgents(map[string]string{"a": "1"})
		var times []time.Duration
		began := time.Now()
		for range 10 * 60 * 5 {
			n := w.net.dialled("a")
			f.add(1)
			after(200 * ms)
			if w.net.dialled("a") > n {
				times = append(times, time.Since(began))
			}
		}
		for i := 1; i < len(times); i++ {
			if d := times[i] - times[i-1]; d < 10*time.Second-200*ms || d > refusedMost+200*ms {
				t.Errorf("asked again after %v", d)
			}
		}
		if len(times) < 8 {
			t.Errorf("asked %d times in 10 min", len(times))
		}
		if n := w.out.count("takes no gauges"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		// It is replaced by one that does.
		srv.Close()
		b, _ := w.agent("a")
		after(refusedMost + time.Second)
		w.sums(b, float64(f.n.Load()), 1)
	})
}

func TestMembership(t *testing.T) {
	bubble(t, DefaultConfig(), func(t *testing.T, w *fleet) {
		a, _ := w.agent("a")
		f := newFlow(w.Sender, "a")
		alone := newFlow(w.Sender, "without")
		w.SetAgents(map[string]string{"a": "1", "other": "1"})
		f.add(3)
		alone.add(1)
		after(time.Second)
		w.sums(a, 3, 1)
		if w.net.dialled("without")+w.net.dialled("other") != 0 {
			t.Error("dialled an agent that is not there")
		}

		// It moves: the old stream goes, the new one has the whole figure.
		w.SetAgents(map[string]string{"a": "2"})
		after(0)
		w.sums(a, 0, 0)
		after(time.Second)
		w.sums(a, 3, 1)

		// It leaves with leases open: the stream stays until they end.
		f.Retire()
		w.SetAgents(nil)
		after(10 * time.Second)
		w.sums(a, 3, 1)
		f.add(-2)
		after(time.Second)
		w.sums(a, 1, 1)
		f.add(-1)
		after(time.Second)
		w.sums(a, 0, 0)
		f.add(1) // a straggler with an old snapshot; nothing to tell any more
		after(time.Second)
		w.sums(a, 0, 0)

		// One with nothing in flight goes at once, one on its way never comes.
		g := newFlow(w.Sender, "a")
		w.SetAgents(map[string]string{"a": "3"})
		after(time.Second)
		w.sums(a, 0, 1)
		g.Retire()
		after(time.Second)
		w.sums(a, 0, 0)
		h := newFlow(w.Sender, "a")
		h.Retire()
		after(time.Second)
		w.sums(a, 0, 0)
		if s := w.Stats(); s.Streams != 0 || len(w.running) != 0 {
			t.Errorf("left over: %+v, %d", s, len(w.running))
		}

		// The same ID at another address: the old endpoint drains beside the new one.
		old := newFlow(w.Sender, "a")
		after(time.Second)
		old.add(2)
		after(time.Second)
		young := newFlow(w.Sender, "a")
		old.Retire()
		young.add(5)
		after(time.Second)
		w.sums(a, 7, 2)
		old.add(-2)
		after(time.Second)
		w.sums(a, 5, 1)
	})
}
