package discovery

import (
	"encoding/json"
	"testing"
)

func TestHostPort(t *testing.T) {
	for want, i := range map[string]Instance{
		"10.0.0.1:80":      {Address: "10.0.0.1", Port: 80},
		"[fd00::1]:443":    {Address: "fd00::1", Port: 443},
		"web.example:8080": {Address: "web.example", Port: 8080},
	} {
		if got := i.HostPort(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestHealthText(t *testing.T) {
	for h := Passing; h <= Maintenance; h++ {
		text, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var back Health
		if err := json.Unmarshal(text, &back); err != nil || back != h {
			t.Errorf("%s came back as %s, %v", text, back, err)
		}
	}
	var h Health
	if err := h.UnmarshalText([]byte("fine")); err == nil {
		t.Error("took \"fine\"")
	}
	if s := Health(9).String(); s != "health(9)" {
		t.Error(s)
	}
}
