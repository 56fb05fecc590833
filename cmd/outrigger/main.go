// Command outrigger is a client-side load balancer for services in Consul.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"

	"outrigger/cmd/outrigger/demo"
)

// streams are a command's standard streams, so that tests can stand in.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// command is a subcommand. run returns the exit status: 0 for success, 1 for
// failure, 2 for wrong usage. ctx ends at the first SIGINT or SIGTERM; the second ends
// the program unless the command takes it (hurried).
type command struct {
	name, synopsis string
	run            func(ctx context.Context, args []string, s streams) int
}

func commands() []command {
	return []command{
		{"sidecar", "run the proxy beside a client app", runSidecar},
		{"agent", "tell how a backend is doing, register and drain it", runAgent},
		{"check", "validate configuration files and print what they mean", runCheck},
		{"explain", "show why a sidecar picks the endpoint it picks", runExplain},
		{"status", "show a running sidecar's endpoints", runStatus},
		{"simulate", "compare policies and limits on a simulated fleet", runSimulate},
		{"demo", "watch the whole thing work on a real Consul", runDemo},
		{"version", "print the version", runVersion},
	}
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	hurry := newHurry()
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		<-signals
		if hurry.up() {
			<-signals
		}
		os.Exit(1) // the second signal does not wait, or where it hurries, the third
	}()
	os.Exit(run(context.WithValue(ctx, hurryKey{}, hurry), os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// hurry is what becomes of the second signal.
type hurry struct {
	ctx   context.Context
	end   context.CancelFunc
	taken atomic.Bool
}

type hurryKey struct{}

func newHurry() *hurry {
	h := &hurry{}
	h.ctx, h.end = context.WithCancel(context.Background())
	return h
}

// up passes the second signal on; false where nobody takes it.
func (h *hurry) up() bool {
	h.end()
	return h.taken.Load()
}

// hurried returns a context that ends at the second signal, which does not end the
// program from now on: whoever calls it has to end soon after.
func hurried(ctx context.Context) context.Context {
	h, ok := ctx.Value(hurryKey{}).(*hurry)
	if !ok {
		return context.Background()
	}
	h.taken.Store(true)
	return h.ctx
}

func run(ctx context.Context, args []string, s streams) int {
	if len(args) == 0 {
		usage(s.err)
		return 2
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(s.out)
		return 0
	}
	switch args[0] { // what the demo starts; of no use to anybody else
	case "demo-backend":
		return demo.RunBackend(ctx, args[1:], s.err)
	case "demo-burn":
		return demo.RunBurner(ctx, args[1:], s.err)
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], s)
		}
	}
	fmt.Fprintf(s.err, "outrigger: there is no command %q\n\n", args[0])
	usage(s.err)
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: outrigger COMMAND [flags]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.synopsis)
	}
	fmt.Fprint(w, "\n\"outrigger COMMAND -h\" shows a command's flags.\n")
}

// version is the module's version as the go command stamped it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

func runVersion(_ context.Context, _ []string, s streams) int {
	fmt.Fprintf(s.out, "outrigger %s\n", version())
	return 0
}
