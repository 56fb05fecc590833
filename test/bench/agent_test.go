package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestAgentAnswers(t *testing.T) {
	const line = `outrigger_endpoint_agent_polls_total{endpoint="a",service="s"} `
	two := "# HELP outrigger_endpoint_agent_polls_total Polls.\n" + line + "8\n" + strings.Replace(line, "a\"", "b\"", 1) + "3\nother{x=\"y\"} 99\n"
	if n, err := agentAnswers(two, 2); err != nil || n != 11 {
		t.Errorf("%v, %v", n, err)
	}
	for _, bad := range []string{"", line + "8\n", strings.Replace(two, " 3\n", " 0\n", 1), strings.Replace(two, " 3\n", " x\n", 1)} {
		if n, err := agentAnswers(bad, 2); err == nil {
			t.Errorf("%q: %v", bad, n)
		}
	}
}

func TestPerSecond(t *testing.T) {
	f := figures{keyShare: 1.5}
	if perSecond(f, 100, 0.5); f[keyRate] != 100 || f[keyPerPoll] != 100 {
		t.Errorf("%v", f)
	}
}

func TestConversations(t *testing.T) {
	status := http.StatusOK
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "figures")
	}))
	defer front.Close()
	talk := func(until func(*conversations) bool) *conversations {
		c, err := dialAll(t.Context(), front.Listener.Addr().String(), 5)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		go func() {
			for !until(c) && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		c.run(ctx, 500, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		return c
	}
	if c := talk(func(c *conversations) bool { return c.answered.Load() >= 50 }); c.answered.Load() < 50 || c.failure() != nil {
		t.Errorf("%d answers, %v", c.answered.Load(), c.failure())
	}
	status = http.StatusServiceUnavailable
	if c := talk(func(c *conversations) bool { return c.failure() != nil }); c.failure() == nil || c.answered.Load() > 0 {
		t.Errorf("%d answers, %v", c.answered.Load(), c.failure())
	}
}
