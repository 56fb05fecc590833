package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clients is how many send requests at the same time.
const clients = 12

// kind is a sort of request.
type kind struct {
	name   string
	method string
	path   string // before the name of the content
	size   int    // of the answer's body
	share  int    // of requests
	chunks bool   // the request's body has no length
}

var kinds = []kind{ // read-only
	{name: "small", method: "GET", path: "/file/small-", size: smallSize, share: 10},
	{name: "big", method: "GET", path: "/file/big-", size: bigSize, share: 3},
	{name: "stream", method: "GET", path: "/stream/", size: streamSize, share: 2},
	{name: "close", method: "GET", path: "/close/small-", size: smallSize, share: 2},
	{name: "post", method: "POST", path: "/echo/", size: postSize, share: 2},
	{name: "chunks", method: "POST", path: "/echo/", size: postSize, share: 2, chunks: true},
	{name: "little", method: "POST", path: "/echo/", size: 2 << 10, share: 2},
}

// untilEOF has an answer that ends with its connection: nobody can tell it from
// one that was cut, so it is asked for only where nothing is cut.
var untilEOF = kind{name: "eof", method: "GET", path: "/eof/big-", size: bigSize, share: 1} // read-only

// end is how a request ended at its client.
type end struct {
	kind string
	what string // "ok", "cut", "again", "left" or a status with its reason
}

const (
	ok    = "ok"
	cut   = "cut"   // an error instead of a whole answer
	again = "again" // net/http sent it a second time, because its connection died
	left  = "left"  // the client left, as it meant to
)

// tally counts ends.
type tally map[end]int

// sum counts the ends with a kind (or any of a method) and a prefix of what.
func (y tally) sum(kindOrMethod, what string) (n int) {
	for e, k := range y {
		of := slices.IndexFunc(kinds, func(k kind) bool { return k.name == e.kind })
		method := "GET"
		if of >= 0 {
			method = kinds[of].method
		}
		if (kindOrMethod == "" || kindOrMethod == e.kind || kindOrMethod == method) && strings.HasPrefix(e.what, what) {
			n += k
		}
	}
	return n
}

func (y tally) String() string {
	var s []string
	for e, n := range y {
		s = append(s, fmt.Sprintf("%s %s: %d", e.kind, e.what, n))
	}
	slices.Sort(s)
	return strings.Join(s, ", ")
}

// load is constant traffic of many clients. What is wrong with an answer, as
// against missing from it, is an error of the test at once.
type load struct {
	t     *testing.T
	url   string
	leave float64 // the share of requests whose client leaves in the middle
	dice  []kind  // each as often as its share

	stop  atomic.Bool
	clean atomic.Int64 // requests since the last one that was not answered in full
	name  string       // begins the IDs of requests
	ids   atomic.Int64
	wg    sync.WaitGroup

	mu     sync.Mutex
	stages []tally // the last is now; the odd ones are those of faults
}

// newLoad sends requests to addr until end is called.
func newLoad(t *testing.T, addr string, leave float64, more ...kind) *load {
	l := &load{t: t, url: "http://" + addr, leave: leave, name: fmt.Sprintf("%x-", rand.Uint64()), stages: []tally{{}}}
	for _, k := range slices.Concat(kinds, more) {
		for range k.share {
			l.dice = append(l.dice, k)
		}
	}
	for range clients {
		l.wg.Go(l.client)
	}
	return l
}

// next begins a stage: what requests come to from now on is told apart. One
// that sees a bit of a fault counts as the fault's.
func (l *load) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stages = append(l.stages, tally{})
}

// now is a copy of the current stage's tally.
func (l *load) now() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	y := tally{}
	for e, n := range l.stages[len(l.stages)-1] {
		y[e] = n
	}
	return y
}

// end stops the clients and returns the stages' tallies. A second call returns
// the same.
func (l *load) end() []tally {
	l.stop.Store(true)
	l.wg.Wait()
	return l.stages
}

func (l *load) client() {
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	for !l.stop.Load() {
		began := l.stage()
		k := l.dice[rand.IntN(len(l.dice))]
		what, sent := l.request(tr, k)
		l.count(began, k, what, sent)
		if what == ok {
			l.clean.Add(1)
		} else {
			l.clean.Store(0)
		}
		// Load, not overload: the figures are those of faults.
		time.Sleep(rand.N(6 * time.Millisecond))
	}
}

func (l *load) stage() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.stages) - 1
}

// count books a request that began in a stage and was sent so many times.
func (l *load) count(stage int, k kind, what string, sent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stage%2 == 0 && stage+1 < len(l.stages) {
		stage++
	}
	l.stages[stage][end{k.name, what}]++
	if sent > 1 {
		l.stages[stage][end{k.name, again}] += sent - 1
	}
}

// request makes a request and says how it ended, and how often net/http sent it.
func (l *load) request(tr *http.Transport, k kind) (what string, sent int) {
	id := l.name + strconv.FormatInt(l.ids.Add(1), 10)
	name := id
	if strings.HasSuffix(k.path, "-") {
		name = strconv.Itoa(rand.IntN(files))
	}
	path := k.path + name
	want := content(path[strings.LastIndexByte(path, '/')+1:], k.size)

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	leaves := rand.Float64() < l.leave
	if leaves {
		defer time.AfterFunc(rand.N(30*time.Millisecond), cancel).Stop()
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent++ }})
	var body io.Reader
	if k.method == "POST" {
		body = bytes.NewReader(want)
		if k.chunks {
			body = io.MultiReader(body) // hides the length
		}
	}
	req, err := http.NewRequestWithContext(ctx, k.method, l.url+path, body)
	if err != nil {
		l.t.Error(err)
		return cut, sent
	}
	req.Header.Set("X-Id", id)
	req.Header.Set("X-Size", strconv.Itoa(k.size))
	res, err := tr.RoundTrip(req)
	var got []byte
	if err == nil {
		got, err = io.ReadAll(res.Body)
		_ = res.Body.Close() // read to its end
	}
	switch {
	case err != nil && leaves && ctx.Err() != nil:
		what = left
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		l.t.Errorf("%s %s %s: no end within %v: %v", id, k.method, path, patience, err)
		return cut, sent
	case err != nil:
		what = cut
	}
	if res == nil {
		return what, sent
	}
	if res.StatusCode >= 500 && res.Header.Get("Outrigger-Reason") != "" {
		if what == "" {
			what = strconv.Itoa(res.StatusCode) + " " + res.Header.Get("Outrigger-Reason")
		}
		return what, sent
	}
	// What has come must be the beginning of the right answer, whatever became
	// of the rest; an answer without an error must be the whole.
	if res.StatusCode != 200 || res.Header.Get("X-Id") != id || !bytes.HasPrefix(want, got) || err == nil && len(got) != len(want) {
		l.t.Errorf("%s %s %s: %s of %q with %d bytes of %d (the right ones: %v), %v",
			id, k.method, path, res.Status, res.Header.Get("X-Id"), len(got), len(want), bytes.HasPrefix(want, got), err)
	}
	if what == "" {
		what = ok
	}
	return what, sent
}
