package h1

import (
	"bufio"
	"bytes"

	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

// free returns a port that nobody listens on, for a tool that takes no 0.
func free(t testing.TB) string {
	_, port, _ := net.SplitHostPort(nobody(t))
	return port
}

// tool starts a program that ends with the test. The test is skipped where
// there is none.
func tool(t *testing.T, name string, args ...string) (stdin io.Writer, out *logged) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path = "/usr/sbin/" + name; !exists(path) {
			t.Skipf("no %s here", name)
		}
	}
	cmd := exec.Command(path, args...)
	out = &logged{}
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, out.b.String())
		}
	})
	return in, out
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// openssl s_server sends its tickets after the handshake, and new keys when
// told to: idle connections bear both.
func TestTLSOpenSSL(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	for _, v := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(v, func(t *testing.T) {
			t.Parallel()
			cert, key := a.issue(time.Time{}, "127.0.0.1")
			addr := "127.0.0.1:" + free(t)
			stdin, out := tool(t, "openssl", "s_server", "-accept", addr, v, "-cert", file(t, cert), "-key", file(t, key))
			say := func(s string) {
				if _, err := io.WriteString(stdin, s); err != nil {
					t.Error(err)
				}
			}
			eventually(t, "openssl listens", func() bool { return out.count("ACCEPT") == 1 })
			p, _ := tlsPool(t, a.trusting(), addr)
			u := p.mustGet(t, true)
			peek := newPeeker(u.tls.wire.Conn)
			if v == "-tls1_3" {
				eventually(t, "there are tickets to read", func() bool { return !peek.quiet() })
			}
			for i := range 4 {
				if !u.quiet() {
					t.Fatalf("not quiet in round %d", i)
				}
				fmt.Fprintf(u.nc, "REQUEST %d\n", i)
				eventually(t, "the request is there", func() bool { return out.count(fmt.Sprintf("REQUEST %d\n", i)) == 1 })
				say(fmt.Sprintf("ANSWER %d\n", i))
				got := make([]byte, len("ANSWER 0\n"))
				if _, err := io.ReadFull(u.nc, got); err != nil || string(got) != fmt.Sprintf("ANSWER %d\n", i) {
					t.Fatalf("%q, %v", got, err)
				}
				if v == "-tls1_3" { // new keys: theirs, or both sides'
					say([]string{"k\n", "K\n"}[i%2])
					eventually(t, "there is something to read", func() bool { return !peek.quiet() })
				}
			}
			if !u.quiet() {
				t.Error("not quiet at the end")
			}
			say("unasked\n")
			eventually(t, "there is something to read", func() bool { return !peek.quiet() })
			if u.quiet() {
				t.Error("data that nobody asked for is taken for quiet")
			}
			u.finish()

			// A connection that is dialled later resumes the session.
			eventually(t, "openssl has seen the end", func() bool { return out.count("DONE") == 1 })
			u = p.mustGet(t, true)
			if st := u.tls.ConnectionState(); !st.DidResume {
				t.Error("the session was not resumed")
			}
			say("Q\n")
			eventually(t, "openssl has gone", func() bool { return !u.quiet() })
			u.finish()
		})
	}
}

// nginx starts one with a server block's lines.
func nginx(t *testing.T, server string) (addr string) {
	t.Helper()
	dir := t.TempDir()
	addr = "127.0.0.1:" + free(t)
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr info; events {}
http {
  access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server { listen %[2]s ssl; root %[1]s;
%[3]s
  }
}`, dir, addr, server)
	put(t, conf, []byte(text))
	put(t, filepath.Join(dir, "big"), bytes.Repeat([]byte("0123456789abcdef"), 1<<16))
	tool(t, "nginx", "-p", dir, "-e", "stderr", "-c", conf)
	eventually(t, "nginx listens", func() bool {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			_ = nc.Close()
		}
		return err == nil
	})
	return addr
}

// NGINX as the backend, which asks for a client certificate.
func TestTLSNginx(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	clients := newAuthority(t)
	for _, v := range []string{"TLSv1.2", "TLSv1.3"} {
		t.Run(v, func(t *testing.T) {
			t.Parallel()
			cert, key := a.issue(time.Time{}, "web.service.consul")
			addr := nginx(t, fmt.Sprintf(`
			ssl_certificate %s; ssl_certificate_key %s; ssl_protocols %s;
			ssl_client_certificate %s; ssl_verify_client optional; ssl_session_cache shared:x:1m;
			location = /who { return 200 "$ssl_client_verify $ssl_client_s_dn $ssl_protocol $ssl_server_name $ssl_session_reused $connection_requests"; }
			location = /strict { if ($ssl_client_verify != SUCCESS) { return 403; } return 204; }
			`, file(t, cert), file(t, key), v, file(t, clients.pem)))
			cfg := a.trusting()
			cfg.TLS.ServerName = "web.service.consul"
			mine, mykey := clients.issue(time.Time{}, "client")
			cfg.TLS.CertFile, cfg.TLS.KeyFile = file(t, mine), file(t, mykey)
			r := newRig(t, cfg, balance.DefaultConfig(), addr)
			c := r.dial()
			for i := range 3 {
				c.send(get1("/who"))
				c.want("GET", 200, fmt.Sprintf("SUCCESS CN=client %s web.service.consul . %d", v, 2*i+1))
				c.send(get1("/big"))
				if got := c.answer("GET"); len(got.body) != 1<<20 || got.err != nil {
					t.Errorf("%d bytes, %v", len(got.body), got.err)
				}
			}
			if got := curl(t, nil, r.url+"/who"); !strings.HasPrefix(got, "SUCCESS CN=client") {
				t.Errorf("curl got %q", got)
			}

			// Without a certificate, and with one of another authority.
			cfg.TLS.CertFile, cfg.TLS.KeyFile = "", ""
			r = newRig(t, cfg, balance.DefaultConfig(), addr)
			c = r.dial()
			c.send(get1("/strict"))
			if got := c.answer("GET"); got.StatusCode != http.StatusForbidden {
				t.Errorf("without a certificate: %d", got.StatusCode)
			}
			mine, mykey = a.issue(time.Time{}, "other")
			cfg.TLS.CertFile, cfg.TLS.KeyFile = file(t, mine), file(t, mykey)
			r = newRig(t, cfg, balance.DefaultConfig(), addr)
			c = r.dial()
			c.send(get1("/strict"))
			if got := c.answer("GET"); got.StatusCode != http.StatusBadRequest || !strings.Contains(got.body, "SSL certificate error") {
				t.Errorf("with a certificate of another authority, which nginx must hear of: %d %q", got.StatusCode, got.body)
			}
		})
	}
}

// NGINX forgets idle connections after a while, with close_notify; and its
// answers that end with the connection are whole.
func TestTLSNginxCloses(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cert, key := a.issue(time.Time{}, "127.0.0.1")
	addr := nginx(t, fmt.Sprintf(`ssl_certificate %s; ssl_certificate_key %s; keepalive_timeout 1s; keepalive_requests 2;`, file(t, cert), file(t, key)))
	p, _ := tlsPool(t, a.trusting(), addr)
	u := p.mustGet(t, true)
	fmt.Fprint(u.nc, get1("/none"))
	res, err := http.ReadResponse(bufio.NewReader(u.nc), nil)
	if err != nil || res.StatusCode != 404 {
		t.Fatal(res, err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	eventually(t, "nginx has closed the idle connection", func() bool { return !u.quiet() })
	u.finish()
	r := newRig(t, a.trusting(), balance.DefaultConfig(), addr)
	for range 5 {
		c := r.dial()
		c.send(get1("/big"))
		if got := c.answer("GET"); len(got.body) != 1<<20 || got.err != nil {
			t.Errorf("%d bytes, %v", len(got.body), got.err)
		}
	}
	r.wantTotals(5, 0, 0)

}
