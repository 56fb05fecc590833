package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slice is how many units of work a request gets before it is the next one's
// turn: fine enough for processor sharing, which is what the picker's model of
// a backend is, and what a busy multi-threaded server comes close to.
const slice = 100

// burner is a backend: one thread on one epoll, all requests served in turn.
type burner struct {
	unit     int
	epoll    int
	listener int
	gauge    *atomic.Int64 // in a file that the bench maps too
	conns    map[int32]*burnConn
	active   []*burnConn // with work left
	next     int         // whose turn it is
	sink     uint64
}

type burnConn struct {
	fd   int
	buf  []byte
	have int
	left int  // units of work
	gone bool // the client has left; its request is worked off all the same
}

var burnAnswer = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n")

func runBurner(args []string, errs io.Writer) int {
	p, err := parseBurnPlan(args, errs)
	if err == nil {
		err = serveBurner(p)
	}
	fmt.Fprintln(errs, err) // it only ends by an error or a signal
	return 1
}

func serveBurner(p burnPlan) error {
	runtime.LockOSThread()
	debug.SetGCPercent(-1) // it allocates for connections alone
	b := &burner{unit: p.unit, conns: map[int32]*burnConn{}}
	var err error
	if b.gauge, err = mapGauge(p.gauge); err != nil {
		return err
	}
	if b.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := b.listen(p.addr); err != nil {
		return err
	}
	return b.loop()
}

// mapGauge maps the counter in a file, which it makes if there is none.
func mapGauge(file string) (*atomic.Int64, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the mapping stays
	if err := f.Truncate(8); err != nil {
		return nil, err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return (*atomic.Int64)(unsafe.Pointer(unsafe.SliceData(data))), nil
}

func (b *burner) listen(addr string) error {
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return err
	}
	if b.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptInt(b.listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(b.listener, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(b.listener, 4096); err != nil {
		return os.NewSyscallError("listen", err)
	}
	return b.watch(b.listener)
}

func (b *burner) watch(fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(b.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
}

// loop looks for requests after every slice of work, so that the gauge is never
// older than what the kernel lets the process wait.
func (b *burner) loop() error {
	events := make([]unix.EpollEvent, 256)
	for {
		timeout := 0
		if len(b.active) == 0 {
			timeout = -1
		}
		n, err := unix.EpollWait(b.epoll, events, timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == b.listener {
				err = b.accept()
			} else if c := b.conns[e.Fd]; c != nil {
				err = b.read(c)
			}
			if err != nil {
				return err
			}
		}
		b.work()
	}
}

func (b *burner) accept() error {
	for {
		fd, _, err := unix.Accept4(b.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			return os.NewSyscallError("accept", err)
		}
		b.conns[int32(fd)] = &burnConn{fd: fd, buf: make([]byte, 4<<10)}
		if err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), b.watch(fd)); err != nil {
			return err
		}
	}
}

// read takes what there is of a request. Whoever sends anything but one request
// at a time loses the connection.
func (b *burner) read(c *burnConn) error {
	n, err := unix.Read(c.fd, c.buf[c.have:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil || n == 0 {
		return b.leave(c)
	}
	c.have += n
	end := bytes.Index(c.buf[:c.have], []byte("\r\n\r\n"))
	switch {
	case c.left > 0:
		return b.leave(c)
	case end < 0 && c.have < len(c.buf):
		return nil
	}
	units, err := workOf(c.buf[:c.have])
	if err != nil || end+4 != c.have {
		return b.leave(c)
	}
	c.have, c.left = 0, max(units, 1)
	b.active = append(b.active, c)
	b.gauge.Store(int64(len(b.active)))
	return nil
}

// leave forgets a connection, at once or when its request is worked off.
func (b *burner) leave(c *burnConn) error {
	c.gone = true
	delete(b.conns, int32(c.fd))
	if c.left > 0 {
		return os.NewSyscallError("epoll_ctl", unix.EpollCtl(b.epoll, unix.EPOLL_CTL_DEL, c.fd, nil))
	}
	return unix.Close(c.fd)
}

// work gives the request whose turn it is a slice.
func (b *burner) work() {
	if len(b.active) == 0 {
		return
	}
	b.next %= len(b.active)
	c := b.active[b.next]
	n := min(slice, c.left)
	b.sink += burn(n * b.unit)
	c.left -= n
	if c.left > 0 {
		b.next++
		return
	}
	b.active = append(b.active[:b.next], b.active[b.next+1:]...)
	b.gauge.Store(int64(len(b.active)))
	if c.gone {
		_ = unix.Close(c.fd) // nobody is there to miss it
		return
	}
	// A short answer fits an empty socket buffer; of a client that has left in this
	// very moment, reading tells.
	_, _ = unix.Write(c.fd, burnAnswer)
}

// calibrate finds how many iterations take a microsecond of CPU time: the most
// of several tries, for whatever disturbs one makes it slower.
func calibrate() int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const probe = 10_000_000
	var best float64
	var sum uint64
	for range 8 {
		before := threadTime()
		sum += burn(probe)
		if took := threadTime() - before; took > 0 {
			best = max(best, probe/(float64(took.Nanoseconds())/1e3))
		}
	}
	if sum == 0 {
		return 0 // never: xorshift keeps from zero
	}
	return int(best)
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// runNeighbour burns as many cores as a gauge says, in millionths. It counts its
// own CPU time, so that what it gets does not depend on how often the kernel
// lets it run.
func runNeighbour(args []string, errs io.Writer) int {
	if len(args) != 1 {
		fmt.Fprintf(errs, "%q is no neighbour\n", args)
		return 2
	}
	cores, err := mapGauge(args[0])
	if err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	runtime.LockOSThread()
	const piece = 100_000 // iterations: some 100 µs
	const nap = 2 * time.Millisecond
	// What it could not burn is not burnt later, but for the time of a few periods
	// of the quota.
	const most = 60 * time.Millisecond
	last, credit := time.Now(), time.Duration(0)
	for {
		now := time.Now()
		share := float64(cores.Load()) / 1e6
		credit = min(credit+time.Duration(float64(now.Sub(last))*share), time.Duration(float64(most)*share))
		last = now
		if credit <= 0 {
			time.Sleep(nap)
			continue
		}
		before := threadTime()
		if burn(piece) == 0 {
			return 1 // never: xorshift keeps from zero, which the compiler does not know
		}
		credit -= threadTime() - before
	}
}
