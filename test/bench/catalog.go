package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/test/harness"
)

// The case catalog: what a sidecar for very many services costs.
const (
	catalogServices  = 500
	catalogInstances = 20 // of each service
	catalogNodes     = 100
	catalogChanges   = 50 // per second, while there is churn
	catalogSamples   = 10 // services whose lag is measured, beside those
)

// Keys of its figures.
const (
	keyReady      = "ready_seconds"
	keyPSS        = "pss_bytes"
	keyIdleCPU    = "idle_cpu_percent_of_a_core"
	keyIdleAgent  = "idle_consul_agent_cpu_percent_of_a_core"
	keyChurnCPU   = "churn_cpu_percent_of_a_core"
	keyChurnAgent = "churn_consul_agent_cpu_percent_of_a_core"
	keyLag50      = "lag_p50_ms"
	keyLag99      = "lag_p99_ms"
	keyConns      = "connections_to_consul"
	keyGoroutines = "goroutines"
	keyScrape     = "metrics_scrape_ms"
	keyScrapeSize = "metrics_bytes"
	keyUpdates    = "updates_in_churn"
)

func catalogMetrics() []metric {
	return []metric{
		{key: keyReady, label: "ready s", digits: 1},
		{key: keyRSS, label: "RSS MiB", scale: 1 << 20, digits: 1},
		{key: keyPSS, label: "PSS MiB", scale: 1 << 20, digits: 1},
		{key: keyConns, label: "conns"},
		{key: keyGoroutines, label: "goroutines"},
		{key: keyIdleCPU, label: "CPU % idle", digits: 2},
		{key: keyIdleAgent, label: "(Consul's agent)", digits: 2},
		{key: keyChurnCPU, label: "CPU % churn", digits: 2},
		{key: keyChurnAgent, label: "(Consul's agent)", digits: 2},
		{key: keyLag50, label: "lag p50 ms"},
		{key: keyLag99, label: "p99"},
		{key: keyPeak, label: "peak RSS MiB", scale: 1 << 20, digits: 1},
		{key: keyScrape, label: "/metrics ms"},
		{key: keyScrapeSize, label: "MiB", scale: 1 << 20, digits: 1},
	}
}

const (
	catalogHTTPS = "https (HTTP/2)"
	catalogHTTP  = "http, max_connections 150"
)

func (b *bench) catalogSize() int {
	if b.opt.quick {
		return 20
	}
	return catalogServices
}

// catalogTime is how long each of settling, idling and churning takes.
func (b *bench) catalogTime() time.Duration { return time.Duration(20*b.opt.seconds) * time.Second }

// catalog measures a sidecar with all services of a large catalog.
func (b *bench) catalog(ctx context.Context) (*result, error) {
	services := b.catalogSize()
	r := &result{
		Name: catalogCase, Title: fmt.Sprintf("a sidecar for %d services with %d instances", services, services*catalogInstances),
		metrics: catalogMetrics(), headline: keyChurnCPU, names: []string{catalogHTTPS, catalogHTTP},
		Setting: fmt.Sprintf("%d round(s), each with a fresh sidecar; three Consul servers and a client agent; memory after %v, CPU over %v without and then with\n"+
			"%d changes/s (weights, checks, deregistrations); the lag is from a write's answer to the first request at the new address", b.ownRounds(), b.catalogTime(), b.catalogTime(), catalogChanges),
	}
	if need := uint64(services*2 + 1000); b.files < need {
		return nil, fmt.Errorf("the limit of open files is %d, too low for %d listeners: raise it (ulimit -n %d)", b.files, services, need)
	}
	cluster, err := b.startCluster(ctx, "")
	if err != nil {
		return nil, err
	}
	defer cluster.Stop() // it has to go either way, and Stop kills
	agent, err := b.startTLSAgent(ctx, cluster)
	if err != nil {
		return nil, err
	}
	defer agent.proc.Kill()
	client, err := cluster.Agent.Client()
	if err != nil {
		return nil, err
	}
	filled := newFilledCatalog(client, services)
	b.say("writing %d instances into Consul", services*catalogInstances)
	if err := filled.fill(ctx); err != nil {
		return nil, err
	}
	samples, err := startSamples(ctx, client)
	if err != nil {
		return nil, err
	}
	defer samples.close()
	for i := range b.ownRounds() {
		values := round{}
		for _, name := range rotated(r.names, i) {
			b.say("%s", name)
			f, err := b.catalogRow(ctx, name, agent, filled, samples)
			if err != nil {
				return r, fmt.Errorf("%s: %w\n%s", name, err, b.logOf("catalog"))
			}
			values[name] = f
		}
		r.Rounds = append(r.Rounds, values)
	}
	return r, nil
}

// catalogSidecar is a sidecar for all services of the catalog.
type catalogSidecar struct {
	*harness.Process
	admin   string
	samples []string // where the sample services listen
	ready   time.Duration
}

// startCatalogSidecar starts it and waits until it knows all services.
func (b *bench) startCatalogSidecar(ctx context.Context, consul string, services int) (*catalogSidecar, error) {
	// An address of their own, so that so many ports are free for certain.
	const ip = "127.0.5.1"
	port := 20000
	listen := func() string { port++; return net.JoinHostPort(ip, strconv.Itoa(port)) }
	s := &catalogSidecar{admin: listen()}
	state, err := os.MkdirTemp(b.dir, "state-")
	if err != nil {
		return nil, err
	}
	var config strings.Builder
	fmt.Fprintf(&config, "consul {\n%s}\nadmin { listen = %q }\nlog { level = \"warn\" }\nstate_dir = %q\n", consul, s.admin, state)
	for i := range services {
		fmt.Fprintf(&config, "service %q { listen = %q }\n", catalogName(i), listen())
	}
	for i := range catalogSamples {
		s.samples = append(s.samples, listen())
		fmt.Fprintf(&config, "service %q { listen = %q }\n", sampleName(i), s.samples[i])
	}
	start := time.Now()
	s.Process, err = b.spawn("catalog", b.binary, config.String(), b.proxyCPU, []string{"GOMAXPROCS=1"}, "sidecar", "-config")
	if err != nil {
		return nil, err
	}
	if err := await(ctx, s.Process, "sidecar", func() error { _, err := b.get(ctx, s.admin, "/readyz"); return err }); err != nil {
		_ = s.Stop(2 * time.Second) // it has to go either way, and Stop kills in the end
		return nil, err
	}
	s.ready = time.Since(start)
	return s, nil
}

// catalogRow measures one sidecar from its start to its end.
func (b *bench) catalogRow(ctx context.Context, name string, agent *tlsAgent, filled *filledCatalog, samples *samples) (figures, error) {
	s, err := b.startCatalogSidecar(ctx, agent.settings(name == catalogHTTPS), filled.services)
	if err != nil {
		return nil, err
	}
	defer s.Stop(2 * time.Second) // it has to go either way, and Stop kills in the end
	if err := pause(ctx, b.catalogTime()); err != nil {
		return nil, err
	}
	f := figures{keyReady: s.ready.Seconds()}
	mem, err := memoryOf(s.PID())
	if err != nil {
		return nil, err
	}
	f[keyRSS], f[keyPSS] = mem.rss, mem.pss
	if f[keyIdleCPU], f[keyIdleAgent], err = cpuShares(s.PID(), agent.proc.PID(), func() error { return pause(ctx, b.catalogTime()) }); err != nil {
		return nil, err
	}
	var lags []float64
	changing, stop := context.WithTimeout(ctx, b.catalogTime())
	defer stop()
	changed := make(chan error, 1)
	go func() { changed <- filled.churn(changing, catalogChanges) }()
	f[keyChurnCPU], f[keyChurnAgent], err = cpuShares(s.PID(), agent.proc.PID(), func() (err error) {
		lags, err = samples.lags(changing, s.samples)
		stop() // for an error's sake
		return errors.Join(err, <-changed)
	})
	if err != nil {
		return nil, err
	}
	f[keyLag50], f[keyLag99] = percentile(lags, 50), percentile(lags, 99)
	if mem, err = memoryOf(s.PID()); err != nil {
		return nil, err
	}
	f[keyPeak] = mem.peak
	conns, err := socketsOf(s.PID(), "", agent.ports())
	if err != nil {
		return nil, err
	}
	f[keyConns] = float64(conns.backends)
	return f, b.scrapeCatalog(ctx, s, filled, f)
}

// scrapeCatalog reads the sidecar's metrics, last because that alone costs more
// than all else, and checks by them that it has seen what there was.
func (b *bench) scrapeCatalog(ctx context.Context, s *catalogSidecar, filled *filledCatalog, f figures) error {
	client := http.Client{Timeout: time.Minute}
	start := time.Now()
	text, err := getWith(ctx, &client, "http://"+s.admin+"/metrics")
	if err != nil {
		return err
	}
	f[keyScrape], f[keyScrapeSize] = float64(time.Since(start).Milliseconds()), float64(len(text))
	f[keyGoroutines] = sumOf(text, "go_goroutines")
	f[keyUpdates] = sumOf(text, "outrigger_discovery_updates_total") - float64(filled.services+catalogSamples)
	// Several changes of a service may come with one answer.
	if least := float64(filled.changes) / 10; f[keyUpdates] < least {
		return fmt.Errorf("the sidecar saw %.0f updates for %d changes", f[keyUpdates], filled.changes)
	}
	if endpoints := sumOf(text, "outrigger_discovery_instances"); endpoints < float64(filled.services*catalogInstances-1) {
		return fmt.Errorf("the sidecar knows %.0f of %d instances", endpoints, filled.services*catalogInstances)
	}
	return nil
}

// sumOf sums a metric over all its labels.
func sumOf(metrics, name string) (sum float64) {
	for line := range strings.Lines(metrics) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, " ") {
			continue
		}
		fields := strings.Fields(line)
		if v, err := strconv.ParseFloat(fields[len(fields)-1], 64); err == nil {
			sum += v
		}
	}
	return sum
}

// cpuShares returns which shares of a core two processes used meanwhile, in
// percent.
func cpuShares(a, b int, meanwhile func() error) (shareA, shareB float64, err error) {
	read := func() (x, y time.Duration, err error) {
		if x, err = cpuTime(a); err == nil {
			y, err = cpuTime(b)
		}
		return x, y, err
	}
	start := time.Now()
	a0, b0, err := read()
	if err != nil {
		return 0, 0, err
	}
	if err := meanwhile(); err != nil {
		return 0, 0, err
	}
	a1, b1, err := read()
	took := time.Since(start).Seconds()
	return 100 * (a1 - a0).Seconds() / took, 100 * (b1 - b0).Seconds() / took, err
}

// tlsAgent is a Consul client agent with an HTTPS port.
type tlsAgent struct {
	proc        *harness.Process
	ip, ca      string
	http, https int
}

const tlsAgentIP = "127.0.0.15"

func (a *tlsAgent) ports() []int { return []int{a.http, a.https} }

// settings are those of a sidecar's consul block.
func (a *tlsAgent) settings(tls bool) string {
	if !tls {
		return fmt.Sprintf("  address = \"%s:%d\"\n", a.ip, a.http)
	}
	return fmt.Sprintf("  address = \"https://%s:%d\"\n  tls { ca_file = %q }\n", a.ip, a.https, a.ca)
}

// startTLSAgent joins a client agent to the cluster, away from the proxy's
// processor.
func (b *bench) startTLSAgent(ctx context.Context, cluster *harness.Cluster) (*tlsAgent, error) {
	client, err := cluster.Servers[0].Client()
	if err != nil {
		return nil, err
	}
	members, err := client.Agent().Members(false)
	if err != nil {
		return nil, err
	}
	server := slices.IndexFunc(members, func(m *api.AgentMember) bool { return m.Name == cluster.Servers[0].Name() })
	if server < 0 {
		return nil, errors.New("the Consul server does not know itself")
	}
	ports, err := harness.FreePortsOn(netip.MustParseAddr(tlsAgentIP), 3)
	if err != nil {
		return nil, err
	}
	a := &tlsAgent{ip: tlsAgentIP, http: ports[0], https: ports[1], ca: filepath.Join(b.dir, "ca.pem")}
	key := filepath.Join(b.dir, "key.pem")
	if err := writeCertificate(a.ca, key, tlsAgentIP); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("disable_update_check = true\ntls { https {\n cert_file = %q\n key_file = %q\n} }\n", a.ca, key)
	path, err := harness.FindOrBuildConsul(ctx, b.say)
	if err != nil {
		return nil, err
	}
	a.proc, err = b.spawn("tlsagent", path, config, b.loadCPU, nil,
		"agent", "-node", "tls-agent", "-bind", a.ip, "-client", a.ip, "-data-dir", filepath.Join(b.dir, "tlsagent"),
		"-http-port", strconv.Itoa(a.http), "-https-port", strconv.Itoa(a.https), "-serf-lan-port", strconv.Itoa(ports[2]),
		"-grpc-port", "-1", "-grpc-tls-port", "-1", "-dns-port", "-1",
		"-retry-join", fmt.Sprintf("%s:%d", members[server].Addr, members[server].Port), "-config-file")
	if err != nil {
		return nil, err
	}
	ask := &http.Client{Timeout: 5 * time.Second}
	err = await(ctx, a.proc, "Consul agent", func() error {
		_, err := getWith(ctx, ask, fmt.Sprintf("http://%s:%d/v1/catalog/nodes", a.ip, a.http))
		return err
	})
	if err != nil {
		a.proc.Kill()
		return nil, fmt.Errorf("%w\n%s", err, b.logOf("tlsagent"))
	}
	return a, nil
}
