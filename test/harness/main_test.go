package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// childEnv turns this test binary into one of the children below.
const childEnv = "HARNESS_TEST_CHILD"

var children = map[string]func() error{
	"block":         func() error { return block() },
	"deaf":          func() error { signal.Ignore(syscall.SIGTERM); return block() },
	"seven":         func() error { os.Exit(7); return nil },
	"family":        leaveGrandchild,
	"consulParent":  consulParent,
	"builder":       builder,
	"clusterParent": clusterParent,
}

func TestMain(m *testing.M) {
	mode := os.Getenv(childEnv)
	if mode == "" {
		os.Exit(m.Run())
	}
	if err := children[mode](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// block says that it is there and waits for a signal to end it.
func block() error {
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return nil
}

// leaveGrandchild ends and leaves a process of its own running.
func leaveGrandchild() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"=block")
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Println(cmd.Process.Pid)
	time.Sleep(time.Hour) // until the test has seen the pid
	return nil
}

func consulParent() error {
	c, err := StartConsul(context.Background(), Options{Path: os.Getenv("TEST_CONSUL"), Dir: os.Getenv("TEST_DIR")})
	if err != nil {
		return err
	}
	fmt.Println(c.Process().PID())
	fmt.Println(c.Addr())
	time.Sleep(time.Hour)
	return nil
}

// clusterParent runs a cluster and prints its folder and the agents' PIDs.
func clusterParent() error {
	c, err := StartCluster(context.Background(), ClusterOptions{
		Path: os.Getenv("TEST_CONSUL"), FirstIP: netip.MustParseAddr("127.0.0.63"),
	})
	if errors.Is(err, ErrNoCluster) {
		fmt.Println(err)
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Println(c.opts.Dir)
	for _, n := range c.Nodes() {
		fmt.Println(n.Process().PID())
	}
	time.Sleep(time.Hour)
	return nil
}

// builder ensures the toy program and prints what it is told meanwhile.
func builder() error {
	return toyBuild(os.Getenv("TEST_DIR"), func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
	}).ensure(context.Background())
}

// child starts this binary in a mode and returns the lines that it prints.
func child(t *testing.T, mode string, env ...string) (*Process, *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	p, err := StartProcess(Spec{
		Path: self, Env: append(append(os.Environ(), childEnv+"="+mode), env...), Stdout: w, Stderr: os.Stderr,
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p, bufio.NewScanner(r)
}

// line is the child's next line; a child that ends without one fails the test.
func line(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("the child ended without the line expected (%v)", lines.Err())
	}
	return lines.Text()
}
