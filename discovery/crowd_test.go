package discovery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
)

// crowd is an agent with any number of services, in memory. Each has one instance,
// whose port is the service's index.
type crowd struct {
	http2 bool
	limit int  // connections that it takes; 0: any number
	hangs bool // answers nobody

	mu      sync.Mutex
	index   map[string]uint64
	change  map[string]chan struct{}
	inUse   int
	most    int
	refused int
	reads   int
	waits   map[time.Duration]int // how long they wanted to block
}

func newCrowd() *crowd {
	return &crowd{index: map[string]uint64{}, change: map[string]chan struct{}{}, waits: map[time.Duration]int{}}
}

// state returns a service's index, and what is closed when it changes.
func (c *crowd) state(service string) (uint64, chan struct{}) {
	if c.change[service] == nil {
		c.change[service], c.index[service] = make(chan struct{}), 1
	}
	return c.index[service], c.change[service]
}

func (c *crowd) touch(service string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ch := c.state(service)
	c.index[service]++
	delete(c.change, service)
	close(ch)
	c.change[service] = make(chan struct{})
}

func (c *crowd) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	if c.limit > 0 && c.inUse >= c.limit {
		c.refused++
		c.mu.Unlock()
		return plain(req, 429, "Your IP is issuing too many concurrent connections, please rate limit your calls\n"), nil
	}
	c.reads++
	if c.hangs {
		c.mu.Unlock()
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	c.inUse++
	c.most = max(c.most, c.inUse)
	service := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	index, changed := c.state(service)
	q := req.URL.Query()
	if q.Get("index") == strconv.FormatUint(index, 10) {
		wait, err := time.ParseDuration(q.Get("wait"))
		if err != nil {
			wait = defaultWait
		}
		c.waits[wait]++
		c.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(wait):
		case <-req.Context().Done():
		}
		c.mu.Lock()
		index, _ = c.state(service)
	}
	c.mu.Unlock()
	body := fmt.Sprintf(`[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a","Service":%q,"Port":%d,"Weights":{"Passing":1,"Warning":1}},"Checks":[]}]`, service, index)
	resp := plain(req, 200, body)
	resp.Header.Set(indexHeader, strconv.FormatUint(index, 10))
	resp.Header.Set("X-Consul-KnownLeader", "true")
	resp.Header.Set("X-Consul-LastContact", "0")
	if c.http2 {
		resp.Proto, resp.ProtoMajor, resp.ProtoMinor = "HTTP/2.0", 2, 0
	}
	resp.Body = onClose{resp.Body, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.inUse--
	}}
	return resp, nil
}

// ServeHTTP is RoundTrip's other side.
func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resp, err := c.RoundTrip(r)
	if err != nil {
		return
	}
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	_, _ = io.Copy(w, resp.Body)
	_ = resp.Body.Close()
}

func plain(req *http.Request, code int, body string) *http.Response {
	return &http.Response{
		StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Close: code == 429,
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req,
	}
}

type onClose struct {
	io.ReadCloser
	f func()
}

func (o onClose) Close() error { o.f(); return o.ReadCloser.Close() }

// audience watches services of a crowd through a gate, in virtual time.
type audience struct {
	t      *testing.T
	crowd  *crowd
	gate   *Gate
	client *api.Client
	cfg    Config
	ctx    context.Context
	out    bytes.Buffer

	mu   sync.Mutex
	port map[string]int // newest, by service
	at   map[string]time.Time
}

func newAudience(t *testing.T, c *crowd) *audience {
	a := &audience{t: t, crowd: c, cfg: DefaultConfig(), ctx: t.Context(), port: map[string]int{}, at: map[string]time.Time{}}
	log := hclog.New(&hclog.LoggerOptions{Output: &a.out, Mutex: new(sync.Mutex)})
	a.gate = newGate(a.cfg, time.Now, log, func() {})
	tr := &transport{next: c, gate: a.gate, tokens: &tokens{now: time.Now, log: log}, limit: a.cfg.MaxAnswer, rand: func() float64 { return 0.5 }}
	var err error
	if a.client, err = api.NewClient(&api.Config{Address: "consul.test", HttpClient: &http.Client{Transport: tr}}); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *audience) watch(services ...string) {
	for _, s := range services {
		src := NewConsul(a.client, Query{Service: s}, a.cfg, Env{Rand: func() float64 { return 0.5 }})
		go func() {
			_ = src.Watch(a.ctx, func(set []Instance) {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.port[s], a.at[s] = set[0].Port, time.Now()
			})
		}()
	}
}

func names(prefix string, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%s%03d", prefix, i))
	}
	return all
}

// seen waits until all services show the port, and returns the longest time that
// one took.
func (a *audience) seen(services []string, port int, limit time.Duration) (longest time.Duration) {
	a.t.Helper()
	start := time.Now()
	for {
		left := 0
		a.mu.Lock()
		for _, s := range services {
			if a.port[s] != port {
				left++
			} else {
				longest = max(longest, a.at[s].Sub(start))
			}
		}
		a.mu.Unlock()
		switch {
		case left == 0:
			return longest
		case time.Since(start) > limit:
			a.t.Fatalf("%d of %d services have not shown the change within %v: %+v\n%s", left, len(services), limit, a.gate.Status(), a.out.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// limitedAgent is an agent with a crowd's services and Consul's limit of
// connections: the raw 429 at accept, and the connection closed.
type limitedAgent struct {
	net.Listener
	limit int
	mute  bool // the 429 does not get through

	mu      sync.Mutex
	open    map[net.Conn]bool
	most    int
	refused []time.Time
}

type limitedConn struct {
	net.Conn
	l *limitedAgent
}

func (c *limitedConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.open, c)
	c.l.mu.Unlock()
	return c.Conn.Close()
}

func (l *limitedAgent) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		if len(l.open) < l.limit {
			c := &limitedConn{conn, l}
			l.open[c] = true
			l.most = max(l.most, len(l.open))
			l.mu.Unlock()
			return c, nil
		}
		l.refused = append(l.refused, time.Now())
		l.mu.Unlock()
		if !l.mute {
			const text = "Your IP is issuing too many concurrent connections, please rate limit your calls\n"
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text)
		}
		_ = conn.Close()
	}
}

func startLimited(t *testing.T, limit int, mute bool) (*limitedAgent, *crowd, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	la := &limitedAgent{Listener: l, limit: limit, mute: mute, open: map[net.Conn]bool{}}
	c := newCrowd()
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: c}
	go func() { _ = srv.Serve(la) }()
	t.Cleanup(func() { _ = srv.Close() })
	return la, c, l.Addr().String()
}

// crowdClient is NewGatedClient's for an audience.
func crowdClient(t *testing.T, c *crowd, addr string, change func(*Config)) *audience {
	t.Helper()
	a := &audience{t: t, crowd: c, cfg: DefaultConfig(), ctx: t.Context(), port: map[string]int{}, at: map[string]time.Time{}}
	a.cfg.Address = addr
	change(&a.cfg)
	var err error
	if a.client, a.gate, err = NewGatedClient(a.cfg, nil); err != nil {
		t.Fatal(err)
	}
	return a
}
