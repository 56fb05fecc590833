package main

import (
	"crypto/tls"
	"path/filepath"
	"testing"

	"github.com/hashicorp/consul/api"
)

func TestSumOf(t *testing.T) {
	const text = "# HELP a_total x\na_total{s=\"1\"} 2\na_total{s=\"2\"} 3.5\na_total_more 7\nb 1e3\nb{x=\"a b\"} NaNs\n"
	for name, want := range map[string]float64{"a_total": 5.5, "b": 1000, "c": 0} {
		if got := sumOf(text, name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// The churn keeps the catalog as it is: at most one instance is missing, none is
// registered twice or under another node, and all kinds of change occur.
func TestChurnKeepsTheCatalog(t *testing.T) {
	c := newFilledCatalog(nil, 20)
	there := map[string]string{}
	for i := range c.services * catalogInstances {
		node, service, _ := c.of(i)
		there[service.ID] = node
	}
	if len(there) != c.services*catalogInstances {
		t.Fatalf("%d IDs", len(there))
	}
	kinds := map[string]int{}
	for n := range 5000 {
		for _, op := range c.change(n) {
			switch {
			case op.Check != nil:
				kinds["check "+op.Check.Check.Status]++
				if there[op.Check.Check.ServiceID] != op.Check.Check.Node {
					t.Fatalf("change %d: a check of %q on %q, which is not there", n, op.Check.Check.ServiceID, op.Check.Check.Node)
				}
			case op.Service.Verb == api.ServiceDelete:
				kinds["delete"]++
				delete(there, op.Service.Service.ID)
			default:
				kinds["set"]++
				if w := op.Service.Service.Weights.Passing; w < 1 || w > 20 {
					t.Fatalf("change %d: weight %d", n, w)
				}
				there[op.Service.Service.ID] = op.Service.Node
			}
		}
		if gone := c.services*catalogInstances - len(there); gone < 0 || gone > 1 {
			t.Fatalf("change %d: %d instances are missing", n, gone)
		}
	}
	for _, kind := range []string{"check passing", "check critical", "delete", "set"} {
		if kinds[kind] < 200 {
			t.Errorf("%s: %d of 5000", kind, kinds[kind])
		}
	}
}

func TestCertificate(t *testing.T) {
	cert, key := filepath.Join(t.TempDir(), "c.pem"), filepath.Join(t.TempDir(), "k.pem")
	if err := writeCertificate(cert, key, "127.0.0.15"); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Leaf.VerifyHostname("127.0.0.15"); err != nil {
		t.Error(err)
	}
}

// The cases with a Consul of their own need neither peers nor the common Consul.
func TestOwnConsulNeedsNoPeers(t *testing.T) {
	for cases, want := range map[string]bool{"discovery,catalog": false, "catalog,agent": true} {
		b := &bench{}
		var err error
		if b.opt.cases, err = chooseCases(cases); err != nil {
			t.Fatal(err)
		}
		if b.shared() != want || (len(b.needed()) > 0) != want {
			t.Errorf("%s: shared %t, needs %q", cases, b.shared(), b.needed())
		}
	}
}
