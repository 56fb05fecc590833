package discovery

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatchLogsOddRegistrationsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := strings.Replace(entries("a", "b"), "10.0.0.1", "not an address", 1)
		b := watch(t, script(
			answer{index: 10, body: bad},
			answer{index: 11, body: bad, after: time.Minute},
			answer{index: 12, body: bad, after: time.Minute},
		))
		b.after(10 * time.Minute)
		b.wantSets("b")
		if n := b.logged("left out"); n != 1 {
			t.Errorf("%d lines:\n%s", n, b.log())
		}
		if s := b.src.Status(); s.Unusable != 1 || s.Instances != 1 {
			t.Errorf("status %+v", s)
		}
		b.stop()
	})
}

func TestWatchBoundsLinesOnOddRegistrations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		for i := range 500 {
			ids = append(ids, fmt.Sprintf("i%d", i))
		}
		b := watch(t, script(answer{index: 10, body: strings.ReplaceAll(entries(ids...), "8000", "0")}))
		b.after(time.Second)
		if n := strings.Count(b.log(), "\n"); n > maxLines+2 {
			t.Errorf("%d lines:\n%s", n, b.log())
		}
		if b.logged("count=490") != 1 || b.src.Status().Unusable != 500 {
			t.Errorf("status %+v, log:\n%s", b.src.Status(), b.log())
		}
		b.stop()
	})
}

func TestTokenIsNeitherLoggedNorShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const token = "b1gs33d-e5a1-4b77-a2b0-6d6d6d6d6d6d"
		b := watch(t, func(int, asked) answer {
			return answer{code: 403, body: "token " + token + "\x1b[31m does not exist\nreally " + strings.Repeat("x", 1000)}
		}, func(_ *Query, c *Config) { c.Token = token })
		b.after(time.Minute)
		s := b.src.Status()
		if !strings.Contains(s.LastError, redacted) || strings.ContainsAny(s.LastError, "\n\x1b") || len(s.LastError) > 410 {
			t.Errorf("last error %q", s.LastError)
		}
		if all := fmt.Sprintf("%+v %s", s, b.log()); strings.Contains(all, token) {
			t.Errorf("token shows in %s", all)
		}
		b.stop()
	})
}
