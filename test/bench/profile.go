package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// profile takes a CPU profile of our sidecar under all closed-loop cases in
// turn, for `go build -pgo`. The profiled program is one of ours around the
// same packages: a profile knows functions by name, so it fits the product,
// which needs no switch for this.
func (b *bench) profile(ctx context.Context, file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	// Without an older profile, so that the result does not depend on it.
	program := filepath.Join(b.dir, "profiled")
	if err := b.build(ctx, "outrigger/test/bench/profiled", program, "off"); err != nil {
		return err
	}
	raw := filepath.Join(b.dir, "cpu.pprof")
	b.binary, b.profiling = program, raw
	if err := b.startProxies(ctx, []string{ours}, variant{}); err != nil {
		return err
	}
	for _, c := range closedCases() {
		b.say("profiling %s", c.name)
		if _, err := b.sample(ctx, b.proxy(ours), c.load, b.opt.seconds); err != nil {
			return fmt.Errorf("case %s: %w\n%s", c.name, err, b.logOf(ours))
		}
	}
	// It writes the profile when it ends.
	p := b.proxy(ours).proc
	if err := p.Stop(30 * time.Second); err != nil {
		return err
	}
	if code := p.Wait(); code != 0 {
		return fmt.Errorf("the profiled sidecar ended with exit code %d\n%s", code, b.logOf(ours))
	}
	text, err := os.ReadFile(raw)
	if err != nil {
		return err
	}
	if len(text) < 1000 {
		return errors.New("the profile is all but empty")
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "wrote %d bytes to %s; go build uses a default.pgo beside the main package by itself\n", len(text), file)
	return nil
}
