package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"outrigger/test/harness"
)

// What happens to ACL tokens, and what makes instances go for good, under load of
// which nothing may fail.
func TestConsulTokensAndDeploys(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "127.0.0.21", harness.ClusterOptions{ACL: true})
	runOn(t, c, []scenario{
		{"TokenLosesItsRights", tokenLosesItsRights},
		{"TokenDeleted", tokenDeleted},
		{"TokenMissing", tokenMissing},
		{"Deregistered", deregistered},
		{"DeregisteredAndAlive", deregisteredAndAlive},
		{"RollingDeploy", rollingDeploy},
		{"BlueGreen", blueGreen},
		{"RestartWithoutConsul", restartWithoutConsul},
	})
}

// mayRead is a policy that finds services.
const mayRead = `
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }`

// newToken makes a token with a policy of its own.
func newToken(t *testing.T, c *harness.Cluster, name string) (*api.ACLToken, *api.ACLPolicy) {
	t.Helper()
	acl := agentCatalog(t, c).client.ACL()
	policy, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: name, Rules: mayRead}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token, policy
}

// tokenFile is a file that holds a token.
func tokenFile(t *testing.T, secret string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "token")
	writeToken(t, path, secret)
	return path
}

func writeToken(t *testing.T, path, secret string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// A token without rights is answered with fewer instances, not with an error.
func tokenLosesItsRights(t *testing.T, c *harness.Cluster) {
	token, policy := newToken(t, c, "fades")
	r := newRig(t, c, rigSpec{posts: true, wait: "2s", inConsul: fmt.Sprintf("token = %q", token.SecretID)})
	for _, rules := range []string{`key_prefix "" { policy = "read" }`, mayRead} {
		policy.Rules = rules
		if _, _, err := r.cat.client.ACL().PolicyUpdate(policy, nil); err != nil {
			t.Fatal(err)
		}
		if rules != mayRead {
			r.awaitState("kept", "filtered", 5)
			r.progress()
		}
	}
	r.finish("kept", "doubted", "failing")
}

// A deleted token is an error until the file holds another. An emptied file
// changes nothing: the last token goes on.
func tokenDeleted(t *testing.T, c *harness.Cluster) {
	first, _ := newToken(t, c, "first")
	second, _ := newToken(t, c, "second")
	file := tokenFile(t, first.SecretID)
	r := newRig(t, c, rigSpec{posts: true, wait: "2s", inConsul: fmt.Sprintf("token_file = %q", file)})
	if _, err := r.cat.client.ACL().TokenDelete(first.AccessorID, nil); err != nil {
		t.Fatal(err)
	}
	d := r.awaitState("failing", "", 5)
	if want := "ACL not found"; !strings.Contains(d.Discovery.LastError, want) {
		t.Errorf("the error is %q, want %q in it", d.Discovery.LastError, want)
	}
	r.progress()
	writeToken(t, file, second.SecretID)
	r.awaitState("current", "", 5)

	writeToken(t, file, "")
	fresh := startBackend(t, "new") // makes it read, with the token of before
	r.add(fresh)
	r.load.awaitFrom(fresh, 20)
	r.s.says("no Consul token from its file")
	r.cat.deregister(r.name + "-new")
	r.awaitState("current", "", 5)
	r.finish("failing", "doubted")
}

// A sidecar without a token lives on its agent's. Where that is lost the answer is
// an empty one that says nothing of being filtered, and a consistent read repeats
// it: only the backends themselves tell that it is wrong.
func tokenMissing(t *testing.T, c *harness.Cluster) {
	token, _ := newToken(t, c, "agents")
	set := func(r *rig, secret string) {
		t.Helper()
		if _, err := r.cat.client.Agent().UpdateDefaultACLToken(secret, nil); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t, c, rigSpec{posts: true, wait: "2s", noToken: true, ready: func(r *rig) { set(r, token.SecretID) }})
	set(r, "")
	if d := r.awaitState("kept", "empty_alive", 5); d.Discovery.Unlisted != 5 {
		t.Errorf("%d unlisted, want 5", d.Discovery.Unlisted)
	}
	r.progress()
	r.s.says("token")
	set(r, token.SecretID)
	r.finish("kept", "doubted")
	set(r, "")
}
