package h1

import "time"

// credit is the time for which a client may still keep us waiting: for its
// bytes, or to take ours. It starts at the idle time-out, each wait uses it up,
// and each byte earns some back. So a client may pause for as long as the idle
// time-out allows, but cannot go on for ever at a byte a minute.
type credit struct {
	left, most time.Duration
	perByte    time.Duration // 0: waits cost nothing
	since      time.Duration
}

func (k *credit) reset(cfg *Config) {
	*k = credit{left: cfg.Timeouts.Idle, most: cfg.Timeouts.Idle, perByte: cfg.byteTime()}
}

// byteTime is what a byte earns, 0 without a least rate.
func (c *Config) byteTime() time.Duration {
	if c.MinRate == 0 {
		return 0
	}
	return time.Second / time.Duration(c.MinRate)
}

// offer returns how long the wait that begins now may last.
func (k *credit) offer(now time.Duration) time.Duration {
	k.since = now
	return k.left
}

// earn ends the wait, in which n bytes moved.
func (k *credit) earn(now time.Duration, n int) {
	if k.perByte > 0 {
		k.left = min(k.most, k.left-(now-k.since)+time.Duration(n)*k.perByte)
	}
}
