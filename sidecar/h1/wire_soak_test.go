package h1

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"outrigger/sidecar/balance"
)

// Many clients at once, each with a random mix of everything, some of whom
// leave in the middle: nobody gets another's bytes, no backend is blamed, and
// (by the rig) nothing is left behind.
func TestSoak(t *testing.T) {
	t.Parallel()
	echo := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return // its client left
		}
		w.Header().Set("X-Id", q.Header.Get("X-Id"))
		if q.URL.Path == "/length" {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		if q.URL.Path == "/close" {
			w.Header().Set("Connection", "close")
		}
		for q.Method != "HEAD" && len(body) > 0 {
			k := min(len(body), 10_000)
			w.Write(body[:k])
			w.(http.Flusher).Flush()
			body = body[k:]
		}
	})
	var addrs []string
	for range 3 {
		back := httptest.NewServer(echo)
		t.Cleanup(back.Close)
		addrs = append(addrs, back.URL)
	}
	r := newRig(t, quick(), balance.DefaultConfig(), addrs...)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			d := dice{rand.New(rand.NewPCG(seed, uint64(i)))}
			for n := 0; n < 60; {
				nc, err := net.Dial("tcp", r.addr())
				if err != nil {
					t.Error(err)
					return
				}
				c := newPeer(t, nc)
				for n++; d.soak(t, c, fmt.Sprintf("%d-%d", i, n)); n++ {
				}
				nc.Close()
			}
		})
	}
	wg.Wait()
	if got := r.totals(); got.Failures != 0 {
		t.Errorf("%+v", got)
	}
	if st := r.s.Stats(); st.Aborted != 0 || st.Own != [6]uint64{} {
		t.Errorf("%+v", st)
	}
}

// soak makes one request and checks its answer. false: the connection is over.
func (d dice) soak(t *testing.T, c *peer, id string) bool {
	method := d.of([]string{"GET", "HEAD", "POST", "PUT"})
	path := d.of([]string{"/length", "/chunked", "/close"})
	body := bytes.Repeat([]byte(id+" "), d.IntN(1<<d.IntN(15)))
	head := []string{method + " " + path + " HTTP/1.1", "Host: a", "X-Id: " + id}
	var req []byte
	if d.IntN(2) == 0 {
		req = append([]byte(lines(append(head, "Content-Length: "+strconv.Itoa(len(body)))...)), body...)
	} else {
		req = []byte(lines(append(head, "Transfer-Encoding: chunked")...))
		for rest := body; len(rest) > 0; {
			k := min(len(rest), 1+d.IntN(5000))
			req = appendChunk(req, rest[:k])
			rest = rest[k:]
		}
		req = append(req, "0\r\n\r\n"...)
	}
	if d.IntN(20) == 0 { // leave in the middle
		c.send(string(req[:d.IntN(len(req))]))
		if d.IntN(2) == 0 {
			c.reset()
		}
		return false
	}
	c.send(string(req))
	if d.IntN(20) == 0 { // leave before the answer, or within it
		if n := d.IntN(50); len(c.read(n)) < n {
			t.Errorf("%s %s: no answer to a request of %d bytes", id, head, len(req))
		}
		return false
	}
	a := c.answer(method)
	want := string(body)
	if method == "HEAD" {
		want = ""
	}
	if a.err != nil || a.StatusCode != 200 || a.Header.Get("X-Id") != id || a.body != want {
		t.Errorf("%s %s %s: %d for %q, %d bytes of %d, %v", id, method, path, a.StatusCode, a.Header.Get("X-Id"), len(a.body), len(want), a.err)
		return false
	}
	if strings.Contains(fmt.Sprint(a.TransferEncoding), "chunked") && path == "/length" {
		t.Errorf("%s: reframed", id)
	}
	return !a.Close
}
