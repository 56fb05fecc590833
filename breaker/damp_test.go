package breaker

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestDampingByHand: a fall every ten seconds, as in the plan of issue 6.
func TestDampingByHand(t *testing.T) {
	c := DefaultDampConfig()
	var f Flap
	penalties := []float64{1, 1.94, 2.83, 3.67, 4.47, 5.22}
	holds := []float64{0, 0, 3.55, 6.36, 11.1, 18.6} // at once after the fall
	for i, want := range penalties {
		now := time.Hour + time.Duration(i)*10*time.Second
		f = c.Fall(f, now)
		if got := c.Penalty(f, now); math.Abs(got-want) > 0.01 {
			t.Errorf("fall %d: penalty %.2f, want %.2f", i+1, got, want)
		}
		if f.Until != 0 {
			t.Errorf("fall %d: held until %v while it is down", i+1, f.Until)
		}
		f = c.Rise(f, now, least)
		got := max(0, f.Until-now).Seconds()
		if math.Abs(got-holds[i]) > 0.01*holds[i]+0.01 || f.Damped != (holds[i] > 0) || f.Falls != uint64(i+1) {
			t.Errorf("return %d: held back for %.2f s, want %.1f; %+v", i+1, got, holds[i], f)
		}
	}
	now := time.Hour + 50*time.Second
	if d := c.Rise(f, now, most).Until - now; d.Seconds() < 23.2 || d.Seconds() > 23.3 {
		t.Errorf("with the most of chance held back for %v, want a quarter more", d)
	}
	if got := c.Penalty(f, now+2*c.HalfLife); math.Abs(got-f.penalty/4) > 1e-9 {
		t.Errorf("two half-lives later the penalty is %v, was %v", got, f.penalty)
	}
}

// TestDampingEnds: however long it went on, a return is held back by the maximum and
// a quarter, and four quiet minutes end it.
func TestDampingEnds(t *testing.T) {
	c := DefaultDampConfig()
	var f Flap
	now := time.Hour
	for range 10000 {
		f = c.Fall(f, now)
		now += 100 * time.Millisecond
	}
	f = c.Rise(f, now, most)
	if d := f.Until - now; d < c.Max || d > c.Max*5/4 {
		t.Errorf("held back for %v, want %v and a quarter at most", d, c.Max)
	}
	now += 4 * time.Minute
	if f = c.Rise(f, now, most); f.Until != 0 || f.Damped || f.Falls != 10000 {
		t.Errorf("four minutes later: %+v, penalty %.2f", f, c.Penalty(f, now))
	}
}

// TestDampingOff counts all the same.
func TestDampingOff(t *testing.T) {
	c := DefaultDampConfig()
	c.Base = 0
	var f Flap
	for range 50 {
		f = c.Fall(f, time.Second)
	}
	if p := c.Penalty(f, time.Second); p != 50 {
		t.Errorf("penalty %v", p)
	}
	if f = c.Rise(f, time.Second, most); f.Until != 0 || f.Damped || f.Falls != 50 {
		t.Errorf("%+v", f)
	}
}

// TestDampingBounds: whatever the settings and the history, a hold is in its bounds,
// and one fall more never makes it shorter.
func TestDampingBounds(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := DampConfig{HalfLife: time.Second + time.Duration(r.Int64N(int64(24*time.Hour)))}
		c.Max = 10*time.Millisecond + time.Duration(r.Int64N(int64(time.Hour)))
		c.Base = 10*time.Millisecond + time.Duration(r.Int64N(int64(c.Max)))
		if c.Base > c.Max {
			c.Base = c.Max
		}
		if c.HalfLife > 24*time.Hour || c.Max > time.Hour {
			continue
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		var f Flap
		now := time.Second
		for range 40 {
			now += time.Duration(r.Int64N(int64(c.HalfLife)))
			once := c.Fall(f, now)
			twice := c.Fall(once, now)
			a, b := c.Rise(once, now, least), c.Rise(twice, now, least)
			if b.Until < a.Until {
				t.Fatalf("seed %d: %v after one fall, %v after two", seed, a.Until, b.Until)
			}
			f = c.Rise(once, now, r.Uint32N)
			if d := f.Until - now; f.Damped && (d < c.Base || d > c.Max*5/4+time.Microsecond) || !f.Damped && f.Until != 0 {
				t.Fatalf("seed %d: %+v: held back for %v by %+v", seed, f, d, c)
			}
			if p := c.Penalty(f, now+1000*c.HalfLife); p != 0 && p > 1e-200 {
				t.Fatalf("seed %d: never forgotten: %v", seed, p)
			}
		}
	}
}

func TestDampConfig(t *testing.T) {
	if err := DefaultDampConfig().Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*DampConfig){
		"flap_damping: base is 1ms,":         func(c *DampConfig) { c.Base = time.Millisecond },
		"flap_damping: base is 2m0s,":        func(c *DampConfig) { c.Base = 2 * time.Minute },
		"flap_damping: max is 2h0m0s,":       func(c *DampConfig) { c.Max = 2 * time.Hour },
		"flap_damping: max is 0s,":           func(c *DampConfig) { c.Base, c.Max = 0, 0 },
		"flap_damping: half_life is 1ms,":    func(c *DampConfig) { c.HalfLife = time.Millisecond },
		"flap_damping: half_life is 25h0m0s": func(c *DampConfig) { c.HalfLife = 25 * time.Hour },
	} {
		c := DefaultDampConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
