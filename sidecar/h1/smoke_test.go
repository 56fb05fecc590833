package h1

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"outrigger/sidecar/balance"
)

func TestSmoke(t *testing.T) {
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		w.Header().Set("X-Got", fmt.Sprint(len(b)))
		w.Header().Set("X-Via", q.Header.Get("Via"))
		if q.URL.Path == "/chunked" {
			for i := range 10 {
				fmt.Fprintf(w, "part %d\n", i)
				w.(http.Flusher).Flush()
			}
			return
		}
		if q.URL.Path == "/big" {
			w.Write(make([]byte, 3<<20))
			return
		}
		fmt.Fprintf(w, "hello %s", q.Header.Get("X-Forwarded-For"))
	}))
	defer back.Close()
	r := newRig(t, DefaultConfig(), balance.DefaultConfig(), back.URL)
	for i := range 3 {
		res, err := http.Get(r.url + "/")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if string(b) != "hello 127.0.0.1" || err != nil || res.StatusCode != 200 || res.Header.Get("Via") != "1.1 outrigger" {
			t.Fatalf("%d: %q %v %v", i, b, err, res)
		}
	}
	for _, size := range []int{0, 10, 16 << 10, 16<<10 + 1, 100 << 10, 5 << 20} {
		for _, chunked := range []bool{false, true} {
			var body io.Reader = strings.NewReader(strings.Repeat("x", size))
			if chunked {
				body = io.MultiReader(body)
			}
			res, err := http.Post(r.url+"/", "text/plain", body)
			if err != nil {
				t.Fatal(size, chunked, err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.Header.Get("X-Got") != fmt.Sprint(size) {
				t.Fatal(size, chunked, res.Header)
			}
		}
	}
	res, err := http.Get(r.url + "/big")
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	if n != 3<<20 || err != nil {
		t.Fatal(n, err)
	}
	res, err = http.Get(r.url + "/chunked")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if !strings.HasSuffix(string(b), "part 9\n") || err != nil {
		t.Fatal(string(b), err)
	}
	r.settled()
	if st := r.b.Status(); st.Endpoints[0].InFlight != 0 || st.Endpoints[0].Totals.Failures != 0 {
		t.Fatalf("%+v", st)
	}
	back.Close()
	res, err = http.Get(r.url + "/")
	if err != nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || res.Header.Get("Outrigger-Reason") != "unreachable" {
		t.Fatal(res, err)
	}
}
