//go:build race

package e2e

// raceEnabled: this test was built with -race, and so is the outrigger it runs.
const raceEnabled = true
