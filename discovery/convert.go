package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"
)

// oddity is something in the catalog that was left out or changed.
type oddity struct {
	ID      string
	Text    string
	Dropped bool
}

// convert turns an answer of /v1/health/service into a set: valid instances,
// ordered by ID, each ID once. Whatever else the answer holds becomes an oddity.
func convert(q *Query, entries []*api.ServiceEntry) ([]Instance, []oddity) {
	set := make([]Instance, 0, len(entries))
	var odd []oddity
	for _, e := range entries {
		if e == nil || e.Node == nil || e.Service == nil {
			odd = append(odd, oddity{Text: "entry without node or service", Dropped: true})
			continue
		}
		inst, remark := instance(q, e)
		if err := inst.Validate(); err != nil {
			odd = append(odd, oddity{inst.ID, err.Error(), true})
			continue
		}
		if remark != "" {
			odd = append(odd, oddity{inst.ID, remark, false})
		}
		set = append(set, inst)
	}
	slices.SortFunc(set, func(a, b Instance) int {
		// Beyond the ID only so that of doubles always the same one stays.
		return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Address, b.Address),
			a.Port-b.Port, int(a.Health)-int(b.Health), a.Weight-b.Weight)
	})
	for i := 1; i < len(set); i++ {
		if set[i].ID == set[i-1].ID {
			odd = append(odd, oddity{set[i].ID, "registered twice, the other at " + set[i-1].HostPort(), true})
		}
	}
	return slices.CompactFunc(set, func(a, b Instance) bool { return a.ID == b.ID }), odd
}

// instance reads one entry. The result is not valid unless Validate says so.
func instance(q *Query, e *api.ServiceEntry) (Instance, string) {
	h := aggregate(e.Checks)
	weight, remark := effectiveWeight(e.Service.Weights, h)
	zone := ""
	if q.NodeMeta != "" {
		zone = e.Node.Meta[q.NodeMeta]
	}
	return Instance{
		ID:         instanceID(e.Node.Node, e.Service.ID),
		Service:    cmp.Or(e.Service.Service, q.Service),
		Node:       e.Node.Node,
		Datacenter: cmp.Or(e.Node.Datacenter, e.Service.Datacenter),
		Address:    canonical(cmp.Or(e.Service.Address, e.Node.Address)),
		Port:       e.Service.DefaultPort(),
		Weight:     weight,
		Health:     h,
		Tags:       sorted(e.Service.Tags),
		Meta:       e.Service.Meta,
		Zone:       zone,
	}, remark
}

func instanceID(node, serviceID string) string {
	if node == "" || serviceID == "" {
		return ""
	}
	if strings.ContainsAny(node, "/%") {
		node = strings.NewReplacer("%", "%25", "/", "%2F").Replace(node)
	}
	return node + "/" + serviceID
}

func sorted(tags []string) []string {
	if slices.IsSorted(tags) {
		return tags
	}
	tags = slices.Clone(tags)
	slices.Sort(tags)
	return tags
}

// markBackups says which instances of a set that was just made are backups.
func (q *Query) markBackups(set []Instance) {
	for i := range set {
		x := &set[i]
		x.Backup = x.Weight > 0 && x.Weight <= q.BackupWeight ||
			q.BackupTag != "" && slices.ContainsFunc(x.Tags, func(t string) bool { return strings.EqualFold(t, q.BackupTag) })
	}
}

// canonical writes an IP address the one way, so that two spellings are no
// change; anything else stays.
func canonical(address string) string {
	if ip, err := netip.ParseAddr(address); err == nil {
		return ip.Unmap().String()
	}
	return address
}

// Validate reports why an instance cannot be used. The catalog is untrusted:
// what it holds ends in dials, logs and terminals. Tags, Meta and Zone are not
// looked at.
func (i Instance) Validate() error {
	switch {
	case i.ID == "":
		return errors.New("it has no node name or no service ID")
	case !plainText(i.ID, 512) || !plainText(i.Node, 512):
		return errors.New("its ID is longer than 512 bytes or not printable")
	case !plainText(i.Service, 512) || !plainText(i.Datacenter, 512):
		return errors.New("its service or datacenter is longer than 512 bytes or not printable")
	case i.Port == 0:
		return errors.New("it has no port")
	case i.Port < 1 || i.Port > 65535:
		return fmt.Errorf("port %d is not within 1 to 65535", i.Port)
	case i.Weight < 0 || i.Weight > maxWeight:
		return fmt.Errorf("weight %d is not within 0 to %d", i.Weight, maxWeight)
	case i.Health > Maintenance:
		return fmt.Errorf("%s is none that Consul knows", i.Health)
	}
	return checkHost(i.Address)
}

// checkHost accepts a unicast IP address without a zone (which means something
// on one machine only) and a host name.
func checkHost(h string) error {
	ip, err := netip.ParseAddr(h)
	if err != nil {
		if !hostName(h) {
			return fmt.Errorf("address %.80q is neither an IP address nor a host name", h)
		}
		return nil
	}
	ip = ip.Unmap()
	if ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("address %.80q is not one host's", h)
	}
	return nil
}

// hostName follows RFC 1123, section 2.1: dot-separated labels of 1 to 63
// letters, digits and inner hyphens, 253 in all, one dot at the end allowed.
// The last label is not a number, so that no resolver takes it for an address.
func hostName(h string) bool {
	h = strings.TrimSuffix(h, ".")
	if len(h) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, b := range []byte(label) {
			if !isAlnum(b) && b != '-' {
				return false
			}
		}
		last = label
	}
	number := strings.Trim(last, "0123456789") == ""
	hex := len(last) > 1 && (last[:2] == "0x" || last[:2] == "0X") && strings.Trim(last[2:], "0123456789abcdefABCDEF") == ""
	return !number && !hex
}

func isAlnum(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}
