package discovery

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
)

// Self is what Consul's agent says of the node that it runs on, which is this
// machine or pod.
type Self struct {
	Node, Datacenter string
	Meta             map[string]string // the node's
}

// ReadSelf asks the agent once. A token needs agent:read for it.
func ReadSelf(ctx context.Context, client *api.Client) (Self, error) {
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
// found once and returns; or returns when ctx ends. Only the first error is
// logged.
func Locate(ctx context.Context, client *api.Client, c Config, log hclog.Logger, found func(Self)) {
	for n := 0; ; n++ {
		self, err := ReadSelf(ctx, client)
		if err == nil {
			log.Info("this machine's place is known", "node", self.Node, "datacenter", self.Datacenter)
			found(self)
			return
		}
		if ctx.Err() != nil {
			return
		}
		busy := false
		if text := presentable(err, c.Token); n == 0 {
			var status api.StatusError
			hint := "asking again"
			if errors.As(err, &status) {
				busy = status.Code == http.StatusTooManyRequests
				if status.Code == http.StatusForbidden {
					hint = `the token needs agent_prefix "" { policy = "read" }, or say node and zone in locality`
				}
			}
			log.Warn("the Consul agent does not say where this machine is: nothing is preferred as near", "error", text, "hint", hint)
		}
		if sleep(ctx, c.backoff(n, busy, rand.Float64())) != nil {
			return
		}
	}
}
