package discovery

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
)

// NewClient returns a Consul client to be shared by all sources. What the
// configuration leaves empty comes from Consul's environment variables.
func NewClient(c Config) (*api.Client, error) {
	client, _, err := NewGatedClient(c, nil)
	return client, err
}

// NewGatedClient is NewClient, and returns the gate that all requests of the
// client go through. log may be nil: none.
func NewGatedClient(c Config, log hclog.Logger) (*api.Client, *Gate, error) {
	if err := c.Validate(); err != nil {
		return nil, nil, fmt.Errorf("consul: %w", err)
	}
	if log == nil {
		log = hclog.NewNullLogger()
	}
	ac := api.DefaultConfig()
	override(&ac.Address, c.Address)
	override(&ac.Scheme, c.Scheme)
	override(&ac.Datacenter, c.Datacenter)
	override(&ac.Namespace, c.Namespace)
	override(&ac.Partition, c.Partition)
	override(&ac.TLSConfig.CAFile, c.TLS.CAFile)
	override(&ac.TLSConfig.CertFile, c.TLS.CertFile)
	override(&ac.TLSConfig.KeyFile, c.TLS.KeyFile)
	override(&ac.TLSConfig.Address, c.TLS.ServerName)
	ac.TLSConfig.InsecureSkipVerify = ac.TLSConfig.InsecureSkipVerify || c.TLS.InsecureSkipVerify
	if err := checkAddress(ac.Address); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", api.HTTPAddrEnvName, err)
	}
	tune(ac.Transport, c.MaxConnections)
	if path, ok := strings.CutPrefix(ac.Address, "unix://"); ok {
		// Not left to consul/api: it would open a connection per request.
		ac.Address, ac.Scheme = "localhost", "http"
		ac.Transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return speakFirst((&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", path))
		}
	}
	hc, err := api.NewHttpClient(ac.Transport, ac.TLSConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("consul: tls: %w", err)
	}
	t, err := newTransport(c, ac, log)
	if err != nil {
		return nil, nil, fmt.Errorf("consul: %w", err)
	}
	hc.Transport = t
	// The agent redirects no read. Following one would carry the token elsewhere.
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ac.HttpClient = hc
	client, err := api.NewClient(ac)
	if err != nil {
		return nil, nil, fmt.Errorf("consul: %w", err)
	}
	return client, t.gate, nil
}

// newTransport puts the gate and the token in front of consul/api's transport.
// The order of the tokens is that of Consul's own tools.
func newTransport(c Config, ac *api.Config, log hclog.Logger) (*transport, error) {
	file := c.TokenFile
	if file == "" && c.Token == "" {
		file = os.Getenv(api.HTTPTokenFileEnvName)
	}
	tokens, err := newTokens(file, cmp.Or(string(c.Token), ac.Token), time.Now, log)
	if err != nil {
		return nil, err
	}
	return &transport{
		next: ac.Transport, tokens: tokens, limit: c.MaxAnswer, rand: rand.Float64,
		gate: newGate(c, time.Now, log, ac.Transport.CloseIdleConnections),
	}, nil
}

func override(dst *string, v string) {
	if v != "" {
		*dst = v
	}
}

const dialTimeout = 5 * time.Second // the agent is on this host or near

// tune fits consul/api's transport to many long reads from one agent.
func tune(t *http.Transport, conns int) {
	t.MaxIdleConns, t.MaxIdleConnsPerHost = conns, conns
	// The gate keeps below that. It holds when the agent's limit is hit: a
	// connection that is being closed is not one in use, but there is one.
	t.MaxConnsPerHost = conns
	t.IdleConnTimeout = 30 * time.Second // idle ones count for the agent's limit too
	// The agent is near: packing costs it more than the bytes do.
	t.DisableCompression = true
	d := &net.Dialer{
		Timeout: dialTimeout,
		// A blocking read is silent for minutes: notice within 30 s that the
		// other end is gone.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return speakFirst(d.DialContext(ctx, network, addr))
	}
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 20 * time.Second, PingTimeout: 10 * time.Second}
}

// polite is a connection on which nothing is heard before something was said.
// An agent answers 429 to a connection before it has read anything, and net/http
// would throw that away (and write of it to the standard log) when it comes before
// the request is on its way.
type polite struct {
	net.Conn
	spoken chan struct{} // closed with the first Write, or Close
	once   sync.Once
}

func speakFirst(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return &polite{Conn: c, spoken: make(chan struct{})}, nil
}

func (p *polite) speak() { p.once.Do(func() { close(p.spoken) }) }

func (p *polite) Read(b []byte) (int, error) {
	<-p.spoken
	return p.Conn.Read(b)
}

func (p *polite) Write(b []byte) (int, error) {
	p.speak()
	return p.Conn.Write(b)
}

func (p *polite) Close() error {
	p.speak()
	return p.Conn.Close()
}
