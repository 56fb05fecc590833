package h1

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// authority signs certificates for a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

var serial atomic.Int64

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	a.cert, a.key, a.pem = sign(t, tmpl, nil)
	return a
}

// sign completes a certificate; by nil it is its own issuer.
func sign(t testing.TB, tmpl *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl.SerialNumber = big.NewInt(serial.Add(1))
	if tmpl.NotAfter.IsZero() {
		tmpl.NotAfter = time.Now().Add(time.Hour)
	}
	if tmpl.NotBefore.IsZero() {
		tmpl.NotBefore = tmpl.NotAfter.Add(-2 * time.Hour)
	}
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// issue returns a certificate and its key for names and IP addresses.
func (a *authority) issue(notAfter time.Time, names ...string) (cert, key []byte) {
	a.t.Helper()
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: strings.Join(names, "+")}, NotAfter: notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	_, priv, cert := sign(a.t, tmpl, a)
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// server returns the settings of a server with a certificate for names.
func (a *authority) server(names ...string) *tls.Config {
	a.t.Helper()
	pair, err := tls.X509KeyPair(a.issue(time.Time{}, names...))
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// file writes a file into a directory of the test's own.
func file(t testing.TB, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.pem")
	put(t, name, content)
	return name
}

// put replaces a file, as those do that renew certificates.
func put(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

// trusting are quick settings with TLS to backends that the authority signed.
func (a *authority) trusting() Config {
	c := quick()
	c.TLS.Enabled = true
	c.TLS.CAFile = file(a.t, a.pem)
	return c
}

// tlsBackend is a backend whose script speaks TLS.
type tlsBackend struct {
	*backend
	resumed atomic.Int64
	refused atomic.Int64 // handshakes that failed
	mu      sync.Mutex
	states  []tls.ConnectionState
}

// tlsPeer is a scripted TLS connection; the embedded peer reads and writes what
// is in it.
type tlsPeer struct {
	*peer
	tc *tls.Conn
}

func newTLSBackend(t testing.TB, cfg *tls.Config, script func(b *tlsBackend, p *tlsPeer)) *tlsBackend {
	t.Helper()
	tb := &tlsBackend{}
	tb.backend = newBackend(t, func(_ *backend, p *peer) {
		tc := tls.Server(p.nc, cfg)
		if tc.Handshake() != nil {
			tb.refused.Add(1)
			return
		}
		st := tc.ConnectionState()
		if st.DidResume {
			tb.resumed.Add(1)
		}
		tb.mu.Lock()
		tb.states = append(tb.states, st)
		tb.mu.Unlock()
		p.br = bufio.NewReaderSize(tc, 64<<10)
		script(tb, &tlsPeer{p, tc})
	})
	return tb
}

func (p *tlsPeer) send(s string) { _, _ = io.WriteString(p.tc, s) }

// tlsSays is a backend that answers every request alike, and says goodbye.
func tlsSays(t testing.TB, cfg *tls.Config, answer string) *tlsBackend {
	return newTLSBackend(t, cfg, func(b *tlsBackend, p *tlsPeer) {
		for b.head(p.peer) != "" {
			p.send(answer)
		}
		_ = p.tc.CloseWrite()
	})
}

func (b *tlsBackend) last() tls.ConnectionState {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.states) == 0 {
		b.t.Error("the backend has had no connection")
		return tls.ConnectionState{}
	}
	return b.states[len(b.states)-1]
}

// logged gathers what is logged.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func (l *logged) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Trace})
}
