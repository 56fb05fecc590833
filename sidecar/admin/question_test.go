package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

func TestQuestion(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]balance.Question{
		"":                           {},
		"key=":                       {},
		"key=alice":                  {Hash: picker.Hash("alice")},
		"key=12345":                  {Hash: picker.Hash("12345")}, // a user's ID, say
		"key=007":                    {Hash: picker.Hash("007")},
		"key=0xff":                   {Hash: picker.Hash("0xff")},
		"hash=":                      {},
		"hash=12345":                 {Hash: 12345},
		"hash=007":                   {Hash: 7},
		"hash=0xff":                  {Hash: 255},
		"hash=18446744073709551615":  {Hash: 1<<64 - 1},
		"tried=a,b&tried=c":          {Tried: []string{"a", "b", "c"}},
		"tried=,a,%20b,,":            {Tried: []string{"a", "b"}},
		"tried=n%2Fweb-1&key=%C3%BC": {Hash: picker.Hash("ü"), Tried: []string{"n/web-1"}},
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := (&Service{}).question(q); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, %v; want %v", query, got, err, want)
		}
	}
	for _, hash := range []string{"x", "-1", "18446744073709551616", "0x", "0b1", "1e3", "1_0"} {
		if got, err := (&Service{}).question(url.Values{"hash": {hash}}); err == nil {
			t.Errorf("hash=%s is %v", hash, got)
		}
	}
}

// The service says how a key is hashed, and what is none.
func TestKeyOfTheService(t *testing.T) {
	t.Parallel()
	f := busyFleet(t)
	sv := f.explained("web")
	var asked balance.Question
	sv.Explain = func(q balance.Question) (balance.Explanation, error) { asked = q; return f.Explain(q) }
	sv.Key = func(text string) (uint64, error) {
		if text == "bad" {
			return 0, errors.New("no address")
		}
		return 42, nil
	}
	_, addr := start(t, Options{Services: []Service{sv}})
	if code, body := get(t, addr, "/v1/explain?service=web&key=10.0.0.1"); code != 200 || asked.Hash != 42 {
		t.Errorf("%d, asked for %x: %s", code, asked.Hash, body)
	}
	if code, body := get(t, addr, "/v1/explain?service=web&key=bad"); code != 400 || !strings.Contains(body, `"error": "key: no address"`) {
		t.Errorf("%d %s", code, body)
	}
}

// TestTop: of many candidates the first are shown, and the one that was picked.
func TestTop(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(c *balance.Config) { c.Picker.Policy, c.Shadow.Policy = "round_robin", "least_conn" })
	var set []discovery.Instance
	for i := range defaultTop + 5 {
		set = append(set, instance(fmt.Sprintf("n/%d", i), 1+i))
	}
	f.Update(set)
	_, addr := start(t, Options{Services: []Service{f.explained("web")}})
	for query, top := range map[string]int{"": defaultTop, "&top=3": 3, "&top=1005": 1005, "&top=10000": 1005} {
		_, body := get(t, addr, "/v1/explain?service=web"+query)
		var doc ExplainDoc
		if err := json.Unmarshal([]byte(body), &doc); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*PolicyDoc{&doc.Policy, doc.Shadow} {
			n, picked := len(p.Candidates), 0
			for _, c := range p.Candidates {
				if c.Picked {
					picked++
				}
			}
			if n < top || n > top+1 || n+p.LeftOut != len(set) || picked != 1 {
				t.Errorf("%s by %s: %d candidates, %d left out, %d picked; want %d", query, p.Name, n, p.LeftOut, picked, top)
			}
		}
	}
}

// TestDocumentsAtOnce: so many are made at once, and no more.
func TestDocumentsAtOnce(t *testing.T) {
	t.Parallel()
	f := busyFleet(t)
	sv := f.explained("web")
	begun, free := make(chan struct{}), make(chan struct{})
	sv.Explain = func(q balance.Question) (balance.Explanation, error) {
		begun <- struct{}{}
		<-free
		return f.Explain(q)
	}
	s, addr := start(t, Options{Services: []Service{sv}})
	codes := make(chan int)
	for range maxDocuments {
		go func() {
			code, _ := get(t, addr, "/v1/explain?service=web")
			codes <- code
		}()
		<-begun
	}
	for _, path := range []string{"/v1/explain?service=web", "/v1/status"} {
		resp, body := ask(t, "GET", addr, path, "")
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1" || !strings.Contains(body, "ask again") {
			t.Errorf("%s beside %d others: %d %s", path, maxDocuments, resp.StatusCode, body)
		}
	}
	if code, _ := get(t, addr, "/healthz"); code != 200 {
		t.Errorf("/healthz meanwhile: %d", code)
	}
	close(free)
	for range maxDocuments {
		if code := <-codes; code != 200 {
			t.Errorf("one that was begun: %d", code)
		}
	}
	for len(s.documents) > 0 { // a moment after its client has the answer
		runtime.Gosched()
	}
	if code, body := get(t, addr, "/v1/status"); code != 200 {
		t.Errorf("after them: %d %s", code, body)
	}
}
