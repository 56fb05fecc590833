//go:build unix

package gauge

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

func init() {
	mains["agent"], mains["load"] = agentMain, loadMain
}

const loadTime = 3 * time.Second

// BenchmarkProcesses is what gauges cost a request: an agent and a sidecar's sender in
// processes of their own, over loopback, with requests of 20 ms on average that come at
// random (rate: all requests a second, over all endpoints). The sidecar's figure is the
// difference to the same load without gauges, in CPU time by the kernel's account;
// there is no other work in either process, so what is measured includes all wake-ups
// that a busy process would have anyway. Run with -benchtime 1x.
func BenchmarkProcesses(b *testing.B) {
	for _, c := range []struct{ rate, endpoints int }{
		{100, 1}, {1000, 1}, {10000, 1}, {1000, 50}, {5000, 1000},
	} {
		for _, interval := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond} {
			b.Run(fmt.Sprintf("rate=%d/endpoints=%d/interval=%s", c.rate, c.endpoints, interval), func(b *testing.B) {
				for b.Loop() {
					agent := startAgent(b)
					var off, on spent
					idle, _ := agent.spent(func() { off = startLoad(b, "", c.rate, c.endpoints, interval).run() })
					load := startLoad(b, agent.addr, c.rate, c.endpoints, interval)
					cpu, frames := agent.spent(func() { on = load.run() })
					cpu -= idle
					n := on.requests
					b.ReportMetric(0, "ns/op")
					b.ReportMetric((on.cpu/n-off.cpu/off.requests)*1e6, "sidecar-µs/req")
					b.ReportMetric(cpu/n*1e6, "agent-µs/req")
					b.ReportMetric(frames/n, "frames/req")
					b.ReportMetric(cpu/frames*1e6, "agent-µs/frame")
				}
			})
		}
	}
}

// spent is what a process of load came to.
type spent struct{ requests, cpu float64 }

// load is a sidecar's sender under requests, in a process of its own.
type load struct {
	b   *testing.B
	in  io.Writer
	out io.Reader
}

// startLoad returns when all streams are open. agent is "" for none.
func startLoad(b *testing.B, agent string, rate, endpoints int, interval time.Duration) *load {
	l := &load{b: b}
	_, l.in, l.out = helper(b, "load", "AGENT="+agent, fmt.Sprint("RATE=", rate), fmt.Sprint("ENDPOINTS=", endpoints), fmt.Sprint("INTERVAL=", interval))
	var ready string
	if _, err := fmt.Fscan(l.out, &ready); err != nil {
		b.Fatal(err)
	}
	return l
}

func (l *load) run() (s spent) {
	fmt.Fprintln(l.in)
	if _, err := fmt.Fscan(l.out, &s.requests, &s.cpu); err != nil {
		l.b.Fatal(err)
	}
	return s
}

// asked is an agent in a process of its own.
type asked struct {
	b    *testing.B
	addr string
	in   io.Writer
	out  io.Reader
}

func startAgent(b *testing.B) *asked {
	a := &asked{b: b}
	_, a.in, a.out = helper(b, "agent")
	if _, err := fmt.Fscan(a.out, &a.addr); err != nil {
		b.Fatal(err)
	}
	return a
}

// spent returns the agent's CPU time, in seconds, and frames while f runs.
func (a *asked) spent(f func()) (cpu, frames float64) {
	c1, f1 := a.read()
	f()
	c2, f2 := a.read()
	return c2 - c1, f2 - f1
}

func (a *asked) read() (cpu, frames float64) {
	fmt.Fprintln(a.in)
	if _, err := fmt.Fscan(a.out, &cpu, &frames); err != nil {
		a.b.Fatal(err)
	}
	return cpu, frames
}

// agentMain serves a board and says where. It is asked for the sum 100 times a second,
// as 50 sidecars do that poll every 500 ms. For each line it answers with the CPU time,
// in seconds, and frames so far.
func agentMain() {
	board := NewBoard(DefaultBoardConfig(), BoardEnv{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(l, board)
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			board.Sum(time.Now())
		}
	}()
	fmt.Println(l.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(cpuSeconds(), board.Stats().Frames)
	}
}

// loadMain is a sidecar's sender under requests, with no gauges when AGENT is empty.
// It says when it is ready and waits for a line; then it makes requests and prints how
// many there were and what they cost.
func loadMain() {
	number := func(name string) int {
		n, err := strconv.Atoi(os.Getenv(name))
		if err != nil {
			panic(err)
		}
		return n
	}
	interval, err := time.ParseDuration(os.Getenv("INTERVAL"))
	if err != nil {
		panic(err)
	}
	addr := os.Getenv("AGENT")
	s := NewSender(Config{Interval: interval}, SenderEnv{Dial: to(addr)})
	flows := make([]*flow, number("ENDPOINTS"))
	addrs := map[string]string{}
	for i := range flows {
		id := fmt.Sprint(i)
		flows[i] = newFlow(s, id)
		addrs[id] = addr
	}
	if addr != "" {
		s.SetAgents(addrs)
		go s.Run(context.Background())
		for s.Stats().Streams < len(flows) {
			time.Sleep(10 * time.Millisecond)
		}
	}
	fmt.Println("ready")
	fmt.Scanln()
	began := cpuSeconds()
	requests := drive(flows, number("RATE"), loadTime)
	fmt.Println(requests, cpuSeconds()-began)
}

// drive makes requests for a time and waits for the last one.
func drive(flows []*flow, rate int, d time.Duration) (n int) {
	var all sync.WaitGroup
	r := rand.New(rand.NewPCG(1, 2))
	due := time.Now()
	for end := due.Add(d); due.Before(end); n++ {
		due = due.Add(time.Duration(r.ExpFloat64() / float64(rate) * 1e9))
		time.Sleep(time.Until(due))
		f, service := flows[r.IntN(len(flows))], time.Duration(r.ExpFloat64()*20e6)
		all.Go(func() {
			f.add(1)
			time.Sleep(service)
			f.add(-1)
		})
	}
	all.Wait()
	return n
}
