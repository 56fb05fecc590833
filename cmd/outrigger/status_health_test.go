package main

import (
	"strings"
	"testing"
	"unicode"

	"outrigger/sidecar/admin"
)

// statusSick is a service of which discovery and health have much to tell.
func statusSick() *admin.StatusDoc {
	closed := admin.EndpointBreakerDoc{State: "closed"}
	return &admin.StatusDoc{
		Version: "1.2.3", UptimeSeconds: 60, Ready: true,
		Consul: &admin.ConsulDoc{
			ReadsLimit: number(150), ReadsInUse: 140, ReadsWaiting: 360, Readers: 500, LongestWaitSeconds: number(3.0),
			BusyTotal: map[string]uint64{"connections": 4, "rate": 0},
		},
		Services: []admin.ServiceDoc{{
			Name: "web", Listen: "127.0.0.1:8080", Policy: "p2c", Mode: "two choices", Panic: true,
			EndpointsTotal: 4, EndpointsReady: 3, EndpointsListed: 4, EndpointsHealthy: 1, PanicsTotal: 2,
			EjectionsByReasonTotal: map[string]uint64{"consecutive": 0, "success_rate": 3, "probe": 1},
			Tier:                   "dr", TierForSeconds: number(5.0), FailoversTotal: 2,
			Capacity: admin.CapacityDoc{State: "closed"},
			Discovery: &admin.DiscoveryDoc{
				State: "kept", StateForSeconds: number(90.0), Source: "prepared_query", Datacenter: "dc2",
				Seen: true, Instances: 4, Unlisted: 3, AgeSeconds: number(1.0), Doubt: "empty_alive",
				Holding: "nothing is listed, but old endpoints answer", HoldingForSeconds: number(80.0),
				Snapshot: &admin.SnapshotDoc{WriteErrorsTotal: 2},
				Fallbacks: []admin.FallbackDoc{
					{Name: "dr", DiscoveryDoc: admin.DiscoveryDoc{State: "failing", StateForSeconds: number(4.0), Seen: true,
						Instances: 1, Index: 9, AgeSeconds: number(5.0), FailingForSeconds: number(4.0), LastError: "EOF"}},
					{Name: "last", DiscoveryDoc: admin.DiscoveryDoc{State: "current", Source: "static", Seen: true, Instances: 1, AgeSeconds: number(9.0)}},
				},
			},
			Endpoints: []admin.EndpointDoc{
				{
					ID: "n1/a", Address: "10.0.0.1:80", Weight: 1, Health: "critical", Ready: true, Despite: "critical", Breaker: closed,
					Unlisted: true, Check: &admin.CheckDoc{State: "up", ForSeconds: number(9.0)},
				},
				{
					ID: "n2/a", Address: "10.0.0.2:80", Weight: 1, Health: "passing", Why: "check down: status 500", Breaker: closed,
					Check: &admin.CheckDoc{State: "down", ForSeconds: number(4.0), Error: "status 500"},
				},
				{
					ID: "n3/a", Address: "10.0.0.3:80", Weight: 1, Health: "passing", Ready: true, Flaps: number(3.2), FallsTotal: 6,
					Breaker: admin.EndpointBreakerDoc{State: "closed", EjectionsTotal: 3, LastReason: "success_rate"},
				},
				{ID: "@dr/n1/a", Address: "10.9.0.1:80", Weight: 1, Health: "passing", Ready: true, Tier: "dr", Flaps: number(1.0), FallsTotal: 1, Breaker: closed},
			},
		}},
	}
}

const statusSickGolden = `outrigger 1.2.3 at x:1, up 1m00s, ready
consul: 140 of 150 connections in use, 360 reads wait, each for up to 3.0s; turned away: connections 4

web on 127.0.0.1:8080, p2c: two choices; 3 of 4 ready, PANIC: 1 of 4 endpoints healthy, so health is ignored
  discovery  kept for 1m30s: 4 instances, 3 of them no longer listed, from prepared query in dc2, answered 1.0s ago; HOLDING the set for 1m20s: nothing is listed, but old endpoints answer; snapshots on disk: 2 not written, 0 of no use
  fallback   dr: failing for 4.0s: 1 instances, index 9, answered 5.0s ago; FAILING for 4.0s: EOF
  fallback   last: current: 1 instances, from static
  tier       dr for 5.0s, failovers: 2
  capacity   breaker closed, trips: 0; queue: 0 waiting, 0 served, 0 overflowed, 0 timed out
  requests   0 sent, 0 of them retries, 0 retries denied; own 503s: none
  ejections  probe 1, success_rate 3; panics: 2
  ENDPOINT  ADDRESS      WEIGHT  HEALTH                        STATE                    IN-FLIGHT  REQUESTS  FAILED  LATENCY  CPU  MEM  FIGURES  BREAKER                            TIER
  n1/a      10.0.0.1:80  1       critical, unlisted, check up  ready despite: critical  0          0         0       -        -    -    -        closed                             primary
  n2/a      10.0.0.2:80  1       passing, check down 4.0s      check down: status 500   0          0         0       -        -    -    -        closed                             primary
  n3/a      10.0.0.3:80  1       passing, fell 6x in all       ready                    0          0         0       -        -    -    -        closed, ejected 3x (success_rate)  primary
  @dr/n1/a  10.9.0.1:80  1       passing                       ready                    0          0         0       -        -    -    -        closed                             dr
`

func TestStatusOfSickness(t *testing.T) {
	t.Parallel()
	if got := string(statusTable(statusSick(), "x:1")); got != statusSickGolden {
		t.Errorf("got\n%s\nwant\n%s", got, statusSickGolden)
	}
}

func TestStatusDiscoveryWords(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]admin.DiscoveryDoc{
		"unknown for 3.0s: no answer yet": {State: "unknown", StateForSeconds: number(3.0)},
		"snapshot for 9.0s: 2 instances, from disk, known 2h00m ago; FAILING for 9.0s: EOF": {
			State: "snapshot", StateForSeconds: number(9.0), Seen: true, Instances: 2, SnapshotAgeSeconds: number(7200.0),
			FailingForSeconds: number(9.0), LastError: "EOF"},
		"empty for 1m00s: 0 instances, index 8, answered 1.0s ago": {
			State: "empty", StateForSeconds: number(60.0), Seen: true, Index: 8, AgeSeconds: number(1.0), Source: "consul"},
		"current: 1 instances, from file, answered 1.0s ago": {State: "current", Seen: true, Instances: 1, AgeSeconds: number(1.0), Source: "file"},
	} {
		if got := statusDiscovery(&d); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got, want := statusConsul(&admin.ConsulDoc{HTTP2: true, ReadsInUse: 7}), "7 reads open on HTTP/2; turned away: none"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzStatusOfSickness: names and texts of others neither add lines nor move the cursor.
func FuzzStatusOfSickness(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "a\nb", "a\tb", "\u202eevil", "\xff"} {
		f.Add(s)
	}
	lines := strings.Count(statusSickGolden, "\n")
	f.Fuzz(func(t *testing.T, s string) {
		doc := statusSick()
		web := &doc.Services[0]
		web.Tier = "x" + s
		web.EjectionsByReasonTotal[s] = 7
		d := web.Discovery
		d.State, d.Source, d.Datacenter, d.Holding = s, s, s, "x"+s
		d.Fallbacks[0].Name, d.Fallbacks[0].LastError = s, s
		doc.Consul.BusyTotal[s] = 3
		e := &web.Endpoints[0]
		e.Despite, e.Tier, e.Check.State, e.Breaker.LastReason = s, s, s, s
		out := string(statusTable(doc, "x:1"))
		if n := strings.Count(out, "\n"); n != lines {
			t.Errorf("%d lines, want %d:\n%q", n, lines, out)
		}
		for _, r := range out {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Fatalf("%U reaches the terminal in %q", r, out)
			}
		}
	})
}
