package healthcheck

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secured is a server by TLS, whose certificate is for 127.0.0.1 and example.com, and
// what trusts it.
func secured(t *testing.T, h2 bool, h http.HandlerFunc) (addr string, trust func(string) (*tls.Config, error), s *httptest.Server) {
	s = httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = h2
	s.Config.ErrorLog = quietLog()
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s.Listener.Addr().String(), func(string) (*tls.Config, error) { return &tls.Config{RootCAs: pool}, nil }, s
}

// pemFiles writes a server's certificate and key.
func pemFiles(t *testing.T, s *httptest.Server) (cert, key string) {
	pair := s.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		key:  {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestTLS(t *testing.T) {
	t.Parallel()
	asked := make(chan *http.Request, 1)
	addr, trust, _ := secured(t, true, func(_ http.ResponseWriter, r *http.Request) { asked <- r })
	plain := handler(t, func(http.ResponseWriter, *http.Request) {})
	silent := rawServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	once := func(kind string, env Env, target Target) error {
		c := DefaultConfig()
		c.Kind = kind
		if target.Addr == silent {
			c.Timeout = 200 * ms
		}
		return New(patient(c), env).Once(t.Context(), target)
	}
	for _, kind := range []string{"http", "tcp"} {
		names := make(chan string, 1)
		named := Env{TLS: func(name string) (*tls.Config, error) { names <- name; return trust(name) }}
		wants(t, once(kind, named, Target{Addr: addr}), "")
		if got := <-names; got != "127.0.0.1" {
			t.Errorf("the name is %q, want the IP", got)
		}
		if kind == "http" {
			if r := <-asked; r.ProtoMajor != 1 || r.TLS.ServerName != "" || r.TLS.NegotiatedProtocol == "h2" {
				t.Errorf("%s, %+v", r.Proto, r.TLS)
			}
		}
		wants(t, once(kind, named, Target{Addr: addr, ServerName: "example.com"}), "")
		if got := <-names; got != "example.com" {
			t.Errorf("the name is %q", got)
		}
		if kind == "http" {
			if r := <-asked; r.TLS.ServerName != "example.com" {
				t.Errorf("%+v", r.TLS)
			}
		}
		env := Env{TLS: trust}
		for name, x := range map[string]struct {
			env    Env
			target Target
			want   string
		}{
			"another name":      {env, Target{Addr: addr, ServerName: "elsewhere.test"}, "set server_name in the service's tls block"},
			"another authority": {Env{TLS: func(string) (*tls.Config, error) { return &tls.Config{RootCAs: x509.NewCertPool()}, nil }}, Target{Addr: addr}, "set ca_file in the service's tls block"},
			"no TLS there":      {env, Target{Addr: plain}, "does not speak TLS"},
			"nobody":            {env, Target{Addr: freeAddr(t)}, "nothing listens"},
			"silence":           {env, Target{Addr: silent}, "TLS handshake: no end of it within 200ms"},
		} {
			err := once(kind, x.env, x.target)
			if kind == "tcp" && name == "no TLS there" && err == nil {
				t.Error("a TCP check by TLS made no handshake")
			}
			wants(t, err, x.want)
			if !Unreachable(err) {
				t.Errorf("%s: %v: reachable?", name, err)
			}
		}
		own := errors.New("no file")
		err := once(kind, Env{TLS: func(string) (*tls.Config, error) { return nil, own }}, Target{Addr: addr})
		if !errors.Is(err, ErrNoVerdict) || !errors.Is(err, own) || Unreachable(err) {
			t.Errorf("this machine's own fault: %v", err)
		}
		wants(t, once(kind, Env{TLS: func(string) (*tls.Config, error) { return nil, nil }}, Target{Addr: plain}), "")
	}
	err := once("http", Env{}, Target{Addr: addr})
	if err == nil || !strings.Contains(err.Error(), "answered 400") {
		t.Errorf("plain HTTP to TLS: %v", err)
	}
}
