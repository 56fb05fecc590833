package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// contender is a proxy with a way to choose backends, in the cases that compare
// choices.
type contender struct {
	proxy  string // haproxy, nginx or ours
	choice string // the word for it in the proxy's configuration; "": NGINX's default
	agents bool   // HAProxy asks agents
}

func (c contender) name() string {
	name := c.proxy + " " + c.choice
	if c.choice == "" {
		name = c.proxy + " round robin"
	}
	if c.agents {
		name += " + agents"
	}
	return name
}

// names of contenders, in the order of tables.
func names(of []contender) []string {
	var all []string
	for _, c := range of {
		all = append(all, c.name())
	}
	return all
}

// upstream is a backend as a contender is told of it.
type upstream struct {
	port, weight, agentCheck int
}

// agentInter is HAProxy's interval of agent-checks: that at which our sidecars
// ask agents, a quarter of its default.
const agentInter = 500 * time.Millisecond

// config is one instance's configuration. service is the one that ours looks up.
func (c contender) config(b *bench, name, service string, port, adminPort int, to []upstream) string {
	switch c.proxy {
	case haproxy:
		return c.haproxyConfig(port, to)
	case nginx:
		return c.nginxConfig(b, name, port, to)
	}
	return fmt.Sprintf("consul { address = %q }\nadmin { listen = \"127.0.0.1:%d\" }\nlog { level = \"warn\" }\nservice %q {\n  listen = \"127.0.0.1:%d\"\n  policy %q {}\n}\n",
		b.consul.Addr(), adminPort, service, port, c.choice)
}

func (c contender) haproxyConfig(port int, to []upstream) string {
	var servers strings.Builder
	for i, u := range to {
		fmt.Fprintf(&servers, "  server s%d 127.0.0.1:%d weight %d", i, u.port, u.weight)
		if c.agents {
			fmt.Fprintf(&servers, " agent-check agent-addr 127.0.0.1 agent-port %d agent-inter %dms agent-send \"x\\n\"", u.agentCheck, agentInter.Milliseconds())
		}
		servers.WriteByte('\n')
	}
	return fmt.Sprintf(`global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option forwardfor
frontend in
  bind 127.0.0.1:%d
  default_backend all
backend all
  balance %s
%s`, port, c.choice, servers.String())
}

func (c contender) nginxConfig(b *bench, name string, port int, to []upstream) string {
	choice := ""
	if c.choice != "" {
		choice = c.choice + ";"
	}
	var servers strings.Builder
	for _, u := range to {
		fmt.Fprintf(&servers, " server 127.0.0.1:%d weight=%d;", u.port, u.weight)
	}
	return b.nginxHead(name) + `
http {
  access_log off; proxy_max_temp_file_size 0;
  ` + b.nginxTemp(name) + `
  upstream all { ` + choice + servers.String() + ` keepalive 256; }
  server {
    listen 127.0.0.1:` + strconv.Itoa(port) + `;
    location / {
      proxy_pass http://all; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 600s;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}
`
}

// team is a contender's instances, one for each client.
type team struct {
	contender
	addrs []string
	procs []*harness.Process
}

// startTeam starts instances, on all processors, and waits until they know all
// backends. What was started is returned also with an error.
func (b *bench) startTeam(ctx context.Context, c contender, instances int, service string, to []upstream) (*team, error) {
	t := &team{contender: c}
	ports, err := harness.FreePorts(2 * instances)
	if err != nil {
		return t, err
	}
	var wg sync.WaitGroup
	errs := make([]error, instances)
	for i := range instances {
		port, adminPort := ports[2*i], ports[2*i+1]
		name := fmt.Sprintf("%s-%d", strings.ReplaceAll(c.name(), " ", "-"), i)
		p, err := b.startInstance(c, name, c.config(b, name, service, port, adminPort, to))
		if err != nil {
			return t, err
		}
		t.procs = append(t.procs, p)
		t.addrs = append(t.addrs, "127.0.0.1:"+strconv.Itoa(port))
		wg.Go(func() {
			err := await(ctx, p, name, func() error { return b.knowsAll(ctx, c, port, adminPort, len(to)) })
			if err != nil {
				errs[i] = fmt.Errorf("%w\n%s", err, b.logOf(name))
			}
		})
	}
	wg.Wait()
	return t, errors.Join(errs...)
}

func (b *bench) startInstance(c contender, name, config string) (*harness.Process, error) {
	switch c.proxy {
	case haproxy:
		return b.spawn(name, b.tools[haproxy], config, nil, nil, "-db", "-f")
	case nginx:
		return b.startNginx(name, config, nil)
	}
	return b.spawn(name, b.binary, config, nil, []string{"GOMAXPROCS=1"}, "sidecar", "-config")
}

// knowsAll asks an instance whether it is ready, without a request to a backend.
func (b *bench) knowsAll(ctx context.Context, c contender, port, adminPort, backends int) error {
	if c.proxy != ours {
		return dials("127.0.0.1:" + strconv.Itoa(port))
	}
	text, err := b.get(ctx, "127.0.0.1:"+strconv.Itoa(adminPort), "/v1/status")
	if err != nil {
		return err
	}
	var doc admin.StatusDoc
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return err
	}
	if len(doc.Services) != 1 || doc.Services[0].EndpointsReady != backends {
		return fmt.Errorf("not all of %d endpoints are ready", backends)
	}
	return nil
}

func (t *team) stop() {
	for _, p := range t.procs {
		p.Kill() // it has nothing to save, and its clients have left
	}
}
