//go:build !unix

package statefile

import (
	"io/fs"
	"os"
)

func open(path string) (*os.File, error) { return os.Open(path) }

// private cannot tell here who may write to the file.
func private(fs.FileInfo) error { return nil }

// tight cannot tell here who may write to the directory.
func tight(string) error { return nil }
