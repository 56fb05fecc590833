//go:build !race

package sim_test

// raceEnabled: this test was built with -race.
const raceEnabled = false
