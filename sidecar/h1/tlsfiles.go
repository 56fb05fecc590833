package h1

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// credentials are what the files said at one time. Connections made with those
// of another time are not used again.
type credentials struct {
	roots *x509.CertPool   // nil: the system's
	pair  *tls.Certificate // nil: none
	// sessions are not taken over: they would outlive an authority that is no
	// longer trusted, and a certificate of ours that was replaced.
	sessions tls.ClientSessionCache
	sum      [sha256.Size]byte // of the files
	stale    bool              // told that the pair has expired; under tlsFiles.mu
}

const (
	// lookEvery is how often files are looked at.
	lookEvery = time.Second
	// settle is how old a file must be before its size and times are trusted:
	// within one tick of a file system's clock it may change unseen.
	settle = 3 * time.Second
	// maxSessions bounds the sessions kept per service, one per endpoint. A
	// session is a few KiB, with the backend's certificates.
	maxSessions = 1024
)

// errOwnTLS is a lack of credentials that no backend is to blame for.
var errOwnTLS = errors.New("this proxy's own TLS files cannot be used")

// tlsFiles keeps a service's credentials up to date. Safe for concurrent use.
type tlsFiles struct {
	cfg  TLSConfig
	log  hclog.Logger
	now  func() time.Duration
	wall func() time.Time

	cur    atomic.Pointer[credentials] // nil: there never were any
	looked atomic.Int64                // when files were last looked at, on now's clock

	mu   sync.Mutex // held by who looks
	seen []seenFile
	said string // the last complaint
}

// seenFile is what a file looked like when it was last read.
type seenFile struct {
	setting, path string
	info          os.FileInfo // nil: it could not be read
	at            time.Time
	b             []byte // for the time of one load
}

// newTLSFiles reads the files for the first time.
func newTLSFiles(cfg TLSConfig, log hclog.Logger, now func() time.Duration) *tlsFiles {
	f := &tlsFiles{cfg: cfg, log: log, now: now, wall: time.Now}
	for _, s := range []seenFile{
		{setting: "ca_file", path: cfg.CAFile},
		{setting: "cert_file", path: cfg.CertFile},
		{setting: "key_file", path: cfg.KeyFile},
	} {
		if s.path != "" {
			f.seen = append(f.seen, s)
		}
	}
	if cfg.InsecureSkipVerify {
		log.Warn("tls insecure_skip_verify is on: anybody may pose as a backend of this service")
	}
	f.looked.Store(int64(now()))
	f.mu.Lock()
	f.load()
	f.mu.Unlock()
	return f
}

// due reports whether it is time for a look, and takes it on.
func (f *tlsFiles) due() bool {
	if len(f.seen) == 0 {
		return false
	}
	now, last := int64(f.now()), f.looked.Load()
	return now-last >= int64(lookEvery) && f.looked.CompareAndSwap(last, now)
}

// look reads the files again if they have changed. Whoever finds another at it
// does not wait: a file system may hang.
func (f *tlsFiles) look() {
	if !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	for i := range f.seen {
		if f.seen[i].changed(f.wall()) {
			f.load()
			break
		}
	}
	f.checkExpiry()
}

// current returns the credentials for a new connection.
func (f *tlsFiles) current() (*credentials, error) {
	if f.due() {
		f.look()
	}
	if c := f.cur.Load(); c != nil {
		return c, nil
	}
	return nil, errOwnTLS
}

// ClientTLS returns a function that gives what a connection to a backend is made with
// by cfg, as it is made for requests: the name to verify is cfg.ServerName, else host,
// and files that change are used from then on. Sessions are not resumed: each connection
// sees the backend's certificate anew. It is nil where TLS is off; cfg must be valid.
// log may be nil, which is right beside a Server of the same service: that says what is
// wrong with the files. now is a monotonic clock. What is returned is safe for
// concurrent use, its configurations are the caller's, and its errors are this machine's
// own (no backend is to blame).
func ClientTLS(cfg TLSConfig, log hclog.Logger, now func() time.Duration) func(host string) (*tls.Config, error) {
	files := newDialers(cfg, log, now).files
	if files == nil {
		return nil
	}
	return func(host string) (*tls.Config, error) {
		creds, err := files.current()
		if err != nil {
			return nil, err
		}
		c := (&tlsEndpoint{files: files, name: cmp.Or(cfg.ServerName, host)}).newConfig(creds)
		c.ClientSessionCache = nil
		return c, nil
	}
}

// changed reports whether the file is not certain to be as it was.
func (s *seenFile) changed(now time.Time) bool {
	info, err := os.Stat(s.path)
	if err != nil || s.info == nil {
		return err == nil || s.info != nil || now.Sub(s.at) >= settle
	}
	if !os.SameFile(info, s.info) || info.Size() != s.info.Size() || !info.ModTime().Equal(s.info.ModTime()) {
		return true
	}
	return s.at.Sub(info.ModTime()) < settle
}

// load reads all files and takes them as one, or keeps what there is.
func (f *tlsFiles) load() {
	c, err := f.read()
	for i := range f.seen {
		f.seen[i].b = nil
	}
	old := f.cur.Load()
	switch {
	case err != nil && err.Error() == f.said:
	case err != nil:
		f.said = err.Error()
		if old == nil {
			f.log.Error("no connection to a backend can be made until this is put right", "error", err)
		} else {
			f.log.Error("changed TLS files are not used, the old ones stay in use", "error", err)
		}
	case old == nil:
		f.cur.Store(c)
		f.said = ""
	case c.sum != old.sum:
		f.cur.Store(c)
		f.said = ""
		f.log.Info("TLS files have changed and are used from now on", "ca_file", f.cfg.CAFile, "cert_file", f.cfg.CertFile)
	default:
		f.said = "" // they are what they were
	}
	f.checkExpiry()
}

func (f *tlsFiles) read() (*credentials, error) {
	sum := sha256.New()
	var errs []error
	files := map[string][]byte{}
	for i := range f.seen {
		s := &f.seen[i]
		s.at = f.wall()
		var err error
		s.b, s.info, err = readPEM(s.setting, s.path)
		errs = append(errs, err)
		files[s.setting] = s.b
		fmt.Fprintf(sum, "%s %d\n%s", s.setting, len(s.b), s.b)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c := &credentials{sessions: tls.NewLRUClientSessionCache(maxSessions)}
	sum.Sum(c.sum[:0])
	var err error
	if f.cfg.CAFile != "" {
		if c.roots, err = parseCAs(f.cfg.CAFile, files["ca_file"]); err != nil {
			return nil, err
		}
	}
	if f.cfg.CertFile != "" {
		if c.pair, err = parsePair(&f.cfg, files["cert_file"], files["key_file"]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// checkExpiry warns once of a client certificate that is out of its time. It is
// used all the same: some backends do not mind, and the others say so.
func (f *tlsFiles) checkExpiry() {
	c := f.cur.Load()
	if c == nil || c.pair == nil || c.pair.Leaf == nil || c.stale {
		return
	}
	now := f.wall()
	switch leaf := c.pair.Leaf; {
	case now.After(leaf.NotAfter):
		c.stale = true
		f.log.Warn("the client certificate has expired: backends will refuse it", "cert_file", f.cfg.CertFile, "expired", leaf.NotAfter)
	case now.Before(leaf.NotBefore):
		c.stale = true
		f.log.Warn("the client certificate is not valid yet: backends will refuse it", "cert_file", f.cfg.CertFile, "valid_from", leaf.NotBefore)
	}
}
