package sim_test

import (
	"time"

	"outrigger/sidecar/sim"
)

// bounds are the cells of TestBounds. The comment behind each is PICKING.md's
// figure; the bound is that with its spread, or what the real code measured
// (TestTables) and a quarter more, whichever is lower.
func bounds() []bound {
	return append(append(levels(), scenes()...), faults()...)
}

func most(p99 float64) [2]float64   { return [2]float64{0, p99} }
func good(least float64) [2]float64 { return [2]float64{least, 1} }

// levels are the table: ours, and the baselines that show that the model is
// PICKING.md's.
func levels() []bound {
	base := func(name string, least, most float64, c change) bound {
		return bound{name: name + " at 90 %", cfg: reduced(0.9, c), seeds: 1, over: true, goodput: [2]float64{least, most}}
	}
	return []bound{
		// 180 ms, 100 %
		{name: "resource at 70 %", cfg: reduced(0.7, resource.set), seeds: 2, p99: most(205), goodput: good(0.9999)},
		// 277 ms, 99.98 %; at most 0.1 % shed
		{name: "resource at 90 %", cfg: reduced(0.9, resource.set), seeds: 3, p99: most(295), goodput: good(0.9995), check: atMost("shed", turned, 0.001)},
		// 176 ms, 100 %
		{name: "oracle at 90 %", cfg: reduced(0.9, oracle.set), seeds: 1, p99: [2]float64{135, 200}, goodput: good(0.9999)},
		// 529 ms, 99.85 %
		{name: "Prequal at 90 %", cfg: reduced(0.9, prequal.set), seeds: 1, p99: [2]float64{350, 800}, goodput: good(0.993)},
		// 843 ms, 98.9 %
		{name: "C3 at 90 %", cfg: reduced(0.9, baseline("c3")), seeds: 1, p99: [2]float64{400, float64(sim.Never)}, goodput: good(0.97)},
		base("round_robin", 0.45, 0.57, policy("round_robin")),              // 49.6 %
		base("least_conn", 0.66, 0.79, policy("least_conn")),                // 72.3 %
		base("p2c by cores and speed", 0.92, 0.98, weighted.set),            // 95.2 %
		base("peak_ewma", 0.76, 0.88, policy("peak_ewma")),                  // 81.5 %
		base("gRPC weighted round robin", 0.87, 0.97, baseline("grpc_wrr")), // 93.9 %
	}
}

// scenes are of the paragraph "It holds under".
func scenes() []bound {
	scene := func(name string, p99, goodput float64, changes ...change) bound {
		return bound{name: name, cfg: reduced(0.9, append(changes, resource.set)...), seeds: 1, p99: most(p99), goodput: good(goodput)}
	}
	return []bound{
		scene("polls every 2 s", 370, 0.998, polls(2*time.Second)),  // 395 ms
		scene("20 % of agents silent", 410, 0.997, silent(0.2)),     // 495
		scene("all agents silent", 730, 0.99, silent(1)),            // 847
		scene("30 % noise", 325, 0.999, noise),                      // 309
		scene("two agents lie", 320, 0.998, liars),                  // 324
		scene("no in-flight figure at all", 530, 0.997, noInFlight), // 617
	}
}

// faults are the other cases, and admission.
func faults() []bound {
	return []bound{
		// 280 ms, 99.9 % of the requests at the fast app
		{name: "three apps", cfg: reduced(0.7, threeApps, resource.set), seeds: 3, p99: most(350),
			check: atMost("share of the slow apps", func(r *sim.Result) float64 { return 1 - shareOf(fast)(r) }, 0.006)},
		// 0.00 % errors
		{name: "black hole", cfg: reduced(0.7, blackHole, resource.set), seeds: 1, p99: most(220), check: atMost("errors", errors, 0.0005)},
		// 0.41 %, over a longer time
		{name: "black hole, agents report no errors", cfg: reduced(0.7, blackHole, mute, resource.set), seeds: 1, p99: most(220), check: atMost("errors", errors, 0.009)},
		// 4 to 6
		{name: "cold backend", cfg: reduced(0.7, coldJoin, resource.set), seeds: 1, p99: most(220),
			check: atMost("in flight on it", func(r *sim.Result) float64 { return float64(mostInFlight(50)(r)) }, 6)},
		// 0 kills
		{name: "leaking memory", cfg: reduced(0.7, leaking, resource.set), seeds: 1, p99: most(230),
			check: atMost("kills", func(r *sim.Result) float64 { return float64(kills(r)) }, 0)},
		// 14 to 15: there is something to prevent
		{name: "leaking memory, round_robin", cfg: reduced(0.7, leaking, policy("round_robin")), seeds: 1, over: true,
			check: atLeast("kills", func(r *sim.Result) float64 { return float64(kills(r)) }, 5)},
		// 97.1 % of the capacity
		{name: "150 % load, 10 sidecars", cfg: reduced(1.5, sidecars(10), resource.set), seeds: 1, goodput: good(0.965 / 1.5)},
		// 97.5 %
		{name: "150 % load, 100 sidecars", cfg: reduced(1.5, resource.set), seeds: 1, goodput: good(0.965 / 1.5)},
		// 10 %
		{name: "150 % load, nothing is shed", cfg: reduced(1.5, maxWait(0), maxInFlight(0), resource.set), seeds: 1, over: true, goodput: [2]float64{0, 0.2}},
	}
}
