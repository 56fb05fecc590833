//go:build race

package access

// raceEnabled says that the race detector is on: it allocates for itself.
const raceEnabled = true
