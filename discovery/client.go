package discovery

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// agentConns is the most connections that an agent takes from one address by
// default (http_max_conns_per_client). Every HTTP/1 blocking read holds one, so
// as many are kept; https agents speak HTTP/2, where all reads share a few.
const agentConns = 200

// NewClient returns a Consul client to be shared by all sources. What the
// configuration leaves empty comes from Consul's environment variables.
func NewClient(c Config) (*api.Client, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	ac := api.DefaultConfig()
	override(&ac.Address, c.Address)
	override(&ac.Scheme, c.Scheme)
	override(&ac.Token, string(c.Token))
	override(&ac.Datacenter, c.Datacenter)
	override(&ac.TLSConfig.CAFile, c.TLS.CAFile)
	override(&ac.TLSConfig.CertFile, c.TLS.CertFile)
	override(&ac.TLSConfig.KeyFile, c.TLS.KeyFile)
	override(&ac.TLSConfig.Address, c.TLS.ServerName)
	ac.TLSConfig.InsecureSkipVerify = ac.TLSConfig.InsecureSkipVerify || c.TLS.InsecureSkipVerify
	if err := checkAddress(ac.Address); err != nil {
		return nil, fmt.Errorf("%s: %w", api.HTTPAddrEnvName, err)
	}
	tune(ac.Transport)
	if path, ok := strings.CutPrefix(ac.Address, "unix://"); ok {
		// Not left to consul/api: it would open a connection per request.
		ac.Address, ac.Scheme = "localhost", "http"
		ac.Transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", path)
		}
	}
	hc, err := api.NewHttpClient(ac.Transport, ac.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("consul: tls: %w", err)
	}
	hc.Transport = boundedAnswers{hc.Transport, c.MaxAnswer}
	// The agent redirects no read. Following one would carry the token elsewhere.
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ac.HttpClient = hc
	client, err := api.NewClient(ac)
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	return client, nil
}

func override(dst *string, v string) {
	if v != "" {
		*dst = v
	}
}

const dialTimeout = 5 * time.Second // the agent is on this host or near

// tune fits consul/api's transport to many long reads from one agent. It sets no
// bound on connections: a read waiting for one would be a service never seen.
func tune(t *http.Transport) {
	t.MaxIdleConns = agentConns
	t.MaxIdleConnsPerHost = agentConns
	t.DialContext = (&net.Dialer{
		Timeout: dialTimeout,
		// A blocking read is silent for minutes: notice within 30 s that the
		// other end is gone.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}).DialContext
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 20 * time.Second, PingTimeout: 10 * time.Second}
}

// boundedAnswers makes reading more than limit bytes of an answer an error.
type boundedAnswers struct {
	http.RoundTripper
	limit int64
}

func (b boundedAnswers) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, b.limit, b.limit}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left, limit int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes (max_answer)", b.limit)
	}
	// One byte more than allowed tells an answer of just the limit from a larger one.
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	b.left -= int64(n)
	if b.left < 0 {
		return n - 1, fmt.Errorf("the answer has more than %d bytes (max_answer)", b.limit)
	}
	return n, err
}
