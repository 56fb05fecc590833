package config

import (
	"reflect"
	"testing"

	"outrigger/sidecar"
)

// TestEveryFieldHasASetting finds fields of the Configs that the tables lack.
func TestEveryFieldHasASetting(t *testing.T) {
	base, service, agent := sidecar.DefaultConfig(), newService("x"), defaultAgent()
	for _, c := range []struct {
		cfg    any
		table  *block
		except []string // set by other means
	}{
		{&base, baseTable(&base), []string{".Services"}},
		{service, serviceTable(service), []string{".Name", ".Balance.Service", ".Balance.Pins", ".HTTP.FailureStatuses", ".HTTP.Hash.On", ".HTTP.Hash.Name", ".Discover.NodeMeta",
			".Source.Fallbacks"}},
		{agent, agentTable(agent), []string{".Consul.Datacenter", ".Consul.Wait", ".Consul.Stale", ".Consul.MaxStale", ".Consul.RateBurst", ".Consul.RateInterval",
			".Consul.BackoffMin", ".Consul.BackoffMax", ".Consul.EmptyConfirm", ".Consul.MaxAnswer",
			".Consul.Shrink", ".Consul.ShrinkConfirm", ".Consul.EmptyHold", ".Consul.ProbeTimeout", ".Consul.Cached", ".Consul.MaxConnections", ".Consul.Spread",
			".Consul.Namespace", ".Consul.Partition", ".Consul.SnapshotInterval", ".Consul.SnapshotMaxAge"}}, // of watching
	} {
		reached := map[uintptr]string{}
		for _, s := range allSettings(c.table) {
			for _, p := range pointers(s.dest) {
				if other, ok := reached[p]; ok {
					t.Errorf("%s and %s set the same field", other, s.name)
				}
				reached[p] = s.name
			}
		}
		fields := 0
		walkFields(reflect.ValueOf(c.cfg).Elem(), "", func(path string, p uintptr) {
			fields++
			if _, ok := reached[p]; !ok && !contains(c.except, path) {
				t.Errorf("%T%s can't be set", c.cfg, path)
			}
		})
		if want := len(reached) + len(c.except); fields != want {
			t.Errorf("%T has %d fields, the table and the exceptions %d", c.cfg, fields, want)
		}
	}
}

func allSettings(b *block) []setting {
	list := append([]setting(nil), b.settings...)
	if b.label != nil {
		list = append(list, setting{name: b.name, dest: b.label})
	}
	for _, v := range b.variants {
		list = append(list, v...)
	}
	for _, c := range b.blocks {
		list = append(list, allSettings(c)...)
	}
	return list
}

func pointers(d dest) []uintptr {
	v := reflect.ValueOf(d).Elem()
	if p := v.FieldByName("p"); p.IsValid() {
		return []uintptr{p.Pointer()}
	}
	var list []uintptr
	for on, i := v.FieldByName("on"), 0; i < on.Len(); i++ {
		list = append(list, on.Index(i).Pointer())
	}
	return list
}

func walkFields(v reflect.Value, path string, leaf func(string, uintptr)) {
	if v.Kind() != reflect.Struct {
		leaf(path, v.Addr().Pointer())
		return
	}
	for i := range v.NumField() {
		walkFields(v.Field(i), path+"."+v.Type().Field(i).Name, leaf)
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
