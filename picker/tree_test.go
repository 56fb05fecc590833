package picker

import (
	"math"
	"math/big"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestLoadKey(t *testing.T) {
	rand := seeded(31)
	draw := func() (n, w int64) { return int64(rand(1 << (rand(18)))), 1 + int64(rand(1<<rand(17))) }
	for range 30000 {
		n, w := draw()
		m, v := draw()
		want := big.NewRat(n, w).Cmp(big.NewRat(m, v))
		a, b := loadKey(n, w), loadKey(m, v)
		if got := int(min(1, max(-1, int64(a)-int64(b)))); got != want {
			t.Fatalf("%d/%d and %d/%d compare as %d, want %d", n, w, m, v, got, want)
		}
	}
	// The ends of what counters can hold stay in order and below "no room".
	last := uint64(0)
	for i, x := range []struct{ n, w int64 }{
		{0, math.MaxInt64}, {1, math.MaxInt64}, {1, maxWeight}, {1, 65535}, {1, 1}, {1e6, 1}, {math.MaxInt64, 1},
	} {
		key := loadKey(x.n, x.w)
		if i > 0 && key <= last || key >= noRoom {
			t.Errorf("%d/%d has key %x after %x", x.n, x.w, key, last)
		}
		last = key
	}
	if loadKey(-1, 1) != 0 {
		t.Error("a negative count is not 0")
	}
}

// settled fails unless every node is what it should be while nobody changes
// anything.
func settled(t *testing.T, tr *tree) {
	t.Helper()
	for i := range tr.slots {
		if got, want := tr.key(0, i), tr.slots[i].key(); got != want {
			t.Errorf("leaf %d is %x, the endpoint's key %x", i, got, want)
		}
	}
	for l := 1; l < len(tr.levels); l++ {
		for i := range tr.weight[l] {
			if got, want := tr.key(l, i), tr.levels[l-1][i].least(); got != want {
				t.Errorf("level %d, node %d is %x, its least child %x", l, i, got, want)
			}
		}
	}
	least := uint64(noRoom)
	for i := range tr.slots {
		least = min(least, tr.slots[i].key())
	}
	if tr.root() != least {
		t.Errorf("the root is %x, the least of all %x", tr.root(), least)
	}
}

// TestTreeAgainstScan changes endpoints at random and holds each pick against a
// comparison of all, with tried ones left out.
func TestTreeAgainstScan(t *testing.T) {
	rand := seeded(32)
	for round := range 25 {
		n := scanned + 1 + int(rand(700))
		eps := equal(n)
		for _, e := range eps {
			e.SetWeight(int(rand(12)))
			e.SetLimit(int(rand(2) * rand(6)))
			hold(e, int(rand(3)))
		}
		k := policy(t, "least_conn", rand).Build(eps).(*leastConnPicker)
		for range 150 {
			e := eps[rand(uint32(n))]
			switch rand(8) {
			case 0:
				e.SetLimit(int(rand(6)))
			case 1, 2, 3:
				if e.InFlight() > 0 {
					e.Finish(now, Result{})
				}
			default:
				e.TryReserve()
			}
			var tried Tried
			for range rand(2) * rand(maxTried+1) {
				if e, ok := k.Pick(Request{Now: now, Tried: tried}); ok {
					tried.Add(e)
				}
			}
			pickIsLeast(t, k, Request{Now: now, Tried: tried})
		}
		if k.tree == nil {
			continue
		}
		settled(t, k.tree)
		if t.Failed() {
			t.Fatalf("round %d, %d endpoints", round, n)
		}
	}
}

// pickIsLeast picks and compares with all.
func pickIsLeast(t *testing.T, k *leastConnPicker, r Request) {
	t.Helper()
	least := uint64(noRoom)
	for i := range k.slots {
		if s := &k.slots[i]; r.takes(s.ep) {
			least = min(least, s.key())
		}
	}
	e, ok := k.Pick(r)
	if ok != (least != noRoom) {
		t.Fatalf("picked %v, the least key is %x", ok, least)
	}
	for i := range k.slots {
		if s := &k.slots[i]; ok && s.ep == e && s.key() != least {
			t.Fatalf("picked one with key %x, the least is %x", s.key(), least)
		}
	}
	if k.tree == nil || k.tree.superseded.Load() {
		return
	}
	skip := k.tree.leavesOf(&r.Tried)
	i, room := k.tree.find(&skip, dice(least))
	if room != ok || room && (k.slots[i].key() != least || r.Tried.Has(k.slots[i].ep)) {
		t.Fatalf("found %d, %v, the least key is %x", i, room, least)
	}
}

// TestTreeFillsUp: to the last slot of all, each request is where the least is,
// and back.
func TestTreeFillsUp(t *testing.T) {
	eps := equal(300)
	for i, e := range eps {
		e.SetWeight(1 + i%5)
		e.SetLimit(1 + i%3)
	}
	k := policy(t, "least_conn", seeded(33)).Build(eps).(*leastConnPicker)
	for range 600 {
		pickIsLeast(t, k, Request{Now: now})
		if e, ok := k.Pick(Request{Now: now}); !ok || !e.TryReserve() {
			t.Fatal("no room before all is full")
		}
	}
	none(t, k, Request{Now: now})
	eps[123].Cancel()
	if e, ok := k.Pick(Request{Now: now}); !ok || e != eps[123] {
		t.Error("the slot that was freed was not found")
	}
}

// TestTreeTies: while ties are plenty they are drawn by weight, and where they
// are few, each is drawn.
func TestTreeTies(t *testing.T) {
	eps := equal(100)
	for i, e := range eps {
		e.SetWeight(1 + i%4)
	}
	k := policy(t, "least_conn", seeded(34)).Build(eps)
	fits(t, "idle", count(t, k, eps, 60000, Request{Now: now}), sharesOf(eps))
	for i, e := range eps {
		if i != 3 && i != 90 && i != 91 {
			e.TryReserve()
		}
	}
	got := count(t, k, eps, 6000, Request{Now: now})
	for i, n := range got {
		if few := i == 3 || i == 90 || i == 91; !few && n > 0 || few && n < 600 {
			t.Errorf("of 6000 picks with three idle endpoints %d got %d", i, n)
		}
	}
}

// TestTreeStress: endpoints change from many goroutines while pickers are built
// over parts of them; afterwards the newest tree is exact in all its nodes.
func TestTreeStress(t *testing.T) {
	rand := seeded(35)
	p := policy(t, "least_conn", rand)
	eps := equal(150)
	for i, e := range eps {
		e.SetWeight(1 + i%7)
	}
	for range 8 {
		var current atomic.Pointer[leastConnPicker]
		current.Store(p.Build(eps).(*leastConnPicker))
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				held := make([]*Endpoint, 0, 64)
				for range 1500 {
					if e, ok := current.Load().Pick(Request{Now: now}); ok && len(held) < cap(held) && rand(5) > 0 {
						if e.TryReserve() {
							held = append(held, e)
						}
					} else if len(held) > 0 {
						i := rand(uint32(len(held)))
						held[i].Finish(now, Result{})
						held[i] = held[len(held)-1]
						held = held[:len(held)-1]
					}
					if rand(20) == 0 {
						eps[rand(150)].SetLimit(int(rand(4)))
					}
				}
				for _, e := range held {
					e.Cancel()
				}
			})
		}
		wg.Go(func() {
			for range 20 {
				from := rand(50)
				current.Store(p.Build(eps[from : from+33+rand(60)]).(*leastConnPicker))
				runtime.Gosched()
			}
		})
		wg.Wait()
		settled(t, current.Load().tree)
		if t.Failed() {
			return
		}
	}
}

// TestTreeOutdatesOthers: whoever has read a node before a change, and sleeps
// before the swap, must fail then, even if the change left all keys as they are;
// and it goes to the first inner level whatever the leaf says.
func TestTreeOutdatesOthers(t *testing.T) {
	eps := equal(70)
	tr := newTree(slots(eps))
	word := func(l, i int) *atomic.Uint64 { return &tr.levels[l][i/fanOut][i%fanOut] }
	leaf, inner, root := word(0, 20).Load(), word(1, 20/fanOut).Load(), word(len(tr.levels)-1, 0).Load()
	eps[20].SetLimit(0)
	if word(0, 20).CompareAndSwap(leaf, 0) || word(1, 20/fanOut).CompareAndSwap(inner, 0) {
		t.Error("a swap passed that had read the children before a change")
	}
	if word(len(tr.levels)-1, 0).Load() != root {
		t.Error("a change that changes no minimum is taken to the root, which all share")
	}
	// The count of swaps starts anew after its last, and keeps out of the key.
	word(0, 20).Store(loadKey(3, 1)<<versionBits | (1<<versionBits - 1))
	hold(eps[20], 2)
	eps[20].TryReserve()
	if got := word(0, 20).Load(); got&(1<<versionBits-1) > 2 || keyOf(got) != loadKey(3, 1) {
		t.Errorf("after the last count the word is %x", got)
	}
	settled(t, tr)
}

// TestTreeRaces lets three goroutines change endpoints of one node, or the same
// one, at one moment, and looks at the tree when they are done: a change that
// is lost on its way up shows.
func TestTreeRaces(t *testing.T) {
	const goroutines, rounds = 3, 3000
	eps := equal(20)
	for _, e := range eps {
		hold(e, 5)
	}
	tr := newTree(slots(eps))
	var arrived atomic.Int64
	meet := func(round, stage int) { // in a moment, not in a scheduler's turn
		arrived.Add(1)
		for want := int64((2*round + stage + 1) * goroutines); arrived.Load() < want; {
			runtime.Gosched()
		}
	}
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for round := range rounds {
				meet(round, 0)
				e := eps[(round%5*g)%9] // all the same, neighbours, or of two nodes
				if round/5%2 == 0 {
					e.Cancel()
				} else {
					e.TryReserve()
				}
				meet(round, 1)
				if g == 0 {
					settled(t, tr)
				}
				if t.Failed() {
					arrived.Add(1 << 40)
				}
			}
		})
	}
	wg.Wait()
}

// TestTreeFreedRoomIsFound: who gives up a slot while all else is full finds
// room at once, whatever others do to nodes above it. Else a waiter who is
// woken by it sleeps on (haproxy #3290).
func TestTreeFreedRoomIsFound(t *testing.T) {
	rand := seeded(36)
	eps := equal(200)
	for _, e := range eps {
		e.SetLimit(1)
		fill(e)
	}
	k := policy(t, "least_conn", rand).Build(eps)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				eps[rand(2)*rand(200)].SetLimit(1) // tells the tree, changes nothing
			}
		})
	}
	for range 8000 {
		eps[0].Cancel()
		if e, ok := k.Pick(Request{Now: now}); !ok || e != eps[0] {
			t.Error("the freed slot was not found")
			break
		}
		eps[0].TryReserve()
	}
	stop.Store(true)
	wg.Wait()
}

// TestTreeSuperseded: a picker whose endpoints report to a newer one goes on
// picking the least, by comparing all.
func TestTreeSuperseded(t *testing.T) {
	eps := equal(100)
	p := policy(t, "least_conn", seeded(37))
	for _, part := range [][]*Endpoint{eps[:50], eps[:10], eps[99:]} {
		old := p.Build(eps).(*leastConnPicker)
		p.Build(part)
		for range 500 {
			pickIsLeast(t, old, Request{Now: now})
			if e, _ := old.Pick(Request{Now: now}); !e.TryReserve() {
				t.Fatal("no room without a limit")
			}
		}
	}
}

// TestTreeIsReleased: endpoints do not hold the tree of a picker that nobody
// uses any more, so one that left and has a long lease holds no other that left.
func TestTreeIsReleased(t *testing.T) {
	eps := equal(100)
	policy(t, "least_conn", seeded(38)).Build(eps)
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		runtime.GC()
		held := 0
		for _, e := range eps {
			if e.watch.Load() != nil {
				held++
			}
		}
		if held == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d endpoints hold the tree of a picker that is gone", held)
		}
	}
}

// TestTreeOfLargerSets: at the sizes where a level is added, and beyond.
func TestTreeOfLargerSets(t *testing.T) {
	rand := seeded(39)
	for _, n := range []int{33, 64, 65, 511, 512, 513, 4096, 4097, 10000} {
		eps := equal(n)
		k := policy(t, "least_conn", rand).Build(eps).(*leastConnPicker)
		settled(t, k.tree)
		// Two rounds of each endpoint once: nobody gets a third before all have two.
		for range 2 * n {
			e, ok := k.Pick(Request{Now: now})
			if !ok || !e.TryReserve() {
				t.Fatal("no endpoint")
			}
		}
		for i, e := range eps {
			if e.InFlight() != 2 {
				t.Fatalf("of %d endpoints %d has %d in flight, want 2", n, i, e.InFlight())
			}
		}
		settled(t, k.tree)
	}
}
