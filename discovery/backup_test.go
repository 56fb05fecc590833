package discovery

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
)

func TestMarkBackups(t *testing.T) {
	for _, c := range []struct {
		q      Query
		tags   []string
		weight int
		want   bool
	}{
		{Query{}, []string{"backup"}, 1, false},
		{DefaultQuery("web"), nil, 1, false},
		{DefaultQuery("web"), []string{"a", "backup"}, 5, true},
		{DefaultQuery("web"), []string{"BackUp"}, 5, true},
		{DefaultQuery("web"), []string{"backup2", "no-backup", ""}, 5, false},
		{Query{BackupTag: "spare"}, []string{"backup"}, 1, false},
		{Query{BackupTag: "spare"}, []string{"spare"}, 0, true},
		{Query{BackupWeight: 2}, nil, 3, false},
		{Query{BackupWeight: 2}, nil, 2, true},
		{Query{BackupWeight: 2}, nil, 1, true},
		{Query{BackupWeight: 2}, nil, 0, false}, // drains
	} {
		set := []Instance{{ID: "n/other", Weight: 9}, {ID: "n/x", Tags: c.tags, Weight: c.weight}}
		c.q.markBackups(set)
		if set[1].Backup != c.want || set[0].Backup {
			t.Errorf("%+v: tags %q, weight %d: backup %v, want %v", c.q, c.tags, c.weight, set[1].Backup, c.want)
		}
	}
}

// TestWarningIsBackup: the weight is the one for the instance's health.
func TestWarningIsBackup(t *testing.T) {
	e := entry("n", "a", "10.0.0.1", "", 80)
	e.Service.Weights = api.AgentWeights{Passing: 10, Warning: 1}
	q := Query{BackupWeight: 1}
	for state, want := range map[string]bool{"passing": false, "warning": true, "critical": false} {
		e.Checks = checks(state)
		set, _ := convert(&Query{Service: "web"}, []*api.ServiceEntry{e})
		q.markBackups(set)
		if set[0].Backup != want {
			t.Errorf("%s: backup %v, want %v", state, set[0].Backup, want)
		}
	}
}

// diffable puts two sets of one instance behind each other.
func diffable(a, b []Instance) []Instance { return append(slices.Clone(a), b...) }

func TestNodeMeta(t *testing.T) {
	e := entry("n", "a", "10.0.0.1", "", 80)
	read := func(key, zone, version string) []Instance {
		e.Node.Meta = map[string]string{"zone": zone, "consul-version": version}
		set, _ := convert(&Query{Service: "web", NodeMeta: key}, []*api.ServiceEntry{e})
		return set
	}
	set := read("zone", "a", "1.20.1")
	if set[0].Zone != "a" || set[0].Meta != nil {
		t.Errorf("%+v", set[0])
	}
	for _, c := range []struct {
		of   string
		set  []Instance
		want int
	}{
		{"a node that moved", diffable(set, read("zone", "b", "1.20.1")), 1},
		{"a node that was upgraded", diffable(set, read("zone", "a", "1.20.2")), 0},
		{"no key is asked for", diffable(read("", "a", "1.20.1"), read("", "b", "1.20.2")), 0},
	} {
		if d := diff(c.set[:1], c.set[1:]); d.Changed != c.want {
			t.Errorf("%s: %+v", c.of, d)
		}
	}
	next := set[0]
	next.Backup = true
	if d := diff(set, []Instance{next}); d.Changed != 1 {
		t.Errorf("one that became a backup: %+v", d)
	}
}

func TestBackupQuery(t *testing.T) {
	for want, change := range map[string]func(*Query){
		"backup_tag":    func(q *Query) { q.BackupTag = "a\n" },
		"backup_weight": func(q *Query) { q.BackupWeight = -1 },
		"0 (none) to":   func(q *Query) { q.BackupWeight = 65536 },
	} {
		q := DefaultQuery("web")
		if err := q.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&q)
		if err := q.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one of %s", err, want)
		}
	}
}

// TestLocate asks an agent that is down, denies, answers nonsense and answers.
func TestLocate(t *testing.T) {
	answers := []struct {
		status int
		body   string
	}{
		{403, "Permission denied: anonymous token lacks permission 'agent:read'"},
		{403, "Permission denied: anonymous token lacks permission 'agent:read'"}, // the same again
		{429, "slow down"},
		{200, `{`},
		{200, `{"Config": {"NodeName": "", "Datacenter": "dc1"}}`},
		{200, `{"Config": {"NodeName": "n\u0007", "Datacenter": "dc1"}}`},
		{200, `{"Config": {"NodeName": "n1", "Datacenter": "dc1", "Server": true}, "Coord": {"Vec": [0]}, "Member": {"Tags": {}}, "Meta": {"zone": "a"}}`},
	}
	var asked atomic.Int64
	var at [16]time.Time
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(asked.Add(1)) - 1
		if r.URL.Path != "/v1/agent/self" || n >= len(answers) {
			t.Errorf("asked %d times, for %s", n+1, r.URL)
			return
		}
		at[n] = time.Now()
		w.WriteHeader(answers[n].status)
		_, _ = w.Write([]byte(answers[n].body))
	}))
	defer srv.Close()
	cfg := DefaultConfig()
	cfg.Address, cfg.BackoffMin, cfg.BackoffMax = srv.URL, 10*time.Millisecond, 20*time.Millisecond
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	var got []Self
	Locate(t.Context(), client, cfg, hclog.New(&hclog.LoggerOptions{Output: &log, JSONFormat: true}), func(s Self) { got = append(got, s) })
	want := []Self{{Node: "n1", Datacenter: "dc1", Meta: map[string]string{"zone": "a"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("found %+v, want %+v", got, want)
	}
	// The 429, which is not the first error, is answered with the longer pause.
	if pause, least := at[3].Sub(at[2]), cfg.backoff(2, true, 0); pause < least {
		t.Errorf("%v after a 429, want %v at least", pause, least)
	}
	var levels []string
	for line := range strings.Lines(log.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		levels = append(levels, entry["@level"].(string))
		hint, _ := entry["hint"].(string)
		if text, _ := entry["error"].(string); strings.Contains(text, "403") != strings.Contains(hint, `agent_prefix "" { policy = "read" }`) {
			t.Errorf("error %q with the hint %q", text, hint)
		}
	}
	if strings.Join(levels, " ") != "warn warn warn warn info" { // 403, 429, no JSON, no name
		t.Errorf("log:\n%s", log.String())
	}

	// One that says nothing is asked until the end.
	ctx, cancel := context.WithCancel(t.Context())
	srv.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		Locate(ctx, client, cfg, hclog.NewNullLogger(), func(Self) { t.Error("found without an answer") })
	}()
	cancel()
	<-done
}
