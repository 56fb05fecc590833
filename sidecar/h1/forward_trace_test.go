package h1

import (
	"math/rand/v2"
	"strings"
	"testing"
)

const (
	goodTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" // of the specification
	ourTrace  = "00-12ab12ab12ab12ab12ab12ab12ab12ab-12ab12ab12ab12ab-01" // of forwarderOf's chance
)

// The sections are of Trace Context, level 1.
func TestTraceparent(t *testing.T) {
	for _, r := range []struct {
		sec, in string
		ok      bool
	}{
		{"3.2", goodTrace, true},
		{"3.2", "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00", true},
		{"3.2.2.5", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff", true}, // flags that are not known are kept
		{"3.2.2", "", false},
		{"3.2.2", goodTrace[:54], false},
		{"3.2.2", goodTrace + "0", false},
		{"3.2.2", goodTrace + "-00", false},
		{"3.2.2", "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
		{"3.2.2", "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01", false},
		{"3.2.2", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01", false},
		{"3.2.2", strings.ToUpper(goodTrace), false},
		{"3.2.2.1", "0x" + goodTrace[2:], false},
		{"3.2.2.1", "ff" + goodTrace[2:], false},
		{"3.2.2.3", "00-00000000000000000000000000000000-b7ad6b7169203331-01", false},
		{"3.2.2.3", "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01", false},
		{"3.2.2.3", "00-0Af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
		{"3.2.2.4", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false},
		{"3.2.2.4", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-001", false},
		{"3.2.2.5", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x", false},
		{"4.3", "01" + goodTrace[2:], true}, // of higher versions what is known of is looked at
		{"4.3", "fe" + goodTrace[2:], true},
		{"4.3", "cc" + goodTrace[2:] + "-what-the-future-will-be-like", true},
		{"4.3", "cc" + goodTrace[2:] + "-", true},
		{"4.3", "cc" + goodTrace[2:] + ".what", false},
		{"4.3", "cc" + goodTrace[2:54], false},
		{"4.3", "cc-00000000000000000000000000000000-b7ad6b7169203331-01", false},
	} {
		if got := traceparentOK([]byte(r.in)); got != r.ok {
			t.Errorf("section %s %q: %v", r.sec, r.in, got)
		}
	}
}

func TestTraceIsCreated(t *testing.T) {
	create := func(c *ForwardConfig) { c.Traceparent = "create" }
	const state = "tracestate: congo=t61rcWkgMzE"
	good, ours := "traceparent: "+goodTrace, "traceparent: "+ourTrace
	for _, r := range []struct {
		name     string
		set      func(*ForwardConfig)
		in, want []string
	}{
		{"pass", func(*ForwardConfig) {}, nil, nil},
		{"pass", func(*ForwardConfig) {}, []string{"traceparent: x", state}, []string{"traceparent: x", state}},
		{"none", create, nil, []string{ours}},
		{"valid", create, []string{"TraceParent: " + goodTrace, state}, []string{"TraceParent: " + goodTrace, state}},
		{"invalid", create, []string{"traceparent: x", state, "Tracestate: b=1"}, []string{ours}},
		{"state alone", create, []string{state}, []string{ours}},
		{"two", create, []string{good, good, state}, []string{ours}},
		{"two in one", create, []string{good + "," + goodTrace}, []string{ours}},
		{"named in Connection", create, []string{"Connection: traceparent", good, state}, []string{ours}},
		{"not sampled", func(c *ForwardConfig) { create(c); c.Sampled = 0 }, nil, []string{ours[:len(ours)-1] + "0"}},
	} {
		var got []string
		for _, l := range strings.Split(sent(t, forwarderOf(r.set), get(r.in...), app()), "\r\n") {
			if strings.HasPrefix(strings.ToLower(l), "trace") {
				got = append(got, l)
			}
		}
		if strings.Join(got, "|") != strings.Join(r.want, "|") {
			t.Errorf("%s %q: %q, want %q", r.name, r.in, got, r.want)
		}
	}
}

// What we create is valid, whatever chance gives, and sampled as often as it
// should be.
func TestCreatedTraces(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	seen := map[string]bool{}
	sampled := 0
	const n = 4000
	f := forwarderOf(func(c *ForwardConfig) { c.Traceparent, c.Sampled = "create", 0.25 })
	for _, draw := range []func(uint32) uint32{func(uint32) uint32 { return 0 }, func(n uint32) uint32 { return n - 1 }, chance.Uint32N} {
		f.rand = draw
		for range n {
			line := string(f.appendTrace(nil))
			v := strings.TrimSuffix(strings.TrimPrefix(line, "traceparent: "), "\r\n")
			if len(v) != traceLen || !traceparentOK([]byte(v)) {
				t.Fatalf("%q", line)
			}
			seen[v[:traceFlag]] = true
			if v[traceLen-1] == '1' {
				sampled++
			}
		}
	}
	sampled -= n // all of those of the lowest draw
	if len(seen) != n+2 || sampled < n/5 || sampled > n*3/10 {
		t.Errorf("%d traces are different, %d of %d sampled", len(seen), sampled, n)
	}
}
