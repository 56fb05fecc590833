package gauge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

const helperEnv = "OUTRIGGER_GAUGE_HELPER"

// mains are further processes, where the system can measure them.
var mains = map[string]func(){}

// TestMain doubles as the sidecars and agents that have to be processes of their own.
func TestMain(m *testing.M) {
	switch as := os.Getenv(helperEnv); as {
	case "":
		os.Exit(m.Run())
	case "sidecar":
		sidecarMain()
	default:
		if main := mains[as]; main != nil {
			main()
		}
	}
}

// helper starts this binary as something else; it ends with its standard input.
func helper(t testing.TB, as string, env ...string) (*exec.Cmd, io.WriteCloser, io.Reader) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), helperEnv+"="+as), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, in, out
}

// sidecarMain has 5 in flight at the agent until it is killed.
func sidecarMain() {
	s := NewSender(DefaultConfig(), SenderEnv{Dial: to(os.Getenv("AGENT"))})
	s.SetAgents(map[string]string{"a": os.Getenv("AGENT")})
	s.Gauge("a", func() int { return 5 })
	go s.Run(context.Background())
	io.Copy(io.Discard, os.Stdin)
}

func to(addr string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
}

func TestSidecarIsKilled(t *testing.T) { bothWays(t, sidecarIsKilled) }

func sidecarIsKilled(t *testing.T, env BoardEnv) {
	var c clock // stands still: nothing can expire
	env.Now = c.now
	a := tcpAgent(t, env)
	cmd, _, _ := helper(t, "sidecar", "AGENT="+a.addr)
	eventually(t, "its gauge is there", func() bool { return a.total() == 5 })
	cmd.Process.Kill()
	eventually(t, "its gauge is gone", func() bool { return a.total() == 0 && a.Stats().Open == 0 })
	if n := a.Stats().Expired; n != 0 {
		t.Errorf("%d expired", n)
	}
}

// relay is a network between sidecar and agent that can be cut: both ends then hear
// nothing more, not even that.
type relay struct {
	net.Listener
	to  string
	mu  sync.Mutex
	cut bool
}

func newRelay(t *testing.T, to string) *relay {
	r := &relay{Listener: listen(t, "127.0.0.1:0"), to: to}
	t.Cleanup(func() { r.Close() })
	go func() {
		for {
			near, err := r.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			t.Cleanup(func() { near.Close(); far.Close() })
			go r.copy(far, near)
			go r.copy(near, far)
		}
	}()
	return r
}

func (r *relay) copy(dst, src net.Conn) {
	var b [512]byte
	for {
		n, err := src.Read(b[:])
		r.mu.Lock()
		cut := r.cut
		r.mu.Unlock()
		if cut {
			return
		}
		if err != nil {
			dst.Close()
			return
		}
		dst.Write(b[:n])
	}
}

func TestNetworkIsCut(t *testing.T) { bothWays(t, networkIsCut) }

func networkIsCut(t *testing.T, env BoardEnv) {
	var c clock
	env.Now = c.now
	a := tcpAgent(t, env)
	r := newRelay(t, a.addr)
	cmd, _, _ := helper(t, "sidecar", "AGENT="+r.Addr().String())
	eventually(t, "its gauge is there", func() bool { return a.total() == 5 })
	r.mu.Lock()
	r.cut = true
	r.mu.Unlock()
	cmd.Process.Kill()
	cmd.Wait()
	// A frame that was on the way may have come before the cut; the clock stands still.
	c.advance(Expiry - 1)
	sums(t, a.Board, c.now(), 5, 1)
	c.advance(1)
	sums(t, a.Board, c.now(), 0, 0)
	if n := a.Stats().Open; n != 1 {
		t.Errorf("%d streams are open", n)
	}
}

func TestAgentRestartsLive(t *testing.T) { bothWays(t, agentRestarts) }

func agentRestarts(t *testing.T, env BoardEnv) {
	l := listen(t, "127.0.0.1:0")
	addr := l.Addr().String()
	s := NewSender(DefaultConfig(), SenderEnv{Dial: to(addr)})
	s.SetAgents(map[string]string{"a": addr})
	f := newFlow(s, "a")
	start(t, s)
	for i := range 3 {
		a := serve(t, NewBoard(DefaultBoardConfig(), env), l)
		f.add(2)
		want := float64(2 * (i + 1))
		eventually(t, "the figure is there", func() bool { return a.total() == want })
		a.stop()
		eventually(t, "the sidecar knows", func() bool { return s.Stats().Streams == 0 })
		if i < 2 {
			l = listen(t, addr)
		}
	}
}

// TestFleet: many sidecars and endpoints over TCP under random traffic. At rest every
// sum is exact.
func TestFleet(t *testing.T) { bothWays(t, exactFleet) }

func exactFleet(t *testing.T, env BoardEnv) {
	const sidecars, agents, workers, rounds = 8, 4, 8, 300
	boards := map[string]*agent{}
	addrs := map[string]string{}
	for i := range agents {
		id := fmt.Sprint("e", i)
		boards[id] = tcpAgent(t, env)
		addrs[id] = boards[id].addr
	}
	flows := map[string][]*flow{}
	var traffic sync.WaitGroup
	for i := range sidecars {
		s := NewSender(Config{Interval: 5 * time.Millisecond}, SenderEnv{
			Dial: func(ctx context.Context, id string) (net.Conn, error) { return to(addrs[id])(ctx, id) },
		})
		var mine []*flow
		for id := range boards {
			f := newFlow(s, id)
			mine = append(mine, f)
			flows[id] = append(flows[id], f)
		}
		s.SetAgents(addrs)
		start(t, s)
		for w := range workers {
			traffic.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), uint64(w)))
				for range rounds {
					f := mine[r.IntN(len(mine))]
					f.add(1)
					if r.IntN(4) == 0 {
						time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
					}
					if r.IntN(8) > 0 { // some stay for ever
						f.add(-1)
					}
				}
			})
		}
	}
	traffic.Wait()
	for id, a := range boards {
		want := int64(0)
		for _, f := range flows[id] {
			want += f.n.Load()
		}
		eventually(t, "the sum is exact", func() bool {
			total, n, _ := a.Sum(time.Now())
			return total == float64(want) && n == sidecars
		})
	}
	time.Sleep(20 * time.Millisecond) // and stays so: the assertion does not depend on the time
	for id, a := range boards {
		want := int64(0)
		for _, f := range flows[id] {
			want += f.n.Load()
		}
		sums(t, a.Board, time.Now(), float64(want), sidecars)
	}
}

// TestTLS: a connection without a descriptor of its own.
func TestTLS(t *testing.T) {
	b := NewBoard(DefaultBoardConfig(), BoardEnv{})
	srv := httptest.NewTLSServer(b)
	t.Cleanup(func() { srv.Close(); b.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	s := NewSender(DefaultConfig(), SenderEnv{Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		d := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "example.com"}}
		return d.DialContext(ctx, "tcp", srv.Listener.Addr().String())
	}})
	s.SetAgents(map[string]string{"a": "1"})
	f := newFlow(s, "a")
	start(t, s)
	for range 10 {
		f.add(1)
		eventually(t, "the sum is exact", func() bool {
			total, _, _ := b.Sum(time.Now())
			return total == float64(f.n.Load())
		})
	}
	b.Close()
	eventually(t, "the sidecar knows", func() bool { return s.Stats().Streams == 0 })
}

// TestNoReader: the kernel's buffers are full, and a write says so instead of waiting.
func TestNoReader(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near.(*net.TCPConn).SetWriteBuffer(4096)
	far.(*net.TCPConn).SetReadBuffer(4096)
	raw, err := near.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	lk := &link{conn: near, raw: newRawWriter(raw)}
	if lk.raw == nil {
		t.Skip("this system's sockets are no descriptors")
	}
	for i := 0; ; i++ {
		if err := lk.write(frame(int64(i))); err == errStalled {
			break
		} else if err != nil || i > 1<<24 {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	lk.fail(errStalled)
	if err := lk.wait(); err != errStalled {
		t.Errorf("the stream ended with %v", err)
	}
	// Nothing was sent by half.
	near.Close()
	data, _ := io.ReadAll(far)
	if len(data)%frameSize != 0 {
		t.Errorf("%d bytes arrived", len(data))
	}
}
