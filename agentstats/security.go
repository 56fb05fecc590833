package agentstats

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// ServerTLS says how an agent speaks TLS; its zero value is no TLS. Files are PEM;
// they are looked at once a second while peers connect, and read again when they
// change. TLS is 1.2 or newer.
type ServerTLS struct {
	// CertFile and KeyFile are what the agent shows: both or neither. The certificate's
	// issuers follow it in CertFile.
	CertFile, KeyFile string
	// ClientCAFile holds the authorities that vouch for sidecars: nobody else is
	// answered. "": sidecars need no certificate.
	ClientCAFile string
}

func (c ServerTLS) on() bool { return c != ServerTLS{} }

func (c ServerTLS) scheme() string {
	if c.on() {
		return "https"
	}
	return "http"
}

// Validate reports what is wrong. It reads the files.
func (c ServerTLS) Validate() error {
	switch {
	case !c.on():
		return nil
	case c.CertFile == "" || c.KeyFile == "":
		return errors.New("tls needs cert_file and key_file")
	}
	_, err := c.load()
	return err
}

func (c ServerTLS) load() (*tls.Config, error) {
	pair, perr := loadPair(c.CertFile, c.KeyFile)
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS12, // RFC 8996 forbids what is older
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"http/1.1"},
		// A sidecar connects once; and whoever comes back is looked at anew.
		SessionTicketsDisabled: true,
	}
	if c.ClientCAFile == "" {
		return cfg, perr
	}
	var err error
	cfg.ClientCAs, err = loadCAs("client_ca_file", c.ClientCAFile)
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	return cfg, errors.Join(perr, err)
}

// following returns a configuration for a listener that follows the files.
func (c ServerTLS) following(log hclog.Logger) *tls.Config {
	f := newFiles([]string{c.CertFile, c.KeyFile, c.ClientCAFile}, c.load, log)
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.current() },
	}
}

// ClientTLS says how a sidecar speaks TLS to agents. Files are PEM; they are looked
// at once a second while connections are made, and read again when they change.
type ClientTLS struct {
	// Enabled: without it all else must be left out, so that nobody believes in a TLS
	// that is not there.
	Enabled bool
	// CAFile holds the authorities that may vouch for agents. "": the system's.
	CAFile string
	// CertFile and KeyFile are what the sidecar shows to agents that ask: both or neither.
	CertFile, KeyFile string
	// ServerName must be in the agents' certificates. "": the host of the agent's
	// address, which is an IP address as a rule and must be among the certificate's.
	ServerName string
	// InsecureSkipVerify takes any certificate; for tests only.
	InsecureSkipVerify bool
}

// Validate reports what is wrong. It reads the files.
func (c ClientTLS) Validate() error {
	switch {
	case c == ClientTLS{}:
		return nil
	case !c.Enabled:
		return errors.New("tls has settings but is not on: write enabled = true, or drop them")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("tls needs cert_file and key_file together")
	}
	var named error
	if c.ServerName != "" && net.ParseIP(c.ServerName) == nil && checkName(c.ServerName, c.ServerName) != nil {
		named = fmt.Errorf("tls server_name %.80q is neither a host name nor an IP address", c.ServerName)
	}
	_, err := c.load()
	return errors.Join(named, err)
}

// load returns the configuration but for the name.
func (c ClientTLS) load() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, ServerName: c.ServerName, InsecureSkipVerify: c.InsecureSkipVerify}
	var errs []error
	var err error
	if c.CAFile != "" {
		cfg.RootCAs, err = loadCAs("ca_file", c.CAFile)
		errs = append(errs, err)
	}
	if c.CertFile != "" {
		var pair tls.Certificate
		pair, err = loadPair(c.CertFile, c.KeyFile)
		cfg.Certificates = []tls.Certificate{pair}
		errs = append(errs, err)
	}
	return cfg, errors.Join(errs...)
}

// files keeps a TLS configuration that follows its files. A new state that cannot be
// used is logged, and the old one stays.
type files struct {
	paths []string
	load  func() (*tls.Config, error)
	log   hclog.Logger
	now   func() time.Time

	mu      sync.Mutex
	cfg     *tls.Config
	looked  time.Time
	stamps  []stamp
	problem string // logged last
}

// stamp is what a file looked like.
type stamp struct {
	size    int64
	changed time.Time
}

// lookEvery is how often changed files are looked for, at most.
const lookEvery = time.Second

func newFiles(paths []string, load func() (*tls.Config, error), log hclog.Logger) *files {
	f := &files{load: load, log: log, now: time.Now}
	for _, p := range paths {
		if p != "" {
			f.paths = append(f.paths, p)
		}
	}
	return f
}

// current returns the configuration of the files as they are, or were when they could
// last be used. It must not be changed. Safe for concurrent use.
func (f *files) current() (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if f.cfg != nil && now.Sub(f.looked) < lookEvery && !now.Before(f.looked) {
		return f.cfg, nil
	}
	f.looked = now
	stamps := f.stampAll() // before reading: what changes meanwhile is read again
	if f.cfg != nil && equalStamps(stamps, f.stamps) {
		return f.cfg, nil
	}
	cfg, err := f.load()
	if err != nil {
		if f.cfg == nil {
			return nil, err
		}
		if f.problem != err.Error() {
			f.problem = err.Error()
			f.log.Error("TLS files changed but cannot be used; those read before stay in use", "error", err)
		}
		return f.cfg, nil
	}
	if f.cfg != nil {
		f.log.Info("TLS files were read again")
	}
	f.cfg, f.stamps, f.problem = cfg, stamps, ""
	return cfg, nil
}

func (f *files) stampAll() []stamp {
	all := make([]stamp, len(f.paths))
	for i, p := range f.paths {
		if info, err := os.Stat(p); err == nil { // else the zero stamp; reading says why
			all[i] = stamp{info.Size(), info.ModTime()}
		}
	}
	return all
}

func equalStamps(a, b []stamp) bool {
	for i := range a {
		if a[i].size != b[i].size || !a[i].changed.Equal(b[i].changed) {
			return false
		}
	}
	return true
}

// guard checks tokens. Its zero value lets everybody in.
type guard struct {
	on  bool
	sum [sha256.Size]byte // of the whole value of Authorization
}

func newGuard(token string) guard {
	if token == "" {
		return guard{}
	}
	return guard{on: true, sum: sha256.Sum256([]byte(bearer(token)))}
}

// bearer is the value of Authorization for a token; "" without one.
func bearer(token string) string {
	if token == "" {
		return ""
	}
	return "Bearer " + token
}

// allows compares sums, so that the time it takes tells nothing of the token, its
// length neither.
func (g *guard) allows(value []byte) bool {
	sum := sha256.Sum256(value)
	return subtle.ConstantTimeCompare(sum[:], g.sum[:]) == 1
}

// minToken is the length of 96 random bits in base64.
const minToken = 16

// checkToken accepts what RFC 6750 allows in a header, but nothing that can be
// guessed for its length. The error does not say the token.
func checkToken(token string) error {
	if token == "" {
		return nil
	}
	if len(token) < minToken || len(token) > maxText {
		return fmt.Errorf("token has %d characters, outside %d to %d (make one with: openssl rand -base64 24)", len(token), minToken, maxText)
	}
	for _, c := range []byte(token) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' && c != '~' && c != '+' && c != '/' && c != '=' {
			return errors.New("token has a character that is none of A-Z a-z 0-9 - . _ ~ + / =")
		}
	}
	return nil
}

// maxPEM bounds what is read of one file; the largest bundle of all public
// authorities is about 250 KiB.
const maxPEM = 1 << 20

// readPEM reads a regular file: others may block for ever.
func readPEM(setting, path string) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("tls %s: %w", setting, err) }
	info, err := os.Stat(path)
	if err != nil {
		return fail(err)
	}
	if !info.Mode().IsRegular() {
		return fail(fmt.Errorf("%s is no regular file", path))
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxPEM)
	}
	if err != nil {
		return fail(err)
	}
	return b, nil
}

// loadCAs is stricter than x509.CertPool: it refuses a file that is broken anywhere.
func loadCAs(setting, path string) (*x509.CertPool, error) {
	b, err := readPEM(setting, path)
	if err != nil {
		return nil, err
	}
	pool, n := x509.NewCertPool(), 0
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("tls %s %s: certificate %d: %w", setting, path, n+1, err)
		}
		pool.AddCert(cert)
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("tls %s %s: there is no certificate in it (PEM is expected)", setting, path)
	}
	return pool, nil
}

func loadPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := readPEM("cert_file", certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readPEM("key_file", keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls cert_file %s and key_file %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}
