package config

import (
	"bytes"
	"io/fs"
	"path"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"outrigger/agentstats"
	"outrigger/sidecar"
	"outrigger/sidecar/balance"
	"outrigger/sidecar/h1"
)

// world is an Env over files and variables in memory.
func world(files, vars map[string]string) Env {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return Env{
		LookupEnv: func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
		Open:      func(name string) (fs.File, error) { return m.Open(strings.TrimPrefix(path.Clean(name), "/")) },
	}
}

// loadText loads one file f.hcl.
func loadText(text string, vars map[string]string) (sidecar.Config, error) {
	return Load([]string{"f.hcl"}, world(map[string]string{"f.hcl": text}, vars))
}

func effective(t testing.TB, cfg sidecar.Config) string {
	t.Helper()
	var b bytes.Buffer
	if err := Effective(&b, cfg); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func load(t *testing.T, text string, vars map[string]string) sidecar.Config {
	t.Helper()
	cfg, err := loadText(text, vars)
	if err != nil {
		t.Fatalf("refused:\n%v", err)
	}
	return cfg
}

func TestEverySetting(t *testing.T) {
	cfg := load(t, everything, nil)
	web := cfg.Services[0]
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"grace", cfg.Grace, 5 * time.Second},
		{"max_answer", cfg.Consul.MaxAnswer, int64(1 << 20)},
		{"admin", cfg.Admin.Listen, "[::1]:9000"},
		{"log", cfg.Log, sidecar.LogConfig{Level: "debug", Format: "json"}},
		{"agents", cfg.Agents, agentstats.PollConfig{Interval: time.Second, Jitter: 0.25, Timeout: 900 * time.Millisecond,
			MaxBackoff: 8 * time.Minute, Expiry: 4 * time.Second,
			TLS: agentstats.ClientTLS{Enabled: true, CAFile: "testdata/tls/cert.pem", CertFile: "testdata/tls/cert.pem", KeyFile: "testdata/tls/key.pem", ServerName: "agents.internal", InsecureSkipVerify: true}}},
		{"name", web.Name + web.Balance.Service, "webweb"},
		{"service", web.Discover.Service, "web-v2"},
		{"tags", web.Discover.Tags, []string{"blue", `say "${hi}" \ ü`}},
		{"filter", web.Discover.Filter, "Service.Meta.x == \"%{y}\"\n"},
		{"state_dir", cfg.StateDir, "/var/lib/outrigger"},
		{"affinity", web.HTTP.Affinity, h1.AffinityConfig{Cookie: "OUTRIGGER", TTL: time.Hour, Path: "/app", Secure: true, SameSite: "strict"}},
		{"policy", web.Balance.Picker.Policy, "resource"},
		{"slow_start", web.Balance.SlowStart, 20 * time.Second},
		{"backup_tag", web.Discover.BackupTag, "spare"},
		{"backup_weight", web.Discover.BackupWeight, 1},
		{"locality", web.Balance.Locality, balance.LocalityConfig{Prefer: []string{"node", "zone"}, Node: "n1", Zone: "a", Datacenter: "dc1", ZoneMeta: "rack", Spill: 1.5}},
		{"default backup_tag", cfg.Services[1].Discover.BackupTag, "backup"},
		{"default slow_start", cfg.Services[1].Balance.SlowStart, 10 * time.Second},
		{"shadow", web.Balance.Shadow.Policy, "peak_ewma"},
		{"shadow's decay", web.Balance.Shadow.PeakEWMA.Decay, 5 * time.Second},
		{"policy's decay", web.Balance.Picker.PeakEWMA.Decay, 10 * time.Second},
		{"no shadow", cfg.Services[1].Balance.Shadow.Policy, ""},
		{"memory_veto", web.Balance.Picker.Resource.MemoryVeto, 0.123456789},
		{"statuses", web.Balance.Breaker.FailureStatuses, []int{500, 503}},
		{"engine's statuses", web.HTTP.FailureStatuses, []int{500, 503}},
		{"on", web.HTTP.Retry.Reset && web.HTTP.Retry.Status503 && web.HTTP.Retry.Status504 && !web.HTTP.Retry.ConnectFailure, true},
		{"line", web.HTTP.Limits.Line, 1000},
		{"head", web.HTTP.Limits.Head, 16 << 10},
		{"the other", cfg.Services[1].Discover.Service + cfg.Services[1].Listen, "api:8081"},
		{"its statuses", cfg.Services[1].HTTP.FailureStatuses, cfg.Services[1].Balance.Breaker.FailureStatuses},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
		}
	}
	cfg.Consul.Token, cfg.Agents.Token, web.HTTP.Affinity.Secret = "x", "x", "x" // not in the text, as they are not printed
	cfg.Services[0] = web
	first, _, _ := strings.Cut(effective(t, cfg), `service "api"`)
	first = strings.Replace(first, "# default: any", "", 1) // body_match goes with no HEAD
	if i := strings.Index(first, "# default"); i >= 0 {
		t.Errorf("a setting of the test is the default, or was lost:\n%s", first[:i])
	}
}

func TestRoundTrip(t *testing.T) {
	minimal := `service "web" { listen = "127.0.0.1:8080" }`
	for _, text := range []string{everything, minimal, minimal + `
		service "b" {
		  listen = ":0"
		  discover {
		    tags = []
		  }
		  breaker { failure_statuses = [] }
		  retry { on = [] }
		  policy "p2c" {}
		  shadow "resource" { samples = 5 }
		}`} {
		cfg := load(t, text, nil)
		printed := effective(t, cfg)
		again := load(t, printed, nil)
		if !reflect.DeepEqual(cfg, again) {
			t.Errorf("loaded again it differs:\n%+v\n%+v\n%s", cfg, again, printed)
		}
		if twice := effective(t, again); twice != printed {
			t.Errorf("printed again it differs:\n%s\n%s", printed, twice)
		}
	}
}

func TestDefaultsAreMarked(t *testing.T) {
	printed := effective(t, load(t, "log { level = \"warn\" }\nservice \"w\" { listen = \":1\" }", nil))
	for _, want := range []string{
		"level  = \"warn\"\n", "format = \"text\" # default\n", "listen          = \":1\"\n", "listen_mode     = \"0600\" # default\n",
		"service       = \"w\"      # default\n", "tunnel         = \"1h\"  # default\n",
		"# default: the smaller of interval and 1s\n", "failure_statuses     = [502, 503, 504] # default\n",
	} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is missing in\n%s", want, printed)
		}
	}
}

func TestAgent(t *testing.T) {
	files := map[string]string{
		"ok.hcl": `agent {
			listen = "10.0.0.1:9912"
			instance = "web-1"
			interval = "500ms"
			max_conns = 10
			proc_root = "/host/proc"
			cgroup_root = "/host/cgroup"
			backend {
			  port = env("PORT")
			  cgroup = "/system.slice/web.service"
			}
		}`,
		"none.hcl":  ``,
		"other.hcl": `service "web" { listen = ":80" }`,
		"bad.hcl": `agent {
			interval = "1ms"
			backend { prot = 80 }
		}
		agent {}`,
	}
	env := world(files, map[string]string{"PORT": "8080"})
	got, err := LoadAgent("ok.hcl", env)
	want := agentstats.DefaultConfig()
	want.Listen, want.Instance, want.Interval, want.MaxConns = "10.0.0.1:9912", "web-1", 500*time.Millisecond, 10
	want.ProcRoot, want.CgroupRoot = "/host/proc", "/host/cgroup"
	want.Backend = agentstats.Backend{Port: 8080, Cgroup: "/system.slice/web.service"}
	if err != nil || !reflect.DeepEqual(got.Agent, want) {
		t.Errorf("got %+v, want %+v\n%v", got.Agent, want, err)
	}
	for file, wants := range map[string][]string{
		"none.hcl":  {"none.hcl: there is no agent block|Write agent {"},
		"other.hcl": {"other.hcl:1:1: unknown block \"service\"|`outrigger sidecar`", "other.hcl: there is no agent block"},
		"bad.hcl": {
			"bad.hcl:1:1: agent has no listen|listen = \"192.0.2.10:9912\"",
			"bad.hcl:1:1: backend is empty|port, pid or cgroup",
			"bad.hcl:2:15: interval 1ms is outside 50ms to 10s",
			"bad.hcl:3:14: unknown setting \"prot\" in agent backend|Did you mean \"port\"?",
			"bad.hcl:5:3: agent is there twice|already at bad.hcl:1:1",
		},
	} {
		_, err := LoadAgent(file, env)
		wantProblems(t, file, err, wants)
	}
}

// everyAgent sets every setting of an agent's file to something other than its
// default.
const everyAgent = `
agent {
  listen = "10.0.0.1:9912"
  instance = "web-1"
  interval = "500ms"
  max_conns = 10
  proc_root = "/host/proc"
  cgroup_root = "/host/cgroup"
  backend {
    port = 8080
    pid = 4711
  }
  tls {
    cert_file = "testdata/tls/cert.pem"
    key_file = "testdata/tls/key.pem"
    client_ca_file = "testdata/tls/cert.pem"
  }
  in_flight {
    kernel = false
    gauges = false
    max_gauges = 7
    declared "prometheus" {
      url = "http://127.0.0.1:8080/metrics"
      interval = "50ms"
      max_age = "30ms"
      timeout = "20ms"
      metric = "requests_in_flight"
      labels = { app = "web", "team" = "a" }
    }
  }
  agent_check {
    listen = "10.0.0.1:9913"
    health = false
    admin = true
    percent_per_core = 100
    maxconn_factor = 0.5
    drain = "5s"
    max_conns = 5
  }
  register {
    service = "web"
    id = "web-1"
    address = "10.0.0.1"
    port = 8081
    tags = ["blue"]
    meta = { zone = "a" }
    weight = 2
    warning_weight = 3
    tag_override = true
    namespace = "n"
    partition = "p"
    refresh = "10s"
    check {
      kind = "http"
      address = "10.0.0.1:8082"
      path = "/ok"
      method = "HEAD"
      headers = { Host = "web" }
      service = "s"
      tls = true
      tls_server_name = "web"
      tls_skip_verify = true
      interval = "3s"
      timeout = "1s"
      passes = 2
      failures = 3
      deregister_after = "2h"
    }
    drain {
      timeout = "1m"
      quiet = "4s"
      blind = "20s"
    }
  }
  publish "consul" {
    service = "web"
    prefix = "team/reports"
    min_interval = "10s"
    max_interval = "1m"
    session_ttl = "1m"
    change {
      avail = 0.2
      mem = 0.1
      err = 0.1
      conc = 0.5
    }
  }
}
consul {
  address = "https://consul.example:8501"
  scheme = "https"
  token_file = "/run/secrets/consul"
  tls {
    ca_file = "/etc/ca.pem"
    cert_file = "/etc/cert.pem"
    key_file = "/etc/key.pem"
    server_name = "consul"
    insecure_skip_verify = true
  }
}
log {
  level = "debug"
  format = "json"
}
`

// TestEveryAgentSetting: every setting of an agent's file is taken, printed, and read
// again as the same.
func TestEveryAgentSetting(t *testing.T) {
	print := func(a Agent) string {
		var b bytes.Buffer
		if err := EffectiveAgent(&b, a); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	got, err := LoadAgent("f.hcl", world(map[string]string{"f.hcl": everyAgent}, nil))
	if err != nil {
		t.Fatal(err)
	}
	printed := print(got)
	again, err := LoadAgent("f.hcl", world(map[string]string{"f.hcl": printed}, nil))
	if err != nil || !reflect.DeepEqual(got, again) {
		t.Errorf("loaded again it differs: %v\n%+v\n%+v\n%s", err, got, again, printed)
	}
	got.Agent.Token, got.Consul.Token, got.Agent.Backend.Cgroup = "x", "x", "/x" // not in the text
	if printed := print(got); strings.Contains(printed, "# default") {
		t.Errorf("a setting of the test is the default, or was lost:\n%s", printed)
	}
	for text, want := range map[string]string{
		"register { weight = 2 }":                                  "register has settings but no service",
		"publish \"consul\" {}":                                    "publish needs to know the backend",
		"publish \"etcd\" {}":                                      "is not one of consul",
		"agent_check { listen = \"10.0.0.1:9912\" }":               "listens on",
		"in_flight {\n declared \"json\" {\n metric = \"x\"\n}\n}": "It is one of declared \"prometheus\"",
	} {
		_, err := LoadAgent("f.hcl", world(map[string]string{"f.hcl": "agent {\n listen = \"10.0.0.1:9912\"\n backend { port = 80 }\n" + text + "\n}\n"}, nil))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
