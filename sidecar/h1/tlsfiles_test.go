package h1

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

func TestTLSConfig(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cert, key := a.issue(time.Time{}, "a")
	_, other := a.issue(time.Time{}, "b")
	cut := append(bytes.Clone(a.pem), a.pem[:len(a.pem)/2]...)
	bad := strings.Replace(string(a.pem), "\n", "\nAAAA", 1)
	none := filepath.Join(t.TempDir(), "none.pem")
	for name, tt := range map[string]struct {
		edit func(*TLSConfig)
		want string // "": it is valid
	}{
		"off":             {func(c *TLSConfig) { c.Enabled = false }, ""},
		"on":              {func(*TLSConfig) {}, ""},
		"off, with name":  {func(c *TLSConfig) { c.Enabled, c.ServerName = false, "a" }, "tls has server_name but is not on"},
		"off, unverified": {func(c *TLSConfig) { c.Enabled, c.InsecureSkipVerify = false, true }, "insecure_skip_verify but is not on"},
		"authority":       {func(c *TLSConfig) { c.CAFile = file(t, a.pem) }, ""},
		"two and text":    {func(c *TLSConfig) { c.CAFile = file(t, append(append([]byte("# text\n"), a.pem...), a.pem...)) }, ""},
		"no file":         {func(c *TLSConfig) { c.CAFile = none }, "no such file"},
		"a directory":     {func(c *TLSConfig) { c.CAFile = filepath.Dir(none) }, "no regular file"},
		"a device":        {func(c *TLSConfig) { c.CAFile = os.DevNull }, "no regular file"},
		"empty":           {func(c *TLSConfig) { c.CAFile = file(t, nil) }, "there is no certificate in it"},
		"a key":           {func(c *TLSConfig) { c.CAFile = file(t, key) }, "there is no certificate in it"},
		"cut off":         {func(c *TLSConfig) { c.CAFile = file(t, cut) }, "cut off or broken after 1 certificates"},
		"broken":          {func(c *TLSConfig) { c.CAFile = file(t, []byte(bad)) }, "certificate 1: "},
		"huge":            {func(c *TLSConfig) { c.CAFile = file(t, make([]byte, maxPEM+1)) }, "larger than 1048576 bytes"},
		"pair":            {func(c *TLSConfig) { c.CertFile, c.KeyFile = file(t, cert), file(t, key) }, ""},
		"half a pair":     {func(c *TLSConfig) { c.KeyFile = file(t, key) }, "cert_file and key_file together"},
		"no pair":         {func(c *TLSConfig) { c.CertFile, c.KeyFile = file(t, cert), file(t, other) }, "does not match"},
		"swapped":         {func(c *TLSConfig) { c.CertFile, c.KeyFile = file(t, key), file(t, cert) }, "tls cert_file"},
		"version":         {func(c *TLSConfig) { c.MinVersion = "1.1" }, `min_version is "1.1", allowed are 1.2, 1.3`},
		"name":            {func(c *TLSConfig) { c.ServerName = "web_1.Service.consul" }, ""},
		"address":         {func(c *TLSConfig) { c.ServerName = "::1" }, ""},
		"a URL":           {func(c *TLSConfig) { c.ServerName = "https://a" }, "neither a host name nor"},
		"port":            {func(c *TLSConfig) { c.ServerName = "a:443" }, "neither a host name nor"},
		"dots":            {func(c *TLSConfig) { c.ServerName = "a..b" }, "neither a host name nor"},
		"wildcard":        {func(c *TLSConfig) { c.ServerName = "*.b" }, "neither a host name nor"},
		"long":            {func(c *TLSConfig) { c.ServerName = strings.Repeat("a.", 130) + "b" }, "neither a host name nor"},
	} {
		c := DefaultTLSConfig()
		c.Enabled = true
		tt.edit(&c)
		err := c.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: the error shows a key: %v", name, err)
		}
	}
	c := TLSConfig{Enabled: true, MinVersion: "x", ServerName: " ", CAFile: none, CertFile: none}
	if err := c.Validate(); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("not all errors at once: %v", err)
	}
}

// watchedFiles are files under a clock of the test's own.
type watchedFiles struct {
	*tlsFiles
	logged
	t    *testing.T
	at   time.Duration
	wall time.Time
}

func watchFiles(t *testing.T, cfg TLSConfig) *watchedFiles {
	w := &watchedFiles{t: t, at: time.Hour, wall: time.Now()}
	w.tlsFiles = newTLSFiles(cfg, w.logger(), func() time.Duration { return w.at })
	w.tlsFiles.wall = func() time.Time { return w.wall }
	return w
}

// after lets time pass and returns the credentials for a connection then.
func (w *watchedFiles) after(d time.Duration) *credentials {
	w.t.Helper()
	w.at += d
	w.wall = w.wall.Add(d)
	c, err := w.current()
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *watchedFiles) wantLogged(s string, n int) {
	w.t.Helper()
	if got := w.count(s); got != n {
		w.t.Errorf("logged %d times, want %d: %s\n%s", got, n, s, w.b.String())
	}
}

// A pair is taken when both of its halves are there; until then, and whenever
// something is wrong, the old one stays in use and that is said once.
func TestTLSFilesChange(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	oldCert, oldKey := a.issue(time.Time{}, "old")
	newCert, newKey := a.issue(time.Time{}, "new")
	cfg := DefaultTLSConfig()
	cfg.Enabled = true
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = file(t, a.pem), file(t, oldCert), file(t, oldKey)
	w := watchFiles(t, cfg)
	is := func(c *credentials, name string) {
		t.Helper()
		if got := c.pair.Leaf.Subject.CommonName; got != name {
			t.Errorf("the certificate is of %s, want %s", got, name)
		}
	}
	first := w.after(0)
	is(first, "old")
	for range 2 {
		if w.after(time.Minute) != first {
			t.Error("nothing has changed, and yet")
		}
	}

	put(t, cfg.CertFile, newCert)
	if w.after(lookEvery/2) != first {
		t.Error("looked too soon")
	}
	for range 10 { // half of it
		is(w.after(lookEvery), "old")
	}
	w.wantLogged("are not used", 1)
	w.wantLogged(cfg.CertFile, 1)
	w.wantLogged("does not match", 1)
	put(t, cfg.KeyFile, newKey)
	second := w.after(lookEvery)
	is(second, "new")
	if second == first || second.sessions == first.sessions {
		t.Error("sessions were taken over")
	}
	w.wantLogged("have changed and are used", 1)

	// The same content again, or other times, is no change.
	put(t, cfg.CertFile, newCert)
	if err := os.Chtimes(cfg.KeyFile, w.wall, w.wall); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if w.after(lookEvery) != second {
			t.Error("the same content was taken for a change")
		}
	}

	// Gone, back, broken, whole.
	if err := os.Remove(cfg.CAFile); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if w.after(lookEvery) != second {
			t.Error("a file that is gone is a change")
		}
	}
	w.wantLogged("no such file", 1)
	put(t, cfg.CAFile, a.pem)
	if w.after(lookEvery) != second {
		t.Error("a file that is back is a change")
	}
	if err := os.WriteFile(cfg.CAFile, a.pem[:100], 0o600); err != nil { // in place
		t.Fatal(err)
	}
	for range 10 {
		if w.after(lookEvery) != second {
			t.Error("a broken file was taken")
		}
	}
	w.wantLogged("cut off or broken", 1)
	put(t, cfg.CAFile, newAuthority(t).pem)
	if third := w.after(lookEvery); third == second {
		t.Error("another authority was not taken")
	}
	w.wantLogged("are not used", 3)
	w.wantLogged("have changed and are used", 2)
	w.wantLogged("PRIVATE", 0)
}

// A file that changes within a tick of the file system's clock looks the same.
func TestTLSFilesChangeUnseen(t *testing.T) {
	t.Parallel()
	one, two := newAuthority(t), newAuthority(t)
	for len(one.pem) != len(two.pem) {
		two = newAuthority(t)
	}
	cfg := DefaultTLSConfig()
	cfg.Enabled, cfg.CAFile = true, file(t, one.pem)
	w := watchFiles(t, cfg)
	first := w.after(0)
	info, err := os.Stat(cfg.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.CAFile, two.pem, 0o600); err != nil { // in place: the same inode
		t.Fatal(err)
	}
	if err := os.Chtimes(cfg.CAFile, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if w.after(lookEvery) == first {
		t.Error("the change went unseen")
	}
}

// Files that were never right: no backend is to blame, and connections are made
// as soon as they are put right.
func TestTLSFilesMissing(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cfg := DefaultTLSConfig()
	cfg.Enabled, cfg.CAFile = true, filepath.Join(t.TempDir(), "ca.pem")
	w := watchFiles(t, cfg)
	for range 3 {
		w.at += lookEvery
		if _, err := w.current(); !errors.Is(err, errOwnTLS) || !ourFault(err) {
			t.Errorf("%v", err)
		}
	}
	w.wantLogged("no connection to a backend can be made", 1)
	put(t, cfg.CAFile, a.pem)
	w.after(lookEvery)
}

func TestTLSExpiry(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	now := time.Now()
	cert, key := a.issue(now.Add(time.Minute), "soon")
	cfg := DefaultTLSConfig()
	cfg.Enabled = true
	cfg.CertFile, cfg.KeyFile = file(t, cert), file(t, key)
	w := watchFiles(t, cfg)
	w.after(0)
	w.wantLogged("has expired", 0)
	for range 5 {
		w.after(time.Minute) // it is used all the same
	}
	w.wantLogged("has expired", 1)
	cert, key = a.issue(now.Add(24*time.Hour), "later") // valid from 22 hours on
	put(t, cfg.CertFile, cert)
	put(t, cfg.KeyFile, key)
	w.after(lookEvery)
	w.after(lookEvery)
	w.wantLogged("not valid yet", 1)
}

// A rotated authority takes effect on connections that are kept, too, and a
// rotated certificate is shown.
func TestTLSRotation(t *testing.T) {
	t.Parallel()
	one, two := newAuthority(t), newAuthority(t)
	srv := one.server("127.0.0.1")
	srv.ClientAuth = tls.RequireAnyClientCert
	b := tlsSays(t, srv, ok200("ok"))
	cfg := one.trusting()
	cert, key := one.issue(time.Time{}, "first")
	cfg.TLS.CertFile, cfg.TLS.KeyFile = file(t, cert), file(t, key)
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	for range 3 {
		c.send(get1("/"))
		c.want("GET", 200, "ok")
	}
	if n, who := b.accepted.Load(), b.last().PeerCertificates[0].Subject.CommonName; n != 1 || who != "first" {
		t.Errorf("%d connections, the last of %s", n, who)
	}

	cert, key = two.issue(time.Time{}, "second")
	put(t, cfg.TLS.CertFile, cert)
	put(t, cfg.TLS.KeyFile, key)
	r.eventually("the connection that was kept is closed", func() bool { return b.open.Load() == 0 })
	c.send(get1("/"))
	c.want("GET", 200, "ok")
	if n, who := b.resumed.Load(), b.last().PeerCertificates[0].Subject.CommonName; n != 0 || who != "second" {
		t.Errorf("%d were resumed, the last is of %s", n, who)
	}

	put(t, cfg.TLS.CAFile, two.pem) // which did not sign the backend's
	r.eventually("the connection that was kept is closed", func() bool { return b.open.Load() == 0 })
	c.send(get1("/"))
	c.wantOwn(503, "unreachable")
}

// What is wrong between us and a backend is said, with a hint, and not with
// every request.
func TestTLSComplaints(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	strict := a.server("127.0.0.1")
	strict.ClientAuth = tls.RequireAndVerifyClientCert
	strict.ClientCAs = a.pool()
	for name, tt := range map[string]struct {
		srv  *tls.Config
		want string
		late bool // noticed with the first read
	}{
		"authority":   {other.server("127.0.0.1"), "set ca_file", false},
		"name":        {a.server("elsewhere"), "set server_name", false},
		"certificate": {strict, "the backend refused", true},
	} {
		b := tlsSays(t, tt.srv, ok200("ok"))
		p, l := tlsPool(t, a.trusting(), b.addr)
		for range 3 {
			u, err := p.get(context.Background(), true, patience)
			if tt.late && err == nil {
				_, err = u.nc.Read(make([]byte, 1))
				u.finish()
			}
			if err == nil || ourFault(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if l.count("TLS with a backend failed") != 1 || l.count(tt.want) != 1 || l.count(b.addr) == 0 {
			t.Errorf("%s: logged\n%s", name, l.b.String())
		}
	}
	cfg := a.trusting()
	cfg.TLS.InsecureSkipVerify = true
	if _, l := tlsPool(t, cfg, nobody(t)); l.count("anybody may pose") != 1 {
		t.Errorf("logged\n%s", l.b.String())
	}
}
