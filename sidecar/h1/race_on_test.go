//go:build race

package h1

// raceEnabled says that the race detector is on: it allocates for itself.
const raceEnabled = true
