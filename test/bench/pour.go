package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// fate is what became of a request.
type fate int

const (
	answered fate = iota // with 200, in time
	timedOut
	shed // 503
	failed
)

// pouring is an open loop of requests to several proxies. It is net/http's
// client: at some hundred requests a second, whose answers take tens of
// milliseconds, exactness to the microsecond is not needed.
type pouring struct {
	addrs   []string // of the clients' proxies
	plan    []arrival
	warm    time.Duration // what is due before does not count
	timeout time.Duration
}

// poured is what clients saw of the requests that count.
type poured struct {
	latency []time.Duration // sorted; of those that failed, the timeout
	fates   map[fate]int
	late    []time.Duration // sorted: how late requests were sent
	mean    time.Duration
}

// newClient keeps as many connections as there were ever requests at once, and
// gives up by closing them.
func newClient(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{MaxIdleConnsPerHost: 10000, DisableCompression: true}}
}

// run sends every request when it is due. A latency counts from then.
func (p pouring) run(ctx context.Context) (poured, error) {
	clients := make([]*http.Client, len(p.addrs))
	for i := range clients {
		clients[i] = newClient(p.timeout)
		defer clients[i].CloseIdleConnections()
	}
	type seen struct {
		late, took time.Duration
		fate       fate
	}
	all := make([]seen, len(p.plan))
	start := time.Now()
	var wg sync.WaitGroup
	for i, a := range p.plan {
		if err := pause(ctx, a.due-time.Since(start)); err != nil {
			break
		}
		wg.Go(func() {
			all[i].late = time.Since(start) - a.due
			all[i].fate = ask(ctx, clients[a.client], fmt.Sprintf("http://%s%s%d", p.addrs[a.client], workPrefix, a.work))
			all[i].took = time.Since(start) - a.due
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return poured{}, context.Cause(ctx)
	}
	out := poured{fates: map[fate]int{}}
	var sum time.Duration
	for i, s := range all {
		if p.plan[i].due < p.warm {
			continue
		}
		if s.fate != answered || s.took > p.timeout {
			s.took = p.timeout // an error is no better than no answer, however fast it comes
			if s.fate == answered {
				s.fate = timedOut
			}
		}
		out.fates[s.fate]++
		out.latency, out.late = append(out.latency, s.took), append(out.late, s.late)
		sum += s.took
	}
	if len(out.latency) == 0 {
		return out, errors.New("no request came in the time that counts")
	}
	out.mean = sum / time.Duration(len(out.latency))
	slices.Sort(out.latency)
	slices.Sort(out.late)
	return out, nil
}

// ask sends one request and waits for the end of its answer.
func ask(ctx context.Context, client *http.Client, url string) fate {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return failed
	}
	resp, err := client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close() // it has been read, or has failed to be
	}
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return timedOut
	case err != nil:
		return failed
	case resp.StatusCode == http.StatusServiceUnavailable:
		return shed
	case resp.StatusCode != http.StatusOK:
		return failed
	}
	return answered
}

// dials tells whether somebody listens.
func dials(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}
