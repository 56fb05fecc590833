package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// generator is one thread on one epoll. Go's own timers round up to whole
// milliseconds, which is more than what is measured here.
type generator struct {
	plan    plan
	request []byte
	epoll   int
	timer   int
	conns   []genConn
	free    ring[int]           // connections
	waiting ring[time.Duration] // due times of requests that found no connection
	start   time.Time
	next    int // arrival
	total   int
	record  record
}

type genConn struct {
	fd   int
	due  time.Duration // of the request under way
	buf  []byte
	have int
}

// ring is a queue that grows.
type ring[T any] struct {
	items   []T
	head, n int
}

func (r *ring[T]) push(v T) {
	if r.n == len(r.items) {
		bigger := make([]T, max(16, 2*len(r.items)))
		for i := range r.n {
			bigger[i] = r.items[(r.head+i)%len(r.items)]
		}
		r.items, r.head = bigger, 0
	}
	r.items[(r.head+r.n)%len(r.items)] = v
	r.n++
}

func (r *ring[T]) pop() T {
	v := r.items[r.head]
	r.head = (r.head + 1) % len(r.items)
	r.n--
	return v
}

// generate carries a plan out. Any answer but 200, any error of a connection
// ends it; answers that stay out are told by the outcome's counts.
func generate(p plan) (outcome, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g := &generator{plan: p, epoll: -1, timer: -1, request: []byte("GET " + p.path + " HTTP/1.1\r\nHost: " + p.addr + "\r\n\r\n")}
	room := 1 << 20
	if p.rate > 0 {
		g.total = int(p.rate * (p.warm + p.run).Seconds())
		room = g.total
	}
	g.record.latency, g.record.late = make([]time.Duration, 0, room), make([]time.Duration, 0, room)
	defer g.close()
	if err := g.open(); err != nil {
		return outcome{}, err
	}
	g.start = time.Now().Add(5 * time.Millisecond)
	if err := g.loop(); err != nil {
		return outcome{}, err
	}
	due := g.total
	if p.rate == 0 {
		due = g.record.answered
	}
	return g.record.outcome(due, time.Since(g.start)), nil
}

func (g *generator) close() {
	fds := []int{g.epoll, g.timer}
	for i := range g.conns {
		fds = append(fds, g.conns[i].fd)
	}
	for _, fd := range fds {
		_ = unix.Close(fd) // -1 was never opened; of the others nothing is left to lose
	}
}

// open connects everything. What it opens is close's to close.
func (g *generator) open() error {
	addr, err := net.ResolveTCPAddr("tcp4", g.plan.addr)
	if err != nil {
		return err
	}
	sa := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if g.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	if err := g.watch(g.timer, -1); err != nil {
		return err
	}
	for i := range g.plan.conns {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		g.conns = append(g.conns, genConn{fd: fd, buf: make([]byte, 16<<10)})
		if err := unix.Connect(fd, sa); err != nil {
			return os.NewSyscallError("connect", err)
		}
		if err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), unix.SetNonblock(fd, true), g.watch(fd, i)); err != nil {
			return err
		}
		g.free.push(i)
	}
	return nil
}

func (g *generator) watch(fd, index int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(g.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)}))
}

func (g *generator) due(i int) time.Duration {
	return time.Duration(float64(i) / g.plan.rate * float64(time.Second))
}

func (g *generator) loop() error {
	end := g.plan.warm + g.plan.run
	events := make([]unix.EpollEvent, 256)
	for {
		now := time.Since(g.start)
		done := g.next == g.total && g.free.n == len(g.conns)
		if now > end+wait || (now > end && done) {
			return nil
		}
		if err := g.arrivals(now, end); err != nil {
			return err
		}
		n, err := unix.EpollWait(g.epoll, events, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd >= 0 {
				if err := g.read(int(e.Fd)); err != nil {
					return err
				}
			}
		}
	}
}

// arrivals sends what is due and sets the timer for the next.
func (g *generator) arrivals(now, end time.Duration) error {
	if g.plan.rate == 0 {
		for now >= 0 && now < end && g.free.n > 0 {
			if err := g.send(g.free.pop(), now); err != nil {
				return err
			}
		}
		if now >= 0 {
			return nil
		}
		return g.wake(-now)
	}
	for ; g.next < g.total && g.due(g.next) <= now; g.next++ {
		due := g.due(g.next)
		if g.free.n == 0 {
			g.waiting.push(due)
			g.record.queued++
			continue
		}
		if due >= g.plan.warm {
			g.record.late = append(g.record.late, time.Since(g.start)-due)
		}
		if err := g.send(g.free.pop(), due); err != nil {
			return err
		}
	}
	if g.next == g.total {
		return nil
	}
	return g.wake(g.due(g.next) - time.Since(g.start))
}

// wake sets the timer. Setting it also forgets that it has fired.
func (g *generator) wake(in time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(in, 1).Nanoseconds())} // 0 would stop it
	return os.NewSyscallError("timerfd_settime", unix.TimerfdSettime(g.timer, 0, &spec, nil))
}

func (g *generator) send(index int, due time.Duration) error {
	c := &g.conns[index]
	c.due = due
	n, err := unix.Write(c.fd, g.request)
	if err != nil {
		return os.NewSyscallError("write", err)
	}
	if n != len(g.request) {
		return fmt.Errorf("wrote %d of %d bytes: the request must fit an empty socket buffer", n, len(g.request))
	}
	return nil
}

// read takes what a connection has and, when that completes an answer, sends
// the request that waits longest on it.
func (g *generator) read(index int) error {
	c := &g.conns[index]
	n, err := unix.Read(c.fd, c.buf[c.have:])
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return nil
	case err != nil:
		return os.NewSyscallError("read", err)
	case n == 0:
		return errors.New("a connection was closed under way")
	}
	c.have += n
	length, status, err := responseLength(c.buf[:c.have])
	switch {
	case errors.Is(err, errPartial) && c.have < len(c.buf):
		return nil
	case err != nil:
		return err
	case status != 200:
		return fmt.Errorf("an answer was %d", status)
	case length != c.have:
		return fmt.Errorf("%d bytes after an answer", c.have-length)
	}
	c.have = 0
	g.record.answered++
	if c.due >= g.plan.warm {
		g.record.latency = append(g.record.latency, time.Since(g.start)-c.due)
	}
	if g.waiting.n > 0 {
		return g.send(index, g.waiting.pop())
	}
	g.free.push(index)
	return nil
}
