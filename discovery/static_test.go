package discovery

import (
	"context"
	"testing"
	"testing/synctest"
)

func TestStatic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStatic([]Instance{{ID: "b"}, {ID: "a"}})
		if s.Status().Seen {
			t.Error("seen before it was applied")
		}
		ctx, cancel := context.WithCancel(t.Context())
		sets, done := make(chan []Instance, 10), make(chan error, 1)
		go func() { done <- s.Watch(ctx, func(set []Instance) { sets <- set }) }()
		if got := <-sets; len(got) != 2 || got[0].ID != "a" {
			t.Errorf("got %v", got)
		}
		synctest.Wait()
		if st := s.Status(); !st.Seen || !st.Current || st.Instances != 2 || st.UpdatesTotal != 1 {
			t.Errorf("status %+v", st)
		}
		s.Set(nil)
		if got := <-sets; len(got) != 0 {
			t.Errorf("got %v", got)
		}
		s.Set([]Instance{{ID: "c"}})
		if got := <-sets; len(got) != 1 {
			t.Errorf("got %v", got)
		}
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("got %v", err)
		}
		if len(sets) != 0 {
			t.Errorf("%d sets too many", len(sets))
		}
	})
}

func TestStaticEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewStatic(nil).Watch(ctx, func([]Instance) { t.Error("applied") }); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}
