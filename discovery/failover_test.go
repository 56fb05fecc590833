package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is a source that applies what it is told.
type scripted struct {
	sets    chan []Instance
	fail    chan error
	status  atomic.Pointer[Status]
	applied atomic.Int32
}

func newScripted() *scripted {
	return &scripted{sets: make(chan []Instance, 10), fail: make(chan error, 1)}
}

func (s *scripted) Watch(ctx context.Context, apply func([]Instance)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.fail:
			return err
		case set := <-s.sets:
			apply(set)
			s.applied.Add(1)
		}
	}
}

func (s *scripted) Status() Status {
	if st := s.status.Load(); st != nil {
		return *st
	}
	return Status{Seen: s.applied.Load() > 0}
}

func named(ids ...string) (set []Instance) {
	for _, id := range ids {
		set = append(set, Instance{ID: id, Address: "10.0.0.1", Port: 80, Weight: 1})
	}
	return set
}

// failoverRig is a source in the test's hands, with what it applied.
type failoverRig struct {
	t                   *testing.T
	src                 Source
	primary, dr, remote *scripted
	mu                  sync.Mutex
	got                 []string // of each apply: ID=tier
	cancel              context.CancelFunc
	done                chan error
}

func newFailoverRig(t *testing.T) *failoverRig {
	r := &failoverRig{t: t, primary: newScripted(), dr: newScripted(), remote: newScripted()}
	r.src = NewFailover(r.primary, []Named{{"dr", r.dr}, {"remote", r.remote}})
	r.watch()
	return r
}

func (r *failoverRig) watch() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.cancel, r.done = cancel, make(chan error, 1)
	go func() {
		var busy atomic.Bool
		r.done <- r.src.Watch(ctx, func(set []Instance) {
			if !busy.CompareAndSwap(false, true) {
				r.t.Error("two applies at once")
			}
			time.Sleep(time.Millisecond)
			var ids []string
			for _, i := range set {
				ids = append(ids, fmt.Sprintf("%s=%d", i.ID, i.Tier))
			}
			r.mu.Lock()
			r.got = append(r.got, strings.Join(ids, " "))
			r.mu.Unlock()
			busy.Store(false)
		})
	}()
	synctest.Wait()
}

// want takes what was applied since the last call.
func (r *failoverRig) want(what string, sets ...string) {
	r.t.Helper()
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.got, sets) {
		r.t.Errorf("%s: applied %q, want %q", what, r.got, sets)
	}
	r.got = nil
}

func TestFailoverUnion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFailoverRig(t)
		r.primary.sets <- named("n/b", "n/a", "@dr/x", "@other/x", "@dr") // in no order: with near
		r.want("the primary alone", "n/b=0 n/a=0 %40dr/x=0 @other/x=0 @dr=0")
		r.remote.sets <- named("n/r")
		r.want("a later one", "n/b=0 n/a=0 %40dr/x=0 @other/x=0 @dr=0 @remote/n/r=2")
		r.dr.sets <- named("n/a", "x")
		r.want("all", "n/b=0 n/a=0 %40dr/x=0 @other/x=0 @dr=0 @dr/n/a=1 @dr/x=1 @remote/n/r=2")
		r.primary.sets <- named("n/a")
		r.want("another primary", "n/a=0 @dr/n/a=1 @dr/x=1 @remote/n/r=2")
		r.dr.sets <- named("n/a", "x")
		r.want("the same again")
		r.primary.sets <- nil
		r.want("an empty primary", "@dr/n/a=1 @dr/x=1 @remote/n/r=2")
		r.dr.sets <- nil
		r.want("an empty fallback", "@remote/n/r=2")
		if n := r.dr.applied.Load(); n != 3 {
			t.Errorf("%d sets were said to be applied, want 3", n)
		}
		r.cancel()
		if err := <-r.done; err != context.Canceled {
			t.Errorf("it ended with %v", err)
		}
		// The next Watch goes on from there, though no source says a thing.
		r.watch()
		r.want("watched again", "@remote/n/r=2")
		r.remote.sets <- named("n/r")
		r.want("which says the same")
		r.cancel()
		<-r.done
	})
}

// TestFailoverGrace: fallbacks are not used for being quicker at the start, and
// are when the primary says nothing.
func TestFailoverGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFailoverRig(t)
		r.dr.sets <- nil
		r.remote.sets <- named("n/r")
		time.Sleep(fallbackGrace - 50*time.Millisecond)
		r.want("within the grace")
		if st := r.src.Status(); st.Seen {
			t.Error("seen with nothing applied")
		}
		time.Sleep(50 * time.Millisecond)
		r.want("after it", "@remote/n/r=2")
		st := r.src.Status()
		if !st.Seen || st.Current || len(st.Fallbacks) != 2 || st.Fallbacks[1].Name != "remote" || !st.Fallbacks[1].Seen {
			t.Errorf("status %+v", st)
		}
		r.primary.sets <- nil
		r.want("the primary is empty", "@remote/n/r=2")
		r.cancel()
		<-r.done
	})
	synctest.Test(t, func(t *testing.T) { // all are empty, and then all that answer in time
		r := newFailoverRig(t)
		r.primary.sets <- nil
		r.dr.sets <- nil
		r.want("one is missing")
		r.remote.sets <- nil
		r.want("all are empty", "")
		r.cancel()
		<-r.done
		r = newFailoverRig(t)
		r.primary.sets <- nil
		time.Sleep(fallbackGrace)
		r.want("the grace is over", "")
		r.cancel()
		<-r.done
	})
	synctest.Test(t, func(t *testing.T) { // nothing anywhere: unknown, not empty
		r := newFailoverRig(t)
		r.dr.sets <- nil
		time.Sleep(time.Hour)
		r.want("empty fallbacks")
		r.dr.sets <- named("n/d")
		r.want("one has something", "@dr/n/d=1")
		r.cancel()
		<-r.done
	})
	synctest.Test(t, func(t *testing.T) {
		r := newFailoverRig(t)
		r.primary.sets <- nil
		r.want("an empty primary, while fallbacks may still answer")
		r.remote.sets <- named("n/r")
		r.want("one does", "@remote/n/r=2")
		r.cancel()
		<-r.done
	})
}

// TestFailoverErrors: reads that fail are the fallback's own affair, a wrong
// configuration is everybody's.
func TestFailoverErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFailoverRig(t)
		r.primary.status.Store(&Status{Seen: true, Current: true, State: Current, Source: "consul", Instances: 3})
		r.dr.status.Store(&Status{State: Failing, LastError: "no route", ErrorsTotal: 5, FailingFor: time.Hour})
		st := r.src.Status()
		if !st.Seen || !st.Current || st.State != Current || st.LastError != "" || st.Instances != 3 || st.Fallbacks[0].LastError != "no route" {
			t.Errorf("status %+v", st)
		}
		if err := r.src.Watch(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("a second watch ends with %v", err)
		}
		wrong := errors.New("no such thing")
		r.dr.fail <- wrong
		if err := <-r.done; !errors.Is(err, wrong) || !strings.Contains(err.Error(), `fallback "dr"`) {
			t.Errorf("it ended with %v", err)
		}
		r.watch()
		r.primary.fail <- wrong
		if err := <-r.done; err != wrong {
			t.Errorf("it ended with %v", err)
		}
		r.cancel()
	})
	if p := Source(NewStatic(nil)); NewFailover(p, nil) != p {
		t.Error("without fallbacks it is another source")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	src := NewFailover(NewStatic(named("n/a")), []Named{{"dr", NewStatic(named("n/a"))}})
	if err := src.Watch(ctx, func([]Instance) { t.Error("applied") }); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}

// TestFailoverStorm: sets of all sources at once, and an end in the middle.
func TestFailoverStorm(t *testing.T) {
	for round := range 20 {
		primary, a, b := NewStatic(named("n/0")), NewStatic(named("n/0")), NewStatic(nil)
		src := NewFailover(primary, []Named{{"a", a}, {"b", b}})
		ctx, cancel := context.WithCancel(t.Context())
		last, done := make(chan []Instance, 1), make(chan error, 1)
		go func() {
			done <- src.Watch(ctx, func(set []Instance) {
				select {
				case <-last:
				default:
				}
				last <- set
			})
		}()
		var setters sync.WaitGroup
		for i := range 100 {
			setters.Go(func() { a.Set(named(fmt.Sprint("n/", i))) })
			setters.Go(func() { b.Set(named(fmt.Sprint("n/", i), "n/x")) })
			primary.Set(named(fmt.Sprint("n/", i)))
			_ = src.Status()
		}
		setters.Wait()
		a.Set(named("n/end"))
		if round%2 == 0 {
			cancel()
		}
		for round%2 == 1 {
			if set := <-last; len(set) == 4 && set[0].ID == "n/99" && set[1].ID == "@a/n/end" {
				break
			}
		}
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("it ended with %v", err)
		}
	}
}

func TestServiceID(t *testing.T) {
	for _, c := range []struct {
		inst         Instance
		id, fallback string
	}{
		{Instance{ID: "node/web-1"}, "web-1", ""},
		{Instance{ID: "node/web/1"}, "web/1", ""},
		{Instance{ID: "@dr/node/web/1", Tier: 1}, "web/1", "dr"},
		{Instance{ID: "@node/web-1"}, "web-1", ""},
		{Instance{ID: "%40dr/web-1"}, "web-1", ""},
		{Instance{ID: "%40dc2/node/web-1", Datacenter: "dc2"}, "web-1", ""},
		{Instance{ID: "%25weird/web-1"}, "web-1", ""},
		{Instance{ID: "@dc2/node/web-1", Datacenter: "dc2"}, "web-1", ""},
		{Instance{ID: "@dr/@dc2/node/web-1", Datacenter: "dc2", Tier: 3}, "web-1", "dr"},
		{Instance{ID: "@last/10.0.0.1:80", Tier: 1}, "", "last"},
		{Instance{ID: "10.0.0.1:80"}, "", ""},
		{Instance{ID: "odd", Tier: 1}, "", "odd"},
	} {
		if id, fb := c.inst.ServiceID(), c.inst.Fallback(); id != c.id || fb != c.fallback {
			t.Errorf("%s: service ID %q of fallback %q, want %q of %q", c.inst.ID, id, fb, c.id, c.fallback)
		}
	}
}

func TestInPrimary(t *testing.T) {
	for id, want := range map[string]string{
		"n/web":       "n/web",
		"@dc2/n/web":  "%40dc2/n/web",
		"@dc22/n/web": "@dc22/n/web",
		"@dc2":        "@dc2",
	} {
		if got := InPrimary(id, []string{"dr", "dc2"}); got != want {
			t.Errorf("%s is %s, want %s", id, got, want)
		}
		if got := InPrimary(id, nil); got != id {
			t.Errorf("%s is %s without fallbacks", id, got)
		}
	}
}
