package publish

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestDefaultsAreValid(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	if err := DefaultWatchConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"prefix":       func(c *Config) { c.Prefix = "" },
		"prefix slash": func(c *Config) { c.Prefix = "/a/" },
		"prefix dots":  func(c *Config) { c.Prefix = "a/../b" },
		"min_interval": func(c *Config) { c.MinInterval = 0 },
		"max_interval": func(c *Config) { c.MaxInterval = time.Second },
		"session_ttl":  func(c *Config) { c.SessionTTL = time.Second },
		"change.avail": func(c *Config) { c.Change.Avail = 0 },
		"change.mem":   func(c *Config) { c.Change.Mem = math.NaN() },
		"change.err":   func(c *Config) { c.Change.Err = -1 },
		"change.conc":  func(c *Config) { c.Change.Conc = 2 },
	} {
		c := DefaultConfig()
		change(&c)
		word, _, _ := strings.Cut(name, " ")
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for name, change := range map[string]func(*WatchConfig){
		"prefix": func(c *WatchConfig) { c.Prefix = "a//b" },
		"wait":   func(c *WatchConfig) { c.Wait = 0 },
		"pause":  func(c *WatchConfig) { c.Pause = 0 },
		"hold":   func(c *WatchConfig) { c.Hold = -1 },
	} {
		c := DefaultWatchConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("watch %s: error %v", name, err)
		}
	}
}

func TestKey(t *testing.T) {
	if got, want := Key("p/q", "web", "a/b%", "web/1%"), "p/q/web/a%2Fb%25/web/1%"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestNextIndex(t *testing.T) {
	for _, tt := range [][3]uint64{{0, 0, 1}, {0, 7, 7}, {7, 9, 9}, {9, 7, 0}, {7, 7, 7}} {
		if got := nextIndex(tt[0], tt[1]); got != tt[2] {
			t.Errorf("after %d came %d: block on %d, want %d", tt[0], tt[1], got, tt[2])
		}
	}
}

func some[T any](v T) *T { return &v }

func TestCompare(t *testing.T) {
	was := figures{Epoch: "a", Listening: some(true), Cores: some(2.0), Avail: some(1.0), Mem: some(0.5), Err: some(0.0), Conc: some(40.0)}
	tests := map[string]struct {
		change func(*figures)
		want   urgency
	}{
		"the same":             {func(*figures) {}, nothing},
		"another epoch":        {func(f *figures) { f.Epoch = "b" }, urgent},
		"not listening":        {func(f *figures) { f.Listening = some(false) }, urgent},
		"listening unknown":    {func(f *figures) { f.Listening = nil }, urgent},
		"a little less avail":  {func(f *figures) { f.Avail = some(0.9) }, nothing},
		"much less avail":      {func(f *figures) { f.Avail = some(0.7) }, change},
		"avail unknown":        {func(f *figures) { f.Avail = nil }, change},
		"other cores":          {func(f *figures) { f.Cores = some(4.0) }, change},
		"a little more memory": {func(f *figures) { f.Mem = some(0.54) }, nothing},
		"more memory":          {func(f *figures) { f.Mem = some(0.56) }, change},
		"errors":               {func(f *figures) { f.Err = some(0.06) }, change},
		"a little conc":        {func(f *figures) { f.Conc = some(45.0) }, nothing},
		"conc":                 {func(f *figures) { f.Conc = some(29.0) }, change},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			now := was
			tt.change(&now)
			if got := DefaultConfig().Change.compare(was, now); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}

// drive looks once a second for as long as there are figures, and returns the
// seconds of the writes.
func drive(cfg Config, chance func() float64, seconds int, at func(second int) figures) (writes []int) {
	d := newDecider(cfg)
	for s := range seconds {
		if f, due := d.step(float64(s), at(s)); due {
			d.written(float64(s), f, chance())
			writes = append(writes, s)
		}
	}
	return writes
}

func TestDeciderPaces(t *testing.T) {
	cfg := DefaultConfig()
	still := figures{Epoch: "a", Cores: some(2.0), Avail: some(1.0)}
	rng := rand.New(rand.NewPCG(1, 2))

	t.Run("nothing changes", func(t *testing.T) {
		writes := drive(cfg, rng.Float64, 300, func(int) figures { return still })
		if n := len(writes); n < 10 || n > 13 {
			t.Errorf("%d writes in 300 s, want about one in 30 s: %v", n, writes)
		}
	})
	t.Run("everything changes", func(t *testing.T) {
		writes := drive(cfg, rng.Float64, 300, func(s int) figures {
			f := still
			f.Mem = some(float64(s%2) / 2)
			return f
		})
		for i := range writes[1:] {
			if gap := writes[i+1] - writes[i]; gap < 5 {
				t.Errorf("writes at %d and %d s, want 5 s between them", writes[i], writes[i+1])
			}
		}
		if len(writes) < 30 {
			t.Errorf("%d writes in 300 s, want about one in 5.6 s", len(writes))
		}
	})
	t.Run("a crash", func(t *testing.T) {
		writes := drive(cfg, rng.Float64, 20, func(s int) figures {
			f := still
			f.Listening = some(s < 3 || s >= 5)
			return f
		})
		if len(writes) != 3 || writes[1] != 3 || writes[2] != 5 {
			t.Errorf("writes at %v, want at 0, 3 and 5", writes)
		}
	})
	t.Run("a crash loop", func(t *testing.T) {
		d := newDecider(cfg)
		writes := 0
		for ms := 0; ms < 10000; ms += 100 {
			f := still
			f.Epoch = time.Duration(ms).String()
			if f, due := d.step(float64(ms)/1000, f); due {
				d.written(float64(ms)/1000, f, 0)
				writes++
			}
		}
		if writes > 10 {
			t.Errorf("%d writes in 10 s, want at most 10", writes)
		}
	})
	t.Run("a change that goes back", func(t *testing.T) {
		writes := drive(cfg, func() float64 { return 0 }, 20, func(s int) figures {
			f := still
			f.Mem = some(0.5)
			if s >= 2 && s < 4 {
				f.Mem = some(0.9)
			}
			return f
		})
		if len(writes) != 1 {
			t.Errorf("writes at %v, want one: it was over before 5 s were", writes)
		}
	})
}

// What is published of an avail that jumps is near its mean, and never above cores.
func TestDeciderAveragesAvail(t *testing.T) {
	d := newDecider(DefaultConfig())
	for s := range 100 {
		f := figures{Cores: some(2.0), Avail: some(2.0)}
		if s%5 == 0 { // a burst that takes nearly all
			f.Avail = some(0.5)
		}
		got, _ := d.step(float64(s), f)
		if s >= 5 && math.Abs(*got.Avail-1.7) > 1e-9 {
			t.Errorf("avail %v at second %d, want the mean 1.7", *got.Avail, s)
		}
	}
	if got, _ := d.step(100, figures{Cores: some(1.0), Avail: some(1.0)}); *got.Avail != 1 {
		t.Errorf("avail %v of 1 core", *got.Avail)
	}
	if got, _ := d.step(101, figures{}); got.Avail != nil {
		t.Errorf("avail %v where it is unknown", *got.Avail)
	}
}

func TestWithAvail(t *testing.T) {
	report := []byte(`{"version":1,"avail":0.1,"other":{"a":[1]}}`)
	got, err := figures{Avail: some(1.25)}.withAvail(report)
	if want := `{"avail":1.2500,"other":{"a":[1]},"version":1}`; err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	if got, err := (figures{}).withAvail(report); err != nil || string(got) != string(report) {
		t.Errorf("%s, %v; want the report as it is", got, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`{"version":1,"at":1,"epoch":"a","listening":true,"cores":2,"avail":1.5,"mem":0.5,"err":0,"conc":40}`)
	f.Add(`{"cores":null}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := read([]byte(text))
		if ok && !json.Valid([]byte(text)) {
			t.Error("it reads what is no JSON")
		}
		d := newDecider(DefaultConfig())
		out, due := d.step(0, got)
		if !due {
			t.Error("the first report is not written")
		}
		if body, err := out.withAvail([]byte(text)); ok && (err != nil || !json.Valid(body)) {
			t.Errorf("published would be %q, %v", body, err)
		}
		if d.cfg.Change.compare(out, out) != nothing {
			t.Error("a report differs from itself")
		}
	})
}
