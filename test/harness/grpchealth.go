package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// BuildGRPCHealth builds the program of the module test/grpchealth, grpc-go's own
// server with its own health service, into the folder dir and returns its path. Where
// its modules can neither be found nor downloaded the error is a *GRPCHealthUnavailable.
func BuildGRPCHealth(ctx context.Context, dir string) (path string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("build grpchealth: %w", err)
	}
	b := goBuild{
		name: "grpchealth", dir: filepath.Join(root, "test", "grpchealth"), pkg: ".",
		out: filepath.Join(dir, exeName("grpchealth")), say: Say(nil).orSilent(),
		args: []string{"-ldflags=-s -w"},
		env:  []string{"CGO_ENABLED=0"}, // so that it needs no C compiler
	}
	goCmd, err := findGo()
	if err != nil {
		return "", fmt.Errorf("build grpchealth: %w", err)
	}
	cmd := exec.CommandContext(ctx, goCmd, "mod", "download", "google.golang.org/grpc")
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "PWD="+b.dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return "", &GRPCHealthUnavailable{fmt.Errorf("go mod download in %s: %w:\n%s", b.dir, err, tail(stderr.Bytes()))}
	}
	return b.out, b.run(ctx)
}

// GRPCHealthUnavailable says that grpc-go is not at hand: most likely there is neither
// a network nor a filled module cache.
type GRPCHealthUnavailable struct{ err error }

// Error implements error.
func (e *GRPCHealthUnavailable) Error() string { return "grpchealth: " + e.err.Error() }

// Unwrap returns the cause.
func (e *GRPCHealthUnavailable) Unwrap() error { return e.err }
