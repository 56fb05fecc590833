package discovery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
)

// answer is one answer of a fake Consul. The zero value, with an index and a
// body, is a healthy one.
type answer struct {
	index      uint64
	body       string // "": []
	code       int    // 0: 200
	err        error  // instead of any answer
	after      time.Duration
	hang       bool // answer never; the reader has to give up
	leaderless bool
	stale      time.Duration // X-Consul-LastContact
	streaming  bool          // as Consul's agents do it: no leader known, no contact
	filtered   bool
	age        time.Duration // of what the agent's cache answers
	bare       bool          // without any of Consul's headers
}

// asked is a request that the fake got.
type asked struct {
	at    time.Time
	path  string
	query url.Values
}

func (a asked) has(key string) bool { _, ok := a.query[key]; return ok }
func (a asked) blocks() bool        { return a.query.Get("index") != "" }

// fakeConsul is an in-memory transport: real sockets don't work in virtual time,
// and Consul doesn't misbehave on demand.
type fakeConsul struct {
	reply func(n int, a asked) answer // n counts from 0; called by one goroutine at a time

	mu   sync.Mutex
	seen []asked
}

// asked returns the requests so far.
func (f *fakeConsul) asked() []asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}

// script answers with each answer in turn, then hangs.
func script(answers ...answer) func(int, asked) answer {
	return func(n int, _ asked) answer {
		if n < len(answers) {
			return answers[n]
		}
		return answer{hang: true}
	}
}

func (f *fakeConsul) RoundTrip(req *http.Request) (*http.Response, error) {
	a := asked{time.Now(), req.URL.Path, req.URL.Query()}
	f.mu.Lock()
	n := len(f.seen)
	f.seen = append(f.seen, a)
	f.mu.Unlock()
	ans := f.reply(n, a)
	if ans.hang {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	if err := sleep(req.Context(), ans.after); err != nil {
		return nil, err
	}
	if ans.err != nil {
		return nil, ans.err
	}
	return ans.response(req), nil
}

func (ans answer) response(req *http.Request) *http.Response {
	h := http.Header{}
	if !ans.bare {
		h.Set("X-Consul-Index", strconv.FormatUint(ans.index, 10))
		h.Set("X-Consul-KnownLeader", strconv.FormatBool(!ans.leaderless && !ans.streaming))
		h.Set("X-Consul-LastContact", strconv.FormatInt(ans.stale.Milliseconds(), 10))
		h.Set("X-Consul-Query-Backend", map[bool]string{true: "streaming", false: "blocking-query"}[ans.streaming])
		if ans.age > 0 {
			h.Set("X-Cache", "HIT")
			h.Set("Age", strconv.Itoa(int(ans.age.Seconds())))
		}
		if ans.filtered {
			h.Set("X-Consul-Results-Filtered-By-ACLs", "true")
		}
	}
	code, body := ans.code, ans.body
	if code == 0 {
		code = 200
	}
	if body == "" {
		body = "[]"
	}
	return &http.Response{
		StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: req,
	}
}

// entries is the body of an answer with an instance "n/ID" at 10.0.0.1:8000 for
// each ID; "ID:critical" and so on sets the state of its check.
func entries(ids ...string) string {
	var out []string
	for _, id := range ids {
		id, state, ok := strings.Cut(id, ":")
		if !ok {
			state = "passing"
		}
		out = append(out, fmt.Sprintf(`{"Node":{"Node":"n","Address":"10.0.0.1","Datacenter":"dc1"},
			"Service":{"ID":%q,"Service":"web","Port":8000,"Weights":{"Passing":1,"Warning":1}},
			"Checks":[{"CheckID":"c","Status":%q}]}`, id, state))
	}
	return "[" + strings.Join(out, ",") + "]"
}

// bench is a Consul source on a fake, watched.
type bench struct {
	t      *testing.T
	fake   *fakeConsul
	src    *Consul
	start  time.Time
	cancel context.CancelFunc
	done   chan error

	mu   sync.Mutex
	sets [][]Instance
	text bytes.Buffer
}

// Write takes the log.
func (b *bench) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *bench) log() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *bench) apply(set []Instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sets = append(b.sets, set)
}

// applied returns the sets so far.
func (b *bench) applied() [][]Instance {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.sets)
}

// watch starts watching; call it inside a synctest bubble. What is lost is dead.
func watch(t *testing.T, reply func(int, asked) answer, change ...func(*Query, *Config)) *bench {
	t.Helper()
	return watchLiving(t, reply, func(Instance) bool { return false }, change...)
}

// watchLiving is watch where lives says which of the lost answers a probe.
func watchLiving(t *testing.T, reply func(int, asked) answer, lives func(Instance) bool, change ...func(*Query, *Config)) *bench {
	t.Helper()
	b := &bench{t: t, fake: &fakeConsul{reply: reply}, start: time.Now(), done: make(chan error, 1)}
	q, cfg := Query{Service: "web"}, DefaultConfig()
	for _, f := range change {
		f(&q, &cfg)
	}
	client, err := api.NewClient(&api.Config{Address: "consul.test", HttpClient: &http.Client{Transport: b.fake}})
	if err != nil {
		t.Fatal(err)
	}
	b.src = NewConsul(client, q, cfg, Env{
		Logger: hclog.New(&hclog.LoggerOptions{Output: b, Level: hclog.Info, DisableTime: true}),
		Rand:   func() float64 { return 1 }, // the longest pause: half of a backoff is chance
		Probe: func(_ context.Context, i Instance) error {
			if !lives(i) {
				return syscall.ECONNREFUSED
			}
			return nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	b.cancel = cancel
	go func() { b.done <- b.src.Watch(ctx, b.apply) }()
	return b
}

// after lets virtual time pass.
func (b *bench) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// stop ends the watch and returns what it returned.
func (b *bench) stop() error {
	b.cancel()
	return <-b.done
}

// wantSets checks the service IDs of every set applied.
func (b *bench) wantSets(want ...string) {
	b.t.Helper()
	var got []string
	for _, set := range b.applied() {
		var ids []string
		for _, i := range set {
			ids = append(ids, strings.TrimPrefix(i.ID, "n/"))
		}
		got = append(got, strings.Join(ids, " "))
	}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		b.t.Fatalf("applied %q, want %q\nlog:\n%s", got, want, b.log())
	}
}

// wantAsked checks which requests were made, in short: "index" (0: did not
// block) plus "s" for stale and "c" for consistent.
func (b *bench) wantAsked(want ...string) {
	b.t.Helper()
	var got []string
	for _, a := range b.fake.asked() {
		s := a.query.Get("index")
		if s == "" {
			s = "0"
		}
		if a.has("stale") {
			s += "s"
		}
		if a.has("consistent") {
			s += "c"
		}
		got = append(got, s)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		b.t.Fatalf("asked %v, want %v\nlog:\n%s", got, want, b.log())
	}
}

// logged counts lines with text.
func (b *bench) logged(text string) int { return strings.Count(b.log(), text) }
