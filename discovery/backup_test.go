package discovery

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
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
		set, _ := convert("web", []*api.ServiceEntry{e})
		q.markBackups(set)
		if set[0].Backup != want {
			t.Errorf("%s: backup %v, want %v", state, set[0].Backup, want)
		}
	}
}

func TestNodeMeta(t *testing.T) {
	e := entry("n", "a", "10.0.0.1", "", 80)
	e.Node.Meta = map[string]string{"zone": "a"}
	set, _ := convert("web", []*api.ServiceEntry{e})
	if !reflect.DeepEqual(set[0].NodeMeta, map[string]string{"zone": "a"}) || set[0].Meta != nil {
		t.Errorf("%+v", set[0])
	}
	next := set[0]
	next.NodeMeta = map[string]string{"zone": "b"}
	if d := diff(set, []Instance{next}); d.Changed != 1 {
		t.Errorf("a node that moved: %+v", d)
	}
	next = set[0]
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
		{429, "slow down"},
		{200, `{`},
		{200, `{"Config": {"NodeName": "", "Datacenter": "dc1"}}`},
		{200, `{"Config": {"NodeName": "n\u0007", "Datacenter": "dc1"}}`},
		{200, `{"Config": {"NodeName": "n1", "Datacenter": "dc1", "Server": true}, "Coord": {"Vec": [0]}, "Member": {"Tags": {}}, "Meta": {"zone": "a"}}`},
	}
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(asked.Add(1)) - 1
		if r.URL.Path != "/v1/agent/self" || n >= len(answers) {
			t.Errorf("asked %d times, for %s", n+1, r.URL)
			return
		}
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
	var levels []string
	for line := range strings.Lines(log.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		levels = append(levels, entry["@level"].(string))
		if hint, _ := entry["hint"].(string); entry["@level"] == "warn" && !strings.Contains(hint, `agent_prefix "" { policy = "read" }`) {
			t.Errorf("hint %q", hint)
		}
	}
	if strings.Join(levels, " ") != "warn info" {
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
