package picker

import (
	"cmp"
	"math/bits"
	"slices"
)

// Digest is a 64-bit hash under way: FNV-1a over the bytes, splitmix64's
// finalizer at the end, for FNV alone hardly mixes the last bytes into the high
// bits. It is the same in every process and version, so that sidecars agree. It
// is no secret: who chooses the bytes can choose the hash.
type Digest uint64

// NewDigest returns the digest of nothing.
func NewDigest() Digest { return 0xcbf29ce484222325 }

// Byte adds one byte.
func (d Digest) Byte(c byte) Digest { return (d ^ Digest(c)) * 0x100000001b3 }

// Bytes adds bytes.
func (d Digest) Bytes(b []byte) Digest {
	for _, c := range b {
		d = d.Byte(c)
	}
	return d
}

// Sum returns the hash, which is never 0: that is the key of requests without
// one (Request.Key).
func (d Digest) Sum() uint64 { return max(1, mix(uint64(d))) }

// Hash is the hash of a text, an instance's ID say.
func Hash(s string) uint64 {
	d := NewDigest()
	for i := range len(s) {
		d = d.Byte(s[i])
	}
	return d.Sum()
}

// mix is the finalizer of splitmix64: Stafford's variant 13 of MurmurHash3's, a
// bijection in which every bit of the input moves every bit of the output.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// ring is a circle of 2^40 positions with points of endpoints on it. A key
// belongs to the first point at or behind its own position.
//
// The points of an endpoint are those of its ID alone, numbered from 0, and its
// weight says how many of them there are. So an endpoint that comes or goes, or
// changes its weight, moves no key but to or from itself. Two points in one
// place go by the order of the IDs.
type ring struct {
	points []uint64 // position in the upper 40 bits, endpoint in the lower 24; sorted
	start  []uint32 // by the upper bits of a position: the first point at or behind it
	shift  uint     // that leaves those bits
	scale  uint     // log2 of what the number of points was divided by
}

const (
	ownerBits = 24 // 16 million endpoints
	ownerMask = 1<<ownerBits - 1
	// maxPoints bounds the memory (4 MiB) and the time of a build. A set that
	// would have more gets half the points for each, or a quarter and so on: shares
	// stay those of the weights, but a step moves about half of all keys. It takes
	// 8,192 units of weight to get there with 64 points for each.
	maxPoints = 1 << 19
	// perBucket is about how many points share an entry of start: a cache line.
	perBucket = 4
)

// hashSet is a set of endpoints on their ring. It is read-only.
type hashSet struct {
	came   []slot // as they came
	slots  []slot // sorted by ID
	weight float64
	ring   ring
}

// hashSets are those that were built last: most rebuilds are for an ejection
// somewhere else, or for a slow start, which is in the bound alone.
type hashSets struct{ recent []*hashSet }

// of returns the set of the endpoints with a weight. Not for concurrent use.
func (h *hashSets) of(ready []*Endpoint, perWeight int) *hashSet {
	came := make([]slot, 0, len(ready))
	for _, e := range ready {
		if w := e.weight.Load(); w > 0 { // whole, whatever slow start makes of it
			came = append(came, slot{ep: e, w: w})
		}
	}
	if i := slices.IndexFunc(h.recent, func(s *hashSet) bool { return slices.Equal(s.came, came) }); i >= 0 {
		return h.recent[i]
	}
	s := &hashSet{came: came, slots: slices.Clone(came)}
	slices.SortFunc(s.slots, func(a, b slot) int { return cmp.Compare(a.ep.ID, b.ep.ID) })
	for _, c := range came {
		s.weight += float64(c.w)
	}
	s.ring = newRing(s.slots, perWeight)
	h.keep(s)
	return s
}

// keep remembers the newest set and those before it, as far as they are not many
// or large.
func (h *hashSets) keep(s *hashSet) {
	h.recent = slices.Insert(h.recent, 0, s)
	points := 0
	for i, s := range h.recent {
		if points += len(s.ring.points); i > 0 && points > maxPoints || i == 4 {
			clear(h.recent[i:])
			h.recent = h.recent[:i]
			return
		}
	}
}

// newRing makes the ring of endpoints that are sorted by ID, with perWeight
// points for each unit of weight. It sorts by buckets, for positions are uniform:
// O(points).
func newRing(s []slot, perWeight int) ring {
	r := ring{}
	count := func(c *slot) int { return max(1, int(min(c.w, 1<<32))*perWeight>>r.scale) }
	total := 0
	for {
		total = 0
		for i := range s {
			total += count(&s[i])
		}
		if total <= maxPoints || total <= len(s) {
			break
		}
		r.scale++
	}
	bucketBits := max(1, bits.Len(uint(total/perBucket)))
	r.shift = uint(64 - bucketBits)
	r.points, r.start = make([]uint64, total), make([]uint32, 1<<bucketBits+1)
	at := r.start[1:] // while they are filled: where the next point of a bucket goes
	for i := range s {
		base := Hash(s[i].ep.ID)
		for k := range count(&s[i]) {
			if b := int(point(base, k) >> r.shift); b+1 < len(at) {
				at[b+1]++
			}
		}
	}
	for b := 1; b < len(at); b++ {
		at[b] += at[b-1]
	}
	for i := range s {
		base := Hash(s[i].ep.ID)
		for k := range count(&s[i]) {
			z := point(base, k)
			b := z >> r.shift
			r.points[at[b]] = z&^ownerMask | uint64(i)
			at[b]++
		}
	}
	for b := range at {
		insertionSort(r.points[r.start[b]:r.start[b+1]])
	}
	return r
}

// point is where point k of an endpoint stands.
func point(base uint64, k int) uint64 {
	return mix(base + uint64(k+1)*0x9e3779b97f4a7c15) // splitmix64 from there on
}

func insertionSort(a []uint64) {
	for i := 1; i < len(a); i++ {
		for j := i; j > 0 && a[j] < a[j-1]; j-- {
			a[j], a[j-1] = a[j-1], a[j]
		}
	}
}

// find returns the index of the first point of a key. The ring must not be empty.
func (r *ring) find(key uint64) int {
	z := mix(key)
	i := int(r.start[z>>r.shift])
	for z &^= ownerMask; i < len(r.points) && r.points[i] < z; i++ {
	}
	if i == len(r.points) {
		return 0
	}
	return i
}

// owner returns the endpoint of point i.
func (r *ring) owner(i int) int { return int(r.points[i] & ownerMask) }

// next returns the point behind point i.
func (r *ring) next(i int) int {
	if i++; i < len(r.points) {
		return i
	}
	return 0
}
