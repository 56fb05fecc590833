package demo

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// load is a number of clients, each sending one request after the other.
type load struct {
	url     string
	clients int
	think   time.Duration // pause of each client between requests
}

// result is what the clients of a load saw.
type result struct {
	total, ok int
	errors    int // no answer, a broken one, or a status that is neither 200 nor 503
	refused   int // 503
	badRefuse int // 503 without a usable Retry-After or without a reason
	reasons   map[string]int
	byBackend map[string]int
	latency   []time.Duration // of answers with 200
	firstErr  string
}

// running is a load that has been started.
type running struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	res    result
}

// start sets the clients going until stop or the end of ctx.
func (l load) start(ctx context.Context) *running {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{cancel: cancel, res: result{reasons: map[string]int{}, byBackend: map[string]int{}}}
	client := &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: l.clients, DisableCompression: true},
		Timeout:   10 * time.Second,
	}
	for range l.clients {
		r.wg.Go(func() {
			for ctx.Err() == nil {
				r.one(ctx, client, l.url)
				if l.think > 0 {
					pause(ctx, l.think)
				}
			}
		})
	}
	go func() {
		r.wg.Wait()
		client.CloseIdleConnections()
	}()
	return r
}

// one sends a request and counts what came of it. It is let finish when ctx
// ends, so that stopping the load is not an error of its own.
func (r *running) one(ctx context.Context, client *http.Client, url string) {
	start := time.Now()
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, url, nil)
	if err != nil {
		r.count(func(s *result) { s.fail(err.Error()) })
		return
	}
	res, err := client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	took := time.Since(start)
	r.count(func(s *result) {
		if err != nil {
			s.fail(err.Error())
			return
		}
		s.answer(res, took)
	})
}

func (r *running) count(f func(*result)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.total++
	f(&r.res)
}

func (s *result) fail(why string) {
	s.errors++
	if s.firstErr == "" {
		s.firstErr = why
	}
}

func (s *result) answer(res *http.Response, took time.Duration) {
	switch res.StatusCode {
	case http.StatusOK:
		s.ok++
		s.byBackend[res.Header.Get("X-Backend")]++
		s.latency = append(s.latency, took)
	case http.StatusServiceUnavailable:
		s.refused++
		reason := res.Header.Get("Outrigger-Reason")
		s.reasons[reason]++
		if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || n < 1 || reason == "" {
			s.badRefuse++
		}
	default:
		s.fail(res.Status)
	}
}

// stop ends the load and returns what it saw.
func (r *running) stop() result {
	r.cancel()
	r.wg.Wait()
	return r.snapshot()
}

func (r *running) snapshot() result {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.res
	s.latency = slices.Clone(s.latency)
	return s
}

// share is the part of the good answers that came from the backend, in percent.
func (s *result) share(name string) float64 {
	if s.ok == 0 {
		return 0
	}
	return 100 * float64(s.byBackend[name]) / float64(s.ok)
}

func (s *result) mean() time.Duration {
	if len(s.latency) == 0 {
		return 0
	}
	var sum time.Duration
	for _, d := range s.latency {
		sum += d
	}
	return sum / time.Duration(len(s.latency))
}

// quantile returns the latency below which the share q of answers came.
func (s *result) quantile(q float64) time.Duration {
	if len(s.latency) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.latency))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// pause waits for d or the end of ctx and reports whether d went by.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
