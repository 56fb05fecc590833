package register_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/agentstats/register"
	"outrigger/test/harness"
)

func port(n int) string { return strconv.Itoa(n) }

// shutdown runs Shutdown in the background.
func (a *agent) shutdown(ctx context.Context) (ended chan error) {
	ended = make(chan error, 1)
	go func() { ended <- a.Shutdown(ctx) }()
	return ended
}

func stillRuns(t *testing.T, ended chan error) {
	t.Helper()
	select {
	case err := <-ended:
		t.Fatalf("Shutdown ended early: %v", err)
	default:
	}
}

func endsWithin(t *testing.T, ended chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(limit):
		t.Fatal("Shutdown does not end")
		return nil
	}
}

// What is in flight keeps the instance, in maintenance; then it goes.
func TestShutdownWaitsForTheDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a := r.start()
	r.await("the check to pass", passing)
	r.inFlight.Store(2)
	ended := a.shutdown(t.Context())
	r.await("maintenance", inMaintenance)
	time.Sleep(2 * (r.cfg.Drain.Quiet + r.cfg.Drain.Blind)) // in which it must not go
	stillRuns(t, ended)
	if !inMaintenance(r.entry()) {
		t.Error("not in maintenance any more with requests in flight")
	}
	r.inFlight.Store(0)
	if err := endsWithin(t, ended); err != nil {
		t.Error(err)
	}
	r.await("the end of the registration", absent)
	if r.logs.count("nothing was in flight") != 1 {
		t.Error("the log does not say why it is drained")
	}
	if err := a.Shutdown(t.Context()); err != nil {
		t.Errorf("a second Shutdown: %v", err)
	}
}

func TestShutdownWithUnknownInFlight(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.unknown.Store(true)
	a := r.start()
	r.await("the check to pass", passing)
	if err := endsWithin(t, a.shutdown(t.Context())); err != nil {
		t.Error(err)
	}
	r.await("the end of the registration", absent)
	r.awaitLog("what is in flight is not known")
}

func TestShutdownTimeIsUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.cfg.Drain.Timeout = time.Second
	r.inFlight.Store(1)
	a := r.start()
	r.await("the check to pass", passing)
	if err := endsWithin(t, a.shutdown(t.Context())); err != nil {
		t.Error(err)
	}
	r.await("the end of the registration", absent)
	r.awaitLog("drain timeout 1s is over")
}

// The second signal ends the wait, not the deregistration.
func TestShutdownHurries(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.cfg.Drain.Timeout = 10 * time.Minute
	r.inFlight.Store(1)
	a := r.start()
	r.await("the check to pass", passing)
	ctx, hurry := context.WithCancel(t.Context())
	ended := a.shutdown(ctx)
	r.await("maintenance", inMaintenance)
	hurry()
	if err := endsWithin(t, ended); err != nil {
		t.Error(err)
	}
	r.await("the end of the registration", absent)
	r.awaitLog("told to hurry")
}

func TestShutdownWithoutDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.cfg.Drain = register.Drain{}
	r.inFlight.Store(1)
	a := r.start()
	r.await("the check to pass", passing)
	if err := endsWithin(t, a.shutdown(t.Context())); err != nil {
		t.Error(err)
	}
	r.await("the end of the registration", absent)
}

func TestShutdownOfWhatNeverRan(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	reg, err := register.New(r.cfg, register.Env{Client: r.client})
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := reg.Run(t.Context()); err == nil {
		t.Error("Run after Shutdown gave no error")
	}
	if r.entry() != nil {
		t.Error("it is registered")
	}
}

// An agent that died between maintenance and deregistration must not keep its
// successor out of service.
func TestOwnMaintenanceIsEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a := r.start()
	r.await("the check to pass", passing)
	r.inFlight.Store(1)
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	ended := a.shutdown(ctx)
	r.await("maintenance", inMaintenance)
	// As if the first were dead: it stands still, waiting for what is in flight.
	r.start()
	r.await("the next agent to end the maintenance mode", passing)
	r.awaitLog("ended the maintenance mode")
	stillRuns(t, ended)
	kill()
	_ = endsWithin(t, ended)
}

// A Consul that stands still, as in an outage, delays the end by what was allowed
// and no more, and is told of.
func TestShutdownWhileConsulIsDown(t *testing.T) {
	t.Parallel()
	c := ownConsul(t, "", "")
	r := newRig(t, c)
	r.cfg.Drain.Timeout = time.Second
	a := r.start()
	r.await("the check to pass", passing)
	c.Kill()
	err := endsWithin(t, a.shutdown(t.Context()))
	if err == nil || !strings.Contains(err.Error(), "stays registered") {
		t.Errorf("error %v, want that it stays registered", err)
	}
}

func TestShutdownWhileConsulHangs(t *testing.T) {
	t.Parallel()
	if os.Getenv("GOOS") == "windows" {
		t.Skip("no SIGSTOP")
	}
	c := ownConsul(t, "", "")
	r := newRig(t, c)
	r.cfg.Drain.Timeout = time.Second
	a := r.start()
	r.await("the check to pass", passing)
	signalTo(t, c, syscall.SIGSTOP)
	err := endsWithin(t, a.shutdown(t.Context()))
	if err == nil || !strings.Contains(err.Error(), "stays registered") {
		t.Errorf("error %v, want that it stays registered", err)
	}
	signalTo(t, c, syscall.SIGCONT)
}

func signalTo(t *testing.T, c *harness.Consul, s syscall.Signal) {
	t.Helper()
	if err := c.Process().Signal(s); err != nil {
		t.Fatal(err)
	}
}

// An outage that ends in time only delays the drain.
func TestShutdownSeesConsulComeBack(t *testing.T) {
	t.Parallel()
	c := ownConsul(t, "", "")
	r := newRig(t, c)
	r.cfg.Drain.Timeout = time.Minute
	a := r.start()
	r.await("the check to pass", passing)
	signalTo(t, c, syscall.SIGSTOP)
	r.inFlight.Store(1)
	ended := a.shutdown(t.Context())
	r.awaitLog("cannot turn maintenance mode on for now")
	signalTo(t, c, syscall.SIGCONT)
	r.await("maintenance", inMaintenance)
	r.inFlight.Store(0)
	if err := endsWithin(t, ended); err != nil {
		t.Error(err)
	}
	r.await("the end of the registration", absent)
}

const aclConfig = `
acl {
  enabled = true
  default_policy = "deny"
  tokens { initial_management = "11111111-1111-1111-1111-111111111111" agent = "11111111-1111-1111-1111-111111111111" }
}`

const root = "11111111-1111-1111-1111-111111111111"

// token makes a token with the rules.
func token(t *testing.T, c *harness.Consul, rules string) *api.Client {
	t.Helper()
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	policy, _, err := client.ACL().PolicyCreate(&api.ACLPolicy{Name: "test-" + port(int(services.Add(1))), Rules: rules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, _, err := client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	limited, err := api.NewClient(&api.Config{Address: c.Addr(), Scheme: "http", Token: made.SecretID})
	if err != nil {
		t.Fatal(err)
	}
	return limited
}

// service:write of the one service is all that is needed, from start to end.
func TestACLs(t *testing.T) {
	t.Parallel()
	c := ownConsul(t, aclConfig, root)
	r := newRig(t, c)
	operator := r.client
	r.client = token(t, c, `service "other" { policy = "write" }`)
	a := r.start()
	want := `service "` + r.cfg.Service + `" { policy = "write" }`
	eventually(t, "the missing permission in the log", func() bool {
		return strings.Contains(a.Status().LastError, strings.ReplaceAll(want, `\`, "")) && r.logs.count("refused by Consul") > 0
	})
	if err := endsWithin(t, a.shutdown(t.Context())); err != nil {
		t.Error(err) // it never was registered, so nothing is left
	}

	r.client = token(t, c, `service "`+r.cfg.Service+`" { policy = "write" }`)
	b := r.start()
	r.client = operator // which sees all
	r.await("the check to pass", passing)
	r.inFlight.Store(1)
	ended := b.shutdown(t.Context())
	r.await("maintenance", inMaintenance)
	r.inFlight.Store(0)
	if err := endsWithin(t, ended); err != nil {
		t.Error(err)
	}
	r.await("the end of the registration", absent)
}

// What another agent registered is not ours to take away: an agent that never wrote
// leaves it in service.
func TestShutdownLeavesWhatOthersRegistered(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.start()
	r.await("the check to pass", passing)
	idle, err := register.New(r.cfg, register.Env{Client: r.client})
	if err != nil {
		t.Fatal(err)
	}
	if err := idle.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if e := r.entry(); e == nil || !passing(e) {
		t.Errorf("it is not in service any more: %+v", e)
	}
}
