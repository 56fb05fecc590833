package h1

import (
	"crypto/tls"
	"errors"
	"os"
	"testing"
	"time"
)

// TestClientTLS: what is not an exchange of this engine connects as its exchanges do.
func TestClientTLS(t *testing.T) {
	t.Parallel()
	if ClientTLS(DefaultTLSConfig(), nil, nil) != nil {
		t.Error("TLS although it is off")
	}
	a, other := newAuthority(t), newAuthority(t)
	byIP := tlsSays(t, a.server("127.0.0.1"), "")
	byName := tlsSays(t, a.server("web.example"), "")
	var now time.Duration
	dial := func(trust func(string) (*tls.Config, error), host, addr string) (tls.ConnectionState, error) {
		t.Helper()
		cfg, err := trust(host)
		if err != nil {
			t.Fatal(err)
		}
		c, err := tls.Dial("tcp", addr, cfg)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer c.Close()
		return c.ConnectionState(), nil
	}

	cfg := a.trusting().TLS
	trust := ClientTLS(cfg, nil, func() time.Duration { return now })
	for range 2 {
		if st, err := dial(trust, "127.0.0.1", byIP.addr); err != nil || st.DidResume {
			t.Errorf("by IP: %v, resumed %v", err, st.DidResume)
		}
	}
	if _, err := dial(trust, "127.0.0.1", byName.addr); err == nil {
		t.Error("a certificate for another name is taken")
	}
	named := cfg
	named.ServerName = "web.example"
	if _, err := dial(ClientTLS(named, nil, func() time.Duration { return now }), "127.0.0.1", byName.addr); err != nil {
		t.Errorf("with server_name: %v", err)
	}

	// Files that change are used, as for requests.
	put(t, cfg.CAFile, other.pem)
	now += time.Minute
	if _, err := dial(trust, "127.0.0.1", byIP.addr); err == nil {
		t.Error("an authority that was taken out is trusted")
	}
	gone := cfg
	gone.CAFile = file(t, a.pem)
	if err := os.Remove(gone.CAFile); err != nil {
		t.Fatal(err)
	}
	if _, err := ClientTLS(gone, nil, func() time.Duration { return now })("127.0.0.1"); !errors.Is(err, errOwnTLS) {
		t.Errorf("without a file: %v", err)
	}
}
