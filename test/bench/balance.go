package main

import (
	"fmt"
	"strings"
	"time"
)

// Keys of the figures of the cases that compare choices.
const (
	keyMS50    = "p50_ms"
	keyMS99    = "p99_ms"
	keyMS999   = "p999_ms"
	keyMean    = "mean_ms"
	keyGoodput = "goodput_percent"
	keyShed    = "answered_503"
	keyErrors  = "errors"
	keyLateMS  = "generator_late_p99_ms"
	keyTimeout = "timed_out"
	keyIdle    = "idle_processors"
	keyOthers  = "processors_taken_by_others"
)

func balanceMetrics() []metric {
	return []metric{
		{key: keyMS50, label: "p50 ms", spread: true, compare: lower},
		{key: keyMS99, label: "p99 ms", spread: true, compare: lower},
		{key: keyMS999, label: "p99.9 ms", spread: true, compare: lower},
		{key: keyMean, label: "mean ms", compare: lower},
		{key: keyGoodput, label: "goodput %", digits: 2, spread: true, compare: higher},
		{key: keyShed, label: "503"},
		{key: keyErrors, label: "errors"},
		{key: keyRequests, label: "requests"},
	}
}

// balanceContenders are in the order of the table, the one to prove last.
func balanceContenders() []contender {
	return []contender{
		{proxy: haproxy, choice: "leastconn"},
		{proxy: haproxy, choice: "leastconn", agents: true},
		{proxy: nginx, choice: "least_conn"},
		{proxy: ours, choice: "least_conn"},
		balanceOwn(),
	}
}

func balanceOwn() contender { return contender{proxy: ours, choice: "resource"} }

// balanceTimes are how long each turn warms up and counts: longer than the
// bursts of neighbours, so that a round holds several.
func balanceTimes(opt options) (warm, run time.Duration) {
	if opt.quick {
		return 2 * time.Second, 5 * time.Second
	}
	return 5 * time.Second, time.Duration(5*opt.seconds) * time.Second
}

func balanceSetting(opt options, of []capacity) string {
	_, run := balanceTimes(opt)
	var calm, noisy, quota float64
	var list []string
	for i, c := range of {
		calm, noisy, quota = calm+c.calm, noisy+c.noisy, quota+fleetCores()[i]
		list = append(list, fmt.Sprintf("%g", fleetCores()[i]))
	}
	return fmt.Sprintf("%d rounds of %v; open loop, Poisson arrivals each at a random client, work lognormal of mean %.1f ms CPU and sigma %g, clients give up after %v\n"+
		"quotas %s of a core; measured capacity %.0f requests/s calm and %.0f while all neighbours take %.0f %% (quotas alone: %.0f); load counts from what neighbours leave on average in the round",
		opt.rounds, run, meanWork/1e3, float64(workSigma), giveUp, strings.Join(list, " "),
		calm/meanWork, noisy/meanWork, 100*probeSteal, quota*1e6/meanWork)
}

func balanceNotes() []string {
	return []string{
		"what was not answered within the time counts with it: a figure of " + fmt.Sprint(giveUp.Milliseconds()) + " ms means that or more",
		"weights are by quota, but for outrigger resource, which learns from agents what backends have",
		"agents see by the kernel what backends have in flight; they answer HAProxy's agent-check too, with the share of its quota that a backend can have",
	}
}

// figures are the poured requests in the table's terms.
func (p poured) figures() figures {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
	n := float64(len(p.latency))
	return figures{
		keyMS50: ms(percentile(p.latency, 50)), keyMS99: ms(percentile(p.latency, 99)), keyMS999: ms(percentile(p.latency, 99.9)),
		keyMean: ms(p.mean), keyGoodput: 100 * float64(p.fates[answered]) / n, keyRequests: n,
		keyShed: float64(p.fates[shed]), keyTimeout: float64(p.fates[timedOut]), keyErrors: float64(p.fates[failed]), keyLateMS: ms(percentile(p.late, 99)),
	}
}
