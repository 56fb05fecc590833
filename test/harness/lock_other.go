//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package harness

import (
	"errors"
	"fmt"
	"os"
)

func tryLock(*os.File) (bool, error) {
	return false, fmt.Errorf("file locks: %w on this system", errors.ErrUnsupported)
}
