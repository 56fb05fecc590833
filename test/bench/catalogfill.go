package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	randv2 "math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

func catalogName(i int) string { return fmt.Sprintf("catalog-%03d", i) }
func sampleName(i int) string  { return "sample-" + strconv.Itoa(i) }

// filledCatalog is a catalog of services on nodes that no agent looks after, so
// that anti-entropy leaves them alone.
type filledCatalog struct {
	client   *api.Client
	services int
	rand     *randv2.Rand
	gone     int // the instance that is deregistered now; -1: none
	changes  int
}

func newFilledCatalog(client *api.Client, services int) *filledCatalog {
	return &filledCatalog{client: client, services: services, rand: randv2.New(randv2.NewPCG(1, 2)), gone: -1}
}

// of returns the parts of an instance's registration.
func (c *filledCatalog) of(i int) (node string, service api.AgentService, check api.HealthCheck) {
	node = "node-" + strconv.Itoa(i%catalogNodes)
	name := catalogName(i / catalogInstances)
	service = api.AgentService{
		ID: fmt.Sprintf("%s-%d", name, i%catalogInstances), Service: name, Tags: []string{"v1", "http"}, Port: 9,
		Address: fmt.Sprintf("127.1.%d.%d", i>>8, i&0xff), Weights: api.AgentWeights{Passing: 10, Warning: 1},
	}
	if i%2 == 0 {
		service.Meta = map[string]string{"version": "1.2.3", "commit": "0123456789abcdef", "team": "a"}
	}
	check = api.HealthCheck{
		Node: node, CheckID: "service:" + service.ID, Name: "Service '" + name + "' check", Status: api.HealthPassing,
		Output: "HTTP GET http://" + service.Address + ":9/health: 200 OK Output: ok", ServiceID: service.ID,
	}
	return node, service, check
}

func set(node string, service api.AgentService, check api.HealthCheck) api.TxnOps {
	return api.TxnOps{
		{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: node, Service: service}},
		{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: check}},
	}
}

// write makes changes, by as many transactions as Consul wants for them.
func (c *filledCatalog) write(ctx context.Context, ops api.TxnOps) error {
	const most = 128
	for part := range slices.Chunk(ops, most) {
		err := stubbornly(ctx, func() error {
			ok, resp, _, err := c.client.Txn().Txn(part, (&api.QueryOptions{}).WithContext(ctx))
			if err == nil && !ok {
				err = errors.New(resp.Errors[0].What)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("write to Consul's catalog: %w", err)
		}
	}
	return nil
}

// stubbornly writes to Consul until that succeeds, for 30 s: on a machine with
// more to do its servers elect a new leader now and then.
func stubbornly(ctx context.Context, write func() error) error {
	for start := time.Now(); ; {
		err := write()
		if err == nil || time.Since(start) > 30*time.Second {
			return err
		}
		if ended := pause(ctx, 200*time.Millisecond); ended != nil {
			return err
		}
	}
}

func (c *filledCatalog) fill(ctx context.Context) error {
	var ops api.TxnOps
	for i := range catalogNodes {
		ops = append(ops, &api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{
			Node: "node-" + strconv.Itoa(i), Address: "127.1.255.1", Meta: map[string]string{"zone": string(rune('a' + i%3))}}}})
	}
	for i := range c.services * catalogInstances {
		ops = append(ops, set(c.of(i))...)
	}
	return c.write(ctx, ops)
}

// churn changes instances at a rate until ctx ends.
func (c *filledCatalog) churn(ctx context.Context, rate int) error {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := c.write(ctx, c.change(n)); err != nil && ctx.Err() == nil {
			return err
		}
		c.changes++
	}
}

// change is the n-th change: of ten one takes an instance away or brings it back,
// three flip a check and six set another weight.
func (c *filledCatalog) change(n int) api.TxnOps {
	i := c.rand.IntN(c.services * catalogInstances)
	if n%10 == 0 && c.gone >= 0 {
		i, c.gone = c.gone, -1
		return set(c.of(i))
	}
	if i == c.gone {
		i = (i + 1) % (c.services * catalogInstances)
	}
	node, service, check := c.of(i)
	switch {
	case n%10 == 0:
		c.gone = i
		return api.TxnOps{{Service: &api.ServiceTxnOp{Verb: api.ServiceDelete, Node: node, Service: service}}}
	case n%10 < 4:
		if c.rand.IntN(4) == 0 { // most are healthy at any time
			check.Status = api.HealthCritical
		}
		return api.TxnOps{{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: check}}}
	}
	service.Weights.Passing = 1 + c.rand.IntN(20)
	return api.TxnOps{{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: node, Service: service}}}
}

// samples are services with one instance, which moves between two backends.
type samples struct {
	client  *api.Client
	servers [2]*http.Server
	ports   [2]int
	at      [catalogSamples]int
}

func startSamples(ctx context.Context, client *api.Client) (*samples, error) {
	s := &samples{client: client}
	for i := range s.servers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			s.close()
			return nil, err
		}
		s.ports[i] = l.Addr().(*net.TCPAddr).Port
		s.servers[i] = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strconv.Itoa(i)) })}
		go func() { _ = s.servers[i].Serve(l) }() // until close
	}
	for i := range catalogSamples {
		if err := s.move(ctx, i); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *samples) close() {
	for _, server := range s.servers {
		if server != nil {
			_ = server.Close()
		}
	}
}

// move gives a sample's instance the other backend's address.
func (s *samples) move(ctx context.Context, i int) error {
	s.at[i] = 1 - s.at[i]
	err := stubbornly(ctx, func() error {
		_, err := s.client.Catalog().Register(&api.CatalogRegistration{
			Node: "node-0", Address: "127.1.255.1", SkipNodeUpdate: true,
			Service: &api.AgentService{ID: sampleName(i), Service: sampleName(i), Address: "127.0.0.1", Port: s.ports[s.at[i]]},
		}, nil)
		return err
	})
	if err != nil {
		err = fmt.Errorf("move an instance in Consul: %w", err)
	}
	return err
}

// lags moves one sample after the other until ctx ends, and returns how long it
// took from the write's answer until a request came to the new address, in ms and
// sorted. Each is measured by itself: what is asked often does not slow others down.
func (s *samples) lags(ctx context.Context, addrs []string) ([]float64, error) {
	var mu sync.Mutex
	var all []float64
	var errs []error
	var out sync.WaitGroup
	for i, addr := range addrs {
		out.Go(func() {
			// Apart, so that changes fall at all times of a round.
			for _ = pause(ctx, time.Duration(i)*time.Second/catalogSamples); ctx.Err() == nil; _ = pause(ctx, 2*time.Second) {
				lag, err := s.lag(ctx, i, addr)
				mu.Lock()
				if err != nil && ctx.Err() == nil {
					errs = append(errs, fmt.Errorf("%s: %w", sampleName(i), err))
				} else if err == nil {
					all = append(all, lag.Seconds()*1e3)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	out.Wait()
	if len(all) == 0 {
		errs = append(errs, errors.New("no change was seen"))
	}
	slices.Sort(all)
	return all, errors.Join(errs...)
}

func (s *samples) lag(ctx context.Context, i int, addr string) (time.Duration, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	if err := s.move(ctx, i); err != nil {
		return 0, err
	}
	moved := time.Now()
	for {
		body, err := getWith(ctx, client, "http://"+addr+"/")
		took := time.Since(moved)
		switch {
		case err != nil:
			return 0, err
		case body == strconv.Itoa(s.at[i]):
			return took, nil
		case took > time.Minute:
			return 0, errors.New("the change does not show within a minute")
		}
		// Exact to some ms soon after the change and to 4 % later: asking costs the
		// sidecar too.
		if err := pause(ctx, max(3*time.Millisecond, took/25)); err != nil {
			return 0, err
		}
	}
}

// writeCertificate makes a certificate for an address that is its own authority.
func writeCertificate(certFile, keyFile, ip string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IPAddresses: []net.IP{net.ParseIP(ip)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return err
	}
	priv, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: priv}), 0o600))
}
