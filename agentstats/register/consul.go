package register

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/agentstats/internal/call"
)

// callLimit bounds one call that does not wait for changes; what the Consul agent
// does for one of ours is local and takes milliseconds.
const callLimit = 10 * time.Second

// ownReason marks a maintenance mode as the registrar's own. Others' is theirs.
const ownReason = "outrigger: draining, the agent stops"

// instance is what the Consul agent knows of one. The zero value is nothing.
type instance struct {
	service  *api.AgentService // nil: not registered
	checked  bool              // our check is there
	status   string            // of our check
	node     string            // the agent's node, where a check told it
	maintOur bool              // in maintenance by us
	maint    string            // in maintenance by somebody else: the reason; "": not
}

// consul talks to one Consul agent about one instance.
type consul struct {
	client *api.Client
	cfg    Config
	id     string
}

func (c *consul) options(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{Namespace: c.cfg.Namespace, Partition: c.cfg.Partition}).WithContext(ctx)
}

// read asks what is registered. With the hash of an answer before it first waits,
// for up to wait, until that changes.
func (c *consul) read(ctx context.Context, hash string, wait time.Duration) (instance, error) {
	limit := callLimit
	if hash != "" {
		limit += wait + wait/16 // which Consul adds by chance
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	q := c.options(ctx)
	q.WaitHash, q.WaitTime = hash, wait
	var have instance
	var err error
	have.service, _, err = c.client.Agent().Service(c.id, q)
	if is(err, http.StatusNotFound) {
		return instance{}, nil
	}
	if err != nil {
		return instance{}, err
	}
	checks, err := c.client.Agent().ChecksWithFilterOpts("ServiceID == "+strconv.Quote(c.id), c.options(ctx))
	if err != nil {
		return instance{}, err
	}
	for id, check := range checks {
		if check == nil {
			continue
		}
		have.node = check.Node
		switch {
		case id == checkID(c.id):
			have.checked, have.status = true, check.Status
		case id != api.ServiceMaintPrefix+c.id:
		case check.Notes == ownReason:
			have.maintOur = true
		default:
			have.maint = call.Clean(check.Notes)
			if have.maint == "" {
				have.maint = "no reason given"
			}
		}
	}
	return have, nil
}

// register writes the registration. Checks of others are kept: Consul's
// replace-existing-checks would also end an operator's maintenance mode.
func (c *consul) register(ctx context.Context, want *api.AgentServiceRegistration) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if err := c.client.Agent().ServiceRegisterOpts(want, api.ServiceRegisterOpts{}.WithContext(ctx)); err != nil {
		return err
	}
	if want.Check != nil {
		return nil
	}
	err := c.client.Agent().CheckDeregisterOpts(checkID(c.id), c.options(ctx))
	if is(err, http.StatusNotFound) {
		return nil
	}
	return err
}

func (c *consul) maintenance(ctx context.Context, on bool) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if on {
		return c.client.Agent().EnableServiceMaintenanceOpts(c.id, ownReason, c.options(ctx))
	}
	return c.client.Agent().DisableServiceMaintenanceOpts(c.id, c.options(ctx))
}

func (c *consul) deregister(ctx context.Context) error {
	err := c.client.Agent().ServiceDeregisterOpts(c.id, c.options(ctx))
	if is(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// announced reports whether the catalog, which sidecars read, has the maintenance
// mode that the Consul agent has. errHidden: the token may not see that, which
// takes node:read beside the service:read that comes with service:write.
func (c *consul) announced(ctx context.Context, node string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	q := c.options(ctx)
	q.Filter = "CheckID == " + strconv.Quote(api.ServiceMaintPrefix+c.id)
	checks, meta, err := c.client.Health().Checks(c.cfg.Service, q)
	if err != nil {
		return false, err
	}
	for _, check := range checks {
		if check != nil && (node == "" || check.Node == node) {
			return true, nil
		}
	}
	if meta.ResultsFilteredByACLs {
		return false, errHidden
	}
	return false, nil
}

var errHidden = errors.New("the token may not read the node")

// is reports whether err is Consul's answer of that status.
func is(err error, status int) bool {
	var s api.StatusError
	return errors.As(err, &s) && s.Code == status
}

// explain makes an error fit for a log line and says what to do about it.
func (c *consul) explain(err error) error {
	text := call.Clean(err.Error())
	if is(err, http.StatusForbidden) || is(err, http.StatusUnauthorized) {
		return fmt.Errorf("refused by Consul: %s (the token needs: service %q { policy = \"write\" })", text, c.cfg.Service)
	}
	if is(err, http.StatusBadRequest) {
		return fmt.Errorf("registration refused by Consul: %s", text)
	}
	return errors.New(text)
}
