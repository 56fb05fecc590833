package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
)

// Self is what Consul's agent says of the node that it runs on, which is this
// machine or pod.
type Self struct {
	Node, Datacenter string
	Meta             map[string]string // the node's
}

// readSelf asks the agent once. A token needs agent:read for it.
func readSelf(ctx context.Context, client *api.Client) (Self, error) {
	var answer struct {
		Config struct{ NodeName, Datacenter string }
		Meta   map[string]string
	}
	ctx, cancel := context.WithTimeout(ctx, readMargin)
	defer cancel()
	if _, err := client.Raw().Query("/v1/agent/self", &answer, (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		return Self{}, err
	}
	c := answer.Config
	if c.NodeName == "" || !plainText(c.NodeName, 512) || !plainText(c.Datacenter, 512) {
		return Self{}, errors.New("the answer to /v1/agent/self names no node")
	}
	return Self{c.NodeName, c.Datacenter, answer.Meta}, nil
}

// Locate asks the agent until it answers, at the pace of c's back-off, calls
// found once and returns; or returns when ctx ends. An error is logged when it is
// of another kind than the one before.
func Locate(ctx context.Context, client *api.Client, c Config, log hclog.Logger, found func(Self)) {
	told := ""
	for n := 0; ; n++ {
		self, err := readSelf(ctx, client)
		if err == nil {
			log.Info("this machine's place is known", "node", self.Node, "datacenter", self.Datacenter)
			found(self)
			return
		}
		if ctx.Err() != nil {
			return
		}
		var status api.StatusError
		_ = errors.As(err, &status) // else its code is 0
		hint := "asking again"
		if status.Code == http.StatusForbidden {
			hint = `the token needs agent_prefix "" { policy = "read" }, or say node and zone in locality`
		}
		text := presentable(err, c.Token)
		level, kind := hclog.Debug, fmt.Sprint(status.Code, strings.Map(notDigit, text)) // a port of ours makes no other kind
		if kind != told {
			level, told = hclog.Warn, kind
		}
		log.Log(level, "the Consul agent does not say where this machine is: nothing is preferred as near", "error", text, "hint", hint)
		if sleep(ctx, c.backoff(n, status.Code == http.StatusTooManyRequests, rand.Float64())) != nil {
			return
		}
	}
}

func notDigit(r rune) rune {
	if r >= '0' && r <= '9' {
		return -1
	}
	return r
}
