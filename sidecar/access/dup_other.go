//go:build !unix

package access

import (
	"errors"
	"os"
)

// duplicate returns another handle of the same open file.
func duplicate(f *os.File) (*os.File, error) {
	return nil, &os.PathError{Op: "dup", Path: f.Name(), Err: errors.ErrUnsupported}
}
