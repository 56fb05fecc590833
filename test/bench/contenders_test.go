package main

import (
	"strings"
	"testing"
	"time"
)

func TestContendersHaveNamesOfTheirOwn(t *testing.T) {
	for _, of := range [][]contender{balanceContenders(), flaskContenders()} {
		seen := map[string]bool{}
		for _, name := range names(of) {
			if seen[name] {
				t.Errorf("%q twice", name)
			}
			seen[name] = true
		}
		if own := of[len(of)-1].name(); rival(own) || !rival(of[0].name()) {
			t.Errorf("%q is a rival of ours", own)
		}
	}
}

func TestWeightsAndAgentsReachThePeers(t *testing.T) {
	b := &bench{dir: "/d"}
	to := []upstream{{port: 1001, weight: 8, agentCheck: 2001}, {port: 1002, weight: 24, agentCheck: 2002}}
	for _, c := range []struct {
		of   contender
		want []string
		not  string
	}{
		{contender{proxy: haproxy, choice: "leastconn"}, []string{"balance leastconn\n", "127.0.0.1:1001 weight 8\n", "127.0.0.1:1002 weight 24\n", "bind 127.0.0.1:77\n"}, "agent-check"},
		{contender{proxy: haproxy, choice: "leastconn", agents: true}, []string{"127.0.0.1:1002 weight 24 agent-check agent-addr 127.0.0.1 agent-port 2002 agent-inter 500ms agent-send \"x\\n\"\n"}, "2003"},
		{contender{proxy: nginx, choice: "least_conn"}, []string{"least_conn; server 127.0.0.1:1001 weight=8;", "server 127.0.0.1:1002 weight=24;", "listen 127.0.0.1:77;"}, "round"},
		{contender{proxy: nginx}, []string{"upstream all {  server 127.0.0.1:1001"}, "least_conn"},
	} {
		got := c.of.config(b, "x", "service", 77, 78, to)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is missing in\n%s", c.of.name(), want, got)
			}
		}
		if strings.Contains(got, c.not) {
			t.Errorf("%s: %q is in\n%s", c.of.name(), c.not, got)
		}
	}
}

func TestFlaskFigures(t *testing.T) {
	f := flaskFigures([]reply{{5 * time.Second, true}, {10 * time.Second, true}, {0, false}}, 12*time.Second)
	if f[keyTotal] != 12 || f[keyMeanS] != 5 || f[keyLast] != 10 || f[keySlow] != 2 || f[keyRequests] != 3 {
		t.Errorf("%v", f)
	}
}

func TestOwnAgainstRivalsAlone(t *testing.T) {
	r := someBalance()[0]
	r.names = append(r.names, "outrigger least_conn")
	for _, values := range r.Rounds {
		values["outrigger least_conn"] = figures{keyMS99: 1} // the best of all, and no rival
	}
	m := balanceMetrics()[1]
	if m.key != keyMS99 {
		t.Fatal(m)
	}
	if got := spreadOf(r.ratios(m)); got.N != 3 || got.Max > 0.34 || got.Min < 0.33 {
		t.Errorf("%+v", got)
	}
	var out strings.Builder
	r.print(&out)
	if !strings.Contains(out.String(), "outrigger resource/better peer") {
		t.Error(out.String())
	}
}

func TestUnequalTurnsAreTold(t *testing.T) {
	r := someBalance()[0]
	for _, name := range r.order() {
		for _, values := range r.Rounds {
			values[name][keyOthers], values[name][keyIdle] = 0.3, 0.5
		}
	}
	if w := r.warnings(); len(w) != 0 {
		t.Errorf("%q", w)
	}
	r.Rounds[1]["nginx <least>"][keyOthers] = 0.5
	r.Rounds[2]["nginx <least>"][keyIdle] = 0.1
	if w := r.warnings(); len(w) != 2 || !strings.Contains(w[0], "0.30 to 0.50") || !strings.Contains(w[1], "0.10") {
		t.Errorf("%q", w)
	}
}
