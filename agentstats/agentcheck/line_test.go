package agentcheck

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// nothing is a state of which all figures are unknown.
func nothing() State {
	return State{Avail: Unknown, Cores: Unknown, Mem: Unknown, MemStall: Unknown, Err: Unknown, Conc: Unknown}
}

func with(change func(*State)) State {
	s := nothing()
	change(&s)
	return s
}

func TestLine(t *testing.T) {
	half := func(s *State) { s.Cores, s.Avail = 4, 2 }
	words := func(change func(*Config)) Config {
		c := DefaultConfig()
		change(&c)
		return c
	}
	plain := DefaultConfig()
	for _, c := range []struct {
		name string
		cfg  Config
		s    State
		want string
	}{
		{"nothing known", plain, nothing(), "up 100%"},
		{"the zero state", plain, State{}, "up 100%"},
		{"nothing known", plain, State{Unknown: true}, ""},
		{"nothing known, draining", plain, State{Unknown: true, Draining: true}, "0%"},
		{"port not known", plain, State{Unheard: true}, "100%"},
		{"share of the limit", plain, with(half), "up 50%"},
		{"avail unknown", plain, with(func(s *State) { s.Cores = 4 }), "up 100%"},
		{"avail without cores", plain, with(func(s *State) { s.Avail = 1 }), "up 100%"},
		{"more avail than cores", plain, with(func(s *State) { s.Cores, s.Avail = 2, 3 }), "up 100%"},
		{"nothing free", plain, with(func(s *State) { s.Cores, s.Avail = 4, 0 }), "up 5%"},
		{"memory below the rule", plain, with(func(s *State) { s.Mem = 0.8 }), "up 100%"},
		{"memory near its limit", plain, with(func(s *State) { s.Mem = 0.86 }), "up 50%"},
		{"memory at its limit", plain, with(func(s *State) { s.Mem = 0.92 }), "up 1%"},
		{"memory past its limit", plain, with(func(s *State) { s.Mem = 2 }), "up 1%"},
		{"half the time stalled", plain, with(func(s *State) { s.MemStall = 0.5 }), "up 50%"},
		{"always stalled", plain, with(func(s *State) { s.MemStall = 1 }), "up 1%"},
		{"few errors", plain, with(func(s *State) { s.Err = 0.01 }), "up 100%"},
		{"half errors", plain, with(func(s *State) { s.Err = 0.5 }), "up 12%"},
		{"errors alone", plain, with(func(s *State) { s.Err = 1 }), "up 1%"},
		{"all of it", plain, with(func(s *State) { half(s); s.Mem = 0.86; s.MemStall = 0.2 }), "up 20%"},
		{"concurrency is not said unasked", plain, with(func(s *State) { s.Conc = 30 }), "up 100%"},

		{"closed port", plain, with(func(s *State) { half(s); s.Down = true }), "down 50% # nobody listens on the backend's port"},
		{"draining", plain, with(func(s *State) { half(s); s.Draining = true }), "up 0%"},
		{"draining with a closed port", plain, with(func(s *State) { s.Draining, s.Down = true, true }), "down 0% # nobody listens on the backend's port"},

		{"no word of health", words(func(c *Config) { c.Health = false }), with(half), "50%"},
		{"closed port without a word of health", words(func(c *Config) { c.Health = false }), with(func(s *State) { s.Down = true }), "0%"},
		{"words of administration", words(func(c *Config) { c.Admin = true }), with(half), "up ready 50%"},
		{"draining in words", words(func(c *Config) { c.Admin = true }), with(func(s *State) { half(s); s.Draining = true }), "up drain 50%"},
		{"per core", words(func(c *Config) { c.PercentPerCore = 100 }), with(func(s *State) { s.Cores, s.Avail = 16, 2.5 }), "up 250%"},
		{"per core, avail unknown", words(func(c *Config) { c.PercentPerCore = 100 }), with(func(s *State) { s.Cores = 16 }), "up 1600%"},
		{"per core, cores unknown", words(func(c *Config) { c.PercentPerCore = 100 }), nothing(), "up 100%"},
		{"per core of a huge machine", words(func(c *Config) { c.PercentPerCore = 100 }), with(func(s *State) { s.Cores = 4096 }), "up 25600%"},
		{"maxconn", words(func(c *Config) { c.MaxConnFactor = 0.5 }), with(func(s *State) { s.Conc = 7 }), "up 100% maxconn:4"},
		{"maxconn unknown", words(func(c *Config) { c.MaxConnFactor = 0.5 }), nothing(), "up 100%"},
		{"maxconn of nothing", words(func(c *Config) { c.MaxConnFactor = 0.5 }), with(func(s *State) { s.Conc = 0 }), "up 100%"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.cfg.line(c.s); got != c.want+"\n" {
				t.Errorf("the line is %q, want %q", got, c.want)
			}
		})
	}
}

// HAProxy reads words apart by blanks, in any order, up to a sharp or the line's end.
var grammar = regexp.MustCompile(`^(?:(up|down) )?(?:(ready|drain) )?(\d+)%(?: maxconn:(\d+))?(?: # [^\n]+)?\n$`)

// Whatever the figures are, the line is one that HAProxy understands, and a backend
// that listens and does not drain is not taken out by it.
func FuzzLine(f *testing.F) {
	for _, v := range []float64{0, -1, 0.5, 1e300, math.NaN(), math.Inf(1), math.Inf(-1)} {
		f.Add(v, v, v, v, v, v, 0.5, 100, byte(0))
		f.Add(v, 4.0, v, v, v, v, 2.0, 0, byte(0xff))
	}
	f.Fuzz(func(t *testing.T, avail, cores, mem, stall, errs, conc, factor float64, perCore int, flags byte) {
		c := Config{Health: flags&1 != 0, Admin: flags&2 != 0, PercentPerCore: perCore, MaxConnFactor: factor, MaxConns: 1}
		if c.Validate() != nil {
			t.Skip()
		}
		s := State{Down: flags&4 != 0, Draining: flags&8 != 0, Avail: avail, Cores: cores, Mem: mem, MemStall: stall, Err: errs, Conc: conc}
		m := grammar.FindStringSubmatch(c.line(s))
		if m == nil {
			t.Fatalf("%+v of %+v: %q", c, s, c.line(s))
		}
		percent, err := strconv.Atoi(m[3])
		if err != nil || percent > maxPercent || percent == 0 && !s.Down && !s.Draining {
			t.Errorf("%+v of %+v: %q", c, s, m[0])
		}
		if n, err := strconv.ParseInt(m[4], 10, 32); m[4] != "" && (err != nil || n < 1) {
			t.Errorf("%+v of %+v: %q", c, s, m[0])
		}
		if (m[1] == "down") != (c.Health && s.Down) || (m[2] == "drain") != (c.Admin && s.Draining) || (m[2] == "ready") != (c.Admin && !s.Draining) {
			t.Errorf("%+v of %+v: %q", c, s, m[0])
		}
	})
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for text, change := range map[string]func(*Config){
		`listen ":9913"`:                func(c *Config) { c.Listen = ":9913" },
		`listen "10.0.0.1"`:             func(c *Config) { c.Listen = "10.0.0.1" },
		"the port":                      func(c *Config) { c.Listen = "10.0.0.1:http" },
		"from 1 to 65535":               func(c *Config) { c.Listen = "10.0.0.1:0" },
		"percent_per_core -1":           func(c *Config) { c.PercentPerCore = -1 },
		"percent_per_core 25601":        func(c *Config) { c.PercentPerCore = 25601 },
		"maxconn_factor NaN":            func(c *Config) { c.MaxConnFactor = math.NaN() },
		"maxconn_factor 1001":           func(c *Config) { c.MaxConnFactor = 1001 },
		"max_conns 0 is outside 1 to 4": func(c *Config) { c.MaxConns = 0 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want an error with %q", c, err, text)
		}
	}
}
