package discovery

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// A snapshot is a believed set on disk, for a sidecar that starts while its
// registry is down. statefile says what stands around it; this is the content.
type snapshot struct {
	Service string `json:"service"`
	// Query is the sum of all that selects the instances: a snapshot of another
	// question is no answer to this one.
	Query     string          `json:"query"`
	Written   time.Time       `json:"written"`
	Confirmed time.Time       `json:"confirmed"` // when the set was last believed
	Index     uint64          `json:"index"`
	Instances []savedInstance `json:"instances"` // by ID
}

// savedInstance is an Instance as it is written: all of it but what is not of the
// registry, Unlisted and Tier.
type savedInstance struct {
	ID         string            `json:"id"`
	Service    string            `json:"service,omitempty"`
	Node       string            `json:"node,omitempty"`
	Datacenter string            `json:"datacenter,omitempty"`
	Address    string            `json:"address"`
	Port       int               `json:"port"`
	Weight     int               `json:"weight"`
	Health     Health            `json:"health"`
	Tags       []string          `json:"tags,omitempty"`
	Meta       map[string]string `json:"meta,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	Backup     bool              `json:"backup,omitempty"`
}

// maxSnapshot bounds a snapshot, in bytes: some 50,000 instances.
const maxSnapshot = 16 << 20

var errOtherQuery = errors.New("it is of another service, query or Consul")

func encodeSnapshot(s snapshot, set []Instance) ([]byte, error) {
	s.Instances = make([]savedInstance, 0, len(set))
	for _, i := range set {
		s.Instances = append(s.Instances, savedInstance{
			ID: i.ID, Service: i.Service, Node: i.Node, Datacenter: i.Datacenter, Address: i.Address, Port: i.Port,
			Weight: i.Weight, Health: i.Health, Tags: i.Tags, Meta: i.Meta, Zone: i.Zone, Backup: i.Backup,
		})
	}
	payload, err := json.Marshal(s)
	if err == nil && len(payload) > maxSnapshot {
		err = fmt.Errorf("the service has %d bytes, allowed are %d", len(payload), maxSnapshot)
	}
	return payload, err
}

// decodeSnapshot reads a snapshot. The sum around it says that it is as it was
// written, not that what wrote it was right: every instance is checked again.
func decodeSnapshot(payload []byte, query string) (s snapshot, set []Instance, err error) {
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return snapshot{}, nil, fmt.Errorf("its content is no snapshot: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return snapshot{}, nil, errors.New("its content is no snapshot: something follows it")
	}
	if s.Query != query {
		return snapshot{}, nil, errOtherQuery
	}
	set = make([]Instance, 0, len(s.Instances))
	for _, i := range s.Instances {
		set = append(set, Instance{
			ID: i.ID, Service: i.Service, Node: i.Node, Datacenter: i.Datacenter, Address: i.Address, Port: i.Port,
			Weight: i.Weight, Health: i.Health, Tags: i.Tags, Meta: i.Meta, Zone: i.Zone, Backup: i.Backup,
		})
		if err := set[len(set)-1].Validate(); err != nil {
			return snapshot{}, nil, fmt.Errorf("its instance %.80q: %w", i.ID, err)
		}
	}
	if !slices.IsSortedFunc(set, func(a, b Instance) int { return cmp.Or(strings.Compare(a.ID, b.ID), -1) }) {
		return snapshot{}, nil, errors.New("its instances are not in order")
	}
	return s, set, nil
}

// fingerprint is the sum of what selects a source's instances and says what they
// are, and of whom it asks.
func fingerprint(kind string, cfg Config, parts any) string {
	address := cfg.Address
	if address == "" {
		address = os.Getenv(api.HTTPAddrEnvName)
	}
	// The client falls back to these as well.
	namespace := cmp.Or(cfg.Namespace, os.Getenv(api.HTTPNamespaceEnvName))
	partition := cmp.Or(cfg.Partition, os.Getenv(api.HTTPPartitionEnvName))
	return sumOf(kind, address, cfg.Datacenter, namespace, partition, parts)
}

func sumOf(parts ...any) string {
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err) // texts and numbers
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

// fingerprint leaves out Near: the order of a set is not what it is.
func (q Query) fingerprint(cfg Config) string {
	q.Tags, q.Near = sorted(q.Tags), ""
	return fingerprint("consul", cfg, q)
}
