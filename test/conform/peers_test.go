package conform

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"outrigger/test/harness"
)

var (
	withPeers = flag.Bool("peers", true, "play the rows through HAProxy and NGINX too, where they are installed")
	wholeList = flag.Bool("table", false, "print every row of the table, not the differences alone")
)

const (
	lanes = 40 // of a peer: rows played at the same time, most of which wait
	// peerPatience bounds what a peer leaves hanging, as it may where a rule
	// asks for an answer.
	peerPatience = 400 * time.Millisecond
)

// proxy is one that the rows are played through.
type proxy interface {
	name() string
	play(r *row) (*sight, error)
}

// peer is another proxy: a process with one listener and backend per lane.
type peer struct {
	program string
	args    func(conf string) []string
	conf    func(dir string, ports []int, backends []string) string
	free    chan *lane
}

func (p *peer) name() string { return p.program }

func (p *peer) play(r *row) (*sight, error) {
	l := <-p.free
	defer func() { p.free <- l }()
	return l.play(r)
}

// start runs the program until the test ends. The error is that it did not
// come up.
func (p *peer) start(t *testing.T, path string) error {
	dir := t.TempDir()
	p.free = make(chan *lane, lanes)
	var addrs []string
	var all []*lane
	for range lanes {
		b, err := newBackend()
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = b.ln.Close() })
		addrs = append(addrs, b.addr())
		all = append(all, &lane{b: b, patience: peerPatience})
	}
	ports, err := harness.FreePorts(lanes)
	if err != nil {
		return err
	}
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, []byte(p.conf(dir, ports, addrs)), 0o600); err != nil {
		return err
	}
	var out bytes.Buffer
	proc, err := harness.StartProcess(harness.Spec{Path: path, Args: p.args(conf), Dir: dir, Stdout: &out, Stderr: &out})
	if err != nil {
		return err
	}
	t.Cleanup(func() { proc.Kill() })
	for i, l := range all {
		l.addr = fmt.Sprint("127.0.0.1:", ports[i])
		if err := comesUp(l.addr, proc); err != nil {
			proc.Kill() // its output is complete then
			return fmt.Errorf("%s: %w\n%s", p.program, err, out.String())
		}
		l.b.finish()
		p.free <- l
	}
	return nil
}

// comesUp waits until something listens at addr.
func comesUp(addr string, proc *harness.Process) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			return nc.Close()
		}
		select {
		case <-proc.Done():
			return fmt.Errorf("it ended")
		default:
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// haproxy is set up as its manual has it for an HTTP proxy that reuses
// connections; one thread, so that all of them are within reach.
func haproxy() *peer {
	return &peer{
		program: "haproxy",
		args:    func(conf string) []string { return []string{"-db", "-f", conf} },
		conf: func(_ string, ports []int, backends []string) string {
			var b strings.Builder
			b.WriteString(`
global
	nbthread 1
	maxconn 2000
defaults
	mode http
	timeout connect 1s
	timeout http-request 300ms
	timeout client 2s
	timeout server 300ms
	http-reuse always
	option forwardfor
`)
			for i := range ports {
				fmt.Fprintf(&b, "listen l%d\n\tbind 127.0.0.1:%d\n\tserver b %s\n", i, ports[i], backends[i])
			}
			return b.String()
		},
	}
}

// nginx is set up as its manual has it for a proxy that reuses connections and
// lets upgrades through.
func nginx() *peer {
	return &peer{
		program: "nginx",
		args:    func(conf string) []string { return []string{"-p", filepath.Dir(conf), "-e", "stderr", "-c", conf} },
		conf: func(dir string, ports []int, backends []string) string {
			var b strings.Builder
			if os.Getuid() == 0 {
				b.WriteString("user root;\n")
			}
			fmt.Fprintf(&b, `
daemon off;
master_process off;
worker_processes 1;
pid %[1]s/pid;
error_log stderr crit;
events { worker_connections 2000; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
	client_header_timeout 300ms;
	proxy_read_timeout 300ms;
	proxy_http_version 1.1;
	proxy_set_header Host $host;
	proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
	proxy_set_header Upgrade $http_upgrade;
	proxy_set_header Connection $connection_upgrade;
`, dir)
			for i := range ports {
				fmt.Fprintf(&b, "\tupstream b%d { server %s; keepalive 8; }\n", i, backends[i])
				fmt.Fprintf(&b, "\tserver { listen 127.0.0.1:%d; location / { proxy_pass http://b%d; } }\n", ports[i], i)
			}
			return b.String() + "}\n"
		},
	}
}

// TestPeers plays the rows through HAProxy and NGINX and prints where they and
// Outrigger differ from the rules. Only what is ours can fail a test, and that
// is TestOutrigger's to tell.
func TestPeers(t *testing.T) {
	if !*withPeers {
		t.Skip("left out by -peers=false")
	}
	var proxies []proxy
	for _, p := range []*peer{haproxy(), nginx()} {
		path, err := exec.LookPath(p.program)
		if err != nil && fileExists("/usr/sbin/"+p.program) {
			path, err = "/usr/sbin/"+p.program, nil // not in every user's PATH
		}
		if err != nil {
			t.Logf("%s is not installed: apt-get install %s", p.program, p.program)
			continue
		}
		err = p.start(t, path)
		for i := 0; err != nil && i < 3; i++ { // a port may be taken between its choice and its use
			err = p.start(t, path)
		}
		if err != nil {
			t.Fatal(err)
		}
		proxies = append(proxies, p)
	}
	if len(proxies) == 0 {
		t.Skip("no peer is installed")
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	g, err := newEngine(ctx)
	if err != nil {
		t.Fatal(err)
	}
	g.patience = peerPatience
	printTable(t, append([]proxy{g}, proxies...))
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// cell is what became of a row at one proxy.
type cell struct {
	bad  bool
	text string
}

// printTable plays all rows and prints those that a proxy does not keep.
func printTable(t *testing.T, proxies []proxy) {
	all := rows()
	cells := make([][]cell, len(all))
	work := make(chan int)
	var wg sync.WaitGroup
	for range lanes {
		wg.Go(func() {
			for i := range work {
				for _, p := range proxies {
					s, err := p.play(&all[i])
					c := cell{text: "ok"}
					if err != nil {
						c = cell{true, err.Error()}
					} else if why, _, _ := strings.Cut(all[i].bad(s), ", want"); why != "" {
						c = cell{true, s.String() + ": " + why} // what was wanted is the rule
					}
					cells[i] = append(cells[i], c)
				}
			}
		})
	}
	for i := range all {
		work <- i
	}
	close(work)
	wg.Wait()
	t.Log(table(all, cells, proxies, *wholeList))
}

// table lays out the rows, the proxies' names at the top and counts at the end.
func table(all []row, cells [][]cell, proxies []proxy, whole bool) string {
	const ruleWidth, cellWidth = 72, 44
	var b strings.Builder
	put := func(rule string, texts []string) {
		fmt.Fprintf(&b, "%-*s", ruleWidth, clip(rule, ruleWidth-1))
		for _, s := range texts {
			fmt.Fprintf(&b, " | %-*s", cellWidth, clip(s, cellWidth))
		}
		b.WriteString("\n")
	}
	var names []string
	kept := make([]int, len(proxies))
	for _, p := range proxies {
		names = append(names, p.name())
	}
	b.WriteString("\n")
	put("rule", names)
	for i, r := range all {
		var texts []string
		differ := whole
		for j, c := range cells[i] {
			texts = append(texts, c.text)
			differ = differ || c.bad
			if !c.bad {
				kept[j]++
			}
		}
		if differ {
			put(r.rule, texts)
		}
	}
	var sums []string
	for _, n := range kept {
		sums = append(sums, fmt.Sprintf("%d of %d", n, len(all)))
	}
	put("kept", sums)
	return b.String()
}

// clip shortens s to n characters of one line.
func clip(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
