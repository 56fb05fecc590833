package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
)

// starting returns a context for waiting until an agent has started: it ends after
// startLimit and when the agent does, for that must also end a request that another
// program, which has the port, leaves unanswered. before says what is waited for.
func starting(ctx context.Context, proc *Process, before string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("%v went by before %s", startLimit, before))
	ctx, ended := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-proc.Done():
			ended(fmt.Errorf("it ended with exit code %d before %s", proc.Wait(), before))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { ended(nil); cancel() }
}

// withLog adds to the error of an agent that did not start what it wrote into its
// log from an offset on. It is errPortTaken if that says so.
func withLog(err error, path string, offset int64) error {
	said := logFrom(path, offset)
	if bytes.Contains(said, []byte(errPortTaken.Error())) {
		err = fmt.Errorf("%w: %w", errPortTaken, err)
	}
	return fmt.Errorf("%w; its log ends with\n%s", err, tail(said))
}

// logFrom reads a log from an offset on; what cannot be read is said in its place.
func logFrom(path string, offset int64) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	return data[min(offset, int64(len(data))):]
}
