package agentstats

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

const testToken = "c2VjcmV0LXRva2VuLW9mLXRlc3Rz"

// polled makes one poll with a poller of these settings, and tells how it went.
func polled(t *testing.T, addr string, cfg PollConfig) (Sample, error) {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	cfg.Timeout = patience
	p := NewPoller(cfg, PollEnv{InFlight: func(string) int64 { return 7 }})
	target := newTarget(p, Target{ID: "a", Addr: addr, Backend: addr})
	defer target.client.close()
	var got Sample
	if _, failed := target.once(t.Context(), func(_ string, s Sample) { got = s }); failed {
		return got, &failure{target.snapshot().LastError}
	}
	return got, nil
}

type failure struct{ text string }

func (f *failure) Error() string { return f.text }

func TestSecuredPolls(t *testing.T) {
	ca, other := newAuthority(t, "ours"), newAuthority(t, "another")
	ca.issue("sidecar")
	other.issue("sidecar")
	mutual := ca.server()
	mutual.ClientCAFile = ca.path("ca.pem")
	trusting := func(change func(*PollConfig)) PollConfig {
		c := DefaultPollConfig()
		c.TLS = ClientTLS{Enabled: true, CAFile: ca.path("ca.pem")}
		if change != nil {
			change(&c)
		}
		return c
	}
	for name, c := range map[string]struct {
		tls    ServerTLS
		token  string
		poll   PollConfig
		refuse string // in the error; "": it works
	}{
		"plain":                       {ServerTLS{}, "", DefaultPollConfig(), ""},
		"TLS":                         {ca.server(), "", trusting(nil), ""},
		"TLS by name":                 {ca.server(), "", trusting(func(c *PollConfig) { c.TLS.ServerName = "agent.test" }), ""},
		"TLS, another name":           {ca.server(), "", trusting(func(c *PollConfig) { c.TLS.ServerName = "other.test" }), "not other.test"},
		"TLS, unknown authority":      {ca.server(), "", trusting(func(c *PollConfig) { c.TLS.CAFile = other.path("ca.pem") }), "unknown authority"},
		"TLS, unchecked":              {ca.server(), "", trusting(func(c *PollConfig) { c.TLS = ClientTLS{Enabled: true, InsecureSkipVerify: true} }), ""},
		"a plain poll of a TLS agent": {ca.server(), "", DefaultPollConfig(), "400"},
		"a TLS poll of a plain agent": {ServerTLS{}, "", trusting(nil), "TLS"},
		"mutual TLS":                  {mutual, "", trusting(func(c *PollConfig) { c.TLS.CertFile, c.TLS.KeyFile = ca.path("sidecar.pem"), ca.path("sidecar.key") }), ""},
		"mutual TLS, no certificate":  {mutual, "", trusting(nil), "certificate required"},
		"mutual TLS, another authority": {mutual, "", trusting(func(c *PollConfig) {
			c.TLS.CertFile, c.TLS.KeyFile = other.path("sidecar.pem"), other.path("sidecar.key")
		}), "certificate"},
		"token":                   {ServerTLS{}, testToken, func() PollConfig { c := DefaultPollConfig(); c.Token = testToken; return c }(), ""},
		"token, none shown":       {ServerTLS{}, testToken, DefaultPollConfig(), "401"},
		"token, another":          {ServerTLS{}, testToken, func() PollConfig { c := DefaultPollConfig(); c.Token = testToken + "x"; return c }(), "401"},
		"a token nobody asks for": {ServerTLS{}, "", func() PollConfig { c := DefaultPollConfig(); c.Token = testToken; return c }(), ""},
		"TLS and token":           {ca.server(), testToken, trusting(func(c *PollConfig) { c.Token = testToken }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			out := &log{}
			a := scriptedAgent(&scripted{r: full()}, out.logger())
			a.cfg.TLS, a.guard = c.tls, newGuard(c.token)
			if err := c.tls.Validate(); err != nil {
				t.Fatal(err)
			}
			s, err := polled(t, serving(t, a), c.poll)
			switch {
			case c.refuse == "" && (err != nil || s.Report.OwnInFlight != Some(int64(7)) || s.OwnInFlight != 7):
				t.Errorf("got %+v, %v", s, err)
			case c.refuse != "" && (err == nil || !strings.Contains(err.Error(), c.refuse)):
				t.Errorf("got %+v, %v; want an error with %q", s, err, c.refuse)
			case err != nil && strings.Contains(err.Error(), testToken) || out.count(testToken) > 0:
				t.Error("the token was told")
			}
		})
	}
}

// TestTokenGuards: all but /healthz needs the token, on both paths, and a refusal tells
// nothing.
func TestTokenGuards(t *testing.T) {
	a := someAgent()
	a.guard = newGuard(testToken)
	a.routes = append(a.routes, route{"GET /metrics", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })})
	addr := serving(t, a)
	for _, path := range []string{ReportPath, "/metrics", "/healthz"} {
		for auth, right := range map[string]bool{
			"": false, "Authorization: Bearer " + testToken: true, "Authorization: Bearer " + testToken[1:]: false,
			"Authorization: bearer " + testToken: false, "Authorization: Basic " + testToken: false, "Authorization: " + testToken: false,
			"Authorization: Bearer " + testToken + "\r\nAuthorization: Bearer " + testToken: false,
		} {
			conn, r := dialed(t, addr)
			head := ""
			if auth != "" {
				head = auth + "\r\n"
			}
			resp, body := say(t, conn, r, "GET "+path+" HTTP/1.1\r\nHost: a\r\n"+head+"\r\n")
			if want := right || path == "/healthz"; want != (resp.StatusCode == 200) {
				t.Errorf("%s with %q: %d %s", path, auth, resp.StatusCode, body)
			}
			if path == "/healthz" && body != "ok\n" {
				t.Errorf("strangers are told %q", body)
			}
			if resp.StatusCode != 200 && (resp.StatusCode != 401 || body != "unauthorized\n" || resp.Header.Get("WWW-Authenticate") != "Bearer") {
				t.Errorf("%s with %q: %d %v %q", path, auth, resp.StatusCode, resp.Header, body)
			}
		}
	}
}

// TestCertificateRotates: new files count for the next connection, broken ones do not,
// and connections that are open stay.
func TestCertificateRotates(t *testing.T) {
	ca := newAuthority(t, "ours")
	cfg := ca.server()
	out := &log{}
	f := newFiles([]string{cfg.CertFile, cfg.KeyFile}, cfg.load, out.logger())
	now := time.Now()
	f.now = func() time.Time { return now }
	serial := func() int64 {
		t.Helper()
		c, err := f.current()
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.Int64()
	}
	first := serial()
	ca.issue("agent")
	if serial() != first {
		t.Error("the files were looked at again within a second")
	}
	now = now.Add(lookEvery)
	if serial() != first+1 || out.count("read again") != 1 {
		t.Error("the new certificate is not used")
	}
	for range 3 {
		if err := os.WriteFile(ca.path("agent.pem"), []byte("half a file"), 0o600); err != nil {
			t.Fatal(err)
		}
		now = now.Add(lookEvery)
		if serial() != first+1 {
			t.Error("a broken file did away with the certificate")
		}
	}
	if out.count("cannot be used") != 1 {
		t.Error("a broken file must be said once")
	}
	ca.issue("agent")
	now = now.Add(lookEvery)
	if serial() != first+2 {
		t.Error("it did not recover")
	}

	// And on the wire.
	a := someAgent()
	a.cfg.TLS = cfg
	addr := serving(t, a)
	pool, err := loadCAs("ca_file", ca.path("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	open := func() (*tls.Conn, int64) {
		t.Helper()
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c, c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	old, before := open()
	ca.issue("agent")
	for deadline := time.Now().Add(patience); ; {
		c, serial := open()
		c.Close()
		if serial == before+1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the agent goes on showing the old certificate")
		}
		time.Sleep(50 * ms)
	}
	if resp, body := say(t, old, bufio.NewReader(old), "GET /v1/report HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("an old connection: %d %s", resp.StatusCode, body)
	}
}

// TestOldTLS: nothing below 1.2.
func TestOldTLS(t *testing.T) {
	a := someAgent()
	a.cfg.TLS = newAuthority(t, "ours").server()
	addr := serving(t, a)
	for version, works := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version})
		if (err == nil) != works {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			c.Close()
		}
	}
}

// TestCurl: another's client, over mutual TLS with a token.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	ca := newAuthority(t, "ours")
	a := someAgent()
	a.cfg.TLS = ca.server()
	a.cfg.TLS.ClientCAFile = ca.path("ca.pem")
	a.guard = newGuard(testToken)
	ca.issue("me")
	url := "https://" + serving(t, a) + ReportPath
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--cert", ca.path("me.pem"), "--key", ca.path("me.key"), "-H", "Authorization: Bearer " + testToken}, `{"version":1,`},
		{[]string{"--cert", ca.path("me.pem"), "--key", ca.path("me.key")}, "unauthorized"},
		{[]string{"-H", "Authorization: Bearer " + testToken}, "certificate required"},
	} {
		cmd := exec.CommandContext(t.Context(), curl, append([]string{"-sS", "--max-time", "10", "--cacert", ca.path("ca.pem"), url}, c.args...)...)
		text, _ := cmd.CombinedOutput() // what it says is what counts
		if !strings.Contains(string(text), c.want) {
			t.Errorf("curl %q: %s", c.args, text)
		}
	}
}

func TestSecurityValidate(t *testing.T) {
	ca := newAuthority(t, "ours")
	good := ca.server()
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no key":            {ServerTLS{CertFile: good.CertFile}.Validate(), "cert_file and key_file"},
		"only an authority": {ServerTLS{ClientCAFile: ca.path("ca.pem")}.Validate(), "cert_file and key_file"},
		"no file":           {ServerTLS{CertFile: "/none", KeyFile: good.KeyFile}.Validate(), "/none"},
		"key of another":    {ServerTLS{CertFile: ca.path("ca.pem"), KeyFile: good.KeyFile}.Validate(), "cert_file"},
		"a directory":       {ServerTLS{CertFile: ca.dir, KeyFile: good.KeyFile}.Validate(), "no regular file"},
		"no certificate":    {ServerTLS{CertFile: good.CertFile, KeyFile: good.KeyFile, ClientCAFile: good.KeyFile}.Validate(), "no certificate"},
		"not on":            {ClientTLS{CAFile: ca.path("ca.pem")}.Validate(), "enabled = true"},
		"client key":        {ClientTLS{Enabled: true, KeyFile: good.KeyFile}.Validate(), "together"},
		"server name":       {ClientTLS{Enabled: true, ServerName: "a b"}.Validate(), "neither"},
		"short token":       {checkToken("short"), "outside 16"},
		"token with blanks": {checkToken("0123456789 123456789"), "none of"},
		"token with CRLF":   {checkToken("0123456789\r\nX: 456789"), "none of"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
		if c.err != nil && strings.Contains(c.err.Error(), "0123456789") {
			t.Errorf("%s: the token is in %v", name, c.err)
		}
	}
	for _, err := range []error{good.Validate(), ServerTLS{}.Validate(), ClientTLS{}.Validate(), ClientTLS{Enabled: true, CAFile: ca.path("ca.pem"), ServerName: "10.0.0.1"}.Validate(), checkToken(""), checkToken(testToken)} {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestDial: what is not a poll goes to the same agent in the same way.
func TestDial(t *testing.T) {
	ca := newAuthority(t, "ours")
	a := someAgent()
	a.cfg.TLS = ca.server()
	a.guard = newGuard(testToken)
	upgraded := make(chan string, 1)
	a.routes = append(a.routes, route{"GET /v1/stream", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		line, _ := rw.ReadString('\n')
		upgraded <- line
		<-r.Context().Done() // of the agent
	})})
	cfg := DefaultPollConfig()
	cfg.Token = testToken
	cfg.TLS = ClientTLS{Enabled: true, CAFile: ca.path("ca.pem")}
	p := NewPoller(cfg, PollEnv{Logger: hclog.NewNullLogger()})
	p.SetTargets([]Target{{ID: "a", Addr: serving(t, a)}})
	if _, err := p.Dial(t.Context(), "b"); err == nil {
		t.Error("an endpoint without an agent was dialled")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := p.Dial(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp, err := func() (*http.Response, error) {
		if _, err := io.WriteString(conn, "GET /v1/stream HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\nAuthorization: "+p.Authorization("a")+"\r\n\r\n"); err != nil {
			return nil, err
		}
		return http.ReadResponse(bufio.NewReader(conn), nil)
	}()
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%+v, %v", resp, err)
	}
	if _, err := io.WriteString(conn, "12\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-upgraded; got != "12\n" {
		t.Errorf("the agent read %q", got)
	}
	if open, polling := a.crowd.open.Load(), a.crowd.polling.Load(); open != 1 || polling != 0 {
		t.Errorf("%d connections, %d of them poll", open, polling)
	}
}

// Without TLS the catalog cannot have the token sent to another host than the
// instance's own.
func TestTokenStaysAtHome(t *testing.T) {
	cfg := DefaultPollConfig()
	cfg.Token = testToken
	secured := cfg
	secured.TLS = ClientTLS{Enabled: true}
	for _, x := range []struct {
		cfg           PollConfig
		addr, backend string
		shown         bool
	}{
		{cfg, "10.0.0.5:9912", "10.0.0.5:8080", true},
		{cfg, "[::ffff:10.0.0.5]:9912", "10.0.0.5:8080", true},
		{cfg, "Web.internal:9912", "web.internal", true},
		{cfg, "192.0.2.1:80", "10.0.0.5:8080", false},
		{cfg, "web.internal:9912", "10.0.0.5:8080", false},
		{cfg, "10.0.0.5:9912", "", false},
		{secured, "192.0.2.1:80", "10.0.0.5:8080", true},
		{DefaultPollConfig(), "10.0.0.5:9912", "10.0.0.5:8080", false},
	} {
		p := NewPoller(x.cfg, PollEnv{Logger: hclog.NewNullLogger()})
		p.SetTargets([]Target{{ID: "a", Addr: x.addr, Backend: x.backend}})
		got := p.Authorization("a")
		if got != p.targets["a"].client.auth || (got == "Bearer "+testToken) != x.shown || !x.shown && got != "" || p.Authorization("b") != "" {
			t.Errorf("agent %s of an instance at %q: shown %q", x.addr, x.backend, got)
		}
	}
	// And the refusal that follows says why.
	n := newNetwork(func(string, int) string { return "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n" })
	target := newTarget(NewPoller(cfg, n.env()), Target{ID: "a", Addr: "192.0.2.1:80", Backend: "10.0.0.5:80"})
	defer target.client.close()
	if _, failed := target.once(t.Context(), nil); !failed || !strings.Contains(target.snapshot().LastError, "not shown to an agent on another host") {
		t.Errorf("status %+v", target.snapshot())
	}
}
